//! What every link does, whatever it goes over. One suite, run for each kind of link.
//!
//! The tests name the invariant of the crate that they cover (`lib.rs`).

use bytes::Bytes;
use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::asynchronous::{AsyncReceiver, AsyncSender};
use dmrpc_fabric::blocking::{BlockingReceiver, BlockingSender, Spin};
use dmrpc_fabric::buffer::Buffer;
use dmrpc_fabric::fake::{Faults, faulty};
use dmrpc_fabric::link::{Body, Incoming, Link, LinkError, MAX_HEAD_BYTES, Target, TrySendError};
use dmrpc_fabric::listen::{Listener, connect};
use dmrpc_test_authority::Authority;
use proptest::prelude::*;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Generous: it is only ever reached by what hangs.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// What may move to another thread.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Listener>();
    is_send::<Link>();
    is_send::<BlockingSender>();
    is_send::<BlockingReceiver>();
    is_send::<AsyncSender>();
    is_send::<AsyncReceiver>();
};

/// The two ends of a link: of the acceptor and of the connector.
type Maker = fn(&LinkOptions) -> (Link, Link);

fn inproc(options: &LinkOptions) -> (Link, Link) {
    dmrpc_fabric::inproc::pair(options).unwrap()
}

fn shm(options: &LinkOptions) -> (Link, Link) {
    let folder = tempfile::tempdir().unwrap();
    through(&format!("unix://{}/link", folder.path().display()), options)
}

fn tcp(options: &LinkOptions) -> (Link, Link) {
    through("tcp://127.0.0.1:0", options)
}

/// Both sides show certificates.
fn tls(options: &LinkOptions) -> (Link, Link) {
    static AUTHORITY: LazyLock<(Authority, String)> = LazyLock::new(|| {
        let authority = Authority::new();
        let files = format!("{}&{}", authority.options(), authority.issue("host", &["127.0.0.1"]).options());
        (authority, files)
    });
    let mut known = options.clone();
    known.adopt(&format!("tls://127.0.0.1:0?{}", AUTHORITY.1).parse().unwrap());
    through("tls://127.0.0.1:0", &known)
}

fn udp(options: &LinkOptions) -> (Link, Link) {
    through("udp://127.0.0.1:0", options)
}

fn rdma(options: &LinkOptions) -> (Link, Link) {
    through("rdma://127.0.0.1:0", options)
}

/// Each kind again, with faults that nobody may notice. The seed is of the process: it is printed, and a failure replays with
/// the environment variable set to it.
fn fake_of(make: Maker, options: &LinkOptions) -> (Link, Link) {
    let seed = match std::env::var("DMRPC_FAULT_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => u64::from(std::process::id()),
    };
    eprintln!("DMRPC_FAULT_SEED={seed}");
    let (here, there) = make(options);
    (faulty(here, Faults::harmless(seed)).unwrap(), faulty(there, Faults::harmless(!seed)).unwrap())
}

fn fake_inproc(options: &LinkOptions) -> (Link, Link) {
    fake_of(inproc, options)
}

fn fake_shm(options: &LinkOptions) -> (Link, Link) {
    fake_of(shm, options)
}

fn fake_tcp(options: &LinkOptions) -> (Link, Link) {
    fake_of(tcp, options)
}

fn fake_tls(options: &LinkOptions) -> (Link, Link) {
    fake_of(tls, options)
}

fn fake_udp(options: &LinkOptions) -> (Link, Link) {
    fake_of(udp, options)
}

fn fake_rdma(options: &LinkOptions) -> (Link, Link) {
    fake_of(rdma, options)
}

/// Through a listener.
fn through(url: &str, options: &LinkOptions) -> (Link, Link) {
    let mut listener = Listener::bind(&url.parse().unwrap(), options).unwrap();
    let address = listener.address();
    std::thread::scope(|scope| {
        let there = scope.spawn(|| connect(&address, options, soon()).unwrap());
        (listener.accept(soon()).unwrap(), there.join().unwrap())
    })
}

/// A body that tells where each of its bytes should be.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|index| ((index ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn body(bytes: Vec<u8>) -> Body {
    if bytes.is_empty() { Body::new() } else { [Bytes::from(bytes)].into_iter().collect() }
}

