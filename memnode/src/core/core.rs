//! The core: what happened, and what follows from it.
//!
//! 1. A link is open for one session, waits to take one up, or is being closed: nothing more is heard from it.
//! 2. A session that ended is fenced at once: none of its requests is applied any more. Its holds stand for the grace period;
//!    that of a client on this host begins when its link is gone, because until then it may look at pages.
//! 3. What was freed is swept up in [`Core::settle`], in bounded steps.

use super::config::CoreConfig;
use super::event::{Access, Action, Actions, Event, LinkId, Now};
use super::grants::Grants;
use super::memory::{MemoryQueue, Purpose};
use super::segments::{Segments, Stage};
use super::sessions::{Aside, Blocked, Session, SessionKey, Sessions};
use super::slots::{Fate, Slots};
use super::snapshot::Snapshots;
use super::transfers::Transfers;
use super::waiting::{Wait, Waiter, Waiters};
use dmrpc_pages::Buddy;
use dmrpc_wire::{
    FEATURE_LOCAL, FEATURE_REGISTERED, Hello, Notice, RawExtent, Reply, RequestHead, Stats, Status, Welcome,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Units of sweeping in one [`Core::settle`]: a tree node, or 2^14 pages of one. Some tenth of a millisecond.
const SWEEP_BUDGET: usize = 1024;

/// The most runs of pages in one notice, and the most slots: together they fit a head.
const MAX_FREED_EXTENTS: usize = 3072;
const MAX_FREED_SLOTS: usize = 2048;

/// If no tick came for so long the node itself stood still, and what clients said waits unread: every deadline of theirs is
/// put off by that time.
const MAX_TICK_GAP_MS: u64 = 1_000;

/// What a link is to the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    Open(SessionKey),
    /// Waits for the link before it to be gone, to take its session up.
    Successor(SessionKey),
    /// Was told to close. With the session whose last user of it this is.
    Closing(Option<SessionKey>),
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It said so.
    Bye,
    /// It was not renewed.
    Expired,
    /// It broke the protocol.
    Broken(Status),
    /// It was on this host, and its link is gone.
    Gone,
}

/// Events since the start.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) requests: u64,
    pub(super) replays: u64,
    pub(super) failures: u64,
    pub(super) commits: u64,
    pub(super) frees: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
    pub(super) pages_copied: u64,
    pub(super) leases_expired: u64,
    pub(super) wakeups: u64,
    /// Not events but how many there are: holds of all sessions, and pages of all objects.
    pub(super) holds: u64,
    pub(super) logical_pages: u64,
}

/// The memory node as a state machine. See the [module](super).
pub struct Core {
    pub(super) config: CoreConfig,
    pub(super) now: Now,
    last_tick: Now,
    links: HashMap<LinkId, LinkState>,
    pub(super) sessions: Sessions,
    pub(super) slots: Slots,
    pub(super) snapshots: Snapshots,
    pub(super) segments: Segments,
    pub(super) grants: Grants,
    pub(super) transfers: Transfers,
    pub(super) memory: MemoryQueue,
    pub(super) waiters: Waiters,
    /// Whose memory is being registered, by ticket.
    pub(super) registrations: BTreeMap<u64, (SessionKey, RequestHead)>,
    /// What is to be entered on the board or taken off: before anything is swept.
    pub(super) posts: Vec<(u32, u32)>,
    /// Sessions that are to be told something.
    pub(super) to_be_told: VecDeque<SessionKey>,
    /// Sessions in their grace period, by its end.
    in_grace: BTreeSet<(Now, SessionKey)>,
    /// What is to be done for segments that are being made.
    pub(super) making: BTreeMap<u32, Purpose>,
    pub(super) counters: Counters,
}

impl Core {
    /// A node without sessions, segments or objects.
    pub fn new(config: CoreConfig) -> Self {
        Self {
            now: 0,
            last_tick: 0,
            links: HashMap::new(),
            sessions: Sessions::default(),
            slots: Slots::new(config.node),
            snapshots: Snapshots::new(config.max_tree_nodes),
            segments: Segments::new(config.pool_pages),
            grants: Grants::default(),
            transfers: Transfers::default(),
            memory: MemoryQueue::default(),
            waiters: Waiters::default(),
            registrations: BTreeMap::new(),
            posts: Vec::new(),
            to_be_told: VecDeque::new(),
            in_grace: BTreeSet::new(),
            making: BTreeMap::new(),
            counters: Counters::default(),
            config,
        }
    }

