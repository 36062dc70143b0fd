//! The arena of a session: segments and slots that it may use without asking.
//!
//! 1. A page of the arena is free here, or part of one object that was made here and is not freed yet.
//! 2. A slot is here, or names one such object.
//! 3. At most one lease is asked for at a time.

use crate::segment::Segment;
use crate::{StoreError, fork};
use dmrpc_pages::{Buddy, Extent, SegmentId};
use dmrpc_wire::{MAX_LEASE_SLOTS, NodeId, ObjectId, SlotLease};
use parking_lot::Mutex;
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The first lease, in bytes. Later ones double.
const FIRST_LEASE_BYTES: u64 = 4 << 20;
/// The largest lease, unless one object is larger, in bytes. Its pages are made when it is leased, at some 2 GB/s.
const MAX_LEASE_BYTES: u64 = 64 << 20;
/// With fewer slots than this, more are asked for.
const LOW_SLOTS: usize = 512;
/// Whoever was refused memory may ask again after so long, even if nothing came free here.
const REFUSAL: Duration = Duration::from_millis(20);

pub(crate) struct Arena {
    node: NodeId,
    page_shift: u32,
    quota_pages: u32,
    /// Whether there is memory: over a network without RDMA there are only slots.
    has_memory: bool,
    /// Whether its segments have their memory to themselves.
    separate: AtomicBool,
    state: Mutex<State>,
    /// Something came free, or a lease was answered.
    pub(crate) changed: Notify,
}

struct State {
    segments: Vec<Own>,
    slots: Vec<SlotLease>,
    keys: Keys,
    total_pages: u32,
    free_pages: u32,
    /// What the next lease is to bring, unless more is needed.
    next_pages: u32,
    /// The pages that a lease in flight asks for, and those that are needed of them.
    asked: Option<(u32, u32)>,
    refused: Option<(StoreError, Instant)>,
    /// Whether more slots were asked for and are on their way.
    waiters: usize,
    ended: Option<StoreError>,
}

/// A segment of the arena.
struct Own {
    segment: Arc<Segment>,
    buddy: Buddy,
}

/// Random bytes for the keys of objects, drawn in bulk.
struct Keys {
    bytes: [u8; 12 * 256],
    used: usize,
}

impl Keys {
    fn draw(&mut self) -> Result<[u8; 12], StoreError> {
        if self.used == self.bytes.len() {
            getrandom::fill(&mut self.bytes)
                .map_err(|error| StoreError::Io { doing: "drawing random bytes", why: error.to_string() })?;
            self.used = 0;
        }
        let key = std::mem::take(&mut self.used);
        self.used = key + 12;
        let drawn = &mut self.bytes[key..self.used];
        let key = (&*drawn).try_into().expect("twelve bytes");
        drawn.fill(0);
        Ok(key)
    }
}

/// Runs of pages, and the segments that they are in.
pub(crate) type Pieces = SmallVec<[(Extent, Arc<Segment>); 1]>;

/// Pages and a name for a new object.
pub(crate) struct Allocation {
    pub(crate) id: ObjectId,
    pub(crate) pieces: Pieces,
}

/// What to do when the arena has no room.
pub(crate) enum Shortage {
    /// Ask for so many pages and slots.
    Ask { pages: u32, slots: u32 },
    /// It was asked for.
    Wait,
    /// There is none.
    Refused(StoreError),
}

impl Arena {
    pub(crate) fn new(node: NodeId, has_memory: bool, page_shift: u32, quota_pages: u32) -> Self {
        let first = ((FIRST_LEASE_BYTES >> page_shift) as u32).min(quota_pages / 4).max(1);
        Self {
            node,
            page_shift,
            quota_pages,
            has_memory,
            separate: AtomicBool::new(true),
            state: Mutex::new(State {
                segments: Vec::new(),
                slots: Vec::new(),
                keys: Keys { bytes: [0; 12 * 256], used: 12 * 256 },
                total_pages: 0,
                free_pages: 0,
                next_pages: first,
                asked: None,
                refused: None,
                waiters: 0,
                ended: None,
            }),
            changed: Notify::new(),
        }
    }

    /// Pages and a slot, in one piece, or in several if `scattered`; `None` if there is no room. Whether more should be
    /// leased soon.
    pub(crate) fn allocate(&self, pages: u32, scattered: bool) -> Result<Option<(Allocation, bool)>, StoreError> {
        let mut state = self.state.lock();
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        if state.slots.is_empty() || (pages > 0 && state.free_pages < pages) {
            return Ok(None);
        }
        let Some(pieces) = state.take(pages, scattered) else { return Ok(None) };
        let key = state.keys.draw()?;
        let slot = state.slots.pop().expect("looked at");
        state.free_pages -= pages;
        let low = state.free_pages < state.total_pages / 4 || state.slots.len() < LOW_SLOTS;
        let ask = low && state.asked.is_none() && state.refused.is_none();
        Ok(Some((Allocation { id: ObjectId::new(self.node, slot, key), pieces }, ask)))
    }

    /// Whether what is mapped of the arena stays as it is when this session is gone. See [`Segment::is_separate`].
    pub(crate) fn is_separate(&self) -> bool {
        self.separate.load(Ordering::Relaxed)
    }

    /// Pages in one piece, without a slot; `None` if there is no room just now.
    pub(crate) fn allocate_pages(&self, pages: u32) -> Option<(Extent, Arc<Segment>)> {
        if fork::is_fork() {
            return None;
        }
        let mut state = self.state.lock();
        if state.ended.is_some() || state.free_pages < pages {
            return None;
        }
        let mut pieces = state.take(pages, false)?;
        state.free_pages -= pages;
        pieces.pop()
    }

