//! A running node against the bare machine: `cargo bench -p dmrpc-memnode`.
//!
//! Medians of a few runs in turn, in one process with one client and one of the node. What each line is about stands in it.

#[path = "../tests/rig/mod.rs"]
mod rig;

use dmrpc_fabric::link::Body;
use dmrpc_pages::ByteSize;
use dmrpc_wire::Request;
use rig::{Client, NodeProcess, pattern};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const RUNS: usize = 9;
/// Time for the node to make ready what it keeps ready.
const PAUSE: Duration = Duration::from_millis(300);

fn main() {
    // As a test, `--test` is among the arguments: then one run of each will do.
    let runs = if std::env::args().any(|arg| arg == "--test") { 1 } else { RUNS };
    let node = NodeProcess::start(&["--pool", "2GiB"]);
    leases(&node, runs);
    round_trips(&node, runs);
    bulk(&node, runs);
}

fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("somebody listens");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// How long a client waits for a segment: one that was kept ready, and one that has to be made.
fn leases(node: &NodeProcess, runs: usize) {
    // After a pause, as below, so that what is compared is equally cold.
    let mut client = Client::local(node.unix());
    let slots = |client: &mut Client| {
        std::thread::sleep(PAUSE);
        let started = Instant::now();
        client.lease_slots(1);
        started.elapsed()
    };
    let slots = median((0..runs).map(|_| slots(&mut client)).collect());
    client.bye();
    say(&format!("lease of a slot: {slots:?}"));
    for pages in [16, 256, 1024, 4096, 16384] {
        let lease = |before: fn()| {
            let mut client = Client::local(node.unix());
            client.lease_slots(1);
            before();
            let started = Instant::now();
            client.lease_unmapped(pages, 0).expect("a lease");
            let took = started.elapsed();
            client.bye();
            took
        };
        // The first tells the node that the size is wanted.
        let made = lease(|| {});
        lease(|| {});
        lease(|| {});
        let ready = median((0..runs).map(|_| lease(|| std::thread::sleep(PAUSE))).collect());
        let size = ByteSize(u64::from(pages) * 4096);
        say(&format!("lease of {size}: {made:?} if it has to be made, {ready:?} if it is ready"));
    }
}

/// How long the smallest question takes.
fn round_trips(node: &NodeProcess, runs: usize) {
    const TRIPS: u32 = 2000;
    for address in [node.unix(), node.tcp()] {
        let mut client = Client::remote(address);
        let trips = |client: &mut Client| {
            let started = Instant::now();
            for _ in 0..TRIPS {
                client.renew();
            }
            started.elapsed() / TRIPS
        };
        let waited = median((0..runs).map(|_| trips(&mut client)).collect());
        let pipelined = |client: &mut Client| {
            let started = Instant::now();
            for _ in 0..TRIPS / 100 {
                let numbers: Vec<u64> = (0..100).map(|_| client.send(&Request::Renew, Body::new())).collect();
                numbers.into_iter().for_each(|number| drop(client.answer(number)));
            }
            started.elapsed() / TRIPS
        };
        let many = median((0..runs).map(|_| pipelined(&mut client)).collect());
        say(&format!("renewal over {address}: {waited:?} one at a time, {many:?} with 100 in flight"));
        client.bye();
    }
}

/// How fast bytes come and go, and how fast a plain socket is.
fn bulk(node: &NodeProcess, runs: usize) {
    for bytes in [256 << 10, 4 << 20, 64 << 20] {
        let rate = |took: Duration| bytes as f64 / took.as_secs_f64() / 1e9;
        let data = pattern(1, bytes);
        let mut client = Client::remote(node.tcp());
        let repeat = (128 << 20) / bytes as u32;
        let mut id = client.write(&data).expect("an object");
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..runs {
            let started = Instant::now();
            (0..repeat).for_each(|_| drop(client.read(id, 0, bytes as u64).expect("bytes")));
            times[0].push(started.elapsed() / repeat);
            let started = Instant::now();
            for _ in 0..repeat.min(8) {
                let release = [dmrpc_wire::ReleaseEntry { id, count: 1.into() }];
                client.send(&Request::Release(&release), Body::new());
                id = client.write(&data).expect("an object");
            }
            times[1].push(started.elapsed() / repeat.min(8));
            times[2].push(plain(&data, repeat));
        }
        let [read, write, plain] = times.map(|times| rate(median(times)));
        let size = ByteSize(bytes as u64);
        say(&format!("{size} over TCP: read {read:.2} GB/s, write {write:.2} GB/s, plain socket {plain:.2} GB/s"));
        client.bye();
    }
}

/// What a thread that sends and one that receives into a fresh buffer take for `data`.
fn plain(data: &[u8], repeat: u32) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut go = [0; 1];
            while stream.read_exact(&mut go).is_ok() {
                stream.write_all(data).expect("it listens");
            }
        });
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let started = Instant::now();
        for _ in 0..repeat {
            stream.write_all(&[1]).expect("it listens");
            let mut bytes = vec![0; data.len()];
            stream.read_exact(&mut bytes).expect("it sends");
        }
        started.elapsed() / repeat
    })
}
