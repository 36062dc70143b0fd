//! Who is served when.
//!
//! A turn: wait, note whose descriptors spoke, take the news of other threads, let each ready link have its budget, let the
//! core settle, flush what was sent. A link that used up its budget stands at the end of the queue again. The descriptors of
//! a receiving half are watched from the first to the last moment of a link, but for pauses; those of a sending half for one
//! wake-up whenever it says that it waits. Steady work makes no `epoll_ctl` calls.
//!
//! Links over a device that no kernel waits for ([`Listener::is_polled`]) are polled for as long as something comes over them and a
//! little longer; then the loop waits as for the others, on the driver's descriptor or a short timer of the link's.
//!
//! 1. A link is read from until it says that it is empty, used up its budget, waits for the core to place a body, or has too
//!    much to take itself. Whatever ends the last two puts it into the queue again.
//! 2. Each action of the core is carried out at once, in order, before the next event is told.
//! 3. A link's descriptors leave the epoll set before they are closed: peers have the same open files, so closing alone
//!    would not do.
#![forbid(unsafe_code)]

use super::board::Board;
use super::config::NodeConfig;
use super::connection::{Connection, Cut, Reading, SENDING_HALF, Stage};
use super::inbox::{Inbox, News};
use super::maker::Maker;
use super::registry::{self, Registration, Registry};
use super::segment::Segment;
use super::transfer::{Landing, Sending};
use crate::core::{Action, Actions, Core, Event, LinkId, Now, Region, Ticket};
use dmrpc_fabric::link::{Body, Incoming, Link, LinkError, Target};
use dmrpc_fabric::listen::Listener;
use dmrpc_fabric::rdma::MemoryRegion;
use dmrpc_pages::{Extent, PageSize};
use dmrpc_wire::{FEATURE_LOCAL, Notice, RegionInfo, Reply, Request, Status};
use rustix::event::epoll;
use rustix::time::Timespec;
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Messages that one link may have handled in a turn.
const TURN_MESSAGES: usize = 64;
/// Bytes of bodies that one link may have received, and as many sent, in a turn before others come first.
pub(super) const TURN_BYTES: u64 = 1 << 20;
/// How often the core is told that time goes by, in milliseconds.
const TICK_MS: Now = 50;
/// Links accepted in a turn, of each listener.
const TURN_ACCEPTS: usize = 64;
/// How long clients may take to read their goodbye when the node ends.
const GOODBYE: Duration = Duration::from_millis(500);
/// Descriptors that can speak in one wait; the others do in the next.
const EVENTS: usize = 256;
/// While it polls, the loop looks at all else every so many turns.
const POLLS: u32 = 64;

/// In the data of an epoll event: a listener or the bell, not a link.
const NOT_A_LINK: u64 = 1 << 63;
const BELL: u64 = NOT_A_LINK | u32::MAX as u64;
/// Of a link's number, the bits that are its place in the table.
const INDEX_BITS: u32 = 24;

/// The loop, and all that it serves.
pub(super) struct EventLoop {
    epoll: OwnedFd,
    listeners: Vec<Listener>,
    connections: Slab<Connection>,
    /// Links that are gone but for some of their transfers, and how many.
    ghosts: HashMap<LinkId, u32>,
    next_link: u64,
    core: Core,
    actions: Actions,
    segments: HashMap<u32, Arc<Segment>>,
    maker: Maker,
    /// `None` if nobody reads pages by itself.
    board: Option<Arc<Board>>,
    registry: Registry,
    inbox: Arc<Inbox>,
    /// Links to be read from, in the order of their turns.
    ready: VecDeque<LinkId>,
    /// Links to be flushed.
    dirty: Vec<LinkId>,
    /// What the core is to be told as soon as the actions at hand are done.
    told: VecDeque<Told>,
    /// Listeners whose links are polled, by their places.
    polled: Vec<usize>,
    /// Links of theirs for which there is something.
    polled_ready: Vec<u64>,
    /// When something came over one of them last.
    heard: Instant,
    /// Turns since the loop last looked at all else.
    polls: u32,
    started: Instant,
    now: Now,
    next_tick: Now,
    /// Whether some listener does not wake the loop, for want of descriptors.
    is_short: bool,
    page_size: PageSize,
    terms: Terms,
}

