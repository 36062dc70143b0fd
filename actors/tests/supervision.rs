//! Supervisors, watches, timers and pools. Numbers are those of the invariants in `docs/actors.md`.

use dmrpc_actors::{
    ActorError, ActorRef, Beside, Context, Exit, MailboxOptions, Pool, Restart, Strategy, Supervision, Supervisor,
    System, actor,
};
use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// Tells when it begins and ends; crashes, hangs and leaves when told to.
struct Part {
    name: &'static str,
    events: mpsc::UnboundedSender<String>,
    gate: Arc<Semaphore>,
    handled: u32,
    ticking: Option<Beside>,
}

#[actor(local)]
impl Part {
    #[started]
    fn begin(&mut self) {
        self.event("begins");
    }

    #[stopped]
    fn end(&mut self, exit: &Exit) {
        self.event(&format!("ends: {exit:?}"));
    }

    #[message]
    fn count(&mut self) -> u32 {
        self.handled += 1;
        self.handled
    }

    #[message]
    fn explode(&mut self, text: String) {
        panic!("{text}");
    }

    /// Waits for a permit of the gate.
    #[message]
    async fn wait(&mut self) {
        self.event("waits");
        self.gate.acquire().await.expect("never closed").forget();
    }

    #[message]
    fn leave(&mut self, cx: &mut Context<Self>) {
        cx.stop();
    }

    /// Leaves when `other` has failed.
    #[message]
    fn link(&mut self, cx: &mut Context<Self>, other: ActorRef<Self>) {
        cx.link(&other);
    }

    /// Reports the end of `other`.
    #[message]
    fn watch(&mut self, cx: &mut Context<Self>, other: ActorRef<Self>) {
        cx.watch(&other, |exit| PartSaw { what: format!("{exit:?}") });
    }

    /// Ticks every second, and sounds an alarm after three and a half.
    #[message]
    fn tick(&mut self, cx: &mut Context<Self>) {
        self.ticking = Some(cx.every(Duration::from_secs(1), || PartSaw { what: "a tick".into() }));
        cx.after(Duration::from_millis(3500), PartSaw { what: "the alarm".into() });
    }

    #[message]
    fn saw(&mut self, what: String) {
        if what == "the alarm" {
            self.ticking.take().expect("it ticks").cancel();
        }
        self.event(&format!("saw {what}"));
    }

    fn event(&self, event: &str) {
        let _ = self.events.send(format!("{} {event}", self.name));
    }
}

struct Rig {
    system: System,
    supervisor: Supervisor,
    gate: Arc<Semaphore>,
    sender: mpsc::UnboundedSender<String>,
    events: mpsc::UnboundedReceiver<String>,
}

async fn rig(supervision: Supervision) -> Rig {
    let system = System::builder().build().await.expect("no address");
    let supervisor = system.supervisor(supervision);
    let (sender, events) = mpsc::unbounded_channel();
    Rig { system, supervisor, gate: Arc::new(Semaphore::new(0)), sender, events }
}

