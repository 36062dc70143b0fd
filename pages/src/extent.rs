//! Extents: runs of adjacent pages in one segment, and holes, which read as zeros and have no memory.

use std::fmt;

/// The name of a segment within one memory node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct SegmentId(pub u32);

impl SegmentId {
    /// Not a segment: an extent of it reads as zeros and has no memory.
    pub const HOLE: SegmentId = SegmentId(u32::MAX);
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::HOLE { f.write_str("hole") } else { write!(f, "s{}", self.0) }
    }
}

/// A run of `count` adjacent pages of one segment, from page `first` on.
///
/// The fields are open because extents come from peers as they are; [`is_valid`](Extent::is_valid) says whether one makes
/// sense, and no method panics on one that does not.
///
/// ```
/// use dmrpc_pages::{Extent, SegmentId};
///
/// let extent = Extent::new(SegmentId(3), 10, 6);
/// let (head, tail) = extent.split_at(2).unwrap();
/// assert_eq!(tail, Extent::new(SegmentId(3), 12, 4));
/// assert_eq!(head.join(tail), Some(extent));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// The segment whose pages these are, or [`SegmentId::HOLE`].
    pub segment: SegmentId,
    /// The first page; 0 in a hole.
    pub first: u32,
    /// How many pages.
    pub count: u32,
}

impl Extent {
    /// The pages `first .. first + count` of `segment`, unchecked.
    pub const fn new(segment: SegmentId, first: u32, count: u32) -> Self {
        Self { segment, first, count }
    }

    /// A hole: `count` pages that read as zeros.
    pub const fn hole(count: u32) -> Self {
        Self::new(SegmentId::HOLE, 0, count)
    }

    /// Whether this reads as zeros and has no memory.
    pub fn is_hole(self) -> bool {
        self.segment == SegmentId::HOLE
    }

    /// The page after the last.
    pub fn end(self) -> u64 {
        u64::from(self.first) + u64::from(self.count)
    }

    /// Whether this has pages, all with a number that fits a `u32`; and starts at 0 if it is a hole.
    pub fn is_valid(self) -> bool {
        self.count > 0 && self.end() <= 1 << 32 && (!self.is_hole() || self.first == 0)
    }

    /// The first `pages` pages and the rest; `None` unless both have some, or if the rest would start past the last page
    /// that there can be.
    pub fn split_at(self, pages: u32) -> Option<(Extent, Extent)> {
        let rest = self.count.checked_sub(pages).filter(|&rest| rest > 0 && pages > 0)?;
        let first = if self.is_hole() { 0 } else { self.first.checked_add(pages)? };
        Some((Self { count: pages, ..self }, Self { first, count: rest, ..self }))
    }

    /// Whether this and `next` are one run: adjacent in the same segment, or both holes; and not too long to be one extent.
    pub fn joins(self, next: Extent) -> bool {
        self.segment == next.segment
            && (self.is_hole() || self.end() == u64::from(next.first))
            && self.count.checked_add(next.count).is_some()
    }

    /// This and `next` as one extent, if they [join](Extent::joins).
    pub fn join(self, next: Extent) -> Option<Extent> {
        self.joins(next).then(|| Self { count: self.count + next.count, ..self })
    }
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}..{}]", self.segment, self.first, self.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The pages of an extent, one by one: the model.
    fn pages(extent: Extent) -> Vec<(SegmentId, u64)> {
        let step = u64::from(!extent.is_hole());
        (0..u64::from(extent.count)).map(|i| (extent.segment, u64::from(extent.first) + i * step)).collect()
    }

    fn extents() -> impl Strategy<Value = Extent> {
        prop_oneof![
            (0..2u32, 0..8u32, 0..8u32).prop_map(|(segment, first, count)| Extent::new(
                SegmentId(segment),
                first,
                count
            )),
            (0..8u32).prop_map(Extent::hole),
            (0..4u32, 0..8u32).prop_map(|(back, count)| Extent::new(SegmentId(0), u32::MAX - back, count)),
        ]
    }

    proptest! {
        #[test]
        fn split_parts_are_the_whole(extent in extents(), at in 0..9u32) {
            match extent.split_at(at) {
                Some((head, tail)) => {
                    prop_assert_eq!([pages(head), pages(tail)].concat(), pages(extent));
                    prop_assert_eq!((head.count, head.count + tail.count), (at, extent.count));
                    prop_assert_eq!(head.join(tail), Some(extent));
                }
                None => prop_assert!(at == 0 || at >= extent.count || !extent.is_valid()),
            }
        }

        #[test]
        fn joined_pages_are_both(a in extents(), b in extents()) {
            if let Some(joined) = a.join(b) {
                prop_assert_eq!(pages(joined), [pages(a), pages(b)].concat());
            }
        }
    }

    #[test]
    fn too_long_does_not_join() {
        assert!(Extent::hole(u32::MAX - 1).joins(Extent::hole(1)));
        assert!(!Extent::hole(u32::MAX).joins(Extent::hole(1)));
    }

    #[test]
    fn validity() {
        assert!(Extent::new(SegmentId(0), u32::MAX, 1).is_valid());
        assert!(!Extent::new(SegmentId(0), u32::MAX, 2).is_valid());
        assert!(!Extent::new(SegmentId(0), 1, 0).is_valid());
        assert!(!Extent::new(SegmentId::HOLE, 1, 1).is_valid());
        assert_eq!(format!("{} {}", Extent::new(SegmentId(1), 2, 3), Extent::hole(4)), "s1[2..5] hole[0..4]");
    }
}
