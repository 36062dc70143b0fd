//! The actors of a process, their names, and their links to others.
//!
//! 1. A name belongs to one living actor; it is free again before anybody can know that the actor has ended.
//! 2. After [`System::shutdown`] nothing runs any more, whatever it took.

use crate::deadlines::Deadlines;
use crate::mailbox::{Control, Envelope, Mailbox, Push, Sending};
use crate::remote::codec::Arguments;
use crate::remote::hello::Hello;
use crate::remote::links::Links;
use crate::remote::peer::{Limits, Peer};
use crate::remote::route::{Boxed, Place, Route, fnv1a};
use crate::run::{Life, Supervised};
use crate::supervisor::Desk;
use crate::{Actor, ActorError, ActorRef, Context, Exit, MailboxOptions, Origin, Recipient, Reply};
use dmrpc_objstore::Store;
use parking_lot::Mutex;
use std::any::Any;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

/// How long an ask waits if nothing else is said.
pub const DEFAULT_ASK_TIMEOUT: Duration = Duration::from_secs(30);

/// An actor of this process, whatever its type.
pub(crate) trait Local: Send + Sync {
    fn type_name(&self) -> &'static str;

    /// Puts a message from a link into the mailbox. An error is for the caller; if there is none, the caller will be or has
    /// been answered.
    fn deliver(&self, arguments: Arguments<'_>, deadline: Option<Instant>) -> Result<(), ActorError>;

    fn control(&self, control: Control);

    /// Answers when the actor has ended.
    fn watch(&self, watcher: Reply<Exit>);

    /// For finding the typed ref again.
    fn mailbox(&self) -> &(dyn Any + Send + Sync);
}

struct LocalActor<A: Actor>(Arc<Mailbox<A::Message>>);

impl<A: Actor> Local for LocalActor<A> {
    fn type_name(&self) -> &'static str {
        A::TYPE
    }

    fn deliver(&self, arguments: Arguments<'_>, deadline: Option<Instant>) -> Result<(), ActorError> {
        let mail = A::decode(arguments)?;
        let origin = Origin::Remote(Arc::clone(arguments.peer));
        match self.0.push(Envelope { mail, deadline, origin }) {
            // One in line is let in in its turn; whoever sent it has a deadline, which is looked at then.
            Push::Taken | Push::InLine(_) => {}
            Push::Refused(error) => {
                // An asker has been told. Of a tell only the log knows.
                tracing::debug!(actor = A::TYPE, %error, "a message from a link was refused");
            }
        }
        Ok(())
    }

    fn control(&self, control: Control) {
        self.0.control(control);
    }

    fn watch(&self, watcher: Reply<Exit>) {
        self.0.watch(watcher);
    }

    fn mailbox(&self) -> &(dyn Any + Send + Sync) {
        &self.0
    }
}

struct Entry {
    local: Arc<dyn Local>,
    abort: Option<AbortHandle>,
    /// What a registered name holds on to, and the names.
    names: Vec<Arc<str>>,
    kept: Option<Box<dyn Any + Send>>,
    is_ending: bool,
}

#[derive(Default)]
struct Actors {
    by_id: HashMap<u32, Entry>,
    by_name: HashMap<Arc<str>, u32>,
}

pub(crate) struct Inner {
    name: Arc<str>,
    runtime: Handle,
    ask_timeout: Duration,
    deadlines: Arc<Deadlines>,
    mailbox: MailboxOptions,
    actors: Mutex<Actors>,
    next_id: AtomicU32,
    /// An actor ended.
    ended: Notify,
    closing: watch::Sender<bool>,
    stores: Mutex<Vec<Store>>,
    pub(crate) links: Links,
}

