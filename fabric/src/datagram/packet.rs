//! The bytes of a datagram.
//!
//! ```text
//! byte 0       1      2            4           8         12         16       20       24          28           32         36
//!      +-------+------+------------+-----------+---------+----------+--------+--------+-----------+------------+----------+
//!      | ver.  | kind | payload    | session   | token   | sequence | ack    | limit  | fragment  | ack delay  | checksum |
//!      |       |      | bytes      | of the receiver     |          |        |        |           | ns         |          |
//!      +-------+------+------------+-----------+---------+----------+--------+--------+-----------+------------+----------+
//! ```
//!
//! then the payload, and whatever the network pads a frame with, which is ignored. The checksum is the CRC-32 of header (with
//! this field 0) and payload, or 0 between devices that never deliver a damaged frame.

use super::sequence::Sequence;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The version of this protocol; a datagram of another is dropped.
pub const VERSION: u8 = 1;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 36;
/// The most words of a selective acknowledgement, of 64 packets each.
pub const MAX_SACK_WORDS: usize = 16;

/// What a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Asks for a session.
    Hello = 1,
    /// Grants it.
    Welcome = 2,
    /// Brings a fragment of a message.
    Data = 3,
    /// Says what has arrived, and how much more may come.
    Ack = 4,
    /// Asks for an acknowledgement.
    Probe = 5,
    /// Ends the session.
    Bye = 6,
    /// There is no such session here.
    Reset = 7,
}

impl Kind {
    fn from_wire(number: u8) -> Option<Self> {
        use Kind::*;
        [Hello, Welcome, Data, Ack, Probe, Bye, Reset].get(usize::from(number).checked_sub(1)?).copied()
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    version: u8,
    kind: u8,
    payload: U16,
    session: U32,
    token: U32,
    sequence: U32,
    ack: U32,
    limit: U32,
    fragment: U32,
    ack_delay_ns: U32,
    checksum: U32,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);

impl RawHeader {
    /// The checksum of a header and its payload.
    #[cold]
    fn sum(&self, payload: &[u8]) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(Self { checksum: U32::ZERO, ..*self }.as_bytes());
        crc.update(payload);
        nonzero(crc.finalize())
    }
}

/// A session's address at the end that made it: where in its table, and proof that the sender was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionName {
    /// The index in the table.
    pub index: u32,
    /// Drawn at random when the session was made.
    pub token: u32,
}

/// The header of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is for.
    pub kind: Kind,
    /// The receiver's session.
    pub to: SessionName,
    /// Number of this packet, in [`Kind::Data`]: it names the fragment, and stays the same when it is sent again.
    pub sequence: Sequence,
    /// The first packet that the sender of this has not received.
    pub ack: Sequence,
    /// The first packet that the sender of this has no room for.
    pub limit: Sequence,
    /// Which fragment of its message this is.
    pub fragment: u32,
    /// How long ago the newest packet that this acknowledges came in.
    pub ack_delay_ns: u32,
}

/// What a [`Kind::Hello`] and a [`Kind::Welcome`] say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Greeting {
    /// The sender's index for the session.
    pub index: U32,
    /// The sender's token for it.
    pub token: U32,
    /// The longest payload that the sender takes, in bytes.
    pub payload_bytes: U16,
    /// Bit 0: datagrams must bear a checksum.
    pub features: U16,
    /// Packets that the sender has room for.
    pub window: U32,
    /// Drawn by the client for each attempt; repeated in the welcome.
    pub attempt: U64,
}

const _: () = assert!(size_of::<Greeting>() == 24);

/// [`Greeting::features`]: every datagram bears a checksum.
pub const FEATURE_CHECKSUM: u16 = 1;

/// The first bytes of a message's first fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct MessagePrefix {
    /// Length of the head in bytes.
    pub head: U32,
    /// Length of the body in bytes.
    pub body: U64,
}

/// [`MessagePrefix::head`] of the last message, which says that there are no more.
pub const END_OF_MESSAGES: u32 = u32::MAX;

