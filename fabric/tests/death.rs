//! Peers that die without a word: real processes, killed with -9. They cover invariant 4 of the crate.

use bytes::Bytes;
use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::blocking::{BlockingReceiver, BlockingSender};
use dmrpc_fabric::buffer::Buffer;
use dmrpc_fabric::link::{Body, Incoming, Interest, Link, LinkError};
use dmrpc_fabric::listen::{Listener, connect};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROLE: &str = "DMRPC_TEST_ROLE";
/// More than the kernel takes in.
const BODY_BYTES: usize = 64 << 20;
const URL: &str = "DMRPC_TEST_URL";

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn options() -> LinkOptions {
    LinkOptions::default().ring_bytes(4096).max_queued_bytes(4096)
}

fn body(len: usize) -> Body {
    [Bytes::from(vec![9; len])].into_iter().collect()
}

/// A process that is killed when it goes out of scope, whatever happens.
struct Victim(Child);

impl Victim {
    /// This very test binary, in another role. The first line that it prints.
    fn start(role: &str, url: &str) -> (Self, String) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_other_process", "--nocapture"])
            .env(ROLE, role)
            .env(URL, url)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.find_map(|line| line.unwrap().split_once("ready ").map(|(_, rest)| rest.to_owned()));
        (Self(child), line.expect("it says when it is ready"))
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the other process does; nothing if it is not one.
#[test]
fn the_other_process() {
    let (Ok(role), Ok(url)) = (std::env::var(ROLE), std::env::var(URL)) else { return };
    let mut link = if role.starts_with("accept") {
        let mut listener = Listener::bind(&url.parse().unwrap(), &options()).unwrap();
        say_ready(&listener.address().to_string());
        listener.accept(soon()).unwrap()
    } else {
        connect(&url.parse().unwrap(), &options(), soon()).unwrap()
    };
    if role.ends_with("dies") {
        let mut receiver = BlockingReceiver::new(link.receiver);
        receiver.recv(soon()).unwrap();
        link.sender.try_send(b"last", Body::new()).unwrap();
        assert!(link.sender.flush().unwrap());
        die();
    }
    if role.ends_with("reads") {
        let mut receiver = BlockingReceiver::new(link.receiver);
        receiver.recv(soon()).unwrap();
        // Only when the other waits for room.
        let until = soon();
        while !Path::new(&go(&url)).exists() {
            assert!(Instant::now() < until, "nobody says go");
            std::thread::yield_now();
        }
        receiver.get_mut().place(Buffer::zeroed(BODY_BYTES).into());
        assert!(matches!(receiver.get_mut().recv().unwrap(), Incoming::Empty));
        die();
    }
    if role.ends_with("talks") {
        // Four messages and a part of one.
        for number in 0..4u8 {
            link.sender.try_send(&[number], Body::new()).unwrap();
        }
        link.sender.try_send(b"half", body(BODY_BYTES)).unwrap();
        assert!(!link.sender.flush().unwrap());
    }
    say_ready("for the end");
    std::thread::sleep(Duration::from_secs(120));
}

/// The file that says so to who listens at `url`.
fn go(url: &str) -> String {
    format!("{}-go", url.trim_start_matches("unix://"))
}

fn die() -> ! {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    unreachable!("killed");
}

fn say_ready(with: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready {with}").unwrap();
    out.flush().unwrap();
}

fn url(scheme: &str, folder: &tempfile::TempDir) -> String {
    if scheme == "unix" {
        format!("unix://{}/link", folder.path().display())
    } else {
        format!("{scheme}://127.0.0.1:0")
    }
}

/// A link to a victim that did its part, from either side.
fn link_to(scheme: &str, role: &str) -> (Link, Victim, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = url(scheme, &folder);
    if role.starts_with("accept") {
        let (victim, address) = Victim::start(role, &url);
        let link = connect(&address.parse().unwrap(), &options(), soon()).unwrap();
        (link, victim, folder)
    } else {
        let mut listener = Listener::bind(&url.parse().unwrap(), &options()).unwrap();
        let (victim, link) = std::thread::scope(|scope| {
            let address = listener.address().to_string();
            let victim = scope.spawn(move || Victim::start(role, &address).0);
            let link = listener.accept(soon()).unwrap();
            (victim.join().unwrap(), link)
        });
        (link, victim, folder)
    }
}

/// What came before it died is received, then `Closed`, also in the middle of a body.
fn data_before_the_end(scheme: &str, role: &str) {
    let (link, mut victim, _folder) = link_to(scheme, role);
    let mut receiver = BlockingReceiver::new(link.receiver);
    // Something of it came: it has done its part or is doing it, and what it flushed first came first.
    assert!(matches!(receiver.recv(soon()).unwrap(), Incoming::Head { head: [0], .. }));
    victim.kill();
    for number in 1..4u8 {
        let Incoming::Head { head, body_len: 0 } = receiver.recv(soon()).unwrap() else { panic!("only heads") };
        assert_eq!(head, [number]);
    }
    match receiver.recv(soon()) {
        Ok(Incoming::Head { head: b"half", body_len }) => {
            assert_eq!(body_len, BODY_BYTES as u64);
            let end = receiver.recv_body(Buffer::zeroed(BODY_BYTES).into(), soon());
            assert!(matches!(end, Err(LinkError::Closed)), "{:?}", end.err());
        }
        Err(LinkError::Closed) => {}
        _ => panic!("the rest of what it sent, or the end"),
    }
    assert!(matches!(receiver.recv(soon()), Err(LinkError::Closed)));
}

/// Waits until both descriptors of a half became ready, edge-triggered, and the other process is gone.
fn both_edges(interests: &[Interest<'_>], act: impl FnOnce()) {
    let edges = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    for interest in interests {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&edges, interest.fd, epoll::EventData::new_u64(0), flags).unwrap();
    }
    act();
    let mut events = Vec::with_capacity(4);
    epoll::wait(&edges, spare_capacity(&mut events), None).unwrap();
    assert_eq!(events.len(), 2, "the bell and the end");
}

/// Whoever is told of room and of the end at once, and then not again, hears of the end.
#[test]
fn shm_the_end_comes_with_the_last_room() {
    let (link, mut victim, folder) = link_to("unix", "accept and reads");
    // The other half lives as long.
    let Link { mut sender, receiver: _receiver, .. } = link;
    sender.try_send(b"long", body(BODY_BYTES)).unwrap();
    assert!(!sender.flush().unwrap());
    both_edges(&sender.interests(), || {
        std::fs::write(go(&url("unix", &folder)), "").unwrap();
        victim.0.wait().unwrap();
    });
    assert!(matches!(sender.flush(), Err(LinkError::Closed)));
}

/// Whoever is told of the last message and of the end at once, and then not again, hears of both.
#[test]
fn shm_the_end_comes_with_the_last_message() {
    let (link, mut victim, _folder) = link_to("unix", "accept and dies");
    let Link { mut sender, mut receiver, .. } = link;
    receiver.edge_triggered(true);
    assert!(matches!(receiver.recv().unwrap(), Incoming::Empty));
    both_edges(&receiver.interests(), || {
        sender.try_send(b"go", Body::new()).unwrap();
        assert!(sender.flush().unwrap());
        victim.0.wait().unwrap();
    });
    assert!(matches!(receiver.recv().unwrap(), Incoming::Head { head: b"last", .. }));
    assert!(matches!(receiver.recv(), Err(LinkError::Closed)));
}

/// Both halves that wait when it dies are woken.
fn waiters_are_woken(scheme: &str, role: &str) {
    let (link, mut victim, _folder) = link_to(scheme, role);
    let mut receiver = BlockingReceiver::new(link.receiver);
    let mut sender = BlockingSender::new(link.sender);
    std::thread::scope(|scope| {
        let receives = scope.spawn(|| receiver.recv(soon()).map(drop));
        let sends = scope.spawn(|| {
            loop {
                if let Err(error) = sender.send(b"", body(100_000), soon()) {
                    return error;
                }
            }
        });
        victim.kill();
        assert!(matches!(receives.join().unwrap(), Err(LinkError::Closed)));
        assert!(matches!(sends.join().unwrap(), LinkError::Closed));
    });
}

#[test]
fn shm_data_before_the_end_of_a_connector() {
    data_before_the_end("unix", "connect and talks");
}

#[test]
fn shm_data_before_the_end_of_an_acceptor() {
    data_before_the_end("unix", "accept and talks");
}

#[test]
fn tcp_data_before_the_end() {
    data_before_the_end("tcp", "connect and talks");
}

#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn rdma_data_before_the_end() {
    data_before_the_end("rdma", "connect and talks");
    data_before_the_end("rdma", "accept and talks");
}

