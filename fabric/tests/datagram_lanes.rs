//! Several lanes at one address, over a network that brings each datagram to any of them: worse than every device.
//!
//! The numbers are those of the invariants in the heads of `datagram/endpoint.rs` and `datagram/dpdk/port.rs`.

use dmrpc_fabric::datagram::device::{Device, Frame};
use dmrpc_fabric::datagram::endpoint::{Endpoint, EndpointOptions, SessionKey, Standing};
use dmrpc_fabric::datagram::packet::HEADER_BYTES;
use dmrpc_fabric::datagram::{Head, News, Piece};
use dmrpc_fabric::link::{Body, Interests, LinkError};
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

const LANES: u8 = 4;
const CLIENT: u8 = 1;
const SERVER: u8 = 2;

struct Datagram {
    bytes: Vec<u8>,
    strayed: bool,
}

impl Frame for Datagram {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn strayed(&self) -> bool {
        self.strayed
    }
}

/// All that is under way: from whom, to which host and lane.
#[derive(Default)]
struct Network {
    under_way: Mutex<VecDeque<(u8, u8, u8, Datagram)>>,
    claims: Mutex<HashMap<(u8, u8, u64), u8>>,
}

struct Lane {
    network: Arc<Network>,
    host: u8,
    lane: u8,
    random: Cell<u64>,
}

impl Lane {
    fn chance(&self) -> u8 {
        self.random
            .set(self.random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        (self.random.get() >> 33) as u8
    }
}

impl Device for Lane {
    type Frame = Datagram;
    type Place = u8;

    fn datagram_bytes(&self) -> usize {
        300
    }

    fn needs_checksum(&self) -> bool {
        false
    }

    fn receive(&mut self, most: usize, mut take: impl FnMut(u8, Datagram)) -> Result<(), LinkError> {
        let mut under_way = self.network.under_way.lock().expect("nobody panicked");
        for _ in 0..most {
            let ours = under_way.iter().position(|(_, host, lane, _)| (*host, *lane) == (self.host, self.lane));
            let Some(place) = ours else { break };
            let (from, _, _, datagram) = under_way.remove(place).expect("it was found");
            take(from, datagram);
        }
        Ok(())
    }

    fn room(&mut self) -> usize {
        64
    }

    fn send(&mut self, to: &u8, header: &[u8; HEADER_BYTES], pieces: &[Piece<'_>]) {
        let mut bytes = header.to_vec();
        pieces.iter().for_each(|piece| bytes.extend_from_slice(piece.bytes()));
        // Now and then twice, each to a lane of its own.
        for _ in 0..1 + u8::from(self.chance().is_multiple_of(4)) {
            let datagram = Datagram { bytes: bytes.clone(), strayed: false };
            let under_way = &mut *self.network.under_way.lock().expect("nobody panicked");
            under_way.push_back((self.host, *to, self.chance() % LANES, datagram));
        }
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        Ok(())
    }

    fn lane(&self) -> u8 {
        self.lane
    }

    fn lanes(&self) -> u8 {
        LANES
    }

    fn pass(&mut self, lane: u8, from: u8, frame: Datagram) {
        let datagram = Datagram { strayed: true, ..frame };
        self.network.under_way.lock().expect("nobody panicked").push_back((from, self.host, lane, datagram));
    }

    fn claim(&mut self, from: &u8, attempt: u64) -> u8 {
        let mut claims = self.network.claims.lock().expect("nobody panicked");
        *claims.entry((self.host, *from, attempt)).or_insert(self.lane)
    }

    fn disclaim(&mut self, from: &u8, attempt: u64) {
        self.network.claims.lock().expect("nobody panicked").remove(&(self.host, *from, attempt));
    }

    fn interests(&self) -> Interests<'_> {
        Interests::new()
    }
}

fn host(network: &Arc<Network>, host: u8, seed: u64) -> Vec<Endpoint<Lane>> {
    let lanes = (0..LANES).map(|lane| {
        let random = Cell::new(seed ^ u64::from(lane) << 8 ^ u64::from(host) << 16);
        let device = Lane { network: network.clone(), host, lane, random };
        let mut drawn = seed << 16 ^ u64::from(host) << 8 ^ u64::from(lane);
        let random = move || {
            drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            drawn
        };
        Endpoint::new(device, EndpointOptions::default(), Box::new(random))
    });
    lanes.collect()
}

/// Takes the numbers that came over a session.
fn take(endpoint: &mut Endpoint<Lane>, key: SessionKey, numbers: &mut Vec<u32>) {
    let mut head = Head::default();
    while let News::Head { .. } = endpoint.session(key).expect("open").recv(&mut head).expect("an honest peer") {
        numbers.push(u32::from_le_bytes(head.bytes().try_into().expect("four bytes")));
    }
}

/// Invariants 2 and 5 of endpoints, 1 and 2 of ports: one session, in one lane, whatever queues its datagrams come to.
#[test]
fn a_session_is_one_whatever_lanes_its_datagrams_come_to() {
    const MESSAGES: u32 = 40;
    let (mut strayed, mut home) = (0, 0);
    for seed in 1..200 {
        let network = Arc::new(Network::default());
        let (mut clients, mut servers) = (host(&network, CLIENT, seed), host(&network, SERVER, seed));
        servers.iter_mut().for_each(Endpoint::listen);
        let client = seed as usize % clients.len();
        let ours = clients[client].connect(0, SERVER).expect("there is room");
        let (mut theirs, mut sent, mut came, mut back) = (None, 0, Vec::new(), Vec::new());
        let mut now = 0;
        while back.len() < MESSAGES as usize {
            assert!(now < 20_000_000_000, "seed {seed}: {} came and {} came back", came.len(), back.len());
            for endpoint in clients.iter_mut().chain(&mut servers) {
                endpoint.poll(now).expect("the device works");
            }
            for (lane, endpoint) in servers.iter_mut().enumerate() {
                if let Some(key) = endpoint.accept() {
                    assert!(theirs.replace((lane, key)).is_none(), "seed {seed}: a second session");
                }
            }
            if clients[client].standing(ours) == Standing::Open {
                if sent < MESSAGES {
                    let session = clients[client].session(ours).expect("open");
                    session.push(&sent.to_le_bytes(), Body::new()).expect("room");
                    clients[client].stir(ours);
                    sent += 1;
                }
                take(&mut clients[client], ours, &mut back);
            }
            if let Some((lane, key)) = theirs {
                let before = came.len();
                take(&mut servers[lane], key, &mut came);
                for number in &came[before..] {
                    servers[lane].session(key).expect("open").push(&number.to_le_bytes(), Body::new()).expect("room");
                    servers[lane].stir(key);
                }
            }
            now += 10_000;
        }
        let all: Vec<u32> = (0..MESSAGES).collect();
        assert_eq!((&came, &back), (&all, &all), "seed {seed}");
        *(if clients[client].strays(ours) { &mut strayed } else { &mut home }) += 1;
    }
    assert!(strayed > 0 && home > 0, "whoever connects is told whether answers come to its lane: {strayed}, {home}");
}
