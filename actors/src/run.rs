//! The life of an actor: start, batches of messages, end; of a supervised one several, with one mailbox.

use crate::mailbox::{Control, Envelope, Mailbox, Next};
use crate::reply::{InHandler, crash};
use crate::supervisor::{Desk, Order};
use crate::{Actor, ActorError, Context, Exit, Mail};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use tokio::time::Instant;

/// Messages that an actor handles without ever sleeping before other tasks have their turn.
const IN_A_ROW: u32 = 128;

/// The actor's end of its mailbox. Dropped in the middle, it answers everything that was waiting.
struct Inbox<A: Actor> {
    mailbox: Arc<Mailbox<A::Message>>,
    batch: VecDeque<Envelope<A::Message>>,
}

impl<A: Actor> Inbox<A> {
    fn close(&mut self, exit: Exit) {
        self.mailbox.close(exit);
        for envelope in self.batch.drain(..) {
            envelope.mail.fail(self.mailbox.closed_error());
        }
    }
}

impl<A: Actor> Drop for Inbox<A> {
    fn drop(&mut self) {
        self.close(Exit::Killed);
    }
}

/// Whose life it is.
pub(crate) enum Life<A> {
    Single(A),
    /// One that a supervisor begins, and begins anew.
    Supervised(Box<Supervised<A>>),
}

pub(crate) struct Supervised<A> {
    pub(crate) make: Box<dyn FnMut() -> A + Send>,
    pub(crate) desk: Desk,
}

/// The life of an actor. When it ends, also because the future is dropped, `unname` is called before anybody can know, and `on_exit`
/// hears how it ended after everybody can.
pub(crate) fn run<A: Actor>(
    life: Life<A>,
    mailbox: Arc<Mailbox<A::Message>>,
    context: Context<A>,
    unname: impl FnOnce() + Send + 'static,
    on_exit: impl FnOnce(&Exit) + Send + 'static,
) -> impl Future<Output = ()> + Send {
    // Made here and not at the first poll, which may never come.
    let inbox = Inbox::<A> { mailbox: Arc::clone(&mailbox), batch: VecDeque::new() };
    let farewell = Farewell { mailbox, unname: Some(unname), tell: Some(on_exit) };
    run_guarded(life, inbox, context, farewell)
}

async fn run_guarded<A: Actor, U: FnOnce() + Send, F: FnOnce(&Exit) + Send>(
    mut life: Life<A>,
    mut inbox: Inbox<A>,
    mut context: Context<A>,
    mut farewell: Farewell<A::Message, U, F>,
) {
    let exit = match &mut life {
        Life::Single(actor) => incarnation(actor, &mut inbox, &mut context, || ()).await,
        Life::Supervised(supervised) => incarnations(supervised, &mut inbox, &mut context).await,
    };
    let error = exit.error();
    farewell.unname();
    inbox.close(exit);
    // After the mailbox is closed: who hears of the crash finds the actor ended.
    crash(&error);
}

/// One incarnation after the other, as the supervisor says.
async fn incarnations<A: Actor>(
    Supervised { make, desk }: &mut Supervised<A>,
    inbox: &mut Inbox<A>,
    context: &mut Context<A>,
) -> Exit {
    let mut exit = Exit::Stopped;
    loop {
        if let Err(end) = desk.park(exit, &inbox.mailbox).await {
            return end;
        }
        inbox.mailbox.forget_fall();
        context.begin_anew();
        exit = match catch_unwind(AssertUnwindSafe(&mut *make)) {
            Ok(mut actor) => supervised(&mut actor, inbox, context, desk).await,
            Err(payload) => Exit::Crashed(crate::exit::panic_text(&*payload)),
        };
        // Its mailbox lives on: who hears of the crash may ask again.
        crash(&exit.error());
    }
}

/// One incarnation, during which the supervisor has its say.
async fn supervised<A: Actor>(actor: &mut A, inbox: &mut Inbox<A>, context: &mut Context<A>, desk: &mut Desk) -> Exit {
    let mailbox = Arc::clone(&inbox.mailbox);
    let Desk { post, orders, .. } = desk;
    let mut life = std::pin::pin!(incarnation(actor, inbox, context, || post.begun()));
    loop {
        tokio::select! {
            biased;
            exit = &mut life => return exit,
            order = orders.recv() => match order {
                Some(Order::Fall) => mailbox.control(Control::Fall),
                Some(Order::Kill) => return Exit::Killed,
                // Not said to one that lives.
                Some(Order::Begin | Order::End(_)) => {}
                // Nobody is left to supervise it.
                None => return life.await,
            },
        }
    }
}

