//! The thread that makes segments and gives their memory back: pre-faulting takes long, and the loop may not stall.
//!
//! A few segments of the size that is asked for most are kept ready, so that a lease is mostly answered at once.
//!
//! 1. Segments given out, in the making and ready together never exceed the pool: ready ones are given up first.
//! 2. A large segment does not keep small ones waiting: the work goes on in steps, at the one that has least to go.
#![forbid(unsafe_code)]

use super::AbortOnPanic;
use super::backing::Backing;
use super::inbox::{Inbox, News};
use super::registry::Registration;
use super::segment::Segment;
use crate::core::{Access, LinkId};
use dmrpc_fabric::rdma::MemoryRegion;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Segments kept ready.
const READY_SEGMENTS: usize = 2;
/// Ready segments take at most the pool divided by this.
const READY_SHARE: u64 = 8;
/// Larger segments are never kept ready.
const READY_MAX_BYTES: u64 = 64 << 20;
/// How many of the last sizes asked for vote on the size of ready segments.
const SIZES_REMEMBERED: usize = 8;
/// How much is pre-faulted before the thread looks at what else there is to do: some twenty milliseconds.
const STEP_BYTES: u64 = 16 << 20;

/// Makes segments in a thread of its own.
pub(crate) struct Maker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    /// Whether segments that only the node writes come from elsewhere than the others. Those are not kept ready.
    lends: bool,
}

struct State {
    pool_bytes: u64,
    /// Segments given out or asked for, and not given back.
    used_bytes: u64,
    asked: VecDeque<Asked>,
    returned: Vec<Returned>,
    /// What is to be registered.
    registrations: VecDeque<Registration>,
    /// What is to be deregistered, and for which link.
    deregistrations: Vec<(LinkId, Vec<MemoryRegion>)>,
    ready: Vec<Segment>,
    /// Size of the segment that is being made to be kept ready; 0 if none is.
    preparing_bytes: u64,
    /// Sizes asked for, the latest last.
    sizes: VecDeque<u64>,
    stopping: bool,
}

/// A segment that nobody uses any more, and what is still registered of it.
struct Returned {
    segment: Arc<Segment>,
    regions: Vec<MemoryRegion>,
}

struct Asked {
    segment: u32,
    bytes: u64,
    access: Access,
}

/// A segment on its way.
struct Making {
    /// Its number; `None` for one that is to be kept ready.
    number: Option<u32>,
    segment: Segment,
    done_bytes: u64,
}

impl Making {
    fn rest_bytes(&self) -> u64 {
        self.segment.bytes() as u64 - self.done_bytes
    }
}

