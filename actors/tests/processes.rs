//! Several processes: refs by loan, and what is left when one of them is killed. Numbers are those of the invariants in
//! `docs/actors.md`.
//!
//! A child process is this test binary again, told by the environment to serve one [`Hop`].

#![allow(clippy::print_stdout)]

use dmrpc_actors::{ActorError, ActorRef, Context, Exit, Payload, System, actor};
use dmrpc_memnode::NodeConfig;
use dmrpc_objstore::{EmbeddedOptions, ObjectRef, Stats, Store};
use std::future::IntoFuture;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything takes that passes.
const LONG: Duration = Duration::from_secs(120);

/// Says to a child where to listen and which memory node to use.
const CHILD: &str = "DMRPC_TEST_CHILD";
const STORE: &str = "DMRPC_TEST_STORE";

/// A process of a chain.
struct Hop {
    next: Option<ActorRef<Hop>>,
    kept: Vec<ObjectRef>,
    link: Option<String>,
}

#[actor]
impl Hop {
    #[message]
    async fn lead_to(&mut self, address: String, cx: &mut Context<Self>) -> Result<(), String> {
        let next = cx.system().connect(&address).await.map_err(|error| error.to_string())?;
        self.next = Some(next);
        self.link = Some(address);
        Ok(())
    }

    /// Passes the ref on to the end of the chain, where it is read: its sum.
    #[message]
    async fn pass(&mut self, object: ObjectRef, cx: &mut Context<Self>) -> Result<u64, String> {
        match &self.next {
            Some(next) => next.pass(object).until(cx.deadline()).await.map_err(|error| error.to_string())?,
            None => {
                let view = object.get().await.map_err(|error| error.to_string())?;
                Ok(sum(&view))
            }
        }
    }

    /// Passes the ref on to the end of the chain, where it is kept.
    #[message]
    async fn keep(&mut self, object: ObjectRef, cx: &mut Context<Self>) -> Result<(), String> {
        match &self.next {
            Some(next) => next.keep(object).until(cx.deadline()).await.map_err(|error| error.to_string())?,
            None => {
                self.kept.push(object);
                Ok(())
            }
        }
    }

    /// The sums of what the end of the chain keeps.
    #[message]
    async fn sums(&mut self, cx: &mut Context<Self>) -> Result<Vec<u64>, String> {
        if let Some(next) = &self.next {
            return next.sums().until(cx.deadline()).await.map_err(|error| error.to_string())?;
        }
        let mut sums = Vec::new();
        for object in &self.kept {
            sums.push(sum(&object.get().await.map_err(|error| error.to_string())?));
        }
        Ok(sums)
    }

    /// What is kept here, and no longer.
    #[message]
    fn give(&mut self) -> Vec<ObjectRef> {
        std::mem::take(&mut self.kept)
    }

    /// Makes an object, which the answer lends.
    #[message]
    async fn make(&mut self, len: usize, seed: u8, cx: &mut Context<Self>) -> Result<ObjectRef, String> {
        let store = cx.system().store().ok_or("no store")?;
        store.put(pattern(len, seed)).await.map_err(|error| error.to_string())
    }

    /// Makes objects that nobody is told of, published or not, and holds on to them.
    #[message]
    async fn hoard(&mut self, count: u8, cx: &mut Context<Self>) -> Result<(), String> {
        for seed in 0..count {
            let object = self.make(100_000, seed, cx).await?;
            if seed % 2 == 0 {
                object.keep().await.map_err(|error| error.to_string())?;
            }
            self.kept.push(object);
        }
        Ok(())
    }

    /// Makes an object here and has the end of the chain keep it.
    #[message]
    async fn spread(&mut self, len: usize, seed: u8, cx: &mut Context<Self>) -> Result<(), String> {
        let object = self.make(len, seed, cx).await?;
        let next = self.next.as_ref().ok_or("nobody is next")?;
        next.keep(object).until(cx.deadline()).await.map_err(|error| error.to_string())?
    }

    /// Holds the ref and never answers.
    #[message]
    async fn hang(&mut self, object: ObjectRef) {
        let _view = object.get().await;
        std::future::pending::<()>().await;
    }

    /// The bytes back, and whether they came as a reference.
    #[message]
    async fn echo(&self, payload: Payload) -> (bool, Payload) {
        let bytes = payload.open().await.expect("they are here").to_vec();
        (payload.reference().is_some(), bytes.into())
    }

    #[message]
    fn pid(&self) -> u32 {
        std::process::id()
    }
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8).wrapping_add(seed)).collect()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

