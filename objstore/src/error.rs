//! What can go wrong.

use dmrpc_wire::{Malformed, NodeId, ObjectId, Status};
use std::time::Duration;

/// Why an operation of the store did not happen.
///
/// Cheap to clone: one broken link fails every operation that waits on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The node has no such object, segment or grant: the reference is made up, or of another tenant.
    #[error("{0} is not there: it never was, or its key is wrong")]
    NotFound(Subject),
    /// The object was there and is gone: every hold on it was given back, or its holder died.
    #[error("{0} is gone; keep a reference, or make a grant, for as long as it is needed")]
    Stale(Subject),
    /// The pool of the memory node has no room, and none came free in time.
    #[error("the memory node has no room for {pages} pages; drop references, or give it a larger pool")]
    OutOfMemory {
        /// What was asked for.
        pages: u32,
    },
    /// This session has used up its share of the pool.
    #[error("the session's quota has no room for {pages} pages; drop references, or connect with a larger quota")]
    QuotaExceeded {
        /// What was asked for.
        pages: u32,
    },
    /// The memory node serves as many sessions as it may.
    #[error("the memory node serves as many sessions as it may; try again later")]
    TooManySessions,
    /// The session was not renewed in time and is over, with all that it held. Connect anew.
    #[error("the session with the memory node was not renewed in time and is over; connect anew")]
    LeaseExpired,
    /// The memory node is gone or can't be reached.
    #[error("memory node {url} can't be reached: {why}")]
    NodeUnreachable {
        /// Where it was.
        url: String,
        /// What happened.
        why: String,
    },
    /// No answer in time. What was asked may still happen; it is undone when its answer comes.
    #[error("{doing}: no answer within {after:?}")]
    Deadline {
        /// What was asked.
        doing: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// Bytes that make no sense: a broken peer, or a text that is no grant.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// A range outside the object.
    #[error("bytes {start}..{end} are outside an object of {len} bytes")]
    OutOfRange {
        /// First byte.
        start: u64,
        /// The byte after the last.
        end: u64,
        /// What there is.
        len: u64,
    },
    /// The token is wrong, or the thing is somebody else's.
    #[error("the memory node denies it: wrong token, or somebody else's")]
    Denied,
    /// An address that is none, or of a kind that can't be used here.
    #[error("{url:?} can't be used: {why}")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The reference is to an object of a memory node that this process has no store for.
    #[error("no store of this process is connected to memory node {:08x}; connect to it first", .0.0)]
    UnknownNode(NodeId),
    /// The bytes can't be seen as that type: their place or number does not fit it.
    #[error("{len} bytes at offset {offset} are no {what}")]
    Misaligned {
        /// Where the bytes begin in their object.
        offset: u64,
        /// How many they are.
        len: u64,
        /// What they were to be seen as.
        what: &'static str,
    },
    /// Over a limit of the node or of this crate.
    #[error("{what} of {len} is over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        len: u64,
        /// How large it may be.
        limit: u64,
    },
    /// A value that could not be encoded or decoded.
    #[error("{0}")]
    Codec(String),
    /// This process is a fork of the one that connected. Connect anew in the child.
    #[error("the store belongs to the process that forked this one; connect anew here")]
    Forked,
    /// The store was closed.
    #[error("the store was closed")]
    Closed,
    /// The memory node is shutting down.
    #[error("the memory node is shutting down")]
    ShuttingDown,
    /// The node refused for a reason that this version has no words for, or the two disagree on the protocol.
    #[error("the memory node answered {status:?} to {doing}")]
    Refused {
        /// What was asked.
        doing: &'static str,
        /// What it said.
        status: Status,
    },
    /// The operating system said no.
    #[error("{doing}: {why}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        why: String,
    },
}

/// What an error is about.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// An object.
    Object(ObjectId),
    /// A segment.
    Segment(u32),
    /// A grant.
    Grant,
    /// So many pages of memory.
    Memory(u32),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Object(id) => write!(f, "object {id}"),
            Subject::Segment(segment) => write!(f, "segment {segment}"),
            Subject::Grant => f.write_str("the grant"),
            Subject::Memory(pages) => write!(f, "memory of {pages} pages"),
        }
    }
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl From<Malformed> for StoreError {
    fn from(malformed: Malformed) -> Self {
        StoreError::Malformed(malformed.0)
    }
}

/// What a status of the node means to whoever asked.
pub(crate) fn status_error(status: Status, doing: &'static str, about: Option<Subject>) -> StoreError {
    match (status, about) {
        (Status::NotFound, Some(about)) => StoreError::NotFound(about),
        (Status::Stale, Some(about)) => StoreError::Stale(about),
        (Status::TooManySessions, _) => StoreError::TooManySessions,
        (Status::LeaseExpired, _) => StoreError::LeaseExpired,
        (Status::Denied, _) => StoreError::Denied,
        (Status::ShuttingDown, _) => StoreError::ShuttingDown,
        (Status::OutOfMemory, Some(Subject::Memory(pages))) => StoreError::OutOfMemory { pages },
        (Status::QuotaExceeded, Some(Subject::Memory(pages))) => StoreError::QuotaExceeded { pages },
        (Status::OutOfMemory, _) => StoreError::OutOfMemory { pages: 0 },
        (Status::QuotaExceeded, _) => StoreError::QuotaExceeded { pages: 0 },
        // A commit that the node waited for and that did not come: its maker died before it sent it.
        (Status::DeadlineExceeded, Some(about @ Subject::Object(_))) => StoreError::Stale(about),
        (status, _) => StoreError::Refused { doing, status },
    }
}
