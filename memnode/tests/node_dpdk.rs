//! The memory node over DPDK: real drivers between real processes, none of which needs a card.
//!
//! EAL is started once a process, so each client is this program again, as [`role`]. What a host can't do is skipped and said:
//! `make test-dpdk` prints it.

#![allow(clippy::print_stdout, reason = "roles tell the tests that started them how they are")]

mod rig;

use dmrpc_fabric::datagram::dpdk::traffic;
use dmrpc_objstore::{ObjectRef, Store, StoreError, StoreOptions, block_on};
use rig::{Client, NodeProcess, Switch, Terms, pattern, wait_until};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const NODE: &str = "10.9.0.1";
const CLIENT: &str = "10.9.0.2";
/// Objects below, at and over the sizes at which something changes: a page, a frame, a window, a segment.
const SIZES: [usize; 6] = [2_049, 4_096, 4_097, 65_536, 1_000_003, 6 << 20];

/// How two ends are joined.
#[derive(Clone, Copy)]
enum Driver {
    Memif,
    Vhost,
    AfPacket,
    AfXdp,
}

/// How two ends are joined, by how many queues each, and the EAL arguments of each.
#[derive(Clone, Copy)]
struct Wire {
    driver: Driver,
    queues: usize,
}

const MEMIF: Wire = Wire { driver: Driver::Memif, queues: 1 };
const VHOST: Wire = Wire { driver: Driver::Vhost, queues: 1 };
const AF_PACKET: Wire = Wire { driver: Driver::AfPacket, queues: 1 };
const AF_XDP: Wire = Wire { driver: Driver::AfXdp, queues: 1 };

impl Wire {
    /// The same with several queues.
    const fn twice(self) -> Self {
        Self { queues: 2, ..self }
    }

    fn device(self, end: usize, folder: &Path) -> String {
        let queues = self.queues;
        let socket = folder.join("wire");
        let socket = socket.display();
        match (self.driver, end) {
            (Driver::Memif, 0) => format!(
                "--vdev=net_memif0,role=server,id=0,socket={socket},socket-abstract=no,bsize=2048,mac=02:00:00:00:00:0a"
            ),
            (Driver::Memif, _) => format!(
                "--vdev=net_memif0,role=client,id=0,socket={socket},socket-abstract=no,bsize=2048,mac=02:00:00:00:00:0b"
            ),
            (Driver::Vhost, 0) => format!("--vdev=net_vhost0,iface={socket},queues={queues}"),
            (Driver::Vhost, _) => format!(
                "--vdev=net_virtio_user0,path={socket},queues={queues},cq=1,queue_size=1024,packed_vq=1,mrg_rxbuf=1,in_order=1,\
                 mac=02:00:00:00:00:0b --single-file-segments"
            ),
            (Driver::AfPacket, _) => format!(
                "--vdev=net_af_packet0,iface=wire0,qpairs={queues},framesz=2048,blocksz=65536,framecnt=1024,qdisc_bypass=1"
            ),
            (Driver::AfXdp, _) => format!("--vdev=net_af_xdp0,iface=wire0,start_queue=0,queue_count={queues}"),
        }
    }

    fn eal(self, end: usize, folder: &Path) -> String {
        let id = std::process::id();
        format!(
            "-l 0 --no-pci {} --iova-mode=va --no-telemetry --log-level=3 --log-level=pmd.net.memif:2 \
             --file-prefix=dmt{id}-{end} {}",
            memory(),
            self.device(end, folder)
        )
    }
}

/// Huge pages if enough are free, which vhost needs; ordinary ones else.
fn memory() -> &'static str {
    if free_huge_pages() >= 2 * 160 { "-m 320 --single-file-segments --in-memory" } else { "--no-huge -m 320" }
}

