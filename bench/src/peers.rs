//! Other actor systems: the same adder, the same capacity where there is one, the same runtime. actix brings its own.

use crate::actors_here::in_task;
use crate::statistics::{Contestant, Effort, Summary, compare};
use actix::Actor as _;
use kameo::actor::Spawn as _;
use std::hint::black_box;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// (kind, name, nanoseconds) of each.
pub(crate) fn measure(effort: Effort, runtime: &Runtime) -> Vec<(&'static str, &'static str, Summary)> {
    let theirs_k = runtime.block_on(async { Kameo::spawn(Kameo { sum: 0 }) });
    let (theirs_r, _running) =
        runtime.block_on(async { ractor::Actor::spawn(None, Ractor, ()).await }).expect("it starts");
    let system = actix::System::new();
    let theirs_a = system.block_on(async { Actix { sum: 0 }.start() });
    let [kameo_ask, kameo_tell, ractor_ask, ractor_tell, actix_ask, actix_tell] = compare(
        effort,
        [
            Contestant::timed(|n| in_task(runtime, kameo_asks(theirs_k.clone(), n))),
            Contestant::timed(|n| in_task(runtime, kameo_tells(theirs_k.clone(), n))),
            Contestant::timed(|n| in_task(runtime, ractor_asks(theirs_r.clone(), n))),
            Contestant::timed(|n| in_task(runtime, ractor_tells(theirs_r.clone(), n))),
            Contestant::timed(|n| in_system(&system, actix_asks(theirs_a.clone(), n))),
            Contestant::timed(|n| in_system(&system, actix_tells(theirs_a.clone(), n))),
        ],
    );
    vec![
        ("ask", "kameo", kameo_ask),
        ("ask", "ractor", ractor_ask),
        ("ask", "actix (its one thread)", actix_ask),
        ("tell", "kameo", kameo_tell),
        ("tell", "ractor", ractor_tell),
        ("tell", "actix (its one thread)", actix_tell),
    ]
}

#[derive(kameo::Actor)]
struct Kameo {
    sum: u64,
}

struct Add(u64);
struct Note(u64);

impl kameo::message::Message<Add> for Kameo {
    type Reply = u64;

    async fn handle(&mut self, Add(n): Add, _: &mut kameo::message::Context<Self, Self::Reply>) -> u64 {
        self.sum = self.sum.wrapping_add(n);
        self.sum
    }
}

impl kameo::message::Message<Note> for Kameo {
    type Reply = ();

    async fn handle(&mut self, Note(n): Note, _: &mut kameo::message::Context<Self, Self::Reply>) {
        self.sum = self.sum.wrapping_add(n);
    }
}

async fn kameo_asks(actor: kameo::actor::ActorRef<Kameo>, n: u64) {
    for i in 0..n {
        black_box(actor.ask(Add(i)).await.expect("it answers"));
    }
}

async fn kameo_tells(actor: kameo::actor::ActorRef<Kameo>, n: u64) {
    for i in 0..n {
        actor.tell(Note(i)).await.expect("it runs");
    }
    kameo_asks(actor, 1).await;
}

struct Ractor;

enum RactorMessage {
    Add(u64, ractor::RpcReplyPort<u64>),
    Note(u64),
}

impl ractor::Actor for Ractor {
    type Msg = RactorMessage;
    type State = u64;
    type Arguments = ();

    async fn pre_start(
        &self,
        _: ractor::ActorRef<Self::Msg>,
        (): (),
    ) -> Result<Self::State, ractor::ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ractor::ActorRef<Self::Msg>,
        message: Self::Msg,
        sum: &mut Self::State,
    ) -> Result<(), ractor::ActorProcessingErr> {
        match message {
            RactorMessage::Add(n, reply) => {
                *sum = sum.wrapping_add(n);
                reply.send(*sum)?;
            }
            RactorMessage::Note(n) => *sum = sum.wrapping_add(n),
        }
        Ok(())
    }
}

async fn ractor_asks(actor: ractor::ActorRef<RactorMessage>, n: u64) {
    for i in 0..n {
        black_box(ractor::call!(actor, RactorMessage::Add, i).expect("it answers"));
    }
}

async fn ractor_tells(actor: ractor::ActorRef<RactorMessage>, n: u64) {
    for i in 0..n {
        actor.cast(RactorMessage::Note(i)).expect("it runs");
    }
    ractor_asks(actor, 1).await;
}

struct Actix {
    sum: u64,
}

impl actix::Actor for Actix {
    type Context = actix::Context<Self>;
}

impl actix::Message for Add {
    type Result = u64;
}

impl actix::Message for Note {
    type Result = ();
}

impl actix::Handler<Add> for Actix {
    type Result = u64;

    fn handle(&mut self, Add(n): Add, _: &mut Self::Context) -> u64 {
        self.sum = self.sum.wrapping_add(n);
        self.sum
    }
}

impl actix::Handler<Note> for Actix {
    type Result = ();

    fn handle(&mut self, Note(n): Note, _: &mut Self::Context) {
        self.sum = self.sum.wrapping_add(n);
    }
}

fn in_system(system: &actix::SystemRunner, work: impl Future<Output = ()>) -> Duration {
    system.block_on(async {
        let start = Instant::now();
        work.await;
        start.elapsed()
    })
}

async fn actix_asks(actor: actix::Addr<Actix>, n: u64) {
    for i in 0..n {
        black_box(actor.send(Add(i)).await.expect("it answers"));
    }
}

async fn actix_tells(actor: actix::Addr<Actix>, n: u64) {
    for i in 0..n {
        actor.do_send(Note(i));
    }
    actix_asks(actor, 1).await;
}