    /// Pages that no object has come back, and slots, with the generation that they are to be used with next.
    pub(crate) fn give_back(&self, extents: impl IntoIterator<Item = Extent>, slots: &[SlotLease]) {
        let mut state = self.state.lock();
        for extent in extents {
            let own = state.segments.iter_mut().find(|own| own.segment.number == extent.segment.0);
            // A segment that was given back, or a node out of its mind: nothing of ours comes free.
            let Some(own) = own else { continue };
            if own.buddy.free(extent.first, extent.count).is_ok() {
                state.free_pages += extent.count;
            } else {
                tracing::error!(%extent, "pages of the arena came free twice");
            }
        }
        state.slots.extend_from_slice(slots);
        state.refused = None;
        let wake = state.waiters > 0;
        drop(state);
        if wake {
            self.changed.notify_waiters();
        }
    }

    /// What to do as `pages` pages, or a slot, could not be had. `anyway`: ask for more though there is room.
    pub(crate) fn shortage(&self, pages: u32) -> Shortage {
        let mut state = self.state.lock();
        if let Some(error) = &state.ended {
            return Shortage::Refused(error.clone());
        }
        if state.asked.is_some() {
            return Shortage::Wait;
        }
        if let Some((error, when)) = &state.refused {
            if when.elapsed() < REFUSAL {
                return Shortage::Refused(error.clone());
            }
            state.refused = None;
        }
        let slots = if state.slots.len() < LOW_SLOTS { MAX_LEASE_SLOTS / 4 } else { 0 };
        let room = self.quota_pages.saturating_sub(state.total_pages);
        let enough = state.free_pages >= pages.max(1) && state.free_pages >= state.total_pages / 4;
        let wanted = if !self.has_memory || (enough && slots > 0) { 0 } else { pages.max(state.next_pages).min(room) };
        if self.has_memory && wanted < pages && !(enough && slots > 0) {
            let error = StoreError::QuotaExceeded { pages };
            state.refused = Some((error.clone(), Instant::now()));
            return Shortage::Refused(error);
        }
        if wanted == 0 && slots == 0 {
            return Shortage::Wait;
        }
        state.asked = Some((wanted, pages.max(1).min(wanted)));
        Shortage::Ask { pages: wanted, slots }
    }

    /// A lease came.
    pub(crate) fn leased(&self, segment: Option<Arc<Segment>>, slots: &[SlotLease]) {
        if segment.as_ref().is_some_and(|segment| !segment.is_separate()) {
            // Relaxed: the lock, which comes before any use of the segment, is what it goes by.
            self.separate.store(false, Ordering::Relaxed);
        }
        let mut state = self.state.lock();
        state.asked = None;
        state.slots.extend_from_slice(slots);
        if let Some(segment) = segment {
            let pages = segment.pages;
            state.total_pages += pages;
            state.free_pages += pages;
            let most = ((MAX_LEASE_BYTES >> self.page_shift) as u32).max(1);
            state.next_pages = state.next_pages.max(pages).saturating_mul(2).min(most);
            state.segments.push(Own { segment, buddy: Buddy::new(pages) });
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// A lease was refused. Whether to ask again for less.
    pub(crate) fn lease_refused(&self, error: StoreError) {
        let mut state = self.state.lock();
        let asked = state.asked.take();
        match asked {
            // It was more than was needed: less may do.
            Some((asked, needed)) if asked > needed => state.next_pages = (asked / 4).max(1),
            _ => state.refused = Some((error, Instant::now())),
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The session is over.
    pub(crate) fn end(&self, error: &StoreError) {
        self.state.lock().ended.get_or_insert_with(|| error.clone());
        self.changed.notify_waiters();
    }

    /// One more, or one less, waits for [`Arena::changed`].
    pub(crate) fn count_waiters(&self, change: isize) {
        let mut state = self.state.lock();
        state.waiters = state.waiters.saturating_add_signed(change);
    }

    /// Whether somebody waits.
    pub(crate) fn has_waiters(&self) -> bool {
        self.state.lock().waiters > 0
    }

    /// Segments that are wholly unused leave, but for the first.
    pub(crate) fn reclaim(&self) -> Vec<u32> {
        let mut state = self.state.lock();
        let mut left = Vec::new();
        let mut kept = false;
        state.segments.retain(|own| {
            let unused = own.buddy.free_pages() == own.buddy.pages();
            if unused && std::mem::replace(&mut kept, true) {
                left.push((own.segment.number, own.segment.pages));
                return false;
            }
            true
        });
        let pages: u32 = left.iter().map(|(_, pages)| pages).sum();
        state.total_pages -= pages;
        state.free_pages -= pages;
        left.into_iter().map(|(number, _)| number).collect()
    }
}

impl State {
    fn take(&mut self, pages: u32, scattered: bool) -> Option<Pieces> {
        if pages == 0 {
            return Some(SmallVec::new());
        }
        for own in &mut self.segments {
            if let Some(first) = own.buddy.alloc(pages) {
                let extent = Extent::new(SegmentId(own.segment.number), first, pages);
                return Some(smallvec![(extent, own.segment.clone())]);
            }
        }
        if !scattered {
            return None;
        }
        let mut pieces = SmallVec::new();
        let mut missing = pages;
        for own in &mut self.segments {
            while missing > 0
                && let Some((first, count)) = own.buddy.alloc_most(missing)
            {
                pieces.push((Extent::new(SegmentId(own.segment.number), first, count), own.segment.clone()));
                missing -= count;
            }
        }
        assert_eq!(missing, 0, "so many pages are free");
        Some(pieces)
    }
}
