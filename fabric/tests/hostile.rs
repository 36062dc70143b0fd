//! Peers that do not keep to the rules: raw ones, which speak to a link byte by byte. They cover invariant 2 of the crate.

use bytes::Bytes;
use dmrpc_fabric::blocking::{BlockingReceiver, BlockingSender};
use dmrpc_fabric::buffer::Buffer;
use dmrpc_fabric::link::{Body, Incoming, Link, LinkError, MAX_HEAD_BYTES, Target, TrySendError};
use dmrpc_fabric::listen::{Listener, connect};
use dmrpc_fabric::memory::{Access, Mapping};
use dmrpc_fabric::{Allow, LinkOptions};
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

const RING_BYTES: usize = 4096;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn options() -> LinkOptions {
    LinkOptions::default().ring_bytes(RING_BYTES).max_body_bytes(1 << 20).max_queued_bytes(RING_BYTES as u64)
}

fn header(head_len: u32, kind: u32, body_len: u64) -> Vec<u8> {
    [&head_len.to_le_bytes()[..], &kind.to_le_bytes(), &body_len.to_le_bytes()].concat()
}

/// A peer of a shared-memory link that has what it was given and does with it what it likes.
struct RawPeer {
    _socket: UnixStream,
    fds: Vec<OwnedFd>,
    memory: Mapping,
}

/// Where things are in the memory, of the ring that the acceptor produces in and of the other.
const INDICES: [u64; 2] = [0, 2048];
const TAIL: u64 = 0;
const TAIL_WAITS: u64 = 8;
const HEAD: u64 = 128;
const HEAD_WAITS: u64 = 136;
const BYTES: [u64; 2] = [4096, 4096 + RING_BYTES as u64];

impl RawPeer {
    fn of(listener: &mut Listener) -> (Link, Self) {
        let path = listener.address().to_string().strip_prefix("unix://").unwrap().to_owned();
        let socket = UnixStream::connect(path).unwrap();
        let link = listener.accept(soon()).unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(6))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut message = [0; 24];
        let iov = &mut [IoSliceMut::new(&mut message)];
        assert_eq!(rustix::net::recvmsg(&socket, iov, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes, 24);
        let fds: Vec<OwnedFd> = control
            .drain()
            .flat_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(&message[..8], b"DmRPCshm");
        let memory = Mapping::new(&fds[0], 0, 4096 + 2 * RING_BYTES, Access::Writable, true).unwrap();
        (link, Self { _socket: socket, fds, memory })
    }

