//! Links within a process: bodies are handed over, not copied, until the receiver places them.
//!
//! 1. `bytes` of a direction is the sum of the heads and bodies in its queue, or the queue has one message.
//! 2. A side whose flag is up has been or will be woken when there is something for it to do.

use crate::address::Address;
use crate::landing::Landing;
use crate::link::{
    Body, Incoming, Interest, Interests, Link, LinkError, Peer, Receiver, Sender, Target, TrySendError, check_lengths,
};
use crate::options::LinkOptions;
use crate::shm::bell::Bell;
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::Errno;
use smallvec::{SmallVec, smallvec};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

/// Descriptors that came and that nobody took.
const MAX_KEPT_DESCRIPTORS: usize = 1024;

/// One way.
#[derive(Debug)]
struct Direction {
    state: Mutex<State>,
    /// Rung to wake the receiver.
    data: Bell,
    /// Rung to wake the sender.
    space: Bell,
    max_body_bytes: u64,
    max_queued_bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Message>,
    bytes: u64,
    sender_ended: bool,
    receiver_ended: bool,
    receiver_waits: bool,
    sender_waits: bool,
    /// Whether the bells are rung. They are rung and stilled under the lock only.
    data_rung: bool,
    space_rung: bool,
    descriptors: Vec<(u32, OwnedFd)>,
}

#[derive(Debug)]
struct Message {
    head: SmallVec<[u8; 64]>,
    body: Body,
    body_len: u64,
}

/// Two ends that are linked to each other.
///
/// # Errors
///
/// [`LinkError::Io`] if there are no more descriptors.
pub fn pair(options: &LinkOptions) -> Result<(Link, Link), LinkError> {
    pair_of(options, options)
}

/// Two ends with options of their own.
pub(crate) fn pair_of(a: &LinkOptions, b: &LinkOptions) -> Result<(Link, Link), LinkError> {
    let direction = |from: &LinkOptions| -> Result<_, LinkError> {
        let bell = || Bell::new().map_err(|error| LinkError::io("making an eventfd", error));
        Ok(Arc::new(Direction {
            state: Mutex::default(),
            data: bell()?,
            space: bell()?,
            max_body_bytes: a.max_body_bytes.min(b.max_body_bytes),
            max_queued_bytes: from.max_queued_bytes,
        }))
    };
    let (out, back) = (direction(a)?, direction(b)?);
    let end = |out: &Arc<Direction>, into: &Arc<Direction>| Link {
        sender: Box::new(InprocSender { direction: out.clone(), full: None }),
        receiver: Box::new(InprocReceiver {
            direction: into.clone(),
            head: SmallVec::new(),
            state: Receiving::Head,
            taken: VecDeque::new(),
        }),
        peer: Peer::InProcess,
    };
    Ok((end(&out, &back), end(&back, &out)))
}

struct InprocSender {
    direction: Arc<Direction>,
    /// The size of the message that there was no room for.
    full: Option<u64>,
}

impl Sender for InprocSender {
    fn try_send(&mut self, head: &[u8], body: Body) -> Result<(), TrySendError> {
        let direction = &*self.direction;
        let body_len = check_lengths(head, &body, || direction.max_body_bytes)?;
        let mut state = direction.state.lock();
        if state.receiver_ended {
            return Err(LinkError::Closed.into());
        }
        let message_bytes = head.len() as u64 + body_len;
        if !state.queue.is_empty() && state.bytes + message_bytes > direction.max_queued_bytes {
            self.full = Some(message_bytes);
            return Err(TrySendError::Full(body));
        }
        self.full = None;
        state.bytes += message_bytes;
        state.queue.push_back(Message { head: head.into(), body, body_len });
        Ok(())
    }

    fn flush(&mut self) -> Result<bool, LinkError> {
        let direction = &*self.direction;
        let mut state = direction.state.lock();
        if state.receiver_ended {
            return Err(LinkError::Closed);
        }
        if !state.queue.is_empty() && std::mem::take(&mut state.receiver_waits) {
            state.data_rung = true;
            direction.data.ring();
        }
        if std::mem::take(&mut state.space_rung) {
            direction.space.still();
        }
        let full =
            self.full.is_some_and(|bytes| !state.queue.is_empty() && state.bytes + bytes > direction.max_queued_bytes);
        state.sender_waits = full;
        drop(state);
        if !full {
            self.full = None;
        }
        Ok(!full)
    }

    fn interests(&self) -> Interests<'_> {
        smallvec![Interest { fd: self.direction.space.as_fd(), writable: false }]
    }

    fn pass_fd(&mut self, tag: u32, fd: BorrowedFd<'_>) -> Result<(), LinkError> {
        let fd = fd.try_clone_to_owned().map_err(|error| LinkError::io("duplicating a descriptor", error))?;
        let mut state = self.direction.state.lock();
        if state.receiver_ended {
            return Err(LinkError::Closed);
        }
        if state.descriptors.len() >= MAX_KEPT_DESCRIPTORS {
            let (len, limit) = (state.descriptors.len() as u64 + 1, MAX_KEPT_DESCRIPTORS as u64);
            return Err(LinkError::TooLarge { what: "a queue of descriptors", len, limit });
        }
        state.descriptors.push((tag, fd));
        Ok(())
    }
}

impl Drop for InprocSender {
    fn drop(&mut self) {
        let mut state = self.direction.state.lock();
        state.sender_ended = true;
        self.direction.data.ring();
    }
}

struct InprocReceiver {
    direction: Arc<Direction>,
    head: SmallVec<[u8; 64]>,
    state: Receiving,
    /// Messages out of the shared queue, taken many at a time.
    taken: VecDeque<Message>,
}

