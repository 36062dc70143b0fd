//! The handle to an actor, wherever it is.

use crate::mailbox::Control;
use crate::recipient::Place;
use crate::{Actor, Ask, Exit, Handle, Message, Recipient, Tell};
use std::fmt;
use std::ops::Deref;

/// A handle to an actor in this process, in another one, or on another host; all the same to whoever has it.
///
/// It dereferences to the methods that [`#[actor]`](macro@crate::actor) made: `counter.add(2).await`. An actor lives while there is
/// a ref to it in its own process.
pub struct ActorRef<A: Actor> {
    handle: A::Handle,
}

impl<A: Actor> ActorRef<A> {
    pub(crate) fn new(recipient: Recipient<A>) -> Self {
        Self { handle: A::Handle::new(recipient) }
    }

    pub(crate) fn recipient(&self) -> &Recipient<A> {
        self.handle.recipient()
    }

    /// A call whose answer is awaited, by the system's deadline unless another is given.
    pub fn ask<M: Message<A>>(&self, message: M) -> Ask<'_, A, M> {
        self.recipient().ask(message)
    }

    /// A message without an answer.
    pub fn tell<M: Message<A>>(&self, message: M) -> Tell<'_, A, M> {
        self.recipient().tell(message)
    }

    /// Whether the actor is in this process.
    pub fn is_local(&self) -> bool {
        matches!(self.recipient().0, Place::Local(_))
    }

    /// Tells an actor of this process to end after the message that it handles; the rest of its mailbox is answered with
    /// [`ActorError::Stopped`](crate::ActorError::Stopped). Whether it could be told: an actor elsewhere is stopped there.
    pub fn stop(&self) -> bool {
        self.control(Control::Stop)
    }

    /// As [`stop`](Self::stop), after everything that is in the mailbox now.
    pub fn drain(&self) -> bool {
        self.control(Control::Drain)
    }

    fn control(&self, control: Control) -> bool {
        match &self.recipient().0 {
            Place::Local(sending) => {
                sending.control(control);
                true
            }
            Place::Remote(_) => false,
        }
    }

    /// Waits until the actor has ended, wherever it lives, without keeping it alive. A supervised one that is begun anew has not ended.
    /// If an actor elsewhere can't be reached, that is all that can be known of it: [`Exit::Unreachable`].
    pub async fn ended(&self) -> Exit {
        self.recipient().ended().await
    }

    /// How many messages wait in the mailbox of an actor of this process.
    pub fn waiting(&self) -> Option<usize> {
        match &self.recipient().0 {
            Place::Local(sending) => Some(sending.len()),
            Place::Remote(_) => None,
        }
    }

    /// How many messages the mailbox of an actor of this process has dropped by policy.
    pub fn dropped(&self) -> Option<u64> {
        match &self.recipient().0 {
            Place::Local(sending) => Some(sending.dropped()),
            Place::Remote(_) => None,
        }
    }
}

impl<A: Actor> Deref for ActorRef<A> {
    type Target = A::Handle;

    fn deref(&self) -> &A::Handle {
        &self.handle
    }
}

impl<A: Actor> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone() }
    }
}

impl<A: Actor> fmt::Debug for ActorRef<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.recipient().0 {
            Place::Local(sending) => write!(f, "ActorRef({} ~{})", A::TYPE, sending.mailbox().id),
            Place::Remote(route) => write!(f, "ActorRef({} {route})", A::TYPE),
        }
    }
}