/// What the loop holds clients to.
struct Terms {
    spin: Duration,
    handshake_ms: Now,
    stall_ms: Now,
    max_links: usize,
}

/// Something for the core that came up while its actions were carried out.
enum Told {
    Made { segment: u32, file_offset: u64 },
    Disconnected(LinkId),
    Registered { ticket: Ticket, region: Option<RegionInfo> },
}

impl EventLoop {
    pub(super) fn new(
        config: &NodeConfig,
        listeners: Vec<Listener>,
        core: Core,
        maker: Maker,
        inbox: Arc<Inbox>,
    ) -> io::Result<Self> {
        let board = core.config().has_board.then(|| Arc::new(Board::new()));
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (listener, index) in listeners.iter().zip(0u64..) {
            // Level-triggered: whoever was not accepted in this turn is in the next.
            epoll::add(&epoll, listener.as_fd(), epoll::EventData::new_u64(NOT_A_LINK | index), epoll::EventFlags::IN)?;
        }
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, inbox.bell(), epoll::EventData::new_u64(BELL), flags)?;
        let polled = (0..listeners.len()).filter(|&index| listeners[index].is_polled()).collect();
        Ok(Self {
            epoll,
            listeners,
            polled,
            polled_ready: Vec::new(),
            heard: Instant::now(),
            polls: 0,
            connections: Slab::new(),
            ghosts: HashMap::new(),
            next_link: 0,
            core,
            actions: Actions::default(),
            segments: HashMap::new(),
            maker,
            board,
            registry: Registry::default(),
            inbox,
            ready: VecDeque::new(),
            dirty: Vec::new(),
            told: VecDeque::new(),
            started: Instant::now(),
            now: 0,
            next_tick: TICK_MS,
            is_short: false,
            page_size: config.page_size,
            terms: Terms {
                spin: config.spin,
                handshake_ms: config.handshake.as_millis() as Now,
                stall_ms: config.stall.as_millis() as Now,
                max_links: config.max_links.min(1 << INDEX_BITS),
            },
        })
    }

    /// Serves until somebody says that it is enough.
    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        let mut news = Vec::new();
        loop {
            self.wait(&mut events);
            for event in events.drain(..) {
                self.note(event.data.u64());
            }
            self.inbox.take(&mut news);
            for item in news.drain(..) {
                match item {
                    News::Shutdown => return self.say_goodbye(),
                    item => self.hear(item),
                }
            }
            for _ in 0..self.ready.len() {
                let link = self.ready.pop_front().expect("as many as were counted");
                self.serve(link);
            }
            if self.now >= self.next_tick {
                self.next_tick = self.now + TICK_MS;
                self.tick();
            }
            self.settle();
            self.flush();
        }
    }

    /// Waits until a descriptor speaks, or it is time for a tick; not at all if there is something to do already.
    fn wait(&mut self, events: &mut Vec<epoll::Event>) {
        let polls = !self.polled.is_empty() && self.poll();
        let busy = !self.ready.is_empty() || !self.dirty.is_empty() || !self.core.is_settled();
        if polls {
            self.polls += 1;
            if !self.polls.is_multiple_of(POLLS) {
                return;
            }
        }
        let idle = !busy && !polls && self.inbox.fall_asleep() && self.stop_polling();
        let sleep_ms = if idle { self.next_tick.saturating_sub(self.clock()) } else { 0 };
        let timeout = Timespec { tv_sec: 0, tv_nsec: (sleep_ms * 1_000_000) as _ };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("waiting on an epoll set of our own: {error}"),
        }
        self.inbox.wake_up();
        self.core.note_wakeup();
        self.now = self.clock();
    }

    /// Looks at the devices that no kernel waits for. Whether to look again at once: as long as something comes.
    fn poll(&mut self) -> bool {
        let mut came = false;
        let mut ready = std::mem::take(&mut self.polled_ready);
        for at in 0..self.polled.len() {
            let index = self.polled[at];
            match self.listeners[index].poll(&mut ready) {
                Ok(true) => {
                    came = true;
                    self.accept(index);
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(address = %self.listeners[index].address(), "the device is of no more use: {error}");
                    self.polled.clear();
                    break;
                }
            }
        }
        came |= !ready.is_empty();
        for tag in ready.drain(..) {
            self.note(tag);
        }
        self.polled_ready = ready;
        let now = Instant::now();
        if came {
            self.heard = now;
        }
        self.now = (now - self.started).as_millis() as Now;
        now - self.heard < self.terms.spin
    }

    /// Leaves the devices to their descriptors. `false` if there is something to do first.
    fn stop_polling(&mut self) -> bool {
        // One that fails has told those who use it.
        self.polled.iter().all(|&index| self.listeners[index].sleep().unwrap_or(true))
    }

    fn clock(&self) -> Now {
        self.started.elapsed().as_millis() as Now
    }

    /// A descriptor spoke.
    fn note(&mut self, data: u64) {
        if data == BELL {
            return;
        }
        if data & NOT_A_LINK != 0 {
            return self.accept((data & !NOT_A_LINK) as usize);
        }
        let link = LinkId(data & !SENDING_HALF);
        if data & SENDING_HALF == 0 {
            self.enqueue(link);
        } else if let Some(connection) = find(&mut self.connections, link) {
            connection.moved_on(self.now);
            self.soil(link);
        }
    }

    /// Puts a link into the queue of those that are read from.
    fn enqueue(&mut self, link: LinkId) {
        if let Some(connection) = find(&mut self.connections, link)
            && !std::mem::replace(&mut connection.is_ready, true)
        {
            self.ready.push_back(link);
        }
    }

    /// Reads from a link again after a pause.
    fn resume(&mut self, link: LinkId) {
        let Some(connection) = find(&mut self.connections, link) else { return };
        match connection.watch(&self.epoll) {
            Ok(()) => self.enqueue(link),
            Err(error) => {
                tracing::warn!(link = link.0, "can't watch a link: {error}");
                self.remove(link);
            }
        }
    }

    /// Puts a link among those that are flushed at the end of the turn.
    fn soil(&mut self, link: LinkId) {
        if let Some(connection) = find(&mut self.connections, link)
            && !std::mem::replace(&mut connection.is_dirty, true)
        {
            self.dirty.push(link);
        }
    }

    fn accept(&mut self, index: usize) {
        for _ in 0..TURN_ACCEPTS {
            match self.listeners[index].try_accept() {
                Ok(Some(link)) => self.admit(link, self.listeners[index].is_polled()),
                Ok(None) => return,
                Err(error) if is_shortage(&error) => {
                    tracing::error!(address = %self.listeners[index].address(), "nobody can be let in: {error}");
                    // Whoever waits there would wake the loop all the time. The next tick tries again.
                    self.listen(index, false);
                    self.is_short = true;
                    return;
                }
                // A peer that failed to set its link up: the next one may not.
                Err(error) => tracing::debug!(address = %self.listeners[index].address(), "accepting: {error}"),
            }
        }
    }

    /// Has a listener wake the loop, or not.
    fn listen(&mut self, index: usize, wanted: bool) {
        let flags = if wanted { epoll::EventFlags::IN } else { epoll::EventFlags::empty() };
        let data = epoll::EventData::new_u64(NOT_A_LINK | index as u64);
        if let Err(error) = epoll::modify(&self.epoll, self.listeners[index].as_fd(), data, flags) {
            panic!("changing an epoll set of our own: {error}");
        }
    }

    fn admit(&mut self, link: Link, polled: bool) {
        if self.connections.len() >= self.terms.max_links {
            tracing::warn!(peer = ?link.peer, "turned away: there are {} links, which is the limit", self.terms.max_links);
            return turn_away(link, Status::TooManySessions);
        }
        let entry = self.connections.vacant_entry();
        let id = LinkId((self.next_link << INDEX_BITS | entry.key() as u64) & !(NOT_A_LINK | SENDING_HALF));
        self.next_link += 1;
        let mut connection = Connection::new(id, link, polled, self.now + self.terms.handshake_ms);
        let watched = connection.watch(&self.epoll);
        tracing::debug!(link = id.0, peer = ?connection.peer(), "a link");
        entry.insert(connection);
        match watched {
            Ok(()) => self.enqueue(id),
            Err(error) => {
                tracing::warn!(link = id.0, "can't watch a link: {error}");
                self.remove(id);
            }
        }
    }

    /// Takes news of another thread, or of a transfer.
    fn hear(&mut self, news: News) {
        match news {
            News::Made { segment, outcome: Ok(made) } => {
                let file_offset = made.file_offset();
                self.segments.insert(segment, Arc::new(made));
                self.step(Event::SegmentMade { segment, file_offset });
            }
            News::Made { segment, outcome: Err(error) } => {
                tracing::warn!(segment, "a segment can't be made: {error}");
                self.step(Event::SegmentFailed { segment });
            }
            News::Sent { link, ticket } => self.finish(link, Event::Sent { ticket }),
            News::Registered { registration, outcome } => self.registered(&registration, outcome),
            News::Deregistered { link } => self.finish_one(link),
            News::Aborted { link, ticket } => self.finish(link, Event::Received { ticket, whole: false }),
            News::Stats(asker) => {
                // Whoever asked may have stopped waiting.
                let _ = asker.try_send(self.core.stats());
            }
            News::Shutdown => unreachable!("the caller handles it"),
        }
    }

    /// A transfer has ended.
    fn finish(&mut self, link: LinkId, end: Event<'_>) {
        self.step(end);
        self.finish_one(link);
    }

    /// One thing less is to be waited for before a link is gone.
    fn finish_one(&mut self, link: LinkId) {
        if let Some(connection) = find(&mut self.connections, link) {
            connection.transfers -= 1;
        } else if let Some(left) = self.ghosts.get_mut(&link) {
            *left -= 1;
            if *left == 0 {
                self.ghosts.remove(&link);
                self.step(Event::Disconnected { link });
            }
        }
    }

    /// Tells the core something, and does what it says; then what came up meanwhile.
    fn step(&mut self, event: Event<'_>) {
        self.core.step(self.now, event, &mut self.actions);
        self.carry_out();
    }

    /// Lets the core send what it gathered.
    fn settle(&mut self) {
        self.core.settle(self.now, &mut self.actions);
        self.carry_out();
    }

    /// Does what the core said.
    fn carry_out(&mut self) {
        loop {
            let mut actions = std::mem::take(&mut self.actions);
            for action in &actions.list {
                self.act(action, &actions);
            }
            actions.clear();
            self.actions = actions;
            let event = match self.told.pop_front() {
                Some(Told::Made { segment, file_offset }) => Event::SegmentMade { segment, file_offset },
                Some(Told::Disconnected(link)) => Event::Disconnected { link },
                Some(Told::Registered { ticket, region }) => Event::Registered { ticket, region },
                None => return,
            };
            self.core.step(self.now, event, &mut self.actions);
        }
    }

    fn act(&mut self, action: &Action, actions: &Actions) {
        match *action {
            Action::Send { link, ref head } => self.send(link, &actions.heads[head.clone()], Body::new()),
            Action::SendPages { link, ref head, ticket, ref extents, skip, length } => {
                let body = self.body(link, ticket, &actions.extents[extents.clone()], skip, length);
                self.send(link, &actions.heads[head.clone()], body);
            }
            Action::Receive { link, ticket, ref regions } => {
                self.receive(link, ticket, &actions.regions[regions.clone()]);
            }
            Action::Discard { link } => self.place(link, Target::Discard),
            Action::CopyPage { from, to } => self.copy_page(from, to),
            Action::ZeroBytes { region: Region { segment, offset, length } } => {
                self.segment(segment).copy_from(offset, None, length);
            }
            Action::MakeSegment { segment, pages, access } => {
                if let Some(made) = self.maker.ask(segment, self.bytes(pages), access) {
                    self.told.push_back(Told::Made { segment, file_offset: made.file_offset() });
                    self.segments.insert(segment, Arc::new(made));
                }
            }
            Action::PassSegment { link, segment } => {
                let segment_fd = Arc::clone(self.segment(segment));
                if let Some(connection) = find(&mut self.connections, link)
                    && let Err(error) = connection.pass_fd(segment, segment_fd.fd())
                {
                    self.cut_off(link, &error.into());
                }
                self.soil(link);
            }
            Action::SealSegment { segment } => {
                if let Err(error) = self.segment(segment).seal_against_new_writers() {
                    // An honest client does not notice, and one that isn't could spoil objects of its own only.
                    tracing::error!(segment, "a segment can't be sealed: {error}");
                }
            }
            Action::DropSegment { segment } => {
                let dropped = self.segments.remove(&segment).expect("the core drops a segment once");
                self.maker.give_back(dropped, self.registry.take_segment(segment));
            }
            Action::Register { link, ticket, segment, write } => self.register(link, ticket, segment, write),
            Action::Post { slot, generation } => {
                if let Some(board) = &self.board {
                    board.post(slot, generation);
                }
            }
            Action::Close { link } => self.close(link),
        }
    }

    /// Has memory registered for a client, unless it is already.
    fn register(&mut self, link: LinkId, ticket: Ticket, segment: Option<u32>, write: bool) {
        let connection = find(&mut self.connections, link);
        let reach = connection.and_then(|connection| {
            let one_sided = connection.one_sided()?;
            Some((connection, one_sided.domain()?, one_sided.registrar()))
        });
        let Some((connection, domain, registrar)) = reach else {
            return self.told.push_back(Told::Registered { ticket, region: None });
        };
        if !write && let Some(region) = self.registry.find(segment, domain) {
            return self.told.push_back(Told::Registered { ticket, region: Some(region) });
        }
        let (whom, how) = ((link, ticket), (domain, registrar));
        let registration = match (segment, &self.board) {
            (Some(number), _) => {
                let memory =
                    self.segments.get(&number).expect("the core names segments that were made and not dropped");
                Registration::of_segment(whom, (number, memory), write, how)
            }
            (None, Some(board)) => Registration::of_board(whom, board, how),
            (None, None) => unreachable!("the core knows whether there is a board"),
        };
        connection.transfers += 1;
        self.maker.register(registration);
    }

    /// Memory was registered, or could not be.
    fn registered(&mut self, registration: &Registration, outcome: Result<MemoryRegion, LinkError>) {
        let link = registration.link;
        let region = match outcome {
            Ok(region) => {
                let is_there = registration.segment.is_none_or(|segment| self.segments.contains_key(&segment));
                let is_wanted = !registration.write || find(&mut self.connections, link).is_some();
                (is_there && is_wanted).then(|| {
                    let info = registry::info(&region);
                    self.registry.keep(registration, region);
                    info
                })
            }
            Err(error) => {
                tracing::error!(link = link.0, segment = registration.segment, "memory can't be registered: {error}");
                None
            }
        };
        self.finish(link, Event::Registered { ticket: registration.ticket, region });
    }

    fn segment(&self, segment: u32) -> &Arc<Segment> {
        self.segments.get(&segment).expect("the core names segments that were made and not dropped")
    }

    fn bytes(&self, pages: u32) -> u64 {
        u64::from(pages) << self.page_size.shift()
    }

    /// The bytes of pages, as a body that says when it is no longer looked at.
    fn body(&mut self, link: LinkId, ticket: Ticket, extents: &[Extent], skip: u32, length: u64) -> Body {
        if let Some(connection) = find(&mut self.connections, link) {
            connection.transfers += 1;
        }
        let sending = Sending::new(link, ticket, &self.inbox);
        let mut body = Body::new();
        let (mut skip, mut length) = (u64::from(skip), length);
        for extent in extents {
            let piece = (self.bytes(extent.count) - skip).min(length);
            if extent.is_hole() {
                Sending::push_zeros(&mut body, piece);
            } else {
                let offset = self.bytes(extent.first) + skip;
                sending.push(&mut body, self.segment(extent.segment.0), offset, piece);
            }
            length -= piece;
            skip = 0;
        }
        assert_eq!(length, 0, "the core gives as many pages as it says bytes");
        // Holes alone have no owner: then the read ends when the last of it is dropped here, before it is sent, which is fine.
        body
    }

    fn receive(&mut self, link: LinkId, ticket: Ticket, regions: &[Region]) {
        let mut landing = Landing::new(link, ticket, &self.inbox);
        for region in regions {
            landing.push(self.segment(region.segment), region.offset, region.length);
        }
        let Some(connection) = find(&mut self.connections, link) else { return };
        connection.transfers += 1;
        match connection.reading {
            Reading::Unplaced { body_len } => {
                assert_eq!(landing.bytes(), body_len, "the core places all of a body");
                self.place(link, Target::Memory(Box::new(landing)));
            }
            // The link is being closed, and skips what comes. The landing is dropped, which is told.
            Reading::Next => {}
        }
    }

    fn place(&mut self, link: LinkId, target: Target) {
        if let Some(connection) = find(&mut self.connections, link)
            && matches!(connection.reading, Reading::Unplaced { .. })
        {
            connection.place(target);
            self.resume(link);
        }
    }

    fn copy_page(&self, from: Extent, to: Extent) {
        let source = (!from.is_hole()).then(|| (&**self.segment(from.segment.0), self.bytes(from.first)));
        self.segment(to.segment.0).copy_from(self.bytes(to.first), source, self.page_size.bytes());
    }

    fn send(&mut self, link: LinkId, head: &[u8], body: Body) {
        let Some(connection) = find(&mut self.connections, link) else { return };
        match connection.send(self.now, head, body) {
            Ok(()) => self.soil(link),
            Err(cut) => self.cut_off(link, &cut),
        }
    }

    /// Closes a link once what waits is out.
    fn close(&mut self, link: LinkId) {
        if let Some(connection) = find(&mut self.connections, link) {
            connection.close(self.now);
            // To hang up, and to drop what comes.
            self.soil(link);
            self.resume(link);
        }
    }

    /// Sends nothing more on a link on which that failed.
    fn cut_off(&mut self, link: LinkId, cut: &Cut) {
        let Some(connection) = find(&mut self.connections, link) else { return };
        match cut {
            Cut::Link(LinkError::Closed) => {}
            cut => tracing::warn!(link = link.0, peer = ?connection.peer(), "a client is cut off: {cut}"),
        }
        match cut {
            // The client is gone or going, but what it sent before counts: others may wait for an object that it made.
            Cut::Link(_) => {}
            // It may have views, so it stays a session until its end of the link says that it has gone.
            _ if connection.may_have_views() => connection.close(self.now),
            _ => return self.remove(link),
        }
        connection.hang_up(&self.epoll);
        self.resume(link);
    }

    /// Nothing more comes on a link.
    fn lost(&mut self, link: LinkId, error: &LinkError) {
        match error {
            LinkError::Closed => tracing::debug!(link = link.0, "a client has gone"),
            error => tracing::warn!(link = link.0, "a client is cut off: {error}"),
        }
        self.remove(link);
    }

    /// Forgets a link. The core hears of it when its last transfer has ended.
    fn remove(&mut self, link: LinkId) {
        let index = index_of(link);
        if find(&mut self.connections, link).is_none() {
            return;
        }
        let mut connection = self.connections.remove(index);
        connection.unwatch(&self.epoll);
        connection.hang_up(&self.epoll);
        if let Some(one_sided) = connection.one_sided() {
            // Nothing that it still asks of the device is done any more.
            one_sided.fence();
        }
        let regions = self.registry.take_link(link);
        if !regions.is_empty() {
            connection.transfers += 1;
            self.maker.deregister(link, regions);
        }
        let transfers = connection.transfers;
        // What it had in flight ends here, and says so in the inbox.
        drop(connection);
        if transfers > 0 {
            self.ghosts.insert(link, transfers);
        } else {
            self.told.push_back(Told::Disconnected(link));
        }
    }

    /// Gives a link its turn.
    fn serve(&mut self, link: LinkId) {
        let mut body_bytes = 0;
        let mut more = true;
        // It stays marked as ready meanwhile, so that nobody puts it into the queue.
        for _ in 0..TURN_MESSAGES {
            more = self.serve_one(link, &mut body_bytes);
            if !more || body_bytes >= TURN_BYTES {
                break;
            }
        }
        if let Some(connection) = find(&mut self.connections, link) {
            connection.is_ready = more;
            if more {
                self.ready.push_back(link);
            }
        }
        self.hear_told();
    }

    /// Tells the core what came up outside of its own actions.
    fn hear_told(&mut self) {
        if !self.told.is_empty() {
            self.carry_out();
        }
    }

    /// Handles the next thing that came. Whether there may be more.
    fn serve_one(&mut self, link: LinkId, body_bytes: &mut u64) -> bool {
        let Some(connection) = find(&mut self.connections, link) else { return false };
        if !connection.may_receive() {
            connection.unwatch(&self.epoll);
            return false;
        }
        let (stage, local) = (connection.stage, connection.is_local());
        let reaches = connection.domain();
        match connection.recv() {
            Ok(Incoming::Empty) => false,
            Ok(Incoming::Body(target)) => {
                if let Target::Memory(destination) = target {
                    let landing = destination.into_any().downcast::<Landing>().expect("all destinations are landings");
                    *body_bytes += landing.bytes();
                    let ticket = landing.whole();
                    self.finish(link, Event::Received { ticket, whole: true });
                }
                true
            }
            Ok(Incoming::Head { body_len, .. }) if matches!(stage, Stage::Closing { .. }) => {
                *body_bytes += body_len;
                if body_len > 0 {
                    connection.place(Target::Discard);
                }
                true
            }
            Ok(Incoming::Head { head, body_len }) => {
                let mut maps = false;
                let event = match Request::decode(head) {
                    Ok((head, Request::Hello(hello))) if body_len == 0 => {
                        maps = local && hello.features & FEATURE_LOCAL != 0;
                        Event::Hello { link, hello, sequence: head.sequence, local, reaches, entropy: entropy() }
                    }
                    Ok((_, Request::Hello(_))) => Event::Malformed { link, body_len },
                    Ok((head, request)) => Event::Request { link, head, request, body_len },
                    Err(malformed) => {
                        tracing::warn!(link = link.0, "{malformed}");
                        Event::Malformed { link, body_len }
                    }
                };
                self.core.step(self.now, event, &mut self.actions);
                if body_len > 0 {
                    let connection = find(&mut self.connections, link).expect("nothing was done yet");
                    connection.reading = Reading::Unplaced { body_len };
                }
                self.carry_out();
                if let Some(connection) = find(&mut self.connections, link)
                    && matches!(connection.stage, Stage::Greeting { .. })
                {
                    // It said hello and was not closed for it.
                    connection.stage = Stage::Open { maps };
                }
                true
            }
            Err(error) => {
                self.lost(link, &error);
                false
            }
        }
    }

    /// Moves on what was sent in this turn.
    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for link in dirty.drain(..) {
            let Some(connection) = find(&mut self.connections, link) else { continue };
            connection.is_dirty = false;
            match connection.flush(self.now) {
                Ok(done) => {
                    if done && matches!(connection.stage, Stage::Closing { .. }) {
                        connection.hang_up(&self.epoll);
                    }
                    let is_paused = connection.is_paused();
                    if !done && connection.is_turn_over() {
                        self.soil(link);
                    } else if !done && let Err(error) = connection.watch_for_room(&self.epoll) {
                        tracing::warn!(link = link.0, "can't watch a link: {error}");
                        self.remove(link);
                    }
                    if is_paused {
                        self.resume(link);
                    }
                }
                Err(error) => self.cut_off(link, &error.into()),
            }
        }
        // What was cut short in the meantime comes first in the next turn.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        self.hear_told();
    }

    /// Time went by.
    fn tick(&mut self) {
        let (now, stall_ms) = (self.now, self.terms.stall_ms);
        let mut late = Vec::new();
        for (_, connection) in &self.connections {
            match connection.stage {
                Stage::Greeting { until } if now >= until => late.push((connection.id, Late::Hello)),
                Stage::Closing { until: Some(until), .. } if now >= until => late.push((connection.id, Late::Goodbye)),
                _ if connection.is_stalled(now, stall_ms) => late.push((connection.id, Late::Taking)),
                _ => {}
            }
        }
        for (link, late) in late {
            match late {
                Late::Hello => {
                    tracing::warn!(link = link.0, "a client has not said hello in time");
                    self.remove(link);
                }
                Late::Goodbye => self.remove(link),
                Late::Taking => self.cut_off(link, &Cut::Stalled),
            }
        }
        self.hear_told();
        let was_short = std::mem::take(&mut self.is_short);
        for index in 0..self.listeners.len() {
            if was_short {
                self.listen(index, true);
            }
            // Listeners give up those who take too long to set a link up, when they are looked at.
            self.accept(index);
        }
        self.maker.refill();
        self.step(Event::Tick);
    }

    /// Tells all clients that the node ends, and gives them a moment to hear it.
    fn say_goodbye(mut self) {
        let mut head = Vec::new();
        Reply::Notice(Notice::Goodbye).encode(Status::ShuttingDown, 0, 0, &mut head);
        self.listeners.clear();
        for (_, connection) in &mut self.connections {
            // A client that is gone, or does not take, misses nothing.
            let _ = connection.send(self.now, &head, Body::new());
        }
        let until = Instant::now() + GOODBYE;
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            let now = self.now;
            self.connections.retain(|_, connection| match connection.flush(now) {
                Ok(true) | Err(_) => false,
                Ok(false) => true,
            });
            let left = until.saturating_duration_since(Instant::now());
            if self.connections.is_empty() || left.is_zero() {
                return;
            }
            for (_, connection) in &mut self.connections {
                // One that can't be watched is looked at when another speaks, or not at all.
                let _ = connection.watch_for_room(&self.epoll);
                connection.unwatch(&self.epoll);
            }
            let timeout = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
            let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout));
            events.clear();
        }
    }
}

/// What a client is late with.
enum Late {
    Hello,
    Taking,
    Goodbye,
}

fn index_of(link: LinkId) -> usize {
    (link.0 & ((1 << INDEX_BITS) - 1)) as usize
}

/// The link of this number, if it is still there.
fn find(connections: &mut Slab<Connection>, link: LinkId) -> Option<&mut Connection> {
    connections.get_mut(index_of(link)).filter(|connection| connection.id == link)
}

/// Whether this process or the host has no more of something, which is no fault of who wants to come in.
fn is_shortage(error: &LinkError) -> bool {
    use rustix::io::Errno;
    let LinkError::Io { source, .. } = error else { return false };
    let errno = source.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Says why a link is not taken, as far as it goes without waiting.
fn turn_away(mut link: Link, status: Status) {
    let mut head = Vec::new();
    Reply::Notice(Notice::Goodbye).encode(status, 0, 0, &mut head);
    // It is a courtesy.
    let _ = link.sender.try_send(&head, Body::new());
    let _ = link.sender.flush();
}

/// Bytes that nobody can guess.
pub(super) fn entropy() -> [u8; 24] {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).expect("the kernel has random numbers once it runs programs");
    bytes
}
