//! Where the pages of an object are in this process's memory.
//!
//! 1. The pieces of a layout follow each other without gaps, and cover `first_page .. first_page + pages`.
//! 2. Every piece is a hole, or lies within a mapping that lives as long as the layout.

use crate::StoreError;
use crate::buffer::Buffer;
use crate::mosaic::Mosaic;
use crate::segment::Segment;
use dmrpc_fabric::cache_lines;
use dmrpc_pages::{Extent, PageSize};
use smallvec::SmallVec;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};

/// A run of an object's pages that are adjacent in memory. Two to a cache line, and none in two lines.
#[derive(Clone)]
#[repr(align(32))]
pub(crate) struct Piece {
    /// The first page of the object that it covers.
    pub(crate) at: u32,
    pub(crate) extent: Extent,
    /// Null for a hole.
    start: *const u8,
    /// Keeps the mapping: `None` for holes.
    segment: Option<Arc<Segment>>,
}

// SAFETY: an address into a mapping that `segment` keeps, of pages that nobody writes while the object lives.
unsafe impl Send for Piece {}
// SAFETY: as above.
unsafe impl Sync for Piece {}

impl Piece {
    /// The pages from `at` on are `extent`, in that segment.
    pub(crate) fn new(at: u32, extent: Extent, segment: &Arc<Segment>) -> Result<Self, StoreError> {
        let outside = StoreError::Malformed("an extent outside its segment");
        let fits = extent.is_valid() && extent.segment.0 == segment.number && at.checked_add(extent.count).is_some();
        let start = segment.start_of(extent).filter(|_| fits).ok_or(outside)?;
        Ok(Self { at, extent, start: start.as_ptr(), segment: Some(segment.clone()) })
    }

    /// The pages from `at` on are zeros.
    pub(crate) fn hole(at: u32, pages: u32) -> Self {
        Self { at, extent: Extent::hole(pages), start: std::ptr::null(), segment: None }
    }

    /// The page after its last.
    pub(crate) fn end(&self) -> u32 {
        self.at + self.extent.count
    }

    /// The file that it lies in, and where; `None` for a hole.
    pub(crate) fn file(&self) -> Option<(BorrowedFd<'_>, u64)> {
        self.segment.as_ref()?.file_at(self.extent.first)
    }

    /// Whether its pages can be mapped one by one at other addresses.
    pub(crate) fn has_single_pages(&self) -> bool {
        self.segment.as_ref().is_none_or(|segment| segment.has_single_pages())
    }

    /// The pages from `from` to before `to`, which are some of its own.
    fn part(&self, from: u32, to: u32, page_size: PageSize) -> Self {
        let skip = from - self.at;
        let first = if self.extent.is_hole() { 0 } else { self.extent.first + skip };
        let extent = Extent::new(self.extent.segment, first, to - from);
        let start = if self.start.is_null() {
            self.start
        } else {
            // SAFETY: within the piece.
            unsafe { self.start.add((skip as usize) << page_size.shift()) }
        };
        Self { at: from, extent, start, segment: self.segment.clone() }
    }

    fn joins(&self, next: &Piece) -> bool {
        self.extent.joins(next.extent)
    }
}

/// With more pieces than this a layout has an index: so many lie in a handful of cache lines.
const INDEXED: usize = 16;

/// Where a page is, without a long search: the pages in equal strides, between half and twice as many as there are pieces. Of a million
/// pieces in 32 MiB a binary search misses the cache some four times even if only its last steps are taken there; by this it is one
/// look, and another one at the piece only for strides that have more than one (`make compare`, translate).
#[derive(Default)]
struct Index {
    stride_shift: u32,
    /// One more than there are strides: the last is the last piece. Empty if there is no index.
    strides: Box<[Stride]>,
}

#[derive(Clone, Copy)]
struct Stride {
    /// Where its pages are, if they all are in one piece; else null.
    start: *const u8,
    /// The piece that its first page is in.
    piece: u32,
}

// SAFETY: as for pieces, with which it is kept.
unsafe impl Send for Stride {}
// SAFETY: as above.
unsafe impl Sync for Stride {}

impl Index {
    fn new(first_page: u32, end_page: u32, pieces: &[Piece], page_size: PageSize) -> Self {
        if pieces.len() <= INDEXED {
            return Self::default();
        }
        let pages = end_page - first_page;
        let stride_shift = (pages / pieces.len() as u32).next_power_of_two().ilog2();
        let count = u64::from(pages).div_ceil(1 << stride_shift);
        let mut strides = Vec::with_capacity(count as usize + 1);
        let mut at = 0;
        for stride in 0..count {
            let page = u64::from(first_page) + (stride << stride_shift);
            while u64::from(pieces[at].end()) <= page {
                at += 1;
            }
            let piece = &pieces[at];
            let is_whole = page + (1 << stride_shift) <= u64::from(piece.end()) && !piece.start.is_null();
            let skip = ((page - u64::from(piece.at)) as usize) << page_size.shift();
            // SAFETY: the page is one of the piece.
            let start = if is_whole { unsafe { piece.start.add(skip) } } else { std::ptr::null() };
            strides.push(Stride { start, piece: at as u32 });
        }
        strides.push(Stride { start: std::ptr::null(), piece: pieces.len() as u32 - 1 });
        Self { stride_shift, strides: strides.into() }
    }

