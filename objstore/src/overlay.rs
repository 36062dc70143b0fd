//! Pages of the arena laid over the pages of an object: an edit on the memory node's host.
//!
//! 1. A page of the overlay has all its bytes: written ones, those of the base, and zeros past the end of either.
//! 2. Bytes of the base at or after `floor` are not seen any more: the edit was once cut to that.

use crate::StoreError;
use crate::buffer::Buffer;
use crate::client::Client;
use crate::draft::NewPages;
use crate::layout::{Layout, Piece};
use crate::object::{MAX_PATCHES, Making, Object};
use crate::segment::Segment;
use dmrpc_pages::{Extent, PageSize};
use dmrpc_wire::Patch;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

pub(crate) struct Overlay {
    under: Under,
    len: u64,
    /// First page to pages.
    runs: BTreeMap<u32, Run>,
}

/// What lies under the pages of an overlay.
struct Under {
    base: Arc<Object>,
    /// Where in its object the picture begins.
    offset: u64,
    floor: u64,
    page_size: PageSize,
}

impl Under {
    /// The bytes of a page, or of several.
    fn bytes_of(&self, pages: Range<u32>) -> Range<u64> {
        u64::from(pages.start) << self.page_size.shift()..u64::from(pages.end) << self.page_size.shift()
    }

    /// Fills `into` with what the base has from `offset` of the picture on.
    fn read(&self, offset: u64, into: &mut [u8]) {
        let seen = self.floor.saturating_sub(offset).min(into.len() as u64) as usize;
        let (seen, zeros) = into.split_at_mut(seen);
        zeros.fill(0);
        if !seen.is_empty() {
            let start = self.offset + offset;
            let range = start..start + seen.len() as u64;
            self.base.layout(&range).expect("located when the edit was opened").copy_to(start, seen);
        }
    }

    /// Fills the bytes of pages with what the base has, but for what of them is in `written`.
    fn fill(&self, pages: Range<u32>, bytes: &mut [u8], written: &Range<u64>) {
        let all = self.bytes_of(pages);
        let middle = written.start.clamp(all.start, all.end)..written.end.clamp(all.start, all.end);
        if middle.is_empty() {
            self.read(all.start, bytes);
        } else {
            let (head, tail) = ((middle.start - all.start) as usize, (middle.end - all.start) as usize);
            self.read(all.start, &mut bytes[..head]);
            self.read(middle.end, &mut bytes[tail..]);
        }
    }
}

/// Adjacent pages of the picture.
struct Run {
    pages: u32,
    memory: Memory,
}

enum Memory {
    Arena(ArenaRun),
    /// For want of room; it is found when it is committed.
    Heap(Buffer),
}

/// Pages of the arena; they go back unless an object is made of them.
struct ArenaRun {
    client: Arc<Client>,
    extent: Extent,
    segment: Arc<Segment>,
    used: bool,
}

impl Drop for ArenaRun {
    fn drop(&mut self) {
        if !self.used && !crate::fork::is_fork() {
            self.client.arena.give_back([self.extent], &[]);
        }
    }
}

impl Run {
    fn bytes(&self, page_size: PageSize) -> &[u8] {
        match &self.memory {
            Memory::Arena(run) => {
                let start = run.segment.start_of(run.extent).expect("the arena gives what there is");
                // SAFETY: pages that the arena gave to us alone, in a mapping that `segment` keeps.
                unsafe { std::slice::from_raw_parts(start.as_ptr(), (self.pages as usize) << page_size.shift()) }
            }
            Memory::Heap(buffer) => &buffer[..(self.pages as usize) << page_size.shift()],
        }
    }

    fn bytes_mut(&mut self, page_size: PageSize) -> &mut [u8] {
        match &mut self.memory {
            Memory::Arena(run) => {
                let start = run.segment.start_of(run.extent).expect("the arena gives what there is");
                // SAFETY: as above; and nobody else writes there.
                unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), (self.pages as usize) << page_size.shift()) }
            }
            Memory::Heap(buffer) => &mut buffer[..(self.pages as usize) << page_size.shift()],
        }
    }

    /// Pages of the arena that may lie behind its own. Whether they do: then they are its own from now on.
    fn grow(&mut self, extent: Extent) -> bool {
        let Memory::Arena(run) = &mut self.memory else { return false };
        if !run.extent.joins(extent) {
            return false;
        }
        run.extent.count += extent.count;
        self.pages += extent.count;
        true
    }

    /// Only its first `pages` pages stay.
    fn truncate(&mut self, pages: u32) {
        if let Memory::Arena(run) = &mut self.memory
            && let Some((kept, rest)) = run.extent.split_at(pages)
        {
            run.extent = kept;
            run.client.arena.give_back([rest], &[]);
        }
        self.pages = pages;
    }
}