/// Receives a message whole.
fn receive(receiver: &mut BlockingReceiver) -> Result<(Vec<u8>, Vec<u8>), LinkError> {
    let (head, body_len) = match receiver.recv(soon())? {
        Incoming::Head { head, body_len } => (head.to_vec(), body_len),
        _ => panic!("a head comes first"),
    };
    if body_len == 0 {
        return Ok((head, Vec::new()));
    }
    let target = receiver.recv_body(Buffer::zeroed(body_len as usize).into(), soon())?;
    Ok((head, Buffer::from_target(target).unwrap().into_vec()))
}

fn halves(link: Link) -> (BlockingSender, BlockingReceiver) {
    (BlockingSender::new(link.sender), BlockingReceiver::new(link.receiver))
}

/// Invariant 1.
fn messages_arrive_whole_and_in_order(make: Maker) {
    let options = LinkOptions::default().ring_bytes(4096);
    let (here, there) = make(&options);
    // Around the size of the ring, of its strides, and far beyond.
    let sizes = [0, 1, 15, 16, 100, 1000, 1023, 1024, 1025, 4000, 4080, 4095, 4096, 4097, 8192, 70_000, 1_000_000];
    let ((mut to_there, mut from_there), (mut to_here, mut from_here)) = (halves(here), halves(there));
    let send = |sender: &mut BlockingSender| {
        for (seed, len) in sizes.iter().chain(sizes.iter().rev()).enumerate() {
            let head = pattern(seed as u64, (seed * 37) % 3000);
            sender.send(&head, body(pattern(!(seed as u64), *len)), soon()).unwrap();
        }
    };
    let check = |receiver: &mut BlockingReceiver| {
        for (seed, len) in sizes.iter().chain(sizes.iter().rev()).enumerate() {
            let (head, body) = receive(receiver).unwrap();
            assert_eq!(head, pattern(seed as u64, (seed * 37) % 3000), "head {seed}");
            assert!(body == pattern(!(seed as u64), *len), "body {seed}");
        }
    };
    // The halves outlive the threads: the end of one may be the end of the other beside it.
    std::thread::scope(|scope| {
        scope.spawn(|| send(&mut to_there));
        scope.spawn(|| send(&mut to_here));
        scope.spawn(|| check(&mut from_here));
        scope.spawn(|| check(&mut from_there));
    });
}

/// Invariant 1, with many messages a wake-up.
fn many_small_messages(make: Maker) {
    // Fewer where every packet is emulated.
    let count: u64 = std::env::var("DMRPC_TEST_MESSAGES").map_or(100_000, |count| count.parse().expect("a number"));
    let (here, there) = make(&LinkOptions::default());
    let mut sender = here.sender;
    let mut receiver = BlockingReceiver::new(there.receiver);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut sender = BlockingSender::new({
                for number in 0..1000u64 {
                    // Gathered: nothing is flushed but by the last.
                    while let Err(error) = sender.try_send(&number.to_le_bytes(), Body::new()) {
                        assert!(matches!(error, TrySendError::Full(_)), "{error}");
                        sender.flush().unwrap();
                    }
                }
                sender
            });
            for number in 1000..count {
                sender.send(&number.to_le_bytes(), Body::new(), soon()).unwrap();
            }
            sender.flush(soon()).unwrap();
        });
        for number in 0..count {
            let Incoming::Head { head, body_len: 0 } = receiver.recv(soon()).unwrap() else { panic!("only heads") };
            assert_eq!(head, number.to_le_bytes());
        }
        assert!(matches!(receiver.recv(soon()), Err(LinkError::Closed)));
    });
}

/// A request at a time: each side sleeps between them, so that a lost wake-up hangs.
fn there_and_back(make: Maker) {
    let (here, there) = make(&LinkOptions::default());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut sender, mut receiver) = halves(there);
            while let Ok((head, bytes)) = receive(&mut receiver) {
                sender.send(&head, body(bytes), soon()).unwrap();
            }
        });
        let (mut sender, receiver) = halves(here);
        let mut receiver = receiver.with_spin(Spin(Duration::from_micros(5)));
        for round in 0..5000 {
            let len = if round % 100 == 0 { 300_000 } else { round % 50 };
            sender.send(&[round as u8], body(pattern(7, len)), soon()).unwrap();
            assert_eq!(receive(&mut receiver).unwrap(), (vec![round as u8], pattern(7, len)));
        }
    });
}

