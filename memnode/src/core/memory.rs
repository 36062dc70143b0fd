//! Memory for those who ask: leases, growth for writes, and waiting for room.
//!
//! 1. What is made is counted at once, in the pool and in its session's share: two requests never get the same room.
//! 2. Whoever waits for room has a deadline. Whoever fits is served, oldest first; none is kept waiting for one who does not.
//! 3. Before anybody waits, segments that only the node writes and that are wholly free are given up for them.

use super::core::Core;
use super::event::{Access, Action, Actions, Now};
use super::requests::Stop;
use super::segments::{Segment, Stage};
use super::sessions::SessionKey;
use super::waiting::{Wait, Waiter};
use dmrpc_wire::{Leased, Notice, Reply, RequestHead, SegmentInfo, SlotLease, Status};
use std::collections::VecDeque;

/// The longest that a lease waits for room, in milliseconds.
const MAX_LEASE_WAIT_MS: u32 = 60_000;

/// The most leases of one session that wait. Further ones are refused.
const MAX_WAITING_LEASES: usize = 16;

/// A session is asked to give something back at most once in so long, in milliseconds.
const RECLAIM_INTERVAL_MS: u64 = 100;

/// The least that is made for a session that writes, in bytes; more each time, up to the limits.
const MIN_GROWTH_BYTES: u64 = 1 << 20;

/// The most that is made at once for a session that writes, unless one write needs more, in bytes.
const MAX_GROWTH_BYTES: u64 = 64 << 20;

/// A lease that waits for memory to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingLease {
    pub(crate) session: SessionKey,
    pub(crate) head: RequestHead,
    pub(crate) slots: u32,
}

/// What a segment is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Lease(PendingLease),
    /// The write that this session's stream stands still for.
    Write(SessionKey),
}

impl Purpose {
    fn session(&self) -> SessionKey {
        match self {
            Purpose::Lease(lease) => lease.session,
            Purpose::Write(session) => *session,
        }
    }
}

struct MemoryWait {
    purpose: Purpose,
    /// Of the lease; a write's own deadline is that of its stream.
    pages: u32,
    deadline: Now,
    /// Whether others were asked to give back what they don't use.
    asked: bool,
}

/// Those who wait for room, oldest first.
#[derive(Default)]
pub(crate) struct MemoryQueue {
    waits: VecDeque<MemoryWait>,
}

impl MemoryQueue {
    /// Nothing that this session waits for is of use any more.
    pub(crate) fn forget(&mut self, key: SessionKey) {
        self.waits.retain(|wait| wait.purpose.session() != key);
    }

    /// The session's write no longer waits.
    pub(crate) fn forget_write(&mut self, key: SessionKey) {
        self.waits.retain(|wait| !matches!(wait.purpose, Purpose::Write(session) if session == key));
    }

    /// Everybody waits so much longer.
    pub(crate) fn extend_deadlines(&mut self, by_ms: u64) {
        for wait in &mut self.waits {
            wait.deadline = wait.deadline.saturating_add(by_ms);
        }
    }

    pub(crate) fn wait_for_write(&mut self, session: SessionKey, pages: u32) {
        self.waits.push_back(MemoryWait { purpose: Purpose::Write(session), pages, deadline: Now::MAX, asked: false });
    }
}

