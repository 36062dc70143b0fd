//! Actors within one process. Numbers are those of the invariants in `docs/actors.md`.

use dmrpc_actors::{ActorError, ActorRef, Context, Exit, MailboxOptions, Origin, System, WhenFull, actor};
use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// Records what it is told; waits at a gate when asked to.
struct Recorder {
    seen: Vec<u64>,
    gate: Arc<Semaphore>,
    events: mpsc::UnboundedSender<String>,
}

#[actor(local)]
impl Recorder {
    #[started]
    fn begin(&mut self) {
        self.event("started");
    }

    #[stopped]
    async fn end(&mut self, exit: &Exit) {
        self.event(&format!("stopped: {exit:?}"));
    }

    /// Appends and gives how many there are.
    #[message]
    async fn record(&mut self, n: u64) -> usize {
        self.seen.push(n);
        self.seen.len()
    }

    #[message]
    fn seen(&self) -> Vec<u64> {
        self.seen.clone()
    }

    /// Waits for one permit of the gate.
    #[message]
    async fn wait(&mut self) {
        self.event("waiting");
        self.gate.acquire().await.expect("the gate is never closed").forget();
    }

    #[message]
    fn explode(&mut self, text: String) {
        panic!("{text}");
    }

    #[message]
    fn leave(&mut self, cx: &mut Context<Self>) {
        cx.stop();
    }

    #[message]
    fn own_ref(&mut self, cx: &mut Context<Self>) -> ActorRef<Self> {
        cx.actor_ref()
    }

    #[message]
    fn deadline(&mut self, cx: &mut Context<Self>) -> (Option<Instant>, bool) {
        (cx.deadline(), matches!(cx.origin(), Origin::Local))
    }

    /// Waits at the gate beside the actor.
    #[message(detached)]
    fn wait_beside(&mut self, n: u64) -> impl Future<Output = u64> {
        let gate = Arc::clone(&self.gate);
        async move {
            gate.acquire().await.expect("the gate is never closed").forget();
            assert_ne!(n, 666, "beside");
            n
        }
    }

    fn event(&self, event: &str) {
        let _ = self.events.send(event.to_owned());
    }
}

struct Rig {
    system: System,
    recorder: ActorRef<Recorder>,
    gate: Arc<Semaphore>,
    events: mpsc::UnboundedReceiver<String>,
}

async fn rig(capacity: usize, when_full: WhenFull) -> Rig {
    let system = System::builder().build().await.expect("no address");
    let gate = Arc::new(Semaphore::new(0));
    let (sender, events) = mpsc::unbounded_channel();
    let recorder = Recorder { seen: Vec::new(), gate: Arc::clone(&gate), events: sender };
    let options = MailboxOptions { capacity, when_full, max_detached: 2 };
    let recorder = system.spawn_with(recorder, options);
    Rig { system, recorder, gate, events }
}

impl Rig {
    /// The next event, which comes in any test that passes.
    async fn event(&mut self) -> String {
        tokio::time::timeout(Duration::from_secs(600), self.events.recv())
            .await
            .expect("an event comes")
            .expect("the actor lives")
    }

    /// Has the actor stand in a handler, with an empty mailbox behind it.
    async fn occupy(&mut self) {
        self.recorder.tell_wait().await.expect("taken");
        while self.event().await != "waiting" {}
    }
}

#[tokio::test]
async fn asks_are_answered_and_tells_are_handled() {
    let rig = rig(16, WhenFull::Wait).await;
    rig.recorder.tell_record(1).await.expect("taken");
    assert_eq!(rig.recorder.record(2).await, Ok(2));
    rig.recorder.record(3).tell().await.expect("taken");
    rig.recorder.tell_record(4).now().expect("there is room");
    assert_eq!(rig.recorder.seen().await, Ok(vec![1, 2, 3, 4]));
}

