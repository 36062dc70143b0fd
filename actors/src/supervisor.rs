//! A supervisor: the task that turns what its [core](crate::supervision) decides into orders for its children.
//!
//! 1. A child obeys its orders in the order in which they were given; one that comes too late changes nothing.
//! 2. Between a child and its supervisor at most a handful of events and orders are under way: neither says more before it has heard.

use crate::mailbox::Mailbox;
use crate::supervision::{Action, ChildId, Core};
use crate::{Actor, ActorRef, Exit, Mail, MailboxOptions, Restart, Supervision, System};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// What a child is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// End this incarnation after the message that is being handled, and park.
    Fall,
    /// End it in the middle of whatever it does, and park.
    Kill,
    /// Begin a new incarnation.
    Begin,
    /// End for good.
    End(Exit),
}

/// What a supervisor hears.
pub(crate) enum Event {
    Add(ChildId, Restart, Child),
    Begun(ChildId),
    Parked(ChildId, Exit),
    Gone(ChildId),
    /// From the supervisor above it.
    Ordered(Order),
    Stop,
}

/// A supervisor's end of a child.
pub(crate) struct Child {
    orders: Orders,
    /// What keeps it alive.
    _kept: Box<dyn Any + Send>,
}

enum Orders {
    Actor(mpsc::UnboundedSender<Order>),
    Supervisor(mpsc::UnboundedSender<Event>),
}

impl Child {
    fn order(&self, order: Order) {
        // One that is gone needs no orders.
        match &self.orders {
            Orders::Actor(orders) => drop(orders.send(order)),
            Orders::Supervisor(events) => drop(events.send(Event::Ordered(order))),
        }
    }
}

/// A child's end of its supervisor.
pub(crate) struct Post {
    id: ChildId,
    events: mpsc::UnboundedSender<Event>,
}

impl Post {
    /// The incarnation has started, and may be built upon.
    pub(crate) fn begun(&self) {
        let _ = self.events.send(Event::Begun(self.id));
    }

    fn parked(&self, exit: Exit) {
        let _ = self.events.send(Event::Parked(self.id, exit));
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Gone(self.id));
    }
}

/// A supervised actor's end of its supervisor.
pub(crate) struct Desk {
    pub(crate) post: Post,
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    is_new: bool,
}

