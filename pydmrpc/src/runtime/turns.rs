//! Who reads the links: whoever waits, one at a time; with nobody waiting, the keeper.
//!
//! The reader sleeps in an epoll set that has all descriptors. Others who wait sleep on their own and are woken when what they
//! wait for came, or to read on when the reader leaves. The keeper is a thread without the GIL. It steps back while others read:
//! then it looks once in [`TICK`], and once there was nothing for it to do for a while it sleeps until it is called.
//!
//! 1. At most one thread sleeps in the set.
//! 2. While anybody waits, somebody reads.
//! 3. What was written to links and not flushed is flushed within a [`TICK`], by the keeper if by nobody else.

use super::client::Client;
use super::nearness::Pinned;
use super::slot::Waiter;
use parking_lot::Mutex;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How often the keeper looks while others read.
const TICK: Duration = Duration::from_millis(1);
/// After so many looks at which there was nothing to do it sleeps.
const IDLE_TICKS: u32 = 20;
/// Descriptors that are heard of at once.
const EVENTS: usize = 64;

/// The entry of the set for [`Turns::nudge`].
const NUDGE: u64 = u64::MAX;

pub(crate) struct Turns {
    set: OwnedFd,
    nudge: OwnedFd,
    state: Mutex<State>,
    keeper: OnceLock<Thread>,
    /// The keeper sleeps until it is called.
    keeper_sleeps: AtomicBool,
    /// The keeper looks once a tick, so that others need not flush at once.
    keeper_ticks: AtomicBool,
    /// The keeper sleeps in the set.
    keeper_reads: AtomicBool,
    /// Grows with everything that other threads do.
    activity: AtomicU64,
    /// Grows with every wait.
    waits: AtomicU64,
    ended: AtomicBool,
}

#[derive(Default)]
struct State {
    reader: Option<Reader>,
    waiting: Vec<Arc<Waiter>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Waiter,
    Keeper,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// All that was waited for is there.
    Done,
    /// It is time, or there was a signal.
    Early,
}

