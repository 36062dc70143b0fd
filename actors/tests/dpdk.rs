//! Actors over DPDK: a memory node, an actor and whoever calls it are three hosts of one Ethernet, each past its kernel.
//!
//! EAL is started once a process, so each is this program again, as [`role`].

#![allow(clippy::print_stdout, reason = "roles tell the test that started them how they are")]

#[path = "../../memnode/tests/rig/cable.rs"]
#[expect(dead_code, reason = "nobody listens in the middle here")]
mod cable;

use cable::Switch;
use dmrpc_actors::{ActorRef, Payload, System, actor};
use dmrpc_memnode::{Node, NodeConfig};
use dmrpc_objstore::{ObjectRef, Store, StoreOptions};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longer than anything takes that passes.
const LONG: Duration = Duration::from_secs(60);
const NODE: &str = "dpdk://10.9.0.1:7373";
const ACTOR: &str = "dpdk://10.9.0.2:7373";
const OBJECT_BYTES: usize = 3_000_001;

/// Looks at objects and changes them.
struct Painter;

#[actor]
impl Painter {
    #[message]
    async fn sum(&mut self, object: ObjectRef) -> u64 {
        sum(&object.get().await.expect("the caller holds it"))
    }

    /// The same object with a word written over it.
    #[message]
    async fn paint(&mut self, object: ObjectRef) -> ObjectRef {
        let mut edit = object.edit().await.expect("the caller holds it");
        edit.write(9_000, b"painted").expect("within it");
        edit.commit().await.expect("room")
    }

    /// The bytes back, whichever way they came.
    #[message]
    async fn echo(&mut self, payload: Payload) -> Payload {
        payload.open().await.expect("they are here").to_vec().into()
    }

    #[message]
    fn add(&mut self, one: u64, other: u64) -> u64 {
        one + other
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8)).collect()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

/// This program as one of the hosts.
fn host(switch: &Switch, number: usize, role: &str) -> Command {
    let mut program = Command::new(std::env::current_exe().expect("this program"));
    let id = std::process::id();
    let eal = format!(
        "-l 0 --no-pci --no-huge -m 192 --iova-mode=va --no-telemetry --log-level=3 --file-prefix=dma{id}-{number} \
         --vdev=net_af_packet0,iface={},framesz=2048,blocksz=65536,framecnt=1024,qdisc_bypass=1",
        cable::DEVICE
    );
    program
        .args(["--exact", "role", "--ignored", "--nocapture"])
        .env("DMRPC_TEST_ROLE", role)
        .env("DMRPC_DPDK_EAL", eal)
        .env("DMRPC_DPDK_ADDRESS", format!("10.9.0.{}", number + 1))
        .env("DMRPC_DPDK_PORT", "7373");
    switch.program(number, &program)
}

/// A host that has said that it is up, and ends with its standard input.
struct Host(Child);

impl Host {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        while !lines.next().expect("it ended before it was up").expect("text").contains("role: up") {}
        Self(child)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process does that the test started.
#[test]
#[ignore = "a process of the other test"]
fn role() {
    let Ok(role) = std::env::var("DMRPC_TEST_ROLE") else { return };
    if role == "node" {
        let listen = vec![NODE.parse().expect("an address")];
        let config = NodeConfig { pool_bytes: 32 << 20, listen, ..NodeConfig::default() };
        let _node = Node::start(config).expect("a node starts");
        return until_told();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("starts");
    runtime.block_on(async {
        let mut options = StoreOptions::new(NODE);
        options.deadline = LONG;
        let store = Store::connect_with(options).await.expect("the node is there");
        let system = System::builder().store(store.clone()).ask_timeout(LONG);
        if role == "actor" {
            let system = system.listen(ACTOR).build().await.expect("listens");
            let painter = system.spawn(Painter);
            system.register("painter", &painter).expect("free");
            until_told();
        } else {
            let system = system.build().await.expect("no address");
            call(&system.connect(&format!("{ACTOR}#painter")).await.expect("it listens"), &store).await;
            println!("role: done");
        }
    });
}

/// Says that this host is up, and waits for the end of its standard input.
fn until_told() {
    println!("\nrole: up");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

async fn call(painter: &ActorRef<Painter>, store: &Store) {
    for number in 0..500 {
        assert_eq!(painter.add(number, 7).await, Ok(number + 7));
    }
    let bytes = pattern(OBJECT_BYTES);
    let object = store.put(bytes.clone()).await.expect("room");
    assert_eq!(painter.sum(object.clone()).await, Ok(sum(&bytes)));
    let painted = painter.paint(object.clone()).await.expect("answered");
    let mut expected = bytes.clone();
    expected[9_000..9_007].copy_from_slice(b"painted");
    assert!(*painted.get().await.expect("its bytes") == expected[..], "what was painted came damaged");
    assert!(*object.get().await.expect("its bytes") == bytes[..], "the first is as it was");
    for len in [10, 1_000_000] {
        let back = painter.echo(pattern(len).into()).await.expect("answered");
        assert!(*back.open().await.expect("they are here") == pattern(len)[..], "{len} bytes came damaged");
    }
}

#[test]
fn an_actor_a_caller_and_their_node_are_three_hosts() {
    let Some(switch) = Switch::make(3) else { return };
    let _node = Host::start(host(&switch, 0, "node"));
    let _actor = Host::start(host(&switch, 1, "actor"));
    let caller = host(&switch, 2, "caller").output().expect("the program starts");
    let (out, err) = (String::from_utf8_lossy(&caller.stdout), String::from_utf8_lossy(&caller.stderr));
    assert!(caller.status.success() && out.contains("role: done"), "{}\n{out}\n{err}", caller.status);
}