impl Desk {
    /// Waits for what comes after an incarnation that ended like this: a new one, or this end.
    pub(crate) async fn park<M: Mail>(&mut self, exit: Exit, mailbox: &Mailbox<M>) -> Result<(), Exit> {
        // A child that has just been added is known to be parked.
        if !std::mem::replace(&mut self.is_new, false) {
            self.post.parked(exit.clone());
        }
        std::future::poll_fn(|cx| {
            loop {
                match self.orders.poll_recv(cx) {
                    Poll::Ready(Some(Order::Begin)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Some(Order::End(exit))) => return Poll::Ready(Err(exit)),
                    // It has fallen already.
                    Poll::Ready(Some(Order::Fall | Order::Kill)) => {}
                    Poll::Ready(None) => return Poll::Ready(Err(exit.clone())),
                    Poll::Pending if mailbox.poll_closing(cx.waker()) => return Poll::Ready(Err(exit.clone())),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}

/// Keeps actors going: begins those anew that crash, by themselves or with those that depend on them, and gives up when that happens
/// too often. Refs, names and mailboxes of its children outlast their restarts; only the message whose handler crashed is lost, and its
/// caller gets [`ActorError::Crashed`](crate::ActorError::Crashed).
///
/// Children live until they end by themselves, the supervisor is [stopped](Self::stop) or gives up, or the system is shut down; they need
/// no refs to them, nor handles of the supervisor. Clones are the same supervisor.
///
/// ```
/// use dmrpc_actors::{Supervision, System, actor};
///
/// struct Divider {
///     done: u32,
/// }
///
/// #[actor]
/// impl Divider {
///     #[message]
///     fn divide(&mut self, a: u32, b: u32) -> u32 {
///         self.done += 1;
///         a / b
///     }
///
///     #[message]
///     fn done(&self) -> u32 {
///         self.done
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), dmrpc_actors::ActorError> {
/// let system = System::builder().build().await?;
/// let supervisor = system.supervisor(Supervision::default());
/// let divider = supervisor.spawn(|| Divider { done: 0 });
/// assert_eq!(divider.divide(6, 2).await?, 3);
/// assert!(divider.divide(6, 0).await.is_err());
/// assert_eq!(divider.divide(6, 3).await?, 2); // by another, to whom the same ref leads
/// assert_eq!(divider.done().await?, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Supervisor {
    system: System,
    events: mpsc::UnboundedSender<Event>,
    next_id: Arc<AtomicU64>,
    ended: watch::Receiver<Option<Exit>>,
}

impl System {
    /// Starts a supervisor without children.
    pub fn supervisor(&self, supervision: Supervision) -> Supervisor {
        let (events, incoming) = mpsc::unbounded_channel();
        Supervisor::start(self, supervision, events, incoming, None)
    }
}

impl Supervisor {
    fn start(
        system: &System,
        supervision: Supervision,
        events: mpsc::UnboundedSender<Event>,
        incoming: mpsc::UnboundedReceiver<Event>,
        above: Option<Post>,
    ) -> Self {
        let (sender, ended) = watch::channel(None);
        let patience = supervision.patience;
        let watching = Watching {
            core: Core::new(supervision),
            children: BTreeMap::new(),
            falling: BTreeMap::new(),
            patience,
            is_killing: false,
            above,
            exit: None,
        };
        let closing = system.closing();
        system.runtime().spawn(async move {
            let exit = watching.run(incoming, closing).await;
            sender.send_replace(Some(exit));
        });
        Self { system: system.clone(), events, next_id: Arc::default(), ended }
    }

    /// Starts a child that is begun anew when it crashes. `make` makes it, each time; should that panic, it counts as a crash.
    pub fn spawn<A: Actor>(&self, make: impl FnMut() -> A + Send + 'static) -> ActorRef<A> {
        self.spawn_with(make, Restart::default(), self.system.mailbox())
    }

    /// Starts a child with a say in when it is begun anew, and a mailbox of its own kind.
    pub fn spawn_with<A: Actor>(
        &self,
        make: impl FnMut() -> A + Send + 'static,
        restart: Restart,
        mailbox: MailboxOptions,
    ) -> ActorRef<A> {
        let (sender, orders) = mpsc::unbounded_channel();
        let desk = Desk { post: self.post(), orders, is_new: true };
        let id = desk.post.id;
        let actor = self.system.spawn_supervised(make, desk, mailbox);
        self.add(id, restart, Orders::Actor(sender), Box::new(actor.clone()));
        actor
    }

    /// Starts a supervisor that this one supervises: should it give up, it is begun anew with all of its children, if the budget here
    /// allows.
    pub fn supervisor(&self, supervision: Supervision, restart: Restart) -> Supervisor {
        let (events, incoming) = mpsc::unbounded_channel();
        let post = self.post();
        let id = post.id;
        let supervisor = Supervisor::start(&self.system, supervision, events.clone(), incoming, Some(post));
        self.add(id, restart, Orders::Supervisor(events), Box::new(()));
        supervisor
    }

    /// Ends all children, last first, each after the message that it handles, and then the supervisor.
    pub fn stop(&self) {
        let _ = self.events.send(Event::Stop);
    }

    /// Waits for the end: [`Exit::Crashed`] if there were too many restarts.
    pub async fn ended(&self) -> Exit {
        let mut ended = self.ended.clone();
        // Its task ends in the middle only with the runtime.
        ended.wait_for(Option::is_some).await.map_or(Exit::Killed, |exit| exit.clone().expect("waited for"))
    }

    fn post(&self) -> Post {
        Post { id: self.next_id.fetch_add(1, Ordering::Relaxed), events: self.events.clone() }
    }

    fn add(&self, id: ChildId, restart: Restart, orders: Orders, kept: Box<dyn Any + Send>) {
        let added = self.events.send(Event::Add(id, restart, Child { orders, _kept: kept }));
        if let Err(mpsc::error::SendError(Event::Add(_, _, child))) = added
            && let Some(exit) = &*self.ended.borrow()
        {
            child.order(Order::End(exit.clone()));
        }
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Supervisor(ended: {:?})", *self.ended.borrow())
    }
}

/// The state of a supervisor's task.
struct Watching {
    core: Core,
    children: BTreeMap<ChildId, Child>,
    /// Until when those who were told to fall may take.
    falling: BTreeMap<ChildId, Instant>,
    patience: Duration,
    /// There is no patience left.
    is_killing: bool,
    above: Option<Post>,
    /// How it ends, once that is certain.
    exit: Option<Exit>,
}

impl Watching {
    async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>, mut closing: watch::Receiver<bool>) -> Exit {
        loop {
            if let Some(exit) = &self.exit
                && self.children.is_empty()
            {
                return exit.clone();
            }
            let wake = self.falling.values().copied().chain(self.core.next_due()).min();
            let alarm = async {
                match wake {
                    Some(wake) => sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // Every actor ends by itself then.
                _ = closing.wait_for(|is_closing| *is_closing) => return Exit::Stopped,
                event = events.recv() => match event {
                    Some(event) => self.hear(event),
                    // No children, and nobody who could give it any.
                    None => return self.exit.unwrap_or(Exit::Unreferenced),
                },
                () = alarm => self.wake(),
            }
        }
    }

    fn hear(&mut self, event: Event) {
        let now = Instant::now();
        let actions = match event {
            Event::Add(id, restart, child) => {
                self.children.insert(id, child);
                self.core.add(id, restart, now)
            }
            Event::Parked(id, exit) => {
                self.falling.remove(&id);
                if exit.is_failure() {
                    tracing::warn!(child = id, ?exit, "a child failed");
                }
                self.core.parked(id, &exit, now)
            }
            Event::Begun(id) => self.core.begun(id, now),
            Event::Gone(id) => {
                self.falling.remove(&id);
                self.children.remove(&id);
                self.core.gone(id, now)
            }
            Event::Stop | Event::Ordered(Order::Fall) => self.core.fold(Exit::Stopped, now),
            Event::Ordered(Order::Kill) => {
                self.falling.values_mut().for_each(|until| *until = now);
                self.is_killing = true;
                self.core.fold(Exit::Killed, now)
            }
            Event::Ordered(Order::Begin) => {
                self.is_killing = false;
                // Its children begin in their own time.
                if let Some(above) = &self.above {
                    above.begun();
                }
                self.core.begin(now)
            }
            Event::Ordered(Order::End(exit)) => {
                let actions = self.core.end(&exit);
                self.exit = Some(exit);
                actions
            }
        };
        self.act(actions, now);
    }

    fn wake(&mut self) {
        let now = Instant::now();
        let late: Vec<_> = self.falling.extract_if(.., |_, until| *until <= now).map(|(id, _)| id).collect();
        for id in late {
            self.order(id, Order::Kill);
        }
        let actions = self.core.due(now);
        self.act(actions, now);
    }

    fn act(&mut self, actions: Vec<Action>, now: Instant) {
        for action in actions {
            match action {
                Action::Interrupt(id) => {
                    self.falling.insert(id, if self.is_killing { now } else { now + self.patience });
                    self.order(id, Order::Fall);
                }
                Action::Begin(id) => self.order(id, Order::Begin),
                Action::End(id, exit) => self.order(id, Order::End(exit)),
                Action::Report(exit) => self.report(exit, now),
            }
        }
    }

    /// All children are down.
    fn report(&mut self, exit: Exit, now: Instant) {
        if let Some(above) = &self.above {
            above.parked(exit);
            return;
        }
        if let Exit::Crashed(text) = &exit {
            tracing::error!(why = &**text, "a supervisor gave up");
        }
        let actions = self.core.end(&exit);
        self.exit = Some(exit);
        self.act(actions, now);
    }

    fn order(&self, id: ChildId, order: Order) {
        if let Some(child) = self.children.get(&id) {
            child.order(order);
        }
    }
}
