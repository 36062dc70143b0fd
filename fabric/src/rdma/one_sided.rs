//! Reads and writes of the peer's memory, in which the peer's processor has no part.

use super::channel::Channel;
use super::handle::Handle;
use super::heap::{Block, Heap};
use super::lane::Lane;
use crate::link::LinkError;
use dmrpc_rdma_sys::raw::*;
use dmrpc_rdma_sys::{Access, MemoryRegion, ProtectionDomain};
use parking_lot::Mutex;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The most bytes of one work request: longer steps are several.
const MAX_PIECE_BYTES: u64 = 1 << 20;
/// Operations of more bytes go through a queue pair of their own: no message waits behind them.
pub const BULK_BYTES: usize = 256 << 10;
/// Operations that take longer are not waited for by polling.
const MAX_POLLING_NS: u64 = 200_000;

/// A run of the peer's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteRun {
    /// Its address there.
    pub address: u64,
    /// The key of the region that it is in.
    pub key: u32,
}

/// A part of an operation: so many bytes of the block, from there on, and the peer's memory that they come from or go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where in the block they begin.
    pub at: usize,
    /// How many.
    pub len: usize,
    /// The peer's side.
    pub remote: RemoteRun,
    /// Whether it begins only when all reads before it have ended.
    pub fenced: bool,
}

/// What an operation reads into or writes from.
enum Memory {
    Read(Block),
    Write(Arc<Block>),
}

type Done = Box<dyn FnOnce(Memory, Result<(), LinkError>) + Send>;

/// Steps that are posted in order, and end together.
pub(super) struct Operation {
    memory: Memory,
    steps: Vec<Step>,
    /// The step that is posted next, and how much of it is.
    next: usize,
    posted: u64,
    done: Option<Done>,
}

impl Operation {
    fn new(memory: Memory, steps: Vec<Step>, done: Option<Done>) -> Self {
        let len = match &memory {
            Memory::Read(block) => block.len(),
            Memory::Write(block) => block.len(),
        };
        for step in &steps {
            assert!(step.at.checked_add(step.len).is_some_and(|end| end <= len), "caller: steps lie within the block");
            assert!(step.len > 0, "caller: gives steps of some bytes");
        }
        assert!(!steps.is_empty(), "caller: gives at least one step");
        Self { memory, steps, next: 0, posted: 0, done }
    }

    /// How it is ordered among others.
    fn lane(&self) -> Lane {
        let bytes: usize = self.steps.iter().map(|step| step.len).sum();
        if bytes > BULK_BYTES { Lane::Bulk } else { Lane::Messages }
    }

    pub(super) fn is_write(&self) -> bool {
        matches!(self.memory, Memory::Write(_))
    }

    /// Whether somebody waits for its end.
    pub(super) fn is_awaited(&self) -> bool {
        self.done.is_some()
    }

    /// The next work request, and whether it is the last.
    pub(super) fn next_work(&mut self, max_message_bytes: u32) -> (ibv_send_wr, ibv_sge, bool) {
        let step = self.steps[self.next];
        let (opcode, start, key) = match &self.memory {
            Memory::Read(block) => (IBV_WR_RDMA_READ, block.start(), block.local_key()),
            Memory::Write(block) => (IBV_WR_RDMA_WRITE, block.start(), block.local_key()),
        };
        let most = MAX_PIECE_BYTES.min(max_message_bytes.max(4096).into());
        let len = (step.len as u64 - self.posted).min(most);
        let piece = ibv_sge { addr: start as u64 + step.at as u64 + self.posted, length: len as u32, lkey: key };
        let mut work = ibv_send_wr::new(opcode, 0);
        work.send_flags = if step.fenced && self.posted == 0 { IBV_SEND_FENCE } else { 0 };
        work.wr.rdma = ibv_send_wr_rdma { remote_addr: step.remote.address + self.posted, rkey: step.remote.key };
        self.posted += len;
        if self.posted == step.len as u64 {
            self.next += 1;
            self.posted = 0;
        }
        (work, piece, self.next == self.steps.len())
    }

    pub(super) fn finish(self, outcome: Result<(), LinkError>) {
        if let Some(done) = self.done {
            done(self.memory, outcome);
        }
    }
}

/// One end of a link over RDMA, for reads and writes of the memory at its other end. Clones are the same.
///
/// Operations of one link are done in the order in which they are given, but for those of more than [`BULK_BYTES`], which have an
/// order of their own; all of them end, with an error if the link does.
#[derive(Clone)]
pub struct OneSided {
    handle: Arc<Handle>,
    domain: Option<usize>,
    /// How long operations of each lane take, in nanoseconds; a moving average.
    typical_ns: Arc<[AtomicU64; 2]>,
}

/// Registers memory in a domain. It does not keep the link that it came from.
#[derive(Clone)]
pub struct Registrar(ProtectionDomain);

