//! What travels beside the payload of a message: long byte arguments, and the link that refs to actors are relative to.
//!
//! While a message is encoded or decoded a scope of this thread says so; `serde` code of arguments finds it there.

use super::codec::Codec;
use super::peer::Peer;
use bytes::Bytes;
use std::cell::RefCell;
use std::sync::Arc;

/// From this many bytes on a `Bytes` argument is sent without being copied into the payload.
pub(crate) const ATTACH_BYTES: usize = 4096;

/// The most attachments of a message; further ones are copied.
const MAX_ATTACHMENTS: usize = 255;

/// A message being encoded or decoded by this thread.
pub(crate) struct Scope {
    pub(crate) codec: Codec,
    pub(crate) attachments: Vec<Bytes>,
    pub(crate) peer: Arc<Peer>,
}

thread_local! {
    static SCOPE: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// Runs `body` within `scope`; gives the scope back.
pub(crate) fn within<R>(scope: Scope, body: impl FnOnce() -> R) -> (R, Scope) {
    struct Restore(Option<Scope>);
    impl Drop for Restore {
        fn drop(&mut self) {
            SCOPE.set(self.0.take());
        }
    }
    let restore = Restore(SCOPE.replace(Some(scope)));
    let result = body();
    let scope = SCOPE.take().expect("set above, and scopes nest");
    drop(restore);
    (result, scope)
}

/// The link that the message being encoded or decoded belongs to.
pub(crate) fn peer() -> Option<Arc<Peer>> {
    SCOPE.with_borrow(|scope| scope.as_ref().map(|scope| Arc::clone(&scope.peer)))
}

fn is_postcard() -> bool {
    SCOPE.with_borrow(|scope| scope.as_ref().is_some_and(|scope| scope.codec == Codec::Postcard))
}

/// An answer that is `Bytes`, with the way they travel.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct BytesAnswer(#[serde(with = "bytes_argument")] pub Bytes);

/// `#[serde(with)]` for `Bytes` arguments; `#[actor]` puts it there. Within a message of Rust to Rust long ones are attached, elsewhere
/// they are plain bytes.
pub mod bytes_argument {
    use super::{ATTACH_BYTES, MAX_ATTACHMENTS, SCOPE, is_postcard};
    use bytes::Bytes;
    use serde::de::{Deserialize, Deserializer, Error, Visitor};
    use serde::ser::{Serialize, Serializer};
    use std::fmt;

    #[derive(serde::Serialize, serde::Deserialize)]
    enum Carried<T> {
        Inline(T),
        Attached(u32),
    }

    struct Plain<'a>(&'a [u8]);

    impl Serialize for Plain<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(self.0)
        }
    }

    struct Owned(Bytes);

    impl<'de> Deserialize<'de> for Owned {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Take;
            impl Visitor<'_> for Take {
                type Value = Owned;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("bytes")
                }
                fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Owned, E> {
                    Ok(Owned(Bytes::copy_from_slice(bytes)))
                }
                fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Owned, E> {
                    Ok(Owned(bytes.into()))
                }
            }
            deserializer.deserialize_byte_buf(Take)
        }
    }

    /// See the module.
    #[doc(hidden)]
    pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        if !is_postcard() {
            return serializer.serialize_bytes(bytes);
        }
        let index = SCOPE.with_borrow_mut(|scope| {
            let attachments = &mut scope.as_mut()?.attachments;
            (bytes.len() >= ATTACH_BYTES && attachments.len() < MAX_ATTACHMENTS).then(|| {
                attachments.push(bytes.clone());
                attachments.len() as u32 - 1
            })
        });
        match index {
            Some(index) => Carried::<Plain<'_>>::Attached(index).serialize(serializer),
            None => Carried::Inline(Plain(bytes)).serialize(serializer),
        }
    }

    /// See the module.
    #[doc(hidden)]
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        if !is_postcard() {
            return Owned::deserialize(deserializer).map(|Owned(bytes)| bytes);
        }
        match Carried::<Owned>::deserialize(deserializer)? {
            Carried::Inline(Owned(bytes)) => Ok(bytes),
            Carried::Attached(index) => SCOPE.with_borrow(|scope| {
                let attachments = &scope.as_ref().expect("checked by is_postcard").attachments;
                attachments
                    .get(index as usize)
                    .cloned()
                    .ok_or_else(|| D::Error::custom("bytes that did not come along"))
            }),
        }
    }
}
