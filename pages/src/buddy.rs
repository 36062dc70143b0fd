//! Which pages of a segment are free, and where the next run comes from: a buddy allocator.
//!
//! A block of order k is 2^k pages at a multiple of 2^k. The free pages are kept as blocks, a bitmap for each order; an
//! allocation takes the lowest block of the smallest order that is large enough and gives back what it does not need, and
//! a free merges a block with its buddy (the other half of the block of the next order) as long as that is free too.
//! Low addresses first: pages that were used lately are used again, and are warm.
//!
//! 1. A free page is in exactly one free block, a page that is not free in none.
//! 2. No block and its buddy are both free: they are one block of the next order.
//! 3. `free_pages` is the number of pages in free blocks.
//! 4. An error changes nothing.

use crate::bitmap::Bitmap;

/// A buddy allocator over the pages `0 .. pages` of a segment.
///
/// It has page numbers only, no memory. Any number of pages will do, not only powers of two.
///
/// ```
/// use dmrpc_pages::{Buddy, BuddyError};
///
/// let mut buddy = Buddy::new(100);
/// let first = buddy.alloc(5).unwrap();
/// assert_eq!(buddy.free_pages(), 95);
/// buddy.free(first, 5)?;
/// assert_eq!(buddy.free(first, 1), Err(BuddyError::AlreadyFree { first, count: 1 }));
/// assert_eq!(buddy.alloc(100), Some(0));
/// # Ok::<(), BuddyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Buddy {
    pages: u32,
    free_pages: u32,
    /// Bit k is set if and only if there is a free block of order k.
    orders: u32,
    /// The free blocks of each order; bit i of order k stands for the pages from i * 2^k on.
    blocks: Vec<Bitmap>,
}

/// Why a run cannot be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuddyError {
    /// The run has no pages, or some that the allocator has not.
    #[error("{count} pages from {first} on are no run of a segment of {pages} pages")]
    OutOfRange {
        /// The first page of the run.
        first: u32,
        /// How many pages were to be freed.
        count: u32,
        /// How many pages there are.
        pages: u32,
    },
    /// Some page of the run is free already.
    #[error("some of the {count} pages from {first} on are free already")]
    AlreadyFree {
        /// The first page of the run.
        first: u32,
        /// How many pages were to be freed.
        count: u32,
    },
}

impl Buddy {
    /// An allocator of `pages` pages, all free.
    pub fn new(pages: u32) -> Self {
        let mut buddy = Self::empty(pages);
        buddy.mark_free(0, pages);
        buddy.free_pages = pages;
        buddy
    }

    /// An allocator of `pages` pages, none free.
    pub fn empty(pages: u32) -> Self {
        let orders = u32::BITS - pages.leading_zeros();
        let blocks = (0..orders).map(|order| Bitmap::new(pages >> order)).collect();
        Self { pages, free_pages: 0, orders: 0, blocks }
    }

    /// How many pages there are, free or not.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// How many pages are free.
    pub fn free_pages(&self) -> u32 {
        self.free_pages
    }

    /// Whether `page` is free; `false` for one that is not there.
    pub fn is_free(&self, page: u32) -> bool {
        page < self.pages && self.any_free(page, page)
    }

    /// Takes a run of exactly `count` pages and returns its first; `None` if there is none or `count` is 0.
    ///
    /// A run is always found where a free block of the next power of two is, and when all pages are free. Past that only
    /// the free run around the lowest of the largest blocks is looked at: `None` does not prove that no run is there.
    pub fn alloc(&mut self, count: u32) -> Option<u32> {
        if count == 0 || count > self.free_pages {
            return None;
        }
        // Rounded up to a power of two; 32 when that is more pages than there can be.
        let order = u32::BITS - (count - 1).leading_zeros();
        let enough = self.orders & u32::MAX.checked_shl(order).unwrap_or(0);
        let first = if enough != 0 {
            self.first_of(enough.trailing_zeros())
        } else {
            let (first, end) = self.largest_run()?;
            (end - u64::from(first) >= u64::from(count)).then_some(first)?
        };
        self.take(first, count);
        Some(first)
    }

    /// Takes a run of `count` pages or, if there is none, of as many as are found in one piece: its first page and how
    /// many. `None` if no page is free or `count` is 0.
    ///
    /// The piece is never smaller than the largest free block or `count`.
    pub fn alloc_most(&mut self, count: u32) -> Option<(u32, u32)> {
        if let Some(first) = self.alloc(count) {
            return Some((first, count));
        }
        if count == 0 {
            return None;
        }
        // `alloc` would have taken `count` pages out of this run, so it has fewer.
        let (first, end) = self.largest_run()?;
        let got = (end - u64::from(first)) as u32;
        self.take(first, got);
        Some((first, got))
    }