    fn word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.memory.read_into(at, &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn set(&self, at: u64, word: u64) {
        self.memory.write_from(at, &word.to_le_bytes()).unwrap();
    }

    /// Puts bytes where the acceptor receives and says so.
    fn say(&self, bytes: &[u8]) {
        let tail = self.word(INDICES[1] + TAIL);
        self.memory.write_from(BYTES[1] + tail, bytes).unwrap();
        self.set(INDICES[1] + TAIL, tail + bytes.len() as u64);
        self.ring_all();
    }

    fn ring_all(&self) {
        for bell in &self.fds[1..5] {
            rustix::io::write(bell, &1u64.to_ne_bytes()).unwrap();
        }
    }
}

fn listener() -> (Listener, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("unix://{}/link", folder.path().display());
    (Listener::bind(&url.parse().unwrap(), &options()).unwrap(), folder)
}

fn tcp_peer() -> (Link, TcpStream) {
    let mut listener = Listener::bind(&"tcp://127.0.0.1:0".parse().unwrap(), &options()).unwrap();
    let mut socket = TcpStream::connect(listener.address().to_string().strip_prefix("tcp://").unwrap()).unwrap();
    socket.write_all(&tcp_hello()).unwrap();
    let link = listener.accept(soon()).unwrap();
    socket.read_exact(&mut [0; 24]).unwrap();
    (link, socket)
}

fn tcp_hello() -> Vec<u8> {
    [&b"DmRPCtcp"[..], &1u32.to_le_bytes(), &0u32.to_le_bytes(), &(1u64 << 30).to_le_bytes()].concat()
}

/// The link says that the peer broke the rules, and is closed from then on, to the peer as well.
fn is_broken(link: Link, why: &str) {
    let mut receiver = BlockingReceiver::new(link.receiver);
    let error = loop {
        match receiver.recv(soon()) {
            Ok(Incoming::Head { body_len, .. }) if body_len > 0 => receiver.place(Target::Discard),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LinkError::Protocol(_)), "{why}: {error}");
    assert!(matches!(receiver.recv(soon()), Err(LinkError::Closed)), "{why}");
}

/// What breaks a stream of frames.
fn bad_frames() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("an oversize head", header(MAX_HEAD_BYTES as u32 + 1, 0, 0)),
        ("the largest head", header(u32::MAX, 0, 0)),
        ("an oversize body", header(0, 0, (1 << 20) + 1)),
        ("the largest body", header(4, 0, u64::MAX)),
        ("an unknown kind", header(0, 7, 0)),
        ("a descriptor that was not passed", header(0, 1, 3)),
        ("a descriptor with a head", header(1, 1, 3)),
        ("a descriptor with a long tag", header(0, 1, 1 << 32)),
        ("a message, then garbage", [header(2, 0, 3), b"hhbbb".to_vec(), vec![0xff; 64]].concat()),
    ]
}

#[test]
fn shm_bad_frames() {
    let (mut listener, _folder) = listener();
    for (why, bytes) in bad_frames() {
        let (link, peer) = RawPeer::of(&mut listener);
        peer.say(&bytes);
        is_broken(link, why);
        assert_eq!(peer.word(INDICES[1] + 256 + 8), 1, "{why}: the peer is told that nobody receives");
    }
}

#[test]
fn tcp_bad_frames() {
    for (why, bytes) in bad_frames() {
        let (link, mut socket) = tcp_peer();
        socket.write_all(&bytes).unwrap();
        is_broken(link, why);
        let end = socket.read(&mut [0; 1]);
        assert!(matches!(end, Ok(0) | Err(_)), "{why}: the connection is over");
    }
}

#[test]
fn shm_bad_indices() {
    let (mut listener, _folder) = listener();
    for tail in [RING_BYTES as u64 + 1, u64::MAX, 1 << 63] {
        let (link, peer) = RawPeer::of(&mut listener);
        peer.set(INDICES[1] + TAIL, tail);
        peer.ring_all();
        is_broken(link, "a tail outside of the ring");
    }
    // A tail that goes back.
    let (mut link, peer) = RawPeer::of(&mut listener);
    peer.say(&header(0, 0, 0));
    assert!(matches!(link.receiver.recv().unwrap(), Incoming::Head { .. }));
    peer.set(INDICES[1] + TAIL, 3);
    is_broken(link, "a tail that goes back");

    for head in [RING_BYTES as u64 + 100, u64::MAX, 1 << 63] {
        let (mut link, peer) = RawPeer::of(&mut listener);
        peer.set(INDICES[0] + HEAD, head);
        let error = loop {
            // It is looked at once the ring is full.
            match link.sender.try_send(&[0; 1000], Body::new()) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => match link.sender.flush() {
                    Ok(_) => {}
                    Err(error) => break error,
                },
                Err(TrySendError::Link(error)) => break error,
            }
        };
        assert!(matches!(error, LinkError::Protocol(_)), "{head}: {error}");
    }
}

