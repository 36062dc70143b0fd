//! Requests: whose turn it is, and what each does.
//!
//! 1. A sequenced request is applied in its turn, once. One that comes again is answered again.
//! 2. A request that fails changes nothing; of one that names several things, those that can be done are done.
//! 3. A request whose object may be about to come waits; sequenced ones of the session that come after it wait behind it.

use super::core::{Core, discard};
use super::event::{Access, Action, Actions, LinkId, Ticket};
use super::segments::Stage;
use super::sessions::{Aside, Blocked, SessionKey};
use super::slots::Lookup;
use super::snapshot::Root;
use super::waiting::{Asker, COMMIT_WAIT_MS, MAX_ASKERS_PER_SESSION, WRITE_WAIT_MS, Wait, Waiter};
use dmrpc_pages::Extent;
use dmrpc_wire::{
    Commit, Grant, Notice, ObjectId, Patch, RawExtent, RegionInfo, ReleaseEntry, Reply, Request, RequestHead, Resolved,
    SegmentInfo, SlotLease, Status,
};
use std::collections::btree_map;

/// The most extents in one answer: they fit a head.
const MAX_RESOLVED_EXTENTS: usize = 4096;

/// The longest life of a grant, in milliseconds: thirty days.
const MAX_GRANT_MS: u64 = 30 * 24 * 3600 * 1000;

/// The most regions that are being registered at the same time.
const MAX_REGISTRATIONS: usize = 1 << 14;

/// Why a request is not done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    Fail(Status),
    /// It may be once this has happened.
    Wait(Wait),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Stop::Fail(status)
    }
}

impl Core {
    pub(super) fn request(
        &mut self,
        key: SessionKey,
        link: LinkId,
        head: RequestHead,
        request: &Request<'_>,
        body: Option<(LinkId, u64)>,
        out: &mut Actions,
    ) {
        self.counters.requests += 1;
        let lease_until = self.now.saturating_add(self.config.lease_ms);
        let session = self.sessions.get_mut(key);
        session.lease_until = session.lease_until.max(lease_until);
        session.forget_answers(head.acknowledged);
        if matches!(request, Request::Hello(_)) || (body.is_some() && !matches!(request, Request::Write(_))) {
            discard(body, out);
            return self.break_off(key, Status::Malformed, out);
        }
        if !head.op.is_sequenced() {
            return self.ask(key, link, head, request, out);
        }
        if head.sequence <= session.accepted {
            discard(body, out);
            return self.replay(key, head, out);
        }
        if head.sequence != session.accepted + 1 {
            discard(body, out);
            // Not remembered: this sequence is still to come.
            self.counters.failures += 1;
            return self.say(key, head, Status::OutOfSequence, out);
        }
        session.accepted = head.sequence;
        if head.op.is_answered() {
            session.expect_answer(head.sequence);
        }
        if session.blocked.is_some() {
            let aside = put_aside(head, request, body);
            session.queued_bytes += aside.bytes.len();
            session.queue.push_back(aside);
        } else {
            self.run(key, head, request, body, None, out);
        }
        if self.sessions.try_get(key).is_some_and(|session| session.is_live() && session.is_over_limits()) {
            self.break_off(key, Status::TooLarge, out);
        }
    }

    /// A sequenced request came again.
    fn replay(&mut self, key: SessionKey, head: RequestHead, out: &mut Actions) {
        self.counters.replays += 1;
        let session = self.sessions.get_mut(key);
        match session.answers.get(&head.sequence) {
            Some(Some(answer)) => {
                if let Some(link) = session.link {
                    out.send(link, |bytes| bytes.extend_from_slice(answer));
                }
            }
            // It is on its way.
            Some(None) => {}
            None if head.op.is_answered() => self.say(key, head, Status::OutOfSequence, out),
            None => {}
        }
    }

    /// Says that a request failed, without remembering it.
    fn say(&mut self, key: SessionKey, head: RequestHead, status: Status, out: &mut Actions) {
        let session = self.sessions.get(key);
        let applied = session.applied;
        let reply = if head.op.is_answered() { Reply::Done } else { Reply::Notice(Notice::Failed) };
        if let Some(link) = session.link {
            out.send(link, |bytes| reply.encode(status, head.sequence, applied, bytes));
        }
    }

