//! The fixed part of every message of a link between systems. `docs/actors.md` draws it.
//!
//! 1. Decoding never panics, and refuses what it does not wholly understand.
//! 2. What is encoded decodes to the same.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The version that both ends must speak.
pub(crate) const VERSION: u32 = 2;

/// What a hello begins with: `DmAc`, little endian.
pub(crate) const MAGIC: u32 = 0x6341_6d44;

/// The longest name of an actor or method, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 256;

/// Payload and table are in the body and not in the head.
const FLAG_IN_BODY: u8 = 1;

/// The kind of a message. The numbers stand on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Hello = 1,
    Lookup = 2,
    Ask = 3,
    Tell = 4,
    Reply = 5,
    Cancel = 6,
    Return = 7,
    Bye = 8,
    Gone = 9,
    Watch = 10,
}

impl Kind {
    fn from_wire(number: u8) -> Option<Self> {
        use Kind::*;
        [Hello, Lookup, Ask, Tell, Reply, Cancel, Return, Bye, Gone, Watch]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    kind: u8,
    codec: u8,
    flags: u8,
    attachments: u8,
    request: U32,
    target: U32,
    message: U32,
    timeout_ms: U32,
    name_len: U16,
    refs: U16,
    payload_len: U32,
    table_len: U32,
}

/// Size of the fixed part.
pub(crate) const HEADER_BYTES: usize = size_of::<Raw>();

const _: () = assert!(HEADER_BYTES == 32);

/// A message without its body, borrowed from the head that it lies in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: Kind,
    /// As it came: unknown codecs are answered, not refused.
    pub(crate) codec: u8,
    pub(crate) request: u32,
    pub(crate) target: u32,
    pub(crate) message: u32,
    pub(crate) timeout_ms: u32,
    pub(crate) name: &'a str,
    pub(crate) refs: u16,
    pub(crate) data: Data<'a>,
    /// Sizes of the attachments, as they came; [`Frame::encode`] has them apart.
    pub(crate) attachments: &'a [U64],
}

/// Where payload and table are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Data<'a> {
    Head { payload: &'a [u8], table: &'a [u8] },
    Body { payload_len: u32, table_len: u32 },
}