    /// What the node allows.
    pub fn config(&self) -> &CoreConfig {
        &self.config
    }

    /// Does what follows from `event`. What the driver is to do is appended to `out`.
    pub fn step(&mut self, now: Now, event: Event<'_>, out: &mut Actions) {
        self.now = self.now.max(now);
        match event {
            Event::Hello { link, hello, sequence, local, reaches, entropy } => {
                self.hello(link, &hello, sequence, (local, reaches), &entropy, out);
            }
            Event::Request { link, head, request, body_len } => {
                let body = (body_len > 0).then_some((link, body_len));
                match self.links.get(&link) {
                    Some(&LinkState::Open(session)) => self.request(session, link, head, &request, body, out),
                    Some(LinkState::Closing(_)) => discard(body, out),
                    state => {
                        let waits = state.is_some();
                        discard(body, out);
                        self.close_stranger(link, waits, Status::Denied, out);
                    }
                }
            }
            Event::Malformed { link, body_len } => {
                discard((body_len > 0).then_some((link, body_len)), out);
                match self.links.get(&link) {
                    Some(&LinkState::Open(session)) => self.break_off(session, Status::Malformed, out),
                    Some(LinkState::Closing(_)) => {}
                    state => {
                        let waits = state.is_some();
                        self.close_stranger(link, waits, Status::Malformed, out);
                    }
                }
            }
            Event::Received { ticket, whole } => self.received(ticket, whole, out),
            Event::Sent { ticket } => self.sent(ticket),
            Event::Disconnected { link } => self.disconnected(link, out),
            Event::SegmentMade { segment, file_offset } => self.segment_made(segment, file_offset, out),
            Event::SegmentFailed { segment } => self.segment_failed(segment, out),
            Event::Registered { ticket, region } => self.registered(ticket, region, out),
            Event::Tick => self.tick(out),
        }
        self.run_ready(out);
        self.post(out);
    }

    /// Sends what was gathered and sweeps up behind dropped objects. To be called after each batch of events, and again
    /// soon while the core is not [settled](Core::is_settled).
    pub fn settle(&mut self, now: Now, out: &mut Actions) {
        self.now = self.now.max(now);
        self.sweep(out);
        self.serve_memory(out);
        self.run_ready(out);
        self.tell(out);
        self.post(out);
    }

    /// Tells the driver what changes on the board. Pages of what was dropped are swept up later.
    fn post(&mut self, out: &mut Actions) {
        out.list.extend(self.posts.drain(..).map(|(slot, generation)| Action::Post { slot, generation }));
    }

    /// Whether [`Core::settle`] has nothing left to do.
    pub fn is_settled(&self) -> bool {
        self.snapshots.is_swept() && self.to_be_told.is_empty()
    }

    /// Notes that the driver's loop woke up.
    pub fn note_wakeup(&mut self) {
        self.counters.wakeups += 1;
    }

    /// The node's figures.
    pub fn stats(&self) -> Stats {
        let (mut free, mut unpublished, mut live, mut quarantined) = (0u64, 0u64, 0u64, 0u64);
        for (_, segment) in self.segments.iter() {
            let usage = segment.usage();
            free += u64::from(usage.free);
            unpublished += u64::from(usage.unpublished);
            live += u64::from(usage.live);
            quarantined += u64::from(usage.quarantined);
        }
        let counters = &self.counters;
        Stats {
            page_bytes: self.config.page_size.bytes().into(),
            pool_pages: u64::from(self.config.pool_pages).into(),
            committed_pages: u64::from(self.segments.committed()).into(),
            free_pages: free.into(),
            unpublished_pages: unpublished.into(),
            live_pages: live.into(),
            quarantined_pages: quarantined.into(),
            logical_pages: counters.logical_pages.into(),
            segments: (self.segments.len() as u64).into(),
            sessions: (self.sessions.len() as u64).into(),
            objects: (self.slots.objects() as u64).into(),
            tree_nodes: (self.snapshots.nodes() as u64).into(),
            holds: counters.holds.into(),
            grants: (self.grants.len() as u64).into(),
            requests: counters.requests.into(),
            replays: counters.replays.into(),
            failures: counters.failures.into(),
            commits: counters.commits.into(),
            frees: counters.frees.into(),
            bytes_read: counters.bytes_read.into(),
            bytes_written: counters.bytes_written.into(),
            pages_copied: counters.pages_copied.into(),
            leases_expired: counters.leases_expired.into(),
            wakeups: counters.wakeups.into(),
        }
    }

