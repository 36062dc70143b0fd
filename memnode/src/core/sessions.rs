//! Sessions: who is there, until when, and what each has.
//!
//! 1. A session is live, or has ended and keeps its holds for a grace period; then it is gone. An ended session never comes
//!    back: its link is unknown, and its epoch is not given out again.
//! 2. A sequenced request is applied if its sequence is the next, and answered again from memory if it was applied before.
//! 3. Sequenced requests of a session are applied in order: while one waits, those behind it do too.

use super::event::{LinkId, Now};
use super::waiting::Wait;
use dmrpc_pages::Extent;
use dmrpc_wire::{RequestHead, SlotLease};
use slab::Slab;
use std::collections::{BTreeMap, VecDeque};

/// Names a session for ever: its place in the table, and its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionKey {
    index: u32,
    epoch: u32,
}

/// The most answers kept for a session that may resume. A client with more requests in flight breaks the protocol.
pub(crate) const MAX_UNACKNOWLEDGED: usize = 4096;

/// The most bytes of answers kept for a session that may resume. A client that lets more gather breaks the protocol.
pub(crate) const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The most bytes of requests that wait behind one that waits. A client that sends more breaks the protocol.
pub(crate) const MAX_QUEUED_BYTES: usize = 1 << 20;

/// A request that was put aside, as bytes.
pub(crate) struct Aside {
    pub(crate) head: RequestHead,
    pub(crate) bytes: Vec<u8>,
    /// The link on which its body waits, and how long that is.
    pub(crate) body: Option<(LinkId, u64)>,
}

/// The request that a session's stream stands still for.
pub(crate) struct Blocked {
    pub(crate) request: Aside,
    pub(crate) wait: Wait,
    pub(crate) deadline: Now,
}

pub(crate) struct Session {
    /// Names the session to its client, with `epoch`.
    pub(crate) id: u64,
    pub(crate) epoch: u32,
    pub(crate) resume_key: [u8; 16],
    pub(crate) tenant: u32,
    pub(crate) local: bool,
    /// Whether the client reaches registered memory by itself.
    pub(crate) registered: bool,
    pub(crate) link: Option<LinkId>,
    /// A link that wants to take the session up, as soon as the one before it is gone.
    pub(crate) successor: Option<(LinkId, u64)>,
    pub(crate) lease_until: Now,
    /// When the grace period is over; `None` while the session is live.
    pub(crate) grace_until: Option<Now>,
    pub(crate) quota_pages: u32,
    /// Pages in this session's segments.
    pub(crate) committed_pages: u32,
    pub(crate) segments: Vec<u32>,
    /// Every slot that was leased and not returned, with or without an object. May name slots that went to others since.
    pub(crate) slots: Vec<u32>,
    pub(crate) owned_slots: usize,
    /// Holds by slot.
    pub(crate) holds: BTreeMap<u32, u32>,
    /// The last sequenced request that came in its turn.
    pub(crate) accepted: u64,
    /// The last sequenced request that was applied, or failed. Behind `accepted` while the stream stands still.
    pub(crate) applied: u64,
    /// Answers to sequenced requests that the client may ask for again; `None` while the answer is being made.
    pub(crate) answers: BTreeMap<u64, Option<Vec<u8>>>,
    pub(crate) answer_bytes: usize,
    pub(crate) blocked: Option<Blocked>,
    /// Behind `blocked`, in order.
    pub(crate) queue: VecDeque<Aside>,
    pub(crate) queued_bytes: usize,
    /// Unsequenced requests that wait.
    pub(crate) askers: usize,
    /// Leases that wait for memory.
    pub(crate) waiting_leases: usize,
    /// Reads and writes whose bytes are on the way.
    pub(crate) transfers: usize,
    /// When it was last asked to give back what it does not use.
    pub(crate) asked_at: Option<Now>,
    pub(crate) freed_extents: Vec<Extent>,
    pub(crate) freed_slots: Vec<SlotLease>,
    /// Somebody waits for an object that this session has yet to commit, and it was not told.
    pub(crate) is_wanted: bool,
    /// Whether the session stands in the list of those that are to be told something.
    pub(crate) to_be_told: bool,
}

impl Session {
    pub(crate) fn is_live(&self) -> bool {
        self.grace_until.is_none()
    }

    /// Whether it ends with its link. Then it has an arena, of which notices tell what came free.
    pub(crate) fn is_bound(&self) -> bool {
        self.local || self.registered
    }

    /// Remembers that the answer to `sequence` is being made.
    pub(crate) fn expect_answer(&mut self, sequence: u64) {
        if !self.is_bound() {
            self.answers.insert(sequence, None);
        }
    }

