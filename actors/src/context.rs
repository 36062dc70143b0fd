//! What a handler sees of the world.

use crate::mailbox::{Control, Envelope, Mailbox, Sending};
use crate::remote::peer::Peer;
use crate::run::CatchPanic;
use crate::{Actor, ActorError, ActorRef, Beside, Exit, Message, Recipient, Reply, System};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

/// Where a message came from.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Origin {
    /// This process.
    #[default]
    Local,
    /// A system at the other end of a link.
    Remote(Arc<Peer>),
}

/// What a handler sees of the world: the second parameter of those that want it.
pub struct Context<A: Actor> {
    mailbox: Arc<Mailbox<A::Message>>,
    system: System,
    deadline: Option<Instant>,
    origin: Origin,
    pub(crate) stopping: bool,
    detached: JoinSet<()>,
    max_detached: usize,
    /// Timers and watches.
    beside: JoinSet<()>,
}

impl<A: Actor> Context<A> {
    pub(crate) fn new(mailbox: Arc<Mailbox<A::Message>>, system: System, max_detached: usize) -> Self {
        Self {
            mailbox,
            system,
            deadline: None,
            origin: Origin::Local,
            stopping: false,
            detached: JoinSet::new(),
            max_detached: max_detached.max(1),
            beside: JoinSet::new(),
        }
    }

    /// A ref to this very actor. While it is kept, also by the actor itself, the actor lives on.
    pub fn actor_ref(&self) -> ActorRef<A> {
        ActorRef::new(Recipient::local(Sending::new(&self.mailbox)))
    }

    /// The system that the actor lives in.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// When the caller of the current message gives up; `None` if nobody waits. Pass it on with
    /// [`Ask::until`](crate::Ask::until).
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Where the current message came from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The actor ends after this message. What is in its mailbox is answered with [`ActorError::Stopped`].
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Answers by a future that runs beside the actor, which goes on with the next message meanwhile. What
    /// `#[message(detached)]` does. A panic in it is its caller's [`ActorError::Crashed`]; the actor lives.
    pub fn detach<R: Send + 'static>(&mut self, reply: Reply<R>, answer: impl Future<Output = R> + Send + 'static) {
        let task = async move {
            let answered = CatchPanic::new(std::pin::pin!(async move { reply.send(answer.await) })).await;
            if let Err(text) = answered {
                tracing::error!(actor = A::TYPE, panic = &*text, "a detached handler panicked");
                crate::reply::crash(&ActorError::Crashed(text));
            }
        };
        self.detached.spawn_on(task, self.system.runtime());
    }

    /// Sends this actor a message after a delay.
    pub fn after<M: Message<A>>(&mut self, delay: Duration, message: M) -> Beside {
        let mailbox = Arc::clone(&self.mailbox);
        self.beside(async move {
            sleep(delay).await;
            mailbox.push_beyond(message.into_mail(Reply::nobody()));
        })
    }

    /// Sends this actor a message every `period`, the first after one. The next one waits until the last one is handled, so that no
    /// more than one is ever in the mailbox.
    pub fn every<M: Message<A>>(
        &mut self,
        period: Duration,
        mut message: impl FnMut() -> M + Send + 'static,
    ) -> Beside {
        let mailbox = Arc::clone(&self.mailbox);
        self.beside(async move {
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let (sender, handled) = oneshot::channel();
                mailbox.push_beyond(message().into_mail(Reply::task(sender)));
                // Whatever came of it.
                let _ = handled.await;
            }
        })
    }

    /// Sends this actor a message when another has ended, wherever that lives. It is not kept alive by this.
    pub fn watch<B: Actor, M: Message<A>>(
        &mut self,
        other: &ActorRef<B>,
        message: impl FnOnce(Exit) -> M + Send + 'static,
    ) -> Beside {
        let (mailbox, end) = (Arc::clone(&self.mailbox), other.recipient().ended());
        self.beside(async move {
            let exit = end.await;
            mailbox.push_beyond(message(exit).into_mail(Reply::nobody()));
        })
    }

    /// Ends this actor when another fails: crashes, is killed or can't be reached any more. If the other one is to end with this one,
    /// it links itself, too.
    pub fn link<B: Actor>(&mut self, other: &ActorRef<B>) -> Beside {
        let (mailbox, end) = (Arc::clone(&self.mailbox), other.recipient().ended());
        self.beside(async move {
            if end.await.is_failure() {
                mailbox.control(Control::Stop);
            }
        })
    }

    fn beside(&mut self, task: impl Future<Output = ()> + Send + 'static) -> Beside {
        while self.beside.try_join_next().is_some() {}
        Beside(self.beside.spawn_on(task, self.system.runtime()))
    }

    /// For a new incarnation: what ran beside the last one is cut off.
    pub(crate) fn begin_anew(&mut self) {
        self.stopping = false;
        self.detached = JoinSet::new();
        self.beside = JoinSet::new();
    }

    pub(crate) fn enter(&mut self, envelope: Envelope<A::Message>) -> A::Message {
        self.deadline = envelope.deadline;
        self.origin = envelope.origin;
        envelope.mail
    }

    /// Waits until there is room for one more detached handler. Gives way to control.
    pub(crate) async fn detached_room(&mut self) {
        if self.detached.is_empty() {
            return;
        }
        while self.detached.try_join_next().is_some() {}
        let mailbox = Arc::clone(&self.mailbox);
        while self.detached.len() >= self.max_detached {
            let ended = std::future::poll_fn(|cx| {
                if mailbox.poll_has_control(cx.waker()) {
                    return Poll::Ready(false);
                }
                self.detached.poll_join_next(cx).map(|_| true)
            });
            if !ended.await {
                return;
            }
        }
    }

    /// Waits for all detached handlers.
    pub(crate) async fn detached_end(&mut self) {
        while self.detached.join_next().await.is_some() {}
    }
}
