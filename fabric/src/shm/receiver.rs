//! The half of a shared-memory link that receives.

use super::bell::Bell;
use super::lifeline::Lifeline;
use super::ring::Consumer;
use crate::frame::{Frame, HEADER_BYTES};
use crate::landing::Landing;
use crate::link::{Incoming, Interest, Interests, LinkError, Receiver, Target};
use crate::sync::Ordering;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use smallvec::smallvec;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Descriptors that came and that nobody took.
const MAX_KEPT_DESCRIPTORS: usize = 1024;

pub(super) struct ShmReceiver {
    pub(super) consumer: Consumer,
    /// Rung to wake us.
    pub(super) data: Bell,
    /// Rung to wake the producer.
    pub(super) space: Bell,
    /// Whether `data` was asked for.
    pub(super) waiting: bool,
    /// Whether it was since anybody looked whether the peer lives: whoever waits on edges was perhaps told of its end together with
    /// the last message, and is not told again.
    pub(super) slept: bool,
    pub(super) lifeline: Lifeline,
    pub(super) channel: Arc<OwnedFd>,
    pub(super) kept: Vec<(u32, OwnedFd)>,
    pub(super) max_body_bytes: u64,
    /// How much of bodies one call moves.
    pub(super) turn_bytes: u64,
    /// Whether `data` was rung by ourselves, to go on after others had their turn.
    pub(super) yielded: bool,
    /// Whether `data` need not be stilled: the caller waits for it to be rung again.
    pub(super) edges: bool,
    /// Whether the last call found nothing.
    pub(super) said_empty: bool,
    pub(super) state: State,
    /// The last head, in the first `head_len` bytes; never shrinks.
    pub(super) head: Vec<u8>,
    pub(super) head_len: usize,
}

/// What comes next.
pub(super) enum State {
    Header,
    Head {
        filled: usize,
        body_len: u64,
    },
    /// The caller has to say where the body goes.
    Place(u64),
    Body(Landing),
    /// Only `Closed` any more.
    Ended,
}

/// [`Incoming`] without its borrow.
enum Step {
    Nothing,
    /// There is more, for another turn.
    Yield,
    Head(u64),
    Body(Target),
}

impl ShmReceiver {
    /// How much is given back at a time, so that the producer copies while we do: a quarter of a ring. With half of one the
    /// throughput is no better (`examples/ping.rs`, 1 MiB bodies).
    fn stride(&self) -> usize {
        (self.consumer.capacity() / 4).max(1)
    }

    /// Gives back what was read, and wakes the producer if it waits for that.
    fn give_back(&mut self) {
        if self.consumer.release() && self.consumer.producer_wants_bell() {
            self.space.ring();
        }
    }

    fn step(&mut self) -> Result<Step, LinkError> {
        let stride = self.stride();
        let mut turn = self.turn_bytes;
        loop {
            if self.consumer.unreleased() >= stride {
                self.give_back();
            }
            match &mut self.state {
                State::Header => {
                    if self.consumer.available(HEADER_BYTES)? < HEADER_BYTES {
                        return Ok(Step::Nothing);
                    }
                    let mut header = [0; HEADER_BYTES];
                    self.consumer.pop_into(&mut header);
                    match Frame::decode(header, self.max_body_bytes)? {
                        Frame::Message { head_len, body_len } => {
                            if self.head.len() < head_len {
                                self.head.resize(head_len, 0);
                            }
                            self.head_len = head_len;
                            self.state = State::Head { filled: 0, body_len };
                        }
                        Frame::Descriptor { tag } => self.receive_descriptor(tag)?,
                    }
                }
                State::Head { filled, body_len } => {
                    let want = self.head_len - *filled;
                    let count = self.consumer.available(want)?.min(want);
                    self.consumer.pop_into(&mut self.head[*filled..*filled + count]);
                    *filled += count;
                    if count == want {
                        let body_len = *body_len;
                        self.state = if body_len == 0 { State::Header } else { State::Place(body_len) };
                        return Ok(Step::Head(body_len));
                    }
                    if count == 0 {
                        return Ok(Step::Nothing);
                    }
                }
                State::Place(_) => panic!("caller: places the body before it receives on"),
                State::Body(landing) => {
                    let Some((to, len)) = landing.next() else {
                        let State::Body(landing) = std::mem::replace(&mut self.state, State::Header) else {
                            unreachable!("matched above")
                        };
                        return Ok(Step::Body(landing.into_target()));
                    };
                    if turn == 0 {
                        return Ok(Step::Yield);
                    }
                    let want = len.min(stride);
                    let count = self.consumer.available(want)?.min(want);
                    if count == 0 {
                        return Ok(Step::Nothing);
                    }
                    turn = turn.saturating_sub(count as u64);
                    match to {
                        // SAFETY: the destination answers for its parts, of which this is one that has place for `len`.
                        Some(to) => unsafe { self.consumer.pop(to, count) },
                        None => self.consumer.skip(count),
                    }
                    landing.advance(count);
                }
                State::Ended => return Err(LinkError::Closed),
            }
        }
    }

