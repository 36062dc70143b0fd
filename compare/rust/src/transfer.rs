//! Bytes read from an object and written as one: over shared memory and TCP, beside `memcpy` and a socket that does nothing else.
//!
//! 1. Reads are of parts at changing places of an object that is larger than the processor's caches, in every way.
//! 2. Each lane has memory of its own, which was written before.

use crate::process::{self, Host, Role};
use bytes::Bytes;
use dmrpc_objstore::{ObjectRef, Store, StoreOptions};
use dmrpc_turns::process::{Stop, ready};
use dmrpc_turns::{Latencies, Load, Measured, Order, Turn, payload};
use serde::Deserialize;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The memory node's pool: what is read, and what all lanes write.
const POOL_BYTES: u64 = 4 << 30;

/// Parts are read from objects of at least so many bytes.
const LEAST_OBJECT_BYTES: usize = 64 << 20;

/// The longest that a peer of the bare socket may ask for.
const MAX_SOCKET_BYTES: u64 = 1 << 30;

/// What is done in a turn.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Case {
    size: usize,
    direction: Direction,
    load: Load,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Read,
    Write,
}

pub(crate) fn take_turns() -> anyhow::Result<()> {
    let host = Host::start(POOL_BYTES)?;
    let runtime = process::runtime()?;
    let (near, _system) = runtime.block_on(process::join(&host.store(), "near", None))?;
    let far = runtime.block_on(async {
        let mut options = StoreOptions::new(host.far_store());
        // Every read comes over the network.
        options.cache_bytes = 0;
        Store::connect_with(options).await
    })?;
    let peer = process::start(&Role::Socket)?;
    let mut made: Option<Source> = None;
    dmrpc_turns::take(|Order::<Case> { way, case, time }| {
        let lanes = match case.load {
            Load::InFlight(lanes) => lanes.max(1),
            Load::PerSecond(_) => anyhow::bail!("transfers have no rate"),
        };
        // One at a time: the largest are as large as the pool.
        let len = case.size.max(LEAST_OBJECT_BYTES);
        if made.as_ref().is_none_or(|source| source.bytes.len() != len) {
            made = None;
            made = Some(Source::new(&near, &far, len, &runtime)?);
        }
        let source = made.as_ref().expect("made above");
        let answer = format!("{:016x}", payload::sum(&source.bytes[..case.size]));
        let measured = match way.as_str() {
            "memcpy" => in_threads(lanes, time, |_| Ok(Copy::new(source.bytes.clone(), case)))?,
            "socket" => in_threads(lanes, time, |_| Socket::connect(peer.url(), source.bytes.clone(), case))?,
            "memory" | "tcp" => {
                let store = if way == "tcp" { far.clone() } else { near.clone() };
                let part = Part::new(source, store, way == "tcp", case, lanes);
                runtime.block_on(async {
                    part.check().await?;
                    dmrpc_turns::run(case.load, time, move |n| part.clone().operation(n)).await
                })?
            }
            other => anyhow::bail!("there is no way {other}"),
        };
        Ok(Turn::new(&measured, answer))
    })
}

/// What is read, and what is written: the same bytes.
struct Source {
    bytes: Bytes,
    near: ObjectRef,
    far: ObjectRef,
}

impl Source {
    fn new(near: &Store, far: &Store, len: usize, runtime: &tokio::runtime::Runtime) -> anyhow::Result<Self> {
        let bytes = Bytes::from(payload::bytes(len));
        runtime.block_on(async {
            let (near, far) = (near.put(&bytes).await?, far.put(&bytes).await?);
            near.keep().await?;
            far.keep().await?;
            Ok(Self { bytes, near, far })
        })
    }
}

/// Where operation `n` reads.
fn place(n: u64, size: usize, whole: usize) -> usize {
    // Numbers that have nothing to do with each other, at multiples of the size.
    let dice = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (dice >> 32) as usize % (whole / size) * size
}

/// Transfers of ours.
#[derive(Clone)]
struct Part {
    object: ObjectRef,
    bytes: Bytes,
    store: Store,
    far: bool,
    case: Case,
    /// Memory of each lane.
    targets: Arc<Vec<Mutex<Vec<u8>>>>,
}

impl Part {
    fn new(source: &Source, store: Store, far: bool, case: Case, lanes: usize) -> Self {
        let object = if far { source.far.clone() } else { source.near.clone() };
        // Over the network bytes are received into memory of the store's own.
        let room = if far || case.direction == Direction::Write { 0 } else { case.size };
        let targets = Arc::new((0..lanes).map(|_| Mutex::new(vec![1; room])).collect());
        Self { object, bytes: source.bytes.clone(), store, far, case, targets }
    }

    /// That what is read is what was written.
    async fn check(&self) -> anyhow::Result<()> {
        let size = self.case.size;
        let found = match self.case.direction {
            Direction::Read => payload::sum(&self.object.slice(0..size as u64)?.get().await?),
            Direction::Write => payload::sum(&self.store.put_bytes(self.bytes.slice(..size)).await?.get().await?),
        };
        anyhow::ensure!(found == payload::sum(&self.bytes[..size]), "other bytes came than were sent");
        Ok(())
    }

