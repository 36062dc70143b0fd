//! One suite over every way to an actor: in this process, over shared memory, over TCP, plain and within TLS, over RDMA. Numbers are those of the invariants in
//! `docs/actors.md`.

use ::bytes::Bytes;
use dmrpc_actors::{ActorError, ActorRef, Context, Exit, MailboxOptions, Origin, Payload, System, WhenFull, actor};
use dmrpc_objstore::ObjectRef;
use dmrpc_test_authority::Authority;
use std::future::IntoFuture;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Longer than anything takes that passes.
const LONG: Duration = Duration::from_secs(120);

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Does what a suite needs.
struct Subject {
    seen: Vec<u64>,
    gate: Arc<Semaphore>,
    kept: Option<ActorRef<Subject>>,
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
enum Refusal {
    TooOld { limit: u32 },
}

#[actor]
impl Subject {
    #[message]
    fn record(&mut self, n: u64) -> usize {
        self.seen.push(n);
        self.seen.len()
    }

    #[message]
    fn seen(&self) -> Vec<u64> {
        self.seen.clone()
    }

    #[message]
    async fn wait(&mut self) {
        self.gate.acquire().await.expect("never closed").forget();
    }

    #[message(detached)]
    fn wait_beside(&mut self, n: u64) -> impl Future<Output = u64> {
        let gate = Arc::clone(&self.gate);
        async move {
            gate.acquire().await.expect("never closed").forget();
            n
        }
    }

    #[message]
    fn explode(&mut self, text: String) {
        panic!("{text}");
    }

    #[message]
    fn judge(&self, age: u32) -> Result<String, Refusal> {
        if age > 99 { Err(Refusal::TooOld { limit: 99 }) } else { Ok(format!("{age} is fine")) }
    }

    /// The bytes turned round, twice.
    #[message]
    fn mirror(&self, first: Bytes, middle: u8, second: Bytes) -> Bytes {
        let mut all = first.to_vec();
        all.push(middle);
        all.extend_from_slice(&second);
        all.reverse();
        all.into()
    }

    /// Bytes in a type that carries them in the payload.
    #[message]
    fn plain(&self, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    #[message]
    async fn open(&self, payload: Payload) -> Payload {
        let mut bytes = payload.open().await.expect("it is here").to_vec();
        bytes.reverse();
        bytes.into()
    }

    #[message]
    async fn sizes(&self, refs: Vec<ObjectRef>) -> (u64, Vec<ObjectRef>) {
        let mut sum = 0;
        for reference in &refs {
            sum += reference.get().await.expect("inline").len() as u64;
        }
        (sum, refs.into_iter().rev().collect())
    }

    #[message]
    fn keep(&mut self, other: ActorRef<Subject>) {
        self.kept = Some(other);
    }

    /// Calls the kept one.
    #[message]
    async fn call_kept(&mut self, n: u64, cx: &mut Context<Self>) -> Result<usize, String> {
        let kept = self.kept.as_ref().ok_or("nothing is kept")?;
        kept.record(n).until(cx.deadline()).await.map_err(|error| error.to_string())
    }

    #[message]
    fn give_kept(&mut self) -> Option<ActorRef<Subject>> {
        self.kept.take()
    }

    #[message]
    fn me(&mut self, cx: &mut Context<Self>) -> ActorRef<Subject> {
        cx.actor_ref()
    }

    #[message]
    fn is_remote(&mut self, cx: &mut Context<Self>) -> (bool, bool) {
        (matches!(cx.origin(), Origin::Remote(_)), cx.deadline().is_some())
    }
}

/// How the caller reaches the subject.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Local,
    InProcess,
    Unix,
    Tcp,
    Tls,
    Rdma,
}

/// Certificates of all systems here, which show them to each other.
fn certificates() -> &'static str {
    static CERTIFICATES: LazyLock<(Authority, String)> = LazyLock::new(|| {
        let authority = Authority::new();
        let files = format!("?{}&{}", authority.options(), authority.issue("host", &["127.0.0.1"]).options());
        (authority, files)
    });
    &CERTIFICATES.1
}

struct Rig {
    server: System,
    client: System,
    /// The server's actor as the client has it.
    subject: ActorRef<Subject>,
    gate: Arc<Semaphore>,
    _directory: tempfile::TempDir,
}

async fn rig(way: Way) -> Rig {
    rig_with(way, MailboxOptions::default()).await
}

