//! One link to another system: what waits to be sent, what waits for answers, what is lent and borrowed.
//!
//! 1. Messages leave in the order in which they were queued, and what is returned ahead of the answer to the question for which
//!    it was lent, so that whoever gets the answer knows what is still in use.
//! 2. A request number is in use until its answer came, also if nobody waits any longer; so no answer goes to the wrong one.
//! 3. After [`Peer::close`] nothing is queued any more and nothing is pending.

use super::answer::error_to_wire;
use super::attach::ATTACH_BYTES;
use super::codec::{Arguments, Codec, Output};
use super::frame::{Data, Frame, Kind, MAX_NAME_BYTES};
use crate::ActorError;
use crate::system::WeakSystem;
use bytes::Bytes;
use dmrpc_fabric::asynchronous::AsyncSender;
use dmrpc_fabric::link::{Body, LinkError, MAX_HEAD_BYTES, TrySendError};
use dmrpc_objstore::{Borrows, LoanNumbers, Loans, Store};
use parking_lot::Mutex;
use slab::Slab;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::Notify;

/// A payload and its references travel in the head up to this size, beyond it in the body.
const INLINE_PAYLOAD_BYTES: usize = 32 * 1024;

const _: () = assert!(INLINE_PAYLOAD_BYTES + MAX_NAME_BYTES + 255 * 8 + 32 <= MAX_HEAD_BYTES);
const _: () = assert!(ATTACH_BYTES <= INLINE_PAYLOAD_BYTES);

/// The most requests that may wait for their answers on one link.
pub(crate) const MAX_PENDING: usize = 1 << 16;

/// The most ended actors that are remembered for one link; further ones are asked again, in vain.
const MAX_GONE: usize = 1 << 16;

/// Limits of a link.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// The largest message, in bytes.
    pub(crate) max_message_bytes: u64,
    /// With so much waiting to be sent, requests wait too.
    pub(crate) max_queued_bytes: usize,
    /// How long what is lent is kept after the end of the link.
    pub(crate) grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_message_bytes: 64 << 20, max_queued_bytes: 16 << 20, grace: Duration::from_secs(5) }
    }
}

/// A message, but for its head.
struct Encoded<'a> {
    payload: &'a [u8],
    table: &'a [u8],
    refs: u32,
    /// What is lent for it.
    loans: &'a [u64],
    attachments: Vec<Bytes>,
}

/// Called with the answer, on the reader's task.
pub(crate) type Completion = Box<dyn FnOnce(Result<Answer<'_>, ActorError>) + Send>;

/// An answer that came.
pub(crate) struct Answer<'a> {
    pub(crate) arguments: Arguments<'a>,
    /// What the answer to a lookup is about.
    pub(crate) actor: u32,
}

struct Pending {
    serial: u64,
    /// `None` when nobody waits any longer.
    completion: Option<Completion>,
    /// What was lent for it.
    loans: LoanNumbers,
}

/// Loan numbers that go back in one message.
const MAX_RETURNS: usize = 4096;

/// The half of the link that sends, and what it does not take yet.
///
/// Whoever has a message gives it to the link, which lets a peer that is awake see it at once; what else is to be done, waking a
/// peer that sleeps or waiting for room, is left to the writer's task, once for all that was sent before its turn.
struct Outbox {
    link: AsyncSender,
    /// Heads and bodies that wait for room in the link.
    waiting: VecDeque<(Box<[u8]>, Body)>,
    /// Bytes of those.
    bytes: usize,
    /// Why the link takes nothing any more, for the writer to say so.
    failure: Option<LinkError>,
    /// Where heads are written.
    head: Vec<u8>,
    returns: Vec<u64>,
}

impl Outbox {
    /// Gives a message to the link, or queues it. Whether the writer is needed.
    fn put(&mut self, frame: &Frame<'_>, attachments: impl ExactSizeIterator<Item = u64>, body: Body) -> bool {
        self.head.clear();
        frame.encode(attachments, &mut self.head);
        let body = if self.waiting.is_empty() {
            match self.link.get_mut().try_send(&self.head, body) {
                Ok(()) => return !self.link.get_mut().publish(),
                Err(TrySendError::Full(body)) => body,
                Err(TrySendError::Link(error)) => {
                    self.failure = Some(error);
                    return true;
                }
            }
        } else {
            body
        };
        self.bytes += self.head.len() + body.iter().map(Bytes::len).sum::<usize>();
        self.waiting.push_back((self.head.as_slice().into(), body));
        true
    }

