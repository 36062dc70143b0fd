//! Segments: which there are, whose they are, and which of their pages are free, unpublished, live or quarantined.
//!
//! 1. A page with a count is *live*. One without is *free* if nobody has it, *unpublished* if the segment's owner (or a
//!    write in flight) has it, *quarantined* if a client that is no longer the owner may still have it mapped writable.
//! 2. A segment that a client writes belongs to one session and is never another's: when that has ended, it goes with its
//!    last live page and the last link over which it was mapped writable.
//! 3. A segment that only the node writes serves one session after another of the same tenant.
//! 4. The pages of all segments, those being made included, are never more than the pool.
//! 5. A segment's number is never given to another: clients know mappings by it.

use super::counts::PageCounts;
use super::event::{Access, LinkId};
use super::sessions::SessionKey;
use dmrpc_pages::{Buddy, Extent, SegmentId};
use dmrpc_wire::Status;
use std::collections::BTreeMap;

/// How far a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The driver makes it.
    Making,
    /// It is there, and its client maps it: it is nobody else's to see, as it could still be mapped writable.
    Open,
    /// Nobody can map it writable any more.
    Sealed,
}

pub(crate) struct Segment {
    pub(crate) pages: u32,
    pub(crate) tenant: u32,
    pub(crate) access: Access,
    pub(crate) stage: Stage,
    pub(crate) owner: Option<SessionKey>,
    /// The link of the client that has it mapped writable, until that is gone.
    pub(crate) writer: Option<LinkId>,
    pub(crate) file_offset: u64,
    /// Pages with a count.
    pub(crate) live: u32,
    pub(crate) counts: PageCounts,
    /// Which pages are free, if the node allocates them.
    pub(crate) buddy: Option<Buddy>,
}

/// A segment's pages, by who has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) free: u32,
    pub(crate) unpublished: u32,
    pub(crate) live: u32,
    pub(crate) quarantined: u32,
}

impl Segment {
    pub(crate) fn usage(&self) -> Use {
        let rest = self.pages - self.live;
        let mut usage = Use { live: self.live, ..Use::default() };
        match &self.buddy {
            Some(buddy) => {
                usage.free = buddy.free_pages();
                usage.unpublished = rest - usage.free;
            }
            None if self.owner.is_some() => usage.unpublished = rest,
            None if self.writer.is_some() => usage.quarantined = rest,
            None => usage.free = rest,
        }
        usage
    }

    /// Whether the node allocates from it and all of it is free.
    pub(crate) fn is_idle(&self) -> bool {
        self.stage != Stage::Making && self.buddy.as_ref().is_some_and(|buddy| buddy.free_pages() == self.pages)
    }

    /// Whether it was a client's that is gone for good, with everything in it.
    fn is_over(&self) -> bool {
        self.buddy.is_none()
            && self.stage != Stage::Making
            && self.owner.is_none()
            && self.writer.is_none()
            && self.live == 0
    }
}

pub(crate) struct Segments {
    table: BTreeMap<u32, Segment>,
    next: u32,
    pool_pages: u32,
    committed: u32,
    /// Whether somebody who waits for memory may get it now.
    has_news: bool,
}

impl Segments {
    pub(crate) fn new(pool_pages: u32) -> Self {
        Self { table: BTreeMap::new(), next: 0, pool_pages, committed: 0, has_news: false }
    }

    /// Pages in segments.
    pub(crate) fn committed(&self) -> u32 {
        self.committed
    }

    /// Pages that further segments may have.
    pub(crate) fn room(&self) -> u32 {
        self.pool_pages - self.committed
    }

    /// Whether pages came free since this was last asked.
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// A segment's session has ended.
    pub(crate) fn disown(&mut self, index: u32) {
        if let Some(segment) = self.table.get_mut(&index) {
            segment.owner = None;
            self.has_news = true;
        }
    }

    /// A new segment, to be made by the driver. The caller looked for [`Segments::room`]. `None` when the numbers are used up.
    pub(crate) fn make(&mut self, pages: u32, tenant: u32, access: Access, owner: SessionKey) -> Option<u32> {
        assert!(pages <= self.room(), "the caller looked for room");
        let index = self.next;
        if index == SegmentId::HOLE.0 {
            return None;
        }
        self.next += 1;
        self.committed += pages;
        let segment = Segment {
            pages,
            tenant,
            access,
            stage: Stage::Making,
            owner: Some(owner),
            writer: None,
            file_offset: 0,
            live: 0,
            counts: PageCounts::new(pages),
            buddy: (access == Access::Node).then(|| Buddy::empty(pages)),
        };
        self.table.insert(index, segment);
        Some(index)
    }