    /// The first and the last of the pieces that the page, counted from the layout's first, may be in.
    fn among(&self, page: u32) -> (usize, usize) {
        let stride = (page >> self.stride_shift) as usize;
        (self.strides[stride].piece as usize, self.strides[stride + 1].piece as usize)
    }

    /// Where those bytes are, counted from the layout's first, if they lie in one stride that has one piece.
    fn at_once(&self, range: &Range<u64>, page_size: PageSize) -> Option<*const u8> {
        let shift = self.stride_shift + page_size.shift();
        let stride = range.start >> shift;
        let start = self.strides.get(stride as usize)?.start;
        if start.is_null() || (range.end - 1) >> shift != stride {
            return None;
        }
        // SAFETY: within the stride, all of which is there.
        Some(unsafe { start.add((range.start - (stride << shift)) as usize) })
    }
}

/// Has what is read at random lie in huge pages, where the kernel has some: in small ones most looks miss the cache of addresses, too,
/// which takes longer in a virtual machine than the look itself.
fn in_huge_pages<T>(table: &[T]) {
    const HUGE_PAGE_BYTES: usize = 2 << 20;
    let skip = table.as_ptr().cast::<u8>().align_offset(HUGE_PAGE_BYTES);
    let whole = size_of_val(table).saturating_sub(skip) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    if whole > 0 {
        // SAFETY: advice on memory of the table, which changes no byte of it. It works as well without, if slower.
        let _ = unsafe {
            libc::madvise(table.as_ptr().cast::<u8>().add(skip).cast_mut().cast(), whole, libc::MADV_COLLAPSE)
        };
    }
}

/// Where a run of an object's pages is.
pub(crate) struct Layout {
    first_page: u32,
    end_page: u32,
    page_size: PageSize,
    pieces: SmallVec<[Piece; 1]>,
    index: Index,
    /// All of it side by side, once somebody wanted that. `None` if the kernel does not.
    mosaic: OnceLock<Option<Arc<Mosaic>>>,
}

/// Where a range of bytes is.
pub(crate) enum Place {
    /// At this address, as long as the layout lives.
    There(*const u8),
    /// In pieces.
    Scattered,
}

impl Layout {
    /// # Panics
    ///
    /// Unless the pieces follow each other.
    pub(crate) fn new(first_page: u32, pieces: SmallVec<[Piece; 1]>, page_size: PageSize) -> Self {
        let mut end_page = first_page;
        for piece in &pieces {
            assert_eq!(piece.at, end_page, "pieces follow each other");
            end_page = piece.end();
        }
        let index = Index::new(first_page, end_page, &pieces, page_size);
        in_huge_pages(&pieces);
        in_huge_pages(&index.strides);
        Self { first_page, end_page, page_size, pieces, index, mosaic: OnceLock::new() }
    }

    pub(crate) fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// The pages that bytes lie in.
    pub(crate) fn pages_of(range: &Range<u64>, page_size: PageSize) -> Range<u32> {
        if range.is_empty() {
            return 0..0;
        }
        // Objects have at most 2^32 pages: the caller's range lies within one.
        (range.start >> page_size.shift()) as u32..(range.end.div_ceil(page_size.bytes())) as u32
    }

    /// Whether it says where those bytes are.
    pub(crate) fn covers(&self, range: &Range<u64>) -> bool {
        let pages = Self::pages_of(range, self.page_size);
        pages.is_empty() || (self.first_page <= pages.start && pages.end <= self.end_page)
    }

    /// Which of the pieces has that page.
    fn index_of(&self, page: u32) -> usize {
        if self.pieces.len() == 1 {
            return 0;
        }
        let (first, last) = match self.index.strides.len() {
            0 => (0, self.pieces.len() - 1),
            _ => self.index.among(page - self.first_page),
        };
        // The last of them ends after the page, or there is one more than has to be looked at.
        first + self.pieces[first..last].partition_point(|piece| piece.end() <= page)
    }

