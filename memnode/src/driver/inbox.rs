//! What other threads, and the ends of transfers, have to tell the loop.
//!
//! 1. News told while the loop sleeps wakes it; the loop never falls asleep over news.
//! 2. The loop is woken at most once a sleep.
#![forbid(unsafe_code)]

use super::registry::Registration;
use super::segment::Segment;
use crate::core::{LinkId, Ticket};
use dmrpc_fabric::link::LinkError;
use dmrpc_fabric::rdma::MemoryRegion;
use dmrpc_wire::Stats;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;

/// Something to tell the loop.
pub(crate) enum News {
    /// The segment maker is done.
    Made {
        /// The segment.
        segment: u32,
        /// What became of it.
        outcome: io::Result<Segment>,
    },
    /// The pages of a read are no longer looked at.
    Sent {
        /// Whose they were.
        link: LinkId,
        /// The read.
        ticket: Ticket,
    },
    /// The segment maker has registered memory, or could not.
    Registered {
        /// What was asked of it.
        registration: Registration,
        /// What became of it.
        outcome: Result<MemoryRegion, LinkError>,
    },
    /// Nothing is registered for a link any more.
    Deregistered {
        /// Which.
        link: LinkId,
    },
    /// The body of a write will not come to its end.
    Aborted {
        /// Whose it was.
        link: LinkId,
        /// The write.
        ticket: Ticket,
    },
    /// Somebody in this process asks for figures.
    Stats(mpsc::SyncSender<Stats>),
    /// The node is to end.
    Shutdown,
}

struct State {
    news: Vec<News>,
    /// Whether the loop sleeps and nobody has woken it yet.
    asleep: bool,
}

/// Where news waits for the loop.
pub(crate) struct Inbox {
    state: Mutex<State>,
    bell: OwnedFd,
}

impl Inbox {
    pub(crate) fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { state: Mutex::new(State { news: Vec::new(), asleep: false }), bell })
    }

    /// Tells the loop.
    pub(crate) fn tell(&self, news: News) {
        let mut state = self.state.lock();
        state.news.push(news);
        if std::mem::take(&mut state.asleep) {
            // It can only fail when the counter is full, and then the loop is awake.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// Moves all news to the end of `news`.
    pub(crate) fn take(&self, news: &mut Vec<News>) {
        news.append(&mut self.state.lock().news);
    }

    /// Says that the loop is about to sleep. `false` if it must not, because there is news.
    pub(crate) fn fall_asleep(&self) -> bool {
        let mut state = self.state.lock();
        state.asleep = state.news.is_empty();
        state.asleep
    }

    /// Says that the loop is awake, whatever woke it.
    pub(crate) fn wake_up(&self) {
        self.state.lock().asleep = false;
    }

    /// What to wait on, edge-triggered: it is never read, so that it stays readable for ever.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