/// What a child process does: serves a hop until its standard input ends, as it does with its parent.
#[test]
fn child() {
    let Ok(listen) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("starts");
    let system = runtime.block_on(async {
        let mut system = System::builder().name("child").listen(listen).ask_timeout(LONG);
        if let Ok(url) = std::env::var(STORE) {
            system = system.store(Store::connect(&url).await.expect("the node is there"));
        }
        let system = system.build().await.expect("listens");
        let hop = system.spawn(Hop { next: None, kept: vec![], link: None });
        system.register("hop", &hop).expect("free");
        println!("\nready {}", system.addresses()[0]);
        system
    });
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
    drop(system);
    std::process::exit(0);
}

struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start(listen: &str, store: Option<&Store>) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["--exact", "child", "--nocapture"]).env(CHILD, listen).env_remove(STORE);
        if let Some(store) = store {
            command.env(STORE, store.url());
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this binary runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let address = loop {
            let line = lines.next().expect("the child says that it is ready").expect("text");
            if let Some(address) = line.strip_prefix("ready ") {
                break address.to_owned();
            }
        };
        Self { child, address }
    }

    fn actor(&self) -> String {
        format!("{}#hop", self.address)
    }

    /// As `kill -9`.
    fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A memory node in this process, this process's system, and a way to start others.
struct Rig {
    store: Store,
    system: System,
    way: Way,
    directory: tempfile::TempDir,
    started: std::cell::Cell<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Unix,
    Tcp,
}

async fn rig(way: Way) -> Rig {
    let mut options = EmbeddedOptions::default();
    options.node = NodeConfig { pool_bytes: 64 << 20, ..NodeConfig::default() };
    let store = Store::embedded_with(options).await.expect("a node starts");
    let system = System::builder().name("parent").store(store.clone()).ask_timeout(LONG).grace(Duration::from_secs(1));
    let system = system.build().await.expect("no address");
    Rig { store, system, way, directory: tempfile::tempdir().expect("a directory"), started: Default::default() }
}

impl Rig {
    fn start(&self) -> Process {
        self.start_with(Some(&self.store))
    }

    fn start_with(&self, store: Option<&Store>) -> Process {
        self.started.set(self.started.get() + 1);
        let listen = match self.way {
            Way::Unix => format!("unix://{}/{}.sock", self.directory.path().display(), self.started.get()),
            Way::Tcp => "tcp://127.0.0.1:0".to_owned(),
        };
        Process::start(&listen, store)
    }

    async fn connect(&self, process: &Process) -> ActorRef<Hop> {
        self.system.connect(&process.actor()).await.expect("it listens")
    }

    async fn stats(&self) -> Stats {
        self.store.flush().await.expect("the node is there");
        self.store.stats().await.expect("the node is there")
    }

