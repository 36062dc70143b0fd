//! The I/O thread of a store: it connects, receives, keeps deadlines, and renews the session.
//!
//! User code never runs on it, so that nothing keeps it from renewing; but for wakers of futures, which are not to block.
//! It sleeps as long as nothing happens: a local session needs no renewal.
//!
//! 1. A link that broke ends the session at once if the node is on this host. Over a network the session is taken up again
//!    over a new link, as long as its lease lasts.

use crate::client::{Client, PROMOTE_AFTER};
use crate::far::Far;
use crate::segment::Segment;
use crate::session::{Answer, Pending, Session, Undo, Waiting, link_error, refusal};
use crate::{StoreError, StoreOptions, Subject, region, registry};
use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::address::Address;
use dmrpc_fabric::link::{Body, Incoming, Interests, Link, LinkError, Receiver, Target, TrySendError};
use dmrpc_fabric::listen::connect;
use dmrpc_pages::Extent;
use dmrpc_wire::{FEATURE_LOCAL, FEATURE_REGISTERED, Hello, Notice, Reply, ReplyHead, Request, Status, Welcome};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How often those who wait for memory look again.
pub(crate) const MEMORY_TICK: Duration = Duration::from_millis(20);
/// After something happened the thread looks again a few times by itself, so that those who drop references need not ring.
const AWAKE: Duration = Duration::from_millis(20);
/// How often mappings are looked through for those that nobody uses.
const UNMAP_AFTER: Duration = Duration::from_secs(10);
/// With so many requests that are not known to be applied, the node is asked.
const UNCERTAIN: usize = 512;
/// Between attempts to reach a node whose link broke.
const RETRY: Duration = Duration::from_millis(50);
/// The longest that one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Sleeps no longer, so that a time far away needs no care.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// Things received between two looks at the clock.
const BATCH: usize = 64;

/// Starts the thread, and gives what to wait on for the connection.
pub(crate) fn start(options: StoreOptions) -> Result<oneshot::Receiver<Result<Arc<Client>, StoreError>>, StoreError> {
    crate::fork::watch();
    let (to, client) = oneshot::channel();
    let (hand_over, handle) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("dmrpc-store".into())
        .spawn(move || match open(&options) {
            Ok((client, receiver, welcome)) => {
                if let Ok(thread) = handle.recv() {
                    client.set_thread(thread);
                }
                registry::add(&client);
                client.prefetch();
                let io = Io::new(&client, receiver, &welcome);
                if let Err(Ok(client)) = to.send(Ok(client)) {
                    // Nobody waited any longer.
                    drop(client);
                }
                io.run();
            }
            Err(error) => drop(to.send(Err(error))),
        })
        .map_err(|error| StoreError::Io { doing: "starting a thread", why: error.to_string() })?;
    let _ = hand_over.send(thread);
    Ok(client)
}

/// A connection: the client, where it hears from the node, and the terms.
type Opened = (Arc<Client>, Box<dyn Receiver>, Welcome);

fn open(options: &StoreOptions) -> Result<Opened, StoreError> {
    let deadline = Instant::now() + options.deadline;
    let address: Address = options.url.parse().map_err(|error| link_error(&options.url, &error))?;
    if options.token.len() > dmrpc_wire::MAX_TOKEN_BYTES || options.name.len() > dmrpc_wire::MAX_NAME_BYTES {
        let limit = dmrpc_wire::MAX_NAME_BYTES as u64;
        let len = options.token.len().max(options.name.len()) as u64;
        return Err(StoreError::TooLarge { what: "token or name", len, limit });
    }
    let local = address.is_local();
    let (link, welcome) = greet(options, &address, local, None, deadline)?;
    let far = link.receiver.one_sided().map(Far::new).transpose().map_err(|error| link_error(&options.url, &error))?;
    let Link { sender, receiver, .. } = link;
    let session = Session::new(options.url.clone(), (local, local || far.is_some()), sender)?;
    let client = Client::new(Arc::new(session), options.clone(), &welcome, far)?;
    Ok((Arc::new(client), receiver, welcome))
}

