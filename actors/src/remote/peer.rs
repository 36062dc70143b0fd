//! One link to another system: what waits to be sent, what waits for answers, what is lent and borrowed.
//!
//! 1. Messages leave in the order in which they were queued.
//! 2. A request number is in use until its answer came, also if nobody waits any longer; so no answer goes to the wrong one.
//! 3. After [`Peer::close`] nothing is queued any more and nothing is pending.

use super::answer::error_to_wire;
use super::attach::ATTACH_BYTES;
use super::codec::{Arguments, Codec, Output};
use super::frame::{Data, Frame, Kind, MAX_NAME_BYTES};
use crate::ActorError;
use crate::system::WeakSystem;
use bytes::Bytes;
use dmrpc_fabric::link::{Body, MAX_HEAD_BYTES};
use dmrpc_objstore::{Borrows, Lending, Loans, Store};
use parking_lot::Mutex;
use slab::Slab;
use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
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
    loans: Vec<u64>,
}

/// Messages to be sent, one head after the other.
#[derive(Default)]
pub(crate) struct Outbox {
    pub(crate) heads: Vec<u8>,
    /// Where each head ends, and its body.
    pub(crate) messages: VecDeque<(usize, Body)>,
    pub(crate) bytes: usize,
    closed: bool,
}

/// A system at the other end of a link.
pub struct Peer {
    address: Arc<str>,
    on_this_host: bool,
    limits: Limits,
    outbox: Mutex<Outbox>,
    /// For the writer: there is something in the outbox, or loans to return, or an end.
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
            outbox: Mutex::default(),
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
        self.send_under(self.loans.clone(), frame, codec, write).map(drop)
    }

    /// As [`send`](Peer::send), with the loans under which references go. Gives their numbers.
    fn send_under(
        self: &Arc<Self>,
        loans: Loans,
        frame: Frame<'_>,
        codec: Codec,
        write: impl FnOnce(&mut Output<'_>) -> Result<(), ActorError>,
    ) -> Result<Vec<u64>, ActorError> {
        // Taken, and not borrowed: `write` is code of the user, which may come back here.
        let mut payload = SCRATCH.take();
        let mut output = Output::new(self, codec, loans, &mut payload);
        let result = write(&mut output).and_then(|()| {
            let (attachments, lending) = (std::mem::take(&mut output.attachments), output.lending.take());
            let (table, refs) = match &lending {
                Some(lending) => (lending.table(), lending.count()),
                None => (&[][..], 0),
            };
            self.queue(frame, output.payload, table, refs, attachments)?;
            Ok(lending.map(Lending::sent).unwrap_or_default())
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
        payload: &[u8],
        table: &[u8],
        refs: u32,
        attachments: Vec<Bytes>,
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
        let body_len: usize = body.iter().map(Bytes::len).sum();
        let mut outbox = self.outbox.lock();
        if outbox.closed {
            drop(outbox);
            return Err(self.end.get().cloned().unwrap_or(ActorError::Stopped));
        }
        let before = outbox.heads.len();
        frame.encode(attachments, &mut outbox.heads);
        let end = outbox.heads.len();
        outbox.bytes += end - before + body_len;
        outbox.messages.push_back((end, body));
        self.idle.store(false, Ordering::Relaxed);
        drop(outbox);
        self.work.notify_one();
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

    /// Gives the writer what is to be sent, in exchange for an empty outbox.
    pub(crate) fn take_outbox(&self, into: &mut Outbox) {
        debug_assert!(into.messages.is_empty());
        into.heads.clear();
        into.bytes = 0;
        let mut outbox = self.outbox.lock();
        into.closed = outbox.closed;
        std::mem::swap(&mut *outbox, into);
        drop(outbox);
        self.room.notify_waiters();
    }

    /// Whether nothing is to be sent but returns.
    pub(crate) fn has_returns_only(&self) -> bool {
        self.outbox.lock().messages.is_empty()
    }

    /// Says that no more requests are wanted.
    pub(crate) fn say_bye(&self) {
        // If the link has ended, there is nobody to say it to.
        let _ = self.send_bare(&Frame::new(Kind::Bye));
    }

    /// The writer found nothing to do.
    pub(crate) fn went_idle(&self) {
        let outbox = self.outbox.lock();
        if outbox.messages.is_empty() {
            self.idle.store(true, Ordering::Relaxed);
            drop(outbox);
            self.went_idle.notify_waiters();
        }
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
        loop {
            if self.outbox.lock().bytes < self.limits.max_queued_bytes {
                return;
            }
            let notified = self.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.outbox.lock().bytes < self.limits.max_queued_bytes {
                return;
            }
            notified.await;
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.outbox.lock().bytes >= self.limits.max_queued_bytes
    }

    /// Sends a request and remembers who waits for the answer.
    pub(crate) fn request(
        self: &Arc<Self>,
        frame: Frame<'_>,
        codec: Codec,
        write: impl FnOnce(&mut Output<'_>) -> Result<(), ActorError>,
        completion: Completion,
    ) -> Result<Withdrawal, ActorError> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let request = {
            let mut pending = self.pending.lock();
            if let Some(end) = self.end.get() {
                return Err(end.clone());
            }
            if pending.len() >= MAX_PENDING {
                return Err(ActorError::MailboxFull);
            }
            pending.insert(Pending { serial, completion: Some(completion), loans: Vec::new() }) as u32
        };
        // The other end may not be able to reach what is not published: then it is to be there without having to be waited for.
        let loans = if self.on_this_host { self.loans.until_answered() } else { self.loans.clone() };
        let sent = self.send_under(loans, Frame { request, ..frame }, codec, write);
        let mut pending = self.pending.lock();
        let entry = pending.get_mut(request as usize).filter(|pending| pending.serial == serial);
        match (sent, entry) {
            (Ok(lent), Some(entry)) => entry.loans = lent,
            // The answer was faster.
            (Ok(lent), None) => {
                drop(pending);
                self.outlived(&lent);
            }
            (Err(error), entry) => {
                // Unless the end of the link was faster.
                if entry.is_some() {
                    pending.remove(request as usize);
                }
                return Err(error);
            }
        }
        Ok(Withdrawal { peer: Arc::clone(self), request, serial })
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
        {
            let mut outbox = self.outbox.lock();
            *outbox = Outbox { closed: true, ..Outbox::default() };
        }
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
    peer: Arc<Peer>,
    request: u32,
    serial: u64,
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        self.peer.withdraw(self.request, self.serial);
    }
}