    /// Applies a request whose turn it is, or makes its session's stream stand still for it. `deadline` is that of one that
    /// waited before.
    fn run(
        &mut self,
        key: SessionKey,
        head: RequestHead,
        request: &Request<'_>,
        body: Option<(LinkId, u64)>,
        deadline: Option<u64>,
        out: &mut Actions,
    ) {
        self.sessions.get_mut(key).applied = head.sequence;
        let last = deadline.is_some_and(|deadline| deadline <= self.now);
        match self.apply(key, head, request, body, last, out) {
            Ok(()) => {}
            Err(Stop::Wait(wait)) if !last => {
                let patience = if matches!(wait, Wait::Memory(_)) { WRITE_WAIT_MS } else { COMMIT_WAIT_MS };
                let deadline = deadline.unwrap_or_else(|| self.now.saturating_add(patience));
                let session = self.sessions.get_mut(key);
                if body.is_some() {
                    // Renewals stand behind the body.
                    session.lease_until = session.lease_until.max(deadline.saturating_add(self.config.lease_ms));
                }
                session.applied = head.sequence - 1;
                session.blocked = Some(Blocked { request: put_aside(head, request, body), wait, deadline });
                self.waiters.add(wait, Waiter::Stream(key));
                if let Wait::Memory(pages) = wait {
                    self.memory.wait_for_write(key, pages);
                    self.serve_last(out);
                }
            }
            Err(stop) => {
                discard(body, out);
                self.fail(key, head, stop.status(), out);
            }
        }
    }

    /// Runs what was woken.
    pub(super) fn run_ready(&mut self, out: &mut Actions) {
        while let Some(waiter) = self.waiters.pop_ready() {
            match waiter {
                Waiter::Stream(key) => self.run_stream(key, out),
                Waiter::Asker(index) => {
                    let Some(asker) = self.waiters.askers.try_remove(index) else { continue };
                    self.waiters.remove(asker.wait, waiter);
                    self.sessions.get_mut(asker.session).askers -= 1;
                    let (head, request) = Request::decode(&asker.bytes).expect("it was encoded here");
                    self.ask_again(asker.session, asker.link, head, &request, Some(asker.deadline), out);
                }
            }
        }
    }

    fn run_stream(&mut self, key: SessionKey, out: &mut Actions) {
        let Some(session) = self.sessions.live_mut(key) else { return };
        let Some(Blocked { request: mut aside, wait, deadline }) = session.blocked.take() else { return };
        self.waiters.remove(wait, Waiter::Stream(key));
        self.memory.forget_write(key);
        let mut deadline = Some(deadline);
        loop {
            let (head, request) = Request::decode(&aside.bytes).expect("it was encoded here");
            self.run(key, head, &request, aside.body, deadline.take(), out);
            let Some(session) = self.sessions.live_mut(key) else { return };
            if session.blocked.is_some() {
                return;
            }
            let Some(next) = session.queue.pop_front() else { return };
            session.queued_bytes -= next.bytes.len();
            aside = next;
        }
    }

    /// What each sequenced request does.
    fn apply(
        &mut self,
        key: SessionKey,
        head: RequestHead,
        request: &Request<'_>,
        body: Option<(LinkId, u64)>,
        last: bool,
        out: &mut Actions,
    ) -> Result<(), Stop> {
        match *request {
            Request::Lease { pages, slots, wait_ms } => Ok(self.lease(key, head, pages, slots, wait_ms, out)?),
            Request::Mapped { segment } => Ok(self.mapped(key, segment, out)?),
            Request::Commit(ref commit) => self.commit(key, commit),
            Request::Write(ref write) => self.write(key, head, write, body, out),
            Request::Hold(ids) => self.hold(key, head, ids, last, out),
            Request::Release(entries) => Ok(self.release(key, entries)?),
            Request::Grant(ref grant) => {
                self.grant(key, grant)?;
                self.reply(key, head, Status::Ok, &Reply::Done, out);
                Ok(())
            }
            Request::Redeem(ref grant) => {
                self.redeem(key, grant)?;
                self.reply(key, head, Status::Ok, &Reply::Done, out);
                Ok(())
            }
            Request::Revoke(ref grant) => Ok(self.revoke(key, grant)?),
            Request::Return { segment, slots } => Ok(self.give_back(key, segment, slots, out)?),
            _ => Err(Status::Malformed.into()),
        }
    }