impl Core {
    /// A lease: memory that the client writes itself, and slots.
    pub(super) fn lease(
        &mut self,
        key: SessionKey,
        head: RequestHead,
        pages: u32,
        slots: u32,
        wait_ms: u32,
        out: &mut Actions,
    ) -> Result<(), Status> {
        if slots > dmrpc_wire::MAX_LEASE_SLOTS {
            return Err(Status::TooLarge);
        }
        let session = self.sessions.get(key);
        if session.owned_slots + slots as usize > self.config.max_slots_per_session {
            return Err(Status::QuotaExceeded);
        }
        let lease = PendingLease { session: key, head, slots };
        if pages == 0 {
            self.sessions.get_mut(key).owned_slots += slots as usize;
            self.slots_leased(lease, None, out);
            return Ok(());
        }
        if !session.is_bound() {
            return Err(Status::Denied);
        }
        let pages = self.rounded(pages).ok_or(Status::QuotaExceeded)?;
        if pages > session.quota_pages - session.committed_pages {
            return Err(Status::QuotaExceeded);
        }
        if session.waiting_leases >= MAX_WAITING_LEASES || pages > self.config.pool_pages {
            return Err(Status::OutOfMemory);
        }
        let deadline = self.now.saturating_add(u64::from(wait_ms.min(MAX_LEASE_WAIT_MS)));
        let session = self.sessions.get_mut(key);
        session.owned_slots += slots as usize;
        session.waiting_leases += 1;
        let purpose = Purpose::Lease(lease);
        self.memory.waits.push_back(MemoryWait { purpose, pages, deadline, asked: false });
        self.serve_last(out);
        self.expire_memory_waits(out);
        Ok(())
    }

    /// Slots that are kept free for leases of this session that wait.
    pub(super) fn reserved_slots(&self, key: SessionKey) -> usize {
        let waiting = self.memory.waits.iter().map(|wait| &wait.purpose).chain(self.making.values());
        let of_lease = |purpose: &Purpose| match purpose {
            Purpose::Lease(lease) if lease.session == key => lease.slots as usize,
            _ => 0,
        };
        waiting.map(of_lease).sum()
    }

    /// Pages as segments come: whole granules.
    fn rounded(&self, pages: u32) -> Option<u32> {
        pages.checked_next_multiple_of(self.config.segment_granule_pages.max(1))
    }

    /// The segment of a lease is there.
    pub(super) fn leased(&mut self, lease: PendingLease, index: u32, out: &mut Actions) {
        let session = self.sessions.live_mut(lease.session);
        let Some((link, local)) = session.and_then(|session| Some((session.link?, session.local))) else {
            // It ended while the segment was made.
            self.drop_if_over(index, out);
            return;
        };
        if local {
            self.segments.get_mut(index).expect("it was just made").writer = Some(link);
            out.list.push(Action::PassSegment { link, segment: index });
        }
        self.slots_leased(lease, Some(index), out);
    }

    fn slots_leased(&mut self, lease: PendingLease, segment: Option<u32>, out: &mut Actions) {
        let session = self.sessions.get_mut(lease.session);
        let returns = session.is_bound();
        // Slots are fewer than were asked for only when four billion are in use.
        let slots: Vec<SlotLease> = (0..lease.slots).map_while(|_| self.slots.lease(lease.session, returns)).collect();
        session.owned_slots -= lease.slots as usize - slots.len();
        session.slots.extend(slots.iter().map(SlotLease::slot));
        if session.slots.len() > 2 * session.owned_slots + 64 {
            // Slots that don't come back stay on the list until now.
            session.slots.sort_unstable();
            session.slots.dedup();
            session.slots.retain(|&slot| self.slots.is_owned(slot, lease.session));
        }
        let segment = segment.map(|index| {
            let segment = self.segments.get(index).expect("it was just made");
            SegmentInfo { segment: index, pages: segment.pages, file_offset: segment.file_offset }
        });
        let reply = Reply::Leased(Leased { segment, slots: &slots });
        self.reply(lease.session, lease.head, Status::Ok, &reply, out);
    }

    /// A lease that waited gets nothing.
    pub(super) fn lease_failed(&mut self, lease: &PendingLease, status: Status, out: &mut Actions) {
        if let Some(session) = self.sessions.live_mut(lease.session) {
            session.owned_slots -= lease.slots as usize;
            self.fail(lease.session, lease.head, status, out);
        }
    }