impl Registrar {
    /// Registers memory for all peers whose links are in the domain.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`], with what is missing.
    ///
    /// # Safety
    ///
    /// As [`MemoryRegion::new`].
    pub unsafe fn register(
        &self,
        start: *mut u8,
        len: usize,
        access: Access,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<MemoryRegion, LinkError> {
        // SAFETY: the caller's promise.
        Ok(unsafe { MemoryRegion::new(&self.0, start, len, access, owner)? })
    }
}

/// An operation that somebody waits for, and what it leaves.
pub struct Ending<T> {
    one_sided: OneSided,
    state: Arc<EndingState<T>>,
    lane: Lane,
    started: Instant,
}

struct EndingState<T> {
    has_ended: AtomicBool,
    outcome: Mutex<Outcome<T>>,
}

struct Outcome<T> {
    result: Option<Result<T, LinkError>>,
    waker: Option<std::task::Waker>,
}

impl OneSided {
    pub(super) fn new(handle: Arc<Handle>, domain: Option<usize>) -> Self {
        Self { handle, domain, typical_ns: Arc::default() }
    }

    fn channel(&self) -> &Channel {
        self.handle.channel()
    }

    /// Which of the acceptor's domains the peer named; `None` at the connector's end.
    pub fn domain(&self) -> Option<usize> {
        self.domain
    }

    /// What registers memory for the peer, and for all others whose links are in the same domain.
    pub fn registrar(&self) -> Registrar {
        Registrar(self.channel().domain().clone())
    }

    /// Registered memory to read into and write from; shared by all links that this process connects over the same device.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`].
    pub fn heap(&self) -> Result<Arc<Heap>, LinkError> {
        self.channel().adapter().heap()
    }

    /// Reads. The block comes back when all steps have ended.
    ///
    /// # Panics
    ///
    /// If a step does not lie within the block, or has no bytes.
    pub fn read(&self, into: Block, steps: Vec<Step>) -> Ending<Block> {
        self.start(Memory::Read(into), steps, |memory| match memory {
            Memory::Read(block) => block,
            Memory::Write(_) => unreachable!("it was given as one"),
        })
    }

    /// Writes. When it has ended the bytes are in their place, and `keep` comes back; until then messages may overtake them. If
    /// nobody waits for the end, `keep` is dropped then, in whichever thread sees it.
    ///
    /// # Panics
    ///
    /// If a step does not lie within the block, or has no bytes.
    pub fn write<K: Send + 'static>(&self, from: Arc<Block>, steps: Vec<Step>, keep: K) -> Ending<K> {
        self.start(Memory::Write(from), steps, move |_| keep)
    }

    fn start<T: Send + 'static>(
        &self,
        memory: Memory,
        steps: Vec<Step>,
        left: impl FnOnce(Memory) -> T + Send + 'static,
    ) -> Ending<T> {
        let outcome = Mutex::new(Outcome { result: None, waker: None });
        let state = Arc::new(EndingState { has_ended: AtomicBool::new(false), outcome });
        let ended = state.clone();
        let done: Done = Box::new(move |memory, outcome| {
            let waker = {
                let mut slot = ended.outcome.lock();
                slot.result = Some(outcome.map(|()| left(memory)));
                slot.waker.take()
            };
            // Release: pairs with the acquire of whoever polls.
            ended.has_ended.store(true, Ordering::Release);
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        let operation = Operation::new(memory, steps, Some(done));
        let (lane, started) = (operation.lane(), Instant::now());
        self.channel().operate(operation, lane, true);
        Ending { one_sided: self.clone(), state, lane, started }
    }

    /// Writes, together with what the link's sender flushes next: the bytes are in their place before any message that is sent
    /// after this can be received. The block is kept until it is not needed any more. If it fails the link ends.
    ///
    /// # Panics
    ///
    /// If a step does not lie within the block, or has no bytes.
    pub fn write_behind(&self, from: Arc<Block>, steps: Vec<Step>) {
        self.channel().operate(Operation::new(Memory::Write(from), steps, None), Lane::Messages, false);
    }

    /// Has the device refuse everything that the peer asks for, and do nothing more for either side.
    pub fn fence(&self) {
        self.channel().fail();
    }
}

impl<T> Ending<T> {
    fn typical_ns(&self) -> &AtomicU64 {
        &self.one_sided.typical_ns[self.lane as usize]
    }

    /// Polls for as long as operations usually take, and yields in between; once if they take long. Whether it has ended.
    pub fn poll_a_while(&self) -> bool {
        let has_ended = || self.state.has_ended.load(Ordering::Acquire);
        // Relaxed: a hint.
        let typical = self.typical_ns().load(Ordering::Relaxed);
        if typical < MAX_POLLING_NS {
            let until = self.started + Duration::from_nanos((2 * typical).max(20_000));
            while !has_ended() {
                if self.one_sided.channel().look(has_ended) || Instant::now() >= until {
                    break;
                }
                std::thread::yield_now();
            }
        } else {
            self.one_sided.channel().look(has_ended);
        }
        has_ended()
    }
}

impl<T> Future for Ending<T> {
    type Output = Result<T, LinkError>;

    fn poll(self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        if !self.state.has_ended.load(Ordering::Acquire) {
            self.poll_a_while();
        }
        let mut outcome = self.state.outcome.lock();
        match outcome.result.take() {
            Some(result) => {
                // Relaxed: a hint.
                let (typical, took) = (self.typical_ns(), self.started.elapsed().as_nanos() as u64);
                let before = typical.load(Ordering::Relaxed);
                typical.store(before - before / 8 + took / 8, Ordering::Relaxed);
                std::task::Poll::Ready(result)
            }
            None => {
                outcome.waker = Some(context.waker().clone());
                std::task::Poll::Pending
            }
        }
    }
}