    /// There is nothing: asks for a wake-up. Whether there is still nothing.
    fn settle(&mut self) -> Result<bool, LinkError> {
        if self.waiting {
            if self.consumer.still_waits() {
                // Nobody rang, and still we are asked: it may have been the lifeline, or a ring that came late.
                self.lifeline.look()?;
            }
            self.still();
        } else if self.edges && self.slept {
            self.lifeline.look()?;
        }
        self.slept = true;
        let released = self.consumer.release();
        self.consumer.prepare_wait();
        self.waiting = true;
        if released && self.consumer.producer_wants_bell_behind_fence() {
            self.space.ring();
        }
        // Acquire pairs with the Release of a sender that is dropped: after its end no tail is newer than what we see.
        let ended =
            self.lifeline.is_dead() || self.consumer.indices().rare.0.producer_ended.load(Ordering::Acquire) != 0;
        if self.consumer.has_news() {
            self.stop_waiting();
            return Ok(false);
        }
        if ended { Err(LinkError::Closed) } else { Ok(true) }
    }

    fn still(&self) {
        if !self.edges {
            self.data.still();
        }
    }

    fn stop_waiting(&mut self) {
        if std::mem::take(&mut self.waiting) && self.consumer.stop_waiting() {
            self.still();
        }
    }

    /// Takes a descriptor out of the channel: it was put there before the frame that says so.
    fn receive_descriptor(&mut self, tag: u32) -> Result<(), LinkError> {
        let mut byte = [0; 1];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            match recvmsg(&self.channel, &mut [IoSliceMut::new(&mut byte)], &mut control, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(LinkError::Protocol("a frame for a descriptor that was not passed")),
                other => break other.map_err(|error| LinkError::io("receiving a descriptor", error))?,
            }
        };
        let mut fds = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fd = fds.next().and_then(|mut fds| fds.next());
        if received.flags.contains(ReturnFlags::CTRUNC) && fd.is_none() {
            return Err(LinkError::io("receiving a descriptor", Errno::MFILE));
        }
        let fd = fd.ok_or(LinkError::Protocol("a message without a descriptor in the channel for them"))?;
        if self.kept.len() >= MAX_KEPT_DESCRIPTORS {
            return Err(LinkError::Protocol("more descriptors than anybody takes"));
        }
        self.kept.push((tag, fd));
        Ok(())
    }

    /// `awake`: the caller does not go to sleep if there is nothing.
    fn receive(&mut self, awake: bool) -> Result<Step, LinkError> {
        if self.waiting && self.consumer.has_news() {
            self.stop_waiting();
        }
        if std::mem::take(&mut self.yielded) {
            self.still();
        }
        loop {
            match self.step()? {
                Step::Nothing if awake => {
                    self.give_back();
                    return Ok(Step::Nothing);
                }
                Step::Nothing => {
                    if self.settle()? {
                        return Ok(Step::Nothing);
                    }
                }
                Step::Yield => {
                    self.give_back();
                    self.yielded = true;
                    self.data.ring();
                    return Ok(Step::Nothing);
                }
                step => return Ok(step),
            }
        }
    }

    fn end(&mut self) {
        // Release: nobody reads anything on account of it.
        self.consumer.indices().rare.0.consumer_ended.store(1, Ordering::Release);
        self.space.ring();
    }
}

impl ShmReceiver {
    fn next(&mut self, awake: bool) -> Result<Incoming<'_>, LinkError> {
        let step = self.receive(awake);
        self.said_empty = matches!(step, Ok(Step::Nothing));
        match step {
            Ok(Step::Nothing | Step::Yield) => Ok(Incoming::Empty),
            Ok(Step::Head(body_len)) => Ok(Incoming::Head { head: &self.head[..self.head_len], body_len }),
            Ok(Step::Body(target)) => Ok(Incoming::Body(target)),
            Err(error) => {
                self.state = State::Ended;
                self.end();
                Err(error)
            }
        }
    }
}

impl Receiver for ShmReceiver {
    fn recv(&mut self) -> Result<Incoming<'_>, LinkError> {
        self.next(false)
    }

    fn recv_awake(&mut self) -> Result<Incoming<'_>, LinkError> {
        self.next(true)
    }

    fn looks_for_free(&self) -> bool {
        true
    }

    fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }

    fn spin(&mut self, budget: Duration) -> bool {
        // What was seen in the ring and not asked for yet is no news there.
        if !self.said_empty || self.consumer.has_news() {
            return true;
        }
        self.stop_waiting();
        self.give_back();
        let start = Instant::now();
        loop {
            for _ in 0..64 {
                if self.consumer.has_news() {
                    return true;
                }
                std::hint::spin_loop();
            }
            // Relaxed: `recv` looks again.
            let ended = self.consumer.indices().rare.0.producer_ended.load(Ordering::Relaxed) != 0;
            if ended || self.lifeline.is_dead() {
                return true;
            }
            if start.elapsed() >= budget {
                return false;
            }
        }
    }

    fn edge_triggered(&mut self, edges: bool) {
        self.edges = edges;
        self.still();
        // What was rung before is forgotten: the next call looks for itself.
    }

    fn place(&mut self, target: Target) {
        let State::Place(body_len) = self.state else { panic!("caller: places a body that was announced") };
        self.state = State::Body(Landing::new(target, body_len));
    }

    fn interests(&self) -> Interests<'_> {
        smallvec![
            Interest { fd: self.data.as_fd(), writable: false },
            Interest { fd: self.lifeline.socket.as_fd(), writable: false },
        ]
    }

    fn take_fd(&mut self, tag: u32) -> Option<OwnedFd> {
        let index = self.kept.iter().position(|(kept, _)| *kept == tag)?;
        Some(self.kept.swap_remove(index).1)
    }
}

impl Drop for ShmReceiver {
    fn drop(&mut self) {
        self.end();
    }
}
