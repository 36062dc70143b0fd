//! Bytes that travel as what suits them: by value, or as a reference.

use crate::System;
use crate::remote::attach::{self, bytes_argument};
use bytes::Bytes;
use dmrpc_objstore::{AnyRef, ObjectRef, StoreError, View};
use serde::de::{DeserializeSeed, Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::Deref;
use std::task::{Context, Poll, Waker};

/// From this many bytes on a payload is put into the store when it goes to another process of this host. Not tuned: between two
/// processes `examples/processes.rs` has values ahead at 32 KiB and refs at 1 MiB, and nothing in between was measured; a ref that
/// is passed on saves the copies of each further hop.
const REF_BYTES: usize = 64 * 1024;

/// Bytes of any length as an argument or answer. Few travel by value; many are put into the system's store when they leave the
/// process, if it has one and the other end is on this host, and travel as a reference. The receiver
/// [opens](Payload::open) them and need not know.
///
/// ```
/// use dmrpc_actors::Payload;
///
/// let payload = Payload::from(vec![1, 2, 3]);
/// let bytes = dmrpc_objstore::block_on(payload.open())?;
/// assert_eq!(&bytes[..], [1, 2, 3]);
/// # Ok::<(), dmrpc_objstore::StoreError>(())
/// ```
#[derive(Clone)]
pub struct Payload(Form);

#[derive(Clone)]
enum Form {
    Bytes(Bytes),
    Ref(ObjectRef),
}

impl Payload {
    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Form::Bytes(bytes) => bytes.len() as u64,
            Form::Ref(object) => object.byte_len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The reference, if the bytes are in a store.
    pub fn reference(&self) -> Option<&ObjectRef> {
        match &self.0 {
            Form::Bytes(_) => None,
            Form::Ref(object) => Some(object),
        }
    }

    /// The bytes, without a copy where they are here or on this host.
    ///
    /// # Errors
    ///
    /// As [`ObjectRef::get`].
    pub async fn open(&self) -> Result<Opened, StoreError> {
        Ok(Opened(match &self.0 {
            Form::Bytes(bytes) => Contents::Bytes(bytes.clone()),
            Form::Ref(object) => Contents::View(object.get().await?),
        }))
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Bytes(bytes) => write!(f, "Payload({} bytes)", bytes.len()),
            Form::Ref(object) => write!(f, "Payload({object:?})"),
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self(Form::Bytes(bytes))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Form::Bytes(bytes.into()))
    }
}

impl From<ObjectRef> for Payload {
    fn from(object: ObjectRef) -> Self {
        Self(Form::Ref(object))
    }
}

/// The bytes of a [`Payload`].
#[derive(Clone)]
pub struct Opened(Contents);

#[derive(Clone)]
enum Contents {
    Bytes(Bytes),
    View(View),
}

impl Deref for Opened {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Contents::Bytes(bytes) => bytes,
            Contents::View(view) => view,
        }
    }
}

/// The bytes as an object of the system that sends them, if that is worth it and can be had at once.
fn put(bytes: &Bytes) -> Option<ObjectRef> {
    if bytes.len() < REF_BYTES {
        return None;
    }
    let peer = attach::peer().filter(|peer| peer.is_on_this_host())?;
    let store = peer.system.upgrade().map(System)?.store()?;
    let mut put = std::pin::pin!(store.put_bytes(bytes.clone()));
    // A store that would have to wait for memory is not waited for: the bytes go by value.
    match put.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(put) => put.ok(),
        Poll::Pending => None,
    }
}

/// As it travels between Rust processes.
#[derive(Serialize, Deserialize)]
enum Passed {
    Bytes(#[serde(with = "bytes_argument")] Bytes),
    Ref(ObjectRef),
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let form = match &self.0 {
            Form::Bytes(bytes) => put(bytes).map_or_else(|| Form::Bytes(bytes.clone()), Form::Ref),
            form => form.clone(),
        };
        match (form, attach::is_postcard()) {
            (Form::Bytes(bytes), true) => Passed::Bytes(bytes).serialize(serializer),
            (Form::Ref(object), true) => Passed::Ref(object).serialize(serializer),
            // For other languages: bytes, or a reference.
            (Form::Bytes(bytes), false) => serializer.serialize_bytes(&bytes),
            (Form::Ref(object), false) => object.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if attach::is_postcard() {
            return Ok(match Passed::deserialize(deserializer)? {
                Passed::Bytes(bytes) => Self(Form::Bytes(bytes)),
                Passed::Ref(object) => Self(Form::Ref(object)),
            });
        }
        deserializer.deserialize_any(Take)
    }
}

struct Take;

impl<'de> Visitor<'de> for Take {
    type Value = Payload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes or a reference")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Payload, E> {
        Ok(Bytes::copy_from_slice(bytes).into())
    }

    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Payload, E> {
        Ok(bytes.into())
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Payload, D::Error> {
        let reference = std::marker::PhantomData::<AnyRef>.deserialize(Extension(deserializer))?;
        reference.cast().map(|object: ObjectRef| object.into()).map_err(D::Error::custom)
    }
}

/// The inside of an extension, for a type that begins outside of it.
struct Extension<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Extension<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_newtype_struct(self.0)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