/// Connects and says hello.
fn greet(
    options: &StoreOptions,
    address: &Address,
    local: bool,
    resume: Option<&Welcome>,
    deadline: Instant,
) -> Result<(Link, Welcome), StoreError> {
    let failed = |error: LinkError| link_error(&options.url, &error);
    let mut link = connect(address, &LinkOptions::default().rdma_domain(&options.token), deadline).map_err(failed)?;
    let registered = link.receiver.one_sided().is_some();
    let page_bytes = 4096;
    let hello = Hello {
        features: if local { FEATURE_LOCAL } else { 0 } | if registered { FEATURE_REGISTERED } else { 0 },
        quota_pages: u32::try_from(options.quota_bytes.div_ceil(page_bytes)).unwrap_or(u32::MAX),
        resume_session: resume.map_or(0, |welcome| welcome.session),
        resume_epoch: resume.map_or(0, |welcome| welcome.epoch),
        resume_key: resume.map_or([0; 16], |welcome| welcome.resume_key),
        token: &options.token,
        name: &options.name,
    };
    let mut head = Vec::new();
    Request::Hello(hello).encode(1, 0, &mut head);
    link.sender.try_send(&head, Body::new()).map_err(|error| match error {
        TrySendError::Link(error) => failed(error),
        TrySendError::Full(_) => failed(LinkError::Closed),
    })?;
    while !link.sender.flush().map_err(failed)? {
        wait(&link.sender.interests(), deadline).map_err(failed)?;
    }
    loop {
        match link.receiver.recv().map_err(failed)? {
            Incoming::Empty => wait(&link.receiver.interests(), deadline).map_err(failed)?,
            Incoming::Head { head, body_len: 0 } => {
                let (head, reply) = Reply::decode(head)?;
                match reply {
                    Reply::Welcome(welcome) => return Ok((link, welcome)),
                    _ if head.status != Status::Ok => {
                        return Err(crate::error::status_error(head.status, "saying hello", None));
                    }
                    _ => return Err(StoreError::Malformed("an answer that is no welcome")),
                }
            }
            _ => return Err(StoreError::Malformed("an answer that is no welcome")),
        }
    }
}

fn wait(interests: &Interests<'_>, deadline: Instant) -> Result<(), LinkError> {
    let mut fds: Vec<_> =
        interests.iter().map(|interest| PollFd::from_borrowed_fd(interest.fd, flags(interest.writable))).collect();
    let started = Instant::now();
    let left = deadline.saturating_duration_since(started);
    match poll(&mut fds, Some(&timespec(left))) {
        Ok(0) => Err(LinkError::Deadline(left)),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(LinkError::Io { doing: "waiting for a descriptor", source: error.into() }),
    }
}

fn flags(writable: bool) -> PollFlags {
    if writable { PollFlags::OUT } else { PollFlags::IN }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration.min(LONGEST_SLEEP)).expect("an hour is few seconds")
}

struct Io {
    session: Arc<Session>,
    client: Weak<Client>,
    options: StoreOptions,
    welcome: Welcome,
    /// `None` while there is no link.
    receiver: Option<Box<dyn Receiver>>,
    /// The read whose body is being received.
    reading: Option<u64>,
    /// When the link broke, and when to try again.
    broken: Option<(Instant, Instant)>,
    renew_at: Instant,
    promote_at: Option<Instant>,
    unmap_at: Option<Instant>,
    /// Until then the thread looks by itself.
    awake_until: Instant,
    linger_at: Option<Instant>,
}

impl Io {
    fn new(client: &Arc<Client>, receiver: Box<dyn Receiver>, welcome: &Welcome) -> Self {
        let now = Instant::now();
        Self {
            session: client.session.clone(),
            client: Arc::downgrade(client),
            options: client.options.clone(),
            welcome: *welcome,
            receiver: Some(receiver),
            reading: None,
            broken: None,
            renew_at: now + renewal(welcome),
            promote_at: None,
            unmap_at: Some(now + UNMAP_AFTER),
            awake_until: now,
            linger_at: None,
        }
    }

    /// Until the session is over and everyone knows.
    fn run(mut self) {
        loop {
            // Upgraded for one turn only: the client ends when its users do.
            let Some(client) = self.client.upgrade() else { return };
            if client.has_ended() {
                return;
            }
            let progress = self.receive(&client);
            let now = Instant::now();
            if self.receiver.is_none() {
                self.reconnect(&client, now);
            }
            let flushed = self.keep_time(&client, now);
            drop(client);
            if !progress {
                self.sleep(flushed);
            }
        }
    }

