//! One connection to a memory node, as all parts of it see it.

use crate::arena::{Allocation, Arena, Shortage};
use crate::buffer::{Arrivals, Buffer};
use crate::cache::Cache;
use crate::far::Far;
use crate::layout::Layout;
use crate::object::Object;
use crate::segment::{Segment, Segments};
use crate::session::{Answer, Session, Undo, Waiting};
use crate::unannounced::Unannounced;
use crate::{AnyRef, StoreError, StoreOptions, Subject, fork, loan};
use dashmap::DashMap;
use dmrpc_fabric::cache_lines;
use dmrpc_fabric::link::Body;
use dmrpc_memnode::Node;
use dmrpc_pages::{Extent, PageSize};
use dmrpc_wire::{Coherence, NodeId, ObjectId, Request, Welcome};
use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The most requests of one session over a network that are in flight. The node keeps the answers of no more than 4,096.
const MAX_IN_FLIGHT: usize = 1024;
/// A read over a network is split into pieces of this many bytes, so that none keeps others waiting for long.
const READ_BYTES: u64 = 1 << 20;
/// The most objects that one request asks holds for.
const MAX_HOLDS: usize = 1024;
/// How long a link's borrowed references may stay loans before they become holds of this session's own; at most twice that.
pub(crate) const PROMOTE_AFTER: Duration = Duration::from_secs(1);

/// Cache lines that were written back or dropped, for a pool that no hardware keeps coherent; else none are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheLines {
    /// Written back before an object was published.
    pub written_back: u64,
    /// Dropped before the first look at an object.
    pub dropped: u64,
    /// Written back before a segment went back to the node.
    pub handed_back: u64,
}

#[derive(Default)]
struct LineCounts {
    written_back: AtomicU64,
    dropped: AtomicU64,
    handed_back: AtomicU64,
}

pub(crate) struct Client {
    pub(crate) session: Arc<Session>,
    pub(crate) options: StoreOptions,
    pub(crate) node: NodeId,
    pub(crate) page_size: PageSize,
    /// Whether views are the very pages of the node.
    pub(crate) local: bool,
    /// How the node's memory is reached over RDMA.
    pub(crate) far: Option<Far>,
    pub(crate) max_object_bytes: u64,
    pub(crate) arena: Arena,
    pub(crate) segments: Segments,
    /// What is to be done for others to see what is written.
    coherence: Coherence,
    lines: LineCounts,
    /// Objects that this session has a hold on, and those that it made and lent.
    /// A name has random bytes that its maker drew, so that any mixing of them does.
    pub(crate) known: DashMap<ObjectId, Weak<Object>, FxBuildHasher>,
    /// What of those the node does not know of. Its lock is taken before those of claims.
    pub(crate) unannounced: Mutex<Unannounced>,
    pub(crate) cache: Cache,
    /// What was lent over links that are gone, and until when it is kept.
    lingering: Mutex<Vec<(Instant, Vec<AnyRef>)>>,
    /// Whether something was borrowed since the I/O thread last looked.
    pub(crate) borrowed: AtomicBool,
    /// Nothing new is begun any more: the session ends with the last reference.
    closing: AtomicBool,
    in_flight: Semaphore,
    thread: Mutex<Option<JoinHandle<()>>>,
    embedded: Mutex<Option<Node>>,
}

impl Client {
    pub(crate) fn new(
        session: Arc<Session>,
        options: StoreOptions,
        welcome: &Welcome,
        far: Option<Far>,
    ) -> Result<Self, StoreError> {
        let page_size = PageSize::new(welcome.page_bytes.into())
            .map_err(|_| StoreError::Malformed("the node's page size is not one"))?;
        if session.local && welcome.coherence == Coherence::Flush && !cache_lines::is_supported() {
            let why = "this processor has no instructions for programs to write cache lines back".to_owned();
            return Err(StoreError::Io { doing: "mapping a pool that no hardware keeps coherent", why });
        }
        Ok(Self {
            local: session.local,
            far,
            node: welcome.node,
            page_size,
            max_object_bytes: welcome.max_object_bytes.min(usize::MAX as u64 / 2),
            arena: Arena::new(welcome.node, session.is_bound, page_size.shift(), welcome.quota_pages),
            segments: Segments::default(),
            coherence: welcome.coherence,
            lines: LineCounts::default(),
            known: DashMap::with_hasher(FxBuildHasher),
            unannounced: Mutex::default(),
            cache: Cache::new(options.cache_bytes),
            lingering: Mutex::default(),
            borrowed: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            thread: Mutex::new(None),
            embedded: Mutex::new(None),
            session,
            options,
        })
    }

    pub(crate) fn set_thread(&self, thread: JoinHandle<()>) {
        *self.thread.lock() = Some(thread);
    }

