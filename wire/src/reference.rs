//! References as they travel in messages between actors.

use crate::layout::{Reader, push};
use crate::{Malformed, ObjectId, RawExtent};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most extents that travel with a reference. An object in more pieces is resolved at its node.
pub const MAX_REF_EXTENTS: usize = 4;

const KIND_STORED: u8 = 0;
const KIND_INLINE: u8 = 1;

/// The fixed part of a reference.
///
/// ```text
/// byte 0                        24       32       40       48      56     57      58        59  60       64
///      +------------------------+--------+--------+--------+-------+------+-------+---------+---+--------+
///      | object id              | offset | length | size   | loan  | kind | codec | extents | 0 | inline |
///      +------------------------+--------+--------+--------+-------+------+-------+---------+---+--------+
/// ```
///
/// then `extents` × 12 bytes of [`RawExtent`], or `inline` bytes of the value itself.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawRef {
    id: ObjectId,
    offset: U64,
    length: U64,
    size: U64,
    loan: U64,
    kind: u8,
    codec: u8,
    extents: u8,
    reserved: u8,
    inline: U32,
}

const _: () = assert!(size_of::<RawRef>() == 64);

/// What a reference brings with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inlined<'a> {
    /// An object in a memory node, and the pages that cover `offset .. offset + length`, in order; none if they are too many.
    Stored(&'a [RawExtent]),
    /// The bytes themselves: no memory node knows of them.
    Bytes(&'a [u8]),
}

/// A reference as it travels: which object, which bytes of it, and under which loan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WireRef<'a> {
    /// The object; [`ObjectId::NULL`] for inline bytes.
    pub id: ObjectId,
    /// First byte of the range that is referred to.
    pub offset: u64,
    /// Number of bytes that are referred to.
    pub length: u64,
    /// Size of the whole object in bytes.
    pub size: u64,
    /// The sender's name for this loan, to be given back when the receiver is done; 0 for none.
    pub loan: u64,
    /// How the bytes are to be understood; the object store's affair.
    pub codec: u8,
    /// Where the bytes are.
    pub bytes: Inlined<'a>,
}

impl<'a> WireRef<'a> {
    /// Appends the reference to `out`.
    ///
    /// # Panics
    ///
    /// With more than [`MAX_REF_EXTENTS`] extents or 4 GiB of inline bytes, which would be our own bug.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, extents, inline) = match self.bytes {
            Inlined::Stored(extents) => (KIND_STORED, extents.len(), 0),
            Inlined::Bytes(bytes) => (KIND_INLINE, 0, bytes.len()),
        };
        assert!(extents <= MAX_REF_EXTENTS, "the caller chose to send {extents} extents");
        push(
            out,
            &RawRef {
                id: self.id,
                offset: self.offset.into(),
                length: self.length.into(),
                size: self.size.into(),
                loan: self.loan.into(),
                kind,
                codec: self.codec,
                extents: extents as u8,
                reserved: 0,
                inline: u32::try_from(inline).expect("inline bytes are few").into(),
            },
        );
        match self.bytes {
            Inlined::Stored(extents) => push(out, extents),
            Inlined::Bytes(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// Takes one reference off the front of `bytes`; returns it and what follows.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is cut short, its range lies outside its object, or its parts contradict each other.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let mut reader = Reader::new(bytes);
        let raw: &RawRef = reader.take()?;
        if raw.reserved != 0 || usize::from(raw.extents) > MAX_REF_EXTENTS {
            return Err(Malformed("reference with unknown parts"));
        }
        let end = raw.offset.get().checked_add(raw.length.get());
        if end.is_none_or(|end| end > raw.size.get()) {
            return Err(Malformed("reference to bytes outside its object"));
        }
        let inlined = match raw.kind {
            KIND_STORED if raw.inline.get() == 0 => Inlined::Stored(reader.take_slice(raw.extents.into())?),
            KIND_INLINE if raw.extents == 0 && u64::from(raw.inline.get()) == raw.size.get() => {
                Inlined::Bytes(reader.take_slice(raw.inline.get() as usize)?)
            }
            _ => return Err(Malformed("reference of unknown kind")),
        };
        let reference = Self {
            id: raw.id,
            offset: raw.offset.get(),
            length: raw.length.get(),
            size: raw.size.get(),
            loan: raw.loan.get(),
            codec: raw.codec,
            bytes: inlined,
        };
        Ok((reference, reader.rest()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeId, SlotLease};
    use dmrpc_pages::{Extent, SegmentId};

    #[test]
    fn what_is_encoded_decodes() {
        let extents = [RawExtent::from(Extent { segment: SegmentId(3), first: 7, count: 2 })];
        let stored = WireRef {
            id: ObjectId::new(NodeId(1), SlotLease::new(2, 3), [9; 12]),
            offset: 10,
            length: 8000,
            size: 8192,
            loan: 77,
            codec: 1,
            bytes: Inlined::Stored(&extents),
        };
        let inline = WireRef {
            id: ObjectId::NULL,
            offset: 1,
            length: 2,
            size: 3,
            loan: 0,
            codec: 0,
            bytes: Inlined::Bytes(b"abc"),
        };
        let mut bytes = Vec::new();
        stored.encode(&mut bytes);
        inline.encode(&mut bytes);
        let (first, rest) = WireRef::decode(&bytes).expect("own encoding");
        let (second, rest) = WireRef::decode(rest).expect("own encoding");
        assert_eq!((first, second, rest), (stored, inline, &[][..]));
        for cut in 0..bytes.len() {
            // Every cut is either an error or ends exactly between the two.
            let mut rest = &bytes[..cut];
            while let Ok((_, after)) = WireRef::decode(rest) {
                rest = after;
            }
            assert!(cut == 0 || cut == 76 || !rest.is_empty());
        }
    }

    #[test]
    fn a_range_outside_the_object_is_refused() {
        let mut bytes = Vec::new();
        WireRef { id: ObjectId::NULL, offset: 0, length: 3, size: 3, loan: 0, codec: 0, bytes: Inlined::Bytes(b"abc") }
            .encode(&mut bytes);
        bytes[32] = 4;
        assert!(WireRef::decode(&bytes).is_err());
        bytes[32] = 3;
        bytes[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(WireRef::decode(&bytes).is_err());
    }
}