/// Messages that are published one by one, and flushed only when that is said to be needed, to a receiver that sleeps for some and
/// looks by itself for others: a lost wake-up, or one that was not owed, hangs.
fn published_one_by_one(make: Maker) {
    const COUNT: u32 = 3000;
    let (mut here, there) = make(&LinkOptions::default());
    let (turn, turns) = std::sync::mpsc::channel();
    // Until the sender has flushed the last one, which may be after that came.
    let mut receiver = BlockingReceiver::new(there.receiver);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..COUNT {
                while let Err(error) = here.sender.try_send(&number.to_le_bytes(), Body::new()) {
                    assert!(matches!(error, TrySendError::Full(_)), "{error}");
                    here.sender.flush().unwrap();
                }
                if !here.sender.publish() {
                    while !here.sender.flush().unwrap() {
                        std::thread::yield_now();
                    }
                }
                // Now and then the receiver has had them all, and sleeps or looks.
                if number % 3 == 0 {
                    turns.recv_timeout(Duration::from_secs(60)).unwrap();
                }
            }
        });
        for number in 0..COUNT {
            let until = soon();
            if number % 7 < 4 {
                loop {
                    match receiver.get_mut().recv_awake().unwrap() {
                        Incoming::Head { .. } => break,
                        Incoming::Empty => assert!(Instant::now() < until, "number {number} does not come"),
                        Incoming::Body(_) => panic!("only heads"),
                    }
                    std::thread::yield_now();
                }
            } else {
                assert!(matches!(receiver.recv(until).unwrap(), Incoming::Head { .. }));
            }
            assert_eq!(receiver.get_mut().head(), number.to_le_bytes());
            if number % 3 == 0 {
                turn.send(()).unwrap();
            }
        }
    });
}

/// The sender says `Full` within its limits, and goes on when there is room.
fn full_is_said_and_passes(make: Maker) {
    let options = LinkOptions::default().ring_bytes(4096).max_queued_bytes(10_000);
    let (here, there) = make(&options);
    let mut sender = here.sender;
    let mut sent = 0u32;
    let full = loop {
        match sender.try_send(&sent.to_le_bytes(), body(pattern(1, 3000))) {
            Ok(()) => sent += 1,
            Err(TrySendError::Full(back)) => break back,
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 1_000_000, "a link without a limit");
    };
    assert_eq!(full[0].len(), 3000, "the body is given back");
    while !sender.flush().unwrap() {
        // Nobody receives: it stays full.
        let mut fds: Vec<_> = sender
            .interests()
            .iter()
            .map(|interest| {
                let flags =
                    if interest.writable { rustix::event::PollFlags::OUT } else { rustix::event::PollFlags::IN };
                rustix::event::PollFd::from_borrowed_fd(interest.fd, flags)
            })
            .collect();
        if rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 0 {
            break;
        }
    }
    let mut receiver = BlockingReceiver::new(there.receiver);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut sender = BlockingSender::new(sender);
            sender.send(b"last", full, soon()).unwrap();
            sender.flush(soon()).unwrap();
        });
        for number in 0..sent {
            assert_eq!(receive(&mut receiver).unwrap().0, number.to_le_bytes());
        }
        assert_eq!(receive(&mut receiver).unwrap().0, b"last");
    });
}