/// A bell that is rung for nothing costs a look, no more; a socket that has to be silent and is not ends the link.
#[test]
fn shm_false_alarms_and_noise() {
    let (mut listener, _folder) = listener();
    let (link, mut peer) = RawPeer::of(&mut listener);
    let mut receiver = BlockingReceiver::new(link.receiver);
    for _ in 0..10 {
        peer.ring_all();
        let end = receiver.recv(Instant::now() + Duration::from_millis(2));
        assert!(matches!(end, Err(LinkError::Deadline(_))));
    }
    peer.say(&[header(5, 0, 0), b"still".to_vec()].concat());
    assert!(matches!(receiver.recv(soon()).unwrap(), Incoming::Head { head: b"still", .. }));
    peer._socket.write_all(b"noise").unwrap();
    assert!(matches!(receiver.recv(soon()), Err(LinkError::Protocol(_))));
}

/// Half a message, then nothing; then the end.
#[test]
fn half_a_message() {
    let half = [header(10, 0, 100), b"0123456789".to_vec(), vec![1; 50]].concat();
    let (mut listener, _folder) = listener();
    let (shm, raw) = RawPeer::of(&mut listener);
    let (tcp, mut socket) = tcp_peer();
    raw.say(&half);
    socket.write_all(&half).unwrap();
    for (link, end) in [(shm, Box::new(move || drop(raw)) as Box<dyn FnOnce()>), (tcp, Box::new(move || drop(socket)))]
    {
        let mut receiver = BlockingReceiver::new(link.receiver);
        assert!(matches!(receiver.recv(soon()).unwrap(), Incoming::Head { head: b"0123456789", body_len: 100 }));
        let late = receiver.recv_body(Buffer::zeroed(100).into(), Instant::now() + Duration::from_millis(5));
        assert!(matches!(late, Err(LinkError::Deadline(_))));
        end();
        assert!(matches!(receiver.recv(soon()), Err(LinkError::Closed)));
    }
}