async fn incarnation<A: Actor>(
    actor: &mut A,
    inbox: &mut Inbox<A>,
    context: &mut Context<A>,
    begun: impl FnOnce(),
) -> Exit {
    let mut exit = live(actor, inbox, context, begun).await;
    if !matches!(exit, Exit::Crashed(_)) {
        context.detached_end().await;
        let stopped = CatchPanic::new(std::pin::pin!(actor.stopped(&exit, context))).await;
        if let Err(text) = stopped {
            exit = Exit::Crashed(text);
        }
    }
    if let Exit::Crashed(text) = &exit {
        tracing::error!(actor = A::TYPE, panic = &**text, "an actor crashed");
    }
    exit
}

async fn live<A: Actor>(actor: &mut A, inbox: &mut Inbox<A>, context: &mut Context<A>, begun: impl FnOnce()) -> Exit {
    if let Err(text) = CatchPanic::new(std::pin::pin!(actor.started(context))).await {
        return Exit::Crashed(text);
    }
    begun();
    let mut in_a_row = 0;
    loop {
        if context.stopping {
            return Exit::Stopped;
        }
        // A mailbox that never runs empty must not keep the thread from others.
        if in_a_row >= IN_A_ROW {
            in_a_row = 0;
            tokio::task::yield_now().await;
        }
        // What the last incarnation left comes first.
        let next = std::future::poll_fn(|cx| {
            if !inbox.batch.is_empty() {
                return Poll::Ready(Next::Batch);
            }
            let polled = inbox.mailbox.poll_next(&mut inbox.batch, cx.waker());
            if polled.is_pending() {
                in_a_row = 0;
            }
            polled
        });
        match next.await {
            Next::End(exit) => return exit,
            Next::Control(control) => {
                obey::<A>(control, context);
                continue;
            }
            Next::Batch => {}
        }
        while let Some(envelope) = inbox.batch.pop_front() {
            in_a_row += 1;
            if envelope.mail.is_abandoned() {
                envelope.mail.fail(ActorError::Cancelled);
                continue;
            }
            if is_late(&envelope) {
                envelope.mail.fail(ActorError::Deadline);
                continue;
            }
            context.detached_room().await;
            if inbox.mailbox.has_control() {
                while let Some(control) = inbox.mailbox.next_control() {
                    obey::<A>(control, context);
                }
                if context.stopping {
                    inbox.batch.push_front(envelope);
                    return Exit::Stopped;
                }
            }
            let message = context.enter(envelope);
            if let Err(text) = CatchPanic::new(std::pin::pin!(actor.handle(message, context))).await {
                return Exit::Crashed(text);
            }
            if context.stopping {
                return Exit::Stopped;
            }
        }
    }
}

fn obey<A: Actor>(control: Control, context: &mut Context<A>) {
    match control {
        Control::Stop | Control::Fall => context.stopping = true,
        // The mailbox knows: it ends when it is empty.
        Control::Drain => {}
    }
}

/// A caller in this process that gave up is seen by its dropped reply; of one elsewhere only the deadline is known here.
fn is_late<M>(envelope: &Envelope<M>) -> bool {
    match (envelope.deadline, &envelope.origin) {
        (Some(deadline), crate::Origin::Remote(_)) => deadline <= Instant::now(),
        _ => false,
    }
}

struct Farewell<M: Mail, U: FnOnce(), F: FnOnce(&Exit)> {
    mailbox: Arc<Mailbox<M>>,
    unname: Option<U>,
    tell: Option<F>,
}

impl<M: Mail, U: FnOnce(), F: FnOnce(&Exit)> Farewell<M, U, F> {
    fn unname(&mut self) {
        if let Some(unname) = self.unname.take() {
            unname();
        }
    }
}

impl<M: Mail, U: FnOnce(), F: FnOnce(&Exit)> Drop for Farewell<M, U, F> {
    fn drop(&mut self) {
        self.unname();
        // An actor that was killed has no other reason yet.
        self.mailbox.close(Exit::Killed);
        let exit = self.mailbox.exit().expect("a closed mailbox has a reason").clone();
        if let Some(tell) = self.tell.take() {
            tell(&exit);
        }
    }
}

/// Polls a future and turns its panic into a text.
pub(crate) struct CatchPanic<'a, F>(Pin<&'a mut F>);

impl<'a, F: Future> CatchPanic<'a, F> {
    pub(crate) fn new(future: Pin<&'a mut F>) -> Self {
        Self(future)
    }
}

impl<F: Future> Future for CatchPanic<'_, F> {
    type Output = Result<F::Output, Arc<str>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let polled = {
            let _in_handler = InHandler::enter();
            // After a panic the future is not polled again, and the state that it worked on is given up with its actor.
            catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx)))
        };
        match polled {
            Ok(polled) => Poll::Ready(Ok(ready!(polled))),
            Err(payload) => Poll::Ready(Err(crate::exit::panic_text(&*payload))),
        }
    }
}
