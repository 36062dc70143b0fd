//! Calls: a message and the wait for its answer.

use crate::context::Origin;
use crate::deadlines::Deadline;
use crate::mailbox::{Envelope, Push, Sending};
use crate::recipient::Place;
use crate::remote::route::Boxed;
use crate::{Actor, ActorError, Message, Recipient, Reply, Tell};
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A call that is about to be made: `.await` it, or say more about it first.
#[must_use = "a call is made when it is awaited"]
pub struct Ask<'a, A: Actor, M: Message<A>> {
    recipient: &'a Recipient<A>,
    message: M,
    deadline: Option<Instant>,
}

impl<'a, A: Actor, M: Message<A>> Ask<'a, A, M> {
    pub(crate) fn new(recipient: &'a Recipient<A>, message: M) -> Self {
        Self { recipient, message, deadline: None }
    }

    /// Waits this long for the answer instead of the system's default.
    pub fn deadline(self, within: Duration) -> Self {
        self.until(Some(Instant::now() + within))
    }

    /// Waits until then for the answer, if it is given: what remains of a handler's own [`deadline`](crate::Context::deadline).
    pub fn until(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline.or(self.deadline);
        self
    }

    /// Sends the message without waiting for an answer.
    pub fn tell(self) -> Tell<'a, A, M> {
        Tell::new(self.recipient, self.message).until(self.deadline)
    }
}

impl<'a, A: Actor, M: Message<A>> IntoFuture for Ask<'a, A, M> {
    type Output = Result<M::Reply, ActorError>;
    type IntoFuture = Asking<'a, A, M>;

    fn into_future(self) -> Asking<'a, A, M> {
        let call = match &self.recipient.0 {
            Place::Local(sending) => {
                let deadline = self.deadline.unwrap_or_else(|| Instant::now() + sending.ask_timeout);
                Call::Local { sending, deadline, message: Some(self.message), line: InLine::default(), answer: None }
            }
            Place::Remote(route) => Call::Remote { call: route.ask::<A, M>(self.message, self.deadline) },
        };
        Asking { call, late: Deadline::default() }
    }
}

/// A call that is under way. Dropped before its answer, it is withdrawn: a message that the actor has not begun is skipped.
#[must_use = "a call is made when it is awaited"]
pub struct Asking<'a, A: Actor, M: Message<A>> {
    call: Call<'a, A, M>,
    late: Deadline,
}

// Nothing in it is pinned: a message is moved to its mailbox, the answer to its caller.
impl<A: Actor, M: Message<A>> Unpin for Asking<'_, A, M> {}

enum Call<'a, A: Actor, M: Message<A>> {
    Local {
        sending: &'a Sending<A::Message>,
        deadline: Instant,
        /// Until the first poll.
        message: Option<M>,
        line: InLine<'a, A>,
        /// From the first poll on.
        answer: Option<oneshot::Receiver<Result<M::Reply, ActorError>>>,
    },
    Remote {
        call: Boxed<M::Reply>,
    },
}

/// A place in the line of a full mailbox, given up when dropped.
pub(crate) struct InLine<'a, A: Actor>(Option<(&'a Sending<A::Message>, u64)>);

impl<A: Actor> Default for InLine<'_, A> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'a, A: Actor> InLine<'a, A> {
    pub(crate) fn new(sending: &'a Sending<A::Message>, ticket: u64) -> Self {
        Self(Some((sending, ticket)))
    }

    /// Whether the message was still in line, and is withdrawn now.
    pub(crate) fn leave(&mut self) -> bool {
        self.0.take().is_some_and(|(sending, ticket)| sending.leave_line(ticket))
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ActorError>> {
        let Some((sending, ticket)) = self.0 else { return Poll::Ready(Ok(())) };
        let polled = ready!(sending.poll_in_line(ticket, cx.waker()));
        self.0 = None;
        Poll::Ready(polled)
    }
}

impl<A: Actor> Drop for InLine<'_, A> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<A: Actor, M: Message<A>> Future for Asking<'_, A, M> {
    type Output = Result<M::Reply, ActorError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (sending, deadline, answer) = match &mut this.call {
            Call::Remote { call } => return call.as_mut().poll(cx),
            Call::Local { sending, deadline, message, line, answer } => {
                if let Some(message) = message.take() {
                    let (sender, receiver) = oneshot::channel();
                    let mail = message.into_mail(Reply::task(sender));
                    match sending.push(Envelope { mail, deadline: Some(*deadline), origin: Origin::Local }) {
                        Push::Taken => {}
                        Push::InLine(ticket) => *line = InLine::new(sending, ticket),
                        Push::Refused(error) => return Poll::Ready(Err(error)),
                    }
                    *answer = Some(receiver);
                }
                (sending, deadline, answer)
            }
        };
        let receiver = answer.as_mut().expect("polled again after its answer");
        match Pin::new(receiver).poll(cx) {
            Poll::Ready(Ok(result)) => return Poll::Ready(result),
            Poll::Ready(Err(_)) => return Poll::Ready(Err(sending.closed_error())),
            Poll::Pending => {}
        }
        ready!(this.late.poll(&sending.deadlines, *deadline, cx.waker()));
        Poll::Ready(Err(ActorError::Deadline))
    }
}