    // Links and sessions.

    fn hello(
        &mut self,
        link: LinkId,
        hello: &Hello<'_>,
        sequence: u64,
        (local, reaches): (bool, Option<u32>),
        entropy: &[u8; 24],
        out: &mut Actions,
    ) {
        match self.links.get(&link) {
            None => {}
            Some(&LinkState::Open(session)) => return self.break_off(session, Status::Malformed, out),
            Some(LinkState::Closing(_)) => return,
            Some(LinkState::Successor(_)) => return self.close_stranger(link, true, Status::Malformed, out),
        }
        let Some(tenant) = self.tenant(hello.token) else {
            return self.refuse(link, sequence, Status::Denied, out);
        };
        if hello.resume_session != 0 {
            return self.resume(link, hello, sequence, tenant, out);
        }
        if self.sessions.len() >= self.config.max_sessions {
            return self.refuse(link, sequence, Status::TooManySessions, out);
        }
        let (id, key) = entropy.split_at(8);
        let mut id = u64::from_le_bytes(id.try_into().expect("eight bytes"));
        while id == 0 || self.sessions.find(id).is_some() {
            id = id.wrapping_add(1);
        }
        let quota_pages = match hello.quota_pages {
            0 => self.config.quota_pages,
            wanted => wanted.min(self.config.quota_pages),
        };
        let lease_until = self.now.saturating_add(self.config.lease_ms);
        let session = self.sessions.insert(|epoch| Session {
            id,
            epoch,
            resume_key: key.try_into().expect("sixteen bytes"),
            tenant,
            local: local && hello.features & FEATURE_LOCAL != 0,
            registered: reaches == Some(tenant) && hello.features & FEATURE_REGISTERED != 0,
            link: Some(link),
            successor: None,
            lease_until,
            grace_until: None,
            quota_pages,
            committed_pages: 0,
            segments: Vec::new(),
            slots: Vec::new(),
            owned_slots: 0,
            holds: BTreeMap::new(),
            accepted: 0,
            applied: 0,
            answers: BTreeMap::new(),
            answer_bytes: 0,
            blocked: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
            askers: 0,
            waiting_leases: 0,
            transfers: 0,
            asked_at: None,
            freed_extents: Vec::new(),
            freed_slots: Vec::new(),
            is_wanted: false,
            to_be_told: false,
        });
        self.links.insert(link, LinkState::Open(session));
        self.welcome(session, link, sequence, out);
    }

    /// The tenant that a token stands for.
    fn tenant(&self, token: &[u8]) -> Option<u32> {
        let tokens = &self.config.tenant_tokens;
        if tokens.is_empty() {
            return Some(0);
        }
        // All are looked at wholly: how long it takes tells nothing.
        let is = |other: &Vec<u8>| {
            other.len() == token.len() && other.iter().zip(token).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
        };
        (0u32..).zip(tokens).fold(None, |found, (tenant, other)| if is(other) { Some(tenant) } else { found })
    }

    fn resume(&mut self, link: LinkId, hello: &Hello<'_>, sequence: u64, tenant: u32, out: &mut Actions) {
        let key = self.sessions.find(hello.resume_session).filter(|&key| {
            let session = self.sessions.get(key);
            session.is_live()
                && !session.is_bound()
                && session.tenant == tenant
                && session.epoch == hello.resume_epoch
                && session.resume_key == hello.resume_key
        });
        let Some(key) = key else {
            return self.refuse(link, sequence, Status::LeaseExpired, out);
        };
        let lease_until = self.now.saturating_add(self.config.lease_ms);
        let session = self.sessions.get_mut(key);
        session.lease_until = lease_until;
        if let Some((superseded, _)) = session.successor.replace((link, sequence)) {
            self.links.insert(superseded, LinkState::Closing(None));
            out.list.push(Action::Close { link: superseded });
        }
        match session.link.take() {
            // A link that broke without anybody noticing: wait until nothing is on its way over it any more.
            Some(old) => {
                self.links.insert(old, LinkState::Closing(Some(key)));
                self.links.insert(link, LinkState::Successor(key));
                discard(self.link_lost(key, old), out);
                out.list.push(Action::Close { link: old });
            }
            None if self.links.values().any(|state| *state == LinkState::Closing(Some(key))) => {
                self.links.insert(link, LinkState::Successor(key));
            }
            None => {
                self.links.insert(link, LinkState::Successor(key));
                self.succeed(key, out);
            }
        }
    }

