//! Packet numbers, which wrap.

use std::fmt;

/// The number of a packet of one session and direction. Numbers wrap; those in use at a time lie within 2^31 of each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Sequence(pub u32);

impl Sequence {
    /// The packet `count` after this.
    pub fn after(self, count: u32) -> Self {
        Self(self.0.wrapping_add(count))
    }

    /// How many packets this is after `other`; negative if before.
    pub fn distance_from(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// Whether this comes before `other`.
    pub fn is_before(self, other: Self) -> bool {
        self.distance_from(other) < 0
    }

    /// The place of this in `first .. first + count`; `None` outside.
    pub fn place_in(self, first: Self, count: usize) -> Option<usize> {
        let place = self.0.wrapping_sub(first.0) as usize;
        (place < count).then_some(place)
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap() {
        let last = Sequence(u32::MAX - 1);
        assert_eq!(last.after(3), Sequence(1));
        assert!(last.is_before(last.after(3)) && !last.after(3).is_before(last));
        assert_eq!(last.after(3).distance_from(last), 3);
        assert_eq!((last.after(3).place_in(last, 4), last.place_in(last.after(1), 4)), (Some(3), None));
    }
}