#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn rdma_waiters_are_woken() {
    waiters_are_woken("rdma", "connect");
    waiters_are_woken("rdma", "accept");
}

#[test]
fn shm_waiters_are_woken() {
    waiters_are_woken("unix", "connect");
    waiters_are_woken("unix", "accept");
}

#[test]
fn tcp_waiters_are_woken() {
    waiters_are_woken("tcp", "connect");
    waiters_are_woken("tcp", "accept");
}

/// The socket file of a process that was killed is in nobody's way; that of a living one is.
#[test]
fn a_stale_socket_file_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let url = url("unix", &folder);
    let (mut victim, address) = Victim::start("accept", &url);
    let in_use = Listener::bind(&address.parse().unwrap(), &options());
    assert!(
        matches!(in_use.err(), Some(LinkError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AddrInUse)
    );
    victim.kill();
    assert!(folder.path().join("link").exists(), "it could not remove it");
    let listener = Listener::bind(&address.parse().unwrap(), &options()).unwrap();
    drop(listener);
    assert!(!folder.path().join("link").exists(), "a listener removes its file");

    // A file that is no socket is not ours to remove, and neither is one that took the place of ours.
    std::fs::write(folder.path().join("link"), "text").unwrap();
    assert!(Listener::bind(&address.parse().unwrap(), &options()).is_err());
    std::fs::remove_file(folder.path().join("link")).unwrap();
    let first = Listener::bind(&address.parse().unwrap(), &options()).unwrap();
    std::fs::remove_file(folder.path().join("link")).unwrap();
    let second = Listener::bind(&address.parse().unwrap(), &options()).unwrap();
    drop(first);
    assert!(folder.path().join("link").exists());
    drop(second);
}
