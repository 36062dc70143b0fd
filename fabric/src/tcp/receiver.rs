//! The half of a TCP link that receives.

use super::stream::{Stream, receive};
use crate::frame::{Frame, HEADER_BYTES};
use crate::landing::Landing;
use crate::link::{Incoming, Interest, Interests, LinkError, MAX_HEAD_BYTES, Receiver, Target};
use crate::options::LinkOptions;
use smallvec::{SmallVec, smallvec};
use std::io::IoSliceMut;
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::AsFd;

/// What is read at a time where it is not known what it is.
const BUFFER_BYTES: usize = MAX_HEAD_BYTES + HEADER_BYTES;

/// Parts of one vectored read.
const MAX_PARTS: usize = 16;

/// How much of a body has to be missing before it is read to its place rather than through the buffer.
const DIRECT_BYTES: u64 = 4 * 1024;

pub(super) struct TcpReceiver {
    stream: Stream,
    /// Has place for the largest head and its header.
    buffer: Box<[u8]>,
    /// What of it came and was not looked at.
    came: Range<usize>,
    /// The last head.
    head: Vec<u8>,
    state: State,
    max_body_bytes: u64,
    /// How much of bodies one call moves.
    turn_bytes: u64,
}

enum State {
    Header,
    Head { head_len: usize, body_len: u64 },
    Place(u64),
    Body(Landing),
    Ended,
}

/// [`Incoming`] without its borrow.
enum Step {
    Nothing,
    Head(u64),
    Body(Target),
}

impl TcpReceiver {
    pub(super) fn new(stream: Stream, options: &LinkOptions) -> Self {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        let (max_body_bytes, turn_bytes) = (options.max_body_bytes, options.turn_bytes.max(1));
        Self { stream, buffer, came: 0..0, head: Vec::new(), state: State::Header, max_body_bytes, turn_bytes }
    }

