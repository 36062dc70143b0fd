//! A number of bytes as people write it: `4096`, `512KiB`, `1GiB`.

use std::{fmt, str::FromStr};

/// A number of bytes, read and shown in binary units.
///
/// ```
/// use dmrpc_pages::ByteSize;
///
/// let pool: ByteSize = "64MiB".parse().unwrap();
/// assert_eq!(pool, ByteSize(64 << 20));
/// assert_eq!(pool.to_string(), "64MiB");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// The units that are read and shown, largest first, each with its power of two.
const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

/// Why a text is no [`ByteSize`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ByteSizeError {
    /// It is not a number and a unit.
    #[error("{0:?} is no size: write a whole number of bytes, or one with B, KiB, MiB, GiB or TiB after it")]
    Malformed(String),
    /// It is more than a `u64` counts.
    #[error("{0:?} is more than 2^64 - 1 bytes")]
    TooLarge(String),
}

impl ByteSize {
    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ByteSizeError::Malformed(text.to_owned());
        let too_large = || ByteSizeError::TooLarge(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = trimmed.split_at(digits);
        if number.is_empty() {
            return Err(malformed());
        }
        let shift = match unit.trim_start() {
            "" => 0,
            unit => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(malformed)?.1,
        };
        // Only digits, at least one: the number itself can only be too large.
        let number: u64 = number.parse().map_err(|_| too_large())?;
        number.checked_mul(1 << shift).map(ByteSize).ok_or_else(too_large)
    }
}

impl fmt::Display for ByteSize {
    /// The number in the largest unit that it is a whole number of.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |&&(_, shift): &&(&str, u32)| self.0 >> shift << shift == self.0 && self.0 >> shift > 0;
        let (name, shift) = UNITS.iter().find(whole).unwrap_or(&("B", 0));
        write!(f, "{}{name}", self.0 >> shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_people_write_it() {
        for (text, bytes) in [("4096", 4096), ("512KiB", 512 << 10), ("1GiB", 1 << 30), ("2 TiB", 2 << 40), ("7B", 7)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "KiB", "-1", "1.5GiB", "1GB", "1 G i B", "١KiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(ByteSizeError::Malformed(text.to_owned())), "{text}");
        }
        for text in ["18446744073709551616", "16777216TiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(ByteSizeError::TooLarge(text.to_owned())), "{text}");
        }
        assert_eq!(ByteSize(0).to_string(), "0B");
        assert_eq!(ByteSize(1536).to_string(), "1536B");
    }

    proptest! {
        #[test]
        fn shown_is_read_back(number: u64, shift in 0..64u32) {
            let size = ByteSize(number << shift);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn any_text_is_survived(text: String) {
            let _ = text.parse::<ByteSize>();
        }
    }
}