impl Turns {
    pub(crate) fn new() -> std::io::Result<Self> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        let nudge = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&set, &nudge, EventData::new_u64(NUDGE), EventFlags::IN | EventFlags::ET)?;
        Ok(Self {
            set,
            nudge,
            state: Mutex::default(),
            keeper: OnceLock::new(),
            keeper_sleeps: AtomicBool::new(false),
            keeper_ticks: AtomicBool::new(false),
            keeper_reads: AtomicBool::new(false),
            activity: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        })
    }

    /// Listens to a descriptor, for what becomes ready; `key` is told to [`Client::ready`].
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, key: u64) -> std::io::Result<()> {
        match epoll::add(&self.set, fd, EventData::new_u64(key), EventFlags::IN | EventFlags::ET) {
            // The lifeline of a link is an interest of both halves.
            Err(Errno::EXIST) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Listens to it no longer.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.set, fd);
    }

    /// The reader looks again.
    pub(crate) fn nudge(&self) {
        let _ = rustix::io::write(self.nudge.as_fd(), &1_u64.to_ne_bytes());
    }

    /// Something was done by a thread that does not wait. Whether it need not flush: the keeper will.
    pub(crate) fn acted(&self) -> bool {
        // Relaxed: a hint for the keeper.
        self.activity.fetch_add(1, Ordering::Relaxed);
        // SeqCst: the keeper says that it does not tick any more, and then flushes.
        self.keeper_ticks.load(Ordering::SeqCst)
    }

    /// The keeper is to look once a tick for a while.
    pub(crate) fn begin_ticks(&self) {
        if !self.keeper_ticks.load(Ordering::SeqCst) {
            self.call_keeper();
            self.mind();
        }
    }

    /// There is something to do that has time: the keeper does it, if nobody else does.
    pub(crate) fn mind(&self) {
        if self.keeper_reads.load(Ordering::SeqCst) {
            self.nudge();
        }
    }

    /// Sleeps until something is ready, whatever it is.
    pub(crate) fn pause(&self, limit: Duration) {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); EVENTS];
        let _ = epoll::wait(&self.set, &mut events[..], Timespec::try_from(limit).ok().as_ref());
    }

    /// No thread is to sleep here any more.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.call_keeper();
        self.nudge();
        for waiter in &self.state.lock().waiting {
            waiter.wake();
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// The keeper, if it sleeps, is to look.
    pub(crate) fn call_keeper(&self) {
        if self.keeper_sleeps.load(Ordering::SeqCst)
            && self.keeper_sleeps.swap(false, Ordering::SeqCst)
            && let Some(keeper) = self.keeper.get()
        {
            keeper.unpark();
        }
    }

    /// Waits, reading, until `waiter` is done or it is `until`. Not with the GIL.
    pub(crate) fn wait(&self, client: &Arc<Client>, waiter: &Arc<Waiter>, until: Instant) -> Woken {
        self.activity.fetch_add(1, Ordering::Relaxed);
        self.waits.fetch_add(1, Ordering::Relaxed);
        let mut listed = false;
        let woken = loop {
            if waiter.is_done() {
                break Woken::Done;
            }
            if self.has_ended() {
                break Woken::Early;
            }
            let reader = {
                let mut state = self.state.lock();
                let reader = state.reader;
                if reader.is_none() {
                    state.reader = Some(Reader::Waiter);
                } else if !listed {
                    state.waiting.push(waiter.clone());
                    listed = true;
                }
                reader
            };
            match reader {
                None => {
                    let woken = self.read(client, waiter, until);
                    self.leave();
                    break woken;
                }
                Some(Reader::Keeper) => self.nudge(),
                Some(Reader::Waiter) => {}
            }
            client.flush();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Woken::Early;
            }
            if !waiter.is_done() {
                thread::park_timeout(left);
            }
            if Instant::now() >= until {
                break if waiter.is_done() { Woken::Done } else { Woken::Early };
            }
        };
        if listed {
            let mut state = self.state.lock();
            state.waiting.retain(|other| !Arc::ptr_eq(other, waiter));
            // We may have been woken to read, and don't; or it was us whom we found to be the next when we left.
            if state.reader.is_none() {
                match state.waiting.first() {
                    Some(next) => next.wake(),
                    None => {
                        drop(state);
                        self.call_keeper();
                    }
                }
            }
        }
        woken
    }

    /// Reads until `waiter` is done.
    fn read(&self, client: &Arc<Client>, waiter: &Arc<Waiter>, until: Instant) -> Woken {
        client.look();
        loop {
            if waiter.is_done() {
                return Woken::Done;
            }
            if self.has_ended() {
                return Woken::Early;
            }
            let near = client.near();
            client.flush();
            waiter.set_reads(true);
            if waiter.is_done() {
                waiter.set_reads(false);
                return Woken::Done;
            }
            let bound = near.and_then(Pinned::to);
            let since = Instant::now();
            let slept = self.sleep(client, Some(until.saturating_duration_since(Instant::now())));
            waiter.set_reads(false);
            drop(bound);
            if waiter.is_done() {
                client.took(near.is_some(), since);
                return Woken::Done;
            }
            if !slept && !waiter.is_done() {
                return Woken::Early;
            }
        }
    }

    /// The reader leaves: the next one reads, or the keeper.
    fn leave(&self) {
        let mut state = self.state.lock();
        state.reader = None;
        match state.waiting.first() {
            Some(next) => next.wake(),
            None => {
                drop(state);
                self.call_keeper();
            }
        }
    }

    /// Sleeps in the set, and has the client see to what is ready. `false` if nothing is.
    fn sleep(&self, client: &Arc<Client>, limit: Option<Duration>) -> bool {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); EVENTS];
        let timeout = limit.and_then(|limit| Timespec::try_from(limit).ok());
        match epoll::wait(&self.set, &mut events[..], timeout.as_ref()) {
            Ok(([], _)) | Err(_) => false,
            Ok((events, _)) => {
                let keys = events.iter().map(|event| event.data.u64()).filter(|&key| key != NUDGE);
                client.ready(keys);
                true
            }
        }
    }

    /// What the keeper's thread does, from the beginning of the client to its end.
    pub(crate) fn keep(&self, client: &Arc<Client>) {
        let _ = self.keeper.set(thread::current());
        let (mut seen, mut waited, mut idle) = (0, 0, 0);
        while !self.has_ended() {
            // Relaxed: see `acted`.
            let activity = self.activity.load(Ordering::Relaxed);
            let others_act = std::mem::replace(&mut seen, activity) != activity;
            let reads = !others_act && {
                let mut state = self.state.lock();
                let free = state.reader.is_none() && state.waiting.is_empty();
                if free {
                    state.reader = Some(Reader::Keeper);
                }
                free
            };
            if reads {
                idle = 0;
                self.keeper_ticks.store(false, Ordering::SeqCst);
                // What was written in the belief that we tick.
                client.look();
                client.flush();
                let limit = client.patience();
                self.keeper_reads.store(true, Ordering::SeqCst);
                client.release_all();
                self.sleep(client, limit);
                self.keeper_reads.store(false, Ordering::SeqCst);
                client.look();
                client.flush();
                self.leave_as_keeper();
                continue;
            }
            self.keeper_ticks.store(true, Ordering::SeqCst);
            let waits = self.waits.load(Ordering::Relaxed);
            if std::mem::replace(&mut waited, waits) == waits && self.state.lock().reader.is_none() {
                client.scatter();
            }
            client.look();
            client.flush();
            idle = if others_act { 0 } else { idle + 1 };
            if idle > IDLE_TICKS && client.patience().is_none() {
                // Somebody reads and nothing else happens. They call us when they leave.
                self.keeper_ticks.store(false, Ordering::SeqCst);
                self.keeper_sleeps.store(true, Ordering::SeqCst);
                if self.state.lock().reader.is_none() || self.has_ended() {
                    self.keeper_sleeps.store(false, Ordering::SeqCst);
                    continue;
                }
                client.flush();
                while self.keeper_sleeps.load(Ordering::SeqCst) {
                    thread::park();
                }
                idle = 0;
                continue;
            }
            thread::sleep(TICK);
        }
    }

    fn leave_as_keeper(&self) {
        let mut state = self.state.lock();
        state.reader = None;
        if let Some(next) = state.waiting.first() {
            next.wake();
        }
    }
}
