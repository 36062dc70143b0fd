//! What travels between the tiers: requests one way, answers the other.

use crate::header::Header;
use bytes::Bytes;
use dmrpc_objstore::{ObjectRef, StoreError, View};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::ops::Deref;

/// A request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// What is read on the way.
    pub(crate) header: Header,
    /// What is not.
    pub(crate) image: Image,
}

/// An image on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Image {
    /// All of it.
    Value(#[serde(with = "dmrpc_actors::attached")] Bytes),
    /// Where it is.
    Reference(ObjectRef),
}

impl Image {
    /// Its size in bytes, which is known without looking at it.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Value(bytes) => bytes.len() as u64,
            Self::Reference(reference) => reference.len(),
        }
    }

    /// How many of its bytes are in the message.
    pub(crate) fn bytes_in_message(&self) -> u64 {
        match self {
            Self::Value(bytes) => bytes.len() as u64,
            Self::Reference(_) => 0,
        }
    }

    /// Its bytes.
    pub(crate) async fn read(&self) -> Result<Bits, StoreError> {
        Ok(match self {
            Self::Value(bytes) => Bits::Value(bytes.clone()),
            Self::Reference(reference) => Bits::Reference(reference.get().await?),
        })
    }
}

/// The bytes of an image, to be read.
pub(crate) enum Bits {
    /// They came with the message.
    Value(Bytes),
    /// They are in pages.
    Reference(View),
}

impl Deref for Bits {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Value(bytes) => bytes,
            Self::Reference(view) => view,
        }
    }
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The checksum of the image as the worker saw it.
    pub(crate) sum: u32,
    /// What the worker sends back, if the work was of that kind.
    pub(crate) image: Option<Image>,
    /// Whether the firewall, which held on to the image meanwhile, still has the original; `None` if it wasn't asked.
    pub(crate) held_intact: Option<bool>,
    /// When each tier saw the request and the answer, the worker first; empty if nobody asked.
    pub(crate) stops: Vec<Stop>,
}

/// A tier on a request's way there and back, in nanoseconds of the host's monotonic clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stop {
    /// Which.
    pub(crate) tier: String,
    /// When it got the request.
    pub(crate) there_ns: u64,
    /// When it gave its answer.
    pub(crate) back_ns: u64,
}

/// The host's monotonic clock in nanoseconds, the same for all its processes.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Since the host started: neither is negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
