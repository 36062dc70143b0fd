//! What links cost over the bare machine: `cargo run --release -p dmrpc-fabric --example ping`.
//!
//! Each figure is of several runs, taken in turns with what it is held against. A word after `--` takes only the figures
//! that have it in their names.

#![allow(clippy::print_stdout)]

use bytes::Bytes;
use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::blocking::{BlockingReceiver, BlockingSender, Spin};
use dmrpc_fabric::buffer::Buffer;
use dmrpc_fabric::link::{Body, Incoming, Link, Target, TrySendError};
use dmrpc_fabric::listen::{Listener, connect};
use rustix::event::{EventfdFlags, eventfd};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const RUNS: usize = 7;
const ROUNDS: usize = 20_000;
const SMALL_MESSAGES: usize = 2_000_000;
const BODY_BYTES: usize = 1 << 20;
const BODIES: usize = 2_000;
const HEAD: [u8; 64] = [7; 64];

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// A figure, and how it is shown.
struct Figure {
    name: &'static str,
    /// Seconds of a run.
    run: fn() -> f64,
    show: fn(f64) -> String,
}

const FIGURES: &[Figure] = &[
    Figure { name: "round trip, bare eventfd", run: eventfd_ping, show: round_trip },
    Figure { name: "round trip, shm link, 64 B", run: || link_ping("unix", Duration::ZERO), show: round_trip },
    Figure { name: "round trip, shm link, spinning, 64 B", run: || link_ping("unix", SPIN), show: round_trip },
    Figure { name: "round trip, plain TCP socket, 64 B", run: socket_ping, show: round_trip },
    Figure { name: "round trip, tcp link, 64 B", run: || link_ping("tcp", Duration::ZERO), show: round_trip },
    Figure { name: "one way, shm link, gathered, 64 B", run: || link_flood("unix", SMALL_MESSAGES, 0), show: rate },
    Figure { name: "one way, tcp link, gathered, 64 B", run: || link_flood("tcp", SMALL_MESSAGES, 0), show: rate },
    Figure { name: "memcpy, one thread, 1 MiB", run: copy_flood, show: speed },
    Figure { name: "one way, shm link, 1 MiB bodies", run: || link_flood("unix", BODIES, BODY_BYTES), show: speed },
    Figure { name: "one way, plain blocking TCP socket, 1 MiB", run: socket_flood, show: speed },
    Figure { name: "one way, tcp link, 1 MiB bodies", run: || link_flood("tcp", BODIES, BODY_BYTES), show: speed },
];

const SPIN: Duration = Duration::from_micros(50);

fn round_trip(seconds: f64) -> String {
    format!("{:.2} us", seconds / ROUNDS as f64 * 1e6)
}

fn rate(seconds: f64) -> String {
    format!("{:.2} M/s", SMALL_MESSAGES as f64 / seconds / 1e6)
}

fn speed(seconds: f64) -> String {
    format!("{:.2} GB/s", (BODIES * BODY_BYTES) as f64 / seconds / 1e9)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "child") {
        return child(&arguments[1], &arguments[2..]);
    }
    let wanted = arguments.first().map_or("", String::as_str);
    let figures: Vec<&Figure> = FIGURES.iter().filter(|figure| figure.name.contains(wanted)).collect();
    let mut seconds = vec![Vec::new(); figures.len()];
    for _ in 0..RUNS {
        for (figure, seconds) in figures.iter().zip(&mut seconds) {
            seconds.push((figure.run)());
        }
    }
    println!("{:<46} {:>14} {:>14}", "between two processes", "median", "best");
    for (figure, mut seconds) in figures.into_iter().zip(seconds) {
        seconds.sort_by(f64::total_cmp);
        let (median, best) = ((figure.show)(seconds[RUNS / 2]), (figure.show)(seconds[0]));
        println!("{:<46} {median:>14} {best:>14}", figure.name);
    }
}

