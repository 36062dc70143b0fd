//! How an actor ended.

use crate::ActorError;
use crate::remote::codec::{Arguments, Output};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::borrow::Cow;
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
    /// It lived elsewhere and had ended before anybody asked; how is not known.
    Gone,
    /// It lives elsewhere, and its system can't be reached any more, for this reason. Whether it has ended is not known.
    Unreachable(Arc<str>),
}

/// How an actor ended, on a link.
#[derive(Serialize, Deserialize)]
enum WireExit<'a> {
    Stopped,
    Unreferenced,
    Crashed(Cow<'a, str>),
    Killed,
}

impl Exit {
    /// What a caller is told who comes too late.
    pub(crate) fn error(&self) -> ActorError {
        match self {
            Self::Crashed(text) => ActorError::Crashed(Arc::clone(text)),
            _ => ActorError::Stopped,
        }
    }

    /// Whether it ended otherwise than in peace.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Crashed(_) | Self::Killed | Self::Unreachable(_))
    }

    pub(crate) fn encode(&self, output: &mut Output<'_>) -> Result<(), ActorError> {
        output.write(&match self {
            Self::Unreferenced => WireExit::Unreferenced,
            Self::Crashed(text) => WireExit::Crashed(Cow::Borrowed(text)),
            Self::Killed => WireExit::Killed,
            // Those of actors elsewhere are never passed on.
            Self::Stopped | Self::Gone | Self::Unreachable(_) => WireExit::Stopped,
        })
    }

    pub(crate) fn decode(arguments: Arguments<'_>) -> Result<Self, ActorError> {
        Ok(match arguments.value()? {
            WireExit::Stopped => Self::Stopped,
            WireExit::Unreferenced => Self::Unreferenced,
            WireExit::Crashed(text) => Self::Crashed(text.into()),
            WireExit::Killed => Self::Killed,
        })
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
