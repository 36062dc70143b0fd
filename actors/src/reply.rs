//! The place that an answer goes to.
//!
//! 1. Whoever waits gets exactly one answer: what was sent, an error, or, if the reply is dropped, [`ActorError::Stopped`].
//! 2. A reply that a panicking handler drops is answered with the text of the panic ([`crash`]).

use crate::ActorError;
use crate::remote::answer::RemoteReply;
use std::cell::{Cell, RefCell};
use tokio::sync::oneshot;

/// Where the answer to a message goes: to a task of this process, over a link, or nowhere.
pub struct Reply<R: Send + 'static>(To<R>);

enum To<R: Send + 'static> {
    Nobody,
    Task(oneshot::Sender<Result<R, ActorError>>),
    Link(Box<RemoteReply<R>>),
}

impl<R: Send + 'static> Reply<R> {
    /// Nobody waits.
    pub(crate) fn nobody() -> Self {
        Self(To::Nobody)
    }

    pub(crate) fn task(sender: oneshot::Sender<Result<R, ActorError>>) -> Self {
        Self(To::Task(sender))
    }

    pub(crate) fn link(remote: RemoteReply<R>) -> Self {
        Self(To::Link(Box::new(remote)))
    }

    /// Answers.
    pub fn send(self, answer: R) {
        self.finish(Ok(answer));
    }

    /// Answers with an error.
    pub fn fail(self, error: ActorError) {
        self.finish(Err(error));
    }

    /// Whether somebody is to have an answer.
    pub fn is_awaited(&self) -> bool {
        !matches!(self.0, To::Nobody)
    }

    /// Whether somebody was to have an answer and waits no longer.
    pub fn is_abandoned(&self) -> bool {
        match &self.0 {
            To::Nobody => false,
            To::Task(sender) => sender.is_closed(),
            To::Link(remote) => remote.is_cancelled(),
        }
    }

    fn finish(mut self, result: Result<R, ActorError>) {
        self.take().answer(result);
    }

    fn take(&mut self) -> To<R> {
        std::mem::replace(&mut self.0, To::Nobody)
    }
}

impl<R: Send + 'static> To<R> {
    fn answer(self, result: Result<R, ActorError>) {
        match self {
            To::Nobody => {}
            // A caller that waits no longer wants no answer.
            To::Task(sender) => drop(sender.send(result)),
            To::Link(remote) => remote.finish(result),
        }
    }
}

impl<R: Send + 'static> Drop for Reply<R> {
    fn drop(&mut self) {
        let to = self.take();
        if matches!(to, To::Nobody) {
            return;
        }
        if std::thread::panicking() && IN_HANDLER.get() {
            CRASHED.with_borrow_mut(|crashed| {
                crashed.push(Box::new(move |error| to.answer(Err(error))));
            });
        } else {
            to.answer(Err(ActorError::Stopped));
        }
    }
}

type Crash = Box<dyn FnOnce(ActorError)>;

thread_local! {
    /// Whether a handler is being polled by this thread.
    static IN_HANDLER: Cell<bool> = const { Cell::new(false) };
    /// Replies dropped by the panic that is unwinding this thread.
    static CRASHED: RefCell<Vec<Crash>> = const { RefCell::new(Vec::new()) };
}

/// Where a handler runs: replies that it drops by a panic are kept for [`crash`].
pub(crate) struct InHandler(bool);

impl InHandler {
    pub(crate) fn enter() -> Self {
        Self(IN_HANDLER.replace(true))
    }
}

impl Drop for InHandler {
    fn drop(&mut self) {
        IN_HANDLER.set(self.0);
    }
}

/// Answers those whose handler has just panicked on this thread.
pub(crate) fn crash(error: &ActorError) {
    for answer in CRASHED.take() {
        answer(error.clone());
    }
}