    /// Gives the pages `first .. first + count` back; any run, whatever allocations they came from.
    ///
    /// # Errors
    /// [`BuddyError`] if the run is empty, out of range, or partly free. Nothing is changed then.
    pub fn free(&mut self, first: u32, count: u32) -> Result<(), BuddyError> {
        let end = first.checked_add(count).filter(|&end| count > 0 && end <= self.pages);
        let end = end.ok_or(BuddyError::OutOfRange { first, count, pages: self.pages })?;
        if self.any_free(first, end - 1) {
            return Err(BuddyError::AlreadyFree { first, count });
        }
        let mut page = first;
        while page < end {
            let order = order_at(page, end);
            self.insert_merging(order, page >> order);
            page += 1 << order;
        }
        self.free_pages += count;
        Ok(())
    }

    /// Whether some page from `first` to `last` (of those that are there) is free.
    fn any_free(&self, first: u32, last: u32) -> bool {
        each_bit(self.orders).any(|order| {
            let (blocks, first, last) = (&self.blocks[order as usize], first >> order, last >> order);
            // Mostly one block, and a look at a bit is cheaper than a search from there.
            if first == last {
                blocks.contains(first)
            } else {
                blocks.first_from(first).is_some_and(|block| block <= last)
            }
        })
    }

    /// The first page of the lowest free block of `order`, which must have one.
    fn first_of(&self, order: u32) -> u32 {
        self.blocks[order as usize].first_from(0).expect("invariant: the bit of an order says that it has a block")
            << order
    }

    /// The free run around the lowest of the largest free blocks: its first page, which begins a block, and its end.
    fn largest_run(&self) -> Option<(u32, u64)> {
        let order = self.orders.checked_ilog2()?;
        let (mut first, mut end) = (self.first_of(order), 0);
        let mut next = first;
        while let Some(order) = self.block_at(next) {
            end = u64::from(next) + (1 << order);
            next = end as u32;
            if end == u64::from(self.pages) {
                break;
            }
        }
        while let Some(order) = self.block_before(first) {
            first -= 1 << order;
        }
        Some((first, end))
    }

    /// The order of the free block that begins at `page`.
    fn block_at(&self, page: u32) -> Option<u32> {
        each_bit(self.orders).find(|&order| self.is_block(order, page))
    }

    /// The order of the free block that ends at `page`.
    fn block_before(&self, page: u32) -> Option<u32> {
        each_bit(self.orders).find(|&order| page >> order > 0 && self.is_block(order, page - (1 << order)))
    }

    /// Whether the free blocks have one of `order` that begins at `page`.
    fn is_block(&self, order: u32, page: u32) -> bool {
        let in_range = u64::from(page) + (1 << order) <= u64::from(self.pages);
        in_range && page.trailing_zeros() >= order && self.blocks[order as usize].contains(page >> order)
    }

    /// Takes `count` free pages from `first` on, where a block begins.
    fn take(&mut self, first: u32, count: u32) {
        let end = u64::from(first) + u64::from(count);
        let mut page = u64::from(first);
        while page < end {
            let order = self.block_at(page as u32).expect("caller: the run begins with a block and is free to its end");
            self.remove(order, page as u32 >> order);
            page += 1 << order;
        }
        // What the last block has too many. It cannot merge: the block that it was part of is in use.
        self.mark_free(end as u32, page as u32);
        self.free_pages -= count;
    }

    /// Makes the pages `first .. end` free blocks, without a look at their neighbours.
    fn mark_free(&mut self, first: u32, end: u32) {
        let mut page = first;
        while page < end {
            let order = order_at(page, end);
            self.insert(order, page >> order);
            page += 1 << order;
        }
    }

    /// Makes `block` free and merges it with its buddy as long as there is one.
    fn insert_merging(&mut self, mut order: u32, mut block: u32) {
        while self.orders & 1 << order != 0 && self.is_buddy_free(order, block) {
            self.remove(order, block ^ 1);
            block >>= 1;
            order += 1;
        }
        self.insert(order, block);
    }

    /// Whether the buddy of `block` is free. The last block of an order may have none.
    fn is_buddy_free(&self, order: u32, block: u32) -> bool {
        block ^ 1 < self.pages >> order && self.blocks[order as usize].contains(block ^ 1)
    }

    fn insert(&mut self, order: u32, block: u32) {
        self.blocks[order as usize].set(block);
        self.orders |= 1 << order;
    }

    fn remove(&mut self, order: u32, block: u32) {
        if self.blocks[order as usize].clear(block) {
            self.orders &= !(1 << order);
        }
    }
}

/// The order of the largest block that begins at `page` and does not pass `end`.
fn order_at(page: u32, end: u32) -> u32 {
    page.trailing_zeros().min((end - page).ilog2())
}

