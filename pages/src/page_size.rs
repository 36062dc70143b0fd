//! The size of a page, the unit of copy-on-write.

use std::{fmt, str::FromStr};

use crate::{ByteSize, ByteSizeError};

/// The size of a page: a power of two from 4 KiB to 2 MiB, 4 KiB by default, fixed when a pool is made.
///
/// ```
/// use dmrpc_pages::PageSize;
///
/// let size: PageSize = "64KiB".parse().unwrap();
/// assert_eq!((size.bytes(), size.shift()), (65536, 16));
/// assert_eq!(size.pages_for(65537), Some(2));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize {
    shift: u8,
}

/// Why a number or a text is no [`PageSize`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageSizeError {
    /// Not a power of two between the limits.
    #[error("a page cannot have {0} bytes: choose a power of two from 4KiB to 2MiB")]
    Unsupported(u64),
    /// Not a size at all.
    #[error(transparent)]
    Malformed(#[from] ByteSizeError),
}

impl PageSize {
    /// The smallest page, 4 KiB: what the hardware can map.
    pub const MIN: PageSize = PageSize { shift: 12 };
    /// The largest page, 2 MiB: one huge page of the hardware.
    pub const MAX: PageSize = PageSize { shift: 21 };

    /// Pages of `bytes` bytes.
    ///
    /// # Errors
    /// [`PageSizeError::Unsupported`] unless `bytes` is a power of two from 4 KiB to 2 MiB.
    pub const fn new(bytes: u64) -> Result<Self, PageSizeError> {
        if bytes.is_power_of_two() && bytes >= Self::MIN.bytes() && bytes <= Self::MAX.bytes() {
            Ok(Self { shift: bytes.trailing_zeros() as u8 })
        } else {
            Err(PageSizeError::Unsupported(bytes))
        }
    }

    /// Bytes a page.
    pub const fn bytes(self) -> u64 {
        1 << self.shift
    }

    /// The power of two that [`bytes`](PageSize::bytes) is.
    pub const fn shift(self) -> u32 {
        self.shift as u32
    }

    /// How many pages hold `byte_len` bytes; `None` if they are more than a `u32` counts.
    pub fn pages_for(self, byte_len: u64) -> Option<u32> {
        u32::try_from(byte_len.div_ceil(self.bytes())).ok()
    }
}

impl Default for PageSize {
    fn default() -> Self {
        Self::MIN
    }
}

impl FromStr for PageSize {
    type Err = PageSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text.parse::<ByteSize>()?.bytes())
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ByteSize(self.bytes()).fmt(f)
    }
}

impl fmt::Debug for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_that_there_are() {
        let good: Vec<_> = (0..64).filter_map(|shift| PageSize::new(1 << shift).ok()).collect();
        assert_eq!(good.len(), 10);
        assert_eq!((good[0], good[9], good[0]), (PageSize::MIN, PageSize::MAX, PageSize::default()));
        for size in good {
            assert_eq!(size.to_string().parse(), Ok(size));
            assert_eq!(1 << size.shift(), size.bytes());
            assert_eq!(PageSize::new(size.bytes() + 1), Err(PageSizeError::Unsupported(size.bytes() + 1)));
        }
        assert_eq!("4096".parse(), Ok(PageSize::MIN));
        assert_eq!("2MiB".parse(), Ok(PageSize::MAX));
        assert_eq!("4MiB".parse::<PageSize>(), Err(PageSizeError::Unsupported(4 << 20)));
        assert!(matches!("page".parse::<PageSize>(), Err(PageSizeError::Malformed(_))));
        assert_eq!(PageSize::new(0), Err(PageSizeError::Unsupported(0)));
    }

    proptest! {
        #[test]
        fn pages_hold_the_bytes_and_one_less_would_not(byte_len: u64, less in 0..64u32, shift in 12..=21u32) {
            let (size, byte_len) = (PageSize::new(1 << shift).unwrap(), byte_len >> less);
            match size.pages_for(byte_len) {
                Some(0) => prop_assert_eq!(byte_len, 0),
                Some(pages) => {
                    prop_assert!(u64::from(pages) * size.bytes() >= byte_len);
                    prop_assert!(u64::from(pages - 1) * size.bytes() < byte_len);
                }
                None => prop_assert!(byte_len > u64::from(u32::MAX) * size.bytes()),
            }
        }
    }
}
