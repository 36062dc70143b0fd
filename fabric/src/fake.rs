//! A link that misbehaves on purpose: delays, progress in small steps, false alarms, and ends in the middle.
//!
//! It goes around another link, and what it does follows from a seed: the same calls give the same faults. As all links it
//! keeps the contract of its halves: a fault is only ever something that a real link may do to its user.
//!
//! 1. Without [`breaks_at`](Faults::breaks_at), [`truncates_at`](Faults::truncates_at) and
//!    [`corrupts_one_in`](Faults::corrupts_one_in) it delivers what the inner link delivers.
//! 2. It says [`Incoming::Empty`] or [`TrySendError::Full`] without need only if a wake-up is due: it rings its own bell.

use crate::dice::Dice;
use crate::landing::Landing;
use crate::link::{Body, Incoming, Interest, Interests, Link, LinkError, Part, Receiver, Sender, Target, TrySendError};
use crate::shm::bell::Bell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What goes wrong, and how often: `one_in: 4` is one in four, 0 is never.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Faults {
    /// What the faults follow from.
    pub seed: u64,
    /// The sender says `Full` without need.
    pub full_one_in: u64,
    /// The receiver says `Empty` without need.
    pub empty_one_in: u64,
    /// A flush leaves things for later without need.
    pub late_one_in: u64,
    /// A waiter is woken without cause.
    pub false_alarm_one_in: u64,
    /// A received head or body has a byte changed.
    pub corrupts_one_in: u64,
    /// After so many bytes of heads and bodies the sender breaks: what follows is not taken, and it says `Closed`. The peer
    /// learns of it when the half is dropped.
    pub breaks_at: Option<u64>,
    /// After so many bytes of heads and bodies the receiver breaks, in the middle of a message if need be: it says `Closed`.
    /// The peer learns of it when the half is dropped.
    pub truncates_at: Option<u64>,
}

impl Faults {
    /// None.
    pub fn none(seed: u64) -> Self {
        Self {
            seed,
            full_one_in: 0,
            empty_one_in: 0,
            late_one_in: 0,
            false_alarm_one_in: 0,
            corrupts_one_in: 0,
            breaks_at: None,
            truncates_at: None,
        }
    }

    /// All that a user must not notice.
    pub fn harmless(seed: u64) -> Self {
        Self { full_one_in: 3, empty_one_in: 3, late_one_in: 3, false_alarm_one_in: 5, ..Self::none(seed) }
    }
}

/// A link that has these faults, around another.
///
/// # Errors
///
/// [`LinkError::Io`] if there are no more descriptors.
pub fn faulty(link: Link, faults: Faults) -> Result<Link, LinkError> {
    let bell = || Bell::new().map_err(|error| LinkError::io("making an eventfd", error));
    let sender = FakeSender {
        inner: link.sender,
        dice: Dice::new(faults.seed),
        faults,
        alarm: bell()?,
        ringing: false,
        taken: 0,
        broken: false,
    };
    let receiver = FakeReceiver {
        inner: link.receiver,
        dice: Dice::new(!faults.seed),
        faults,
        alarm: bell()?,
        ringing: false,
        head: Vec::new(),
        came: 0,
        waits: None,
        broken: false,
    };
    Ok(Link { sender: Box::new(sender), receiver: Box::new(receiver), peer: link.peer })
}

struct FakeSender {
    inner: Box<dyn Sender>,
    dice: Dice,
    faults: Faults,
    /// Rung when we say that there is no room though there is.
    alarm: Bell,
    ringing: bool,
    /// Bytes of heads and bodies.
    taken: u64,
    broken: bool,
}

impl FakeSender {
    fn alive(&self) -> Result<(), LinkError> {
        if self.broken { Err(LinkError::Closed) } else { Ok(()) }
    }

    fn ring(&mut self) {
        self.ringing = true;
        self.alarm.ring();
    }
}

