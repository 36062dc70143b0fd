//! What a client and a memory node say to each other, as bytes.
//!
//! The memory node and its clients share nothing but this crate. Every message is a *head*, built and parsed here, and for
//! some a *body* of object bytes, which goes from pages to pages and is never seen here. Layouts are fixed width, little
//! endian and without padding; `docs/wire-format.md` draws them.
//!
//! 1. Decoding bytes from a peer never panics, never allocates more than the bytes that came, and refuses what it does not
//!    wholly understand ([`Malformed`]).
//! 2. Whatever can be encoded decodes to the same value.
//! 3. Numbers of operations and statuses are never reused for something else; [`VERSION`] changes when a layout does.
#![forbid(unsafe_code)]

mod id;
mod layout;
mod reference;
mod reply;
mod request;
mod status;

pub use id::{GrantToken, NodeId, ObjectId, SlotLease};
pub use layout::{Malformed, RawExtent};
pub use reference::{Inlined, MAX_REF_EXTENTS, RawRef, WireRef};
pub use reply::{
    Coherence, Leased, Notice, RegionInfo, Reply, ReplyHead, ReplyOp, Resolved, SegmentInfo, Stats, Welcome,
};
pub use request::{
    Commit, FEATURE_LOCAL, FEATURE_REGISTERED, Grant, Hello, MAX_LEASE_SLOTS, MAX_NAME_BYTES, MAX_TOKEN_BYTES, Patch,
    ReleaseEntry, Request, RequestHead, RequestOp, Span, Write,
};
pub use status::Status;

/// The version that both ends must speak. It is checked in [`Hello`].
pub const VERSION: u16 = 2;

/// First bytes of a [`Hello`]: `DmRP`, little endian.
pub const MAGIC: u32 = 0x5052_6d44;

/// The largest head either side sends, in bytes.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