    async fn operation(self, n: u64) -> anyhow::Result<()> {
        let Case { size, direction, .. } = self.case;
        if direction == Direction::Write {
            let at = place(n, size, self.bytes.len());
            let object = self.store.put_bytes(self.bytes.slice(at..at + size)).await?;
            if self.far {
                // Until the node has it.
                object.keep().await?;
                self.store.flush().await?;
            }
            return Ok(());
        }
        let at = place(n, size, self.bytes.len());
        if self.far {
            let view = self.object.slice(at as u64..(at + size) as u64)?.get().await?;
            anyhow::ensure!(view[size - 1] == self.bytes[at + size - 1], "other bytes came than were sent");
        } else {
            let slot = &self.targets[n as usize % self.targets.len()];
            let mut target = std::mem::take(&mut *slot.lock().unwrap_or_else(PoisonError::into_inner));
            self.object.as_any().read(at as u64, &mut target).await?;
            anyhow::ensure!(target[size - 1] == self.bytes[at + size - 1], "other bytes came than were sent");
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = target;
        }
        Ok(())
    }
}

/// What a thread repeats.
trait Operation: Send {
    fn once(&mut self, n: u64) -> anyhow::Result<()>;
}

/// Repeats operations for a time, one at a time in each of so many threads.
fn in_threads<O: Operation>(
    lanes: usize,
    time: Duration,
    begin: impl Fn(usize) -> anyhow::Result<O>,
) -> anyhow::Result<Measured> {
    let mut operations = (0..lanes).map(begin).collect::<anyhow::Result<Vec<_>>>()?;
    let begun = Instant::now();
    let latencies = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(&mut operations)
            .map(|(lane, operation)| {
                scope.spawn(move || {
                    let (mut latencies, mut before) = (Latencies::new(), begun);
                    for n in (lane..).step_by(lanes) {
                        if before - begun >= time {
                            break;
                        }
                        operation.once(n)?;
                        let now = Instant::now();
                        latencies.record(now - before);
                        before = now;
                    }
                    anyhow::Ok(latencies)
                })
            })
            .collect();
        let mut all = Latencies::new();
        for thread in threads {
            all.add(&thread.join().expect("it does not panic")?);
        }
        anyhow::Ok(all)
    })?;
    Ok(Measured { latencies, elapsed: begun.elapsed(), given_up: 0 })
}

/// `memcpy` within this process.
struct Copy {
    bytes: Bytes,
    target: Vec<u8>,
    case: Case,
}

impl Copy {
    fn new(bytes: Bytes, case: Case) -> Self {
        // A copy that is kept lies anywhere in the memory that there is for copies; one that was read, in the reader's.
        let room = if case.direction == Direction::Write { bytes.len() } else { case.size };
        Self { bytes, target: vec![1; room], case }
    }
}

impl Operation for Copy {
    fn once(&mut self, n: u64) -> anyhow::Result<()> {
        let size = self.case.size;
        let from = place(n, size, self.bytes.len());
        let to = if self.case.direction == Direction::Write { from } else { 0 };
        self.target[to..to + size].copy_from_slice(black_box(&self.bytes[from..from + size]));
        black_box(&mut self.target);
        Ok(())
    }
}

/// A connection to [`serve_socket`], which has nothing on it but bytes.
struct Socket {
    stream: TcpStream,
    bytes: Bytes,
    target: Vec<u8>,
    case: Case,
}

impl Socket {
    fn connect(address: &str, bytes: Bytes, case: Case) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut socket = Self { stream, bytes, target: vec![1; case.size], case };
        // The peer's memory is there before the clock runs.
        socket.once(0)?;
        Ok(socket)
    }
}

impl Operation for Socket {
    fn once(&mut self, n: u64) -> anyhow::Result<()> {
        let (size, direction) = (self.case.size, self.case.direction);
        let mut ask = [0; 9];
        ask[0] = if direction == Direction::Read { b'r' } else { b'w' };
        ask[1..].copy_from_slice(&(size as u64).to_le_bytes());
        self.stream.write_all(&ask)?;
        if direction == Direction::Read {
            self.stream.read_exact(&mut self.target)?;
            black_box(&mut self.target);
        } else {
            let from = place(n, size, self.bytes.len());
            self.stream.write_all(&self.bytes[from..from + size])?;
            self.stream.read_exact(&mut [0])?;
        }
        Ok(())
    }
}

/// Sends and takes as many bytes as are asked for, until told to stop.
pub(crate) fn serve_socket(stop: Stop) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    ready(&listener.local_addr()?.to_string())?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection ends with its other end.
            std::thread::spawn(move || answer(stream));
        }
    });
    stop.wait_blocking();
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = Vec::new();
    let mut ask = [0; 9];
    loop {
        stream.read_exact(&mut ask)?;
        let size = u64::from_le_bytes(ask[1..].try_into().expect("eight bytes"));
        if size > MAX_SOCKET_BYTES {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        bytes.resize(usize::try_from(size).expect("it is below the limit"), 1);
        if ask[0] == b'r' {
            stream.write_all(&bytes)?;
        } else {
            stream.read_exact(&mut bytes)?;
            stream.write_all(b"k")?;
        }
    }
}