/// Invariant 1, with far more messages than there is room for, and the sender waiting for it.
#[tokio::test]
async fn messages_of_a_sender_stay_in_order() {
    let rig = rig(4, WhenFull::Wait).await;
    let senders = (0..4_u64).map(|sender| {
        let recorder = rig.recorder.clone();
        tokio::spawn(async move {
            for n in 0..500 {
                recorder.tell_record(sender * 1000 + n).await.expect("waits for room");
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.expect("sends");
    }
    let seen = rig.recorder.seen().await.expect("lives");
    assert_eq!(seen.len(), 2000);
    for sender in 0..4 {
        let own: Vec<_> = seen.iter().filter(|n| **n / 1000 == sender).collect();
        assert!(own.is_sorted(), "sender {sender}");
    }
}

/// Invariant 1: a sender that does not wait between its messages.
#[tokio::test]
async fn concurrent_asks_of_one_task_stay_in_order() {
    let mut rig = rig(2, WhenFull::Wait).await;
    rig.occupy().await;
    let mut asks: Vec<_> = (0..20).map(|n| Box::pin(rig.recorder.record(n).into_future())).collect();
    for ask in &mut asks {
        assert!(futures_poll(ask).await.is_none());
    }
    rig.gate.add_permits(1);
    // The last is awaited first: the order is that of sending.
    for ask in asks.into_iter().rev() {
        ask.await.expect("answered");
    }
    assert_eq!(rig.recorder.seen().await, Ok((0..20).collect()));
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| match std::pin::Pin::new(&mut *future).poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

/// Invariant 2: stop overtakes whatever waits, also what was already taken out of the mailbox.
#[tokio::test]
async fn stop_does_not_wait_behind_data() {
    let mut rig = rig(1024, WhenFull::Wait).await;
    rig.occupy().await;
    for n in 0..100 {
        rig.recorder.tell_record(n).await.expect("taken");
    }
    let seen = rig.recorder.seen().into_future();
    let mut seen = Box::pin(seen);
    assert!(futures_poll(&mut seen).await.is_none());
    rig.recorder.stop();
    rig.gate.add_permits(1);
    assert_eq!(seen.await, Err(ActorError::Stopped));
    assert_eq!(rig.recorder.ended().await, Exit::Stopped);
    while rig.event().await != "stopped: Stopped" {}
    assert_eq!(rig.recorder.record(1).await, Err(ActorError::Stopped));
    assert_eq!(rig.recorder.tell_record(1).await, Err(ActorError::Stopped));
}

/// Invariant 6, the gentle way.
#[tokio::test]
async fn drain_handles_what_has_come() {
    let mut rig = rig(2, WhenFull::Wait).await;
    rig.occupy().await;
    let mut asks: Vec<_> = (0..10).map(|n| Box::pin(rig.recorder.record(n).into_future())).collect();
    for ask in &mut asks {
        assert!(futures_poll(ask).await.is_none());
    }
    rig.recorder.drain();
    assert_eq!(rig.recorder.record(99).await, Err(ActorError::Stopped));
    rig.gate.add_permits(1);
    for (place, ask) in asks.into_iter().enumerate() {
        assert_eq!(ask.await, Ok(place + 1));
    }
    assert_eq!(rig.recorder.ended().await, Exit::Stopped);
}

/// Invariant 3.
#[tokio::test(start_paused = true)]
async fn an_ask_ends_at_its_deadline() {
    let mut rig = rig(16, WhenFull::Wait).await;
    rig.occupy().await;
    let begun = Instant::now();
    let asked = rig.recorder.record(1).deadline(Duration::from_secs(7)).await;
    assert_eq!((asked, begun.elapsed().as_secs()), (Err(ActorError::Deadline), 7));
    let asked = rig.recorder.record(2).await;
    assert_eq!((asked, begun.elapsed().as_secs()), (Err(ActorError::Deadline), 37));
    // Invariant 5: nobody waits for them, so they are not handled.
    rig.gate.add_permits(1);
    assert_eq!(rig.recorder.seen().await, Ok(vec![]));
}

/// Invariant 5.
#[tokio::test]
async fn a_dropped_ask_is_not_handled_unless_it_was_begun() {
    let mut rig = rig(16, WhenFull::Wait).await;
    rig.occupy().await;
    let mut dropped = Box::pin(rig.recorder.record(1).into_future());
    assert!(futures_poll(&mut dropped).await.is_none());
    drop(dropped);
    rig.gate.add_permits(1);
    assert_eq!(rig.recorder.record(2).await, Ok(1));
}

#[tokio::test]
async fn a_handler_knows_its_deadline() {
    let rig = rig(16, WhenFull::Wait).await;
    let deadline = Instant::now() + Duration::from_secs(600);
    assert_eq!(rig.recorder.deadline().until(Some(deadline)).await, Ok((Some(deadline), true)));
}

/// Invariant 4: waiting senders have a deadline, and leave no message behind.
#[tokio::test(start_paused = true)]
async fn full_wait() {
    let mut rig = rig(2, WhenFull::Wait).await;
    rig.occupy().await;
    rig.recorder.tell_record(1).await.expect("room");
    rig.recorder.tell_record(2).await.expect("room");
    assert_eq!(rig.recorder.tell_record(3).now(), Err(ActorError::MailboxFull));
    let waited = rig.recorder.tell_record(4).deadline(Duration::from_secs(1)).await;
    assert_eq!(waited, Err(ActorError::Deadline));
    let mut waiting = Box::pin(rig.recorder.tell_record(5).into_future());
    assert!(futures_poll(&mut waiting).await.is_none());
    rig.gate.add_permits(1);
    assert_eq!(waiting.await, Ok(()));
    assert_eq!(rig.recorder.seen().await, Ok(vec![1, 2, 5]));
}

/// Invariant 4.
#[tokio::test]
async fn full_reject() {
    let mut rig = rig(2, WhenFull::Reject).await;
    rig.occupy().await;
    rig.recorder.tell_record(1).await.expect("room");
    rig.recorder.tell_record(2).await.expect("room");
    assert_eq!(rig.recorder.tell_record(3).await, Err(ActorError::MailboxFull));
    assert_eq!(rig.recorder.record(4).await, Err(ActorError::MailboxFull));
    rig.gate.add_permits(1);
    while rig.recorder.waiting() != Some(0) {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.recorder.seen().await, Ok(vec![1, 2]));
}

/// Invariant 4.
#[tokio::test]
async fn full_drop_oldest() {
    let mut rig = rig(2, WhenFull::DropOldest).await;
    rig.occupy().await;
    let mut oldest = Box::pin(rig.recorder.record(1).into_future());
    assert!(futures_poll(&mut oldest).await.is_none());
    rig.recorder.tell_record(2).await.expect("room");
    rig.recorder.tell_record(3).await.expect("taken");
    assert_eq!(oldest.await, Err(ActorError::MailboxFull));
    assert_eq!(rig.recorder.dropped(), Some(1));
    rig.gate.add_permits(1);
    while rig.recorder.waiting() != Some(0) {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.recorder.seen().await, Ok(vec![2, 3]));
}

/// Invariant 4.
#[tokio::test]
async fn full_drop_newest() {
    let mut rig = rig(2, WhenFull::DropNewest).await;
    rig.occupy().await;
    rig.recorder.tell_record(1).await.expect("room");
    rig.recorder.tell_record(2).await.expect("room");
    rig.recorder.tell_record(3).await.expect("dropped without a word");
    assert_eq!(rig.recorder.record(4).await, Err(ActorError::MailboxFull));
    assert_eq!(rig.recorder.dropped(), Some(2));
    rig.gate.add_permits(1);
    while rig.recorder.waiting() != Some(0) {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.recorder.seen().await, Ok(vec![1, 2]));
}

/// Invariant 6: the caller gets the text, and nobody waits for ever.
#[tokio::test]
async fn a_panic_is_a_typed_error_for_everyone() {
    let mut rig = rig(2, WhenFull::Wait).await;
    rig.occupy().await;
    let mut fatal = Box::pin(rig.recorder.explode("boom".into()).into_future());
    assert!(futures_poll(&mut fatal).await.is_none());
    // In the mailbox, and in line before it.
    let mut others: Vec<_> = (0..4).map(|n| Box::pin(rig.recorder.record(n).into_future())).collect();
    for other in &mut others {
        assert!(futures_poll(other).await.is_none());
    }
    let mut waiting = Box::pin(rig.recorder.tell_record(9).into_future());
    assert!(futures_poll(&mut waiting).await.is_none());
    rig.gate.add_permits(1);
    let crashed = ActorError::Crashed("boom".into());
    assert_eq!(fatal.await, Err(crashed.clone()));
    for other in others {
        assert_eq!(other.await, Err(crashed.clone()));
    }
    assert_eq!(waiting.await, Err(crashed.clone()));
    assert_eq!(rig.recorder.record(1).await, Err(crashed));
    assert_eq!(rig.recorder.ended().await, Exit::Crashed("boom".into()));
}

#[tokio::test]
async fn the_exit_hook_hears_of_every_end() {
    let system = System::builder().build().await.expect("no address");
    let (events, _keep) = mpsc::unbounded_channel();
    let (exits, mut heard) = mpsc::unbounded_channel();
    let spawn = || {
        let recorder = Recorder { seen: Vec::new(), gate: Arc::new(Semaphore::new(0)), events: events.clone() };
        let exits = exits.clone();
        system.spawn_watched(recorder, MailboxOptions::default(), move |exit| {
            let _ = exits.send(exit.clone());
        })
    };
    spawn().tell_explode("boom".into()).await.expect("taken");
    assert_eq!(heard.recv().await, Some(Exit::Crashed("boom".into())));
    spawn().tell_leave().await.expect("taken");
    assert_eq!(heard.recv().await, Some(Exit::Stopped));
    drop(spawn());
    assert_eq!(heard.recv().await, Some(Exit::Unreferenced));
    let kept = spawn();
    kept.tell_wait().await.expect("taken");
    system.shutdown(Duration::from_millis(10)).await;
    assert_eq!(heard.recv().await, Some(Exit::Killed));
}

/// The last ref dropped ends the actor, after what was sent by it.
#[tokio::test]
async fn an_actor_without_refs_ends_when_its_mailbox_is_empty() {
    let mut rig = rig(16, WhenFull::Wait).await;
    rig.occupy().await;
    let own = rig.recorder.clone();
    let sent = tokio::spawn(async move { own.record(1).await });
    tokio::task::yield_now().await;
    rig.gate.add_permits(1);
    let (_system, recorder, mut events) = (rig.system, rig.recorder, rig.events);
    assert_eq!(recorder.own_ref().await.expect("lives").seen().await.expect("lives").len(), 1);
    drop(recorder);
    assert_eq!(sent.await.expect("sends"), Ok(1));
    let mut last = String::new();
    while let Some(event) = events.recv().await {
        last = event;
    }
    assert_eq!(last, "stopped: Unreferenced");
}

#[tokio::test]
async fn detached_handlers_run_beside_the_actor() {
    let rig = rig(16, WhenFull::Wait).await;
    let mut first = Box::pin(rig.recorder.wait_beside(1).into_future());
    assert!(futures_poll(&mut first).await.is_none());
    // The actor is free.
    assert_eq!(rig.recorder.record(7).await, Ok(1));
    // With as many as may run at a time, the next message waits.
    let mut second = Box::pin(rig.recorder.wait_beside(2).into_future());
    assert!(futures_poll(&mut second).await.is_none());
    let mut third = Box::pin(rig.recorder.record(8).into_future());
    for _ in 0..20 {
        assert!(futures_poll(&mut third).await.is_none());
        tokio::task::yield_now().await;
    }
    rig.gate.add_permits(2);
    assert_eq!((first.await, second.await, third.await), (Ok(1), Ok(2), Ok(2)));
    // Its panic is its caller's alone.
    rig.gate.add_permits(1);
    let beside = rig.recorder.wait_beside(666).await;
    assert!(matches!(&beside, Err(ActorError::Crashed(text)) if text.contains("beside")), "{beside:?}");
    assert_eq!(rig.recorder.record(9).await, Ok(3));
}

#[tokio::test]
async fn names_belong_to_the_living() {
    let rig = rig(16, WhenFull::Wait).await;
    rig.system.register("rec", &rig.recorder).expect("free");
    let found = rig.system.find::<Recorder>("rec").expect("registered");
    assert_eq!(found.record(1).await, Ok(1));
    let other = rig.system.spawn(Counter::<u64> { sum: 0 });
    assert_eq!(rig.system.register("rec", &other), Err(ActorError::NameTaken("rec".into())));
    assert!(matches!(rig.system.find::<Counter<u64>>("rec"), Err(ActorError::UnknownActor(_))));
    found.stop();
    found.ended().await;
    assert!(matches!(rig.system.find::<Recorder>("rec"), Err(ActorError::UnknownActor(_))));
    rig.system.register("rec", &other).expect("free again");
    assert!(matches!(rig.system.register("~1", &other), Err(ActorError::Address { .. })));
}

/// A generic actor, reachable from outside.
struct Counter<T> {
    sum: T,
}

#[actor(name = "Sum")]
impl<T> Counter<T>
where
    T: std::ops::AddAssign + Copy + Send + serde::Serialize + serde::de::DeserializeOwned + 'static,
{
    #[message(id = 1)]
    fn add(&mut self, n: T) -> T {
        self.sum += n;
        self.sum
    }

    #[message]
    fn nothing(&mut self) {}

    #[message]
    fn bytes(&mut self, bytes: bytes::Bytes) -> bytes::Bytes {
        bytes
    }
}

#[tokio::test]
async fn actors_may_be_generic() {
    let system = System::builder().build().await.expect("no address");
    let counter = system.spawn(Counter { sum: 0.5_f64 });
    assert_eq!(counter.add(2.0).await, Ok(2.5));
    assert_eq!(counter.nothing().await, Ok(()));
    assert_eq!(<CounterAdd<u8> as dmrpc_actors::Message<Counter<u8>>>::ID, 1);
}

/// Shutdown handles what is queued, and cuts off what takes too long.
#[tokio::test]
async fn shutdown_drains_then_cuts_off() {
    let rig = rig(16, WhenFull::Wait).await;
    for n in 0..10 {
        rig.recorder.tell_record(n).await.expect("room");
    }
    let seen = tokio::spawn({
        let recorder = rig.recorder.clone();
        async move { recorder.seen().await }
    });
    tokio::task::yield_now().await;
    rig.system.shutdown(Duration::from_secs(600)).await;
    assert_eq!(seen.await.expect("no panic").map(|seen| seen.len()), Ok(10));
    assert_eq!(rig.recorder.record(1).await, Err(ActorError::Stopped));
}

/// A caller that is on no runtime.
#[test]
fn a_plain_thread_can_ask() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("starts");
    let system = runtime.block_on(System::builder().build()).expect("no address");
    let counter = system.spawn(Counter { sum: 0_u64 });
    let asked = dmrpc_objstore::block_on(counter.add(3).into_future());
    assert_eq!(asked, Ok(3));
}

/// Many tasks, one actor, several threads: nothing is lost, nothing handled twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_concurrent_asks() {
    let system = System::builder().build().await.expect("no address");
    let options = MailboxOptions { capacity: 32, ..MailboxOptions::default() };
    let counter = system.spawn_with(Counter { sum: 0_u64 }, options);
    let answered = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..5000_u64)
        .map(|_| {
            let (counter, answered) = (counter.clone(), Arc::clone(&answered));
            tokio::spawn(async move {
                counter.add(1).await.expect("answered");
                answered.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!((answered.load(Ordering::Relaxed), counter.add(0).await), (5000, Ok(5000)));
}

/// So many may wait for the end of one actor; those who gave up make room for others.
#[tokio::test]
async fn waits_for_an_end_have_a_limit_and_those_given_up_make_room() {
    async fn is_told<F: Future>(end: &mut std::pin::Pin<Box<F>>) -> Option<F::Output> {
        std::future::poll_fn(|cx| match end.as_mut().poll(cx) {
            std::task::Poll::Ready(exit) => std::task::Poll::Ready(Some(exit)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }
    let rig = rig(16, WhenFull::Wait).await;
    let mut waits: Vec<_> = (0..1 << 16).map(|_| Box::pin(rig.recorder.ended())).collect();
    for end in &mut waits {
        assert_eq!(is_told(end).await, None);
    }
    assert!(matches!(is_told(&mut Box::pin(rig.recorder.ended())).await, Some(Exit::Unreachable(_))));
    waits.truncate(1);
    let mut end = Box::pin(rig.recorder.ended());
    assert_eq!(is_told(&mut end).await, None);
    rig.recorder.stop();
    assert_eq!((end.await, waits.remove(0).await), (Exit::Stopped, Exit::Stopped));
}