    // Receiving.

    /// Takes what came. Whether there may be more.
    fn receive(&mut self, client: &Arc<Client>) -> bool {
        for _ in 0..BATCH {
            let Some(receiver) = &mut self.receiver else { return false };
            let received = match receiver.recv() {
                Ok(Incoming::Empty) => return false,
                Ok(Incoming::Head { head, body_len }) => match Reply::decode(head) {
                    Ok((head, reply)) => Some((head, Owned::of(&reply), body_len)),
                    Err(malformed) => {
                        self.link_lost(client, &StoreError::from(malformed));
                        return false;
                    }
                },
                Ok(Incoming::Body(target)) => {
                    self.body_came(target);
                    continue;
                }
                Err(error) => {
                    let error = self.session.unreachable(&error);
                    self.link_lost(client, &error);
                    return false;
                }
            };
            if let Some((head, reply, body_len)) = received {
                self.replied(client, head, reply, body_len);
            }
        }
        true
    }

    fn replied(&mut self, client: &Arc<Client>, head: ReplyHead, reply: Owned, body_len: u64) {
        self.session.lock().state().applied(head.applied);
        match reply {
            Owned::Freed { extents, slots } => client.arena.give_back(extents, &slots),
            Owned::Wanted => client.announce(),
            Owned::Failed => self.failed(head),
            Owned::Reclaim => {
                for segment in client.arena.reclaim() {
                    if let Some(segment) = client.segments.remove(segment) {
                        client.hand_back(&segment);
                    }
                    let _ = self.session.tell(&Request::Return { segment: Some(segment), slots: &[] });
                }
            }
            Owned::Goodbye => {
                let error = match head.status {
                    Status::Ok => StoreError::Closed,
                    status => crate::error::status_error(status, "going on with the session", None),
                };
                self.end(client, &error);
            }
            Owned::Data => self.data(head, body_len),
            reply => {
                self.place(Target::Discard, body_len);
                let Some(pending) = self.session.lock().state().answered(head.sequence) else { return };
                self.complete(client, head, reply, pending);
            }
        }
    }

    fn place(&mut self, target: Target, body_len: u64) {
        if body_len > 0
            && let Some(receiver) = &mut self.receiver
        {
            receiver.place(target);
        }
    }

    /// Bytes are about to come.
    fn data(&mut self, head: ReplyHead, body_len: u64) {
        let mut held = self.session.lock();
        let state = held.state();
        let destination = match state.pending.get_mut(&head.sequence).map(|pending| &mut pending.waiting) {
            Some(Waiting::Read { destination, .. }) => {
                destination.take_if(|destination| length(destination.parts()) == body_len)
            }
            _ => None,
        };
        drop(held);
        match destination {
            Some(destination) if body_len > 0 => {
                self.reading = Some(head.sequence);
                self.place(Target::Memory(destination), body_len);
            }
            other => {
                let whole = other.is_some();
                drop(other);
                self.place(Target::Discard, body_len);
                self.read_done(head.sequence, whole);
            }
        }
    }

    fn body_came(&mut self, target: Target) {
        // The destination goes before the reader is told, so that it has the buffer to itself.
        drop(target);
        if let Some(number) = self.reading.take() {
            self.read_done(number, true);
        }
    }

    fn read_done(&mut self, number: u64, whole: bool) {
        let Some(pending) = self.session.lock().state().answered(number) else { return };
        if let Waiting::Read { to, .. } = pending.waiting {
            let result = if whole { Ok(()) } else { Err(StoreError::Malformed("an answer of another length")) };
            let _ = to.send(result);
        }
    }