async fn rig_with(way: Way, options: MailboxOptions) -> Rig {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = System::builder().name("server").max_message_bytes(4 << 20);
    server = match way {
        Way::Local => server,
        Way::InProcess => {
            server.listen(format!("inproc://{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
        }
        Way::Unix => server.listen(format!("unix://{}/server.sock", directory.path().display())),
        Way::Tcp => server.listen("tcp://127.0.0.1:0"),
        Way::Tls => server.listen(format!("tls://127.0.0.1:0{}", certificates())),
        Way::Rdma => server.listen("rdma://127.0.0.1:0"),
    };
    let server = server.build().await.expect("listens");
    let gate = Arc::new(Semaphore::new(0));
    let subject = Subject { seen: Vec::new(), gate: Arc::clone(&gate), kept: None };
    let subject = server.spawn_with(subject, options);
    server.register("subject", &subject).expect("free");
    if way == Way::Local {
        return Rig { client: server.clone(), server, subject, gate, _directory: directory };
    }
    drop(subject);
    let client = System::builder().name("client").max_message_bytes(4 << 20).build().await.expect("no address");
    let files = if way == Way::Tls { certificates() } else { "" };
    let subject = client.connect(&format!("{}{files}#subject", server.addresses()[0])).await.expect("connects");
    Rig { server, client, subject, gate, _directory: directory }
}

impl Rig {
    fn address(&self) -> String {
        self.server.addresses()[0].clone()
    }
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| match std::pin::Pin::new(&mut *future).poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

async fn calls(way: Way) {
    let rig = rig(way).await;
    assert_eq!(rig.subject.record(1).await, Ok(1));
    rig.subject.tell_record(2).await.expect("sent");
    assert_eq!(rig.subject.seen().await, Ok(vec![1, 2]));
    assert_eq!(rig.subject.judge(3).await, Ok(Ok("3 is fine".into())));
    assert_eq!(rig.subject.judge(100).await, Ok(Err(Refusal::TooOld { limit: 99 })));
    assert_eq!(rig.subject.is_remote().await, Ok((way != Way::Local, true)));
    assert_eq!(rig.subject.is_local(), way == Way::Local);
}

/// Invariant 1, beyond what the mailbox and the link hold at a time.
async fn order(way: Way) {
    let options = MailboxOptions { capacity: 8, ..MailboxOptions::default() };
    let rig = rig_with(way, options).await;
    for n in 0..3000 {
        rig.subject.tell_record(n).deadline(LONG).await.expect("sent");
    }
    assert_eq!(rig.subject.seen().deadline(LONG).await, Ok((0..3000).collect()));
}

/// A name is found again by who knows its ref, when another actor has it.
async fn successors(way: Way) {
    if way == Way::Local {
        return;
    }
    let rig = rig(way).await;
    assert_eq!(rig.subject.record(1).await, Ok(1));
    let first = rig.server.find::<Subject>("subject").expect("there");
    first.stop();
    first.ended().await;
    let stopped = rig.subject.record(2).await;
    assert_eq!(stopped, Err(ActorError::Stopped));
    assert_eq!(rig.subject.record(2).await, Err(ActorError::Stopped));
    let second = rig.server.spawn(Subject { seen: vec![], gate: Arc::default_gate(), kept: None });
    rig.server.register("subject", &second).expect("free again");
    assert_eq!(rig.subject.record(3).await, Ok(1));
    // Tells are lost until it is known that the actor is gone.
    second.stop();
    second.ended().await;
    let third = rig.server.spawn(Subject { seen: vec![], gate: Arc::default_gate(), kept: None });
    rig.server.register("subject", &third).expect("free again");
    rig.subject.tell_record(4).await.expect("sent");
    while third.seen().await.expect("lives").is_empty() {
        rig.subject.tell_record(5).await.expect("sent");
    }
}

async fn panics(way: Way) {
    let rig = rig(way).await;
    let mut waiting = Box::pin(rig.subject.wait().into_future());
    assert!(poll_once(&mut waiting).await.is_none());
    let mut fatal = Box::pin(rig.subject.explode("boom".into()).into_future());
    assert!(poll_once(&mut fatal).await.is_none());
    let mut behind = Box::pin(rig.subject.record(1).into_future());
    assert!(poll_once(&mut behind).await.is_none());
    rig.gate.add_permits(1);
    assert_eq!(waiting.await, Ok(()));
    assert_eq!(fatal.await, Err(ActorError::Crashed("boom".into())));
    let behind = behind.await;
    assert!(matches!(behind, Err(ActorError::Crashed(_) | ActorError::Stopped)), "{behind:?}");
    let later = rig.subject.record(1).await;
    assert!(matches!(later, Err(ActorError::Crashed(_) | ActorError::Stopped)), "{later:?}");
    // The system lives on.
    let other = rig.server.spawn(Subject { seen: vec![], gate: Arc::default_gate(), kept: None });
    rig.server.register("subject", &other).expect("free again");
    if way != Way::Local {
        let found: ActorRef<Subject> = rig.client.connect(&format!("{}#subject", rig.address())).await.expect("there");
        assert_eq!(found.record(5).await, Ok(1));
    }
}

trait DefaultGate {
    fn default_gate() -> Self;
}

impl DefaultGate for Arc<Semaphore> {
    fn default_gate() -> Self {
        Arc::new(Semaphore::new(0))
    }
}

/// Invariants 3 and 5.
async fn deadlines(way: Way) {
    let rig = rig(way).await;
    assert_eq!(rig.subject.wait().deadline(Duration::from_millis(20)).await, Err(ActorError::Deadline));
    // The first handler has begun, and stands at the gate; this one has not.
    assert_eq!(rig.subject.record(1).deadline(Duration::from_millis(20)).await, Err(ActorError::Deadline));
    let mut dropped = Box::pin(rig.subject.record(2).into_future());
    assert!(poll_once(&mut dropped).await.is_none());
    drop(dropped);
    // The withdrawal overtakes nothing: what is sent after it comes after it.
    let mut last = Box::pin(rig.subject.record(3).into_future());
    assert!(poll_once(&mut last).await.is_none());
    tokio::task::yield_now().await;
    if way != Way::Local {
        // A call to another actor of the same link is answered after the withdrawal was read.
        let other = rig.server.spawn(Subject { seen: vec![], gate: Arc::default_gate(), kept: None });
        rig.server.register("other", &other).expect("free");
        let other: ActorRef<Subject> = rig.client.connect(&format!("{}#other", rig.address())).await.expect("there");
        assert_eq!(other.record(9).await, Ok(1));
    }
    rig.gate.add_permits(1);
    assert_eq!(last.await, Ok(1));
    assert_eq!(rig.subject.seen().await, Ok(vec![3]));
}

/// Invariant 4.
async fn full(way: Way) {
    let options = MailboxOptions { capacity: 2, when_full: WhenFull::Reject, ..MailboxOptions::default() };
    let rig = rig_with(way, options).await;
    let mut waiting = Box::pin(rig.subject.wait().into_future());
    assert!(poll_once(&mut waiting).await.is_none());
    let asks: Vec<_> = (0..5).map(|n| Box::pin(rig.subject.record(n).into_future())).collect();
    let mut asks = asks;
    // Those that are refused say so while the actor stands at the gate.
    let mut refused = 0;
    while refused < 2 {
        for ask in &mut asks {
            match poll_once(ask).await {
                Some(Err(ActorError::MailboxFull)) => {
                    refused += 1;
                    *ask = Box::pin(rig.subject.record(100).into_future());
                }
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rig.gate.add_permits(1);
    assert_eq!(waiting.await, Ok(()));
}

async fn unknown(way: Way) {
    let rig = rig(way).await;
    if way == Way::Local {
        return;
    }
    let missing = rig.client.connect::<Subject>(&format!("{}#nobody", rig.address())).await;
    assert!(matches!(missing, Err(ActorError::UnknownActor(_))), "{missing:?}");
    let other = rig.client.connect::<Other>(&format!("{}#subject", rig.address())).await;
    assert!(matches!(&other, Err(ActorError::UnknownActor(text)) if text.contains("Subject")), "{other:?}");
    let nowhere = rig.client.connect::<Subject>("unix:///nonexistent/dmrpc.sock#subject").await;
    assert!(matches!(nowhere, Err(ActorError::Unreachable { .. })), "{nowhere:?}");
    let nonsense = rig.client.connect::<Subject>("carrier-pigeon://#subject").await;
    assert!(matches!(nonsense, Err(ActorError::Address { .. })), "{nonsense:?}");
    let nameless = rig.client.connect::<Subject>(&rig.address()).await;
    assert!(matches!(nameless, Err(ActorError::Address { .. })), "{nameless:?}");
    assert_eq!(rig.subject.record(1).await, Ok(1));
}

#[derive(Debug)]
struct Other;

#[actor]
impl Other {
    #[message]
    fn nothing(&mut self) {}
}

/// Bytes of all lengths around the limits of heads, attachments and rings.
async fn bytes(way: Way) {
    let rig = rig(way).await;
    for (first, second) in
        [(0, 0), (1, 4095), (4095, 4096), (4096, 1), (32 * 1024, 0), (31 * 1024, 3000), (300_000, 1 << 20)]
    {
        let first: Bytes = (0..first).map(|n| (n % 251) as u8).collect();
        let second: Bytes = (0..second).map(|n| (n % 241) as u8).collect();
        let mut expected = [&first[..], &[7], &second[..]].concat();
        expected.reverse();
        let mirrored = rig.subject.mirror(first, 7, second).deadline(LONG).await.expect("answered");
        assert!(mirrored == expected, "{} bytes", expected.len());
    }
    for len in [0, 1000, 32 * 1024 - 3, 32 * 1024, 33 * 1024, 1 << 20] {
        let sent: Vec<u8> = (0..len).map(|n| (n % 239) as u8).collect();
        assert!(rig.subject.plain(sent.clone()).deadline(LONG).await == Ok(sent), "{len} bytes");
    }
}

/// Without a store all payloads go by value.
async fn payloads(way: Way) {
    let rig = rig(way).await;
    for len in [0, 1, 5000, 100_000] {
        let mut sent: Vec<u8> = (0..len).map(|n| (n % 239) as u8).collect();
        let back = rig.subject.open(sent.clone().into()).await.expect("answered");
        assert!(back.reference().is_none());
        sent.reverse();
        assert!(back.open().await.expect("here")[..] == sent, "{len} bytes");
    }
}

/// What is over the limit is not sent, and the link goes on.
async fn too_large(way: Way) {
    let rig = rig(way).await;
    if way == Way::Local {
        return;
    }
    let sent = rig.subject.plain(vec![0; 5 << 20]).await;
    assert!(matches!(sent, Err(ActorError::TooLarge { limit: 4_194_304, .. })), "{sent:?}");
    let sent = rig.subject.tell_plain(vec![0; 5 << 20]).await;
    assert!(matches!(sent, Err(ActorError::TooLarge { .. })), "{sent:?}");
    // As an answer.
    let half = Bytes::from(vec![1; 3 << 20]);
    let back = rig.subject.mirror(half.slice(..(2 << 20)), 0, half.slice((1 << 20)..)).await;
    assert!(matches!(back, Err(ActorError::TooLarge { .. })), "{back:?}");
    assert_eq!(rig.subject.record(1).await, Ok(1));
}

async fn many(way: Way) {
    let options = MailboxOptions { capacity: 64, ..MailboxOptions::default() };
    let rig = rig_with(way, options).await;
    let tasks: Vec<_> = (0..3000_u64)
        .map(|n| {
            let subject = rig.subject.clone();
            tokio::spawn(async move { subject.record(n).deadline(LONG).await })
        })
        .collect();
    let mut places = Vec::new();
    for task in tasks {
        places.push(task.await.expect("no panic").expect("answered"));
    }
    places.sort_unstable();
    assert_eq!(places, (1..=3000).collect::<Vec<_>>());
}

async fn detached(way: Way) {
    let rig = rig(way).await;
    let mut asks: Vec<_> = (0..10).map(|n| Box::pin(rig.subject.wait_beside(n).into_future())).collect();
    for ask in &mut asks {
        assert!(poll_once(ask).await.is_none());
    }
    assert_eq!(rig.subject.record(1).await, Ok(1));
    rig.gate.add_permits(10);
    for (n, ask) in asks.into_iter().enumerate() {
        assert_eq!(ask.await, Ok(n as u64));
    }
}

/// Refs to objects that travel with their bytes: no memory node is needed.
async fn inline_refs(way: Way) {
    let rig = rig(way).await;
    let refs: Vec<ObjectRef> = (0..50).map(|n| ObjectRef::inline(vec![n as u8; n * 20])).collect();
    let sum: u64 = refs.iter().map(ObjectRef::byte_len).sum();
    let (summed, back) = rig.subject.sizes(refs).await.expect("answered");
    assert_eq!(summed, sum);
    for (place, reference) in back.iter().enumerate() {
        let n = 49 - place;
        assert_eq!(&reference.get().await.expect("inline")[..], vec![n as u8; n * 20]);
    }
}

/// A ref of a system that does not listen, used by the other end; and back.
async fn actor_refs(way: Way) {
    let rig = rig(way).await;
    let own = rig.client.spawn(Subject { seen: vec![], gate: Arc::default_gate(), kept: None });
    rig.subject.keep(own.clone()).await.expect("kept");
    assert_eq!(rig.subject.call_kept(7).await, Ok(Ok(1)));
    assert_eq!(own.seen().await, Ok(vec![7]));
    let back = rig.subject.give_kept().await.expect("answered").expect("was kept");
    assert!(back.is_local(), "{back:?}");
    assert_eq!(back.record(8).await, Ok(2));
    let subject = rig.subject.me().await.expect("answered");
    assert_eq!(subject.is_local(), way == Way::Local);
    assert_eq!(subject.record(9).await, Ok(1));
    // Handed back to where it lives.
    rig.subject.keep(subject).await.expect("kept");
    let itself = rig.subject.give_kept().await.expect("answered").expect("was kept");
    assert_eq!(itself.record(10).await, Ok(2));
}

/// Invariant 9: the end of the other system is an error at once, for calls under way and for later ones.
async fn shutdown(way: Way) {
    let rig = rig(way).await;
    let mut waiting = Box::pin(rig.subject.wait().into_future());
    assert!(poll_once(&mut waiting).await.is_none());
    if way != Way::Local {
        let other = rig.server.spawn(Subject { seen: vec![], gate: Arc::default_gate(), kept: None });
        rig.server.register("other", &other).expect("free");
        rig.client.connect::<Subject>(&format!("{}#other", rig.address())).await.expect("the call before has arrived");
    }
    rig.server.shutdown(Duration::from_millis(50)).await;
    let waited = waiting.await;
    assert!(matches!(waited, Err(ActorError::Stopped | ActorError::Unreachable { .. })), "{waited:?}");
    let later = rig.subject.record(1).await;
    assert!(matches!(later, Err(ActorError::Stopped | ActorError::Unreachable { .. })), "{later:?}");
}

/// A link that ended is made anew by the next call, where the server is there again.
async fn reconnects(way: Way) {
    if way != Way::Unix {
        return;
    }
    let rig = rig(way).await;
    assert_eq!(rig.subject.record(1).await, Ok(1));
    let address = rig.address();
    rig.server.shutdown(LONG).await;
    drop(rig.server);
    assert!(rig.subject.record(2).await.is_err());
    let server = System::builder().listen(address).build().await.expect("the socket is free");
    let again = server.spawn(Subject { seen: vec![], gate: Arc::default_gate(), kept: None });
    server.register("subject", &again).expect("free");
    assert_eq!(rig.subject.record(3).await, Ok(1));
}

/// The end of an actor is told wherever it lives; of one that had ended before, where that is still known.
async fn ends(way: Way) {
    let rig = rig(way).await;
    let mut given_up = Box::pin(rig.subject.ended());
    assert!(poll_once(&mut given_up).await.is_none());
    drop(given_up);
    let mut end = Box::pin(rig.subject.ended());
    assert!(poll_once(&mut end).await.is_none());
    // What was asked before this has come before it is answered.
    assert_eq!(rig.subject.record(1).await, Ok(1));
    assert_eq!(rig.subject.explode("boom".into()).await, Err(ActorError::Crashed("boom".into())));
    assert_eq!(end.await, Exit::Crashed("boom".into()));
    let before = if way == Way::Local { Exit::Crashed("boom".into()) } else { Exit::Gone };
    assert_eq!(rig.subject.ended().await, before);

    let other = rig.server.spawn(Subject { seen: vec![], gate: Arc::default_gate(), kept: None });
    rig.server.register("subject", &other).expect("free again");
    if way == Way::Local {
        return;
    }
    assert_eq!(rig.subject.record(1).await, Ok(1));
    let mut end = Box::pin(rig.subject.ended());
    assert!(poll_once(&mut end).await.is_none());
    assert_eq!(rig.subject.record(2).await, Ok(2));
    drop(other);
    rig.server.shutdown(LONG).await;
    assert_eq!(end.await, Exit::Stopped);
    assert!(matches!(rig.subject.ended().await, Exit::Unreachable(_)));
}

macro_rules! suite {
    ($($case:ident),* $(,)?) => {
        $(mod $case {
            use super::Way;

            fn run(way: Way) {
                // Two threads, as systems have.
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                runtime.expect("starts").block_on(async {
                    tokio::time::timeout(super::LONG, super::$case(way)).await.expect("ends in time");
                });
            }

            #[test]
            fn local() {
                run(Way::Local);
            }

            #[test]
            fn inproc() {
                run(Way::InProcess);
            }

            #[test]
            fn unix() {
                run(Way::Unix);
            }

            #[test]
            fn tcp() {
                run(Way::Tcp);
            }

            #[test]
            fn tls() {
                run(Way::Tls);
            }

            #[test]
            #[ignore = "needs an RDMA device: make test-rdma"]
            fn rdma() {
                run(Way::Rdma);
            }
        })*
    };
}

suite!(
    calls,
    order,
    panics,
    deadlines,
    full,
    unknown,
    bytes,
    payloads,
    too_large,
    many,
    detached,
    inline_refs,
    actor_refs,
    shutdown,
    reconnects,
    successors,
    ends,
);