    /// Sends back what is returned. Whether the writer is needed.
    fn put_returns(&mut self, borrows: &Borrows) -> bool {
        borrows.take_returns(&mut self.returns);
        let mut needed = false;
        let returns = std::mem::take(&mut self.returns);
        for numbers in returns.chunks(MAX_RETURNS) {
            let payload: SmallVec<[u8; 64]> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            let data = Data::Head { payload: &payload, table: &[] };
            needed |= self.put(&Frame { data, ..Frame::new(Kind::Return) }, std::iter::empty(), Body::new());
        }
        self.returns = returns;
        self.returns.clear();
        needed
    }

    /// Gives all that waits to the link, and flushes that.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if let Some(error) = self.failure.take() {
            return Poll::Ready(Err(error));
        }
        while let Some((head, body)) = self.waiting.pop_front() {
            let len = head.len() + body.iter().map(Bytes::len).sum::<usize>();
            match self.link.get_mut().try_send(&head, body) {
                Ok(()) => self.bytes -= len,
                Err(TrySendError::Link(error)) => return Poll::Ready(Err(error)),
                Err(TrySendError::Full(body)) => {
                    self.waiting.push_front((head, body));
                    ready!(self.link.poll_flush(cx))?;
                }
            }
        }
        self.link.poll_flush(cx)
    }
}

