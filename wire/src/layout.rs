//! Taking fixed layouts off the front of a byte slice.

use dmrpc_pages::{Extent, SegmentId};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes that no honest peer of this version sends. What exactly was wrong is in the field, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub &'static str);

/// An [`Extent`] as it lies in messages: segment, first page, number of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawExtent {
    segment: U32,
    first: U32,
    count: U32,
}

const _: () = assert!(size_of::<RawExtent>() == 12);

impl From<Extent> for RawExtent {
    fn from(extent: Extent) -> Self {
        Self { segment: extent.segment.0.into(), first: extent.first.into(), count: extent.count.into() }
    }
}

impl From<RawExtent> for Extent {
    fn from(raw: RawExtent) -> Self {
        Self { segment: SegmentId(raw.segment.get()), first: raw.first.get(), count: raw.count.get() }
    }
}

/// The unread rest of a head.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `T`, by reference: layouts have no alignment.
    pub(crate) fn take<T>(&mut self) -> Result<&'a T, Malformed>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let (value, rest) = T::ref_from_prefix(self.0).map_err(|_| Malformed("shorter than its layout"))?;
        self.0 = rest;
        Ok(value)
    }

    /// The next `count` values of `T`.
    pub(crate) fn take_slice<T>(&mut self, count: usize) -> Result<&'a [T], Malformed>
    where
        T: FromBytes + Immutable + Unaligned,
    {
        let (values, rest) =
            <[T]>::ref_from_prefix_with_elems(self.0, count).map_err(|_| Malformed("fewer entries than it says"))?;
        self.0 = rest;
        Ok(values)
    }

    /// Ends the reading: anything left over is not ours to ignore.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("longer than its layout")) }
    }

    /// What is left, for layouts that are followed by others.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

pub(crate) fn push<T: IntoBytes + Immutable + ?Sized>(out: &mut Vec<u8>, value: &T) {
    out.extend_from_slice(value.as_bytes());
}
