//! How an actor ended.

use crate::ActorError;
use std::any::Any;
use std::sync::Arc;

/// How an actor ended. Whoever supervises it decides by this what comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// It was told to stop, or stopped itself.
    Stopped,
    /// Nobody had a ref to it any more, and its mailbox was empty.
    Unreferenced,
    /// A handler or hook panicked, with this text.
    Crashed(Arc<str>),
    /// It was ended in the middle of whatever it did.
    Killed,
}

impl Exit {
    /// What a caller is told who comes too late.
    pub(crate) fn error(&self) -> ActorError {
        match self {
            Self::Crashed(text) => ActorError::Crashed(Arc::clone(text)),
            Self::Stopped | Self::Unreferenced | Self::Killed => ActorError::Stopped,
        }
    }
}

/// The text of a panic, as far as it is one.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> Arc<str> {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        (*text).into()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.as_str().into()
    } else {
        "panic without a text".into()
    }
}