/// A sender that nobody drains waits until its deadline, and the message is not taken.
fn a_deadline_is_kept(make: Maker) {
    let options = LinkOptions::default().ring_bytes(4096).max_queued_bytes(4096);
    let (here, there) = make(&options);
    let mut receiver = BlockingReceiver::new(there.receiver);
    assert!(matches!(receiver.recv(Instant::now() + Duration::from_millis(5)), Err(LinkError::Deadline(_))));
    let mut sender = BlockingSender::new(here.sender);
    let mut sent = 0u64;
    loop {
        match sender.send(&sent.to_le_bytes(), body(pattern(1, 4000)), Instant::now() + Duration::from_millis(50)) {
            Ok(()) => sent += 1,
            Err(LinkError::Deadline(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    std::thread::scope(|scope| {
        scope.spawn(move || sender.flush(soon()).unwrap());
        for number in 0..sent {
            assert_eq!(receive(&mut receiver).unwrap().0, number.to_le_bytes());
        }
        // The last was not taken, or it comes whole.
        match receive(&mut receiver) {
            Ok((head, body)) => {
                assert_eq!((head, body), (sent.to_le_bytes().to_vec(), pattern(1, 4000)));
                assert!(matches!(receiver.recv(soon()), Err(LinkError::Closed)));
            }
            Err(error) => assert!(matches!(error, LinkError::Closed), "{error}"),
        }
    });
}

/// Invariant 4: what was flushed comes before `Closed`, which comes for ever.
fn data_before_the_end(make: Maker) {
    let (here, there) = make(&LinkOptions::default());
    let (mut sender, receiver) = halves(here);
    for number in 0..10u8 {
        sender.send(&[number], body(pattern(3, 1000)), soon()).unwrap();
    }
    sender.flush(soon()).unwrap();
    drop((sender, receiver));
    let (mut sender, mut receiver) = halves(there);
    for number in 0..10u8 {
        assert_eq!(receive(&mut receiver).unwrap(), (vec![number], pattern(3, 1000)));
    }
    for _ in 0..3 {
        assert!(matches!(receiver.recv(soon()), Err(LinkError::Closed)));
    }
    let end = (0..1_000_000).find_map(|_| sender.send(b"x", body(pattern(1, 1000)), soon()).err());
    assert!(matches!(end, Some(LinkError::Closed)), "{end:?}");
}

/// A sender that is dropped ends its direction only.
fn a_dropped_sender_ends_one_way(make: Maker) {
    let (here, there) = make(&LinkOptions::default());
    let (mut sender, mut receiver) = halves(there);
    let waits = std::thread::spawn(move || (receiver.recv(soon()).map(drop), receiver));
    drop(here.sender);
    let (end, _receiver) = waits.join().unwrap();
    assert!(matches!(end, Err(LinkError::Closed)));
    sender.send(b"still", Body::new(), soon()).unwrap();
    assert_eq!(receive(&mut BlockingReceiver::new(here.receiver)).unwrap().0, b"still");
}

/// A receiver that is dropped is seen by the peer's sender, also one that waits.
fn a_dropped_receiver_is_seen(make: Maker) {
    let options = LinkOptions::default().ring_bytes(4096).max_queued_bytes(4096);
    let (here, there) = make(&options);
    let mut sender = BlockingSender::new(there.sender);
    let waits = std::thread::spawn(move || {
        loop {
            if let Err(error) = sender.send(b"x", body(pattern(1, 4000)), soon()) {
                return error;
            }
        }
    });
    drop(here.receiver);
    let error = waits.join().unwrap();
    assert!(matches!(error, LinkError::Closed), "{error}");
}

/// Whoever looks before each `recv`, and calls it only when there may be something, hears of all that came, however it was
/// gathered, and of the end. Nothing more is sent meanwhile.
fn looks_find_all_that_came(make: Maker) {
    const COUNT: u32 = 40;
    let (here, there) = make(&LinkOptions::default());
    let mut receiver = there.receiver;
    let until = soon();
    let look = |receiver: &mut dyn dmrpc_fabric::link::Receiver, what: &str| {
        while !receiver.spin(Duration::ZERO) {
            assert!(Instant::now() < until, "no look finds {what}");
            std::thread::yield_now();
        }
    };
    let mut sender = BlockingSender::new(here.sender);
    for len in [0, 300, 9000] {
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| {
                for number in 0..COUNT {
                    while let Err(error) = sender.get_mut().try_send(&number.to_le_bytes(), body(pattern(9, len))) {
                        assert!(matches!(error, TrySendError::Full(_)), "{error}");
                        sender.flush(soon()).unwrap();
                    }
                }
                sender.flush(soon()).unwrap();
            });
            for number in 0..COUNT {
                let what = format!("message {number} of {len} bytes");
                loop {
                    look(&mut *receiver, &what);
                    match receiver.recv().unwrap() {
                        Incoming::Empty => continue,
                        Incoming::Head { head, body_len } => {
                            assert_eq!(head, number.to_le_bytes());
                            assert_eq!(body_len, len as u64);
                            if len == 0 {
                                break;
                            }
                            receiver.place(Buffer::zeroed(len).into());
                        }
                        Incoming::Body(target) => {
                            assert_eq!(Buffer::from_target(target).unwrap().into_vec(), pattern(9, len));
                            break;
                        }
                    }
                }
            }
            sent.join().unwrap();
        });
    }
    drop((sender, here.receiver));
    loop {
        look(&mut *receiver, "the end");
        match receiver.recv() {
            Ok(Incoming::Empty) => assert!(Instant::now() < until, "the end is not said"),
            Ok(_) => panic!("more came than was sent"),
            Err(end) => {
                assert!(matches!(end, LinkError::Closed), "{end}");
                break;
            }
        }
    }
}

/// Over a limit: not sent, and the link goes on.
fn too_large_is_refused(make: Maker) {
    let (here, there) = make(&LinkOptions::default().max_body_bytes(5000));
    let (mut sender, mut receiver) = (BlockingSender::new(here.sender), BlockingReceiver::new(there.receiver));
    let head = vec![0; MAX_HEAD_BYTES + 1];
    assert!(matches!(sender.send(&head, Body::new(), soon()), Err(LinkError::TooLarge { what: "a head", .. })));
    assert!(matches!(
        sender.send(b"", body(vec![0; 5001]), soon()),
        Err(LinkError::TooLarge { what: "a body", len: 5001, limit: 5000 })
    ));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            sender.send(&head[1..], body(vec![1; 5000]), soon()).unwrap();
            sender.flush(soon()).unwrap();
        });
        assert_eq!(receive(&mut receiver).unwrap(), (vec![0; MAX_HEAD_BYTES], vec![1; 5000]));
    });
}