    /// Leases that waited too long. A write that did is woken as its stream is.
    pub(super) fn expire_memory_waits(&mut self, out: &mut Actions) {
        let now = self.now;
        let mut at = 0;
        while at < self.memory.waits.len() {
            match self.memory.waits[at] {
                MemoryWait { purpose: Purpose::Lease(lease), deadline, .. } if deadline <= now => {
                    self.memory.waits.remove(at);
                    self.sessions.get_mut(lease.session).waiting_leases -= 1;
                    self.lease_failed(&lease, Status::OutOfMemory, out);
                }
                _ => at += 1,
            }
        }
    }

    /// Has segments made for those who wait, as far as there is room, if any came free since.
    pub(super) fn serve_memory(&mut self, out: &mut Actions) {
        if self.segments.take_news() {
            self.serve_from(0, out);
        }
    }

    /// As [`Core::serve_memory`], for the one who has just begun to wait.
    pub(super) fn serve_last(&mut self, out: &mut Actions) {
        self.serve_from(self.memory.waits.len() - 1, out);
    }

    fn serve_from(&mut self, mut at: usize, out: &mut Actions) {
        while at < self.memory.waits.len() {
            let MemoryWait { purpose, pages, .. } = self.memory.waits[at];
            let served = match purpose {
                Purpose::Lease(lease) => self.serve_lease(lease, pages, out),
                Purpose::Write(session) => self.serve_write(session, pages, out),
            };
            if served {
                self.memory.waits.remove(at);
                continue;
            }
            if !std::mem::replace(&mut self.memory.waits[at].asked, true) {
                self.ask_for_memory(purpose.session(), pages, out);
            }
            at += 1;
        }
    }

    fn serve_lease(&mut self, lease: PendingLease, pages: u32, out: &mut Actions) -> bool {
        let session = self.sessions.get(lease.session);
        if pages > session.quota_pages - session.committed_pages {
            // It had room when it asked; leases that were served since have used it up.
            self.sessions.get_mut(lease.session).waiting_leases -= 1;
            self.lease_failed(&lease, Status::QuotaExceeded, out);
            return true;
        }
        if !self.make_room(lease.session, pages, out) {
            return false;
        }
        self.sessions.get_mut(lease.session).waiting_leases -= 1;
        if !self.make_segment(pages, Access::Client, Purpose::Lease(lease), out) {
            self.lease_failed(&lease, Status::OutOfMemory, out);
        }
        true
    }

    fn serve_write(&mut self, key: SessionKey, pages: u32, out: &mut Actions) -> bool {
        let missing = u64::from(pages).saturating_sub(self.take_over(key, pages));
        let session = self.sessions.get(key);
        let quota = session.quota_pages - session.committed_pages;
        let missing = u32::try_from(missing).ok().and_then(|missing| self.rounded(missing));
        let Some(missing) = missing.filter(|&missing| missing > 0 && missing <= quota) else {
            // There is enough by now, or there never will be: the write finds out.
            self.waiters.wake_one(Waiter::Stream(key));
            return true;
        };
        // Growth saves later writes the wait, if nobody else has to give anything up for it.
        let shift = self.config.page_size.shift();
        let had = u64::from(session.committed_pages).clamp(MIN_GROWTH_BYTES >> shift, MAX_GROWTH_BYTES >> shift);
        let growth = self.rounded(had.max(1) as u32).filter(|&g| g <= quota && g <= self.segments.room() / 4);
        let wanted = growth.map_or(missing, |growth| growth.max(missing));
        if !self.make_room(key, wanted, out) {
            return false;
        }
        self.make_segment(wanted, Access::Node, Purpose::Write(key), out)
    }