/// The actors of a process, their names, and their links to others. Clones are the same system.
///
/// ```
/// use dmrpc_actors::{System, actor};
///
/// struct Counter(u64);
///
/// #[actor]
/// impl Counter {
///     #[message]
///     async fn add(&mut self, n: u64) -> u64 {
///         self.0 += n;
///         self.0
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), dmrpc_actors::ActorError> {
/// let system = System::builder().build().await?;
/// let counter = system.spawn(Counter(40));
/// assert_eq!(counter.add(2).await?, 42);
/// system.shutdown(std::time::Duration::from_secs(1)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct System(pub(crate) Arc<Inner>);

/// What a system is to be like.
#[must_use]
pub struct SystemBuilder {
    name: String,
    runtime: Option<Handle>,
    listen: Vec<String>,
    advertise: Option<String>,
    stores: Vec<Store>,
    ask_timeout: Duration,
    mailbox: MailboxOptions,
    limits: Limits,
}

impl SystemBuilder {
    /// What the system calls itself in logs.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// An address to listen at: `unix:///path` for this host, `tcp://host:port` or `tls://host:port?cert=FILE&key=FILE` for others. May
    /// be said several times; the first is the one that refs to this system's actors carry, without its options.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen.push(address.into());
        self
    }

    /// The address that refs to this system's actors carry, where it is not the one it listens at: `0.0.0.0` is nowhere for others.
    pub fn advertise(mut self, address: impl Into<String>) -> Self {
        self.advertise = Some(address.into());
        self
    }

    /// A store whose refs messages carry. Peers are told of its memory node, and connect to it if they are not.
    pub fn store(mut self, store: Store) -> Self {
        self.stores.push(store);
        self
    }

    /// The runtime that actors run on, instead of the current one.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// How long an ask waits if nothing else is said; [`DEFAULT_ASK_TIMEOUT`] if this isn't.
    pub fn ask_timeout(mut self, timeout: Duration) -> Self {
        self.ask_timeout = timeout;
        self
    }

    /// What mailboxes are like if nothing else is said.
    pub fn mailbox(mut self, options: MailboxOptions) -> Self {
        self.mailbox = options;
        self
    }

    /// The largest message that links take, in bytes; 64 MiB if nothing is said.
    pub fn max_message_bytes(mut self, bytes: u64) -> Self {
        self.limits.max_message_bytes = bytes;
        self
    }

    /// How much may wait to be sent on a link, in bytes, before calls wait for room; 16 MiB if nothing is said.
    pub fn max_queued_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_queued_bytes = bytes;
        self
    }

    /// How long refs that were lent over a link stay lent after its end, so that those who still use them can take holds; 5 s if
    /// nothing is said.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.limits.grace = grace;
        self
    }

    /// Makes the system; it listens when this is done.
    ///
    /// # Errors
    ///
    /// [`ActorError::Address`] for an address that can't be listened at.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, if none was [given](Self::runtime).
    pub async fn build(self) -> Result<System, ActorError> {
        let runtime = self.runtime.unwrap_or_else(Handle::current);
        let system = System(Arc::new(Inner {
            name: self.name.into(),
            deadlines: Deadlines::start(&runtime),
            runtime,
            ask_timeout: self.ask_timeout,
            mailbox: self.mailbox,
            actors: Mutex::default(),
            next_id: AtomicU32::new(1),
            ended: Notify::new(),
            closing: watch::Sender::new(false),
            stores: Mutex::new(self.stores),
            links: Links::new(self.limits, self.advertise.map(Into::into)),
        }));
        for address in &self.listen {
            system.0.links.listen(&system, address)?;
        }
        Ok(system)
    }
}

impl System {
    /// A system to be made.
    pub fn builder() -> SystemBuilder {
        SystemBuilder {
            name: String::new(),
            runtime: None,
            listen: Vec::new(),
            advertise: None,
            stores: Vec::new(),
            ask_timeout: DEFAULT_ASK_TIMEOUT,
            mailbox: MailboxOptions::default(),
            limits: Limits::default(),
        }
    }

    /// What the system calls itself.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where the system listens, with real port numbers. The first is the one that refs to its actors carry.
    pub fn addresses(&self) -> Vec<String> {
        self.0.links.addresses().iter().map(|address| address.to_string()).collect()
    }