/// Bodies go to all parts of their destination, in order; or nowhere.
fn bodies_land_where_they_are_told(make: Maker) {
    let (here, there) = make(&LinkOptions::default().ring_bytes(4096));
    let mut receiver = BlockingReceiver::new(there.receiver);
    let pieces: Body =
        [&[1u8; 3][..], &[], &[2; 70_000], &[3; 1]].into_iter().map(Bytes::from_static_or_copy).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sender = BlockingSender::new(here.sender);
            for _ in 0..2 {
                sender.send(b"in pieces", pieces.clone(), soon()).unwrap();
            }
            sender.send(b"after", Body::new(), soon()).unwrap();
            sender.flush(soon()).unwrap();
        });
        let Incoming::Head { body_len: 70_004, .. } = receiver.recv(soon()).unwrap() else {
            panic!("the length is the sum")
        };
        let target = receiver.recv_body(Parts::of(&[1, 0, 50_000, 20_003]).into_target(), soon()).unwrap();
        let Target::Memory(memory) = target else { panic!("it was memory") };
        let parts = memory.into_any().downcast::<Parts>().unwrap().into_bytes();
        assert_eq!(parts.concat(), pieces.iter().flatten().copied().collect::<Vec<_>>());
        let Incoming::Head { body_len: 70_004, .. } = receiver.recv(soon()).unwrap() else { panic!("the second") };
        assert!(matches!(receiver.recv_body(Target::Discard, soon()).unwrap(), Target::Discard));
        assert_eq!(receive(&mut receiver).unwrap().0, b"after");
    });
}

/// A destination in several parts.
struct Parts {
    memory: Vec<Vec<u8>>,
    parts: Vec<dmrpc_fabric::link::Part>,
}

impl Parts {
    fn of(lengths: &[usize]) -> Self {
        let mut memory: Vec<Vec<u8>> = lengths.iter().map(|len| vec![0; *len]).collect();
        let parts = memory
            .iter_mut()
            .map(|part| dmrpc_fabric::link::Part { start: part.as_mut_ptr(), len: part.len() })
            .collect();
        Self { memory, parts }
    }

