//! Two sessions on a network that loses, repeats, delays, reorders, cuts and damages datagrams, by seed and on virtual time.
//!
//! Whatever the network does short of silence, each end receives just the messages that the other sent, in order. A seed that
//! fails prints itself; `DATAGRAM_SEED=n` runs it alone.

use bytes::Bytes;
use dmrpc_fabric::datagram::device::Frame;
use dmrpc_fabric::datagram::packet::{Header, SessionName};
use dmrpc_fabric::datagram::session::{Session, Terms};
use dmrpc_fabric::datagram::{Head, News};
use dmrpc_fabric::link::{Body, Destination, LinkError, Part, Target};
use dmrpc_test_random::Random;
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};

const SEEDS: u64 = 10_000;

struct Datagram(Vec<u8>);

impl Frame for Datagram {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A destination in three pieces, some of them empty.
struct Memory(Vec<u8>, [Part; 3]);

// SAFETY: the parts are the vector's own, which is not touched or moved in memory until the value is taken apart.
unsafe impl Destination for Memory {
    fn parts(&self) -> &[Part] {
        &self.1
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

fn memory(len: u64, random: &mut Random) -> Target {
    let mut bytes = vec![0xee; len as usize];
    let start = bytes.as_mut_ptr();
    let (a, b) = (random.below(len + 1) as usize, random.below(len + 1) as usize);
    let part = |from: usize, to: usize| Part { start: start.wrapping_add(from), len: to - from };
    let parts = [part(0, a.min(b)), part(a.min(b), a.max(b)), part(a.max(b), len as usize)];
    Target::Memory(Box::new(Memory(bytes, parts)))
}

/// How bad the network is: one in so many, or never for 0.
struct Weather {
    lose: u64,
    repeat: u64,
    damage: u64,
    cut: u64,
    delay_ns: u64,
    jitter_ns: u64,
}

type Message = (Vec<u8>, Vec<u8>);

struct End {
    session: Session<Datagram>,
    to_send: VecDeque<Message>,
    expected: VecDeque<Message>,
    /// Whether it reads by fits and starts.
    slow: bool,
}

fn message(random: &mut Random, payload: u64) -> Message {
    let head = if random.one_in(8) { random.below(5 * payload) } else { random.below(40) };
    let body = match random.below(4) {
        0 => random.below(60 * payload),
        1 => random.below(3 * payload),
        _ => 0,
    };
    (random.bytes(head), random.bytes(body))
}

impl End {
    fn push(&mut self, random: &mut Random) {
        while let Some((head, body)) = self.to_send.front() {
            let cut = random.below(body.len() as u64 + 1) as usize;
            let pieces = [Bytes::copy_from_slice(&body[..cut]), Bytes::copy_from_slice(&body[cut..])];
            if self.session.push(head, Body::from_iter(pieces)).is_err() {
                return;
            }
            self.to_send.pop_front();
        }
    }

    fn receive(&mut self, random: &mut Random) {
        let mut head = Head::default();
        loop {
            match self.session.recv(&mut head).expect("the session is open") {
                News::Empty => return,
                News::Head { body_len } => {
                    let (expected, body) = self.expected.front().expect("no more messages than were sent");
                    assert_eq!((head.bytes(), body_len), (&expected[..], body.len() as u64));
                    if body_len == 0 {
                        self.expected.pop_front();
                    } else {
                        let target = if random.one_in(5) { Target::Discard } else { memory(body_len, random) };
                        self.session.place(target);
                    }
                }
                News::Body(target) => {
                    let (_, body) = self.expected.pop_front().expect("its head came before");
                    if let Target::Memory(memory) = target {
                        let memory = memory.into_any().downcast::<Memory>().expect("what was given");
                        assert!(memory.0 == body, "the body differs");
                    }
                }
            }
            if self.slow && random.one_in(3) {
                return;
            }
        }
    }
}

fn terms(payload: u64, window: u32, peer_window: u32) -> Terms {
    Terms {
        payload_bytes: payload as usize,
        window,
        peer_window,
        // Some as over a ring that the two have for themselves.
        contended: !payload.is_multiple_of(4),
        checksum: true,
        max_body_bytes: 100_000,
        max_queued_bytes: 5_000,
        silence_ns: 60_000_000_000,
        keep_alive_ns: 1_000_000_000,
    }
}

fn run(seed: u64) {
    let random = &mut Random(seed);
    let bad = [0, 0, 3, 10, 50, 200];
    let weather = Weather {
        lose: bad[random.below(6) as usize],
        repeat: bad[random.below(6) as usize],
        damage: if random.one_in(3) { 20 } else { 0 },
        cut: if random.one_in(4) { 30 } else { 0 },
        delay_ns: 1_000 + random.below(50_000),
        jitter_ns: if random.one_in(2) { random.below(100_000) } else { 0 },
    };
    let payload = 64 + random.below(200);
    let sizes = [4u32, 16, 64, 256];
    let windows = [sizes[random.below(4) as usize], sizes[random.below(4) as usize]];
    let names = [SessionName { index: 0, token: 10 }, SessionName { index: 1, token: 11 }];
    let messages: Vec<VecDeque<Message>> =
        (0..2).map(|_| (0..random.below(12)).map(|_| message(random, payload)).collect()).collect();
    let mut now = 0;
    let mut ends: Vec<End> = (0..2)
        .map(|end| End {
            session: Session::new(now, names[1 - end], terms(payload, windows[end], windows[1 - end])),
            to_send: messages[end].clone(),
            expected: messages[1 - end].clone(),
            slow: random.one_in(3),
        })
        .collect();
    // By time of arrival, then by a count that breaks ties the same way in each run.
    let mut wire: BTreeMap<(u64, u64), (usize, Vec<u8>)> = BTreeMap::new();
    let mut count = 0;
    for _ in 0..200_000 {
        for (end, this) in ends.iter_mut().enumerate() {
            this.push(random);
            while let Some(transmit) = this.session.transmit(now) {
                let mut bytes = transmit.header.to_vec();
                transmit.pieces.iter().for_each(|piece| bytes.extend_from_slice(piece.bytes()));
                for _ in 0..1 + u64::from(random.one_in(weather.repeat)) {
                    if random.one_in(weather.lose) {
                        continue;
                    }
                    let mut bytes = bytes.clone();
                    if random.one_in(weather.damage) {
                        let place = random.below(bytes.len() as u64) as usize;
                        bytes[place] ^= 1 << random.below(8);
                    }
                    if random.one_in(weather.cut) {
                        bytes.truncate(random.below(bytes.len() as u64) as usize);
                    }
                    count += 1;
                    let at = now + weather.delay_ns + random.below(weather.jitter_ns);
                    wire.insert((at, count), (1 - end, bytes));
                }
            }
        }
        if ends.iter().all(|end| end.to_send.is_empty() && end.expected.is_empty() && end.session.is_flushed()) {
            return;
        }
        let timeout = ends.iter().map(|end| end.session.next_timeout()).min().expect("two");
        match wire.first_key_value() {
            Some((&(at, _), _)) if at <= timeout => {
                now = now.max(at);
                let (_, (end, bytes)) = wire.pop_first().expect("it was there");
                if let Some((header, payload)) = Header::decode(&bytes, true) {
                    assert_eq!(header.to, names[end], "damage went unseen");
                    let payload = payload.len();
                    ends[end].session.datagram(now, &header, payload, Datagram(bytes)).expect("an honest peer");
                }
            }
            _ => {
                now = now.max(timeout);
                ends.iter_mut().for_each(|end| end.session.timeout(now));
            }
        }
        for end in &mut ends {
            if !end.slow || random.one_in(4) || wire.is_empty() {
                end.receive(random);
            }
        }
    }
    let left: Vec<_> = ends.iter().map(|end| (end.to_send.len(), end.expected.len())).collect();
    panic!("not done after {now} ns: {left:?} to send and to come");
}

#[test]
fn messages_arrive_whole_once_and_in_order() {
    if let Ok(seed) = std::env::var("DATAGRAM_SEED") {
        return run(seed.parse().expect("DATAGRAM_SEED is a number"));
    }
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            scope.spawn(move || {
                for seed in (worker..SEEDS).step_by(workers as usize) {
                    let result = std::panic::catch_unwind(|| run(seed));
                    assert!(result.is_ok(), "failed with DATAGRAM_SEED={seed}");
                }
            });
        }
    });
}

