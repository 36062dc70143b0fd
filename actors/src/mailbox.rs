//! The queue in front of an actor.
//!
//! One short lock guards everything; nothing is dropped, woken or run under it.
//!
//! 1. At most `capacity` messages wait in the queue, besides those of the actor's own timers and watches; a full one does what [`WhenFull`] says.
//! 2. Messages leave in the order in which they came. Those of senders that wait for room come after all that are in the queue, in
//!    the order in which they began to wait, and no later message overtakes them.
//! 3. Control is seen before any message that is not begun.
//! 4. After [`Mailbox::close`] nothing is taken any more, and everything that was waiting has been answered.

use crate::{ActorError, Exit, Reply};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::context::Origin;
use crate::deadlines::Deadlines;

/// The most messages that an actor takes from its mailbox at a time. Chosen, not tuned.
const BATCH: usize = 64;

/// The most messages that wait for room before one mailbox, of senders here and elsewhere; further ones are refused.
pub(crate) const MAX_IN_LINE: usize = 1 << 16;

/// The most that wait for the end of one actor, here and elsewhere; further ones are refused.
const MAX_WATCHERS: usize = 1 << 16;

/// What a full mailbox does with one more message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// The sender waits for room, in turn, until its deadline. With 65536 waiting already it gets
    /// [`ActorError::MailboxFull`].
    #[default]
    Wait,
    /// The sender gets [`ActorError::MailboxFull`].
    Reject,
    /// The oldest message goes: its caller gets [`ActorError::MailboxFull`].
    DropOldest,
    /// The new message goes: a caller gets [`ActorError::MailboxFull`], a tell is told nothing.
    DropNewest,
}

/// What a mailbox is like.
#[derive(Clone, Debug)]
pub struct MailboxOptions {
    /// How many messages may wait; at least 1.
    pub capacity: usize,
    /// What happens with one more.
    pub when_full: WhenFull,
    /// How many detached handlers may run at a time; at least 1. With so many the next message waits.
    pub max_detached: usize,
}

impl Default for MailboxOptions {
    fn default() -> Self {
        Self { capacity: 1024, when_full: WhenFull::Wait, max_detached: 1024 }
    }
}

/// Messages of an actor, as its mailbox sees them: each knows who waits for its answer.
pub trait Mail: Send + 'static {
    /// Answers the one who waits, if any, with an error.
    fn fail(self, error: ActorError);

    /// Whether somebody waited for the answer and waits no longer.
    fn is_abandoned(&self) -> bool;

    /// Whether somebody is to have an answer.
    fn is_ask(&self) -> bool;
}

/// A message on its way, and what is known about it.
pub(crate) struct Envelope<M> {
    pub(crate) mail: M,
    /// When the caller gives up.
    pub(crate) deadline: Option<Instant>,
    pub(crate) origin: Origin,
}

/// What goes before all messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// End after the message that is being handled.
    Stop,
    /// Take nothing more, handle what has come, then end.
    Drain,
    /// End this incarnation after the message that is being handled; the mailbox stays.
    Fall,
}

/// What became of a message that was pushed.
pub(crate) enum Push {
    /// It is in the queue, or was dropped by policy.
    Taken,
    /// It waits for room under this number.
    InLine(u64),
    /// It was not taken: here is why. Its asker, if any, has been told.
    Refused(ActorError),
}

/// What the actor is to do next.
pub(crate) enum Next {
    /// Handle the batch.
    Batch,
    /// Obey.
    Control(Control),
    /// End: nothing is left, and nothing can come.
    End(Exit),
}

struct Waiting<M> {
    ticket: u64,
    envelope: Envelope<M>,
    /// Of a sender that wants to know when its message is in the queue.
    waker: Option<Waker>,
}