impl Maker {
    /// Starts the thread. `expected_bytes` is the size that segments are kept ready in before any were asked for.
    pub(crate) fn start(backing: Backing, pool_bytes: u64, expected_bytes: u64, inbox: Arc<Inbox>) -> io::Result<Self> {
        let state = State {
            pool_bytes,
            used_bytes: 0,
            asked: VecDeque::new(),
            returned: Vec::new(),
            registrations: VecDeque::new(),
            deregistrations: Vec::new(),
            ready: Vec::new(),
            preparing_bytes: 0,
            sizes: VecDeque::from([expected_bytes]),
            stopping: false,
        };
        let lends = backing.lends();
        let shared = Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), lends });
        let thread = thread::Builder::new().name("dmrpc-segments".into()).spawn({
            let shared = Arc::clone(&shared);
            move || run(&shared, backing, &inbox)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Asks for a segment: one that is ready at once, or [`News::Made`] later.
    pub(crate) fn ask(&self, segment: u32, bytes: u64, access: Access) -> Option<Segment> {
        let mut state = self.shared.state.lock();
        state.used_bytes += bytes;
        if self.shared.is_lent(access) {
            state.asked.push_back(Asked { segment, bytes, access });
            self.shared.work.notify_one();
            return None;
        }
        if state.sizes.len() == SIZES_REMEMBERED {
            state.sizes.pop_front();
        }
        state.sizes.push_back(bytes);
        let at = state.ready.iter().position(|ready| ready.bytes() as u64 == bytes);
        let ready = at.map(|at| state.ready.swap_remove(at));
        tracing::debug!(segment, bytes, ready = ready.is_some(), "a segment is asked for");
        if ready.is_none() {
            state.asked.push_back(Asked { segment, bytes, access });
            self.shared.work.notify_one();
        }
        ready
    }

    /// Lets the thread replace what was taken of the segments that were ready. Not at once: it would get in the way of those
    /// who were just given one, on their way to write to it.
    pub(crate) fn refill(&self) {
        if self.shared.state.lock().wanted().is_some() {
            self.shared.work.notify_one();
        }
    }

    /// Gives a segment back.
    pub(crate) fn give_back(&self, segment: Arc<Segment>, regions: Vec<MemoryRegion>) {
        self.shared.state.lock().returned.push(Returned { segment, regions });
        self.shared.work.notify_one();
    }

    /// Registers memory: [`News::Registered`] later.
    pub(crate) fn register(&self, registration: Registration) {
        self.shared.state.lock().registrations.push_back(registration);
        self.shared.work.notify_one();
    }

    /// Deregisters what was a link's: [`News::Deregistered`] later.
    pub(crate) fn deregister(&self, link: LinkId, regions: Vec<MemoryRegion>) {
        self.shared.state.lock().deregistrations.push((link, regions));
        self.shared.work.notify_one();
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // It ends the process when it panics.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn is_lent(&self, access: Access) -> bool {
        self.lends && access == Access::Node
    }
}

impl State {
    /// The size to keep ready, and whether one more is wanted.
    fn wanted(&self) -> Option<u64> {
        let votes = |size: u64| self.sizes.iter().filter(|&&other| other == size).count();
        // Of the sizes asked for most, the latest.
        let common = self.sizes.iter().copied().max_by_key(|&size| votes(size))?;
        let ready = self.ready.iter().filter(|ready| ready.bytes() as u64 == common).count() as u64;
        let fits = self.used_bytes + self.ready_bytes() + self.preparing_bytes + common <= self.pool_bytes;
        let modest = common <= READY_MAX_BYTES && (ready + 1) * common <= self.pool_bytes / READY_SHARE;
        (ready < READY_SEGMENTS as u64 && fits && modest).then_some(common)
    }

    /// Whether what is ready or will be takes room that was asked for.
    fn is_over(&self) -> bool {
        self.used_bytes + self.ready_bytes() + self.preparing_bytes > self.pool_bytes
    }

    fn ready_bytes(&self) -> u64 {
        self.ready.iter().map(|ready| ready.bytes() as u64).sum()
    }

    /// A ready segment that has to go: the pool has no room for it, or nobody asked for its size lately.
    fn take_surplus(&mut self) -> Option<Segment> {
        let over = self.is_over();
        let at = self.ready.iter().position(|ready| over || !self.sizes.contains(&(ready.bytes() as u64)))?;
        Some(self.ready.swap_remove(at))
    }
}

/// What the thread does next.
enum Work {
    Stop,
    /// Give the memory of a segment back that was given out.
    Unmake(Returned),
    Register(Registration),
    Deregister(LinkId, Vec<MemoryRegion>),
    /// Give the memory of a ready segment back.
    Spare(Segment),
    /// Give up the segment that is being made to be kept ready.
    GiveUp,
    Begin(Asked),
    Prepare(u64),
    Step,
}

fn run(shared: &Shared, backing: Backing, inbox: &Inbox) {
    let _guard = AbortOnPanic("segment maker");
    let mut bench = Bench { shared, backing, inbox, making: Vec::new() };
    loop {
        match bench.next() {
            Work::Stop => return,
            Work::Register(registration) => {
                let outcome = registration.carry_out();
                inbox.tell(News::Registered { registration, outcome });
            }
            Work::Deregister(link, regions) => {
                drop(regions);
                inbox.tell(News::Deregistered { link });
            }
            Work::Unmake(Returned { segment, regions }) => {
                drop(regions);
                let bytes = segment.bytes() as u64;
                bench.backing.unmake(&segment);
                drop(segment);
                shared.state.lock().used_bytes -= bytes;
            }
            Work::Spare(segment) => bench.backing.unmake(&segment),
            Work::GiveUp => bench.give_up(),
            Work::Begin(asked) => bench.begin(asked),
            Work::Prepare(bytes) => bench.prepare(bytes),
            Work::Step => bench.step(),
        }
    }
}

/// What the thread works with.
struct Bench<'a> {
    shared: &'a Shared,
    backing: Backing,
    inbox: &'a Inbox,
    making: Vec<Making>,
}