/// A head that no honest peer of this version sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed head: {0}")]
pub(crate) struct BadHead(pub(crate) &'static str);

impl<'a> Frame<'a> {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            codec: 0,
            request: 0,
            target: 0,
            message: 0,
            timeout_ms: 0,
            name: "",
            refs: 0,
            data: Data::Head { payload: &[], table: &[] },
            attachments: &[],
        }
    }

    /// Sizes of the attachments.
    pub(crate) fn attachments(&self) -> impl ExactSizeIterator<Item = u64> + 'a {
        self.attachments.iter().map(|len| len.get())
    }

    /// Appends the head. `attachments` are at most 255, name and table as long as their fields can say.
    pub(crate) fn encode(&self, attachments: impl ExactSizeIterator<Item = u64>, out: &mut Vec<u8>) {
        let (flags, payload_len, table_len) = match self.data {
            Data::Head { payload, table } => (0, payload.len() as u32, table.len() as u32),
            Data::Body { payload_len, table_len } => (FLAG_IN_BODY, payload_len, table_len),
        };
        debug_assert!(self.name.len() <= MAX_NAME_BYTES && attachments.len() <= 255);
        let raw = Raw {
            kind: self.kind as u8,
            codec: self.codec,
            flags,
            attachments: attachments.len() as u8,
            request: self.request.into(),
            target: self.target.into(),
            message: self.message.into(),
            timeout_ms: self.timeout_ms.into(),
            name_len: (self.name.len() as u16).into(),
            refs: self.refs.into(),
            payload_len: payload_len.into(),
            table_len: table_len.into(),
        };
        out.extend_from_slice(raw.as_bytes());
        out.extend_from_slice(self.name.as_bytes());
        for len in attachments {
            out.extend_from_slice(&len.to_le_bytes());
        }
        if let Data::Head { payload, table } = self.data {
            out.extend_from_slice(payload);
            out.extend_from_slice(table);
        }
    }

    /// Parses a head that comes with a body of `body_len` bytes.
    pub(crate) fn decode(head: &'a [u8], body_len: u64) -> Result<Self, BadHead> {
        let (raw, rest) = Raw::ref_from_prefix(head).map_err(|_| BadHead("shorter than its fixed part"))?;
        let kind = Kind::from_wire(raw.kind).ok_or(BadHead("unknown kind"))?;
        if raw.flags & !FLAG_IN_BODY != 0 {
            return Err(BadHead("unknown flags"));
        }
        let name_len = usize::from(raw.name_len.get());
        if name_len > MAX_NAME_BYTES {
            return Err(BadHead("name too long"));
        }
        let (name, rest) = rest.split_at_checked(name_len).ok_or(BadHead("cut in its name"))?;
        let name = std::str::from_utf8(name).map_err(|_| BadHead("name that is not UTF-8"))?;
        let (attachments, rest) = <[U64]>::ref_from_prefix_with_elems(rest, usize::from(raw.attachments))
            .map_err(|_| BadHead("cut in its lengths"))?;
        let (payload_len, table_len) = (raw.payload_len.get(), raw.table_len.get());
        let attached = attachments.iter().try_fold(0_u64, |sum, len| sum.checked_add(len.get()));
        let mut expected = attached.ok_or(BadHead("attachments without end"))?;
        let data = if raw.flags & FLAG_IN_BODY == 0 {
            let (payload, rest) = rest.split_at_checked(payload_len as usize).ok_or(BadHead("cut in its payload"))?;
            if rest.len() != table_len as usize {
                return Err(BadHead("of another length than it says"));
            }
            Data::Head { payload, table: rest }
        } else {
            if !rest.is_empty() {
                return Err(BadHead("longer than it says"));
            }
            let data_len = u64::from(payload_len) + u64::from(table_len);
            expected = expected.checked_add(data_len).ok_or(BadHead("attachments without end"))?;
            Data::Body { payload_len, table_len }
        };
        if expected != body_len {
            return Err(BadHead("with another body than it says"));
        }
        Ok(Self {
            kind,
            codec: raw.codec,
            request: raw.request.get(),
            target: raw.target.get(),
            message: raw.message.get(),
            timeout_ms: raw.timeout_ms.get(),
            name,
            refs: raw.refs.get(),
            data,
            attachments,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(frame: Frame<'_>, attachments: &[u64], body_len: u64) {
        let mut head = Vec::new();
        frame.encode(attachments.iter().copied(), &mut head);
        let decoded = Frame::decode(&head, body_len).expect("own encoding");
        assert_eq!(decoded.attachments().collect::<Vec<_>>(), attachments);
        assert_eq!(Frame { attachments: frame.attachments, ..decoded }, frame);
        assert!(Frame::decode(&head, body_len + 1).is_err());
        for cut in 0..head.len() {
            assert!(Frame::decode(&head[..cut], body_len).is_err(), "cut at {cut}");
        }
        head.push(0);
        assert!(Frame::decode(&head, body_len).is_err());
    }

    /// Invariants 1 and 2.
    #[test]
    fn what_is_encoded_decodes_and_cuts_do_not() {
        let frame = Frame { codec: 1, request: 2, target: 3, message: 4, timeout_ms: 5, ..Frame::new(Kind::Ask) };
        check(Frame { name: "add", data: Data::Head { payload: b"abc", table: b"de" }, refs: 1, ..frame }, &[], 0);
        check(Frame { data: Data::Body { payload_len: 7, table_len: 9 }, ..frame }, &[100, 0], 116);
    }

    /// Invariant 1.
    #[test]
    fn lengths_without_end_are_refused() {
        let mut head = Vec::new();
        Frame::new(Kind::Ask).encode([u64::MAX, 2].into_iter(), &mut head);
        assert!(Frame::decode(&head, 1).is_err());
        head[0] = 0;
        assert_eq!(Frame::decode(&head, 1), Err(BadHead("unknown kind")));
    }
}
