//! The half of an RDMA link that receives.

use super::OneSided;
use super::channel::interests;
use super::handle::Handle;
use crate::frame::{Frame, HEADER_BYTES};
use crate::landing::Landing;
use crate::link::{Incoming, Interests, LinkError, Receiver, Target};
use crate::options::LinkOptions;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) struct RdmaReceiver {
    handle: Arc<Handle>,
    waits: [OwnedFd; 4],
    one_sided: OneSided,
    /// The slot that is being read: how long it is, and how much of it is read.
    slot: Option<(u32, usize, usize)>,
    /// The last head, or what came of it.
    head: Vec<u8>,
    header: [u8; HEADER_BYTES],
    state: State,
    max_body_bytes: u64,
    /// How much of bodies one call moves.
    turn_bytes: u64,
}

enum State {
    /// So much of a header came.
    Header(usize),
    Head {
        head_len: usize,
        body_len: u64,
    },
    Place(u64),
    Body(Landing),
    Ended,
}

/// [`Incoming`] without its borrow.
enum Came {
    Nothing,
    Head(u64),
    Body(Target),
}

impl RdmaReceiver {
    pub(super) fn new(handle: Arc<Handle>, waits: [OwnedFd; 4], one_sided: OneSided, options: &LinkOptions) -> Self {
        Self {
            handle,
            waits,
            one_sided,
            slot: None,
            head: Vec::new(),
            header: [0; HEADER_BYTES],
            state: State::Header(0),
            max_body_bytes: options.max_body_bytes,
            turn_bytes: options.turn_bytes.max(1),
        }
    }

    /// Has bytes to read in `slot`; whether there are any.
    fn fill(&mut self) -> Result<bool, LinkError> {
        while self.slot.is_none_or(|(_, len, read)| read == len) {
            // Its bytes are copied by now: the peer may have it again.
            let read = self.slot.take().map(|(slot, ..)| slot);
            match self.handle.channel().take(read)? {
                Some((slot, len)) => self.slot = Some((slot, len, 0)),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn step(&mut self) -> Result<Came, LinkError> {
        let mut turn = self.turn_bytes;
        loop {
            match &self.state {
                State::Ended => return Err(LinkError::Closed),
                State::Place(_) => panic!("caller: places the body before it receives on"),
                State::Body(landing) if landing.remaining() == 0 => {
                    let State::Body(landing) = std::mem::replace(&mut self.state, State::Header(0)) else {
                        unreachable!("matched above")
                    };
                    return Ok(Came::Body(landing.into_target()));
                }
                State::Head { head_len, body_len } if self.head.len() == *head_len => {
                    let body_len = *body_len;
                    self.state = if body_len == 0 { State::Header(0) } else { State::Place(body_len) };
                    return Ok(Came::Head(body_len));
                }
                State::Body(_) if turn == 0 => {
                    self.handle.channel().keep_receiver_ready();
                    return Ok(Came::Nothing);
                }
                _ => {}
            }
            if !self.fill()? {
                return Ok(Came::Nothing);
            }
            let (slot, len, read) = self.slot.as_mut().expect("it was filled");
            let bytes = &self.handle.channel().slot(*slot, *len)[*read..];
            match &mut self.state {
                State::Header(filled) => {
                    let part = (HEADER_BYTES - *filled).min(bytes.len());
                    self.header[*filled..*filled + part].copy_from_slice(&bytes[..part]);
                    *read += part;
                    *filled += part;
                    if *filled == HEADER_BYTES {
                        let Frame::Message { head_len, body_len } = Frame::decode(self.header, self.max_body_bytes)?
                        else {
                            return Err(LinkError::Protocol("a descriptor from another host"));
                        };
                        self.head.clear();
                        self.state = State::Head { head_len, body_len };
                    }
                }
                State::Head { head_len, .. } => {
                    let part = (*head_len - self.head.len()).min(bytes.len());
                    self.head.extend_from_slice(&bytes[..part]);
                    *read += part;
                }
                State::Body(landing) => {
                    let (to, room) = landing.next().expect("something is missing");
                    let part = room.min(bytes.len());
                    if let Some(to) = to {
                        // SAFETY: the destination answers for its parts, of which this is one that has place for so much;
                        // it is touched by nobody else, so it is not in a slot.
                        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), part) };
                    }
                    landing.advance(part);
                    *read += part;
                    turn = turn.saturating_sub(part as u64);
                }
                State::Place(_) | State::Ended => unreachable!("looked at above"),
            }
        }
    }
}

impl Receiver for RdmaReceiver {
    fn recv(&mut self) -> Result<Incoming<'_>, LinkError> {
        match self.step() {
            Ok(Came::Nothing) => Ok(Incoming::Empty),
            Ok(Came::Head(body_len)) => Ok(Incoming::Head { head: &self.head, body_len }),
            Ok(Came::Body(target)) => Ok(Incoming::Body(target)),
            Err(error) => {
                self.state = State::Ended;
                if matches!(error, LinkError::Protocol(_)) {
                    self.handle.channel().fail();
                }
                Err(error)
            }
        }
    }

    fn head(&self) -> &[u8] {
        &self.head
    }

    fn spin(&mut self, budget: Duration) -> bool {
        // The next message may have come in the slot of the last.
        if self.slot.is_some_and(|(_, len, read)| read < len) {
            return true;
        }
        // What is there already is found without a look at the clock.
        let mut until = None;
        while !self.handle.channel().has_come() {
            if budget.is_zero() || Instant::now() >= *until.get_or_insert_with(|| Instant::now() + budget) {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    fn place(&mut self, target: Target) {
        let State::Place(body_len) = self.state else { panic!("caller: places a body that was announced") };
        self.state = State::Body(Landing::new(target, body_len));
    }

    fn interests(&self) -> Interests<'_> {
        interests(&self.waits)
    }

    fn one_sided(&self) -> Option<OneSided> {
        Some(self.one_sided.clone())
    }
}

impl Drop for RdmaReceiver {
    fn drop(&mut self) {
        self.handle.channel().receiver_gone();
    }
}
