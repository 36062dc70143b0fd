//! The session with a memory node: what is sent, what is waited for, and what is kept until it is known to have arrived.
//!
//! Callers on any thread send under one short lock; the I/O thread (`io.rs`) receives and completes.
//!
//! 1. Sequenced requests are in the link in the order of their numbers, without gaps.
//! 2. Over a network every sequenced request is kept until the node is known to have applied it and its answer is here; after
//!    a link broke they are sent again, in order.
//! 3. Whoever waits has a deadline, which the I/O thread keeps. What is answered after that is undone.
//! 4. At most [`MAX_BACKLOG`] messages wait for the link; further ones are [`StoreError::NodeUnreachable`].

use crate::error::status_error;
use crate::object::Object;
use crate::{StoreError, Subject};
use dmrpc_fabric::address::Address;
use dmrpc_fabric::link::{Body, Destination, LinkError, Sender, TrySendError};
use dmrpc_pages::Extent;
use dmrpc_wire::{ObjectId, RegionInfo, ReleaseEntry, Request, SegmentInfo, SlotLease, Stats, Status};
use parking_lot::{Mutex, MutexGuard};
use rustix::event::{EventfdFlags, eventfd};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The most messages that wait for room in the link.
pub(crate) const MAX_BACKLOG: usize = 1 << 14;
/// The most entries in one release.
const MAX_RELEASES: usize = 1024;
/// How long a release may wait for others to go with it.
pub(crate) const RELEASE_DELAY: Duration = Duration::from_millis(2);
/// Tags of requests that are not sequenced.
const TAG: u64 = 1 << 63;

/// What a request was answered.
pub(crate) enum Answer {
    Done,
    Held,
    Resolved { size: u64, extents: Vec<Extent> },
    Stats(Box<Stats>),
    Segment(SegmentInfo, OwnedFd),
    Region(RegionInfo),
}

/// What is to be done if a request succeeds that nobody waits for any more.
#[derive(Clone, Copy)]
pub(crate) enum Undo {
    Nothing,
    /// Give the hold back.
    Release(ObjectId),
}

/// Who waits for an answer.
pub(crate) enum Waiting {
    Answer {
        to: oneshot::Sender<Result<Answer, StoreError>>,
        undo: Undo,
    },
    Read {
        to: oneshot::Sender<Result<(), StoreError>>,
        destination: Option<Box<dyn Destination>>,
    },
    /// The arena.
    Lease,
    /// The arena, for a segment that it was leased over RDMA, and slots.
    Region(SegmentInfo, Vec<SlotLease>),
    /// Objects that are to be held, in the order of the request.
    Adopt(Vec<Arc<Object>>),
    /// Nobody any more.
    Abandoned(Undo),
}

pub(crate) struct Pending {
    pub(crate) waiting: Waiting,
    pub(crate) doing: &'static str,
    pub(crate) about: Option<Subject>,
    asked: Instant,
    /// The request, to be asked again over another link. Sequenced ones are in `unapplied`.
    again: Option<Box<[u8]>>,
}

impl Pending {
    /// Tells whoever waits that it failed.
    pub(crate) fn fail(self, error: &StoreError) -> Option<Waiting> {
        match self.waiting {
            Waiting::Answer { to, .. } => {
                let _ = to.send(Err(error.clone()));
                None
            }
            Waiting::Read { to, .. } => {
                let _ = to.send(Err(error.clone()));
                None
            }
            Waiting::Abandoned(_) => None,
            other => Some(other),
        }
    }
}

struct Message {
    head: Box<[u8]>,
    body: Body,
}

/// A sequenced request that may have to be sent again.
struct Unapplied {
    sequence: u64,
    head: Box<[u8]>,
    body: Body,
}

pub(crate) struct Session {
    pub(crate) url: String,
    /// Whether the node is on this host.
    pub(crate) local: bool,
    /// Whether the session ends with its link: nothing is sent again.
    pub(crate) is_bound: bool,
    state: Mutex<State>,
    bell: OwnedFd,
}

pub(crate) struct State {
    /// `None` while there is no link.
    sender: Option<Box<dyn Sender>>,
    pub(crate) ended: Option<StoreError>,
    sequence: u64,
    tag: u64,
    scratch: Vec<u8>,
    backlog: VecDeque<Message>,
    pub(crate) pending: HashMap<u64, Pending>,
    deadlines: BinaryHeap<Reverse<(Instant, u64)>>,
    unapplied: VecDeque<Unapplied>,
    /// Sequenced requests whose answer is not here yet.
    unanswered: BTreeSet<u64>,
    applied: u64,
    /// Commits that are not known to be applied.
    commits: VecDeque<(u64, Weak<Object>)>,
    releases: Vec<ReleaseEntry>,
    /// When the oldest of them was queued.
    released: Instant,
    /// When the I/O thread will look by itself.
    wakes_at: Instant,
    /// When it is to look, as somebody said since it last went to sleep.
    wanted_at: Option<Instant>,
}

