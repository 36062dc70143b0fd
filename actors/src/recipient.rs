//! Where an actor's messages go.

use crate::mailbox::Sending;
use crate::remote::route::Route;
use crate::{Actor, Ask, Exit, Message, Tell};
use std::pin::Pin;
use std::sync::Arc;

/// Where an actor's messages go: a mailbox in this process, or an address elsewhere. What an
/// [`ActorRef`](crate::ActorRef) and its methods are made of.
pub struct Recipient<A: Actor>(pub(crate) Place<A>);

pub(crate) enum Place<A: Actor> {
    Local(Sending<A::Message>),
    Remote(Arc<Route>),
}

impl<A: Actor> Recipient<A> {
    pub(crate) fn local(sending: Sending<A::Message>) -> Self {
        Self(Place::Local(sending))
    }

    pub(crate) fn remote(route: Arc<Route>) -> Self {
        Self(Place::Remote(route))
    }

    /// The end of the actor, which this does not keep alive.
    pub(crate) fn ended(&self) -> Pin<Box<dyn Future<Output = Exit> + Send>> {
        match &self.0 {
            Place::Local(sending) => Box::pin(sending.ended()),
            Place::Remote(route) => Box::pin(Arc::clone(route).ended()),
        }
    }

    /// A call whose answer is awaited.
    pub fn ask<M: Message<A>>(&self, message: M) -> Ask<'_, A, M> {
        Ask::new(self, message)
    }

    /// A message without an answer.
    pub fn tell<M: Message<A>>(&self, message: M) -> Tell<'_, A, M> {
        Tell::new(self, message)
    }
}

impl<A: Actor> Clone for Recipient<A> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Place::Local(sending) => Place::Local(sending.clone()),
            Place::Remote(route) => Place::Remote(Arc::clone(route)),
        })
    }
}