    /// What each unsequenced request does.
    fn ask(&mut self, key: SessionKey, link: LinkId, head: RequestHead, request: &Request<'_>, out: &mut Actions) {
        self.ask_again(key, link, head, request, None, out);
    }

    fn ask_again(
        &mut self,
        key: SessionKey,
        link: LinkId,
        head: RequestHead,
        request: &Request<'_>,
        deadline: Option<u64>,
        out: &mut Actions,
    ) {
        let answered = match *request {
            Request::Resolve { id, first_page, pages } => self.resolve(key, head, &id, first_page, pages, out),
            Request::Read { id, offset, length } => self.read(key, head, link, &id, (offset, length), out),
            Request::Segment { segment } => self.segment(key, head, link, segment, out),
            Request::Region { segment, write } => self.region(key, head, link, segment, write, out),
            Request::Stat => {
                let stats = self.stats();
                self.reply(key, head, Status::Ok, &Reply::Stats(&stats), out);
                Ok(())
            }
            Request::Renew => {
                self.reply(key, head, Status::Ok, &Reply::Done, out);
                Ok(())
            }
            Request::Bye => {
                self.bye(key, out);
                Ok(())
            }
            _ => Err(Status::Malformed.into()),
        };
        match answered {
            Ok(()) => {}
            Err(Stop::Wait(wait))
                if deadline.is_none_or(|deadline| deadline > self.now)
                    && self.sessions.get(key).askers < MAX_ASKERS_PER_SESSION =>
            {
                let deadline = deadline.unwrap_or_else(|| self.now.saturating_add(COMMIT_WAIT_MS));
                self.sessions.get_mut(key).askers += 1;
                let bytes = put_aside(head, request, None).bytes;
                let index = self.waiters.askers.insert(Asker { session: key, link, bytes, wait, deadline });
                self.waiters.add(wait, Waiter::Asker(index));
            }
            Err(stop) => self.fail(key, head, stop.status(), out),
        }
    }

    /// The slot of the object that `id` names, for a session of `tenant`. If its own session, on this host, has yet to commit it,
    /// that is told that somebody waits.
    pub(super) fn find(&mut self, id: &ObjectId, tenant: u32) -> Result<u32, Stop> {
        match self.slots.find(id, tenant) {
            Lookup::Found => Ok(id.slot()),
            Lookup::Missing(status) => Err(status.into()),
            Lookup::Pending(owner) if self.sessions.get(owner).tenant == tenant => {
                if self.sessions.get_mut(owner).want() {
                    self.to_be_told.push_back(owner);
                }
                Err(Stop::Wait(Wait::Slot(id.slot())))
            }
            Lookup::Pending(_) => Err(Status::NotFound.into()),
        }
    }

    /// As [`find`](Core::find), for a sequenced request: what its session itself has not committed by now never comes before it.
    pub(super) fn find_in_turn(&mut self, id: &ObjectId, key: SessionKey) -> Result<u32, Stop> {
        let tenant = self.sessions.get(key).tenant;
        match self.slots.find(id, tenant) {
            Lookup::Pending(owner) if owner == key => Err(Status::NotFound.into()),
            _ => self.find(id, tenant),
        }
    }

    // Sequenced requests.

    fn mapped(&mut self, key: SessionKey, index: u32, out: &mut Actions) -> Result<(), Status> {
        let tenant = self.sessions.get(key).tenant;
        let segment = self.segments.get_mut(index).filter(|s| s.tenant == tenant).ok_or(Status::NotFound)?;
        if segment.owner != Some(key) || segment.stage != Stage::Open {
            return Err(Status::Denied);
        }
        segment.stage = Stage::Sealed;
        out.list.push(Action::SealSegment { segment: index });
        self.waiters.wake(Wait::Segment(index));
        Ok(())
    }