    /// An answer other than bytes came.
    fn complete(&mut self, client: &Arc<Client>, head: ReplyHead, reply: Owned, pending: Pending) {
        let failure = (head.status != Status::Ok).then(|| refusal(head.status, &pending));
        match pending.waiting {
            Waiting::Answer { to, undo } => {
                let answer = match failure {
                    Some(error) => Err(error),
                    None => self.answer(reply),
                };
                if let Err(Ok(_)) = to.send(answer) {
                    self.undo(undo);
                }
            }
            Waiting::Abandoned(undo) => {
                if failure.is_none() {
                    self.undo(undo);
                }
            }
            Waiting::Read { to, .. } => {
                let error = failure.unwrap_or(StoreError::Malformed("an answer to another request"));
                let _ = to.send(Err(error));
            }
            Waiting::Lease => match (failure, reply) {
                (None, Owned::Leased(segment, slots)) => self.leased(client, segment, &slots),
                (Some(error), _) => client.arena.lease_refused(error),
                _ => client.arena.lease_refused(StoreError::Malformed("an answer to another request")),
            },
            Waiting::Region(info, slots) => {
                let outcome = match (failure, reply) {
                    (None, Owned::Region(region)) => Segment::far(info.segment, info.pages, client.page_size, region),
                    (Some(error), _) => Err(error),
                    _ => Err(StoreError::Malformed("an answer to another request")),
                };
                self.segment_leased(client, info, &slots, outcome);
            }
            Waiting::Adopt(objects) => {
                let statuses = match (&failure, &reply) {
                    (None, Owned::Held(statuses)) => &statuses[..],
                    _ => &[],
                };
                for (index, object) in objects.iter().enumerate() {
                    object.adopted(statuses.get(index) == Some(&Status::Ok));
                }
            }
        }
    }

    fn answer(&mut self, reply: Owned) -> Result<Answer, StoreError> {
        Ok(match reply {
            Owned::Done => Answer::Done,
            Owned::Held(_) => Answer::Held,
            Owned::Resolved { size, extents } => Answer::Resolved { size, extents },
            Owned::Stats(stats) => Answer::Stats(stats),
            Owned::Region(region) => Answer::Region(region),
            Owned::Segment(info) => {
                let fd = self.receiver.as_mut().and_then(|receiver| receiver.take_fd(info.segment));
                Answer::Segment(info, fd.ok_or(StoreError::Malformed("a segment without its descriptor"))?)
            }
            _ => return Err(StoreError::Malformed("an answer to another request")),
        })
    }

    fn undo(&self, undo: Undo) {
        if let Undo::Release(id) = undo {
            self.session.release(id);
        }
    }

    fn leased(&mut self, client: &Client, info: Option<dmrpc_wire::SegmentInfo>, slots: &[dmrpc_wire::SlotLease]) {
        let Some(info) = info else { return client.arena.leased(None, slots) };
        if client.far.is_some() {
            // There is nothing to map, but where it is has to be asked for.
            let _ = self.session.tell(&Request::Mapped { segment: info.segment });
            let (request, waiting) =
                (Request::Region { segment: Some(info.segment), write: true }, Waiting::Region(info, slots.to_vec()));
            let mut session = self.session.lock_for_io();
            let asked = session.ask(
                "leasing memory",
                Some(Subject::Segment(info.segment)),
                &request,
                Body::new(),
                waiting,
                None,
            );
            drop(session);
            if let Err(error) = asked {
                client.arena.lease_refused(error);
            }
            return;
        }
        let fd = self.receiver.as_mut().and_then(|receiver| receiver.take_fd(info.segment));
        let mapped = fd
            .ok_or(StoreError::Malformed("a segment without its descriptor"))
            .and_then(|fd| Segment::map(info, fd, client.page_size, true, self.options.pool_at.as_deref()));
        if mapped.is_ok() {
            // Said before anything of it is published: the two are in one stream.
            let _ = self.session.tell(&Request::Mapped { segment: info.segment });
        }
        self.segment_leased(client, info, slots, mapped);
    }

    /// A segment of a lease can be used, or can't.
    fn segment_leased(
        &mut self,
        client: &Client,
        info: dmrpc_wire::SegmentInfo,
        slots: &[dmrpc_wire::SlotLease],
        segment: Result<Segment, StoreError>,
    ) {
        match segment {
            Ok(segment) => {
                let segment = Arc::new(segment);
                client.segments.insert(segment.clone());
                client.arena.leased(Some(segment), slots);
            }
            Err(error) => {
                let _ = self.session.tell(&Request::Return { segment: Some(info.segment), slots });
                client.arena.lease_refused(error);
            }
        }
    }