/// Does something with the session under its lock, and rings the I/O thread if that has to know.
pub(crate) struct Held<'a> {
    session: &'a Session,
    state: MutexGuard<'a, State>,
    ring: bool,
    /// Whether this is the I/O thread, which need not be rung.
    is_io: bool,
}

impl Session {
    pub(crate) fn new(
        url: String,
        (local, is_bound): (bool, bool),
        sender: Box<dyn Sender>,
    ) -> Result<Self, StoreError> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| StoreError::Io { doing: "making an eventfd", why: error.to_string() })?;
        let now = Instant::now();
        Ok(Self {
            url,
            local,
            is_bound,
            bell,
            state: Mutex::new(State {
                sender: Some(sender),
                ended: None,
                sequence: 0,
                tag: TAG,
                scratch: Vec::new(),
                backlog: VecDeque::new(),
                pending: HashMap::new(),
                deadlines: BinaryHeap::new(),
                unapplied: VecDeque::new(),
                unanswered: BTreeSet::new(),
                applied: 0,
                commits: VecDeque::new(),
                releases: Vec::new(),
                released: now,
                wakes_at: now,
                wanted_at: None,
            }),
        })
    }

    pub(crate) fn lock(&self) -> Held<'_> {
        Held { session: self, state: self.state.lock(), ring: false, is_io: false }
    }

    /// As [`lock`](Session::lock), for the I/O thread.
    pub(crate) fn lock_for_io(&self) -> Held<'_> {
        let mut held = self.lock();
        held.is_io = true;
        held
    }

    /// The descriptor that becomes readable when the I/O thread is to look.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The bell was heard.
    pub(crate) fn still(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    pub(crate) fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Where the node is, as others may know it.
    pub(crate) fn place(&self) -> String {
        self.url.parse::<Address>().map_or_else(|_| self.url.clone(), |address| address.without_options().to_string())
    }

    pub(crate) fn unreachable(&self, why: &dyn std::fmt::Display) -> StoreError {
        StoreError::NodeUnreachable { url: self.url.clone(), why: why.to_string() }
    }

    /// Asks, and gives what to wait on.
    pub(crate) fn ask(
        &self,
        doing: &'static str,
        about: Option<Subject>,
        request: &Request<'_>,
        body: Body,
        undo: Undo,
        within: Duration,
    ) -> Result<oneshot::Receiver<Result<Answer, StoreError>>, StoreError> {
        let (to, answer) = oneshot::channel();
        self.lock().ask(doing, about, request, body, Waiting::Answer { to, undo }, Some(within))?;
        Ok(answer)
    }

    /// Sends a request that is not answered.
    pub(crate) fn tell(&self, request: &Request<'_>) -> Result<(), StoreError> {
        let mut held = self.lock();
        held.send(request, Body::new())?;
        held.flush();
        Ok(())
    }

    /// Gives a hold back, soon.
    pub(crate) fn release(&self, id: ObjectId) {
        let mut held = self.lock();
        if held.state.ended.is_some() {
            return;
        }
        held.state.releases.push(ReleaseEntry { id, count: 1.into() });
        if held.state.releases.len() >= MAX_RELEASES {
            held.send_releases();
            held.flush();
            return;
        }
        let now = Instant::now();
        if held.state.releases.len() == 1 {
            held.state.released = now;
        }
        held.wake_by(now + RELEASE_DELAY);
    }
}