    /// The node is this store's own: it ends with it.
    pub(crate) fn set_embedded(&self, node: Node) {
        *self.embedded.lock() = Some(node);
    }

    pub(crate) fn embedded_urls(&self) -> Vec<String> {
        let node = self.embedded.lock();
        node.iter().flat_map(Node::addresses).map(ToString::to_string).collect()
    }

    // Cache lines.

    /// Those pages of an object are about to be published: what was written to them is in memory from now on.
    pub(crate) fn write_back(&self, layout: &Layout, pages: Range<u32>, size: u64) {
        if self.coherence == Coherence::Flush {
            // Relaxed: figures.
            self.lines.written_back.fetch_add(layout.write_back(pages, size) as u64, Ordering::Relaxed);
        }
    }

    /// This process was told of an object, and has not looked at it: it will see what is in memory.
    pub(crate) fn drop_lines(&self, layout: &Layout, size: u64) {
        if self.coherence == Coherence::Flush {
            self.lines.dropped.fetch_add(layout.drop_lines(size) as u64, Ordering::Relaxed);
        }
    }

    /// A segment of this session is about to be somebody else's: nothing that was written there comes later.
    pub(crate) fn hand_back(&self, segment: &Segment) {
        if self.coherence == Coherence::Flush {
            self.lines.handed_back.fetch_add(segment.write_back() as u64, Ordering::Relaxed);
        }
    }

    pub(crate) fn cache_lines(&self) -> CacheLines {
        CacheLines {
            written_back: self.lines.written_back.load(Ordering::Relaxed),
            dropped: self.lines.dropped.load(Ordering::Relaxed),
            handed_back: self.lines.handed_back.load(Ordering::Relaxed),
        }
    }