    fn failed(&self, head: ReplyHead) {
        let object = self.session.lock().state().failed_commit(head.sequence);
        tracing::warn!(status = ?head.status, sequence = head.sequence, "the memory node refused a request");
        if let Some(object) = object {
            object.publish_failed();
            // So that whoever waits for the object is told that it never comes.
            let id = object.id();
            let slot = dmrpc_wire::SlotLease::new(id.slot(), id.generation());
            let _ = self.session.tell(&Request::Return { segment: None, slots: &[slot] });
        }
    }

    // The link.

    fn link_lost(&mut self, client: &Arc<Client>, error: &StoreError) {
        self.receiver = None;
        self.reading = None;
        if self.session.is_bound {
            self.end(client, error);
        } else {
            self.session.lock().state().unlink();
            let now = Instant::now();
            self.broken = Some((now, now));
        }
    }

    fn end(&mut self, client: &Arc<Client>, error: &StoreError) {
        self.receiver = None;
        let left = self.session.lock().state().end(error);
        client.settle_ended(left, error);
    }

    /// Tries to take the session up over a new link.
    fn reconnect(&mut self, client: &Arc<Client>, now: Instant) {
        let Some((since, retry_at)) = self.broken else { return };
        if now < retry_at {
            return;
        }
        let lease = Duration::from_millis(self.welcome.lease_ms.into());
        let due = self.session.lock().state().next_due().unwrap_or(now + ATTEMPT);
        let attempt = (now + ATTEMPT).min(due).max(now + Duration::from_millis(1));
        let address: Address = self.options.url.parse().expect("it was parsed before");
        match greet(&self.options, &address, false, Some(&self.welcome), attempt) {
            Ok((link, welcome)) if welcome.session == self.welcome.session && welcome.node == self.welcome.node => {
                let Link { sender, receiver, .. } = link;
                self.receiver = Some(receiver);
                self.broken = None;
                let mut held = self.session.lock_for_io();
                held.state().relink(sender, 0);
                held.flush();
            }
            Ok(_) => self.end(client, &StoreError::LeaseExpired),
            Err(error @ (StoreError::LeaseExpired | StoreError::Denied | StoreError::Malformed(_))) => {
                self.end(client, &error);
            }
            Err(error) => {
                let now = Instant::now();
                if now - since >= lease {
                    self.end(client, &error);
                } else {
                    self.broken = Some((since, now + RETRY));
                }
            }
        }
    }

    // Time.

    /// Does what is due. Whether everything that was sent is on its way.
    fn keep_time(&mut self, client: &Arc<Client>, now: Instant) -> bool {
        if client.borrowed.swap(false, Ordering::Relaxed) && self.promote_at.is_none() {
            self.promote_at = Some(now + PROMOTE_AFTER);
        }
        if self.promote_at.is_some_and(|at| at <= now) {
            self.promote_at = client.promote().then(|| now + PROMOTE_AFTER);
        }
        if self.unmap_at.is_some_and(|at| at <= now) {
            client.segments.unmap_idle();
            region::release_idle();
            self.unmap_at = Some(now + UNMAP_AFTER);
        }
        self.linger_at = client.stop_lingering(now);
        if client.arena.has_waiters() {
            client.arena.changed.notify_waiters();
        }
        let mut held = self.session.lock_for_io();
        held.state().expire(now);
        if held.state().releases_due(now) {
            held.send_releases();
            self.awake_until = now + AWAKE;
        }
        let certain = held.state().uncertain() < UNCERTAIN;
        if !self.session.local && now >= self.renew_at || !certain {
            self.renew_at = now + renewal(&self.welcome);
            let _ = held.send(&Request::Renew, Body::new());
        }
        held.flush()
    }