    /// The first store that the system was given, if it was.
    pub fn store(&self) -> Option<Store> {
        self.0.stores.lock().first().cloned()
    }

    /// What it says when a link begins.
    pub(crate) fn hello(&self) -> Hello {
        let address = self.0.links.advertised().map(|address| address.to_string());
        let stores = self.0.stores.lock();
        let nodes = stores.iter().map(|store| (store.node().0, store.url().to_owned())).collect();
        Hello { system: self.name().to_owned(), address, nodes }
    }

    /// Keeps a store that a peer told of.
    pub(crate) fn keep_store(&self, store: Store) {
        self.0.stores.lock().push(store);
    }

    pub(crate) fn deadlines(&self) -> &Arc<Deadlines> {
        &self.0.deadlines
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    /// What mailboxes are like if nothing else is said.
    pub(crate) fn mailbox(&self) -> MailboxOptions {
        self.0.mailbox.clone()
    }

    /// Becomes true when the system is shut down.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.0.closing.subscribe()
    }

    /// How long an ask waits if nothing else is said.
    pub fn ask_timeout(&self) -> Duration {
        self.0.ask_timeout
    }

    /// Starts an actor.
    pub fn spawn<A: Actor>(&self, actor: A) -> ActorRef<A> {
        self.spawn_with(actor, self.0.mailbox.clone())
    }

    /// Starts an actor with a mailbox of its own kind.
    pub fn spawn_with<A: Actor>(&self, actor: A, mailbox: MailboxOptions) -> ActorRef<A> {
        self.spawn_watched(actor, mailbox, |_| {})
    }

    /// Starts an actor; `on_exit` is told how it ended, after its mailbox was closed.
    pub fn spawn_watched<A: Actor>(
        &self,
        actor: A,
        mailbox: MailboxOptions,
        on_exit: impl FnOnce(&Exit) + Send + 'static,
    ) -> ActorRef<A> {
        self.start(Life::Single(actor), mailbox, on_exit)
    }

    /// Starts an actor that `desk` says when to begin.
    pub(crate) fn spawn_supervised<A: Actor>(
        &self,
        make: impl FnMut() -> A + Send + 'static,
        desk: Desk,
        mailbox: MailboxOptions,
    ) -> ActorRef<A> {
        let supervised = Supervised { make: Box::new(make), desk };
        self.start(Life::Supervised(Box::new(supervised)), mailbox, |_| {})
    }

    fn start<A: Actor>(
        &self,
        life: Life<A>,
        MailboxOptions { capacity, when_full, max_detached }: MailboxOptions,
        on_exit: impl FnOnce(&Exit) + Send + 'static,
    ) -> ActorRef<A> {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let mailbox = Mailbox::new(capacity, when_full, id, self.0.ask_timeout, Arc::clone(&self.0.deadlines));
        let sending = Sending::new(&mailbox);
        let local = Arc::new(LocalActor::<A>(Arc::clone(&mailbox)));
        let entry = Entry { local, abort: None, names: Vec::new(), kept: None, is_ending: false };
        self.0.actors.lock().by_id.insert(id, entry);
        let context = Context::new(Arc::clone(&mailbox), self.clone(), max_detached);
        let (inner, again) = (Arc::downgrade(&self.0), Arc::downgrade(&self.0));
        let unname = move || {
            if let Some(inner) = inner.upgrade() {
                inner.unname(id);
            }
        };
        let life = crate::run::run(life, mailbox, context, unname, move |exit| {
            if let Some(inner) = again.upgrade() {
                inner.forget(id);
            }
            on_exit(exit);
        });
        let task = self.0.runtime.spawn(life);
        if let Some(entry) = self.0.actors.lock().by_id.get_mut(&id) {
            entry.abort = Some(task.abort_handle());
        }
        if self.0.is_closing() {
            // Too late: it ends as the others did.
            sending.control(Control::Drain);
        }
        ActorRef::new(Recipient::local(sending))
    }

