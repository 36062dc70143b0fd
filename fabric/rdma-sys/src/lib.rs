//! Bindings to libibverbs, loaded when it is first used, and values around what it makes.
//!
//! Nothing of it is needed to build, and a host without a device gets a [`RdmaError`] that names what is missing.
//!
//! | module | what it has |
//! | --- | --- |
//! | [`raw`] | the layouts of `infiniband/verbs.h` that are used here |
//! | `library` | `libibverbs.so.1` and its functions |
//! | `device` | [`Device`] and [`Port`]: an open device, and the port and GID that links go through |
//! | `memory` | [`ProtectionDomain`], [`MemoryRegion`] |
//! | `completion` | [`CompletionQueue`], with or without a channel to wait on |
//! | `queue_pair` | [`QueuePair`], and the work that is posted to it |
//!
//! # Invariants
//!
//! 1. What was made of something keeps it: each is destroyed before what it needs, whatever order its users drop it in.
//! 2. Layouts are those of rdma-core's headers (`tests/layout.rs` asks a C compiler).

mod completion;
mod device;
mod error;
mod library;
mod memory;
mod queue_pair;
pub mod raw;

pub use completion::{CompletionChannel, CompletionQueue};
pub use device::{Device, DeviceLimits, Gid, Port, Selection};
pub use error::RdmaError;
pub use memory::{Access, MemoryRegion, ProtectionDomain};
pub use queue_pair::{Peer, QueuePair, QueuePairOptions, Timing};

/// The text of a completion's status.
pub fn status_text(status: raw::ibv_wc_status) -> &'static str {
    raw::STATUS_TEXTS.get(status as usize).copied().unwrap_or("a status that this library does not know")
}