fn free_huge_pages() -> u32 {
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    free.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// A node at one end of a wire.
fn node(wire: Wire, folder: &TempDir, switch: Option<(&Switch, usize)>, address: &str, more: &[&str]) -> NodeProcess {
    let (eal, listen) = (wire.eal(switch.map_or(0, |(_, host)| host), folder.path()), format!("dpdk://{address}:7373"));
    let mut program = NodeProcess::program();
    program.env("RUNTIME_DIRECTORY", folder.path()).env("DMRPC_DPDK_EAL", eal);
    let queues = wire.queues.to_string();
    if let Some((switch, host)) = switch {
        program = switch.program(host, &program);
    }
    let mut args =
        vec!["--listen", &listen, "--pool", "96MiB", "--lease", "2s", "--grace", "100ms", "--queues", &queues];
    args.extend(more);
    NodeProcess::start_program(program, &args)
}

/// This program as a client.
fn client(role: &str, urls: &str, wire: Wire, folder: &TempDir, switch: Option<(&Switch, usize)>) -> Command {
    let end = switch.map_or(1, |(_, host)| host);
    let mut program = Command::new(std::env::current_exe().expect("this program"));
    program
        .args(["--exact", "role", "--ignored", "--nocapture", "--test-threads=1"])
        .env("DMRPC_TEST_ROLE", role)
        .env("DMRPC_TEST_URLS", urls)
        .env("RUNTIME_DIRECTORY", folder.path())
        .env("DMRPC_DPDK_EAL", wire.eal(end, folder.path()))
        .env("DMRPC_DPDK_QUEUES", wire.queues.to_string())
        .env("DMRPC_DPDK_ADDRESS", if end == 1 { CLIENT } else { "10.9.0.3" });
    if let Some((switch, host)) = switch {
        program = switch.program(host, &program);
    }
    program
}

#[track_caller]
fn expect_success(what: &str, output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("role: done"), "{what}: {}\n{out}\n{err}", output.status);
}

fn connect(url: &str) -> Store {
    let mut options = StoreOptions::new(url);
    options.deadline = Duration::from_secs(30);
    block_on(Store::connect_with(options)).expect("a session")
}

/// What a process does that a test started.
#[test]
#[ignore = "a process of the other tests"]
fn role() {
    let Ok(role) = std::env::var("DMRPC_TEST_ROLE") else { return };
    let urls = std::env::var("DMRPC_TEST_URLS").expect("set with the role");
    match role.as_str() {
        "verify" => {
            for url in urls.split(',') {
                verify(&connect(url), &connect(url));
            }
            // Lanes take turns, and a link's frames come to its own; but for those that were lost on the way and asked for.
            for lane in traffic() {
                println!("role: {lane:?}");
                assert!(lane.received > 50 && lane.passed_on < lane.received / 10, "{lane:?} of {:?}", traffic());
            }
        }
        // To be killed, with objects.
        "hold" => {
            let store = connect(&urls);
            let object = block_on(store.put(pattern(3, 5_000_000))).expect("room");
            println!("role: up");
            loop {
                assert_eq!(block_on(object.get()).expect("its bytes").len(), 5_000_000);
                std::thread::park_timeout(Duration::from_millis(5));
            }
        }
        // To be told that the node is gone.
        "outlive" => {
            let store = connect(&urls);
            let object = block_on(store.put(pattern(4, 3_000_000))).expect("room");
            println!("role: up");
            let error = loop {
                // Not what is cached here: figures come from the node.
                match block_on(store.stats()) {
                    Ok(_) => std::thread::park_timeout(Duration::from_millis(5)),
                    Err(error) => break error,
                }
            };
            let known = matches!(error, StoreError::NodeUnreachable { .. } | StoreError::Deadline { .. });
            assert!(known, "the node is gone: {error:?}");
            drop(object);
        }
        other => panic!("no role {other:?}"),
    }
    println!("role: done");
}

