//! References that leave the system: on paper, in a file, in a queue.

use crate::{Codec, StoreError};
use dmrpc_wire::{GrantToken, NodeId, ObjectId};
use std::fmt;
use std::str::FromStr;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A bearer grant: whoever has it may take a reference, until its time is over.
///
/// Made by [`ObjectRef::grant`](crate::ObjectRef::grant), redeemed by [`Store::redeem`](crate::Store::redeem). As text it
/// has only letters, digits and a hyphen, so that it can stand in URLs, file names and on command lines. It is a secret.
///
/// ```
/// use dmrpc_objstore::Granted;
///
/// assert!("dmrpc1-00".parse::<Granted>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Granted {
    pub(crate) raw: RawGranted,
    url: String,
}

#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawGranted {
    pub(crate) id: ObjectId,
    pub(crate) offset: U64,
    pub(crate) length: U64,
    pub(crate) size: U64,
    pub(crate) token: GrantToken,
    pub(crate) codec: u8,
}

const _: () = assert!(size_of::<RawGranted>() == 65);

/// What every grant begins with, as text. The number is that of the layout.
const PREFIX: &str = "dmrpc1-";
/// The longest address in a grant, in bytes.
const MAX_URL_BYTES: usize = 512;

impl Granted {
    pub(crate) fn new(raw: RawGranted, url: &str) -> Self {
        // An address that is too long is left out: it is only a help to find the node.
        let url = if url.len() <= MAX_URL_BYTES { url.to_owned() } else { String::new() };
        Self { raw, url }
    }

    /// The memory node that has the object.
    pub fn node(&self) -> NodeId {
        self.raw.id.node()
    }

    /// Where the memory node was when the grant was made.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Number of bytes that are referred to.
    pub fn byte_len(&self) -> u64 {
        self.raw.length.get()
    }

    /// How the bytes are to be understood.
    pub fn codec(&self) -> Codec {
        Codec(self.raw.codec)
    }
}

impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.raw.as_bytes().iter().chain(self.url.as_bytes()).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Shows where the object is but not the secrets.
impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Granted").field("object", &self.raw.id).field("url", &self.url).finish_non_exhaustive()
    }
}

impl FromStr for Granted {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let malformed = StoreError::Malformed("this text is no grant");
        let digits = text.strip_prefix(PREFIX).ok_or(malformed.clone())?.as_bytes();
        if digits.len() % 2 != 0 || digits.len() > 2 * (size_of::<RawGranted>() + MAX_URL_BYTES) {
            return Err(malformed);
        }
        let digit = |digit: u8| char::from(digit).to_digit(16).filter(|_| !digit.is_ascii_uppercase());
        let byte = |pair: &[u8]| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
        let bytes: Vec<u8> = digits.chunks_exact(2).map(byte).collect::<Option<_>>().ok_or(malformed.clone())?;
        let (raw, url) = RawGranted::read_from_prefix(&bytes).map_err(|_| malformed.clone())?;
        let end = raw.offset.get().checked_add(raw.length.get());
        let url = std::str::from_utf8(url).map_err(|_| malformed.clone())?;
        if raw.id.is_null() || end.is_none_or(|end| end > raw.size.get()) {
            return Err(malformed);
        }
        Ok(Self { raw, url: url.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dmrpc_wire::SlotLease;

    #[test]
    fn text_and_back() {
        let raw = RawGranted {
            id: ObjectId::new(NodeId(7), SlotLease::new(1, 2), [3; 12]),
            offset: 4.into(),
            length: 5.into(),
            size: 9.into(),
            token: GrantToken([6; 16]),
            codec: 1,
        };
        let granted = Granted::new(raw, "tcp://127.0.0.1:7000");
        let text = granted.to_string();
        assert_eq!(text.parse(), Ok(granted.clone()));
        assert!(!format!("{granted:?}").contains("0606"), "no secrets in logs");
        for cut in 0..text.len() - 2 * granted.url().len() {
            assert!(text[..cut].parse::<Granted>().is_err(), "cut at {cut}");
        }
        assert!(text.to_uppercase().parse::<Granted>().is_err());
        let outside = Granted::new(RawGranted { length: 6.into(), ..raw }, "");
        assert!(outside.to_string().parse::<Granted>().is_err());
    }
}