/// Bytes of a [`MessagePrefix`].
pub const PREFIX_BYTES: usize = 12;
const _: () = assert!(size_of::<MessagePrefix>() == PREFIX_BYTES);

impl Header {
    /// The header's bytes in front of a payload of `payload` bytes, which `pieces` gives if a checksum is wanted.
    #[inline]
    pub fn encode(&self, payload: usize, pieces: Option<&mut dyn Iterator<Item = &[u8]>>) -> [u8; HEADER_BYTES] {
        let mut raw = RawHeader {
            version: VERSION,
            kind: self.kind as u8,
            payload: u16::try_from(payload).expect("payloads are cut to fit a datagram").into(),
            session: self.to.index.into(),
            token: self.to.token.into(),
            sequence: self.sequence.0.into(),
            ack: self.ack.0.into(),
            limit: self.limit.0.into(),
            fragment: self.fragment.into(),
            ack_delay_ns: self.ack_delay_ns.into(),
            checksum: U32::ZERO,
        };
        if let Some(pieces) = pieces {
            let mut crc = crc32fast::Hasher::new();
            crc.update(raw.as_bytes());
            pieces.for_each(|piece| crc.update(piece));
            raw.checksum = nonzero(crc.finalize()).into();
        }
        raw.as_bytes().try_into().expect("the layout's size is asserted")
    }

    /// Takes a datagram apart; `None` if it is not of this protocol, cut short, or damaged. One without a checksum is taken as
    /// undamaged unless `checked`.
    #[inline]
    pub fn decode(datagram: &[u8], checked: bool) -> Option<(Self, &[u8])> {
        let (raw, rest) = RawHeader::ref_from_prefix(datagram).ok()?;
        let payload = rest.get(..usize::from(raw.payload.get()))?;
        if raw.version != VERSION {
            return None;
        }
        match raw.checksum.get() {
            0 if checked => return None,
            0 => {}
            stated if raw.sum(payload) != stated => return None,
            _ => {}
        }
        let header = Self {
            kind: Kind::from_wire(raw.kind)?,
            to: SessionName { index: raw.session.get(), token: raw.token.get() },
            sequence: Sequence(raw.sequence.get()),
            ack: Sequence(raw.ack.get()),
            limit: Sequence(raw.limit.get()),
            fragment: raw.fragment.get(),
            ack_delay_ns: raw.ack_delay_ns.get(),
        };
        Some((header, payload))
    }
}

/// 0 says that there is no checksum, so a sum of 0 is written as all ones.
fn nonzero(crc: u32) -> u32 {
    if crc == 0 { u32::MAX } else { crc }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_decodes(
            kind in 1u8..=7,
            numbers: [u32; 7],
            payload in prop::collection::vec(any::<u8>(), 0..200),
            padding in prop::collection::vec(any::<u8>(), 0..30),
            checked: bool,
            flip in 0usize..236,
        ) {
            let header = Header {
                kind: Kind::from_wire(kind).expect("a kind"),
                to: SessionName { index: numbers[0], token: numbers[1] },
                sequence: Sequence(numbers[2]),
                ack: Sequence(numbers[3]),
                limit: Sequence(numbers[4]),
                fragment: numbers[5],
                ack_delay_ns: numbers[6],
            };
            let mut pieces = std::iter::once(&payload[..]);
            let mut datagram = header.encode(payload.len(), checked.then_some(&mut pieces as _)).to_vec();
            datagram.extend_from_slice(&payload);
            datagram.extend_from_slice(&padding);
            prop_assert_eq!(Header::decode(&datagram, checked), Some((header, &payload[..])));
            for cut in 0..HEADER_BYTES + payload.len() {
                prop_assert_eq!(Header::decode(&datagram[..cut], checked), None);
            }
            if checked {
                let flip = flip % (HEADER_BYTES + payload.len());
                datagram[flip] ^= 1;
                prop_assert_eq!(Header::decode(&datagram, checked), None, "byte {} was damaged", flip);
            }
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..100), checked: bool) {
            let _ = Header::decode(&bytes, checked);
        }
    }
}
