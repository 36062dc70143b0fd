//! A result as a process sees it: the place where its value will be, and who waits for that.
//!
//! 1. A process has one slot for a result, which all its references share; the hub counts how often it gave the result to the
//!    process, and hears so when the slot goes.
//! 2. A value comes once and stays.

use super::client::Client;
use super::payload::Payload;
use dmrpc_hub::{Outcome, ResultId};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread, ThreadId};

/// A result that this process has references to.
pub(crate) struct Slot {
    id: ResultId,
    client: Arc<Client>,
    /// How often the hub gave it to us.
    given: AtomicU32,
    /// Whether the hub knows that we want it.
    wanted: AtomicBool,
    delivered: OnceLock<Delivered>,
    waiters: Mutex<SmallVec<[Arc<Waiter>; 1]>>,
}

/// A value that came, and the results that it contains.
pub(crate) struct Delivered {
    pub(crate) outcome: Outcome<Payload>,
    #[expect(dead_code, reason = "they are only owned")]
    pub(crate) contains: SmallVec<[Arc<Slot>; 0]>,
}

impl Slot {
    /// Of a result that the hub gave us once; `wanted` says whether it knows that we want it.
    pub(crate) fn new(client: Arc<Client>, id: ResultId, wanted: bool) -> Self {
        Self {
            id,
            client,
            given: AtomicU32::new(1),
            wanted: AtomicBool::new(wanted),
            delivered: OnceLock::new(),
            waiters: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> ResultId {
        self.id
    }

    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The hub gave it once more.
    pub(crate) fn give(&self) {
        // Relaxed: a count of its own, read when nobody else has the slot.
        self.given.fetch_add(1, Ordering::Relaxed);
    }

    /// The hub is to be told that we want it, unless it was; says whether it is to be told now.
    pub(crate) fn begin_want(&self) -> bool {
        // Relaxed: whoever sets it tells the hub.
        !self.wanted.load(Ordering::Relaxed) && !self.wanted.swap(true, Ordering::Relaxed)
    }

    /// The value, if it is there.
    pub(crate) fn delivered(&self) -> Option<&Delivered> {
        self.delivered.get()
    }

    /// Whether the value is there.
    pub(crate) fn is_ready(&self) -> bool {
        self.delivered.get().is_some()
    }

    /// The value came.
    pub(crate) fn deliver(&self, delivered: Delivered) {
        if self.delivered.set(delivered).is_ok() {
            for waiter in std::mem::take(&mut *self.waiters.lock()) {
                waiter.one_less(&self.client);
            }
        }
    }

    /// Has `waiter` told when the value comes. `false` if it is there.
    pub(crate) fn watch(&self, waiter: &Arc<Waiter>) -> bool {
        let mut waiters = self.waiters.lock();
        if self.is_ready() {
            return false;
        }
        waiters.push(waiter.clone());
        true
    }

    /// Takes [`watch`](Slot::watch) back.
    pub(crate) fn unwatch(&self, waiter: &Arc<Waiter>) {
        self.waiters.lock().retain(|other| !Arc::ptr_eq(other, waiter));
    }

    /// As [`unwatch`](Slot::unwatch), of an entry of a list.
    pub(crate) fn forget(&self, list: &Arc<super::completions::List>, token: u64) {
        self.waiters.lock().retain(
            |other| !matches!(&other.kind, Kind::List(its, number) if Arc::ptr_eq(its, list) && *number == token),
        );
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let given = *self.given.get_mut();
        self.client.slot_went(self.id, given, self);
    }
}

/// Somebody who waits until so many things have happened.
pub(crate) struct Waiter {
    left: AtomicIsize,
    kind: Kind,
}

enum Kind {
    Thread {
        thread: Thread,
        id: ThreadId,
        /// Whether the thread sleeps where links wake it, rather than parked.
        reads: AtomicBool,
    },
    /// A number is put into a list, and its owner woken.
    List(Arc<super::completions::List>, u64),
}

impl Waiter {
    /// This thread, for `count` things.
    pub(crate) fn thread(count: isize) -> Arc<Self> {
        let thread = thread::current();
        let kind = Kind::Thread { id: thread.id(), thread, reads: AtomicBool::new(false) };
        Arc::new(Self { left: AtomicIsize::new(count), kind })
    }

    /// An entry of a list.
    pub(crate) fn list(list: Arc<super::completions::List>, token: u64) -> Arc<Self> {
        Arc::new(Self { left: AtomicIsize::new(1), kind: Kind::List(list, token) })
    }

    /// Whether all has happened.
    pub(crate) fn is_done(&self) -> bool {
        // Acquire pairs with the AcqRel of `one_less`: what happened is seen.
        self.left.load(Ordering::Acquire) <= 0
    }

    /// The thread is about to sleep where links wake it, or comes from there.
    pub(crate) fn set_reads(&self, is: bool) {
        if let Kind::Thread { reads, .. } = &self.kind {
            // SeqCst: with `left`, so that either we see that it is done or `one_less` sees that we read.
            reads.store(is, Ordering::SeqCst);
        }
    }

    /// One of the things has happened.
    pub(crate) fn one_less(&self, client: &Client) {
        // SeqCst: see `set_reads`.
        if self.left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return;
        }
        match &self.kind {
            Kind::Thread { thread, id, reads } => {
                if *id == thread::current().id() {
                } else if reads.load(Ordering::SeqCst) {
                    client.turns().nudge();
                } else {
                    thread.unpark();
                }
            }
            Kind::List(list, token) => list.push(*token),
        }
    }

    /// Wakes the thread, so that it looks again.
    pub(crate) fn wake(&self) {
        if let Kind::Thread { thread, .. } = &self.kind {
            thread.unpark();
        }
    }
}
