//! How many tree nodes cover each page of a segment.
//!
//! A segment tree over blocks of [`BLOCK`] pages: each node has the least and the greatest count below it and what is still
//! to be added to all of them, so that an addition to a run of a million pages touches some twenty nodes, and the pages that
//! fell to zero are found in the same pass.
//!
//! ```text
//!                    least 1 greatest 3 pending 0            one node for each run of blocks
//!                   /                            \
//!     least 1 greatest 1 pending 1      least 2 greatest 3 pending 0
//!     [0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0] [2 2 3 3 3 3 2 2 2 2 2 2 2 2 2 2]     one count for each page
//! ```
//!
//! A page's count is what stands in its place plus what is pending above it: in the left block every page has 1. It costs
//! 4 bytes a page and 24 a block: 5.5 bytes for 4 KiB.
//!
//! 1. A node's `least` and `greatest` are those of the counts below it, but for what is pending above it.
//! 2. A count never goes below zero, nor above `u32::MAX`: there are fewer tree nodes than that ([`super::snapshot`]).

/// Pages that share the lowest node of the tree.
const BLOCK: u32 = 16;

/// Added, it takes one away: sums wrap.
const MINUS_ONE: u32 = u32::MAX;

#[derive(Clone, Copy, Default)]
struct Summary {
    least: u32,
    greatest: u32,
    /// Still to be added to everything below. Wraps: it may stand for less than nothing, as what it is added to is more.
    pending: u32,
}

impl Summary {
    fn raise(&mut self, by: u32) {
        self.least = self.least.wrapping_add(by);
        self.greatest = self.greatest.wrapping_add(by);
        self.pending = self.pending.wrapping_add(by);
    }
}

/// A count for each page of a segment, zero at first.
pub(crate) struct PageCounts {
    pages: u32,
    /// Number of blocks, rounded up to a power of two: where the lowest nodes begin in `nodes`.
    blocks: u32,
    /// The root is at 1, the children of `i` are at `2 i` and `2 i + 1`.
    nodes: Vec<Summary>,
    counts: Vec<u32>,
}

/// The pages below a node.
#[derive(Clone, Copy)]
struct Below {
    node: usize,
    start: u32,
    end: u32,
}

impl PageCounts {
    pub(crate) fn new(pages: u32) -> Self {
        let blocks = pages.div_ceil(BLOCK).max(1).next_power_of_two();
        Self { pages, blocks, nodes: vec![Summary::default(); 2 * blocks as usize], counts: vec![0; pages as usize] }
    }

    /// Adds one to each of `count` pages from `first` on. Returns how many of them had zero.
    pub(crate) fn add(&mut self, first: u32, count: u32) -> u32 {
        let end = self.end_of(first, count);
        self.add_below(self.root(), first, end)
    }

    /// Takes one from each of `count` pages from `first` on, which all must have some. Says which runs fell to zero, lowest
    /// first; runs do not touch.
    pub(crate) fn subtract(&mut self, first: u32, count: u32, mut zero: impl FnMut(u32, u32)) {
        let end = self.end_of(first, count);
        let mut run = (first, first);
        self.subtract_below(self.root(), first, end, &mut |start, stop| {
            if run.1 != start {
                if run.0 < run.1 {
                    zero(run.0, run.1 - run.0);
                }
                run.0 = start;
            }
            run.1 = stop;
        });
        if run.0 < run.1 {
            zero(run.0, run.1 - run.0);
        }
    }

    /// Whether all of `count` pages from `first` on have zero.
    pub(crate) fn all_zero(&self, first: u32, count: u32) -> bool {
        let end = self.end_of(first, count);
        self.all_zero_below(self.root(), first, end, 0)
    }