    /// Gives idle segments up until there is room for `pages` for this session; none if that is not enough, and none of the
    /// session's own: it counts on those.
    fn make_room(&mut self, asker: SessionKey, pages: u32, out: &mut Actions) -> bool {
        if pages <= self.segments.room() {
            return true;
        }
        let missing = u64::from(pages - self.segments.room());
        let idle = |(_, s): &(u32, &Segment)| s.is_idle() && s.owner != Some(asker);
        let mut given_up = Vec::new();
        let mut found = 0;
        // Those without an owner first.
        for owned in [false, true] {
            for (index, segment) in self.segments.iter().filter(idle).filter(|(_, s)| s.owner.is_some() == owned) {
                if found >= missing {
                    break;
                }
                found += u64::from(segment.pages);
                given_up.push(index);
            }
        }
        if found < missing {
            return false;
        }
        for index in given_up {
            let segment = self.segments.remove(index).expect("it was just looked at");
            if let Some(owner) = segment.owner {
                let session = self.sessions.get_mut(owner);
                session.committed_pages -= segment.pages;
                session.segments.retain(|&other| other != index);
            }
            self.drop_segment(index, out);
        }
        true
    }

    /// Whether it is being made.
    fn make_segment(&mut self, pages: u32, access: Access, purpose: Purpose, out: &mut Actions) -> bool {
        let key = purpose.session();
        let session = self.sessions.get_mut(key);
        let Some(index) = self.segments.make(pages, session.tenant, access, key) else { return false };
        session.committed_pages += pages;
        session.segments.push(index);
        self.making.insert(index, purpose);
        out.list.push(Action::MakeSegment { segment: index, pages, access });
        true
    }

    /// Asks those who have whole segments without an object to give back what they don't use.
    fn ask_for_memory(&mut self, asker: SessionKey, pages: u32, out: &mut Actions) {
        let mut owners: Vec<SessionKey> = (self.segments.iter())
            .filter(|(_, segment)| segment.access == Access::Client && segment.stage == Stage::Sealed)
            .filter(|(_, segment)| segment.live == 0)
            .filter_map(|(_, segment)| segment.owner.filter(|&owner| owner != asker))
            .collect();
        owners.sort_unstable();
        owners.dedup();
        for owner in owners {
            let Some(session) = self.sessions.live_mut(owner) else { continue };
            let Some(link) = session.link else { continue };
            if session.asked_at.is_some_and(|asked| self.now < asked.saturating_add(RECLAIM_INTERVAL_MS)) {
                continue;
            }
            session.asked_at = Some(self.now);
            let applied = session.applied;
            let notice = Reply::Notice(Notice::Reclaim { pages });
            out.send(link, |bytes| notice.encode(Status::Ok, 0, applied, bytes));
        }
    }

    /// Takes segments of sessions that ended over for this one, until `pages` pages can be allocated in its segments. Returns
    /// how many can.
    fn take_over(&mut self, key: SessionKey, pages: u32) -> u64 {
        let session = self.sessions.get_mut(key);
        let mut has = self.segments.allocatable(&session.segments);
        if has < u64::from(pages) {
            for (index, segment) in self.segments.iter_mut() {
                let quota = session.quota_pages - session.committed_pages;
                let free = segment.buddy.as_ref().map_or(0, dmrpc_pages::Buddy::free_pages);
                if segment.owner.is_none() && segment.tenant == session.tenant && free > 0 && segment.pages <= quota {
                    segment.owner = Some(key);
                    session.committed_pages += segment.pages;
                    session.segments.push(index);
                    has += u64::from(free);
                    if has >= u64::from(pages) {
                        break;
                    }
                }
            }
        }
        has
    }

    /// Makes sure that `pages` pages can be allocated for a write of this session. If more have to be made it has to wait.
    pub(super) fn provide(&mut self, key: SessionKey, pages: u32) -> Result<(), Stop> {
        let has = self.take_over(key, pages);
        let missing = u64::from(pages).saturating_sub(has);
        if missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).ok().and_then(|missing| self.rounded(missing));
        let session = self.sessions.get(key);
        if missing.is_none_or(|missing| missing > session.quota_pages - session.committed_pages) {
            return Err(Status::QuotaExceeded.into());
        }
        if missing.is_some_and(|missing| missing > self.config.pool_pages) {
            return Err(Status::OutOfMemory.into());
        }
        Err(Stop::Wait(Wait::Memory(pages)))
    }
}
