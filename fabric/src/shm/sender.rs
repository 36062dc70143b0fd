//! The half of a shared-memory link that sends.
#![forbid(unsafe_code)]

use super::MAX_DESCRIPTORS_UNDER_WAY;
use super::bell::Bell;
use super::lifeline::Lifeline;
use super::ring::Producer;
use crate::frame::{Frame, HEADER_BYTES};
use crate::link::{Body, Interest, Interests, LinkError, MAX_HEAD_BYTES, Sender, TrySendError};
use crate::queue::{Front, Queue, message_bytes};
use crate::sync::{Ordering, fence};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use smallvec::smallvec;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Descriptors that wait to be passed.
const MAX_QUEUED_DESCRIPTORS: usize = 1024;

pub(super) struct ShmSender {
    pub(super) producer: Producer,
    /// What did not fit in the ring.
    pub(super) queue: Queue,
    /// Rung to wake the consumer.
    pub(super) data: Bell,
    /// Rung to wake us.
    pub(super) space: Bell,
    /// Whether `space` was asked for.
    pub(super) waiting: bool,
    pub(super) lifeline: Lifeline,
    pub(super) channel: Arc<OwnedFd>,
    /// For each descriptor in the channel, where its frame ends.
    pub(super) passed: VecDeque<u64>,
    pub(super) max_body_bytes: u64,
    pub(super) max_queued_bytes: u64,
    /// How much one call moves.
    pub(super) turn_bytes: u64,
    /// Whether `space` was rung by ourselves, to go on after others had their turn.
    pub(super) yielded: bool,
    /// Whether something was published while the consumer slept, and the bell is still to be looked to.
    pub(super) owes_bell: bool,
}

/// Why `pump` stopped.
enum Pumped {
    All,
    /// Nothing more fits before `head` is there.
    Until(u64),
    /// More would fit, in another turn.
    Yield,
}

impl ShmSender {
    fn alive(&self) -> Result<(), LinkError> {
        // Relaxed: a hint, and nothing is read on account of it.
        if self.lifeline.is_dead() || self.producer.indices().rare.0.consumer_ended.load(Ordering::Relaxed) != 0 {
            return Err(LinkError::Closed);
        }
        Ok(())
    }

    /// How much is published at a time, so that the consumer copies while we do: half a ring. With a quarter of one there are
    /// more wake-ups and less throughput (`examples/ping.rs`, 1 MiB bodies).
    fn stride(&self) -> usize {
        (self.producer.capacity() / 2).max(1)
    }

    /// Publishes what is written and wakes the consumer if it sleeps.
    fn announce(&mut self) {
        let published = self.producer.publish();
        if (std::mem::take(&mut self.owes_bell) || published) && self.producer.consumer_wants_bell() {
            self.data.ring();
        }
    }

    /// Moves what waits into the ring, as far as there is room.
    fn pump(&mut self) -> Result<Pumped, LinkError> {
        let stride = self.stride();
        let mut turn = self.turn_bytes;
        loop {
            match self.queue.front() {
                Front::Nothing => return Ok(Pumped::All),
                Front::Bytes(bytes) => {
                    if turn == 0 {
                        self.announce();
                        return Ok(Pumped::Yield);
                    }
                    let want = bytes.len().min(stride);
                    let count = self.producer.room(want)?.min(want);
                    if count == 0 {
                        self.announce();
                        return Ok(Pumped::Until(self.producer.half_free()));
                    }
                    self.producer.push(&bytes[..count]);
                    self.queue.advance(count);
                    turn = turn.saturating_sub(count as u64);
                    if self.producer.unpublished() >= stride {
                        self.announce();
                    }
                }
                Front::Descriptor(fd) => {
                    if self.passed.len() >= MAX_DESCRIPTORS_UNDER_WAY {
                        let head = self.producer.look()?;
                        while self.passed.front().is_some_and(|&end| end <= head) {
                            self.passed.pop_front();
                        }
                        if let Some(&end) =
                            self.passed.front().filter(|_| self.passed.len() >= MAX_DESCRIPTORS_UNDER_WAY)
                        {
                            self.announce();
                            return Ok(Pumped::Until(end));
                        }
                    }
                    pass(&self.channel, fd.as_fd())?;
                    self.queue.descriptor_passed();
                    self.passed.push_back(self.producer.tail() + HEADER_BYTES as u64);
                }
            }
        }
    }