    /// The link that waits takes the session up.
    fn succeed(&mut self, key: SessionKey, out: &mut Actions) {
        let Some(session) = self.sessions.live_mut(key) else { return };
        let Some((link, sequence)) = session.successor.take() else { return };
        session.link = Some(link);
        self.links.insert(link, LinkState::Open(key));
        self.welcome(key, link, sequence, out);
    }

    fn welcome(&mut self, key: SessionKey, link: LinkId, sequence: u64, out: &mut Actions) {
        let session = self.sessions.get(key);
        let welcome = Welcome {
            node: self.config.node,
            page_bytes: self.config.page_size.bytes() as u32,
            session: session.id,
            epoch: session.epoch,
            lease_ms: u32::try_from(self.config.lease_ms).unwrap_or(u32::MAX),
            grace_ms: u32::try_from(self.config.grace_ms).unwrap_or(u32::MAX),
            quota_pages: session.quota_pages,
            max_object_bytes: self.config.max_object_bytes,
            resume_key: session.resume_key,
            coherence: self.config.coherence,
        };
        let applied = session.applied;
        out.send(link, |bytes| Reply::Welcome(welcome).encode(Status::Ok, sequence, applied, bytes));
    }

    /// Answers a hello with no, and closes the link.
    fn refuse(&mut self, link: LinkId, sequence: u64, status: Status, out: &mut Actions) {
        self.counters.failures += 1;
        self.links.insert(link, LinkState::Closing(None));
        out.send(link, |bytes| Reply::Done.encode(status, sequence, 0, bytes));
        out.list.push(Action::Close { link });
    }

    /// Closes a link that has no session, or not yet.
    fn close_stranger(&mut self, link: LinkId, waits: bool, status: Status, out: &mut Actions) {
        self.counters.failures += 1;
        if waits && let Some(LinkState::Successor(key)) = self.links.get(&link) {
            self.sessions.get_mut(*key).successor = None;
        }
        self.links.insert(link, LinkState::Closing(None));
        goodbye(link, status, out);
    }

    fn disconnected(&mut self, link: LinkId, out: &mut Actions) {
        self.end_transfers(link);
        let over: Vec<u32> = (self.segments.iter_mut())
            .filter(|(_, segment)| segment.writer == Some(link))
            .map(|(index, segment)| {
                segment.writer = None;
                index
            })
            .collect();
        match self.links.remove(&link) {
            None | Some(LinkState::Closing(None)) => {}
            Some(LinkState::Successor(key)) => {
                let session = self.sessions.get_mut(key);
                debug_assert!(session.successor.is_some_and(|(successor, _)| successor == link));
                session.successor = None;
            }
            Some(LinkState::Open(key)) if self.sessions.get(key).is_bound() => self.end_session(key, Ending::Gone, out),
            Some(LinkState::Open(key)) => {
                self.sessions.get_mut(key).link = None;
                self.link_lost(key, link);
            }
            Some(LinkState::Closing(Some(key))) => {
                if let Some(session) = self.sessions.try_get_mut(key) {
                    if session.is_live() {
                        self.link_lost(key, link);
                        self.succeed(key, out);
                    } else if session.local {
                        self.begin_grace(key);
                    }
                }
            }
        }
        for segment in over {
            self.drop_if_over(segment, out);
        }
    }

    /// A link of a session that may go on over another is gone, and with it what waited on it. Returns the body that did.
    fn link_lost(&mut self, key: SessionKey, link: LinkId) -> Option<(LinkId, u64)> {
        self.drop_askers(key);
        let session = self.sessions.get_mut(key);
        let is_lost = |aside: &Aside| aside.body.is_some_and(|(on, _)| on == link);
        // A write whose body is lost has to come again. Nothing was read from the link after it.
        let lost = if session.queue.back().is_some_and(is_lost) {
            let lost = session.queue.pop_back()?;
            session.queued_bytes -= lost.bytes.len();
            lost
        } else if session.blocked.as_ref().is_some_and(|blocked| is_lost(&blocked.request)) {
            debug_assert!(session.queue.is_empty());
            let Blocked { request, wait, .. } = session.blocked.take()?;
            self.waiters.remove(wait, Waiter::Stream(key));
            self.memory.forget_write(key);
            request
        } else {
            return None;
        };
        let session = self.sessions.get_mut(key);
        session.accepted = lost.head.sequence - 1;
        session.answers.remove(&lost.head.sequence);
        lost.body
    }

