//! A client's link, as the loop keeps it.
//!
//! 1. What is sent goes out in order. What the link has no room for waits here, within [`MAX_WAITING_MESSAGES`] and
//!    [`MAX_WAITING_BYTES`]; a client with so much waiting that it does not take is cut off, and nobody else notices.
//! 2. While [`PAUSE_MESSAGES`] wait, nothing more is read: a client that asks without listening stops itself.
//! 3. A link is closed in two steps: what waits goes out and this direction ends, then the client's does. A client on this
//!    host may have views of pages as long as it keeps its end open, so there is no limit on the second step for it.
#![forbid(unsafe_code)]

use super::event_loop::TURN_BYTES;
use crate::core::{LinkId, Now};
use dmrpc_fabric::link::{Body, Incoming, Interest, Link, LinkError, Peer, Receiver, Sender, Target, TrySendError};
use dmrpc_fabric::rdma::OneSided;
use rustix::event::epoll::{self, EventData, EventFlags};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Messages that may wait for a client.
const MAX_WAITING_MESSAGES: usize = 16 * 1024;
/// Bytes of heads that may wait for a client.
const MAX_WAITING_BYTES: usize = 8 << 20;
/// With so many messages waiting for a client nothing more is read from it.
const PAUSE_MESSAGES: usize = 256;
/// How long a client that is not on this host may take to close its end, in milliseconds.
const LINGER_MS: Now = 1000;

/// In the data of an epoll event, beside the link's number: it was a descriptor of the sending half.
pub(crate) const SENDING_HALF: u64 = 1 << 62;

/// A client's link.
pub(crate) struct Connection {
    pub(crate) id: LinkId,
    pub(crate) stage: Stage,
    pub(crate) reading: Reading,
    /// Reads and writes in flight.
    pub(crate) transfers: u32,
    /// Whether it stands in the loop's list of those that may have something to be received.
    pub(crate) is_ready: bool,
    /// Whether it stands in the loop's list of those that have something to be flushed.
    pub(crate) is_dirty: bool,
    is_watched: bool,
    is_watched_for_room: bool,
    /// Whether it is over a device that the loop polls. Its bells ring only while the loop does not.
    is_polled: bool,
    is_turn_over: bool,
    peer: Peer,
    /// `None` once this direction has ended.
    sender: Option<Box<dyn Sender>>,
    receiver: Box<dyn Receiver>,
    waiting: VecDeque<Message>,
    waiting_bytes: usize,
    /// Since when something is to go out and nothing did.
    stalled_since: Option<Now>,
}

/// How far a link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The client has to say hello until then.
    Greeting { until: Now },
    /// It has a session, and if it `maps` segments it may have views of pages.
    Open { maps: bool },
    /// What waits still goes out, and what comes is dropped, until then at most.
    Closing { until: Option<Now> },
}

/// What is to be received next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// A head, or a body that has its place.
    Next,
    /// A body of so many bytes that waits for its place.
    Unplaced { body_len: u64 },
}

/// A message that waits.
struct Message {
    head: Vec<u8>,
    body: Body,
}

/// Why a link can't go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("{messages} messages wait that the client does not take")]
    Overflow { messages: usize },
    #[error("it has taken nothing of what was sent to it for too long")]
    Stalled,
}