    pub(crate) fn get(&self, index: u32) -> Option<&Segment> {
        self.table.get(&index)
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Segment> {
        self.table.get_mut(&index)
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<Segment> {
        let segment = self.table.remove(&index)?;
        self.committed -= segment.pages;
        self.has_news = true;
        Some(segment)
    }

    /// Removes the segment if nothing of it is left to anybody.
    pub(crate) fn remove_if_over(&mut self, index: u32) -> bool {
        self.table.get(&index).is_some_and(Segment::is_over) && self.remove(index).is_some()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Segment)> {
        self.table.iter().map(|(&index, segment)| (index, segment))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Segment)> {
        self.table.iter_mut().map(|(&index, segment)| (index, segment))
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// A new tree node covers `extent`.
    pub(crate) fn cover(&mut self, extent: Extent) {
        let segment = self.table.get_mut(&extent.segment.0).expect("a segment stays while pages of it are in trees");
        segment.live += segment.counts.add(extent.first, extent.count);
    }

    /// A tree node that covered `extent` is gone. Pages that nothing covers any more are free, or their owner's to use again:
    /// then `freed` is told. Whether the segment went with them, for the driver to drop.
    pub(crate) fn uncover(&mut self, extent: Extent, mut freed: impl FnMut(SessionKey, Extent)) -> bool {
        let index = extent.segment.0;
        let has_news = &mut self.has_news;
        let Segment { counts, live, buddy, owner, access, .. } =
            self.table.get_mut(&index).expect("a segment stays while pages of it are in trees");
        counts.subtract(extent.first, extent.count, |first, count| {
            *live -= count;
            if let Some(buddy) = buddy {
                buddy.free(first, count).expect("a page with a count is not free");
                *has_news = true;
            } else if let (Some(owner), Access::Client) = (*owner, *access) {
                freed(owner, Extent::new(extent.segment, first, count));
            }
        });
        self.remove_if_over(index)
    }

    /// Whether `extent` is of pages that `owner` may make an object of: its own, in a sealed segment, in no object.
    pub(crate) fn check_unpublished(&self, extent: Extent, owner: SessionKey) -> Result<(), Status> {
        let segment = self.table.get(&extent.segment.0).ok_or(Status::NotFound)?;
        if segment.owner != Some(owner) || segment.access != Access::Client || segment.stage != Stage::Sealed {
            return Err(Status::Denied);
        }
        if extent.end() > u64::from(segment.pages) {
            return Err(Status::OutOfRange);
        }
        if segment.counts.all_zero(extent.first, extent.count) { Ok(()) } else { Err(Status::Denied) }
    }

    /// Takes `pages` pages out of segments of `owner` that the node writes, in as few pieces as they are found; all or none.
    pub(crate) fn allocate(&mut self, owner: SessionKey, segments: &[u32], pages: u32) -> Option<Vec<Extent>> {
        if self.allocatable(segments) < u64::from(pages) {
            return None;
        }
        let mut pieces = Vec::new();
        let mut missing = pages;
        for &index in segments {
            let Some(segment) = self.table.get_mut(&index) else { continue };
            debug_assert_eq!(segment.owner, Some(owner));
            let Some(buddy) = &mut segment.buddy else { continue };
            while missing > 0
                && let Some((first, count)) = buddy.alloc_most(missing)
            {
                pieces.push(Extent::new(SegmentId(index), first, count));
                missing -= count;
            }
        }
        assert_eq!(missing, 0, "so many pages were free");
        Some(pieces)
    }

    /// Pages that [`Segments::allocate`] finds.
    pub(crate) fn allocatable(&self, segments: &[u32]) -> u64 {
        let free = |index| Some(u64::from(self.table.get(index)?.buddy.as_ref()?.free_pages()));
        segments.iter().filter_map(free).sum()
    }

    /// Gives back pages that were allocated and never published.
    pub(crate) fn unallocate(&mut self, pieces: &[Extent]) {
        for piece in pieces {
            let segment = self.table.get_mut(&piece.segment.0).expect("a segment stays while pages of it are written");
            let buddy = segment.buddy.as_mut().expect("it was allocated by the node");
            buddy.free(piece.first, piece.count).expect("it was allocated and is in no object");
            self.has_news = true;
        }
    }
}