    /// Fences a session and takes from it all but its holds.
    fn end_session(&mut self, key: SessionKey, ending: Ending, out: &mut Actions) {
        let session = self.sessions.get_mut(key);
        debug_assert!(session.is_live());
        // Until its grace period begins, which for some is not yet.
        session.grace_until = Some(Now::MAX);
        let (link, successor) = (session.link.take(), session.successor.take());
        let local = session.local;
        let blocked = session.blocked.take();
        let queue = std::mem::take(&mut session.queue);
        session.queued_bytes = 0;
        session.answers.clear();
        session.answer_bytes = 0;
        session.freed_extents = Vec::new();
        session.freed_slots = Vec::new();
        session.waiting_leases = 0;
        session.committed_pages = 0;
        session.owned_slots = 0;
        let (segments, slots) = (std::mem::take(&mut session.segments), std::mem::take(&mut session.slots));
        if let Some(blocked) = &blocked {
            self.waiters.remove(blocked.wait, Waiter::Stream(key));
        }
        if ending != Ending::Gone {
            // The link is to be closed, but still has a body to be rid of.
            let last = queue.back().or(blocked.as_ref().map(|blocked| &blocked.request));
            discard(last.and_then(|aside| aside.body), out);
        }
        self.memory.forget(key);
        self.drop_askers(key);
        for slot in slots {
            if self.slots.disown(slot, key) {
                self.waiters.wake(Wait::Slot(slot));
            }
        }
        for index in segments {
            self.segments.disown(index);
            self.drop_if_over(index, out);
        }
        let status = match ending {
            Ending::Bye | Ending::Gone => Status::Ok,
            Ending::Expired => Status::LeaseExpired,
            Ending::Broken(status) => status,
        };
        if let Some((successor, _)) = successor {
            self.links.insert(successor, LinkState::Closing(None));
            goodbye(successor, status, out);
        }
        let fenced = local && matches!(ending, Ending::Broken(_));
        if ending != Ending::Gone
            && let Some(link) = link
        {
            self.links.insert(link, LinkState::Closing(fenced.then_some(key)));
            if ending == Ending::Bye {
                out.list.push(Action::Close { link });
            } else {
                goodbye(link, status, out);
            }
        }
        match ending {
            Ending::Bye => self.remove_session(key),
            Ending::Broken(_) if fenced => {}
            _ => self.begin_grace(key),
        }
    }

    fn begin_grace(&mut self, key: SessionKey) {
        let until = self.now.saturating_add(self.config.grace_ms);
        self.sessions.get_mut(key).grace_until = Some(until);
        self.in_grace.insert((until, key));
    }

    /// A session is gone for good: so are its holds.
    fn remove_session(&mut self, key: SessionKey) {
        let holds = std::mem::take(&mut self.sessions.get_mut(key).holds);
        for (slot, count) in holds {
            self.counters.holds -= u64::from(count);
            self.drop_references(slot, u64::from(count));
        }
        self.sessions.remove(key);
    }

    /// Ends a session that broke the protocol.
    pub(super) fn break_off(&mut self, key: SessionKey, status: Status, out: &mut Actions) {
        self.counters.failures += 1;
        if self.sessions.get(key).is_live() {
            self.end_session(key, Ending::Broken(status), out);
        }
    }

    /// Ends a session that said so.
    pub(super) fn bye(&mut self, key: SessionKey, out: &mut Actions) {
        self.end_session(key, Ending::Bye, out);
    }

