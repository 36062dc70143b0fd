//! Messages without an answer.

use crate::ask::InLine;
use crate::context::Origin;
use crate::deadlines::Deadline;
use crate::mailbox::{Envelope, Push, Sending};
use crate::recipient::Place;
use crate::remote::route::Boxed;
use crate::{Actor, ActorError, Message, Recipient, Reply};
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// A message that is about to be sent: `.await` it, which waits for room where the mailbox says so, or send it [`now`](Self::now).
#[must_use = "a message is sent when it is awaited"]
pub struct Tell<'a, A: Actor, M: Message<A>> {
    recipient: &'a Recipient<A>,
    message: M,
    deadline: Option<Instant>,
}

impl<'a, A: Actor, M: Message<A>> Tell<'a, A, M> {
    pub(crate) fn new(recipient: &'a Recipient<A>, message: M) -> Self {
        Self { recipient, message, deadline: None }
    }

    /// Waits this long for room instead of the system's default.
    pub fn deadline(self, within: Duration) -> Self {
        self.until(Some(Instant::now() + within))
    }

    /// Waits until then for room, if it is given.
    pub fn until(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline.or(self.deadline);
        self
    }

    /// Sends without waiting for anything.
    ///
    /// # Errors
    ///
    /// [`ActorError::MailboxFull`] where there would be a wait, for room or for a link; else as when awaited.
    pub fn now(self) -> Result<(), ActorError> {
        match &self.recipient.0 {
            Place::Local(sending) => match sending.push(envelope(self.message)) {
                Push::Taken => Ok(()),
                Push::InLine(ticket) => {
                    if sending.leave_line(ticket) {
                        Err(ActorError::MailboxFull)
                    } else {
                        Ok(())
                    }
                }
                Push::Refused(error) => Err(error),
            },
            Place::Remote(route) => route.tell_now::<A, M>(&self.message),
        }
    }
}

fn envelope<A: Actor, M: Message<A>>(message: M) -> Envelope<A::Message> {
    Envelope { mail: message.into_mail(Reply::nobody()), deadline: None, origin: Origin::Local }
}

impl<'a, A: Actor, M: Message<A>> IntoFuture for Tell<'a, A, M> {
    type Output = Result<(), ActorError>;
    type IntoFuture = Telling<'a, A, M>;

    fn into_future(self) -> Telling<'a, A, M> {
        let sending = match &self.recipient.0 {
            Place::Local(sending) => {
                Sends::Local { sending, deadline: self.deadline, message: Some(self.message), line: InLine::default() }
            }
            Place::Remote(route) => Sends::Remote { call: route.tell::<A, M>(self.message, self.deadline) },
        };
        Telling { sending, late: Deadline::default() }
    }
}

/// A message on its way to the mailbox. Dropped while it waits for room, it is not sent.
#[must_use = "a message is sent when it is awaited"]
pub struct Telling<'a, A: Actor, M: Message<A>> {
    sending: Sends<'a, A, M>,
    late: Deadline,
}

// Nothing in it is pinned: a message is moved to its mailbox.
impl<A: Actor, M: Message<A>> Unpin for Telling<'_, A, M> {}

enum Sends<'a, A: Actor, M: Message<A>> {
    Local { sending: &'a Sending<A::Message>, deadline: Option<Instant>, message: Option<M>, line: InLine<'a, A> },
    Remote { call: Boxed<()> },
}

impl<A: Actor, M: Message<A>> Future for Telling<'_, A, M> {
    type Output = Result<(), ActorError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (sending, deadline, line) = match &mut this.sending {
            Sends::Remote { call } => return call.as_mut().poll(cx),
            Sends::Local { sending, deadline, message, line } => {
                if let Some(message) = message.take() {
                    match sending.push(envelope(message)) {
                        Push::Taken => return Poll::Ready(Ok(())),
                        Push::InLine(ticket) => *line = InLine::new(sending, ticket),
                        Push::Refused(error) => return Poll::Ready(Err(error)),
                    }
                }
                (sending, deadline, line)
            }
        };
        if let Poll::Ready(result) = line.poll(cx) {
            return Poll::Ready(result);
        }
        let until = *deadline.get_or_insert_with(|| Instant::now() + sending.ask_timeout);
        ready!(this.late.poll(&sending.deadlines, until, cx.waker()));
        Poll::Ready(if line.leave() { Err(ActorError::Deadline) } else { Ok(()) })
    }
}