/// Puts objects of many sizes over one session, reads and changes them over another, and compares every byte.
fn verify(store: &Store, other: &Store) {
    for (seed, size) in SIZES.into_iter().enumerate() {
        let bytes = pattern(seed as u64, size);
        let object = block_on(store.put(&bytes)).expect("room");
        let granted = block_on(object.grant(Duration::from_secs(60))).expect("a grant");
        let again: ObjectRef = block_on(other.redeem(&granted)).expect("granted").cast().expect("bytes");
        assert!(*block_on(again.get()).expect("its bytes") == bytes[..], "{size} bytes came damaged");
        // It would keep the object.
        block_on(store.revoke(&granted)).expect("granted");
        if size > 5_000 {
            let mut edit = block_on(again.edit()).expect("an edit");
            edit.write(4_000, b"changed").expect("within it");
            let edited = block_on(edit.commit()).expect("room");
            let mut expected = bytes.clone();
            expected[4_000..4_007].copy_from_slice(b"changed");
            assert!(*block_on(edited.get()).expect("its bytes") == expected[..], "{size} bytes, changed, came damaged");
        }
    }
    store.close();
    other.close();
}

/// One client after the other at a node over `wire`; then nothing is left of them.
fn clients_come_and_go(wire: Wire, switch: Option<&Switch>) {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(wire, &folder, switch.map(|switch| (switch, 0)), NODE, &[]);
    assert!(node.ready.contains("memory=dpdk+"), "pages are in DPDK's memory: {}", node.ready);
    let url = format!("dpdk://{NODE}:7373");
    for round in 0..2 {
        let mut client = client("verify", &url, wire, &folder, switch.map(|switch| (switch, 1)));
        expect_success(&format!("client {round}"), &client.output().expect("the program starts"));
    }
    wait_for(&node, "what the clients held", |objects, sessions| objects == 0 && sessions <= 1);
}

/// Figures by way of the host itself: objects, and sessions with the one that looks.
fn wait_for(node: &NodeProcess, what: &str, condition: impl Fn(u64, u64) -> bool) {
    wait_until(what, || {
        let mut client = Client::open(node.unix(), &Terms::default()).expect("a session");
        let stats = client.stats();
        client.bye();
        condition(stats.objects.get(), stats.sessions.get())
    });
}

/// A client of this kind that has said that it is up.
fn started(mut command: Command) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("role: up") {
        line.clear();
        assert!(lines.read_line(&mut line).expect("reading what it prints") > 0, "it ended before it was up");
    }
    (child, lines)
}

#[test]
fn memif() {
    clients_come_and_go(MEMIF, None);
}

#[test]
fn memif_of_two_queues() {
    clients_come_and_go(MEMIF.twice(), None);
}

fn has_huge_pages() -> bool {
    let enough = free_huge_pages() >= 2 * 160;
    if !enough {
        eprintln!("SKIPPED: vhost shares huge pages, and there are too few: sysctl vm.nr_hugepages=320");
    }
    enough
}

#[test]
fn vhost_and_virtio_user() {
    if has_huge_pages() {
        clients_come_and_go(VHOST, None);
    }
}

#[test]
fn vhost_and_virtio_user_of_two_queues() {
    if has_huge_pages() {
        clients_come_and_go(VHOST.twice(), None);
    }
}

#[test]
fn af_packet_between_namespaces() {
    let Some(switch) = Switch::make(2) else { return };
    clients_come_and_go(AF_PACKET, Some(&switch));
}

/// The kernel spreads frames by a hash of addresses and ports, as a card does.
#[test]
fn af_packet_that_fans_out() {
    let Some(switch) = Switch::make(2) else { return };
    clients_come_and_go(AF_PACKET.twice(), Some(&switch));
}

#[test]
fn af_xdp_between_namespaces() {
    let Some(switch) = Switch::make(2) else { return };
    clients_come_and_go(AF_XDP, Some(&switch));
}

#[test]
fn two_nodes_on_one_ethernet() {
    let Some(switch) = Switch::make(3) else { return };
    let folders = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
    let first = node(AF_PACKET, &folders[0], Some((&switch, 0)), NODE, &[]);
    let second = node(AF_PACKET, &folders[2], Some((&switch, 2)), "10.9.0.3", &[]);
    let urls = format!("dpdk://{NODE}:7373,dpdk://10.9.0.3:7373,dpdk://{NODE}:7373");
    let mut client = client("verify", &urls, AF_PACKET, &folders[1], Some((&switch, 1)));
    expect_success("a client of both", &client.output().expect("the program starts"));
    for node in [first, second] {
        wait_for(&node, "what the client held", |objects, sessions| objects == 0 && sessions <= 1);
    }
}