impl Connection {
    pub(crate) fn new(id: LinkId, mut link: Link, is_polled: bool, hello_until: Now) -> Self {
        if is_polled {
            link.receiver.tag(id.0);
            link.sender.tag(id.0 | SENDING_HALF);
        }
        Self {
            id,
            stage: Stage::Greeting { until: hello_until },
            reading: Reading::Next,
            transfers: 0,
            is_ready: false,
            is_dirty: false,
            is_watched: false,
            is_watched_for_room: false,
            is_polled,
            is_turn_over: false,
            peer: link.peer,
            sender: Some(link.sender),
            receiver: link.receiver,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            stalled_since: None,
        }
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether the client is on this host, and can map what it is passed.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.peer, Peer::InProcess | Peer::Local { .. })
    }

    /// How its memory is reached, and ours from there, where the transport can.
    pub(crate) fn one_sided(&self) -> Option<OneSided> {
        self.receiver.one_sided()
    }

    /// The domain of registered memory that the client reaches: its tenant's.
    pub(crate) fn domain(&self) -> Option<u32> {
        self.one_sided()?.domain()?.try_into().ok()
    }

    /// Whether the client may read pages until it closes its end.
    pub(crate) fn may_have_views(&self) -> bool {
        matches!(self.stage, Stage::Open { maps: true } | Stage::Closing { until: None })
    }

    /// Has `epoll` report whatever comes.
    pub(crate) fn watch(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_watched, true) {
            for interest in self.receiver.interests() {
                epoll::add(epoll, interest.fd, EventData::new_u64(self.id.0), flags(interest))?;
            }
        }
        Ok(())
    }

    /// Ends that.
    pub(crate) fn unwatch(&mut self, epoll: &OwnedFd) {
        if std::mem::take(&mut self.is_watched) {
            for interest in self.receiver.interests() {
                // One that could not be added can't be removed either.
                let _ = epoll::delete(epoll, interest.fd);
            }
        }
    }

    /// Has `epoll` report once that there is room again.
    pub(crate) fn watch_for_room(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        let Some(sender) = &self.sender else { return Ok(()) };
        let data = EventData::new_u64(self.id.0 | SENDING_HALF);
        let known = std::mem::replace(&mut self.is_watched_for_room, true);
        if known && self.is_polled {
            return Ok(());
        }
        for interest in sender.interests() {
            // A bell that rings only when it was asked to may be heard whenever it rings.
            let once = if self.is_polled { EventFlags::ET } else { EventFlags::ONESHOT };
            let flags = flags(interest) | once;
            if known {
                epoll::modify(epoll, interest.fd, data, flags)?;
            } else {
                epoll::add(epoll, interest.fd, data, flags)?;
            }
        }
        Ok(())
    }

    /// Whether something may be received now.
    pub(crate) fn may_receive(&self) -> bool {
        self.reading == Reading::Next && self.waiting.len() < PAUSE_MESSAGES
    }

    /// Whether nothing is read from it although it may be again.
    pub(crate) fn is_paused(&self) -> bool {
        !self.is_watched && self.may_receive()
    }

    /// The next thing that came.
    pub(crate) fn recv(&mut self) -> Result<Incoming<'_>, LinkError> {
        self.receiver.recv()
    }

    /// Whether the last flush stopped only because others are to have their turn.
    pub(crate) fn is_turn_over(&self) -> bool {
        self.is_turn_over
    }

    /// Says where the waiting body goes.
    pub(crate) fn place(&mut self, target: Target) {
        self.receiver.place(target);
        self.reading = Reading::Next;
    }

    /// Sends a message, or keeps it until there is room.
    pub(crate) fn send(&mut self, now: Now, head: &[u8], mut body: Body) -> Result<(), Cut> {
        let Some(sender) = self.sender.as_mut().filter(|_| !matches!(self.stage, Stage::Closing { .. })) else {
            return Ok(());
        };
        if self.waiting.is_empty() {
            match sender.try_send(head, body) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(back)) => body = back,
                Err(TrySendError::Link(error)) => return Err(error.into()),
            }
            self.stalled_since = Some(now);
        }
        self.waiting_bytes += head.len();
        self.waiting.push_back(Message { head: head.to_vec(), body });
        if self.waiting.len() > MAX_WAITING_MESSAGES || self.waiting_bytes > MAX_WAITING_BYTES {
            return Err(Cut::Overflow { messages: self.waiting.len() });
        }
        Ok(())
    }

    /// Passes a descriptor to the client.
    pub(crate) fn pass_fd(&mut self, tag: u32, fd: BorrowedFd<'_>) -> Result<(), LinkError> {
        match &mut self.sender {
            Some(sender) => sender.pass_fd(tag, fd),
            None => Ok(()),
        }
    }

    /// Moves on what is to go out. Whether this half has done all that it had to.
    pub(crate) fn flush(&mut self, now: Now) -> Result<bool, LinkError> {
        self.is_turn_over = false;
        let Some(sender) = &mut self.sender else { return Ok(true) };
        let mut sent_bytes = 0;
        loop {
            if !sender.flush()? {
                self.stalled_since = self.stalled_since.or(Some(now));
                return Ok(false);
            }
            let Some(Message { head, body }) = self.waiting.pop_front() else {
                self.stalled_since = None;
                return Ok(true);
            };
            if sent_bytes >= TURN_BYTES {
                self.waiting.push_front(Message { head, body });
                self.stalled_since = Some(now);
                self.is_turn_over = true;
                return Ok(false);
            }
            let body_bytes: usize = body.iter().map(|piece| piece.len()).sum();
            match sender.try_send(&head, body) {
                Ok(()) => {
                    self.waiting_bytes -= head.len();
                    sent_bytes += (head.len() + body_bytes) as u64;
                }
                Err(TrySendError::Full(body)) => self.waiting.push_front(Message { head, body }),
                Err(TrySendError::Link(error)) => return Err(error),
            }
        }
    }

    /// The client took something: its half's descriptors said that there is room again.
    pub(crate) fn moved_on(&mut self, now: Now) {
        if let Some(since) = &mut self.stalled_since {
            *since = now;
        }
    }

    /// Whether the client has taken nothing for `stall_ms`.
    pub(crate) fn is_stalled(&self, now: Now, stall_ms: Now) -> bool {
        self.stalled_since.is_some_and(|since| now >= since + stall_ms)
    }

    /// Begins to close.
    pub(crate) fn close(&mut self, now: Now) {
        if !matches!(self.stage, Stage::Closing { .. }) {
            let until = if self.may_have_views() { None } else { Some(now + LINGER_MS) };
            self.stage = Stage::Closing { until };
            if let Reading::Unplaced { .. } = self.reading {
                self.place(Target::Discard);
            }
        }
    }

    /// Ends this direction, whatever waits.
    pub(crate) fn hang_up(&mut self, epoll: &OwnedFd) {
        if let Some(sender) = self.sender.take().filter(|_| self.is_watched_for_room) {
            for interest in sender.interests() {
                let _ = epoll::delete(epoll, interest.fd);
            }
        }
        self.waiting.clear();
        self.stalled_since = None;
    }
}

fn flags(interest: Interest<'_>) -> EventFlags {
    if interest.writable { EventFlags::OUT } else { EventFlags::IN }
}