/// However the stream is cut, what came whole is received, and then the end.
#[test]
fn cut_anywhere() {
    let message = [header(3, 0, 4), b"abcdefg".to_vec()].concat();
    let (mut listener, _folder) = listener();
    for cut in 0..2 * message.len() {
        let bytes = &message.repeat(2)[..cut];
        let (shm, raw) = RawPeer::of(&mut listener);
        raw.say(bytes);
        drop(raw);
        let (tcp, mut socket) = tcp_peer();
        socket.write_all(bytes).unwrap();
        drop(socket);
        for link in [shm, tcp] {
            let mut receiver = BlockingReceiver::new(link.receiver);
            let mut bodies = 0;
            let end = loop {
                match receiver.recv(soon()) {
                    Ok(Incoming::Head { head, body_len }) => {
                        assert_eq!((head, body_len), (&b"abc"[..], 4));
                        receiver.place(Buffer::zeroed(4).into());
                    }
                    Ok(Incoming::Body(target)) => {
                        assert_eq!(Buffer::from_target(target).unwrap().into_vec(), b"defg");
                        bodies += 1;
                    }
                    Ok(Incoming::Empty) => panic!("never"),
                    Err(error) => break error,
                }
            };
            assert!(matches!(end, LinkError::Closed), "{cut}: {end}");
            assert_eq!(bodies, cut / message.len(), "{cut}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Anything at all in the shared memory: an error or nonsense, but no panic, no hang, no end of us.
    #[test]
    fn shm_survives_garbage(
        garbage in prop::collection::vec(any::<u8>(), 4096..4097),
        words in prop::collection::vec((0..2usize, prop_oneof![Just(TAIL), Just(TAIL_WAITS), Just(HEAD), Just(HEAD_WAITS), Just(256u64), Just(264), Just(272)],
            prop_oneof![0..5000u64, any::<u64>()]), 1..20),
    ) {
        let (mut listener, _folder) = listener();
        let (mut link, peer) = RawPeer::of(&mut listener);
        peer.memory.write_from(BYTES[1], &garbage).unwrap();
        let mut waits = false;
        for (ring, at, word) in words {
            peer.set(INDICES[ring] + at, word);
            for _ in 0..20 {
                if waits {
                    link.receiver.place(Target::Discard);
                    waits = false;
                }
                match link.receiver.recv() {
                    Ok(Incoming::Head { body_len, .. }) => waits = body_len > 0,
                    Ok(Incoming::Body(_)) => {}
                    Ok(Incoming::Empty) | Err(_) => break,
                }
            }
            let _ = link.sender.try_send(&[1; 700], [Bytes::from(vec![2; 900])].into_iter().collect());
            let _ = link.sender.flush();
        }
    }

    /// Anything at all on a TCP connection, before or after a good hello.
    #[test]
    fn tcp_survives_garbage(garbage in prop::collection::vec(any::<u8>(), 0..300), polite: bool) {
        let mut listener = Listener::bind(&"tcp://127.0.0.1:0".parse().unwrap(), &options()).unwrap();
        let mut socket = TcpStream::connect(listener.address().to_string().strip_prefix("tcp://").unwrap()).unwrap();
        if polite {
            socket.write_all(&tcp_hello()).unwrap();
        }
        let _ = socket.write_all(&garbage);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        match listener.accept(Instant::now() + Duration::from_millis(if polite { 60_000 } else { 5 })) {
            Ok(link) => {
                let mut receiver = BlockingReceiver::new(link.receiver);
                let end = loop {
                    match receiver.recv(soon()) {
                        Ok(Incoming::Head { body_len, .. }) if body_len > 0 => receiver.place(Target::Discard),
                        Ok(_) => {}
                        Err(error) => break error,
                    }
                };
                prop_assert!(matches!(end, LinkError::Closed | LinkError::Protocol(_)), "{}", end);
            }
            Err(error) => prop_assert!(!polite && matches!(error, LinkError::Deadline(_) | LinkError::Protocol(_)), "{}", error),
        }
    }
}

/// A peer that stalls while it sets up keeps nobody waiting, and does not stay for ever.
#[test]
fn a_stalling_peer_keeps_nobody_waiting() {
    let mut options = options();
    options.max_setups = 2;
    let mut listener = Listener::bind(&"tcp://127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let address = listener.address();
    let raw = |bytes: &[u8]| {
        let mut socket = TcpStream::connect(address.to_string().strip_prefix("tcp://").unwrap()).unwrap();
        socket.write_all(bytes).unwrap();
        socket
    };
    let mut stalling: Vec<_> = (0..5).map(|count| raw(&tcp_hello()[..count * 4])).collect();
    let not_yet = listener.accept(Instant::now() + Duration::from_millis(20));
    assert!(matches!(not_yet.err(), Some(LinkError::Deadline(_))));
    std::thread::scope(|scope| {
        let there = scope.spawn(|| connect(&address, &options, soon()).unwrap());
        let here = listener.accept(soon()).unwrap();
        BlockingSender::new(here.sender).send(b"hello", Body::new(), soon()).unwrap();
        let mut receiver = BlockingReceiver::new(there.join().unwrap().receiver);
        assert!(matches!(receiver.recv(soon()).unwrap(), Incoming::Head { head: b"hello", .. }));
    });
    // More than there may be: the oldest were let go.
    let mut greeting = Vec::new();
    assert!(matches!(stalling[0].read_to_end(&mut greeting), Ok(24) | Err(_)));

    // Over a Unix socket there is nothing to stall in: the link is made at once.
    let (mut listener, _folder) = self::listener();
    let path = listener.address().to_string().strip_prefix("unix://").unwrap().to_owned();
    let _silent = UnixStream::connect(path).unwrap();
    assert!(listener.try_accept().unwrap().is_some());
}

/// An acceptor that offers something else than a link.
#[test]
fn bad_offers_are_refused() {
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let memory = |len: usize, seals: SealFlags| {
        let memory = memfd_create("bad", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&memory, len as u64).unwrap();
        fcntl_add_seals(&memory, seals).unwrap();
        memory
    };
    let message = |magic: &[u8; 8], version: u32, status: u32, ring_bytes: u64| {
        [&magic[..], &version.to_le_bytes(), &status.to_le_bytes(), &ring_bytes.to_le_bytes()].concat()
    };
    let size = 4096 + 2 * RING_BYTES;
    let good = message(b"DmRPCshm", 1, 0, RING_BYTES as u64);
    let offer = |bytes: Vec<u8>, first: OwnedFd, count: usize| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link");
        let listener = UnixListener::bind(&path).unwrap();
        let url = format!("unix://{}", path.display()).parse().unwrap();
        std::thread::scope(|scope| {
            let connected = scope.spawn(move || connect(&url, &options(), soon()).map(drop));
            let (socket, _) = listener.accept().unwrap();
            let others: Vec<OwnedFd> =
                (1..count).map(|_| memfd_create("other", MemfdFlags::CLOEXEC).unwrap()).collect();
            let fds: Vec<_> =
                std::iter::once(first.as_fd()).chain(others.iter().map(AsFd::as_fd)).take(count).collect();
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if count > 0 {
                assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            }
            rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty()).unwrap();
            drop(socket);
            connected.join().unwrap()
        })
    };
    offer(good.clone(), memory(size, seals), 6).unwrap();
    let is_protocol = |result: Result<(), LinkError>, why: &str| {
        assert!(matches!(result, Err(LinkError::Protocol(_))), "{why}: {result:?}");
    };
    for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::SEAL] {
        is_protocol(offer(good.clone(), memory(size, seals - missing), 6), "a seal is missing");
    }
    is_protocol(offer(good.clone(), memory(size - 4096, seals), 6), "too short");
    is_protocol(offer(good.clone(), std::fs::File::open("/proc/self/exe").unwrap().into(), 6), "no memfd");
    for count in [0, 1, 5] {
        is_protocol(offer(good.clone(), memory(size, seals), count), "not as many descriptors");
    }
    is_protocol(offer(good.clone(), memory(size, seals), 7), "too many descriptors");
    is_protocol(offer(message(b"DmRPCxxx", 1, 0, RING_BYTES as u64), memory(size, seals), 6), "magic");
    is_protocol(offer(message(b"DmRPCshm", 2, 0, RING_BYTES as u64), memory(size, seals), 6), "version");
    is_protocol(offer(message(b"DmRPCshm", 1, 9, RING_BYTES as u64), memory(size, seals), 6), "status");
    for ring_bytes in [0, 1, 4095, 1 << 40, u64::MAX] {
        is_protocol(offer(message(b"DmRPCshm", 1, 0, ring_bytes), memory(size, seals), 6), "ring size");
    }
    let refused = offer(message(b"DmRPCshm", 1, 1, 0), memory(size, seals), 0);
    assert!(matches!(refused, Err(LinkError::Refused(_))));
    let cut = offer(good[..10].to_vec(), memory(size, seals), 6);
    assert!(matches!(cut, Err(LinkError::Closed)));
}

/// Whom the options do not allow is refused, on both sides. Only the superuser can be somebody else to test it.
#[test]
fn other_users_are_refused() {
    assert!(!Allow::Users(vec![7]).permits(4_000_000_000) || rustix::process::geteuid().as_raw() == 4_000_000_000);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (mut listener, folder) = listener();
    let path = folder.path().join("link");
    for path in [folder.path(), &path] {
        rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o777)).unwrap();
    }
    let mut stranger = std::process::Command::new("python3");
    let script = "import os,socket,sys; os.setuid(65534); s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                  b=s.recv(24); sys.exit(0 if b[12]==1 and not s.recv(1) else 1)";
    let Ok(mut child) = stranger.args(["-c", script]).arg(&path).spawn() else { return };
    let refused = listener.accept(soon());
    assert!(matches!(refused.err(), Some(LinkError::Refused(_))));
    assert!(child.wait().unwrap().success(), "it was told, and the socket closed");
}