/// A system at the other end of a link.
pub struct Peer {
    address: Arc<str>,
    on_this_host: bool,
    limits: Limits,
    /// `None` after the end.
    outbox: Mutex<Option<Outbox>>,
    /// Bytes that wait in it, to be seen without its lock.
    waiting_bytes: AtomicUsize,
    /// For the writer: something is to be done about the outbox, or loans are to be returned.
    pub(crate) work: Arc<Notify>,
    /// For requests that wait: there is room in the outbox.
    room: Notify,
    pending: Mutex<Slab<Pending>>,
    serial: std::sync::atomic::AtomicU64,
    /// Requests of the other end that it withdrew.
    cancelled: Mutex<HashSet<u32>>,
    cancelled_len: AtomicUsize,
    /// Actors of the other end that have ended, of those that were called.
    gone: Mutex<HashSet<u32>>,
    any_gone: AtomicBool,
    loans: Loans,
    borrows: Borrows,
    end: OnceLock<ActorError>,
    ended: Notify,
    /// The other end wants no more requests.
    retiring: AtomicBool,
    /// Where the other end listens, once it said so.
    pub(crate) url: OnceLock<Option<Arc<str>>>,
    /// The system at this end.
    pub(crate) system: WeakSystem,
    /// The writer has nothing to do; and a notice when it has become so.
    idle: AtomicBool,
    went_idle: Notify,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({})", self.address)
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Peer {
    /// `store`: whose refs of its node are to be, where this process has several.
    pub(crate) fn new(
        address: Arc<str>,
        on_this_host: bool,
        limits: Limits,
        system: WeakSystem,
        store: Option<&Store>,
        link: AsyncSender,
    ) -> Arc<Self> {
        let work = Arc::new(Notify::new());
        let returns = Arc::clone(&work);
        let wake = move || returns.notify_one();
        Arc::new(Self {
            loans: Loans::new(limits.grace),
            borrows: store.map_or_else(|| Borrows::new(wake.clone()), |store| Borrows::of(store, wake.clone())),
            address,
            on_this_host,
            limits,
            outbox: Mutex::new(Some(Outbox {
                link,
                waiting: VecDeque::new(),
                bytes: 0,
                failure: None,
                head: Vec::new(),
                returns: Vec::new(),
            })),
            waiting_bytes: AtomicUsize::new(0),
            work,
            room: Notify::new(),
            pending: Mutex::default(),
            serial: std::sync::atomic::AtomicU64::new(0),
            cancelled: Mutex::default(),
            cancelled_len: AtomicUsize::new(0),
            gone: Mutex::default(),
            any_gone: AtomicBool::new(false),
            end: OnceLock::new(),
            ended: Notify::new(),
            retiring: AtomicBool::new(false),
            url: OnceLock::new(),
            system,
            idle: AtomicBool::new(true),
            went_idle: Notify::new(),
        })
    }

    /// Where the other end is, as far as this end knows.
    pub fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// Whether the other end can reach what is on this host.
    pub(crate) fn is_on_this_host(&self) -> bool {
        self.on_this_host
    }

    /// Why the link has ended, if it has.
    pub fn end(&self) -> Option<&ActorError> {
        self.end.get()
    }

    /// Whether requests can be sent.
    pub(crate) fn is_usable(&self) -> bool {
        self.end.get().is_none() && !self.retiring.load(Ordering::Relaxed)
    }

    pub(crate) fn retire(&self) {
        self.retiring.store(true, Ordering::Relaxed);
    }

    pub(crate) fn loans(&self) -> &Loans {
        &self.loans
    }

    pub(crate) fn borrows(&self) -> &Borrows {
        &self.borrows
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Encodes and queues a message. Nothing is sent, or lent, if it can't be.
    pub(crate) fn send(
        self: &Arc<Self>,
        frame: Frame<'_>,
        codec: Codec,
        write: impl FnOnce(&mut Output<'_>) -> Result<(), ActorError>,
    ) -> Result<(), ActorError> {
        self.encoded(self.loans.clone(), codec, write, |encoded| self.queue(frame, encoded))
    }

    /// Encodes a message, with the loans under which references go, and has it queued. They are taken back if it is not.
    fn encoded<R>(
        self: &Arc<Self>,
        loans: Loans,
        codec: Codec,
        write: impl FnOnce(&mut Output<'_>) -> Result<(), ActorError>,
        queue: impl FnOnce(Encoded<'_>) -> Result<R, ActorError>,
    ) -> Result<R, ActorError> {
        // Taken, and not borrowed: `write` is code of the user, which may come back here.
        let mut payload = SCRATCH.take();
        let mut output = Output::new(self, codec, loans, &mut payload);
        let result = write(&mut output).and_then(|()| {
            let (attachments, lending) = (std::mem::take(&mut output.attachments), output.lending.take());
            let (table, refs, loans) = match &lending {
                Some(lending) => (lending.table(), lending.count(), lending.numbers()),
                None => (&[][..], 0, &[][..]),
            };
            let result = queue(Encoded { payload: output.payload, table, refs, loans, attachments })?;
            if let Some(lending) = lending {
                lending.sent();
            }
            Ok(result)
        });
        // A scratch that grew for a large message is not kept.
        if payload.capacity() <= 4 * INLINE_PAYLOAD_BYTES {
            SCRATCH.set(payload);
        }
        result
    }

    fn queue(
        &self,
        frame: Frame<'_>,
        Encoded { payload, table, refs, attachments, .. }: Encoded<'_>,
    ) -> Result<(), ActorError> {
        let attached: usize = attachments.iter().map(Bytes::len).sum();
        let total = (payload.len() + table.len() + attached) as u64;
        let refs = u16::try_from(refs).map_err(|_| ActorError::Reference("more than 65535 in one message".into()))?;
        if total > self.limits.max_message_bytes {
            return Err(ActorError::TooLarge { len: total, limit: self.limits.max_message_bytes });
        }
        let mut body = Body::new();
        let data = if payload.len() + table.len() <= INLINE_PAYLOAD_BYTES {
            Data::Head { payload, table }
        } else {
            body.push(Bytes::copy_from_slice(payload));
            if !table.is_empty() {
                body.push(Bytes::copy_from_slice(table));
            }
            Data::Body { payload_len: payload.len() as u32, table_len: table.len() as u32 }
        };
        let lens: smallvec::SmallVec<[u64; 4]> = attachments.iter().map(|bytes| bytes.len() as u64).collect();
        body.extend(attachments);
        let frame = Frame { refs, data, ..frame };
        self.enqueue(&frame, lens.iter().copied(), body)
    }

    fn enqueue(
        &self,
        frame: &Frame<'_>,
        attachments: impl ExactSizeIterator<Item = u64>,
        body: Body,
    ) -> Result<(), ActorError> {
        let mut outbox = self.outbox.lock();
        let Some(open) = &mut *outbox else {
            drop(outbox);
            return Err(self.end.get().cloned().unwrap_or(ActorError::Stopped));
        };
        let returned = frame.kind == Kind::Reply && open.put_returns(&self.borrows);
        if open.put(frame, attachments, body) || returned {
            self.idle.store(false, Ordering::Relaxed);
            self.waiting_bytes.store(open.bytes, Ordering::Relaxed);
            drop(outbox);
            self.work.notify_one();
        }
        Ok(())
    }

    /// Queues a message without arguments.
    pub(crate) fn send_bare(&self, frame: &Frame<'_>) -> Result<(), ActorError> {
        self.enqueue(frame, std::iter::empty(), Body::new())
    }

    /// Answers a request with an error.
    pub(crate) fn refuse(&self, request: u32, error: &ActorError) {
        let (status, text) = error_to_wire(error);
        let text = &text.as_bytes()[..text.len().min(INLINE_PAYLOAD_BYTES)];
        let data = Data::Head { payload: text, table: &[] };
        // If the link has ended, nobody waits.
        let _ = self.send_bare(&Frame { request, target: status, data, ..Frame::new(Kind::Reply) });
    }

    /// Whether nothing is to be done about the outbox, but for loans that are to be returned.
    pub(crate) fn has_returns_only(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// Sends what there is to be sent, returns included, and wakes the peer if it sleeps.
    pub(crate) fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let mut outbox = self.outbox.lock();
        // After the end there is nothing to be sent, and the writer hears of it.
        let Some(open) = &mut *outbox else { return Poll::Ready(Ok(())) };
        open.put_returns(&self.borrows);
        let had = open.bytes;
        let polled = open.poll_empty(cx);
        let made_room = open.bytes < had;
        self.waiting_bytes.store(open.bytes, Ordering::Relaxed);
        if matches!(polled, Poll::Ready(Ok(()))) {
            self.idle.store(true, Ordering::Relaxed);
        }
        drop(outbox);
        if made_room {
            self.room.notify_waiters();
        }
        if polled.is_ready() {
            self.went_idle.notify_waiters();
        }
        polled
    }

    /// Says that no more requests are wanted.
    pub(crate) fn say_bye(&self) {
        // If the link has ended, there is nobody to say it to.
        let _ = self.send_bare(&Frame::new(Kind::Bye));
    }

    /// Waits until everything that was queued is out, or the link has ended.
    pub(crate) async fn flushed(&self) {
        loop {
            let notified = self.went_idle.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.idle.load(Ordering::Relaxed) || self.end.get().is_some() {
                return;
            }
            notified.await;
        }
    }

    /// Waits until there is room for one more request.
    pub(crate) async fn has_room(&self) {
        while self.is_full() {
            let notified = self.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if !self.is_full() {
                return;
            }
            notified.await;
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        // Relaxed: it is stored before those who wait for room are told.
        self.waiting_bytes.load(Ordering::Relaxed) >= self.limits.max_queued_bytes
    }

    /// Sends a request and remembers who waits for the answer.
    pub(crate) fn request(
        self: &Arc<Self>,
        frame: Frame<'_>,
        codec: Codec,
        write: impl FnOnce(&mut Output<'_>) -> Result<(), ActorError>,
        completion: Completion,
    ) -> Result<Withdrawal, ActorError> {
        // The other end may not be able to reach what is not published: then it is to be there without having to be waited for.
        let loans = if self.on_this_host { self.loans.until_answered() } else { self.loans.clone() };
        self.encoded(loans, codec, write, |encoded| {
            let serial = self.serial.fetch_add(1, Ordering::Relaxed);
            let loans = encoded.loans.into();
            // Before it can be answered.
            let request = self.await_answer(Pending { serial, completion: Some(completion), loans })?;
            if let Err(error) = self.queue(Frame { request, ..frame }, encoded) {
                let mut pending = self.pending.lock();
                // Unless the end of the link was faster.
                if pending.get(request as usize).is_some_and(|pending| pending.serial == serial) {
                    pending.remove(request as usize);
                }
                return Err(error);
            }
            Ok(Withdrawal { peer: Some(Arc::clone(self)), request, serial })
        })
    }

    fn await_answer(&self, awaited: Pending) -> Result<u32, ActorError> {
        let mut pending = self.pending.lock();
        if let Some(end) = self.end.get() {
            return Err(end.clone());
        }
        if pending.len() >= MAX_PENDING {
            return Err(ActorError::MailboxFull);
        }
        Ok(pending.insert(awaited) as u32)
    }

    /// An answer came. Whether anything with this number was pending.
    pub(crate) fn answered(&self, request: u32, outcome: Result<Answer<'_>, ActorError>) -> bool {
        let Some(pending) = self.pending.lock().try_remove(request as usize) else { return false };
        // Before anybody hears of the answer, and may end.
        self.outlived(&pending.loans);
        if let Some(completion) = pending.completion {
            completion(outcome);
        }
        true
    }

    /// What was lent for a question that is answered, and is still in use, is no longer this process's alone.
    fn outlived(&self, loans: &[u64]) {
        if !loans.is_empty()
            && let Err(error) = self.loans.outlived(loans)
        {
            tracing::warn!(peer = &*self.address, %error, "a ref that a peer keeps can't be published");
        }
    }

    fn withdraw(&self, request: u32, serial: u64) {
        let withdrawn = {
            let mut pending = self.pending.lock();
            match pending.get_mut(request as usize) {
                Some(pending) if pending.serial == serial => pending.completion.take(),
                _ => return,
            }
        };
        drop(withdrawn);
        let _ = self.send_bare(&Frame { request, ..Frame::new(Kind::Cancel) });
    }

    /// The other end withdrew a request.
    pub(crate) fn cancel(&self, request: u32) {
        let mut cancelled = self.cancelled.lock();
        // The other end can't have more requests under way; if it claims so, it is not served better for it.
        if cancelled.len() < MAX_PENDING {
            cancelled.insert(request);
        }
        self.cancelled_len.store(cancelled.len(), Ordering::Relaxed);
    }

    /// A new request with this number begins, or an old one is over.
    pub(crate) fn forget_cancelled(&self, request: u32) {
        if self.cancelled_len.load(Ordering::Relaxed) > 0 {
            let mut cancelled = self.cancelled.lock();
            cancelled.remove(&request);
            self.cancelled_len.store(cancelled.len(), Ordering::Relaxed);
        }
    }

    /// Whether nobody waits for the answer to this request of the other end.
    pub(crate) fn is_cancelled(&self, request: u32) -> bool {
        self.end.get().is_some()
            || (self.cancelled_len.load(Ordering::Relaxed) > 0 && self.cancelled.lock().contains(&request))
    }

    /// An actor of the other end has ended. Its number is never used for another.
    pub(crate) fn actor_gone(&self, actor: u32) {
        let mut gone = self.gone.lock();
        if gone.len() < MAX_GONE {
            gone.insert(actor);
        }
        self.any_gone.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_gone(&self, actor: u32) -> bool {
        self.any_gone.load(Ordering::Relaxed) && self.gone.lock().contains(&actor)
    }

    /// The end of the link, for this reason, which all that was pending hear.
    pub(crate) fn close(&self, error: &ActorError) {
        if self.end.set(error.clone()).is_err() {
            return;
        }
        // Not under the lock: with a body its owner's code may be run.
        let outbox = self.outbox.lock().take();
        self.waiting_bytes.store(0, Ordering::Relaxed);
        drop(outbox);
        let pending = std::mem::take(&mut *self.pending.lock());
        for (_, pending) in pending {
            if let Some(completion) = pending.completion {
                completion(Err(error.clone()));
            }
        }
        self.borrows.close();
        self.loans.close();
        self.room.notify_waiters();
        self.went_idle.notify_waiters();
        self.ended.notify_waiters();
    }

    /// Waits for the end of the link.
    pub(crate) async fn ended(&self) {
        let notified = self.ended.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if self.end.get().is_none() {
            notified.await;
        }
    }
}

/// A request under way. Dropped, it is withdrawn, unless its answer came.
pub(crate) struct Withdrawal {
    /// `None` when there is nothing to withdraw.
    peer: Option<Arc<Peer>>,
    request: u32,
    serial: u64,
}

impl Withdrawal {
    /// The answer came.
    pub(crate) fn answered(mut self) {
        self.peer = None;
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if let Some(peer) = &self.peer {
            peer.withdraw(self.request, self.serial);
        }
    }
}