#[test]
fn a_peer_that_falls_silent_is_dead_and_not_waited_for() {
    for busy in [false, true] {
        let terms = Terms { silence_ns: 3_000_000_000, ..terms(100, 16, 16) };
        let mut session = Session::<Datagram>::new(0, SessionName { index: 0, token: 0 }, terms);
        if busy {
            session.push(b"anyone?", Body::new()).expect("room");
        }
        let mut sent = 0;
        loop {
            let now = session.next_timeout();
            if now == u64::MAX {
                break;
            }
            while session.transmit(now).is_some() {
                sent += 1;
            }
            session.timeout(now);
        }
        assert!(sent >= 2, "asked {sent} times");
        assert!(matches!(session.recv(&mut Head::default()), Err(LinkError::Closed)));
    }
}

#[test]
fn hostile_datagrams_never_panic() {
    for seed in 0..2_000 {
        let random = &mut Random(seed);
        let terms = Terms { checksum: false, max_body_bytes: 5_000, ..terms(100, 16, 16) };
        let mut session = Session::<Datagram>::new(0, SessionName { index: 0, token: 0 }, terms);
        let mut unplaced = false;
        for step in 0..200 {
            if random.one_in(4) {
                let _ = session.push(&[1; 30], Body::from_iter([Bytes::from_static(&[2; 250])]));
                while session.transmit(step).is_some() {}
            }
            let len = random.below(101) as u16;
            let mut bytes = vec![1, 3 + random.below(3) as u8];
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&[0; 8]);
            for limit in [20, 8, 24, 4] {
                bytes.extend_from_slice(&(random.below(limit) as u32).to_le_bytes());
            }
            bytes.extend_from_slice(&[0; 8]);
            bytes.extend_from_slice(&(random.below(300) as u32).to_le_bytes());
            bytes.extend_from_slice(&random.below(3_000_u64).to_le_bytes());
            bytes.resize(36 + usize::from(len), 7);
            let (header, payload) = Header::decode(&bytes, false).expect("well-formed");
            let payload = payload.len();
            if session.datagram(step, &header, payload, Datagram(bytes)).is_err() {
                break;
            }
            let mut head = Head::default();
            while !unplaced {
                match session.recv(&mut head) {
                    Ok(News::Empty) | Err(_) => break,
                    Ok(News::Head { body_len }) if body_len > 0 => {
                        unplaced = random.one_in(2);
                        if !unplaced {
                            session.place(memory(body_len, random));
                        }
                    }
                    Ok(_) => {}
                }
            }
        }
    }
}
