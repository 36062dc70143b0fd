//! Requests that wait for something to happen, and who is woken by what.
//!
//! A reference travels faster than the commit that made its object: whoever got it may ask for an object that is not there
//! yet, in a slot that is leased to the session which will make it. Such a request waits, up to [`COMMIT_WAIT_MS`].
//!
//! 1. Whatever waits has a deadline, and a place in `by_thing` under what it waits for, unless that is memory.
//! 2. What was woken is run again, and may wait again, until its first deadline.

use super::event::{LinkId, Now};
use super::sessions::SessionKey;
use slab::Slab;
use std::collections::{HashMap, VecDeque};

/// How long a request waits for a commit that it overtook, in milliseconds. A commit is at most one turn of its client's
/// loop behind, or comes as soon as its client is told that somebody waits; so that only the id of a client that died, or a
/// guessed one, waits so long.
pub(crate) const COMMIT_WAIT_MS: u64 = 1_000;

/// How long a write waits for memory, in milliseconds.
pub(crate) const WRITE_WAIT_MS: u64 = 5_000;

/// The most unsequenced requests of one session that wait. Further ones are refused.
pub(crate) const MAX_ASKERS_PER_SESSION: usize = 1024;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wait {
    /// An object in this slot.
    Slot(u32),
    /// This segment to be sealed.
    Segment(u32),
    /// Memory for a write of so many pages.
    Memory(u32),
}

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// The stream of a session's sequenced requests.
    Stream(SessionKey),
    /// An unsequenced request.
    Asker(usize),
}

/// An unsequenced request that waits.
pub(crate) struct Asker {
    pub(crate) session: SessionKey,
    pub(crate) link: LinkId,
    pub(crate) bytes: Vec<u8>,
    pub(crate) wait: Wait,
    pub(crate) deadline: Now,
}

#[derive(Default)]
pub(crate) struct Waiters {
    by_thing: HashMap<Wait, Vec<Waiter>>,
    ready: VecDeque<Waiter>,
    pub(crate) askers: Slab<Asker>,
}

impl Waiters {
    pub(crate) fn add(&mut self, wait: Wait, waiter: Waiter) {
        if !matches!(wait, Wait::Memory(_)) {
            self.by_thing.entry(wait).or_default().push(waiter);
        }
    }

    /// No longer waits for that.
    pub(crate) fn remove(&mut self, wait: Wait, waiter: Waiter) {
        if let Some(waiters) = self.by_thing.get_mut(&wait) {
            waiters.retain(|other| *other != waiter);
            if waiters.is_empty() {
                self.by_thing.remove(&wait);
            }
        }
        self.ready.retain(|other| *other != waiter);
    }

    /// What was waited for has happened, or never will.
    pub(crate) fn wake(&mut self, wait: Wait) {
        if let Some(waiters) = self.by_thing.remove(&wait) {
            self.ready.extend(waiters);
        }
    }

    /// Wakes one.
    pub(crate) fn wake_one(&mut self, waiter: Waiter) {
        if !self.ready.contains(&waiter) {
            self.ready.push_back(waiter);
        }
    }

    /// One that was woken.
    pub(crate) fn pop_ready(&mut self) -> Option<Waiter> {
        self.ready.pop_front()
    }

    /// How many wait for something that wakes them.
    pub(crate) fn len(&self) -> usize {
        self.by_thing.values().map(Vec::len).sum::<usize>() + self.ready.len()
    }
}