    /// Asks the node, and waits for the answer.
    pub(crate) async fn ask(
        &self,
        doing: &'static str,
        about: Option<Subject>,
        request: &Request<'_>,
        body: Body,
        undo: Undo,
    ) -> Result<Answer, StoreError> {
        self.check_open()?;
        let _permit = self.in_flight.acquire().await.map_err(|_| StoreError::Closed)?;
        let answer = self.session.ask(doing, about, request, body, undo, self.options.deadline)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Whether something new may be begun.
    ///
    /// # Errors
    ///
    /// [`StoreError::Forked`], [`StoreError::Closed`].
    pub(crate) fn check_open(&self) -> Result<(), StoreError> {
        fork::check()?;
        // Relaxed: a flag on its own.
        if self.closing.load(Ordering::Relaxed) { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Begins nothing new. What is there goes on: under a view nothing may change.
    pub(crate) fn start_closing(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    // Memory.

    /// Pages and a slot, in one piece if `contiguous`, and the pieces few else. Waits until there is room, within limits.
    pub(crate) async fn allocate(&self, pages: u32, contiguous: bool) -> Result<Allocation, StoreError> {
        if let Some(allocation) = self.try_allocate(pages, false)? {
            return Ok(allocation);
        }
        self.arena.count_waiters(1);
        let waiter = scopeguard(|| self.arena.count_waiters(-1));
        let started = Instant::now();
        let until = started + self.options.memory_wait.min(self.options.deadline);
        loop {
            let mut changed = std::pin::pin!(self.arena.changed.notified());
            changed.as_mut().enable();
            if let Some(allocation) = self.try_allocate(pages, false)? {
                return Ok(allocation);
            }
            match self.arena.shortage(pages) {
                Shortage::Ask { pages, slots } => self.lease(pages, slots)?,
                Shortage::Wait if started.elapsed() >= self.options.deadline => {
                    return Err(StoreError::Deadline { doing: "leasing memory", after: started.elapsed() });
                }
                Shortage::Wait => {}
                Shortage::Refused(error) => {
                    if !contiguous && let Some(allocation) = self.try_allocate(pages, true)? {
                        return Ok(allocation);
                    }
                    if Instant::now() >= until {
                        return Err(error);
                    }
                }
            }
            {
                // What was dropped may be what is missing; and the I/O thread is to wake us now and then.
                let mut session = self.session.lock();
                session.send_releases();
                session.flush();
                session.wake_by(Instant::now() + crate::io::MEMORY_TICK);
            }
            changed.await;
            let _ = &waiter;
        }
    }

    /// As [`allocate`](Client::allocate), if that need not wait.
    pub(crate) fn try_allocate(&self, pages: u32, scattered: bool) -> Result<Option<Allocation>, StoreError> {
        self.check_open()?;
        if let Some(far) = &self.far {
            far.give_back(&self.arena);
        }
        let Some((allocation, low)) = self.arena.allocate(pages, scattered)? else { return Ok(None) };
        if low && let Shortage::Ask { pages, slots } = self.arena.shortage(0) {
            // What fails now is asked for again by whoever needs it.
            let _ = self.lease(pages, slots);
        }
        Ok(Some(allocation))
    }

    fn lease(&self, pages: u32, slots: u32) -> Result<(), StoreError> {
        let request = Request::Lease { pages, slots, wait_ms: 0 };
        let about = Some(Subject::Memory(pages));
        let asked = self.session.lock().ask("leasing memory", about, &request, Body::new(), Waiting::Lease, None);
        if let Err(error) = &asked {
            self.arena.lease_refused(error.clone());
        }
        asked
    }

    /// Asks for the first memory, so that it is there when it is wanted.
    pub(crate) fn prefetch(&self) {
        if let Shortage::Ask { pages, slots } = self.arena.shortage(1) {
            let _ = self.lease(pages, slots);
        }
    }

    /// A slot for an object that is written over the network.
    pub(crate) async fn allocate_slot(&self) -> Result<ObjectId, StoreError> {
        self.allocate(0, false).await.map(|allocation| allocation.id)
    }

    /// A buffer for an object that goes to the node, or comes from there.
    pub(crate) fn buffer(&self, len: usize) -> Buffer {
        self.far.as_ref().map_or_else(|| Buffer::of_len(len), |far| far.buffer(len))
    }

    // Reading.

    /// The segment of that number, mapped.
    pub(crate) async fn segment(&self, number: u32) -> Result<Arc<Segment>, StoreError> {
        if let Some(segment) = self.segments.get(number) {
            return Ok(segment);
        }
        let request = Request::Segment { segment: number };
        let about = Some(Subject::Segment(number));
        match self.ask("asking for a segment", about, &request, Body::new(), Undo::Nothing).await? {
            Answer::Segment(info, fd) if info.segment == number => {
                let segment = Arc::new(Segment::map(info, fd, self.page_size, false, self.options.pool_at.as_deref())?);
                self.segments.insert(segment.clone());
                Ok(segment)
            }
            _ => Err(StoreError::Malformed("an answer to another request")),
        }
    }

    /// All extents of an object.
    pub(crate) async fn resolve(&self, id: ObjectId, size: u64) -> Result<Vec<Extent>, StoreError> {
        let pages = self.page_size.pages_for(size).ok_or(StoreError::Malformed("an object of too many pages"))?;
        let (mut extents, mut found) = (Vec::new(), 0u32);
        while found < pages {
            let request = Request::Resolve { id, first_page: found, pages: pages - found };
            let about = Some(Subject::Object(id));
            let answer = self.ask("asking where an object is", about, &request, Body::new(), Undo::Nothing).await?;
            let Answer::Resolved { size: actual, extents: more } = answer else {
                return Err(StoreError::Malformed("an answer to another request"));
            };
            if actual != size {
                return Err(StoreError::Malformed("a reference that lies about the size of its object"));
            }
            let before = found;
            for extent in more {
                let end = found.checked_add(extent.count).filter(|end| extent.is_valid() && *end <= pages);
                found = end.ok_or(StoreError::Malformed("extents beyond their object"))?;
                extents.push(extent);
            }
            if found == before {
                return Err(StoreError::Malformed("an answer without extents"));
            }
        }
        Ok(extents)
    }

    /// Bytes of an object, over the network: all pieces are asked for at once, and go where they belong.
    pub(crate) async fn read(&self, id: ObjectId, range: Range<u64>) -> Result<Arc<Buffer>, StoreError> {
        self.check_open()?;
        let len = usize::try_from(range.end - range.start).map_err(|_| StoreError::TooLarge {
            what: "view",
            len: range.end - range.start,
            limit: usize::MAX as u64,
        })?;
        let mut arrivals = Arrivals::new(len);
        let pieces = (range.end - range.start).div_ceil(READ_BYTES);
        let mut waiting = std::collections::VecDeque::new();
        for piece in 0..pieces {
            let offset = range.start + piece * READ_BYTES;
            let length = READ_BYTES.min(range.end - offset);
            let permit = match self.in_flight.try_acquire() {
                Ok(permit) => permit,
                Err(_) => self.in_flight.acquire().await.map_err(|_| StoreError::Closed)?,
            };
            let (to, answer) = tokio::sync::oneshot::channel();
            let wait = Waiting::Read { to, destination: Some(arrivals.next(length as usize)) };
            let request = Request::Read { id, offset, length };
            let about = Some(Subject::Object(id));
            self.session.lock().ask("reading", about, &request, Body::new(), wait, Some(self.options.deadline))?;
            waiting.push_back((permit, answer));
            // Permits are shared by all: whoever reads much waits for its own first.
            if waiting.len() >= MAX_IN_FLIGHT / 4 {
                let (_permit, answer) = waiting.pop_front().expect("not empty");
                answer.await.unwrap_or(Err(StoreError::Closed))?;
            }
        }
        for (_permit, answer) in waiting {
            answer.await.unwrap_or(Err(StoreError::Closed))?;
        }
        arrivals.finish().ok_or(StoreError::Malformed("a body that is still on its way"))
    }

    // Claims.

    /// Publishes all that was lent and is not published.
    pub(crate) fn announce(&self) {
        self.unannounced.lock().announce();
    }

    /// Asks for holds on objects whose claims say so.
    pub(crate) fn adopt(&self, objects: &[Arc<Object>]) {
        if objects.is_empty() {
            return;
        }
        // Held, so that nothing comes in between.
        let mut unannounced = self.unannounced.lock();
        unannounced.announce();
        self.ask_for_holds(objects);
    }

    /// As [`adopt`](Client::adopt), behind what was lent before.
    pub(crate) fn ask_for_holds(&self, objects: &[Arc<Object>]) {
        for objects in objects.chunks(MAX_HOLDS) {
            let ids: Vec<ObjectId> = objects.iter().map(|object| object.id()).collect();
            let about = Some(Subject::Object(ids[0]));
            // Ours are dropped last, and not under the lock, which dropping an object takes.
            let waiting = Waiting::Adopt(objects.to_vec());
            let asked =
                self.session.lock().ask("taking holds", about, &Request::Hold(&ids), Body::new(), waiting, None);
            if asked.is_err() {
                objects.iter().for_each(|object| object.adopted(false));
            }
        }
    }

    /// Keeps references until then.
    pub(crate) fn linger(&self, until: Instant, references: Vec<AnyRef>) {
        self.lingering.lock().push((until, references));
        self.session.lock().wake_by(until);
    }

    /// Lets go of what was kept long enough. When the next is due.
    pub(crate) fn stop_lingering(&self, now: Instant) -> Option<Instant> {
        let mut lingering = self.lingering.lock();
        let over: Vec<_> = lingering.extract_if(.., |(until, _)| *until <= now).collect();
        let next = lingering.iter().map(|(until, _)| *until).min();
        drop(lingering);
        drop(over);
        next
    }

    /// References that were borrowed long ago become this session's own. Whether there are younger ones.
    pub(crate) fn promote(&self) -> bool {
        let (old, young) = loan::old_borrows(self);
        self.adopt(&old);
        young
    }

    /// Whether the session is over.
    pub(crate) fn has_ended(&self) -> bool {
        self.session.lock().state().ended.is_some()
    }

    /// Why the session is over, if it is.
    pub(crate) fn end_of_session(&self) -> Option<StoreError> {
        self.session.lock().state().ended.clone()
    }

    /// Ends the session from this side: nobody has anything of it any more.
    fn close(&self) {
        self.segments.own().iter().for_each(|segment| self.hand_back(segment));
        let mut session = self.session.lock();
        if session.state().ended.is_none() {
            let _ = session.send(&Request::Bye, Body::new());
            session.flush();
        }
        let left = session.state().end(&StoreError::Closed);
        drop(session);
        self.settle_ended(left, &StoreError::Closed);
        self.session.ring();
    }

    /// The session is over: what waited for it is let go.
    pub(crate) fn settle_ended(&self, left: Vec<Waiting>, error: &StoreError) {
        self.arena.end(error);
        for waiting in left {
            if let Waiting::Adopt(objects) = waiting {
                objects.iter().for_each(|object| object.adopted(false));
            }
        }
        if let Some(far) = &self.far
            && !matches!(error, StoreError::Closed)
        {
            // Whoever waits for a read is told. A goodbye of ours is still to be delivered, though.
            far.end();
        }
        // Dropping an object takes the table: not while we go through it.
        let mut held = Vec::new();
        for known in &self.known {
            held.extend(known.value().upgrade());
        }
        held.iter().for_each(|object| object.session_ended());
        drop(held);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if fork::is_fork() {
            // The session is the parent's. The node of an embedding store is not here either.
            std::mem::forget(self.embedded.get_mut().take());
            return;
        }
        crate::registry::forget(self.node);
        self.close();
        // A node of ours goes last. Otherwise there is nothing to wait for: the thread ends when it has seen the end.
        if let Some(node) = self.embedded.get_mut().take() {
            if let Some(thread) = self.thread.get_mut().take()
                && thread.thread().id() != std::thread::current().id()
            {
                let _ = thread.join();
            }
            drop(node);
        }
    }
}

/// Runs something when it is dropped.
fn scopeguard(run: impl FnMut()) -> impl Drop {
    struct Guard<F: FnMut()>(F);
    impl<F: FnMut()> Drop for Guard<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    Guard(run)
}