impl Overlay {
    /// `base` has to be located for the `len` bytes at `offset`.
    pub(crate) fn new(base: &Arc<Object>, offset: u64, len: u64) -> Self {
        let page_size = base.client.page_size;
        Self { under: Under { base: base.clone(), offset, floor: len, page_size }, len, runs: BTreeMap::new() }
    }

    /// The page of the run that has `page`, if one has, and where it begins.
    fn run_of(&self, page: u32) -> Option<(u32, &Run)> {
        let (&start, run) = self.runs.range(..=page).next_back()?;
        (page - start < run.pages).then_some((start, run))
    }

    /// The runs of `pages` that the overlay does not have.
    fn gaps(&self, pages: Range<u32>) -> SmallVec<[Range<u32>; 4]> {
        let mut gaps = SmallVec::new();
        let mut page = pages.start;
        if let Some((start, run)) = self.run_of(page) {
            page = start + run.pages;
        }
        for (&start, run) in self.runs.range(page.min(pages.end)..pages.end) {
            if page < start {
                gaps.push(page..start);
            }
            page = start + run.pages;
        }
        if page < pages.end {
            gaps.push(page..pages.end);
        }
        gaps
    }

    /// Takes pages into the overlay, which has none of them. What of them is in `written` is left for the caller to write.
    fn add(&mut self, pages: Range<u32>, written: &Range<u64>) {
        let count = pages.end - pages.start;
        let allocated = self.under.base.client.arena.allocate_pages(count);
        // The arena gives low pages first: whoever writes page after page mostly gets neighbours, which are one run.
        if let Some((extent, _)) = &allocated
            && let Some((&start, run)) = self.runs.range_mut(..pages.start).next_back()
            && start + run.pages == pages.start
            && run.grow(*extent)
        {
            let skip = ((pages.start - start) as usize) << self.under.page_size.shift();
            self.under.fill(pages, &mut run.bytes_mut(self.under.page_size)[skip..], written);
            return;
        }
        let memory = match allocated {
            Some((extent, segment)) => {
                let client = self.under.base.client.clone();
                Memory::Arena(ArenaRun { client, extent, segment, used: false })
            }
            None => Memory::Heap(Buffer::zeroed((count as usize) << self.under.page_size.shift())),
        };
        let mut run = Run { pages: count, memory };
        self.under.fill(pages.clone(), run.bytes_mut(self.under.page_size), written);
        self.runs.insert(pages.start, run);
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let range = offset..offset + bytes.len() as u64;
        let pages = Layout::pages_of(&range, self.under.page_size);
        for gap in self.gaps(pages.clone()) {
            self.add(gap, &range);
        }
        let first = self.run_of(pages.start).expect("added above").0;
        let page_size = self.under.page_size;
        for (&start, run) in self.runs.range_mut(first..pages.end) {
            let begins = u64::from(start) << page_size.shift();
            let ends = begins + (u64::from(run.pages) << page_size.shift());
            let part = range.start.max(begins)..range.end.min(ends);
            let from = &bytes[(part.start - offset) as usize..(part.end - offset) as usize];
            run.bytes_mut(page_size)[(part.start - begins) as usize..][..from.len()].copy_from_slice(from);
        }
    }

    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) {
        self.under.read(offset, into);
        let range = offset..offset + into.len() as u64;
        let pages = Layout::pages_of(&range, self.under.page_size);
        if pages.is_empty() {
            return;
        }
        let first = self.run_of(pages.start).map_or(pages.start, |(start, _)| start);
        for (&start, run) in self.runs.range(first..pages.end) {
            let all = self.under.bytes_of(start..start + run.pages);
            let part = range.start.max(all.start)..range.end.min(all.end);
            let from =
                &run.bytes(self.under.page_size)[(part.start - all.start) as usize..(part.end - all.start) as usize];
            into[(part.start - offset) as usize..][..from.len()].copy_from_slice(from);
        }
    }

    pub(crate) fn resize(&mut self, len: u64) {
        if len < self.len {
            self.under.floor = self.under.floor.min(len);
            let pages = self.under.page_size.pages_for(len).expect("less than before");
            self.runs.split_off(&pages);
            if let Some((&start, run)) = self.runs.iter_mut().next_back() {
                let page_size = self.under.page_size;
                if start + run.pages > pages {
                    run.truncate(pages - start);
                }
                let all = (u64::from(start) << page_size.shift())..(u64::from(start + run.pages) << page_size.shift());
                if len < all.end {
                    run.bytes_mut(page_size)[(len - all.start) as usize..].fill(0);
                }
            }
        }
        self.len = len;
    }

    /// Makes an object of `len` bytes of it.
    pub(crate) async fn commit(mut self, len: u64) -> Result<Arc<Object>, StoreError> {
        let page_size = self.under.page_size;
        let pages = page_size.pages_for(len).expect("checked when it was resized");
        let nothing = 0..0;
        // The first page that has nothing of the base.
        let base_end = page_size.pages_for(self.under.floor).expect("not longer than the base");
        if len > self.under.floor && self.under.floor & (page_size.bytes() - 1) != 0 {
            // What the base has after the floor in its page is not to be seen.
            let page = base_end - 1;
            if self.run_of(page).is_none() {
                self.add(page..base_end, &nothing);
            }
        }
        let shares = self.under.offset == 0 && !self.gaps(0..base_end).is_empty();
        if self.under.offset != 0 {
            for gap in self.gaps(0..base_end) {
                self.add(gap, &nothing);
            }
        }
        let client = self.under.base.client.clone();
        // Pages of the base that are not seen any more, and are in no run.
        let object_end = page_size.pages_for(self.under.base.size()).expect("an object has fewer");
        let holes = if shares { self.gaps(base_end..object_end.min(pages).max(base_end)) } else { SmallVec::new() };

        let mut patches: SmallVec<[Piece; 4]> = SmallVec::new();
        let mut kept: SmallVec<[Run; 4]> = SmallVec::new();
        for (start, mut run) in std::mem::take(&mut self.runs) {
            if let Memory::Heap(_) = &run.memory {
                let allocation = client.allocate(run.pages, false).await?;
                let mut new = NewPages::new(&client, allocation);
                new.fill(run.bytes(page_size));
                let mut at = start;
                for (extent, segment) in new.into_pieces() {
                    patches.push(Piece::new(at, extent, &segment)?);
                    let arena = ArenaRun { client: client.clone(), extent, segment, used: false };
                    kept.push(Run { pages: extent.count, memory: Memory::Arena(arena) });
                    at += extent.count;
                }
                continue;
            }
            if let Memory::Arena(arena) = &mut run.memory {
                patches.push(Piece::new(start, arena.extent, &arena.segment)?);
            }
            kept.push(run);
        }
        patches.extend(holes.into_iter().map(|hole| Piece::hole(hole.start, hole.end - hole.start)));
        patches.sort_unstable_by_key(|piece| piece.at);

        let seen = self.under.floor.min(len);
        let mut base = shares.then(|| self.under.base.clone());
        let mut ids: SmallVec<[NewPages; 1]> = SmallVec::new();
        for _ in 0..patches.len().div_ceil(MAX_PATCHES).max(1) {
            ids.push(NewPages::new(&client, client.allocate(0, false).await?));
        }
        // Nothing below waits: from here on the pages are the new object's.
        for run in &mut kept {
            if let Memory::Arena(arena) = &mut run.memory {
                arena.used = true;
            }
        }
        let mut object = None;
        let mut chunks = patches.chunks(MAX_PATCHES);
        for id in ids {
            let chunk = chunks.next().unwrap_or(&[]);
            let layout = {
                let below = base.as_ref().and_then(|base| base.layout(&(0..if object.is_none() { seen } else { len })));
                Layout::patched(below, chunk.iter().cloned(), pages, page_size)
            };
            let patches: SmallVec<[Patch; 1]> =
                chunk.iter().map(|piece| Patch { at: piece.at.into(), extent: piece.extent.into() }).collect();
            let next = id.into_derived(len, Making { base: base.take(), patches }, layout);
            base = Some(next.clone());
            object = Some(next);
        }
        Ok(object.expect("at least one"))
    }
}
