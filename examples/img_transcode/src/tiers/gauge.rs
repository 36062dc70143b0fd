//! What every process of the service tells about itself.

use dmrpc_actors::actor;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The name under which each process has its gauge.
pub(crate) const NAME: &str = "gauge";

/// What a tier counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: AtomicU64,
    image_bytes: AtomicU64,
}

impl Counters {
    /// A request was answered, and so many bytes of images went through this tier in messages, there and back.
    pub(crate) fn count(&self, image_bytes: u64) {
        self.requests.fetch_add(1, Relaxed);
        self.image_bytes.fetch_add(image_bytes, Relaxed);
    }

    /// What was counted so far.
    pub(crate) fn read(&self) -> Counted {
        Counted { requests: self.requests.load(Relaxed), image_bytes: self.image_bytes.load(Relaxed) }
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// Bytes of images in messages that came and went.
    pub(crate) image_bytes: u64,
}

/// The actor that tells.
pub(crate) struct Gauge(pub(crate) Arc<Counters>);

#[actor]
impl Gauge {
    /// What was counted so far.
    #[message]
    pub(crate) async fn read(&mut self) -> Counted {
        self.0.read()
    }
}