    fn tick(&mut self, out: &mut Actions) {
        let now = self.now;
        let stood_still = now - self.last_tick;
        self.last_tick = now;
        let mut expired = Vec::new();
        let mut overdue = Vec::new();
        if stood_still > MAX_TICK_GAP_MS {
            self.extend_deadlines(stood_still);
        }
        for (key, session) in self.sessions.iter_mut().filter(|(_, session)| session.is_live()) {
            if !session.local && session.lease_until <= now {
                expired.push(key);
            } else if session.blocked.as_ref().is_some_and(|blocked| blocked.deadline <= now) {
                overdue.push(Waiter::Stream(key));
            }
        }
        for key in expired {
            self.counters.leases_expired += 1;
            self.end_session(key, Ending::Expired, out);
        }
        let askers = self.waiters.askers.iter().filter(|(_, asker)| asker.deadline <= now);
        overdue.extend(askers.map(|(index, _)| Waiter::Asker(index)));
        for waiter in overdue {
            self.waiters.wake_one(waiter);
        }
        self.expire_memory_waits(out);
        while let Some(&(until, key)) = self.in_grace.first()
            && until <= now
        {
            self.in_grace.pop_first();
            self.remove_session(key);
        }
        while let Some(granted) = self.grants.pop_ended(now) {
            self.drop_references(granted.slot, 1);
        }
    }

    /// The node stood still for so long: what clients said meanwhile has yet to be read.
    fn extend_deadlines(&mut self, by_ms: u64) {
        for (_, session) in self.sessions.iter_mut() {
            session.lease_until = session.lease_until.saturating_add(by_ms);
            if let Some(blocked) = &mut session.blocked {
                blocked.deadline = blocked.deadline.saturating_add(by_ms);
            }
        }
        for (_, asker) in &mut self.waiters.askers {
            asker.deadline = asker.deadline.saturating_add(by_ms);
        }
        self.memory.extend_deadlines(by_ms);
        for (until, key) in std::mem::take(&mut self.in_grace) {
            let until = until.saturating_add(by_ms);
            self.sessions.get_mut(key).grace_until = Some(until);
            self.in_grace.insert((until, key));
        }
    }

    // Segments.

    fn segment_made(&mut self, index: u32, file_offset: u64, out: &mut Actions) {
        let Some(purpose) = self.making.remove(&index) else { return };
        let segment = self.segments.get_mut(index).expect("it stays while it is made");
        segment.file_offset = file_offset;
        match segment.access {
            Access::Client => segment.stage = Stage::Open,
            Access::Node => {
                segment.stage = Stage::Sealed;
                segment.buddy = Some(Buddy::new(segment.pages));
                out.list.push(Action::SealSegment { segment: index });
            }
        }
        match purpose {
            Purpose::Lease(lease) => self.leased(lease, index, out),
            Purpose::Write(session) => self.waiters.wake_one(Waiter::Stream(session)),
        }
    }

    fn segment_failed(&mut self, index: u32, out: &mut Actions) {
        let Some(purpose) = self.making.remove(&index) else { return };
        let segment = self.segments.remove(index).expect("it stays while it is made");
        if let Some(session) = segment.owner.and_then(|owner| self.sessions.live_mut(owner)) {
            session.committed_pages -= segment.pages;
            session.segments.retain(|&other| other != index);
        }
        match purpose {
            Purpose::Lease(lease) => self.lease_failed(&lease, Status::OutOfMemory, out),
            Purpose::Write(key) => {
                if let Some(blocked) = self.sessions.live_mut(key).and_then(|session| session.blocked.as_mut())
                    && matches!(blocked.wait, Wait::Memory(_))
                {
                    blocked.deadline = 0;
                    self.waiters.wake_one(Waiter::Stream(key));
                }
            }
        }
    }

    /// Drops a segment that the driver has, and that the core has forgotten.
    pub(super) fn drop_segment(&mut self, index: u32, out: &mut Actions) {
        out.list.push(Action::DropSegment { segment: index });
        self.waiters.wake(Wait::Segment(index));
    }

    pub(super) fn drop_if_over(&mut self, index: u32, out: &mut Actions) {
        if self.segments.remove_if_over(index) {
            self.drop_segment(index, out);
        }
    }

    // Objects.

    /// Takes references to the object in a slot away.
    pub(super) fn drop_references(&mut self, slot: u32, count: u64) {
        let Some((object, fate)) = self.slots.drop_references(slot, count) else { return };
        self.counters.frees += 1;
        self.counters.logical_pages -= u64::from(self.snapshots.pages(&object.root));
        self.snapshots.release(object.root);
        if self.config.has_board {
            self.posts.push((slot, 0));
        }
        match fate {
            Fate::Returned(owner, lease) => {
                if self.sessions.get_mut(owner).add_freed_slot(lease) {
                    self.to_be_told.push_back(owner);
                }
            }
            Fate::Free(owner) => {
                if let Some(owner) = owner {
                    self.sessions.get_mut(owner).owned_slots -= 1;
                }
            }
        }
    }