    fn into_target(self) -> Target {
        Target::Memory(Box::new(self))
    }

    fn into_bytes(self) -> Vec<Vec<u8>> {
        self.memory
    }
}

// SAFETY: the parts are vectors, which stay where they are, and nobody looks at them before the value is taken apart.
unsafe impl dmrpc_fabric::link::Destination for Parts {
    fn parts(&self) -> &[dmrpc_fabric::link::Part] {
        &self.parts
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
        self
    }
}

trait CopyToBytes {
    fn from_static_or_copy(bytes: &[u8]) -> Bytes;
}

impl CopyToBytes for Bytes {
    fn from_static_or_copy(bytes: &[u8]) -> Bytes {
        Bytes::copy_from_slice(bytes)
    }
}

/// Invariant 3: the owner of a body hears when the link is done with it.
fn bodies_are_let_go(make: Maker) {
    let (here, there) = make(&LinkOptions::default());
    struct Owner(Vec<u8>, std::sync::mpsc::Sender<()>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            self.1.send(()).unwrap();
        }
    }
    let (done, dropped) = std::sync::mpsc::channel();
    let (mut sender, mut receiver) = (BlockingSender::new(here.sender), BlockingReceiver::new(there.receiver));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let body = [Bytes::from_owner(Owner(vec![5; 1_000_000], done))].into_iter().collect();
            sender.send(b"", body, soon()).unwrap();
            sender.flush(soon()).unwrap();
        });
        assert_eq!(receive(&mut receiver).unwrap().1, vec![5; 1_000_000]);
        dropped.recv_timeout(Duration::from_secs(60)).unwrap();
    });
}

/// Both halves as tokio tasks, on one thread, so that a lost wake-up hangs.
fn under_tokio(make: Maker) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (here, there) = make(&LinkOptions::default().ring_bytes(8192).max_queued_bytes(8192));
    let all = async {
        let echo = async {
            let (mut sender, mut receiver) =
                (AsyncSender::new(there.sender).unwrap(), AsyncReceiver::new(there.receiver).unwrap());
            loop {
                let (head, body_len) = match receiver.recv().await {
                    Ok(Incoming::Head { head, body_len }) => (head.to_vec(), body_len),
                    Ok(_) => panic!("a head comes first"),
                    Err(LinkError::Closed) => break,
                    Err(error) => panic!("{error}"),
                };
                let mut bytes = Body::new();
                if body_len > 0 {
                    receiver.place(Buffer::zeroed(body_len as usize).into());
                    let Incoming::Body(target) = receiver.recv().await.unwrap() else { panic!("a body was placed") };
                    bytes.push(Buffer::from_target(target).unwrap().into_vec().into());
                }
                sender.send(&head, bytes).await.unwrap();
                sender.flush().await.unwrap();
            }
        };
        let ask = async {
            let (mut sender, mut receiver) =
                (AsyncSender::new(here.sender).unwrap(), AsyncReceiver::new(here.receiver).unwrap());
            for round in 0..2000usize {
                let len = if round % 50 == 0 { 100_000 } else { round % 10 };
                sender.send(&[round as u8], body(pattern(round as u64, len))).await.unwrap();
                sender.flush().await.unwrap();
                // Given up while it waits, as in a select: nothing is lost.
                let _ = tokio::time::timeout(Duration::ZERO, std::future::pending::<()>()).await;
                let Incoming::Head { head, body_len } = receiver.recv().await.unwrap() else {
                    panic!("a head comes first")
                };
                assert_eq!((head, body_len as usize), (&[round as u8][..], len));
                if len > 0 {
                    receiver.place(Buffer::zeroed(len).into());
                    let target = loop {
                        tokio::select! {
                            biased;
                            got = receiver.recv() => match got.unwrap() {
                                Incoming::Body(target) => break target,
                                _ => panic!("a body was placed"),
                            },
                            () = tokio::task::yield_now() => {}
                        }
                    };
                    assert!(Buffer::from_target(target).unwrap().into_vec() == pattern(round as u64, len));
                }
            }
        };
        tokio::join!(echo, ask);
    };
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), all).await.expect("a wake-up was lost") });
}