    /// Gives an actor of this process a name, under which others find it. A name keeps its actor alive.
    ///
    /// # Errors
    ///
    /// [`ActorError::NameTaken`]; [`ActorError::Stopped`] if the actor has ended; [`ActorError::Address`] for an actor elsewhere, or
    /// a name that is empty, longer than 256 bytes, or begins with `~`.
    pub fn register<A: Actor>(&self, name: &str, actor: &ActorRef<A>) -> Result<(), ActorError> {
        let address = |why: &str| ActorError::Address { address: name.into(), why: why.into() };
        if name.is_empty() || name.len() > crate::remote::frame::MAX_NAME_BYTES || name.starts_with('~') {
            return Err(address("names have 1 to 256 bytes and don't begin with ~"));
        }
        let crate::recipient::Place::Local(sending) = &actor.recipient().0 else {
            return Err(address("only actors of this process can be given a name"));
        };
        let id = sending.mailbox().id;
        let kept = sending.clone();
        let mut actors = self.0.actors.lock();
        let actors = &mut *actors;
        if actors.by_name.get(name).is_some_and(|&holder| holder != id) {
            return Err(ActorError::NameTaken(name.into()));
        }
        let Some(entry) = actors.by_id.get_mut(&id).filter(|entry| !entry.is_ending) else {
            return Err(sending.closed_error());
        };
        let name: Arc<str> = name.into();
        if actors.by_name.insert(Arc::clone(&name), id).is_none() {
            entry.names.push(name);
        }
        entry.kept.get_or_insert_with(|| Box::new(kept));
        Ok(())
    }

    /// The actor of this process that has this name, if it is an `A`.
    ///
    /// # Errors
    ///
    /// [`ActorError::UnknownActor`].
    pub fn find<A: Actor>(&self, name: &str) -> Result<ActorRef<A>, ActorError> {
        let unknown = || ActorError::UnknownActor(name.into());
        let (_, local) = self.0.find(name).ok_or_else(unknown)?;
        let mailbox = local.mailbox().downcast_ref::<Arc<Mailbox<A::Message>>>().ok_or_else(unknown)?;
        let sending = Sending::join(mailbox).ok_or_else(unknown)?;
        Ok(ActorRef::new(Recipient::local(sending)))
    }

    /// A ref to the actor at `address#name`, for example `unix:///run/shop.sock#cart` or `tcp://10.0.0.7:4000#cart`. What the
    /// options of an address say, such as the files of `tls://`, counts for all links of its kind from here. The link to its
    /// system is made now, and found again by its next use if it ends.
    ///
    /// # Errors
    ///
    /// [`ActorError::Address`], [`ActorError::Unreachable`], [`ActorError::UnknownActor`], [`ActorError::Deadline`].
    pub async fn connect<A: Actor>(&self, address: &str) -> Result<ActorRef<A>, ActorError> {
        let (system, name) = split_address(address)?;
        let system = self.0.links.learn(system);
        if self.0.links.is_own(&system) {
            return self.find(name);
        }
        let route = Route::new(self.clone(), Place::Address(system), name.into(), fnv1a(A::TYPE));
        let deadline = Instant::now() + self.0.ask_timeout;
        let (joining, deadlines) = (Arc::clone(&route), Arc::clone(&self.0.deadlines));
        self.on_runtime(async move { deadlines.within(deadline, joining.join(deadline)).await }).await?;
        Ok(ActorRef::new(Recipient::remote(route)))
    }

    pub(crate) async fn link_to(&self, address: &Arc<str>, deadline: Instant) -> Result<Arc<Peer>, ActorError> {
        self.0.links.link_to(self, address, deadline).await
    }

    /// The future, polled within the system's runtime wherever it is awaited.
    pub(crate) fn on_runtime<T>(
        &self,
        future: impl Future<Output = Result<T, ActorError>> + Send + 'static,
    ) -> Boxed<T> {
        Box::pin(OnRuntime { runtime: self.0.runtime.clone(), future })
    }