    /// The count of each page in turn.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        (0..self.pages).map(|page| {
            let mut node = (self.blocks + page / BLOCK) as usize;
            let mut count = self.counts[page as usize];
            while node > 0 {
                count = count.wrapping_add(self.nodes[node].pending);
                node /= 2;
            }
            count
        })
    }

    fn end_of(&self, first: u32, count: u32) -> u32 {
        let end = first.checked_add(count).filter(|&end| end <= self.pages);
        end.expect("the caller checked the run against the segment")
    }

    fn root(&self) -> Below {
        Below { node: 1, start: 0, end: self.pages }
    }

    /// The children of a node, those that have pages; `None` for the lowest nodes.
    fn children(&self, below: Below) -> Option<[Below; 2]> {
        if below.node >= self.blocks as usize {
            return None;
        }
        // The blocks of a node are a power of two: half of them are the left child's.
        let height = self.blocks.ilog2() - below.node.ilog2();
        let half = u64::from(BLOCK) << (height - 1);
        let middle = (u64::from(below.start) + half).min(u64::from(below.end)) as u32;
        Some([
            Below { node: 2 * below.node, start: below.start, end: middle },
            Below { node: 2 * below.node + 1, start: middle, end: below.end },
        ])
    }

    /// Hands what is pending at a node on to what is below it.
    fn hand_down(&mut self, below: Below) {
        let pending = std::mem::take(&mut self.nodes[below.node].pending);
        if pending == 0 {
            return;
        }
        match self.children(below) {
            Some(children) => children.iter().for_each(|child| self.nodes[child.node].raise(pending)),
            None => self.counts[below.start as usize..below.end as usize]
                .iter_mut()
                .for_each(|c| *c = c.wrapping_add(pending)),
        }
    }

    /// Sets a node's summary from what is below it. Nothing may be pending.
    fn sum_up(&mut self, below: Below) {
        let (least, greatest) = match self.children(below) {
            Some([left, right]) => {
                let (l, r) = (self.nodes[left.node], self.nodes[right.node]);
                if right.start == right.end {
                    (l.least, l.greatest)
                } else {
                    (l.least.min(r.least), l.greatest.max(r.greatest))
                }
            }
            None => {
                let counts = &self.counts[below.start as usize..below.end as usize];
                counts.iter().fold((u32::MAX, 0), |(least, greatest), &c| (least.min(c), greatest.max(c)))
            }
        };
        self.nodes[below.node] = Summary { least, greatest, pending: 0 };
    }

    fn add_below(&mut self, below: Below, first: u32, end: u32) -> u32 {
        let (first, end) = (first.max(below.start), end.min(below.end));
        if first >= end {
            return 0;
        }
        let node = &mut self.nodes[below.node];
        if (first, end) == (below.start, below.end) && (node.least > 0 || node.greatest == 0) {
            let were_zero = if node.least > 0 { 0 } else { end - first };
            node.raise(1);
            return were_zero;
        }
        self.hand_down(below);
        let were_zero = match self.children(below) {
            Some(children) => children.iter().map(|&child| self.add_below(child, first, end)).sum(),
            None => {
                let counts = &mut self.counts[first as usize..end as usize];
                counts.iter_mut().map(|c| u32::from(std::mem::replace(c, *c + 1) == 0)).sum()
            }
        };
        self.sum_up(below);
        were_zero
    }

    fn subtract_below(&mut self, below: Below, first: u32, end: u32, zero: &mut impl FnMut(u32, u32)) {
        let (first, end) = (first.max(below.start), end.min(below.end));
        if first >= end {
            return;
        }
        let node = &mut self.nodes[below.node];
        if (first, end) == (below.start, below.end) && (node.least > 1 || (node.least == 1 && node.greatest == 1)) {
            node.raise(MINUS_ONE);
            if node.greatest == 0 {
                zero(first, end);
            }
            return;
        }
        self.hand_down(below);
        match self.children(below) {
            Some(children) => children.iter().for_each(|&child| self.subtract_below(child, first, end, zero)),
            None => {
                for (page, count) in (first..end).zip(&mut self.counts[first as usize..end as usize]) {
                    *count = count.checked_sub(1).expect("the node that is freed covers the page");
                    if *count == 0 {
                        zero(page, page + 1);
                    }
                }
            }
        }
        self.sum_up(below);
    }

    /// `pending` is what has yet to come down from above.
    fn all_zero_below(&self, below: Below, first: u32, end: u32, pending: u32) -> bool {
        let (first, end) = (first.max(below.start), end.min(below.end));
        if first >= end {
            return true;
        }
        let node = self.nodes[below.node];
        let greatest = node.greatest.wrapping_add(pending);
        if greatest == 0 || (first, end) == (below.start, below.end) {
            return greatest == 0;
        }
        let pending = pending.wrapping_add(node.pending);
        match self.children(below) {
            Some(children) => children.iter().all(|&child| self.all_zero_below(child, first, end, pending)),
            None => self.counts[first as usize..end as usize].iter().all(|c| c.wrapping_add(pending) == 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Invariants 1 and 2: agrees with one number for each page.
    fn check(pages: u32, steps: &[(bool, u32, u32)]) {
        let (mut counts, mut model) = (PageCounts::new(pages), vec![0u32; pages as usize]);
        for &(add, first, count) in steps {
            let first = first % pages;
            let count = 1 + count % (pages - first);
            let range = first as usize..(first + count) as usize;
            assert_eq!(counts.all_zero(first, count), model[range.clone()].iter().all(|&c| c == 0));
            if add {
                let were_zero = model[range.clone()].iter().filter(|&&c| c == 0).count();
                assert_eq!(counts.add(first, count), were_zero as u32);
                model[range].iter_mut().for_each(|c| *c += 1);
            } else if model[range.clone()].iter().all(|&c| c > 0) {
                model[range].iter_mut().for_each(|c| *c -= 1);
                let mut zero = Vec::new();
                counts.subtract(first, count, |first, count| zero.push((first, count)));
                assert!(zero.windows(2).all(|w| w[0].0 + w[0].1 < w[1].0), "runs touch: {zero:?}");
                let found: Vec<u32> = zero.iter().flat_map(|&(first, count)| first..first + count).collect();
                let expected: Vec<u32> = (first..first + count).filter(|&p| model[p as usize] == 0).collect();
                assert_eq!(found, expected);
            }
            assert!(counts.iter().eq(model.iter().copied()), "{:?} != {model:?}", counts.iter().collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn agrees_with_flat_counts(
            pages in prop_oneof![1..40u32, 250..270u32, Just(1000)],
            steps in prop::collection::vec((prop::bool::weighted(0.6), any::<u32>(), any::<u32>()), 1..60),
        ) {
            check(pages, &steps);
        }

        /// Whole objects come and go on top of each other, as they do in a pool.
        #[test]
        fn additions_taken_back_in_any_order_leave_zero(
            pages in 1..300u32,
            runs in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u32>()), 1..30),
        ) {
            let mut counts = PageCounts::new(pages);
            let mut runs: Vec<_> = runs.iter().map(|&(order, first, count)| {
                let first = first % pages;
                (order, first, 1 + count % (pages - first))
            }).collect();
            let live: u32 = runs.iter().map(|&(_, first, count)| counts.add(first, count)).sum();
            runs.sort_unstable();
            let mut zero = 0;
            for (_, first, count) in runs {
                counts.subtract(first, count, |_, count| zero += count);
            }
            prop_assert_eq!(live, zero);
            prop_assert!(counts.all_zero(0, pages));
        }
    }

    #[test]
    #[should_panic(expected = "covers the page")]
    fn a_page_without_a_count_has_none_to_take() {
        let mut counts = PageCounts::new(40);
        counts.add(3, 2);
        counts.subtract(3, 3, |_, _| {});
    }
}
