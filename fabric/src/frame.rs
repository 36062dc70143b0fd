//! The header before every message of a stream of bytes.
//!
//! ```text
//!  0      4      8              16
//!  ┌──────┬──────┬──────────────┬────────┬────────┐
//!  │ head │ kind │ body length  │ head … │ body … │   little endian
//!  └──────┴──────┴──────────────┴────────┴────────┘
//! ```

use crate::link::{LinkError, MAX_HEAD_BYTES};

/// Length of a header in bytes.
pub(crate) const HEADER_BYTES: usize = 16;

const MESSAGE: u32 = 0;
const DESCRIPTOR: u32 = 1;

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A head and a body.
    Message { head_len: usize, body_len: u64 },
    /// Nothing: a descriptor was passed beside the stream.
    Descriptor { tag: u32 },
}

impl Frame {
    pub(crate) fn encode(self) -> [u8; HEADER_BYTES] {
        let (head, kind, body) = match self {
            Self::Message { head_len, body_len } => (head_len as u32, MESSAGE, body_len),
            Self::Descriptor { tag } => (0, DESCRIPTOR, u64::from(tag)),
        };
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&head.to_le_bytes());
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&body.to_le_bytes());
        header
    }

    pub(crate) fn decode(header: [u8; HEADER_BYTES], body_limit: u64) -> Result<Self, LinkError> {
        let [h0, h1, h2, h3, k0, k1, k2, k3, body @ ..] = header;
        let head_len = u32::from_le_bytes([h0, h1, h2, h3]) as usize;
        let body_len = u64::from_le_bytes(body);
        match u32::from_le_bytes([k0, k1, k2, k3]) {
            MESSAGE if head_len > MAX_HEAD_BYTES => Err(LinkError::Protocol("a head over the limit")),
            MESSAGE if body_len > body_limit => Err(LinkError::Protocol("a body over the limit")),
            MESSAGE => Ok(Self::Message { head_len, body_len }),
            DESCRIPTOR if head_len == 0 => match u32::try_from(body_len) {
                Ok(tag) => Ok(Self::Descriptor { tag }),
                Err(_) => Err(LinkError::Protocol("a tag of a descriptor over 32 bits")),
            },
            _ => Err(LinkError::Protocol("a frame of no known kind")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decodes_what_was_encoded(head_len in 0..=MAX_HEAD_BYTES, body_len: u64, tag: u32) {
            for frame in [Frame::Message { head_len, body_len }, Frame::Descriptor { tag }] {
                prop_assert_eq!(Frame::decode(frame.encode(), u64::MAX).unwrap(), frame);
            }
            prop_assert_eq!(Frame::decode(Frame::Message { head_len, body_len }.encode(), body_len.wrapping_sub(1)).is_err(), body_len > 0);
        }

        #[test]
        fn any_bytes_are_survived(header: [u8; HEADER_BYTES], limit: u64) {
            if let Ok(frame) = Frame::decode(header, limit) {
                prop_assert_eq!(frame.encode(), header);
            }
        }
    }
}