    /// Remembers an answer for when it is asked for again. A client that ends with its link never asks.
    pub(crate) fn remember_answer(&mut self, sequence: u64, head: &[u8]) {
        if !self.is_bound() {
            self.answers.insert(sequence, Some(head.to_vec()));
            self.answer_bytes += head.len();
        }
    }

    /// The client has everything up to `sequence`.
    pub(crate) fn forget_answers(&mut self, sequence: u64) {
        while let Some(first) = self.answers.first_entry()
            && *first.key() <= sequence
            && first.get().is_some()
        {
            self.answer_bytes -= first.remove().map_or(0, |head| head.len());
        }
    }

    /// Whether the client lets more gather than is kept for it.
    pub(crate) fn is_over_limits(&self) -> bool {
        self.answers.len() > MAX_UNACKNOWLEDGED
            || self.answer_bytes > MAX_ANSWER_BYTES
            || self.queued_bytes > MAX_QUEUED_BYTES
    }

    /// Notes that pages came free; whether the session has to be put on the list of those to be told.
    #[must_use]
    pub(crate) fn add_freed_extent(&mut self, extent: Extent) -> bool {
        match self.freed_extents.last_mut() {
            Some(last) if last.joins(extent) => last.count += extent.count,
            // Trees are swept from either end.
            Some(last) if extent.joins(*last) => *last = Extent { count: extent.count + last.count, ..extent },
            _ => self.freed_extents.push(extent),
        }
        !std::mem::replace(&mut self.to_be_told, true)
    }

    /// Notes that somebody waits for an object of this session's; whether it has to be put on the list of those to be told.
    /// Over a network an object is made by the request that brings its bytes: there is nothing to tell.
    #[must_use]
    pub(crate) fn want(&mut self) -> bool {
        self.is_wanted = self.local;
        self.local && !std::mem::replace(&mut self.to_be_told, true)
    }

    /// As [`Session::add_freed_extent`], of a slot.
    #[must_use]
    pub(crate) fn add_freed_slot(&mut self, lease: SlotLease) -> bool {
        self.freed_slots.push(lease);
        !std::mem::replace(&mut self.to_be_told, true)
    }
}

#[derive(Default)]
pub(crate) struct Sessions {
    table: Slab<Session>,
    by_id: BTreeMap<u64, SessionKey>,
    last_epoch: u32,
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Adds a session that `make` makes, given its epoch; its id must be new.
    pub(crate) fn insert(&mut self, make: impl FnOnce(u32) -> Session) -> SessionKey {
        self.last_epoch = self.last_epoch.checked_add(1).expect("a node does not live for four billion sessions");
        let session = make(self.last_epoch);
        let (id, epoch) = (session.id, session.epoch);
        let index = u32::try_from(self.table.insert(session)).expect("sessions are limited");
        let key = SessionKey { index, epoch };
        let before = self.by_id.insert(id, key);
        debug_assert!(before.is_none(), "the caller looked");
        key
    }

    pub(crate) fn find(&self, id: u64) -> Option<SessionKey> {
        self.by_id.get(&id).copied()
    }

    /// A session that is known to be there.
    pub(crate) fn get(&self, key: SessionKey) -> &Session {
        self.try_get(key).expect("whoever names a session goes before it does")
    }

    /// As [`Sessions::get`].
    pub(crate) fn get_mut(&mut self, key: SessionKey) -> &mut Session {
        self.try_get_mut(key).expect("whoever names a session goes before it does")
    }

    /// A session, unless it is gone.
    pub(crate) fn try_get(&self, key: SessionKey) -> Option<&Session> {
        self.table.get(key.index as usize).filter(|session| session.epoch == key.epoch)
    }

    /// As [`Sessions::try_get`].
    pub(crate) fn try_get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.table.get_mut(key.index as usize).filter(|session| session.epoch == key.epoch)
    }

    /// A session that has not ended.
    pub(crate) fn live_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.try_get_mut(key).filter(|session| session.is_live())
    }

    pub(crate) fn remove(&mut self, key: SessionKey) -> Session {
        let session = self.table.remove(key.index as usize);
        debug_assert_eq!(session.epoch, key.epoch);
        self.by_id.remove(&session.id);
        session
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionKey, &Session)> {
        self.table.iter().map(|(index, session)| (key(index, session), session))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (SessionKey, &mut Session)> {
        self.table.iter_mut().map(|(index, session)| (key(index, session), session))
    }
}

fn key(index: usize, session: &Session) -> SessionKey {
    SessionKey { index: index as u32, epoch: session.epoch }
}