enum Receiving {
    Head,
    Place(Body, u64),
    Body(Target),
}

impl Receiver for InprocReceiver {
    fn recv(&mut self) -> Result<Incoming<'_>, LinkError> {
        match std::mem::replace(&mut self.state, Receiving::Head) {
            Receiving::Place(..) => panic!("caller: places the body before it receives on"),
            Receiving::Body(target) => return Ok(Incoming::Body(target)),
            Receiving::Head => {}
        }
        if self.taken.is_empty() {
            let direction = &*self.direction;
            let mut state = direction.state.lock();
            std::mem::swap(&mut state.queue, &mut self.taken);
            state.bytes = 0;
            if std::mem::take(&mut state.sender_waits) {
                state.space_rung = true;
                direction.space.ring();
            }
            if std::mem::take(&mut state.data_rung) {
                direction.data.still();
            }
            let ended = state.sender_ended;
            state.receiver_waits = self.taken.is_empty() && !ended;
            drop(state);
            if self.taken.is_empty() {
                return if ended { Err(LinkError::Closed) } else { Ok(Incoming::Empty) };
            }
        }
        let message = self.taken.pop_front().expect("looked at above");
        let body_len = message.body_len;
        self.head = message.head;
        if body_len > 0 {
            self.state = Receiving::Place(message.body, body_len);
        }
        Ok(Incoming::Head { head: &self.head, body_len })
    }

    fn head(&self) -> &[u8] {
        &self.head
    }

    fn place(&mut self, target: Target) {
        let Receiving::Place(body, body_len) = std::mem::replace(&mut self.state, Receiving::Head) else {
            panic!("caller: places a body that was announced")
        };
        self.state = Receiving::Body(copy(&body, target, body_len));
    }

    fn interests(&self) -> Interests<'_> {
        smallvec![Interest { fd: self.direction.data.as_fd(), writable: false }]
    }

    fn take_fd(&mut self, tag: u32) -> Option<OwnedFd> {
        let mut state = self.direction.state.lock();
        let index = state.descriptors.iter().position(|(passed, _)| *passed == tag)?;
        Some(state.descriptors.swap_remove(index).1)
    }
}

/// Copies a body to its place.
fn copy(body: &[Bytes], target: Target, body_len: u64) -> Target {
    let mut landing = Landing::new(target, body_len);
    for mut piece in body.iter().map(|piece| &piece[..]) {
        while !piece.is_empty() {
            let (to, len) = landing.next().expect("the body is as long as its pieces");
            let count = len.min(piece.len());
            if let Some(to) = to {
                // SAFETY: the destination answers for its parts, of which this is one that has place for `len`; it is
                // touched by nobody else, so it is not in the piece.
                unsafe { to.copy_from_nonoverlapping(piece.as_ptr(), count) };
            }
            landing.advance(count);
            piece = &piece[count..];
        }
    }
    landing.into_target()
}

impl Drop for InprocReceiver {
    fn drop(&mut self) {
        let mut state = self.direction.state.lock();
        state.receiver_ended = true;
        // What nobody receives any more is not kept.
        let queue = std::mem::take(&mut state.queue);
        let descriptors = std::mem::take(&mut state.descriptors);
        self.direction.space.ring();
        drop(state);
        drop((queue, descriptors));
    }
}

/// Names that are listened at in this process.
static NAMES: Mutex<BTreeMap<String, Weak<Waiting>>> = Mutex::new(BTreeMap::new());

/// Links that are connected and not accepted.
const MAX_UNACCEPTED: usize = 1024;

/// What a listener and those who connect to it share.
struct Waiting {
    links: Mutex<VecDeque<Link>>,
    /// Rung while there are links, and only under the lock.
    bell: Bell,
    options: LinkOptions,
}

/// Accepts links under a name.
pub(crate) struct Acceptor {
    name: String,
    waiting: Arc<Waiting>,
}

impl Acceptor {
    pub(crate) fn bind(name: &str, options: &LinkOptions) -> Result<Self, LinkError> {
        let bell = Bell::new().map_err(|error| LinkError::io("making an eventfd", error))?;
        let waiting = Arc::new(Waiting { links: Mutex::default(), bell, options: options.clone() });
        let mut names = NAMES.lock();
        if names.get(name).is_some_and(|other| other.strong_count() > 0) {
            return Err(LinkError::io("listening under a name", Errno::ADDRINUSE));
        }
        names.insert(name.to_owned(), Arc::downgrade(&waiting));
        Ok(Self { name: name.to_owned(), waiting })
    }

    pub(crate) fn try_accept(&mut self) -> Option<Link> {
        let mut links = self.waiting.links.lock();
        let link = links.pop_front();
        if links.is_empty() {
            self.waiting.bell.still();
        }
        link
    }

    pub(crate) fn address(&self) -> Address {
        Address::InProcess(self.name.clone())
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waiting.bell.as_fd()
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        NAMES.lock().remove(&self.name);
    }
}

pub(crate) fn connect(name: &str, options: &LinkOptions) -> Result<Link, LinkError> {
    let refused = || LinkError::io("connecting to a name", Errno::CONNREFUSED);
    let waiting = NAMES.lock().get(name).and_then(Weak::upgrade).ok_or_else(refused)?;
    let (here, there) = pair_of(options, &waiting.options)?;
    let mut links = waiting.links.lock();
    if links.len() >= MAX_UNACCEPTED {
        return Err(LinkError::Refused("too many wait to be accepted"));
    }
    links.push_back(there);
    waiting.bell.ring();
    Ok(here)
}