    /// Has at least `want` bytes in the buffer, which have place there. Whether they came, from the socket only if `from_socket`.
    fn fill(&mut self, want: usize, from_socket: bool) -> Result<bool, LinkError> {
        while self.came.len() < want {
            if self.came.is_empty() {
                self.came = 0..0;
            } else if self.came.start + want > self.buffer.len() {
                self.buffer.copy_within(self.came.clone(), 0);
                self.came = 0..self.came.len();
            }
            let parts = &mut [IoSliceMut::new(&mut self.buffer[self.came.end..])];
            match self.stream.read(parts, from_socket)? {
                Some(count) => self.came.end += count,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn take(&mut self, len: usize) -> Range<usize> {
        let taken = self.came.start..self.came.start + len;
        self.came.start = taken.end;
        taken
    }

    fn step(&mut self) -> Result<Step, LinkError> {
        let mut turn = self.turn_bytes;
        loop {
            match &mut self.state {
                State::Header => {
                    if !self.fill(HEADER_BYTES, true)? {
                        return Ok(Step::Nothing);
                    }
                    let header = self.take(HEADER_BYTES);
                    let header = self.buffer[header].try_into().expect("a header's length");
                    let Frame::Message { head_len, body_len } = Frame::decode(header, self.max_body_bytes)? else {
                        return Err(LinkError::Protocol("a descriptor from another host"));
                    };
                    self.state = State::Head { head_len, body_len };
                }
                &mut State::Head { head_len, body_len } => {
                    if !self.fill(head_len, true)? {
                        return Ok(Step::Nothing);
                    }
                    let head = self.take(head_len);
                    self.head.clear();
                    self.head.extend_from_slice(&self.buffer[head]);
                    self.state = if body_len == 0 { State::Header } else { State::Place(body_len) };
                    return Ok(Step::Head(body_len));
                }
                State::Place(_) => panic!("caller: places the body before it receives on"),
                State::Body(landing) => {
                    if landing.remaining() == 0 {
                        let State::Body(landing) = std::mem::replace(&mut self.state, State::Header) else {
                            unreachable!("matched above")
                        };
                        return Ok(Step::Body(landing.into_target()));
                    }
                    let before = landing.remaining();
                    // What was taken from the socket before would make nobody look for it.
                    if !self.land(turn > 0)? {
                        return Ok(Step::Nothing);
                    }
                    let State::Body(landing) = &self.state else { unreachable!("it is still on its way") };
                    turn = turn.saturating_sub(before - landing.remaining());
                }
                State::Ended => return Err(LinkError::Closed),
            }
        }
    }

    /// Moves the body on. Whether anything came, from the socket only if `from_socket`.
    fn land(&mut self, from_socket: bool) -> Result<bool, LinkError> {
        let State::Body(landing) = &mut self.state else { unreachable!("caller: a body is on its way") };
        let wants_buffer = landing.remaining() < DIRECT_BYTES || landing.next().is_some_and(|(to, _)| to.is_none());
        if self.came.is_empty() && wants_buffer && !self.fill(1, from_socket)? {
            return Ok(false);
        }
        let State::Body(landing) = &mut self.state else { unreachable!("as above") };
        while !self.came.is_empty() {
            let Some((to, len)) = landing.next() else { return Ok(true) };
            let count = len.min(self.came.len());
            let from = &self.buffer[self.came.start..][..count];
            if let Some(to) = to {
                // SAFETY: the destination answers for its parts, of which this is one that has place for `len`; it is
                // touched by nobody else, so it is not in the buffer.
                unsafe { to.copy_from_nonoverlapping(from.as_ptr(), count) };
            }
            landing.advance(count);
            self.came.start += count;
        }
        if landing.remaining() == 0 || wants_buffer {
            return Ok(true);
        }

        // The rest of the body to its place, and what comes after it into the buffer, in one call.
        self.came = 0..0;
        let mut parts: SmallVec<[IoSliceMut<'_>; MAX_PARTS + 1]> = SmallVec::new();
        let mut direct = 0;
        for (start, len) in landing.places().take(MAX_PARTS) {
            direct += len;
            // SAFETY: the destination answers for its parts: initialized, and touched by nobody else. They live as long as
            // the landing, which is borrowed.
            parts.push(IoSliceMut::new(unsafe { std::slice::from_raw_parts_mut(start, len) }));
        }
        if direct as u64 == landing.remaining() {
            parts.push(IoSliceMut::new(&mut self.buffer));
        }
        let Some(count) = self.stream.read(&mut parts, from_socket)? else { return Ok(false) };
        drop(parts);
        landing.pass(count.min(direct));
        self.came = 0..count.saturating_sub(direct);
        Ok(true)
    }
}

impl Receiver for TcpReceiver {
    fn recv(&mut self) -> Result<Incoming<'_>, LinkError> {
        match self.step() {
            Ok(Step::Nothing) => Ok(Incoming::Empty),
            Ok(Step::Head(body_len)) => Ok(Incoming::Head { head: &self.head, body_len }),
            Ok(Step::Body(target)) => Ok(Incoming::Body(target)),
            Err(error) => {
                self.state = State::Ended;
                if !matches!(error, LinkError::Closed) {
                    // Invariant 3 of the crate's links: the link is closed, for the peer as well.
                    let _ = self.stream.socket().shutdown(Shutdown::Both);
                }
                Err(error)
            }
        }
    }

    fn head(&self) -> &[u8] {
        &self.head
    }

    fn place(&mut self, target: Target) {
        let State::Place(body_len) = self.state else { panic!("caller: places a body that was announced") };
        self.state = State::Body(Landing::new(target, body_len));
    }

    fn interests(&self) -> Interests<'_> {
        smallvec![Interest { fd: self.stream.socket().as_fd(), writable: false }]
    }
}

impl Drop for TcpReceiver {
    fn drop(&mut self) {
        // With its sending side closed too the kernel answers what still comes with a reset, which ends the peer's sender;
        // but only once there is room for it to come.
        let _ = self.stream.socket().shutdown(Shutdown::Both);
        while matches!(receive(self.stream.socket(), &mut self.buffer), Ok(Some(_))) {}
    }
}