    fn sleep(&mut self, flushed: bool) {
        let now = Instant::now();
        let mut until = now + LONGEST_SLEEP;
        let mut due = |at: Option<Instant>| until = until.min(at.unwrap_or(until));
        due((!self.session.local).then_some(self.renew_at));
        due(self.promote_at);
        due(self.linger_at);
        due(self.broken.map(|(_, retry_at)| retry_at));
        due(self.unmap_at.filter(|_| self.has_idle_memory()));
        due((now < self.awake_until).then(|| now + crate::session::RELEASE_DELAY));
        if self.client.upgrade().is_some_and(|client| client.arena.has_waiters()) {
            due(Some(now + MEMORY_TICK));
        }
        let mut writable: Vec<OwnedFd> = Vec::new();
        {
            let mut held = self.session.lock_for_io();
            if held.state().ended.is_some() {
                return;
            }
            due(held.state().next_due());
            until = held.state().sleep_until(until);
            if !flushed && let Some(sender) = held.state().sender() {
                // Copies: the half itself is used by others meanwhile.
                writable.extend(sender.interests().iter().filter_map(|interest| interest.fd.try_clone_to_owned().ok()));
            }
        }
        let interests = self.receiver.as_ref().map(|receiver| receiver.interests());
        let mut fds = vec![PollFd::from_borrowed_fd(self.session.bell(), PollFlags::IN)];
        for interest in interests.iter().flatten() {
            fds.push(PollFd::from_borrowed_fd(interest.fd, flags(interest.writable)));
        }
        let sender_flags = self.sender_flags();
        for (fd, flags) in writable.iter().zip(sender_flags) {
            fds.push(PollFd::from_borrowed_fd(fd.as_fd(), flags));
        }
        let timeout = until.saturating_duration_since(Instant::now());
        let rung = match poll(&mut fds, Some(&timespec(timeout))) {
            Ok(_) => fds[0].revents().contains(PollFlags::IN),
            Err(_) => false,
        };
        if rung {
            self.session.still();
        }
        // Awake: whoever queues something need not ring before the next sleep.
        self.session.lock_for_io().state().awake();
    }

    /// Whether there may be memory to be given back.
    fn has_idle_memory(&self) -> bool {
        region::has_kept() || self.client.upgrade().is_some_and(|client| client.segments.has_foreign())
    }

    /// How to wait for the sender's descriptors.
    fn sender_flags(&self) -> Vec<PollFlags> {
        let mut held = self.session.lock();
        let Some(sender) = held.state().sender() else { return Vec::new() };
        sender.interests().iter().map(|interest| flags(interest.writable)).collect()
    }
}

fn length(parts: &[dmrpc_fabric::link::Part]) -> u64 {
    parts.iter().map(|part| part.len as u64).sum()
}

/// A third of the lease: two renewals may be lost.
fn renewal(welcome: &Welcome) -> Duration {
    Duration::from_millis(u64::from(welcome.lease_ms) / 3)
}

/// A reply without a borrow of the head that it came in.
enum Owned {
    Done,
    Leased(Option<dmrpc_wire::SegmentInfo>, Vec<dmrpc_wire::SlotLease>),
    Held(Vec<Status>),
    Resolved { size: u64, extents: Vec<Extent> },
    Data,
    Stats(Box<dmrpc_wire::Stats>),
    Segment(dmrpc_wire::SegmentInfo),
    Region(dmrpc_wire::RegionInfo),
    Freed { extents: Vec<Extent>, slots: Vec<dmrpc_wire::SlotLease> },
    Failed,
    Reclaim,
    Goodbye,
    Wanted,
    Other,
}

impl Owned {
    fn of(reply: &Reply<'_>) -> Self {
        match *reply {
            Reply::Done => Owned::Done,
            Reply::Leased(leased) => Owned::Leased(leased.segment, leased.slots.to_vec()),
            Reply::Held(statuses) => {
                let status = |number: &zerocopy::little_endian::U16| Status::from_wire(number.get());
                Owned::Held(statuses.iter().map(|number| status(number).unwrap_or(Status::Malformed)).collect())
            }
            Reply::Resolved(resolved) => Owned::Resolved {
                size: resolved.size,
                extents: resolved.extents.iter().map(|extent| Extent::from(*extent)).collect(),
            },
            Reply::Data => Owned::Data,
            Reply::Stats(stats) => Owned::Stats(Box::new(*stats)),
            Reply::SegmentInfo(info) => Owned::Segment(info),
            Reply::Region(info) => Owned::Region(info),
            Reply::Notice(Notice::Freed { extents, slots }) => Owned::Freed {
                extents: extents.iter().map(|extent| Extent::from(*extent)).collect(),
                slots: slots.to_vec(),
            },
            Reply::Notice(Notice::Failed) => Owned::Failed,
            Reply::Notice(Notice::Reclaim { .. }) => Owned::Reclaim,
            Reply::Notice(Notice::Goodbye) => Owned::Goodbye,
            Reply::Notice(Notice::Wanted) => Owned::Wanted,
            _ => Owned::Other,
        }
    }
}