    fn stop_waiting(&mut self) {
        if std::mem::take(&mut self.waiting) && self.producer.stop_waiting() {
            self.space.still();
        }
    }
}

/// Puts a descriptor into the channel.
fn pass(channel: &OwnedFd, fd: BorrowedFd<'_>) -> Result<(), LinkError> {
    let fds = [fd];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = control.push(SendAncillaryMessage::ScmRights(&fds));
    debug_assert!(fits, "the space is made for it");
    loop {
        return match sendmsg(channel, &[IoSlice::new(&[0])], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(Errno::INTR) => continue,
            Err(Errno::PIPE | Errno::CONNRESET) => Err(LinkError::Closed),
            Err(error) => Err(LinkError::io("passing a descriptor", error)),
        };
    }
}

impl Sender for ShmSender {
    fn try_send(&mut self, head: &[u8], body: Body) -> Result<(), TrySendError> {
        self.alive()?;
        let body_len = crate::link::check_lengths(head, &body, || {
            // Relaxed: a number that stands for itself.
            self.max_body_bytes.min(self.producer.indices().rare.0.body_limit.load(Ordering::Relaxed))
        })?;
        let bytes = message_bytes(head, body_len);
        if self.queue.is_empty() || matches!(self.pump()?, Pumped::All) {
            if bytes <= self.producer.capacity() as u64 && self.producer.room(bytes as usize)? as u64 >= bytes {
                self.producer.push(&Frame::Message { head_len: head.len(), body_len }.encode());
                self.producer.push(head);
                for piece in &body {
                    self.producer.push(piece);
                }
                if self.producer.unpublished() >= self.stride() {
                    self.announce();
                }
                return Ok(());
            }
        } else if self.queue.bytes() + bytes > self.max_queued_bytes {
            return Err(TrySendError::Full(body));
        }
        self.queue.push_message(head, body, body_len);
        self.pump()?;
        Ok(())
    }

    fn publish(&mut self) -> bool {
        if self.producer.publish() && self.producer.consumer_sleeps() {
            self.owes_bell = true;
        }
        !self.owes_bell && self.queue.is_empty() && !self.waiting
    }

    fn flush(&mut self) -> Result<bool, LinkError> {
        self.alive()?;
        if std::mem::take(&mut self.yielded) {
            self.space.still();
        }
        if self.waiting {
            let rung = !self.producer.still_waits();
            self.space.still();
            // If nobody rang it may have been the lifeline; whoever rang may have died since, of which a caller that waits on edges
            // is told only once.
            self.lifeline.look()?;
            self.alive()?;
            if rung {
                self.waiting = false;
            }
        }
        loop {
            let position = match self.pump()? {
                Pumped::All => {
                    self.announce();
                    self.stop_waiting();
                    return Ok(true);
                }
                Pumped::Until(position) => position,
                Pumped::Yield => {
                    self.yielded = true;
                    self.space.ring();
                    return Ok(false);
                }
            };
            self.producer.prepare_wait(position);
            self.waiting = true;
            self.alive()?;
            if self.producer.look()? < position {
                return Ok(false);
            }
            self.stop_waiting();
        }
    }

    fn interests(&self) -> Interests<'_> {
        smallvec![
            Interest { fd: self.space.as_fd(), writable: false },
            Interest { fd: self.lifeline.socket.as_fd(), writable: false },
        ]
    }

    fn pass_fd(&mut self, tag: u32, fd: BorrowedFd<'_>) -> Result<(), LinkError> {
        self.alive()?;
        if self.queue.descriptors() >= MAX_QUEUED_DESCRIPTORS {
            let (len, limit) = (self.queue.descriptors() as u64 + 1, MAX_QUEUED_DESCRIPTORS as u64);
            return Err(LinkError::TooLarge { what: "a queue of descriptors", len, limit });
        }
        let fd = fd.try_clone_to_owned().map_err(|error| LinkError::io("duplicating a descriptor", error))?;
        self.queue.push_descriptor(tag, fd);
        self.pump()?;
        Ok(())
    }
}

impl Drop for ShmSender {
    fn drop(&mut self) {
        let _ = self.flush();
        self.producer.publish();
        // Release pairs with the Acquire of the receiver: who sees the end sees what was published before.
        self.producer.indices().rare.0.producer_ended.store(1, Ordering::Release);
        fence(Ordering::SeqCst);
        self.data.ring();
    }
}

const _: () = assert!(MAX_HEAD_BYTES <= u32::MAX as usize);