    #[track_caller]
    fn wait_for(&self, what: &'static str, wanted: impl Fn(&Stats) -> bool) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        async move {
            let until = Instant::now() + LONG;
            loop {
                let stats = self.stats().await;
                if wanted(&stats) {
                    return;
                }
                assert!(Instant::now() < until, "{at}: {what}: {stats:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| match std::pin::Pin::new(&mut *future).poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

/// Three processes pass a ref on, and the node hears nothing of it.
async fn a_chain_costs_the_node_nothing(way: Way) {
    const PASSES: u64 = 300;
    let rig = rig(way).await;
    let processes = [rig.start(), rig.start(), rig.start()];
    let first = rig.connect(&processes[0]).await;
    for pair in processes.windows(2) {
        rig.connect(&pair[0]).await.lead_to(pair[1].actor()).await.expect("answered").expect("connects");
    }
    let object = rig.store.put(pattern(300_000, 1)).await.expect("there is room");
    let expected = sum(&pattern(300_000, 1));
    // The first time the segment is mapped.
    assert_eq!(first.pass(object.clone()).await, Ok(Ok(expected)));
    let before = rig.stats().await;
    // The node does not even know of the object, where everybody can do without it.
    let known = u64::from(way == Way::Tcp);
    assert_eq!((before.holds.get(), before.objects.get()), (known, known));
    let part = object.slice(5_000..5_003).expect("within");
    for _ in 0..PASSES {
        let passed = first.pass(part.clone()).await;
        assert_eq!(passed, Ok(Ok(sum(&pattern(300_000, 1)[5_000..5_003]))));
    }
    let after = rig.stats().await;
    assert_eq!(after.holds.get(), known);
    let requests = after.requests.get() - before.requests.get();
    assert!(requests < PASSES / 2, "{requests} requests for {PASSES} passes");
    // All loans have come back: when the owner lets go, the object goes.
    drop((object, part));
    rig.wait_for("the object is free", |stats| stats.objects == 0 && stats.live_pages == 0).await;
}

/// A ref that is kept is lent at first, and held by its keeper after a while; then its owner may go.
async fn what_is_kept_is_held(way: Way) {
    let rig = rig(way).await;
    let processes = [rig.start(), rig.start()];
    let first = rig.connect(&processes[0]).await;
    first.lead_to(processes[1].actor()).await.expect("answered").expect("connects");
    let object = rig.store.put(pattern(100_000, 2)).await.expect("there is room");
    let expected = vec![sum(&pattern(100_000, 2))];
    first.keep(object.clone()).await.expect("answered").expect("kept");
    assert_eq!(first.sums().await, Ok(Ok(expected.clone())));
    rig.wait_for("its keeper takes a hold", |stats| stats.holds == 2).await;
    drop(object);
    rig.wait_for("the owner lets go", |stats| stats.holds == 1).await;
    assert_eq!(first.sums().await, Ok(Ok(expected)));
    // It comes back to where it was made, by an answer.
    let second = rig.connect(&processes[1]).await;
    let back = second.give().await.expect("answered").pop().expect("was kept");
    assert_eq!(sum(&back.get().await.expect("it is there")), sum(&pattern(100_000, 2)));
    drop(back);
    rig.wait_for("the object is free", |stats| stats.objects == 0).await;
}

/// Answers lend too.
async fn an_answer_lends(way: Way) {
    let rig = rig(way).await;
    let process = rig.start();
    let hop = rig.connect(&process).await;
    for seed in 0..20 {
        let made = hop.make(50_000, seed).await.expect("answered").expect("made");
        assert_eq!(sum(&made.get().await.expect("it is there")), sum(&pattern(50_000, seed)));
    }
    rig.wait_for("all are free", |stats| stats.objects == 0 && stats.holds == 0).await;
}

/// A process without a store of its own gets one for the node that the peer tells of.
async fn nodes_are_met_by_their_refs(way: Way) {
    let rig = rig(way).await;
    let process = rig.start_with(None);
    let hop = rig.connect(&process).await;
    let object = rig.store.put(pattern(70_000, 3)).await.expect("there is room");
    assert_eq!(hop.pass(object).await, Ok(Ok(sum(&pattern(70_000, 3)))));
}

/// Invariant 9: the callee is killed while it has refs and a call under way.
async fn a_killed_callee(way: Way) {
    let rig = rig(way).await;
    let mut process = rig.start();
    let hop = rig.connect(&process).await;
    hop.hoard(10).await.expect("answered").expect("made");
    let object = rig.store.put(pattern(100_000, 4)).await.expect("there is room");
    hop.keep(object.clone()).await.expect("answered").expect("kept");
    let mut hanging: Vec<_> = (0..3).map(|_| Box::pin(hop.hang(object.clone()).into_future())).collect();
    for call in &mut hanging {
        assert!(poll_once(call).await.is_none());
    }
    // A second way in shows that the calls before it have arrived.
    rig.connect(&process).await;
    let mut end = Box::pin(hop.ended());
    assert!(poll_once(&mut end).await.is_none());
    process.kill();
    assert!(matches!(end.await, Exit::Unreachable(_)));
    for call in hanging {
        let ended = call.await;
        assert!(matches!(ended, Err(ActorError::Unreachable { .. })), "{ended:?}");
    }
    let later = hop.pid().await;
    assert!(matches!(later, Err(ActorError::Unreachable { .. })), "{later:?}");
    // What was lent comes back after the grace period, and what the dead process had is free.
    assert_eq!(sum(&object.get().await.expect("still ours")), sum(&pattern(100_000, 4)));
    drop(object);
    let all_back =
        |stats: &Stats| stats.objects == 0 && stats.live_pages == 0 && stats.sessions == 1 && stats.holds == 0;
    rig.wait_for("all pages are back", all_back).await;
    let stats = rig.stats().await;
    assert_eq!(stats.quarantined_pages.get(), 0);
}

/// Invariant 9: the caller is killed; what it lent is adopted by who keeps it.
async fn a_killed_caller(way: Way) {
    let rig = rig(way).await;
    let (mut caller, callee) = (rig.start(), rig.start());
    let (from, to) = (rig.connect(&caller).await, rig.connect(&callee).await);
    from.lead_to(callee.actor()).await.expect("answered").expect("connects");
    from.hoard(10).await.expect("answered").expect("made");
    for seed in 0..5 {
        from.spread(80_000, seed).await.expect("answered").expect("kept");
    }
    let expected: Vec<u64> = (0..5).map(|seed| sum(&pattern(80_000, seed))).collect();
    assert_eq!(to.sums().await, Ok(Ok(expected.clone())));
    caller.kill();
    assert!(matches!(from.pid().await, Err(ActorError::Unreachable { .. })));
    rig.wait_for("the dead session is over", |stats| stats.sessions == 2).await;
    assert_eq!(to.sums().await, Ok(Ok(expected)));
    rig.wait_for("the rest is free", |stats| stats.objects == 5 && stats.holds == 5).await;
    drop(to.give().await.expect("answered"));
    rig.wait_for("all pages are back", |stats| stats.objects == 0 && stats.live_pages == 0).await;
}

/// A middle of a chain is killed: its caller hears of it, and so does who is behind it.
async fn a_killed_middle(way: Way) {
    let rig = rig(way).await;
    let (first, mut middle, last) = (rig.start(), rig.start(), rig.start());
    let start = rig.connect(&first).await;
    start.lead_to(middle.actor()).await.expect("answered").expect("connects");
    let between = rig.connect(&middle).await;
    between.lead_to(last.actor()).await.expect("answered").expect("connects");
    let object = rig.store.put(pattern(100_000, 6)).await.expect("there is room");
    start.keep(object.clone()).await.expect("answered").expect("kept");
    middle.kill();
    let passed = start.pass(object.clone()).await.expect("the first answers");
    assert!(passed.is_err(), "{passed:?}");
    // The last one had it of the middle one, and still has it.
    let end = rig.connect(&last).await;
    assert_eq!(end.sums().await, Ok(Ok(vec![sum(&pattern(100_000, 6))])));
    drop(end.give().await.expect("answered"));
    drop(object);
    rig.wait_for("all pages are back", |stats| stats.objects == 0 && stats.sessions == 3).await;
}

/// The first call after a process was started again goes to the new one.
async fn a_restarted_callee(way: Way) {
    if way == Way::Tcp {
        // The port would be another.
        return;
    }
    let rig = rig(way).await;
    let mut process = rig.start();
    let hop = rig.connect(&process).await;
    let before = hop.pid().await.expect("answered");
    process.kill();
    assert!(matches!(hop.pid().await, Err(ActorError::Unreachable { .. })));
    let _again = Process::start(&process.address, Some(&rig.store));
    let after = hop.pid().await.expect("answered");
    assert_ne!(before, after);
}

/// Long payloads become refs by themselves on this host.
async fn payloads_become_refs(way: Way) {
    let rig = rig(way).await;
    let process = rig.start();
    let hop = rig.connect(&process).await;
    for len in [0, 5000, 64 << 10, 300_000] {
        let bytes = pattern(len, 9);
        let (as_ref, back) = hop.echo(bytes.clone().into()).await.expect("answered");
        let expected = way == Way::Unix && len >= 64 << 10;
        assert_eq!((as_ref, back.reference().is_some()), (expected, expected), "{len} bytes");
        assert!(back.open().await.expect("here")[..] == bytes, "{len} bytes");
    }
    rig.wait_for("all are free", |stats| stats.objects == 0 && stats.live_pages == 0).await;
}

/// Thousands of calls with refs at a time, over one link.
async fn many_refs(way: Way) {
    let rig = rig(way).await;
    let process = rig.start();
    let hop = rig.connect(&process).await;
    let object = rig.store.put(pattern(1 << 20, 7)).await.expect("there is room");
    let bytes = pattern(1 << 20, 7);
    let calls: Vec<_> = (0..3000_u64)
        .map(|n| {
            let (hop, part) = (hop.clone(), object.slice(n * 300..n * 300 + 300).expect("within"));
            tokio::spawn(async move { hop.pass(part).await })
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        let expected = sum(&bytes[n * 300..n * 300 + 300]);
        assert_eq!(call.await.expect("no panic"), Ok(Ok(expected)));
    }
    drop(object);
    rig.wait_for("all is free", |stats| stats.objects == 0 && stats.live_pages == 0).await;
}

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        $(mod $case {
            use super::Way;

            fn run(way: Way) {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                runtime.expect("starts").block_on(async {
                    tokio::time::timeout(2 * super::LONG, super::$case(way)).await.expect("ends in time");
                });
            }

            #[test]
            fn unix() {
                run(Way::Unix);
            }

            #[test]
            fn tcp() {
                run(Way::Tcp);
            }
        })*
    };
}

cases!(
    a_chain_costs_the_node_nothing,
    what_is_kept_is_held,
    an_answer_lends,
    payloads_become_refs,
    nodes_are_met_by_their_refs,
    a_killed_callee,
    a_killed_caller,
    a_killed_middle,
    a_restarted_callee,
    many_refs,
);