impl Sender for FakeSender {
    fn try_send(&mut self, head: &[u8], body: Body) -> Result<(), TrySendError> {
        self.alive()?;
        if self.dice.one_in(self.faults.full_one_in) {
            self.ring();
            return Err(TrySendError::Full(body));
        }
        let bytes = head.len() as u64 + body.iter().map(|piece| piece.len() as u64).sum::<u64>();
        if self.faults.breaks_at.is_some_and(|limit| self.taken + bytes > limit) {
            self.broken = true;
            return Err(LinkError::Closed.into());
        }
        self.inner.try_send(head, body)?;
        self.taken += bytes;
        Ok(())
    }

    fn flush(&mut self) -> Result<bool, LinkError> {
        self.alive()?;
        if std::mem::take(&mut self.ringing) {
            self.alarm.still();
        }
        if self.dice.one_in(self.faults.late_one_in) {
            self.ring();
            return Ok(false);
        }
        let done = self.inner.flush()?;
        if !done && self.dice.one_in(self.faults.false_alarm_one_in) {
            self.ring();
        }
        Ok(done)
    }

    fn interests(&self) -> Interests<'_> {
        let mut interests = self.inner.interests();
        interests.push(Interest { fd: self.alarm.as_fd(), writable: false });
        interests
    }

    fn pass_fd(&mut self, tag: u32, fd: BorrowedFd<'_>) -> Result<(), LinkError> {
        self.alive()?;
        self.inner.pass_fd(tag, fd)
    }
}

struct FakeReceiver {
    inner: Box<dyn Receiver>,
    dice: Dice,
    faults: Faults,
    /// Rung when we say that there is nothing though there may be.
    alarm: Bell,
    ringing: bool,
    /// The last head, which may be spoilt.
    head: Vec<u8>,
    /// Bytes of heads and bodies.
    came: u64,
    /// A body that waits to be placed.
    waits: Option<u64>,
    broken: bool,
}

/// [`Incoming`] without its borrow.
enum Step {
    Nothing,
    Head(u64),
    Body(Target),
}

impl FakeReceiver {
    fn ring(&mut self) {
        self.ringing = true;
        self.alarm.ring();
    }

    fn step(&mut self) -> Result<Step, LinkError> {
        if self.broken {
            return Err(LinkError::Closed);
        }
        assert!(self.waits.is_none(), "caller: places the body before it receives on");
        if std::mem::take(&mut self.ringing) {
            self.alarm.still();
        }
        if self.dice.one_in(self.faults.empty_one_in) {
            self.ring();
            return Ok(Step::Nothing);
        }
        let step = match self.inner.recv()? {
            Incoming::Empty => {
                if self.dice.one_in(self.faults.false_alarm_one_in) {
                    self.ring();
                }
                return Ok(Step::Nothing);
            }
            Incoming::Head { head, body_len } => {
                self.head.clear();
                self.head.extend_from_slice(head);
                self.came += head.len() as u64;
                if !self.head.is_empty() && self.dice.one_in(self.faults.corrupts_one_in) {
                    let at = self.dice.below(self.head.len() as u64) as usize;
                    self.head[at] ^= 1 << self.dice.below(8);
                }
                self.waits = (body_len > 0).then_some(body_len);
                Step::Head(body_len)
            }
            Incoming::Body(mut target) => {
                self.spoil(&mut target);
                Step::Body(target)
            }
        };
        if self.faults.truncates_at.is_some_and(|limit| self.came > limit) {
            self.broken = true;
            return Err(LinkError::Closed);
        }
        Ok(step)
    }

    /// Changes a bit of a body, now and then.
    fn spoil(&mut self, target: &mut Target) {
        let Target::Memory(destination) = target else { return };
        let parts: Vec<Part> = destination.parts().iter().copied().filter(|part| part.len > 0).collect();
        if !parts.is_empty() && self.dice.one_in(self.faults.corrupts_one_in) {
            let part = parts[self.dice.below(parts.len() as u64) as usize];
            let at = self.dice.below(part.len as u64) as usize;
            // SAFETY: within a part of the destination, which answers for it and which we own.
            unsafe { *part.start.add(at) ^= 1 << self.dice.below(8) };
        }
    }
}