#[test]
fn a_client_that_is_killed_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(MEMIF, &folder, None, NODE, &[]);
    let url = format!("dpdk://{NODE}:7373");
    for _ in 0..2 {
        let (mut child, _lines) = started(client("hold", &url, MEMIF, &folder, None));
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
        wait_for(&node, "what the client held", |objects, sessions| objects == 0 && sessions <= 1);
    }
    let output = client("verify", &url, MEMIF, &folder, None).output().expect("the program starts");
    expect_success("the client after them", &output);
}

#[test]
fn a_client_whose_node_is_killed_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(MEMIF, &folder, None, NODE, &[]);
    let url = format!("dpdk://{NODE}:7373");
    let (mut child, mut lines) = started(client("outlive", &url, MEMIF, &folder, None));
    drop(node);
    let mut rest = String::new();
    while !rest.contains("role: done") {
        let count = lines.read_line(&mut rest).expect("reading what it prints");
        assert!(count > 0, "the client ended otherwise: {rest}");
    }
    assert!(child.wait().expect("it is our child").success());
}

/// What goes over the wire is IP and UDP as Wireshark's dissectors understand them.
#[test]
fn frames_are_well_formed() {
    let Some(switch) = Switch::make(3) else { return };
    let tool = Command::new("tshark").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !tool.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: there is no tshark");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("capture");
    let file = file.to_str().expect("a path of ours");
    let mut capture = Command::new("dumpcap");
    capture.args(["-i", "port0", "-s", "0", "-B", "16", "-w", file, "-f", "arp or net 10.9.0.0/24"]);
    // In the middle: what a host sends through a ring of its own is not shown to others there.
    let mut capture = switch.bridge_program(&capture).stderr(Stdio::piped()).spawn().expect("dumpcap starts");
    let mut said = BufReader::new(capture.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("File:") {
        line.clear();
        assert!(said.read_line(&mut line).expect("reading what it prints") > 0, "dumpcap ended");
    }
    let node = node(AF_PACKET, &folder, Some((&switch, 0)), NODE, &[]);
    let url = format!("dpdk://{NODE}:7373");
    let mut client = client("verify", &url, AF_PACKET, &folder, Some((&switch, 1)));
    expect_success("a client", &client.output().expect("the program starts"));
    let pid = rustix::process::Pid::from_child(&capture);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is our child");
    capture.wait().expect("it is our child");
    drop(node);

    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r", file, "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]);
    tshark.args(["-d", "udp.port==7373,data", "-T", "fields", "-E", "separator=|"]);
    let fields = [
        "frame.protocols",
        "ip.src",
        "ip.dst",
        "udp.srcport",
        "udp.dstport",
        "ip.checksum.status",
        "ip.flags.df",
        "_ws.malformed",
        "_ws.expert.message",
    ];
    for field in fields {
        tshark.args(["-e", field]);
    }
    let decoded = tshark.output().expect("tshark starts");
    assert!(decoded.status.success(), "tshark: {}", String::from_utf8_lossy(&decoded.stderr));
    let text = String::from_utf8_lossy(&decoded.stdout);
    let (mut to, mut from, mut questions) = (0, 0, 0);
    for line in text.lines() {
        match line {
            "eth:ethertype:ip:udp:data|10.9.0.2|10.9.0.1|7373|7373|1|1||" => to += 1,
            "eth:ethertype:ip:udp:data|10.9.0.1|10.9.0.2|7373|7373|1|1||" => from += 1,
            "eth:ethertype:arp||||||||" => questions += 1,
            other => panic!("neither ARP nor our UDP, or not well-formed: {other:?}"),
        }
    }
    assert!(to > 100 && from > 100 && to + from > 1_000, "{to} to the node and {from} from it");
    assert!(questions >= 2, "{questions} ARP");
}