fn spawn(what: &str, arguments: &[String]) -> Child {
    Command::new(std::env::current_exe().unwrap()).arg("child").arg(what).args(arguments).spawn().unwrap()
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// The other process.
fn child(what: &str, arguments: &[String]) {
    match what {
        "eventfd" => {
            let fd = |index: usize| {
                let fd = arguments[index].parse().unwrap();
                // SAFETY: the parent made it and left it open for us.
                unsafe { BorrowedFd::borrow_raw(fd) }
            };
            for _ in 0..ROUNDS + ROUNDS / 10 {
                rustix::io::read(fd(0), &mut [0; 8]).unwrap();
                rustix::io::write(fd(1), &1u64.to_ne_bytes()).unwrap();
            }
        }
        "echo" => {
            let link = connect(&arguments[0].parse().unwrap(), &LinkOptions::default(), soon()).unwrap();
            let spin = Spin(Duration::from_micros(arguments[1].parse().unwrap()));
            let mut sender = BlockingSender::new(link.sender);
            let mut receiver = BlockingReceiver::new(link.receiver).with_spin(spin);
            while let Ok(Incoming::Head { head, .. }) = receiver.recv(soon()) {
                if sender.send(head, Body::new(), soon()).is_err() {
                    break;
                }
            }
        }
        "flood" => {
            let link = connect(&arguments[0].parse().unwrap(), &LinkOptions::default(), soon()).unwrap();
            let (count, len) = (arguments[1].parse().unwrap(), arguments[2].parse().unwrap());
            flood(link, count, len);
        }
        "socket-echo" => {
            let mut socket = TcpStream::connect(&arguments[0]).unwrap();
            socket.set_nodelay(true).unwrap();
            let mut bytes = HEAD;
            while socket.read_exact(&mut bytes).is_ok() && socket.write_all(&bytes).is_ok() {}
        }
        "socket-flood" => {
            let mut socket = TcpStream::connect(&arguments[0]).unwrap();
            let bytes = vec![7; BODY_BYTES];
            for _ in 0..BODIES {
                socket.write_all(&bytes).unwrap();
            }
            let _ = socket.read(&mut [0]);
        }
        other => panic!("no child is called {other:?}"),
    }
}

fn eventfd_ping() -> f64 {
    let [there, back]: [OwnedFd; 2] = std::array::from_fn(|_| eventfd(0, EventfdFlags::empty()).unwrap());
    let mut child = spawn("eventfd", &[there.as_raw_fd().to_string(), back.as_raw_fd().to_string()]);
    let round = || {
        rustix::io::write(&there, &1u64.to_ne_bytes()).unwrap();
        rustix::io::read(&back, &mut [0; 8]).unwrap();
    };
    (0..ROUNDS / 10).for_each(|_| round());
    let seconds = timed(|| (0..ROUNDS).for_each(|_| round()));
    child.wait().unwrap();
    seconds
}

/// A link to a child that does `what`.
fn link_to(scheme: &str, what: &str, arguments: &[String]) -> (Link, Child) {
    let folder = std::env::temp_dir().join(format!("dmrpc-ping-{}", std::process::id()));
    let url = if scheme == "unix" { format!("unix://{}", folder.display()) } else { "tcp://127.0.0.1:0".to_owned() };
    let mut listener = Listener::bind(&url.parse().unwrap(), &LinkOptions::default()).unwrap();
    let mut all = vec![listener.address().to_string()];
    all.extend_from_slice(arguments);
    let child = spawn(what, &all);
    (listener.accept(soon()).unwrap(), child)
}

fn link_ping(scheme: &str, spin: Duration) -> f64 {
    let (link, mut child) = link_to(scheme, "echo", &[spin.as_micros().to_string()]);
    let mut sender = BlockingSender::new(link.sender);
    let mut receiver = BlockingReceiver::new(link.receiver).with_spin(Spin(spin));
    let deadline = soon();
    let mut round = || {
        sender.send(&HEAD, Body::new(), deadline).unwrap();
        assert!(matches!(receiver.recv(deadline).unwrap(), Incoming::Head { .. }));
    };
    (0..ROUNDS / 10).for_each(|_| round());
    let seconds = timed(|| (0..ROUNDS).for_each(|_| round()));
    drop((sender, receiver));
    child.wait().unwrap();
    seconds
}

fn socket_ping() -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut child = spawn("socket-echo", &[listener.local_addr().unwrap().to_string()]);
    let mut socket = listener.accept().unwrap().0;
    socket.set_nodelay(true).unwrap();
    let mut bytes = HEAD;
    let mut round = || {
        socket.write_all(&HEAD).unwrap();
        socket.read_exact(&mut bytes).unwrap();
    };
    (0..ROUNDS / 10).for_each(|_| round());
    let seconds = timed(|| (0..ROUNDS).for_each(|_| round()));
    drop(socket);
    child.wait().unwrap();
    seconds
}

/// Sends `count` messages with bodies of `len` bytes, then waits for the peer to close.
fn flood(link: Link, count: usize, len: usize) {
    let mut sender = BlockingSender::new(link.sender);
    let bytes = Bytes::from(vec![7; len]);
    for _ in 0..count {
        let mut body: Body = if len == 0 { Body::new() } else { [bytes.clone()].into_iter().collect() };
        loop {
            match sender.get_mut().try_send(&HEAD, body) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) => body = back,
                Err(error) => panic!("{error}"),
            }
            sender.flush(soon()).unwrap();
        }
    }
    sender.flush(soon()).unwrap();
    let _ = BlockingReceiver::new(link.receiver).recv(soon());
}

/// The time that the messages of a child take to come.
fn link_flood(scheme: &str, count: usize, len: usize) -> f64 {
    let (link, mut child) = link_to(scheme, "flood", &[count.to_string(), len.to_string()]);
    let mut receiver = BlockingReceiver::new(link.receiver);
    let mut target: Option<Target> = Some(Buffer::zeroed(len).into());
    let deadline = soon();
    let mut message = || {
        let Incoming::Head { body_len, .. } = receiver.recv(deadline).unwrap() else { panic!("a head comes first") };
        if body_len > 0 {
            target = Some(receiver.recv_body(target.take().unwrap(), deadline).unwrap());
        }
    };
    message();
    let seconds = timed(|| (1..count).for_each(|_| message()));
    drop((link.sender, receiver));
    child.wait().unwrap();
    seconds
}

fn socket_flood() -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut child = spawn("socket-flood", &[listener.local_addr().unwrap().to_string()]);
    let mut socket = listener.accept().unwrap().0;
    let mut bytes = vec![0; BODY_BYTES];
    socket.read_exact(&mut bytes).unwrap();
    let seconds = timed(|| (1..BODIES).for_each(|_| socket.read_exact(&mut bytes).unwrap()));
    drop(socket);
    child.wait().unwrap();
    seconds
}

fn copy_flood() -> f64 {
    let (from, mut to) = (vec![7u8; BODY_BYTES], vec![0u8; BODY_BYTES]);
    timed(|| (1..BODIES).for_each(|_| std::hint::black_box(&mut to).copy_from_slice(std::hint::black_box(&from))))
}
