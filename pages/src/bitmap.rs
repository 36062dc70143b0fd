//! A bitmap with summaries, so that the first set bit from anywhere on is found in a handful of steps.
//!
//! Level 0 has the bits. A bit of level n + 1 is set when the word of level n that it stands for is not 0; the top level
//! is one word. 2^32 bits make six levels, a segment of 1 GiB in 4 KiB pages three.
//!
//! 1. A bit of a level above 0 is set if and only if its word below is not 0.

/// Bits a word, as a shift.
const WORD_SHIFT: u32 = 6;

#[derive(Clone, Debug)]
pub(crate) struct Bitmap {
    /// The words of each level, the bits themselves first. Never empty.
    levels: Vec<Vec<u64>>,
}

impl Bitmap {
    /// `bits` bits, none set.
    pub(crate) fn new(bits: u32) -> Self {
        let mut words = bits.div_ceil(1 << WORD_SHIFT).max(1);
        let mut levels = vec![vec![0; words as usize]];
        while words > 1 {
            words = words.div_ceil(1 << WORD_SHIFT);
            levels.push(vec![0; words as usize]);
        }
        Self { levels }
    }

    /// Whether `bit` is set; `false` for one that is not there.
    pub(crate) fn contains(&self, bit: u32) -> bool {
        self.levels[0].get(word(bit)).is_some_and(|word| word & mask(bit) != 0)
    }

    pub(crate) fn set(&mut self, mut bit: u32) {
        for level in &mut self.levels {
            let word = &mut level[word(bit)];
            let was = *word;
            *word |= mask(bit);
            if was != 0 {
                return;
            }
            bit >>= WORD_SHIFT;
        }
    }

    /// Clears `bit`; returns whether no bit is set any more.
    pub(crate) fn clear(&mut self, mut bit: u32) -> bool {
        for level in &mut self.levels {
            let word = &mut level[word(bit)];
            *word &= !mask(bit);
            if *word != 0 {
                return false;
            }
            bit >>= WORD_SHIFT;
        }
        true
    }

    /// The first set bit that is not before `from`.
    pub(crate) fn first_from(&self, from: u32) -> Option<u32> {
        // Up, until a word has something at or after the place; then down along the first bits of the words.
        let mut from = from;
        for (height, level) in self.levels.iter().enumerate() {
            let rest = level.get(word(from))? & (u64::MAX << (from & 63));
            if rest != 0 {
                let mut bit = from & !63 | rest.trailing_zeros();
                for below in self.levels[..height].iter().rev() {
                    bit = bit << WORD_SHIFT | below[bit as usize].trailing_zeros();
                }
                return Some(bit);
            }
            // The word itself is done: go on behind it.
            from = (from >> WORD_SHIFT) + 1;
        }
        None
    }
}

fn word(bit: u32) -> usize {
    (bit >> WORD_SHIFT) as usize
}

fn mask(bit: u32) -> u64 {
    1 << (bit & 63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn agrees_with_a_set(
            bits in prop_oneof![1..200u32, 4000..5000u32, 262_100..262_200u32],
            steps in prop::collection::vec((any::<bool>(), any::<u32>(), any::<u32>()), 1..100),
        ) {
            let mut bitmap = Bitmap::new(bits);
            let mut model = BTreeSet::new();
            for (add, bit, from) in steps {
                let bit = bit % bits;
                if add {
                    bitmap.set(bit);
                    model.insert(bit);
                } else if let Some(&bit) = model.range(bit..).next() {
                    model.remove(&bit);
                    prop_assert_eq!(bitmap.clear(bit), model.is_empty());
                }
                let from = from % (bits + 1);
                prop_assert_eq!(bitmap.first_from(from), model.range(from..).next().copied());
                prop_assert_eq!(bitmap.first_from(0), model.first().copied());
                prop_assert_eq!(bitmap.contains(bit), model.contains(&bit));
            }
        }
    }
}