impl Rig {
    fn make(&self, name: &'static str) -> impl FnMut() -> Part + Send + 'static {
        let (events, gate) = (self.sender.clone(), Arc::clone(&self.gate));
        move || Part { name, events: events.clone(), gate: Arc::clone(&gate), handled: 0, ticking: None }
    }

    /// A child that has begun.
    async fn child(&mut self, name: &'static str) -> ActorRef<Part> {
        let child = self.supervisor.spawn(self.make(name));
        self.expect(&[&format!("{name} begins")]).await;
        child
    }

    /// The next events are these.
    async fn expect(&mut self, expected: &[&str]) {
        for expected in expected {
            let event = tokio::time::timeout(Duration::from_secs(600), self.events.recv()).await;
            assert_eq!(event.expect("an event comes").expect("open"), *expected);
        }
    }
}

fn crashed<T: std::fmt::Debug>(answer: Result<T, ActorError>, text: &str) {
    assert_eq!(answer.expect_err("it crashes"), ActorError::Crashed(text.into()));
}

/// Invariant 11: ref, name and queue outlast a crash, and only the message that crashed is lost.
#[tokio::test(start_paused = true)]
async fn refs_names_and_queues_outlast_a_restart() {
    let mut rig = rig(Supervision::default()).await;
    let part = rig.child("a").await;
    rig.system.register("part", &part).expect("free");
    assert_eq!(part.count().await, Ok(1));
    part.tell_wait().await.expect("taken");
    rig.expect(&["a waits"]).await;
    let answers = tokio::spawn({
        let part = part.clone();
        async move { tokio::join!(part.explode("boom".into()).into_future(), part.count().into_future()) }
    });
    while part.waiting() != Some(2) {
        tokio::task::yield_now().await;
    }
    rig.gate.add_permits(1);
    let (exploded, counted) = answers.await.expect("no panic");
    crashed(exploded, "boom");
    assert_eq!(counted, Ok(1), "a new one counts from the start, and gets what was in the queue");
    rig.expect(&["a begins"]).await;
    assert_eq!(rig.system.find::<Part>("part").expect("the name stays").count().await, Ok(2));
}

/// Invariant 12.
#[tokio::test(start_paused = true)]
async fn too_many_restarts_end_the_supervisor_and_all_of_its_children() {
    let mut rig = rig(Supervision::default().budget(2, Duration::from_secs(5))).await;
    let (part, other) = (rig.child("a").await, rig.child("b").await);
    for _ in 0..2 {
        crashed(part.explode("again".into()).await, "again");
        rig.expect(&["a begins"]).await;
    }
    tokio::time::advance(Duration::from_secs(6)).await;
    for _ in 0..2 {
        crashed(part.explode("later".into()).await, "later");
        rig.expect(&["a begins"]).await;
    }
    crashed(part.explode("once more".into()).await, "once more");
    rig.expect(&["b ends: Stopped"]).await;
    let Exit::Crashed(why) = rig.supervisor.ended().await else { panic!("it gave up") };
    assert!(why.contains("more than 2 restarts within 5s") && why.contains("once more"), "{why}");
    assert_eq!(other.count().await, Err(ActorError::Crashed(why)), "it fell with the others");
    let late = rig.supervisor.spawn(rig.make("late"));
    assert!(matches!(late.ended().await, Exit::Crashed(_)), "nothing begins any more");
}

/// Invariant 13.
#[tokio::test(start_paused = true)]
async fn those_started_later_fall_with_a_crash_and_begin_again() {
    let mut rig = rig(Supervision::default().strategy(Strategy::RestForOne)).await;
    let (a, b, c) = (rig.child("a").await, rig.child("b").await, rig.child("c").await);
    for part in [&a, &b, &c] {
        part.count().await.expect("it counts");
    }
    crashed(b.explode("boom".into()).await, "boom");
    rig.expect(&["c ends: Stopped", "b begins", "c begins"]).await;
    assert_eq!([a.count().await, b.count().await, c.count().await], [Ok(2), Ok(1), Ok(1)]);
    rig.supervisor.stop();
    rig.expect(&["c ends: Stopped", "b ends: Stopped", "a ends: Stopped"]).await;
    assert_eq!(rig.supervisor.ended().await, Exit::Stopped);
    assert_eq!(a.count().await, Err(ActorError::Stopped));
}

/// Invariant 13: a sibling that hangs in a handler is cut off.
#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_fall_is_killed() {
    let supervision = Supervision::default().strategy(Strategy::OneForAll).patience(Duration::from_secs(2));
    let mut rig = rig(supervision).await;
    let (a, b) = (rig.child("a").await, rig.child("b").await);
    let hanging = {
        let a = a.clone();
        tokio::spawn(async move { a.wait().await })
    };
    rig.expect(&["a waits"]).await;
    crashed(b.explode("boom".into()).await, "boom");
    rig.expect(&["a begins", "b begins"]).await;
    assert_eq!(hanging.await.expect("no panic"), Err(ActorError::Stopped));
    assert_eq!(a.count().await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn policies_say_who_is_begun_anew() {
    let mut rig = rig(Supervision::default()).await;
    let spawn =
        |rig: &Rig, name, restart| rig.supervisor.spawn_with(rig.make(name), restart, MailboxOptions::default());
    let always = spawn(&rig, "always", Restart::Always);
    rig.expect(&["always begins"]).await;
    let on_crash = spawn(&rig, "on crash", Restart::OnCrash);
    rig.expect(&["on crash begins"]).await;
    let never = spawn(&rig, "never", Restart::Never);
    rig.expect(&["never begins"]).await;
    always.leave().await.expect("it leaves");
    rig.expect(&["always ends: Stopped", "always begins"]).await;
    on_crash.leave().await.expect("it leaves");
    rig.expect(&["on crash ends: Stopped"]).await;
    assert_eq!(on_crash.ended().await, Exit::Stopped);
    crashed(never.explode("boom".into()).await, "boom");
    assert_eq!(never.ended().await, Exit::Crashed("boom".into()));
    assert_eq!(always.count().await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_gives_up_is_begun_anew_by_its_own() {
    let mut rig = rig(Supervision::default()).await;
    let outer = rig.supervisor.clone();
    rig.supervisor = outer.supervisor(Supervision::default().budget(0, Duration::from_secs(5)), Restart::OnCrash);
    let (a, b) = (rig.child("a").await, rig.child("b").await);
    for _ in 0..3 {
        crashed(a.explode("boom".into()).await, "boom");
        rig.expect(&["b ends: Stopped", "a begins", "b begins"]).await;
    }
    crashed(a.explode("boom".into()).await, "boom");
    rig.expect(&["b ends: Stopped"]).await;
    let Exit::Crashed(why) = outer.ended().await else { panic!("it gave up") };
    assert!(why.contains("more than 3 restarts"), "{why}");
    assert_eq!(rig.supervisor.ended().await, Exit::Crashed(why.clone()));
    assert_eq!(b.ended().await, Exit::Crashed(why));
}

#[tokio::test(start_paused = true)]
async fn a_restart_waits_as_long_as_it_is_told_to_and_messages_with_it() {
    let seconds = Duration::from_secs;
    let supervision = Supervision::default().budget(5, seconds(600)).backoff(seconds(60), seconds(90));
    let mut rig = rig(supervision).await;
    let part = rig.child("a").await;
    for seconds in [60, 90] {
        let begun = tokio::time::Instant::now();
        crashed(part.explode("boom".into()).await, "boom");
        assert_eq!(part.count().deadline(Duration::from_secs(1000)).await, Ok(1));
        rig.expect(&["a begins"]).await;
        assert_eq!(begun.elapsed().as_secs(), seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_supervised_actors_and_those_that_wait_to_begin() {
    let mut rig = rig(Supervision::default().backoff(Duration::from_secs(3600), Duration::from_secs(3600))).await;
    let (a, b) = (rig.child("a").await, rig.child("b").await);
    crashed(a.explode("boom".into()).await, "boom");
    let begun = tokio::time::Instant::now();
    rig.system.shutdown(Duration::from_secs(600)).await;
    assert!(begun.elapsed() < Duration::from_secs(600), "nobody was cut off");
    rig.expect(&["b ends: Stopped"]).await;
    assert_eq!(rig.supervisor.ended().await, Exit::Stopped);
    assert!(matches!(a.ended().await, Exit::Crashed(_)));
    assert_eq!(b.ended().await, Exit::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_maker_that_panics_counts_as_a_crash() {
    let rig = rig(Supervision::default()).await;
    let made = Arc::new(AtomicU32::new(0));
    let (counted, mut make) = (Arc::clone(&made), rig.make("a"));
    let part = rig.supervisor.spawn(move || {
        assert!(counted.fetch_add(1, Ordering::Relaxed) > 0, "not yet");
        make()
    });
    assert_eq!(part.count().await, Ok(1));
    assert_eq!(made.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn ends_are_told_to_those_who_watch_and_end_those_who_are_linked() {
    let mut rig = rig(Supervision::default()).await;
    let (watcher, linked) = (rig.child("watcher").await, rig.child("linked").await);
    let (one, other) = (rig.system.spawn(rig.make("one")()), rig.system.spawn(rig.make("other")()));
    rig.expect(&["one begins", "other begins"]).await;
    watcher.watch(one.clone()).await.expect("it watches");
    linked.link(one.clone()).await.expect("it is linked");
    linked.link(other.clone()).await.expect("it is linked");
    drop(other);
    rig.expect(&["other ends: Unreferenced"]).await;
    assert_eq!(linked.count().await, Ok(1), "an end in peace ends nobody else");
    crashed(one.explode("boom".into()).await, "boom");
    let mut events = [rig.events.recv().await.expect("open"), rig.events.recv().await.expect("open")];
    events.sort();
    assert_eq!(events, ["linked ends: Stopped", "watcher saw Crashed(\"boom\")"]);
    watcher.watch(one).await.expect("it watches");
    rig.expect(&["watcher saw Crashed(\"boom\")"]).await;
}

#[tokio::test(start_paused = true)]
async fn timers_tick_until_they_are_cancelled_and_end_with_their_actor() {
    let mut rig = rig(Supervision::default()).await;
    let part = rig.child("a").await;
    part.tick().await.expect("it ticks");
    rig.expect(&["a saw a tick", "a saw a tick", "a saw a tick", "a saw the alarm"]).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(rig.events.is_empty(), "it ticks no more");
    part.tick().await.expect("it ticks");
    rig.expect(&["a saw a tick"]).await;
    crashed(part.explode("boom".into()).await, "boom");
    rig.expect(&["a begins"]).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(rig.events.is_empty(), "timers end with their incarnation");
}

#[tokio::test(start_paused = true)]
async fn a_pool_spreads_work_by_turn_by_load_and_by_key() {
    let mut rig = rig(Supervision::default()).await;
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        members.push(rig.child(name).await);
    }
    let pool: Pool<Part> = members.into_iter().collect();
    for _ in 0..3 {
        assert_eq!(pool.next().count().await, Ok(1));
    }
    let sticky = pool.of_key("key");
    assert_eq!([sticky.count().await, pool.of_key("key").count().await], [Ok(2), Ok(3)]);
    // One is busy, with messages behind the one that it handles.
    let busy = &pool.members()[0];
    busy.tell_wait().await.expect("taken");
    rig.expect(&["a waits"]).await;
    for _ in 0..5 {
        busy.tell_count().await.expect("taken");
    }
    for _ in 0..30 {
        assert_eq!(pool.idlest().waiting(), Some(0));
    }
}
