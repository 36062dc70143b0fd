//! What reads of a peer's memory and messages take over RDMA, in one process with a link to itself:
//!
//! ```sh
//! cargo run --release -p dmrpc-fabric --example one_sided -- rdma://127.0.0.1:0
//! ```
//!
//! `make test-rdma` prints it beside perftest's figures of the same device.
#![allow(clippy::print_stdout, reason = "a program that prints figures")]

use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::blocking::{BlockingReceiver, BlockingSender, Spin};
use dmrpc_fabric::link::{Body, Incoming, Link, LinkError};
use dmrpc_fabric::listen::{Listener, connect};
use dmrpc_fabric::rdma::{Access, OneSided, RemoteRun, Step};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

const REGION_BYTES: usize = 8 << 20;
const DEPTH: usize = 8;

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            // Nobody waits on the link's descriptors here: each poll looks for completions.
            Poll::Pending => std::thread::yield_now(),
        }
    }
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn main() -> Result<(), LinkError> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "rdma://127.0.0.1:0".to_owned());
    let turn = Duration::from_millis(arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1000));
    let options = LinkOptions::default();
    let mut listener = Listener::bind(&url.parse()?, &options)?;
    let address = listener.address();
    let connecting = std::thread::spawn(move || connect(&address, &LinkOptions::default(), deadline()));
    let there = listener.accept(deadline())?;
    let here = connecting.join().expect("it does not panic")?;

    let unsupported = || LinkError::Unsupported("one-sided reads");
    let registrar = there.receiver.one_sided().ok_or_else(unsupported)?.registrar();
    let mut memory = vec![0u64; REGION_BYTES / 8];
    let start = memory.as_mut_ptr().cast();
    // SAFETY: the memory lives as long as its owner, and nobody has a reference to it from here on.
    let region = unsafe { registrar.register(start, REGION_BYTES, Access::RemoteRead, Arc::new(memory))? };
    let remote = RemoteRun { address: region.start() as u64, key: region.remote_key() };
    let one_sided = here.receiver.one_sided().ok_or_else(unsupported)?;

    println!("{:10} {:>8} {:>6} {:>9} {:>9} {:>8}", "what", "bytes", "depth", "p50 us", "p99 us", "MB/s");
    for len in [64, 4096, 65_536, 1 << 20] {
        for depth in [1, DEPTH] {
            reads(&one_sided, remote, len, depth, turn)?;
        }
    }
    messages(there, here, turn)
}

fn reads(one_sided: &OneSided, remote: RemoteRun, len: usize, depth: usize, turn: Duration) -> Result<(), LinkError> {
    let heap = one_sided.heap()?;
    let mut times = Vec::new();
    let mut flying = VecDeque::new();
    let started = Instant::now();
    while started.elapsed() < turn || !flying.is_empty() {
        while flying.len() < depth && started.elapsed() < turn {
            let step = Step { at: 0, len, remote, fenced: false };
            flying.push_back((Instant::now(), one_sided.read(heap.block(len)?, vec![step])));
        }
        if let Some((since, ending)) = flying.pop_front() {
            block_on(ending)?;
            times.push(since.elapsed());
        }
    }
    print("read", len, depth, &mut times, started.elapsed());
    Ok(())
}

/// A message there and one back.
fn messages(there: Link, here: Link, turn: Duration) -> Result<(), LinkError> {
    let spin = Spin(Duration::from_micros(200));
    let echo = std::thread::spawn(move || -> Result<(), LinkError> {
        let mut sender = BlockingSender::new(there.sender);
        let mut receiver = BlockingReceiver::new(there.receiver).with_spin(spin);
        loop {
            match receiver.recv(deadline()) {
                Ok(Incoming::Head { head, .. }) => sender.send(head, Body::new(), deadline())?,
                Ok(_) => {}
                Err(LinkError::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    });
    let mut sender = BlockingSender::new(here.sender);
    let mut receiver = BlockingReceiver::new(here.receiver).with_spin(spin);
    let mut times = Vec::new();
    let started = Instant::now();
    while started.elapsed() < turn {
        let since = Instant::now();
        sender.send(&[7; 64], Body::new(), deadline())?;
        receiver.recv(deadline())?;
        times.push(since.elapsed());
    }
    print("ping", 64, 1, &mut times, started.elapsed());
    drop((sender, receiver));
    echo.join().expect("it does not panic")
}

fn print(what: &str, len: usize, depth: usize, times: &mut [Duration], took: Duration) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    let rate = (times.len() * len) as f64 / took.as_secs_f64() / 1e6;
    println!("{what:10} {len:8} {depth:6} {:9.1} {:9.1} {rate:8.1}", at(0.5), at(0.99));
}