    /// Ends the system: listens no more, lets every actor handle what is in its mailbox, and closes the links once what is
    /// queued is out. What is not done within `patience` is cut off.
    pub async fn shutdown(&self, patience: Duration) {
        let inner = &self.0;
        inner.closing.send_replace(true);
        inner.links.stop_listening();
        let (locals, kept): (Vec<_>, Vec<_>) = {
            let mut actors = inner.actors.lock();
            actors.by_name.clear();
            actors.by_id.values_mut().map(|entry| (Arc::clone(&entry.local), entry.kept.take())).unzip()
        };
        for local in locals {
            local.control(Control::Drain);
        }
        drop(kept);
        let begun = Instant::now();
        let inner = Arc::clone(&self.0);
        if timeout(patience, inner.all_ended()).await.is_err() {
            let aborts: Vec<_> = inner.actors.lock().by_id.values().filter_map(|entry| entry.abort.clone()).collect();
            aborts.iter().for_each(AbortHandle::abort);
            // An actor that blocks its thread can't be ended by anyone; its callers were answered by their deadlines.
            let _ = timeout(patience.max(Duration::from_millis(100)), inner.all_ended()).await;
        }
        inner.links.close(patience.saturating_sub(begun.elapsed())).await;
    }
}

impl Inner {
    /// The living actor with this name, or with the number in `~number`.
    pub(crate) fn find(&self, name: &str) -> Option<(u32, Arc<dyn Local>)> {
        let actors = self.actors.lock();
        let id = match name.strip_prefix('~') {
            Some(number) => number.parse().ok()?,
            None => *actors.by_name.get(name)?,
        };
        actors.by_id.get(&id).map(|entry| (id, Arc::clone(&entry.local)))
    }

    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    pub(crate) fn actor(&self, id: u32) -> Option<Arc<dyn Local>> {
        self.actors.lock().by_id.get(&id).map(|entry| Arc::clone(&entry.local))
    }

    /// Whether the actor is there and takes messages.
    pub(crate) fn lives(&self, id: u32) -> bool {
        self.actors.lock().by_id.get(&id).is_some_and(|entry| !entry.is_ending)
    }

    /// The first name of an actor, or its number as a name.
    pub(crate) fn name_of(&self, id: u32) -> Arc<str> {
        let actors = self.actors.lock();
        let named = actors.by_id.get(&id).and_then(|entry| entry.names.first().cloned());
        named.unwrap_or_else(|| format!("~{id}").into())
    }

    /// The actor ends: its names are free.
    fn unname(&self, id: u32) {
        let mut actors = self.actors.lock();
        let actors_mut = &mut *actors;
        let kept = actors_mut.by_id.get_mut(&id).and_then(|entry| {
            entry.is_ending = true;
            for name in entry.names.drain(..) {
                actors_mut.by_name.remove(&name);
            }
            entry.kept.take()
        });
        drop(actors);
        // Outside the lock: it may be the last of many things.
        drop(kept);
    }

    /// The actor has ended.
    fn forget(&self, id: u32) {
        let entry = self.actors.lock().by_id.remove(&id);
        drop(entry);
        self.ended.notify_waiters();
    }

    async fn all_ended(&self) {
        loop {
            let notified = self.ended.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.actors.lock().by_id.is_empty() {
                return;
            }
            notified.await;
        }
    }
}

impl std::fmt::Debug for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "System({:?}, {} actors)", self.0.name, self.0.actors.lock().by_id.len())
    }
}

/// `address#name` in its parts.
pub(crate) fn split_address(address: &str) -> Result<(&str, &str), ActorError> {
    match address.rsplit_once('#') {
        Some((system, name)) if !name.is_empty() => Ok((system, name)),
        _ => Err(ActorError::Address { address: address.into(), why: "an actor is at ADDRESS#NAME".into() }),
    }
}

pub(crate) type WeakSystem = Weak<Inner>;

pin_project_lite::pin_project! {
    struct OnRuntime<F> {
        runtime: Handle,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for OnRuntime<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = Handle::try_current().is_err().then(|| this.runtime.enter());
        this.future.poll(cx)
    }
}