    fn commit(&mut self, key: SessionKey, commit: &Commit<'_>) -> Result<(), Stop> {
        let pages = self.config.page_size.pages_for(commit.size);
        let Some(pages) = pages.filter(|_| commit.size <= self.config.max_object_bytes) else {
            return Err(Status::TooLarge.into());
        };
        self.slots.check_empty(&commit.id, key)?;
        for patch in commit.patches {
            let (at, extent) = (patch.at.get(), Extent::from(patch.extent));
            if !extent.is_valid() {
                return Err(Status::Malformed.into());
            }
            if at.checked_add(extent.count).is_none_or(|end| end > pages) {
                return Err(Status::OutOfRange.into());
            }
            if !extent.is_hole() {
                self.segments.check_unpublished(extent, key)?;
            }
        }
        let base = if commit.base.is_null() { None } else { Some(self.find_in_turn(&commit.base, key)?) };
        if let Some(slot) = base {
            // What lies behind the end of the base in its last page is to become zeros, and that is no page of the node's.
            let base_size = self.slots.object(slot).size;
            let tail = (base_size >> self.config.page_size.shift()) as u32;
            let ends_in_page = base_size & (self.config.page_size.bytes() - 1) != 0;
            let brings_it = |patch: &Patch| tail.wrapping_sub(patch.at.get()) < Extent::from(patch.extent).count;
            if commit.size > base_size && ends_in_page && !commit.patches.iter().any(brings_it) {
                return Err(Status::Malformed.into());
            }
        }
        let patches = commit.patches.iter().map(|patch| (patch.at.get(), Extent::from(patch.extent)));
        self.make_object(key, &commit.id, base, commit.size, patches)?;
        Ok(())
    }

    /// Makes an object, of which the session has one hold. Everything but the room in the trees has been looked at.
    pub(super) fn make_object(
        &mut self,
        key: SessionKey,
        id: &ObjectId,
        base: Option<u32>,
        size: u64,
        patches: impl Iterator<Item = (u32, Extent)>,
    ) -> Result<(), Status> {
        let pages = self.config.page_size.pages_for(size).expect("the caller looked");
        let Self { snapshots, segments, slots, .. } = self;
        let nothing = Root::EMPTY;
        let base = base.map_or(&nothing, |slot| &slots.object(slot).root);
        let root = snapshots.build(base, pages, patches, |extent| segments.cover(extent))?;
        let session = self.sessions.get_mut(key);
        self.slots.make(id, session.tenant, size, root);
        if self.config.has_board {
            self.posts.push((id.slot(), id.generation()));
        }
        let before = session.holds.insert(id.slot(), 1);
        debug_assert!(before.is_none(), "the slot was empty");
        self.counters.holds += 1;
        self.counters.commits += 1;
        self.counters.logical_pages += u64::from(pages);
        self.waiters.wake(Wait::Slot(id.slot()));
        Ok(())
    }

    /// `last`: this has waited long enough.
    fn hold(
        &mut self,
        key: SessionKey,
        head: RequestHead,
        ids: &[ObjectId],
        last: bool,
        out: &mut Actions,
    ) -> Result<(), Stop> {
        // One whose commit has yet to come holds all of them up: nothing is done twice.
        for id in ids.iter().filter(|_| !last) {
            if let Err(wait @ Stop::Wait(_)) = self.find_in_turn(id, key) {
                return Err(wait);
            }
        }
        let statuses: Vec<_> = (ids.iter())
            .map(|id| match self.find_in_turn(id, key) {
                Ok(slot) => self.add_hold(key, slot),
                Err(stop) => stop.status(),
            })
            .map(|status| status.to_wire().into())
            .collect();
        self.reply(key, head, Status::Ok, &Reply::Held(&statuses), out);
        Ok(())
    }

    /// One more hold on the object in a slot.
    fn add_hold(&mut self, key: SessionKey, slot: u32) -> Status {
        let count = self.sessions.get_mut(key).holds.entry(slot).or_insert(0);
        let Some(more) = count.checked_add(1) else { return Status::TooManyReferences };
        *count = more;
        self.slots.object(slot).references += 1;
        self.counters.holds += 1;
        Status::Ok
    }

    /// Each entry that can be given back is, whatever the others are; the first that can't says why.
    fn release(&mut self, key: SessionKey, entries: &[ReleaseEntry]) -> Result<(), Status> {
        let tenant = self.sessions.get(key).tenant;
        let mut first = Ok(());
        for entry in entries {
            let released = self.release_one(key, tenant, entry);
            first = first.and(released);
        }
        first
    }

