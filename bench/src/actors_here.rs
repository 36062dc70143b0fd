//! Actors within a process, beside the bare channels that one would write by hand, and beside other actor systems.

use crate::adder::Adder;
use crate::bench::Bench;
use crate::report::{Row, Target, Unit};
use crate::statistics::{Contestant, Summary, compare};
use dmrpc_actors::{ActorRef, MailboxOptions, System};
use std::hint::black_box;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

/// Messages in a channel or mailbox at most.
const CAPACITY: usize = 1024;
/// Ours, beside another actor system's.
const AHEAD: f64 = 1.0;

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let one = Builder::new_current_thread().enable_all().build()?;
    measure(bench, &one, "one thread")?;
    drop(one);
    let many = Builder::new_multi_thread().worker_threads(cores).enable_all().build()?;
    measure(bench, &many, &format!("{cores} threads"))
}

fn measure(bench: &mut Bench, runtime: &Runtime, threads: &str) -> anyhow::Result<()> {
    let system = runtime.block_on(System::builder().name("bench").build())?;
    let ours = {
        let _within = runtime.enter();
        let mailbox = MailboxOptions { capacity: CAPACITY, ..MailboxOptions::default() };
        system.spawn_with(Adder::new(), mailbox)
    };
    let bare = bare_actor(runtime);
    let [our_ask, bare_ask, our_tell, bare_tell] = compare(
        bench.effort,
        [
            Contestant::timed(|n| in_task(runtime, asks(ours.clone(), n))),
            Contestant::timed(|n| in_task(runtime, bare_asks(bare.clone(), n))),
            Contestant::timed(|n| in_task(runtime, tells(ours.clone(), n))),
            Contestant::timed(|n| in_task(runtime, bare_tells(bare.clone(), n))),
        ],
    );
    #[cfg(feature = "peers")]
    let peers = crate::peers::measure(bench.effort, runtime);
    #[cfg(not(feature = "peers"))]
    let peers = Vec::new();
    let bare = [("ask", "tokio mpsc + oneshot", bare_ask), ("tell", "tokio mpsc", bare_tell)];
    let others: Vec<(&str, &str, Summary)> = bare.into_iter().chain(peers).collect();
    let group = format!("actors in process, {threads}");
    for kind in ["ask", "tell"] {
        let ours = if kind == "ask" { our_ask } else { our_tell };
        for (_, name, other) in others.iter().filter(|(of, ..)| *of == kind) {
            let row = Row::new(&group, kind, Unit::Nanoseconds, ours).beside(*name, *other);
            let is_peer = !name.starts_with("tokio");
            bench.rows.push(if is_peer { row.target(Target::TimesAtMost(AHEAD)) } else { row });
        }
    }
    runtime.block_on(system.shutdown(Duration::from_secs(1)));
    Ok(())
}

/// Runs in a task of the runtime, as actors' callers do, and says how long it took.
pub(crate) fn in_task(runtime: &Runtime, work: impl Future<Output = ()> + Send + 'static) -> Duration {
    runtime.block_on(async {
        let timed = async {
            let start = Instant::now();
            work.await;
            start.elapsed()
        };
        tokio::spawn(timed).await.expect("does not panic")
    })
}

async fn asks(actor: ActorRef<Adder>, n: u64) {
    for i in 0..n {
        black_box(actor.add(i).await.expect("it answers"));
    }
}

/// Tells, then waits until they are handled.
async fn tells(actor: ActorRef<Adder>, n: u64) {
    for i in 0..n {
        actor.tell_note(i).await.expect("it runs");
    }
    asks(actor, 1).await;
}

/// What the bare task is sent.
enum Bare {
    Ask(u64, oneshot::Sender<u64>),
    Tell(u64),
}

fn bare_actor(runtime: &Runtime) -> mpsc::Sender<Bare> {
    let (sender, mut receiver) = mpsc::channel(CAPACITY);
    runtime.spawn(async move {
        let mut sum = 0u64;
        while let Some(message) = receiver.recv().await {
            match message {
                Bare::Ask(n, reply) => {
                    sum = sum.wrapping_add(n);
                    // Nobody waits any more: nothing to do.
                    let _ = reply.send(sum);
                }
                Bare::Tell(n) => sum = sum.wrapping_add(n),
            }
        }
    });
    sender
}

async fn bare_asks(actor: mpsc::Sender<Bare>, n: u64) {
    for i in 0..n {
        let (reply, answer) = oneshot::channel();
        actor.send(Bare::Ask(i, reply)).await.expect("it runs");
        black_box(answer.await.expect("it answers"));
    }
}

async fn bare_tells(actor: mpsc::Sender<Bare>, n: u64) {
    for i in 0..n {
        actor.send(Bare::Tell(i)).await.expect("it runs");
    }
    bare_asks(actor, 1).await;
}
