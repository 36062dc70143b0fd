//! What can go wrong between a caller and an actor.

use std::sync::Arc;

/// Why a call has no answer, or a system does not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActorError {
    /// The mailbox was full and its policy says no, or too many calls wait already.
    #[error("the actor's mailbox is full")]
    MailboxFull,
    /// No answer in time. The handler may still run, if it had begun.
    #[error("no answer within the deadline")]
    Deadline,
    /// The actor has stopped.
    #[error("the actor has stopped")]
    Stopped,
    /// A handler panicked, and the actor with it.
    #[error("the actor crashed: {0}")]
    Crashed(Arc<str>),
    /// There is no link to the actor's system, or there is none any more. Whether a call that was under way was handled is not known.
    #[error("{address} can't be reached: {why}")]
    Unreachable {
        /// Where the actor is.
        address: Arc<str>,
        /// What stands in the way.
        why: Arc<str>,
    },
    /// No actor has this name, or one of another type.
    #[error("there is no such actor: {0}")]
    UnknownActor(Arc<str>),
    /// The actor has no such method.
    #[error("the actor has no such method: {0}")]
    UnknownMessage(Arc<str>),
    /// Bytes that are not what the method takes or answers.
    #[error("malformed message: {0}")]
    Malformed(Arc<str>),
    /// The caller went away before the call was begun. Seen in logs only.
    #[error("the caller went away")]
    Cancelled,
    /// More than a link takes in one message. Pass a reference instead.
    #[error("a message of {len} bytes is over the link's limit of {limit}: pass a reference")]
    TooLarge {
        /// Size of the message in bytes.
        len: u64,
        /// What may be.
        limit: u64,
    },
    /// A reference in the message can't be passed on, or its memory node is not known here.
    #[error("a reference can't be passed: {0}")]
    Reference(Arc<str>),
    /// The name is taken by another actor that lives.
    #[error("the name {0:?} is taken")]
    NameTaken(Arc<str>),
    /// An address that can't be understood, listened at, or that names no actor.
    #[error("{address}: {why}")]
    Address {
        /// What was given.
        address: Arc<str>,
        /// What is wrong.
        why: Arc<str>,
    },
}

impl ActorError {
    pub(crate) fn malformed(why: impl std::fmt::Display) -> Self {
        Self::Malformed(why.to_string().into())
    }
}