/// One end of a link in a loop over many.
struct Looped {
    link: Link,
    /// What is to be sent.
    queue: std::collections::VecDeque<(Vec<u8>, Vec<u8>)>,
    received: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Looped {
    /// Does all that can be done now. Whether it waits to send.
    fn turn(&mut self) -> bool {
        let late = loop {
            let Some((head, bytes)) = self.queue.pop_front() else { break !self.link.sender.flush().unwrap() };
            match self.link.sender.try_send(&head, body(bytes)) {
                Ok(()) => {}
                Err(TrySendError::Full(back)) => {
                    self.queue.push_front((head, back.concat()));
                    if !self.link.sender.flush().unwrap() {
                        break true;
                    }
                }
                Err(error) => panic!("{error}"),
            }
        };
        loop {
            match self.link.receiver.recv().unwrap() {
                Incoming::Empty => return late,
                Incoming::Head { head, body_len } => {
                    self.received.push((head.to_vec(), Vec::new()));
                    if body_len > 0 {
                        self.link.receiver.place(Buffer::zeroed(body_len as usize).into());
                    }
                }
                Incoming::Body(target) => {
                    self.received.last_mut().unwrap().1 = Buffer::from_target(target).unwrap().into_vec();
                }
            }
        }
    }
}

/// Both ends, and all halves of them, in one level-triggered epoll set, as a server has them. A turn ends where it may, a lost
/// wake-up hangs, and when all is done nothing is ready any more.
fn in_a_level_triggered_loop(make: Maker) {
    use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
    const MESSAGES: usize = 300;
    let (here, there) = make(&LinkOptions::default().ring_bytes(4096).max_queued_bytes(4096).turn_bytes(5000));
    let messages: Vec<(Vec<u8>, Vec<u8>)> = (0..MESSAGES)
        .map(|number| {
            (vec![number as u8; number], pattern(number as u64, if number % 9 == 0 { 50_000 } else { number }))
        })
        .collect();
    let end = |link| Looped { link, queue: messages.clone().into(), received: Vec::new() };
    let mut ends = [end(here), end(there)];
    let set = epoll::create(CreateFlags::CLOEXEC).unwrap();
    for (token, end) in ends.iter().enumerate() {
        for interest in end.link.sender.interests().iter().chain(&end.link.receiver.interests()) {
            let flags = if interest.writable { EventFlags::empty() } else { EventFlags::IN };
            epoll::add(&set, interest.fd, EventData::new_u64(token as u64), flags).unwrap();
        }
    }
    let mut late = [true; 2];
    let turn = |token: usize, ends: &mut [Looped; 2], late: &mut [bool; 2]| {
        let is_late = ends[token].turn();
        if is_late != late[token] {
            late[token] = is_late;
            for interest in ends[token].link.sender.interests().iter().filter(|interest| interest.writable) {
                let flags = if is_late { EventFlags::OUT } else { EventFlags::empty() };
                epoll::modify(&set, interest.fd, EventData::new_u64(token as u64), flags).unwrap();
            }
        }
    };
    for token in 0..2 {
        turn(token, &mut ends, &mut late);
    }
    let (mut turns, mut quiet) = (0, 0);
    // Once all is there, what is still ready becomes quiet in a few turns; a fake one needs some luck for it.
    while quiet < 1 {
        let all = ends.iter().all(|end| end.queue.is_empty() && end.received.len() == MESSAGES && !late[0] && !late[1]);
        let all = all && ends.iter().all(|end| end.received.last() == messages.last());
        let mut events = Vec::with_capacity(16);
        let timeout = rustix::event::Timespec { tv_sec: if all { 0 } else { 60 }, tv_nsec: 0 };
        match epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), Some(&timeout)).unwrap() {
            0 if all => quiet += 1,
            0 => panic!("a wake-up was lost"),
            _ => {}
        }
        for event in events {
            turns += 1;
            turn(event.data.u64() as usize, &mut ends, &mut late);
        }
        assert!(turns < 1000 * MESSAGES, "it never comes to rest");
    }
    assert!(ends.iter().all(|end| end.received == messages));
}