    /// Where a range is that is [covered](Layout::covers).
    pub(crate) fn place(&self, range: &Range<u64>) -> Place {
        let pages = Self::pages_of(range, self.page_size);
        if pages.is_empty() {
            return Place::There(std::ptr::NonNull::<crate::codec::Aligned>::dangling().as_ptr().cast());
        }
        let first_byte = u64::from(self.first_page) << self.page_size.shift();
        if let Some(start) = self.index.at_once(&(range.start - first_byte..range.end - first_byte), self.page_size) {
            return Place::There(start);
        }
        let piece = &self.pieces[self.index_of(pages.start)];
        if piece.end() < pages.end || piece.start.is_null() {
            return Place::Scattered;
        }
        let skip = range.start - (u64::from(piece.at) << self.page_size.shift());
        // SAFETY: the range begins within the piece.
        Place::There(unsafe { piece.start.add(skip as usize) })
    }

    /// The pieces that cover those pages, cut to them.
    pub(crate) fn cut(&self, pages: Range<u32>) -> impl Iterator<Item = Piece> + '_ {
        self.within(pages.clone())
            .map(move |piece| piece.part(piece.at.max(pages.start), piece.end().min(pages.end), self.page_size))
    }

    /// The extents of those pages.
    pub(crate) fn extents(&self, pages: Range<u32>) -> impl Iterator<Item = Extent> + '_ {
        self.within(pages.clone()).map(move |piece| {
            let (from, to) = (piece.at.max(pages.start), piece.end().min(pages.end));
            let first = if piece.extent.is_hole() { 0 } else { piece.extent.first + (from - piece.at) };
            Extent::new(piece.extent.segment, first, to - from)
        })
    }

    /// The pieces that have some of those pages.
    fn within(&self, pages: Range<u32>) -> impl Iterator<Item = &Piece> + '_ {
        let from = if pages.is_empty() { self.pieces.len() } else { self.index_of(pages.start) };
        let end = pages.end;
        self.pieces[from..].iter().take_while(move |piece| piece.at < end)
    }

    /// The bytes of a covered range, piece by piece: `None` and a length for zeros.
    pub(crate) fn chunks(&self, range: Range<u64>) -> impl Iterator<Item = (Option<*const u8>, usize)> + '_ {
        let shift = self.page_size.shift();
        self.within(Self::pages_of(&range, self.page_size)).map(move |piece| {
            let start = (u64::from(piece.at) << shift).max(range.start);
            let end = (u64::from(piece.end()) << shift).min(range.end);
            let skip = start - (u64::from(piece.at) << shift);
            // SAFETY: within the piece.
            let address = (!piece.start.is_null()).then(|| unsafe { piece.start.add(skip as usize) });
            (address, (end - start) as usize)
        })
    }

    /// Copies the bytes from `offset` on, all of which are covered.
    pub(crate) fn copy_to(&self, offset: u64, into: &mut [u8]) {
        let range = offset..offset + into.len() as u64;
        if let Place::There(from) = self.place(&range) {
            // SAFETY: as below.
            unsafe { into.as_mut_ptr().copy_from_nonoverlapping(from, into.len()) };
            return;
        }
        let mut done = 0;
        for (from, len) in self.chunks(range) {
            let to = &mut into[done..done + len];
            match from {
                // SAFETY: the chunk is that long, and immutable while the object lives; `to` is somebody's own memory.
                Some(from) => unsafe { to.as_mut_ptr().copy_from_nonoverlapping(from, len) },
                None => to.fill(0),
            }
            done += len;
        }
        debug_assert_eq!(done, into.len(), "the range is covered");
    }

    /// All of it side by side, if the kernel wants to. Made once, and kept.
    pub(crate) fn mosaic(&self) -> Option<&Arc<Mosaic>> {
        self.mosaic.get_or_init(|| Mosaic::of(&self.pieces, self.page_size, false).ok().map(Arc::new)).as_ref()
    }

    /// The address in the mosaic of a covered range's first byte.
    pub(crate) fn in_mosaic(&self, mosaic: &Mosaic, range: &Range<u64>) -> *const u8 {
        let skip = range.start - (u64::from(self.first_page) << self.page_size.shift());
        // SAFETY: the mosaic has all that the layout covers.
        unsafe { mosaic.start().add(skip as usize) }
    }

    /// Writes what this host changed of those pages back to memory, up to the object's end. How many cache lines they have.
    pub(crate) fn write_back(&self, pages: Range<u32>, size: u64) -> usize {
        let shift = self.page_size.shift();
        let range = u64::from(pages.start) << shift..(u64::from(pages.end) << shift).min(size);
        if range.is_empty() || !self.covers(&range) {
            return 0;
        }
        // SAFETY: the chunk is that long, within a mapping.
        let write_back = |(start, len)| unsafe { cache_lines::write_back(start, len) };
        self.chunks(range).filter_map(|(start, len)| Some((start?, len))).map(write_back).sum()
    }

    /// Drops what this host has cached of all that it says, up to the object's end. How many cache lines that has.
    pub(crate) fn drop_lines(&self, size: u64) -> usize {
        let shift = self.page_size.shift();
        let range = u64::from(self.first_page) << shift..(u64::from(self.end_page) << shift).min(size);
        if range.is_empty() {
            return 0;
        }
        // SAFETY: as above.
        let drop_lines = |(start, len)| unsafe { cache_lines::drop_lines(start, len) };
        self.chunks(range).filter_map(|(start, len)| Some((start?, len))).map(drop_lines).sum()
    }

    /// A copy of a covered range.
    pub(crate) fn copy_of(&self, range: &Range<u64>) -> Buffer {
        let mut buffer = Buffer::zeroed((range.end - range.start) as usize);
        self.copy_to(range.start, &mut buffer);
        buffer
    }

    /// The pages `0 .. pages`: those of `base`, which covers from page 0, with `patches` (ascending, disjoint) laid over
    /// them, and zeros where neither has any.
    pub(crate) fn patched(
        base: Option<&Layout>,
        patches: impl IntoIterator<Item = Piece>,
        pages: u32,
        page_size: PageSize,
    ) -> Self {
        let mut pieces: SmallVec<[Piece; 1]> = SmallVec::new();
        let mut push = |piece: Piece| match pieces.last_mut() {
            Some(last) if last.joins(&piece) => last.extent.count += piece.extent.count,
            _ => pieces.push(piece),
        };
        let base_end = base.map_or(0, |base| base.end_page);
        let mut page = 0;
        let fill = |page: &mut u32, to: u32, push: &mut dyn FnMut(Piece)| {
            if let Some(base) = base.filter(|_| *page < base_end.min(to)) {
                base.cut(*page..base_end.min(to)).for_each(&mut *push);
                *page = base_end.min(to);
            }
            if *page < to {
                push(Piece::hole(*page, to - *page));
                *page = to;
            }
        };
        for patch in patches {
            fill(&mut page, patch.at, &mut push);
            page = patch.end();
            push(patch);
        }
        fill(&mut page, pages, &mut push);
        Self::new(0, pieces, page_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dmrpc_pages::SegmentId;

    #[test]
    fn every_page_is_found_however_many_pieces_there_are() {
        let lengths: [fn(u32) -> u32; 4] =
            [|_| 1, |n| n % 3 + 1, |n| if n == 0 { 1 << 20 } else { 1 }, |n| if n % 100 == 50 { 5000 } else { 1 }];
        let counts = [1, 2, INDEXED as u32, INDEXED as u32 + 1, 1000];
        for (count, length) in counts.into_iter().flat_map(|count| lengths.map(|length| (count, length))) {
            let mut pieces = SmallVec::new();
            let mut at = 7;
            for n in 0..count {
                pieces.push(Piece::hole(at, length(n)));
                at += length(n);
            }
            let layout = Layout::new(7, pieces, PageSize::MIN);
            for page in 7..at {
                let piece = &layout.pieces[layout.index_of(page)];
                assert!((piece.at..piece.end()).contains(&page), "page {page} of {count} pieces");
            }
        }
    }

    /// What the index says at once is what the pieces say; of ranges over the end of a stride it says nothing.
    #[test]
    fn strides_of_one_piece_are_where_their_piece_is() {
        let page = PageSize::MIN.bytes();
        for length in [|_| 1, |n| n % 3 + 1, |n| if n % 7 == 3 { 200 } else { 2 }] as [fn(u32) -> u32; 3] {
            let mut pieces = SmallVec::<[Piece; 1]>::new();
            let (mut at, mut address) = (3, 1_usize << 40);
            for n in 0..500 {
                let extent = Extent::new(SegmentId(1), 7 * at, length(n));
                let start = if n % 11 == 5 { std::ptr::null() } else { address as *const u8 };
                pieces.push(Piece { at, extent, start, segment: None });
                at += length(n);
                address += (length(n) as usize + 1) * page as usize;
            }
            let layout = Layout::new(3, pieces, PageSize::MIN);
            let mut at_once = 0;
            for piece in &layout.pieces {
                for n in piece.at..piece.end() {
                    let offset = (u64::from(n) - 3) * page + 5;
                    let expected = piece.start.wrapping_add((n - piece.at) as usize * page as usize + 5);
                    if let Some(there) = layout.index.at_once(&(offset..offset + 9), PageSize::MIN) {
                        assert_eq!(there, expected, "page {n}");
                        assert!(!piece.start.is_null(), "page {n}");
                        at_once += 1;
                    }
                    let stride_end = (((n - 3) >> layout.index.stride_shift) + 1) << layout.index.stride_shift;
                    let over = u64::from(stride_end) * page;
                    assert_eq!(layout.index.at_once(&(offset..over + 1), PageSize::MIN), None, "page {n}");
                }
            }
            assert!(at_once > 200, "{at_once} at once");
        }
    }
}