struct State<M> {
    queue: VecDeque<Envelope<M>>,
    line: VecDeque<Waiting<M>>,
    /// The ticket of the next in line to come; all below `served` have left the line for the queue.
    next_ticket: u64,
    served: u64,
    control: VecDeque<Control>,
    /// The actor, when it sleeps.
    receiver: Option<Waker>,
    /// Nothing new is taken.
    closing: bool,
    /// What is in the queue is the last.
    draining: bool,
    /// Who is to be told of the end.
    watchers: Vec<Reply<Exit>>,
}

pub(crate) struct Mailbox<M> {
    state: Mutex<State<M>>,
    /// Whether the control lane may have something; a hint for the actor between messages, set under the lock.
    has_control: AtomicBool,
    /// How many refs there are. Only the actor itself makes one from none.
    senders: AtomicUsize,
    dropped: AtomicU64,
    exit: OnceLock<Exit>,
    capacity: usize,
    batch: usize,
    when_full: WhenFull,
    pub(crate) ask_timeout: Duration,
    pub(crate) deadlines: Arc<Deadlines>,
    /// The actor's number in its system.
    pub(crate) id: u32,
}

impl<M: Mail> Mailbox<M> {
    pub(crate) fn new(
        capacity: usize,
        when_full: WhenFull,
        id: u32,
        ask_timeout: Duration,
        deadlines: Arc<Deadlines>,
    ) -> Arc<Self> {
        let capacity = capacity.max(1);
        Arc::new(Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                line: VecDeque::new(),
                next_ticket: 0,
                served: 0,
                control: VecDeque::new(),
                receiver: None,
                closing: false,
                draining: false,
                watchers: Vec::new(),
            }),
            has_control: AtomicBool::new(false),
            senders: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            exit: OnceLock::new(),
            capacity,
            batch: (capacity / 8).clamp(1, BATCH),
            when_full,
            ask_timeout,
            deadlines,
            id,
        })
    }

    /// Puts a message into the queue whatever its capacity: one of those of which there can't be many.
    pub(crate) fn push_beyond(&self, mail: M) {
        let mut state = self.state.lock();
        if state.closing {
            drop(state);
            mail.fail(self.closed_error());
            return;
        }
        state.queue.push_back(Envelope { mail, deadline: None, origin: Origin::Local });
        let receiver = state.receiver.take();
        drop(state);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }

    /// Puts a message into the queue, or into the line before it. Never waits.
    pub(crate) fn push(&self, envelope: Envelope<M>) -> Push {
        let mut state = self.state.lock();
        if state.closing {
            drop(state);
            let error = self.closed_error();
            envelope.mail.fail(error.clone());
            return Push::Refused(error);
        }
        let mut evicted = None;
        if state.queue.len() >= self.capacity || !state.line.is_empty() {
            match self.when_full {
                WhenFull::Wait if state.line.len() >= MAX_IN_LINE => {
                    drop(state);
                    envelope.mail.fail(ActorError::MailboxFull);
                    return Push::Refused(ActorError::MailboxFull);
                }
                WhenFull::Wait => {
                    let ticket = state.next_ticket;
                    state.next_ticket += 1;
                    state.line.push_back(Waiting { ticket, envelope, waker: None });
                    return Push::InLine(ticket);
                }
                WhenFull::Reject => {
                    drop(state);
                    envelope.mail.fail(ActorError::MailboxFull);
                    return Push::Refused(ActorError::MailboxFull);
                }
                WhenFull::DropNewest => {
                    drop(state);
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    let refused = envelope.mail.is_ask();
                    envelope.mail.fail(ActorError::MailboxFull);
                    return if refused { Push::Refused(ActorError::MailboxFull) } else { Push::Taken };
                }
                WhenFull::DropOldest => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    evicted = state.queue.pop_front();
                }
            }
        }
        state.queue.push_back(envelope);
        let receiver = state.receiver.take();
        drop(state);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        if let Some(evicted) = evicted {
            evicted.mail.fail(ActorError::MailboxFull);
        }
        Push::Taken
    }

    /// Whether the message with this ticket has come into the queue. Wakes `waker` when it does.
    pub(crate) fn poll_in_line(&self, ticket: u64, waker: &Waker) -> Poll<Result<(), ActorError>> {
        let mut state = self.state.lock();
        if ticket < state.served {
            return Poll::Ready(Ok(()));
        }
        match state.line.binary_search_by_key(&ticket, |waiting| waiting.ticket) {
            Ok(place) => {
                state.line[place].waker = Some(waker.clone());
                Poll::Pending
            }
            Err(_) => {
                drop(state);
                Poll::Ready(Err(self.closed_error()))
            }
        }
    }

    /// Takes the message with this ticket out of the line. Whether it was still there.
    pub(crate) fn leave_line(&self, ticket: u64) -> bool {
        let mut state = self.state.lock();
        if ticket >= state.served
            && let Ok(place) = state.line.binary_search_by_key(&ticket, |waiting| waiting.ticket)
        {
            let gone = state.line.remove(place);
            drop(state);
            return gone.is_some();
        }
        false
    }

    /// Appends to the control lane.
    pub(crate) fn control(&self, control: Control) {
        let mut state = self.state.lock();
        if self.exit.get().is_some() || state.control.contains(&control) {
            return;
        }
        state.control.push_back(control);
        if control == Control::Drain {
            state.closing = true;
            state.draining = true;
        }
        self.has_control.store(true, Ordering::Relaxed);
        let receiver = state.receiver.take();
        drop(state);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }

    /// Whether control may wait. A stale answer is corrected by the next batch at the latest.
    pub(crate) fn has_control(&self) -> bool {
        self.has_control.load(Ordering::Relaxed)
    }

    /// What the actor is to do next; sleeps on `waker` if there is nothing. `batch` is empty when this is called.
    pub(crate) fn poll_next(&self, batch: &mut VecDeque<Envelope<M>>, waker: &Waker) -> Poll<Next> {
        debug_assert!(batch.is_empty());
        let mut state = self.state.lock();
        if let Some(control) = self.take_control(&mut state) {
            return Poll::Ready(Next::Control(control));
        }
        if !state.queue.is_empty() {
            if state.queue.len() <= self.batch {
                std::mem::swap(&mut state.queue, batch);
            } else {
                batch.extend(state.queue.drain(..self.batch));
            }
            let wakers = self.let_in(&mut state);
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
            return Poll::Ready(Next::Batch);
        }
        if state.draining {
            return Poll::Ready(Next::End(Exit::Stopped));
        }
        // Acquire: pairs with the Release of the last sender's end, so that what it sent before is in the queue that was just found empty.
        if self.senders.load(Ordering::Acquire) == 0 {
            state.closing = true;
            return Poll::Ready(Next::End(Exit::Unreferenced));
        }
        match &mut state.receiver {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        Poll::Pending
    }

    /// Whether nothing new is taken; wakes `waker` when that may have changed.
    pub(crate) fn poll_closing(&self, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        state.receiver = Some(waker.clone());
        state.closing
    }

    /// A new incarnation begins: that the last one was to fall is no concern of it.
    pub(crate) fn forget_fall(&self) {
        self.state.lock().control.retain(|control| *control != Control::Fall);
    }

    /// Control that came, if any.
    pub(crate) fn next_control(&self) -> Option<Control> {
        let mut state = self.state.lock();
        self.take_control(&mut state)
    }

    /// Whether control waits; wakes `waker` when some comes.
    pub(crate) fn poll_has_control(&self, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        if !state.control.is_empty() {
            return true;
        }
        state.receiver = Some(waker.clone());
        false
    }

    fn take_control(&self, state: &mut State<M>) -> Option<Control> {
        let control = state.control.pop_front();
        self.has_control.store(!state.control.is_empty(), Ordering::Relaxed);
        control
    }

    /// Moves those in line into the queue, as far as there is room. Returns whom to wake.
    fn let_in(&self, state: &mut State<M>) -> SmallVec<[Waker; 8]> {
        let mut wakers = SmallVec::new();
        while state.queue.len() < self.capacity {
            let Some(waiting) = state.line.pop_front() else { break };
            state.served = waiting.ticket + 1;
            state.queue.push_back(waiting.envelope);
            wakers.extend(waiting.waker);
        }
        wakers
    }

    /// The end: answers all that waits, and all that comes later.
    pub(crate) fn close(&self, exit: Exit) {
        let mut state = self.state.lock();
        state.closing = true;
        let queue = std::mem::take(&mut state.queue);
        let line = std::mem::take(&mut state.line);
        state.control.clear();
        state.receiver = None;
        let watchers = std::mem::take(&mut state.watchers);
        // The first reason stands.
        let exit = self.exit.get_or_init(|| exit).clone();
        drop(state);
        for envelope in queue {
            envelope.mail.fail(self.closed_error());
        }
        for waiting in line {
            waiting.envelope.mail.fail(self.closed_error());
            if let Some(waker) = waiting.waker {
                waker.wake();
            }
        }
        for watcher in watchers {
            watcher.send(exit.clone());
        }
    }

    /// What a sender is told whose message is not taken because the actor ends.
    pub(crate) fn closed_error(&self) -> ActorError {
        self.exit.get().map_or(ActorError::Stopped, Exit::error)
    }

    pub(crate) fn exit(&self) -> Option<&Exit> {
        self.exit.get()
    }

    /// Answers when the actor has ended, and how.
    pub(crate) fn watch(&self, watcher: Reply<Exit>) {
        let mut state = self.state.lock();
        if let Some(exit) = self.exit.get() {
            drop(state);
            return watcher.send(exit.clone());
        }
        let mut given_up = Vec::new();
        if state.watchers.len() == state.watchers.capacity() {
            given_up.extend(state.watchers.extract_if(.., |watcher| watcher.is_abandoned()));
        }
        let is_full = state.watchers.len() >= MAX_WATCHERS;
        if is_full {
            given_up.push(watcher);
        } else {
            state.watchers.push(watcher);
        }
        drop(state);
        for watcher in given_up {
            watcher.fail(ActorError::MailboxFull);
        }
    }

    /// The end of the actor, which this does not keep alive.
    pub(crate) fn ended(&self) -> impl Future<Output = Exit> + Send + use<M> {
        let (sender, end) = oneshot::channel();
        self.watch(Reply::task(sender));
        async move {
            match end.await {
                Ok(Ok(exit)) => exit,
                // Only with too many others that wait.
                Ok(Err(error)) => Exit::Unreachable(error.to_string().into()),
                Err(_) => Exit::Killed,
            }
        }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().queue.len()
    }
}

/// A claim on the mailbox: the actor lives while there is one.
pub(crate) struct Sending<M: Mail>(Arc<Mailbox<M>>);

impl<M: Mail> Sending<M> {
    /// One more claim. From none only by the actor itself, or before it runs.
    pub(crate) fn new(mailbox: &Arc<Mailbox<M>>) -> Self {
        mailbox.senders.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(mailbox))
    }

    /// One more claim, from outside the actor: only if there is one already.
    pub(crate) fn join(mailbox: &Arc<Mailbox<M>>) -> Option<Self> {
        mailbox
            .senders
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count > 0).then_some(count + 1))
            .ok()
            .map(|_| Self(Arc::clone(mailbox)))
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox<M>> {
        &self.0
    }
}

impl<M: Mail> std::ops::Deref for Sending<M> {
    type Target = Mailbox<M>;

    fn deref(&self) -> &Mailbox<M> {
        &self.0
    }
}

impl<M: Mail> Clone for Sending<M> {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl<M: Mail> Drop for Sending<M> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `poll_next`.
        if self.0.senders.fetch_sub(1, Ordering::Release) == 1 {
            let receiver = self.0.state.lock().receiver.take();
            if let Some(receiver) = receiver {
                receiver.wake();
            }
        }
    }
}