/// Descriptors come before the messages that were sent after them, and are what was passed.
fn descriptors_are_passed(make: Maker) {
    let (here, there) = make(&LinkOptions::default().ring_bytes(4096));
    let (mut sender, mut receiver) = (BlockingSender::new(here.sender), BlockingReceiver::new(there.receiver));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // More than are under way at a time.
            for tag in 0..300u32 {
                let memory = rustix::fs::memfd_create("passed", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
                rustix::io::write(&memory, &tag.to_le_bytes()).unwrap();
                use std::os::fd::AsFd;
                sender.pass_fd(tag, memory.as_fd()).unwrap();
                drop(memory);
                sender.send(&tag.to_le_bytes(), Body::new(), soon()).unwrap();
            }
            sender.flush(soon()).unwrap();
        });
        for tag in 0..300u32 {
            assert_eq!(receive(&mut receiver).unwrap().0, tag.to_le_bytes());
            let memory = receiver.take_fd(tag).expect("it comes before the message");
            let mut bytes = [0; 4];
            rustix::io::pread(&memory, &mut bytes, 0).unwrap();
            assert_eq!(bytes, tag.to_le_bytes());
            assert!(receiver.take_fd(tag).is_none(), "once");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Invariant 1, whatever the sizes, the size of the ring, and who gets how many turns.
    #[test]
    fn any_messages_go_through_any_ring(
        ring_order in 6..10u32,
        queued in 0..3000u64,
        turn in prop_oneof![1..200u64, Just(u64::MAX)],
        messages in prop::collection::vec((0..700usize, prop_oneof![Just(0), 0..40usize, 0..3000usize]), 1..30),
        turns in prop::collection::vec(0..2usize, 1..40),
    ) {
        let options = LinkOptions::default().ring_bytes(1 << ring_order).max_queued_bytes(queued).turn_bytes(turn);
        let (here, there) = shm(&options);
        let messages: Vec<(Vec<u8>, Vec<u8>)> =
            messages.iter().map(|&(head, body)| (pattern(head as u64, head), pattern(!(body as u64), body))).collect();
        let end = |link| Looped { link, queue: messages.clone().into(), received: Vec::new() };
        let mut ends = [end(here), end(there)];
        let done = |ends: &[Looped; 2]| ends.iter().all(|end| end.received == messages);
        for (count, turn) in turns.iter().chain(&[0, 1]).cycle().enumerate() {
            if done(&ends) {
                break;
            }
            prop_assert!(count < 1_000_000, "it never comes to an end");
            ends[*turn].turn();
        }
    }
}

/// Gives every kind of link every test.
macro_rules! suite {
    ($($(#[$attribute:meta])* $kind:ident: [$($only:ident),*];)*) => {$(
        mod $kind {
            suite!(@ $kind $(#[$attribute])*: messages_arrive_whole_and_in_order, many_small_messages, there_and_back, published_one_by_one,
                full_is_said_and_passes,
                a_deadline_is_kept, data_before_the_end, a_dropped_sender_ends_one_way, a_dropped_receiver_is_seen,
                looks_find_all_that_came, too_large_is_refused, bodies_land_where_they_are_told, bodies_are_let_go,
                under_tokio, in_a_level_triggered_loop $(, $only)*);
        }
    )*};
    (@ $kind:ident #[$attribute:meta]: $($test:ident),*) => {$(
        #[test]
        #[$attribute]
        fn $test() {
            super::$test(super::$kind);
        }
    )*};
    (@ $kind:ident: $($test:ident),*) => {$(
        #[test]
        fn $test() {
            super::$test(super::$kind);
        }
    )*};
}

suite! {
    inproc: [descriptors_are_passed];
    shm: [descriptors_are_passed];
    tcp: [];
    tls: [];
    udp: [];
    #[ignore = "needs an RDMA device: make test-rdma"]
    rdma: [];
    fake_inproc: [descriptors_are_passed];
    fake_shm: [descriptors_are_passed];
    fake_tcp: [];
    fake_tls: [];
    fake_udp: [];
    #[ignore = "needs an RDMA device: make test-rdma"]
    fake_rdma: [];
}