impl Bench<'_> {
    /// Waits for something to do.
    fn next(&self) -> Work {
        let mut state = self.shared.state.lock();
        loop {
            if state.stopping {
                return Work::Stop;
            }
            if let Some((link, regions)) = state.deregistrations.pop() {
                return Work::Deregister(link, regions);
            }
            if let Some(registration) = state.registrations.pop_front() {
                return Work::Register(registration);
            }
            // First what frees memory, then what takes some.
            if let Some(segment) = state.returned.pop() {
                return Work::Unmake(segment);
            }
            if let Some(segment) = state.take_surplus() {
                return Work::Spare(segment);
            }
            if state.preparing_bytes > 0 && state.is_over() {
                return Work::GiveUp;
            }
            if let Some(asked) = state.asked.pop_front() {
                return Work::Begin(asked);
            }
            if !self.making.is_empty() {
                return Work::Step;
            }
            if let Some(bytes) = state.wanted() {
                state.preparing_bytes = bytes;
                return Work::Prepare(bytes);
            }
            self.shared.work.wait(&mut state);
        }
    }

    fn begin(&mut self, Asked { segment: number, bytes, access }: Asked) {
        let prepared = self.making.iter_mut().find(|m| m.number.is_none() && m.segment.bytes() as u64 == bytes);
        if let Some(prepared) = prepared.filter(|_| !self.shared.is_lent(access)) {
            prepared.number = Some(number);
            self.shared.state.lock().preparing_bytes = 0;
            return;
        }
        match self.backing.begin(bytes, access) {
            Ok(segment) => self.making.push(Making { number: Some(number), segment, done_bytes: 0 }),
            Err(error) => self.failed(number, bytes, error),
        }
    }

    fn prepare(&mut self, bytes: u64) {
        match self.backing.begin(bytes, Access::Client) {
            Ok(segment) => self.making.push(Making { number: None, segment, done_bytes: 0 }),
            Err(error) => self.not_prepared(bytes, &error),
        }
    }

    fn give_up(&mut self) {
        let at = self.making.iter().position(|making| making.number.is_none());
        let making = self.making.swap_remove(at.expect("preparing_bytes says that there is one"));
        self.backing.unmake(&making.segment);
        self.shared.state.lock().preparing_bytes = 0;
    }

    /// Pre-faults a piece of the segment that has least to go; those that somebody waits for come first.
    fn step(&mut self) {
        let next =
            (0..self.making.len()).min_by_key(|&at| (self.making[at].number.is_none(), self.making[at].rest_bytes()));
        let at = next.expect("`next` saw that there are some");
        let making = &mut self.making[at];
        let piece = making.rest_bytes().min(STEP_BYTES);
        let outcome = self.backing.prefault(&making.segment, making.done_bytes, piece);
        making.done_bytes += piece;
        if outcome.is_ok() && making.rest_bytes() > 0 {
            return;
        }
        let Making { number, segment, .. } = self.making.swap_remove(at);
        let bytes = segment.bytes() as u64;
        match (number, outcome) {
            (Some(number), Ok(())) => self.inbox.tell(News::Made { segment: number, outcome: Ok(segment) }),
            (Some(number), Err(error)) => {
                self.backing.unmake(&segment);
                drop(segment);
                self.failed(number, bytes, error);
            }
            (None, Ok(())) => {
                let mut state = self.shared.state.lock();
                state.preparing_bytes = 0;
                state.ready.push(segment);
            }
            (None, Err(error)) => {
                self.backing.unmake(&segment);
                drop(segment);
                self.not_prepared(bytes, &error);
            }
        }
    }

    fn failed(&self, segment: u32, bytes: u64, error: io::Error) {
        self.shared.state.lock().used_bytes -= bytes;
        self.inbox.tell(News::Made { segment, outcome: Err(error) });
    }

    /// Nothing is kept ready before sizes were asked for anew: what is short now would be short again at once.
    fn not_prepared(&self, bytes: u64, error: &io::Error) {
        tracing::warn!("no segment of {bytes} bytes can be kept ready: {error}");
        let mut state = self.shared.state.lock();
        state.preparing_bytes = 0;
        state.sizes.clear();
    }
}