/// The numbers of the bits that are set, lowest first.
fn each_bit(mut bits: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (bit < u32::BITS).then_some(bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Alloc(u32),
        AllocMost(u32),
        /// Frees any run at all, be it in use or not.
        Free(u32, u32),
        /// Frees part of the run of pages in use that begins at or after a page.
        FreeUsed(u32, u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let count = || prop_oneof![4 => 0..9u32, 1 => 0..150u32];
        let step = prop_oneof![
            3 => count().prop_map(Step::Alloc),
            1 => count().prop_map(Step::AllocMost),
            1 => (0..150u32, count()).prop_map(|(first, count)| Step::Free(first, count)),
            3 => (0..150u32, count()).prop_map(|(first, count)| Step::FreeUsed(first, count)),
        ];
        prop::collection::vec(step, 1..60)
    }

    /// Invariants 1 to 3, from the model.
    fn check(buddy: &Buddy, free: &[bool]) {
        let mut covered = vec![0; free.len()];
        for (order, blocks) in buddy.blocks.iter().enumerate() {
            assert_eq!(buddy.orders >> order & 1 == 1, blocks.first_from(0).is_some(), "bit of order {order}");
            for block in (0..buddy.pages >> order).filter(|&block| blocks.contains(block)) {
                let first = (block as usize) << order;
                covered[first..first + (1 << order)].iter_mut().for_each(|blocks| *blocks += 1);
                assert!(!buddy.is_buddy_free(order as u32, block), "buddies {block} of order {order} are not merged");
            }
        }
        for (page, &free) in free.iter().enumerate() {
            assert_eq!(covered[page], i32::from(free), "blocks that have page {page}");
            assert_eq!(buddy.is_free(page as u32), free, "page {page}");
        }
        assert!(!buddy.is_free(free.len() as u32));
        assert_eq!(buddy.free_pages() as usize, free.iter().filter(|&&free| free).count());
    }

    /// The length of the longest aligned block of free pages.
    fn largest_block(free: &[bool]) -> u32 {
        let is_block = |order: &u32| free.chunks_exact(1 << order).any(|block| block.iter().all(|&free| free));
        (0..8).rev().find(is_block).map_or(0, |order| 1 << order)
    }

    /// Takes the run in the model; all of it has to be free.
    fn take(free: &mut [bool], first: u32, count: u32) {
        for page in first..first + count {
            assert!(std::mem::replace(&mut free[page as usize], false), "page {page} was not free");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_flags(pages in 0..140u32, all in any::<bool>(), steps in steps()) {
            let mut buddy = if all { Buddy::new(pages) } else { Buddy::empty(pages) };
            let mut free = vec![all; pages as usize];
            check(&buddy, &free);
            for step in steps {
                match step {
                    Step::Alloc(count) => match buddy.alloc(count) {
                        Some(first) => take(&mut free, first, count),
                        None => prop_assert!(
                            count == 0
                                || largest_block(&free) < count.next_power_of_two() && !(count <= pages && free.iter().all(|&f| f))
                        ),
                    },
                    Step::AllocMost(count) => match buddy.alloc_most(count) {
                        Some((first, got)) => {
                            prop_assert!(got <= count && got >= count.min(largest_block(&free)));
                            take(&mut free, first, got);
                        }
                        None => prop_assert!(count == 0 || buddy.free_pages() == 0),
                    },
                    Step::Free(first, count) => free_both(&mut buddy, &mut free, first, count),
                    Step::FreeUsed(from, most) => {
                        let used = (from..pages).find(|&page| !free[page as usize]);
                        let first = used.unwrap_or(0);
                        let count = (first..pages).take_while(|&page| !free[page as usize]).count() as u32;
                        free_both(&mut buddy, &mut free, first, count.min(most));
                    }
                }
                check(&buddy, &free);
            }
        }
    }

    fn free_both(buddy: &mut Buddy, free: &mut [bool], first: u32, count: u32) {
        let pages = free.len() as u32;
        let expect = if count == 0 || first + count > pages {
            Err(BuddyError::OutOfRange { first, count, pages })
        } else if (first..first + count).any(|page| free[page as usize]) {
            Err(BuddyError::AlreadyFree { first, count })
        } else {
            free[first as usize..(first + count) as usize].fill(true);
            Ok(())
        };
        assert_eq!(buddy.free(first, count), expect);
    }

    #[test]
    fn takes_the_lowest_pages() {
        let mut buddy = Buddy::new(1 << 18);
        assert_eq!((buddy.alloc(3), buddy.alloc(1), buddy.alloc(4)), (Some(0), Some(3), Some(4)));
        buddy.free(1, 2).unwrap();
        assert_eq!((buddy.alloc(2), buddy.alloc(2)), (Some(8), Some(10)), "1 and 2 are no block");
        assert_eq!((buddy.alloc(1), buddy.alloc(1)), (Some(1), Some(2)));
    }

    #[test]
    fn a_segment_of_any_size_is_one_run() {
        for pages in [1, 3, 100, 65_535, 1_000_003] {
            assert_eq!(Buddy::new(pages).alloc(pages), Some(0));
            assert_eq!(Buddy::new(pages).alloc_most(u32::MAX), Some((0, pages)));
        }
    }

    #[test]
    fn a_peer_cannot_overflow_it() {
        let mut buddy = Buddy::empty(10);
        for (first, count) in [(u32::MAX, u32::MAX), (u32::MAX, 1), (0, u32::MAX), (10, 0), (9, 2)] {
            assert_eq!(buddy.free(first, count), Err(BuddyError::OutOfRange { first, count, pages: 10 }));
        }
        assert_eq!(buddy.free_pages(), 0);
    }
}