    fn sweep(&mut self, out: &mut Actions) {
        let Self { snapshots, segments, sessions, to_be_told, .. } = self;
        let mut over = Vec::new();
        snapshots.sweep(&mut { SWEEP_BUDGET }, |extent| {
            let gone = segments.uncover(extent, |owner, freed| {
                if sessions.get_mut(owner).add_freed_extent(freed) {
                    to_be_told.push_back(owner);
                }
            });
            if gone {
                over.push(extent.segment.0);
            }
        });
        for index in over {
            self.drop_segment(index, out);
        }
    }

    /// Tells sessions what came free, and that they keep others waiting.
    fn tell(&mut self, out: &mut Actions) {
        for _ in 0..self.to_be_told.len() {
            let Some(key) = self.to_be_told.pop_front() else { return };
            let Some(session) = self.sessions.live_mut(key) else { continue };
            let Some(link) = session.link else { continue };
            let applied = session.applied;
            if std::mem::take(&mut session.is_wanted) {
                out.send(link, |bytes| Reply::Notice(Notice::Wanted).encode(Status::Ok, 0, applied, bytes));
            }
            if session.freed_extents.is_empty() && session.freed_slots.is_empty() {
                session.to_be_told = false;
                continue;
            }
            let extents = session.freed_extents.len().min(MAX_FREED_EXTENTS);
            let slots = session.freed_slots.len().min(MAX_FREED_SLOTS);
            let extents: Vec<RawExtent> = session.freed_extents.drain(..extents).map(RawExtent::from).collect();
            let notice = Notice::Freed { extents: &extents, slots: &session.freed_slots[..slots] };
            out.send(link, |bytes| Reply::Notice(notice).encode(Status::Ok, 0, applied, bytes));
            session.freed_slots.drain(..slots);
            session.to_be_told = !session.freed_extents.is_empty() || !session.freed_slots.is_empty();
            if session.to_be_told {
                self.to_be_told.push_back(key);
            }
        }
    }

    // Answers.

    /// Sends an answer, and remembers it if it may be asked for again.
    pub(super) fn reply(
        &mut self,
        key: SessionKey,
        head: RequestHead,
        status: Status,
        reply: &Reply<'_>,
        out: &mut Actions,
    ) {
        let Some(session) = self.sessions.live_mut(key) else { return };
        let bytes = out.head(|bytes| reply.encode(status, head.sequence, session.applied, bytes));
        if head.op.is_sequenced() {
            session.remember_answer(head.sequence, &out.heads[bytes.clone()]);
        }
        if let Some(link) = session.link {
            out.list.push(Action::Send { link, head: bytes });
        }
    }

    /// Says that a request failed: as its answer, or unasked if it has none.
    pub(super) fn fail(&mut self, key: SessionKey, head: RequestHead, status: Status, out: &mut Actions) {
        self.counters.failures += 1;
        let reply = if head.op.is_answered() { Reply::Done } else { Reply::Notice(Notice::Failed) };
        self.reply(key, head, status, &reply, out);
    }

    fn drop_askers(&mut self, key: SessionKey) {
        if std::mem::take(&mut self.sessions.get_mut(key).askers) == 0 {
            return;
        }
        let waiters = &mut self.waiters;
        let gone: Vec<usize> =
            waiters.askers.iter().filter(|(_, asker)| asker.session == key).map(|(index, _)| index).collect();
        for index in gone {
            let asker = waiters.askers.remove(index);
            waiters.remove(asker.wait, Waiter::Asker(index));
        }
    }
}

/// Skips a body that waits.
pub(super) fn discard(body: Option<(LinkId, u64)>, out: &mut Actions) {
    if let Some((link, _)) = body {
        out.list.push(Action::Discard { link });
    }
}

fn goodbye(link: LinkId, status: Status, out: &mut Actions) {
    out.send(link, |bytes| Reply::Notice(Notice::Goodbye).encode(status, 0, 0, bytes));
    out.list.push(Action::Close { link });
}
