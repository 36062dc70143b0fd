//! Sessions: who is there, until when, and what each has.
//!
//! 1. A session is live, or has ended and keeps its holds for a grace period; then it is gone. An ended session never comes
//!    back: its link is unknown, and its epoch is not given out again.
//! 2. A sequenced request is applied if its sequence is the next, and answered again from memory if it was applied before.

use super::event::{LinkId, Now};
use dmrpc_wire::{RawExtent, SlotLease};
use slab::Slab;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// A session's place in the table, until it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionKey(u32);

/// The most answers kept for a session that may resume. A client with more requests in flight breaks the protocol.
pub(crate) const MAX_UNACKNOWLEDGED: usize = 4096;

pub(crate) struct Session {
    /// Names the session to its client, with `epoch`.
    pub(crate) id: u64,
    pub(crate) epoch: u32,
    pub(crate) resume_key: [u8; 16],
    pub(crate) tenant: u32,
    pub(crate) local: bool,
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
    pub(crate) holds: HashMap<u32, u32>,
    pub(crate) applied: u64,
    /// Answers to sequenced requests that the client may ask for again; `None` while the answer is being made.
    pub(crate) answers: VecDeque<(u64, Option<Vec<u8>>)>,
    pub(crate) freed_extents: Vec<RawExtent>,
    pub(crate) freed_slots: Vec<SlotLease>,
    /// Whether the session stands in the list of those that have something freed to be told of.
    pub(crate) to_be_told: bool,
}

impl Session {
    pub(crate) fn is_live(&self) -> bool {
        self.grace_until.is_none()
    }

    /// Remembers that the answer to `sequence` is being made.
    pub(crate) fn expect_answer(&mut self, sequence: u64) {
        if !self.local {
            self.answers.push_back((sequence, None));
        }
    }

    /// Remembers an answer for when it is asked for again.
    pub(crate) fn remember_answer(&mut self, sequence: u64, head: &[u8]) {
        if let Some((_, answer)) = self.answers.iter_mut().find(|(s, _)| *s == sequence) {
            *answer = Some(head.to_vec());
        }
    }

    /// The client has everything up to `sequence`.
    pub(crate) fn forget_answers(&mut self, sequence: u64) {
        while self.answers.front().is_some_and(|(s, answer)| *s <= sequence && answer.is_some()) {
            self.answers.pop_front();
        }
    }
}

#[derive(Default)]
pub(crate) struct Sessions {
    table: Slab<Session>,
    by_id: BTreeMap<u64, SessionKey>,
    next_epoch: u32,
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Adds a session; its id must be new.
    pub(crate) fn insert(&mut self, session: Session) -> SessionKey {
        let id = session.id;
        let key = SessionKey(u32::try_from(self.table.insert(session)).expect("sessions are limited"));
        let before = self.by_id.insert(id, key);
        debug_assert!(before.is_none(), "the caller looked");
        key
    }

    pub(crate) fn next_epoch(&mut self) -> u32 {
        self.next_epoch = self.next_epoch.wrapping_add(1);
        self.next_epoch
    }

    pub(crate) fn find(&self, id: u64) -> Option<SessionKey> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn get(&self, key: SessionKey) -> &Session {
        &self.table[key.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, key: SessionKey) -> &mut Session {
        &mut self.table[key.0 as usize]
    }

    pub(crate) fn remove(&mut self, key: SessionKey) -> Session {
        let session = self.table.remove(key.0 as usize);
        self.by_id.remove(&session.id);
        session
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionKey, &Session)> {
        self.table.iter().map(|(index, session)| (SessionKey(index as u32), session))
    }
}