impl Receiver for FakeReceiver {
    fn recv(&mut self) -> Result<Incoming<'_>, LinkError> {
        Ok(match self.step()? {
            Step::Nothing => Incoming::Empty,
            Step::Head(body_len) => Incoming::Head { head: &self.head, body_len },
            Step::Body(target) => Incoming::Body(target),
        })
    }

    fn head(&self) -> &[u8] {
        &self.head
    }

    fn spin(&mut self, budget: Duration) -> bool {
        self.inner.spin(budget)
    }

    fn tag(&mut self, tag: u64) {
        self.inner.tag(tag);
    }

    fn place(&mut self, target: Target) {
        let body_len = self.waits.take().expect("caller: places a body that was announced");
        self.came += body_len;
        // Its checks.
        self.inner.place(Landing::new(target, body_len).into_target());
    }

    fn interests(&self) -> Interests<'_> {
        let mut interests = self.inner.interests();
        interests.push(Interest { fd: self.alarm.as_fd(), writable: false });
        interests
    }

    fn one_sided(&self) -> Option<crate::rdma::OneSided> {
        self.inner.one_sided()
    }

    fn take_fd(&mut self, tag: u32) -> Option<OwnedFd> {
        self.inner.take_fd(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Buffer;

    /// What comes out of a faulty receiver, call by call.
    fn run(faults: Faults) -> Vec<String> {
        let (here, there) = crate::inproc::pair(&Default::default()).unwrap();
        let mut here = faulty(here, faults).unwrap();
        let mut there = faulty(there, faults).unwrap();
        let mut log = Vec::new();
        for number in 0..50u8 {
            let body = [bytes::Bytes::from(vec![number; 10])].into_iter().collect();
            log.push(format!("{:?}", here.sender.try_send(&[number; 4], body)));
            log.push(format!("{:?}", here.sender.flush()));
        }
        for _ in 0..200 {
            let step = match there.receiver.recv() {
                Ok(Incoming::Empty) => "empty".to_owned(),
                Ok(Incoming::Head { head, body_len }) => {
                    let text = format!("{head:?} {body_len}");
                    there.receiver.place(Buffer::zeroed(body_len as usize).into());
                    text
                }
                Ok(Incoming::Body(target)) => format!("{:?}", Buffer::from_target(target).unwrap().into_vec()),
                Err(error) => format!("{error:?}"),
            };
            log.push(step);
        }
        log
    }

    #[test]
    fn the_faults_follow_from_the_seed() {
        assert_eq!(run(Faults::harmless(1)), run(Faults::harmless(1)));
        assert_ne!(run(Faults::harmless(1)), run(Faults::harmless(2)));
        assert_eq!(run(Faults::none(1)), run(Faults::none(2)));
    }

    #[test]
    fn it_breaks_where_it_is_told() {
        let whole = run(Faults::none(0));
        let messages = |log: &[String], text: &str| log.iter().filter(|line| line.contains(text)).count();
        assert_eq!((messages(&whole, "] 10"), messages(&whole, "Closed")), (50, 0));
        // Fourteen bytes a message: ten go into 140, and part of the eleventh.
        let broken = run(Faults { breaks_at: Some(145), ..Faults::none(0) });
        assert_eq!((messages(&broken, "] 10"), messages(&broken, "Link(Closed)")), (10, 40));
        let cut = run(Faults { truncates_at: Some(145), ..Faults::none(0) });
        assert_eq!(
            (messages(&cut, "] 10"), messages(&cut, "10, 10, 10, 10, 10]"), messages(&cut, "Err(Closed)")),
            (11, 0, 0)
        );
        assert_eq!(cut.last().unwrap(), "Closed");
        let spoilt = run(Faults { corrupts_one_in: 3, ..Faults::none(0) });
        assert_eq!(messages(&spoilt, "] 10"), 50);
        assert_ne!(spoilt, whole);
    }
}