    fn release_one(&mut self, key: SessionKey, tenant: u32, entry: &ReleaseEntry) -> Result<(), Status> {
        let slot = match self.find(&entry.id, tenant) {
            Ok(slot) => slot,
            Err(Stop::Fail(status)) => return Err(status),
            Err(Stop::Wait(_)) => return Err(Status::NotHeld),
        };
        let btree_map::Entry::Occupied(mut held) = self.sessions.get_mut(key).holds.entry(slot) else {
            return Err(Status::NotHeld);
        };
        let count = entry.count.get();
        let rest = held.get().checked_sub(count).ok_or(Status::NotHeld)?;
        if rest == 0 {
            held.remove();
        } else {
            *held.get_mut() = rest;
        }
        self.counters.holds -= u64::from(count);
        self.drop_references(slot, u64::from(count));
        Ok(())
    }

    fn grant(&mut self, key: SessionKey, grant: &Grant) -> Result<(), Stop> {
        let slot = self.find_in_turn(&grant.id, key)?;
        if self.grants.len() >= self.config.max_grants {
            return Err(Status::TooManyReferences.into());
        }
        let until = self.now.saturating_add(grant.ttl_ms.get().min(MAX_GRANT_MS));
        if !self.grants.insert(grant.token, slot, grant.id.generation(), until) {
            return Err(Status::Denied.into());
        }
        self.slots.object(slot).references += 1;
        Ok(())
    }

    fn redeem(&mut self, key: SessionKey, grant: &Grant) -> Result<(), Status> {
        let slot = self.granted(key, grant)?;
        match self.add_hold(key, slot) {
            Status::Ok => Ok(()),
            status => Err(status),
        }
    }

    fn revoke(&mut self, key: SessionKey, grant: &Grant) -> Result<(), Status> {
        let slot = self.granted(key, grant)?;
        self.grants.remove(&grant.token);
        self.drop_references(slot, 1);
        Ok(())
    }

    /// The slot of an object that is granted by this token.
    fn granted(&mut self, key: SessionKey, grant: &Grant) -> Result<u32, Status> {
        let tenant = self.sessions.get(key).tenant;
        let slot = match self.find(&grant.id, tenant) {
            Ok(slot) => slot,
            Err(Stop::Fail(status)) => return Err(status),
            // Nobody grants what is not there yet.
            Err(Stop::Wait(_)) => return Err(Status::NotFound),
        };
        let granted = self.grants.get(&grant.token).ok_or(Status::NotFound)?;
        if (granted.slot, granted.generation) == (slot, grant.id.generation()) {
            Ok(slot)
        } else {
            Err(Status::NotFound)
        }
    }

    fn give_back(
        &mut self,
        key: SessionKey,
        segment: Option<u32>,
        slots: &[SlotLease],
        out: &mut Actions,
    ) -> Result<(), Status> {
        let mut first = Ok(());
        for &lease in slots {
            let returned = self.slots.unlease(lease, key);
            if returned.is_ok() {
                self.sessions.get_mut(key).owned_slots -= 1;
                self.waiters.wake(Wait::Slot(lease.slot()));
            }
            first = first.and(returned);
        }
        let Some(index) = segment else { return first };
        let tenant = self.sessions.get(key).tenant;
        let found = self.segments.get(index).filter(|s| s.tenant == tenant).ok_or(Status::NotFound)?;
        let is_unused = found.buddy.is_none() && found.stage != Stage::Making && found.live == 0;
        if found.owner != Some(key) || !is_unused {
            return Err(Status::Denied);
        }
        let segment = self.segments.remove(index).expect("it was just looked at");
        let session = self.sessions.get_mut(key);
        session.committed_pages -= segment.pages;
        session.segments.retain(|&other| other != index);
        session.freed_extents.retain(|extent| extent.segment.0 != index);
        self.drop_segment(index, out);
        first
    }

    // Unsequenced requests.

    fn resolve(
        &mut self,
        key: SessionKey,
        head: RequestHead,
        id: &ObjectId,
        first: u32,
        pages: u32,
        out: &mut Actions,
    ) -> Result<(), Stop> {
        let tenant = self.sessions.get(key).tenant;
        let slot = self.find(id, tenant)?;
        let object = self.slots.object(slot);
        let has = self.snapshots.pages(&object.root);
        if first > has || pages > has - first {
            return Err(Status::OutOfRange.into());
        }
        let pages = if pages == 0 { has - first } else { pages };
        let mut extents: Vec<Extent> = Vec::new();
        self.snapshots.walk(&object.root, first, pages, &mut |extent| {
            let full = extents.len() == MAX_RESOLVED_EXTENTS;
            match extents.last_mut() {
                Some(last) if last.joins(extent) => last.count += extent.count,
                _ if full => return false,
                _ => extents.push(extent),
            }
            true
        });
        let size = object.size;
        let extents: Vec<RawExtent> = extents.into_iter().map(RawExtent::from).collect();
        self.reply(key, head, Status::Ok, &Reply::Resolved(Resolved { size, extents: &extents }), out);
        Ok(())
    }