impl Held<'_> {
    pub(crate) fn state(&mut self) -> &mut State {
        &mut self.state
    }

    /// The I/O thread is to look at the latest then.
    pub(crate) fn wake_by(&mut self, at: Instant) {
        let wanted = self.state.wanted_at.get_or_insert(at);
        *wanted = at.min(*wanted);
        if at < self.state.wakes_at {
            self.state.wakes_at = at;
            self.ring = true;
        }
    }

    /// Sends a request, or queues it; gives its number.
    pub(crate) fn send(&mut self, request: &Request<'_>, body: Body) -> Result<u64, StoreError> {
        let state = &mut *self.state;
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        if state.backlog.len() >= MAX_BACKLOG || state.unapplied.len() >= MAX_BACKLOG {
            return Err(self.session.unreachable(&"too much is waiting to be sent to it"));
        }
        let op = request.op();
        let number = if op.is_sequenced() {
            state.sequence += 1;
            state.sequence
        } else {
            state.tag += 1;
            state.tag
        };
        let acknowledged = state.unanswered.first().map_or(state.applied, |first| state.applied.min(first - 1));
        let mut scratch = std::mem::take(&mut state.scratch);
        scratch.clear();
        request.encode(number, acknowledged, &mut scratch);
        if op.is_sequenced() {
            if op.is_answered() {
                state.unanswered.insert(number);
            }
            if !self.session.is_bound {
                let unapplied = Unapplied { sequence: number, head: scratch.as_slice().into(), body: body.clone() };
                state.unapplied.push_back(unapplied);
            }
        }
        self.transmit(&scratch, body);
        self.state.scratch = scratch;
        Ok(number)
    }

    /// Gives a message to the link, or queues it behind those that wait already.
    fn transmit(&mut self, head: &[u8], body: Body) {
        let state = &mut *self.state;
        // Without a link there is nothing to wait for: everything is sent again over the next.
        let Some(sender) = &mut state.sender else { return };
        let body = if state.backlog.is_empty() {
            match sender.try_send(head, body) {
                Ok(()) => return,
                Err(TrySendError::Full(body)) => body,
                Err(TrySendError::Link(_)) => return self.link_failed(),
            }
        } else {
            body
        };
        self.state.backlog.push_back(Message { head: head.into(), body });
        self.ring = true;
    }

    /// The I/O thread sees for itself what is wrong with the link.
    fn link_failed(&mut self) {
        self.ring = true;
    }

    /// Asks for an answer.
    pub(crate) fn ask(
        &mut self,
        doing: &'static str,
        about: Option<Subject>,
        request: &Request<'_>,
        body: Body,
        waiting: Waiting,
        within: Option<Duration>,
    ) -> Result<(), StoreError> {
        let number = self.send(request, body)?;
        let asked = Instant::now();
        let again =
            (!self.session.is_bound && !request.op().is_sequenced()).then(|| self.state.scratch.as_slice().into());
        self.state.pending.insert(number, Pending { waiting, doing, about, asked, again });
        if let Some(within) = within {
            self.state.deadlines.push(Reverse((asked + within, number)));
            self.wake_by(asked + within);
        }
        self.flush();
        Ok(())
    }

    /// Remembers which object a commit makes, in case it fails.
    pub(crate) fn remember_commit(&mut self, sequence: u64, object: &Arc<Object>) {
        object.set_commit(sequence);
        self.state.commits.push_back((sequence, Arc::downgrade(object)));
    }

    /// Sends what holds are to be given back.
    pub(crate) fn send_releases(&mut self) {
        let releases = std::mem::take(&mut self.state.releases);
        for entries in releases.chunks(MAX_RELEASES) {
            if self.send(&Request::Release(entries), Body::new()).is_err() {
                break;
            }
        }
        self.state.releases = releases;
        self.state.releases.clear();
    }

    /// Moves on what was sent, as far as the link takes it. Whether all is on its way.
    pub(crate) fn flush(&mut self) -> bool {
        let state = &mut *self.state;
        let Some(sender) = &mut state.sender else { return true };
        loop {
            match sender.flush() {
                Ok(true) => {}
                Ok(false) => {
                    self.ring = true;
                    return false;
                }
                Err(_) => {
                    self.link_failed();
                    return true;
                }
            }
            if state.backlog.is_empty() {
                return true;
            }
            while let Some(message) = state.backlog.pop_front() {
                match sender.try_send(&message.head, message.body) {
                    Ok(()) => {}
                    Err(TrySendError::Full(body)) => {
                        state.backlog.push_front(Message { head: message.head, body });
                        break;
                    }
                    Err(TrySendError::Link(_)) => {
                        self.link_failed();
                        return true;
                    }
                }
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.ring && !self.is_io {
            // Under the lock: it is rung at most once for each time that the I/O thread goes to sleep.
            self.session.ring();
        }
    }
}

impl State {
    /// All sequenced requests up to `applied` have been applied.
    pub(crate) fn applied(&mut self, applied: u64) {
        self.applied = self.applied.max(applied);
        while self.commits.front().is_some_and(|(sequence, _)| *sequence <= self.applied) {
            self.commits.pop_front();
        }
        self.forget();
    }

    /// Whether the node is known to have applied a request.
    pub(crate) fn has_applied(&self, sequence: u64) -> bool {
        self.applied >= sequence
    }

    fn forget(&mut self) {
        while let Some(first) = self.unapplied.front()
            && first.sequence <= self.applied
            && !self.unanswered.contains(&first.sequence)
        {
            self.unapplied.pop_front();
        }
    }

    /// The answer to a request is here: who waits for it.
    pub(crate) fn answered(&mut self, number: u64) -> Option<Pending> {
        let pending = self.pending.remove(&number);
        if self.unanswered.remove(&number) {
            self.forget();
        }
        pending
    }

    /// The object whose commit that was.
    pub(crate) fn failed_commit(&mut self, sequence: u64) -> Option<Arc<Object>> {
        let at = self.commits.iter().position(|(other, _)| *other == sequence)?;
        self.commits.remove(at)?.1.upgrade()
    }

    /// How many commits and kept requests are not known to be applied.
    pub(crate) fn uncertain(&self) -> usize {
        self.commits.len().max(self.unapplied.len())
    }

    /// Fails whatever has waited too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(Reverse((at, number))) = self.deadlines.peek().copied()
            && at <= now
        {
            self.deadlines.pop();
            let Some(pending) = self.pending.get_mut(&number) else { continue };
            let undo = match &pending.waiting {
                Waiting::Answer { undo, .. } => *undo,
                _ => Undo::Nothing,
            };
            let error = StoreError::Deadline { doing: pending.doing, after: now - pending.asked };
            match std::mem::replace(&mut pending.waiting, Waiting::Abandoned(undo)) {
                Waiting::Answer { to, .. } => drop(to.send(Err(error))),
                Waiting::Read { to, .. } => drop(to.send(Err(error))),
                other => pending.waiting = other,
            }
        }
    }

    /// When something is due: a deadline, or releases to be sent.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let deadline = self.deadlines.peek().map(|Reverse((at, _))| *at);
        let releases = (!self.releases.is_empty()).then(|| self.released + RELEASE_DELAY);
        [deadline, releases].into_iter().flatten().min()
    }

    /// Whether releases are to be sent now.
    pub(crate) fn releases_due(&self, now: Instant) -> bool {
        !self.releases.is_empty() && self.released + RELEASE_DELAY <= now
    }

    /// The I/O thread sleeps until then at the latest, if nobody rings. Until when it is to sleep.
    pub(crate) fn sleep_until(&mut self, at: Instant) -> Instant {
        self.wakes_at = self.wanted_at.take().map_or(at, |wanted| wanted.min(at));
        self.wakes_at
    }

    /// The I/O thread is awake, and looks before it sleeps: nobody need ring.
    pub(crate) fn awake(&mut self) {
        self.wakes_at = Instant::now();
    }

    /// Whether the link is full, and which descriptors become writable when it is not.
    pub(crate) fn sender(&self) -> Option<&dyn Sender> {
        self.sender.as_deref()
    }

    /// The link is gone.
    pub(crate) fn unlink(&mut self) {
        self.sender = None;
        self.backlog.clear();
    }

    /// A new link for the same session: everything that may not have arrived goes first.
    pub(crate) fn relink(&mut self, sender: Box<dyn Sender>, applied: u64) {
        self.applied(applied);
        self.sender = Some(sender);
        self.backlog = self
            .unapplied
            .iter()
            .map(|unapplied| Message { head: unapplied.head.clone(), body: unapplied.body.clone() })
            .collect();
        let mut asked: Vec<_> =
            self.pending.iter().filter_map(|(n, pending)| Some((*n, pending.again.clone()?))).collect();
        asked.sort_unstable_by_key(|(number, _)| *number);
        self.backlog.extend(asked.into_iter().map(|(_, head)| Message { head, body: Body::new() }));
    }

    /// The session is over: everyone who waits is told; what is left is the caller's to settle.
    pub(crate) fn end(&mut self, error: &StoreError) -> Vec<Waiting> {
        self.ended.get_or_insert_with(|| error.clone());
        self.unlink();
        self.releases.clear();
        self.deadlines.clear();
        self.unapplied.clear();
        self.unanswered.clear();
        self.commits.clear();
        let pending = std::mem::take(&mut self.pending);
        pending.into_values().filter_map(|pending| pending.fail(error)).collect()
    }
}

/// Why a request failed.
pub(crate) fn refusal(status: Status, pending: &Pending) -> StoreError {
    status_error(status, pending.doing, pending.about)
}

pub(crate) fn link_error(url: &str, error: &LinkError) -> StoreError {
    match error {
        LinkError::Address { why, .. } => StoreError::Address { url: url.to_owned(), why: (*why).to_owned() },
        LinkError::Deadline(after) => StoreError::Deadline { doing: "connecting", after: *after },
        other => StoreError::NodeUnreachable { url: url.to_owned(), why: other.to_string() },
    }
}