    fn read(
        &mut self,
        key: SessionKey,
        head: RequestHead,
        link: LinkId,
        id: &ObjectId,
        range: (u64, u64),
        out: &mut Actions,
    ) -> Result<(), Stop> {
        let tenant = self.sessions.get(key).tenant;
        let slot = self.find(id, tenant)?;
        let size = self.slots.object(slot).size;
        if range.0.checked_add(range.1).is_none_or(|end| end > size) {
            return Err(Status::OutOfRange.into());
        }
        self.send_pages(key, head, link, slot, range, out)?;
        Ok(())
    }

    fn segment(
        &mut self,
        key: SessionKey,
        head: RequestHead,
        link: LinkId,
        index: u32,
        out: &mut Actions,
    ) -> Result<(), Stop> {
        let session = self.sessions.get(key);
        let segment = self.segments.get(index).filter(|s| s.tenant == session.tenant).ok_or(Status::NotFound)?;
        if !session.local {
            return Err(Status::Denied.into());
        }
        if segment.stage != Stage::Sealed {
            // Its client may be about to say that it has mapped it.
            return Err(Stop::Wait(Wait::Segment(index)));
        }
        let info = SegmentInfo { segment: index, pages: segment.pages, file_offset: segment.file_offset };
        out.list.push(Action::PassSegment { link, segment: index });
        self.reply(key, head, Status::Ok, &Reply::SegmentInfo(info), out);
        Ok(())
    }
}

impl Core {
    /// Has memory registered for a client that reaches it by itself.
    fn region(
        &mut self,
        key: SessionKey,
        head: RequestHead,
        link: LinkId,
        index: Option<u32>,
        write: bool,
        out: &mut Actions,
    ) -> Result<(), Stop> {
        let session = self.sessions.get(key);
        if !session.registered || (index.is_none() && (write || !self.config.has_board)) {
            return Err(Status::Denied.into());
        }
        if let Some(index) = index {
            let tenant = session.tenant;
            let segment = self.segments.get_mut(index).filter(|s| s.tenant == tenant).ok_or(Status::NotFound)?;
            if write {
                if segment.owner != Some(key) || segment.access != Access::Client || segment.stage == Stage::Making {
                    return Err(Status::Denied.into());
                }
                // From here on its pages are nobody else's before the link is known to be gone.
                segment.writer = Some(link);
            } else if segment.stage != Stage::Sealed {
                return Err(Stop::Wait(Wait::Segment(index)));
            }
        }
        if self.registrations.len() >= MAX_REGISTRATIONS {
            return Err(Status::TooManyReferences.into());
        }
        let ticket = self.transfers.ticket();
        self.registrations.insert(ticket.0, (key, head));
        out.list.push(Action::Register { link, ticket, segment: index, write });
        Ok(())
    }

    /// Memory was registered, or can't be.
    pub(super) fn registered(&mut self, ticket: Ticket, region: Option<RegionInfo>, out: &mut Actions) {
        let Some((key, head)) = self.registrations.remove(&ticket.0) else { return };
        if self.sessions.live_mut(key).is_none() {
            return;
        }
        match region {
            Some(region) => self.reply(key, head, Status::Ok, &Reply::Region(region), out),
            None => self.fail(key, head, Status::OutOfMemory, out),
        }
    }
}

impl Stop {
    /// What to say about a request that waits no longer.
    fn status(self) -> Status {
        match self {
            Stop::Fail(status) => status,
            Stop::Wait(Wait::Memory(_)) => Status::OutOfMemory,
            Stop::Wait(Wait::Slot(_) | Wait::Segment(_)) => Status::DeadlineExceeded,
        }
    }
}

/// The same request, to be run later.
fn put_aside(head: RequestHead, request: &Request<'_>, body: Option<(LinkId, u64)>) -> Aside {
    let mut bytes = Vec::new();
    request.encode(head.sequence, head.acknowledged, &mut bytes);
    Aside { head, bytes, body }
}
