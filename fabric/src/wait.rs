//! Waiting for descriptors until a deadline.
#![forbid(unsafe_code)]

use crate::link::{Interest, LinkError};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use smallvec::SmallVec;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// Waits until one of them is ready (or hung up).
///
/// # Errors
///
/// [`LinkError::Deadline`] if none is by then.
pub(crate) fn wait(interests: &[Interest<'_>], deadline: Instant) -> Result<(), LinkError> {
    let started = Instant::now();
    let mut fds: SmallVec<[PollFd<'_>; 4]> = interests
        .iter()
        .map(|interest| {
            let flags = if interest.writable { PollFlags::OUT } else { PollFlags::IN };
            PollFd::from_borrowed_fd(interest.fd, flags)
        })
        .collect();
    let mut now = started;
    loop {
        let left = deadline.saturating_duration_since(now);
        // A deadline beyond what the kernel counts is none.
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(LinkError::io("waiting for a descriptor", error)),
        }
        now = Instant::now();
        if now >= deadline {
            return Err(LinkError::Deadline(deadline.saturating_duration_since(started)));
        }
    }
}

/// Descriptors that are waited for again and again: cheaper than [`wait`], and they need not be made unready in between.
///
/// A deadline mostly is as far away at the next wait as it was at this one. So there is an alarm, which is set once and goes off
/// long after, instead of a timer of the kernel for each wait, which costs as much as a fifth of a wake-up.
pub(crate) struct Edges {
    set: OwnedFd,
    alarm: OwnedFd,
    /// When it goes off, not later than any deadline since; `None` if it is not set.
    alarm_at: Option<Instant>,
}

/// What the set calls the alarm, and the others.
const ALARM: u64 = 1;
const OTHERS: u64 = 0;

impl Edges {
    pub(crate) fn of(interests: &[Interest<'_>]) -> Result<Self, LinkError> {
        let failed = |error| LinkError::io("making a set of descriptors to wait for", error);
        let set = epoll::create(CreateFlags::CLOEXEC).map_err(failed)?;
        let alarm = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
            .map_err(failed)?;
        epoll::add(&set, &alarm, EventData::new_u64(ALARM), EventFlags::IN | EventFlags::ET).map_err(failed)?;
        for interest in interests {
            let ready = if interest.writable { EventFlags::OUT } else { EventFlags::IN };
            epoll::add(&set, interest.fd, EventData::new_u64(OTHERS), ready | EventFlags::ET).map_err(failed)?;
        }
        Ok(Self { set, alarm, alarm_at: None })
    }

    /// Waits until one of them became ready (or hung up) since this last was said.
    ///
    /// # Errors
    ///
    /// [`LinkError::Deadline`] if none does by then.
    pub(crate) fn wait(&mut self, deadline: Instant) -> Result<(), LinkError> {
        let started = Instant::now();
        let mut now = started;
        loop {
            let is_over = now >= deadline;
            if !is_over && self.alarm_at.is_none_or(|at| deadline < at) {
                self.set_alarm(deadline, now)?;
            }
            let none = Timespec { tv_sec: 0, tv_nsec: 0 };
            let mut events = [MaybeUninit::<epoll::Event>::uninit(); 4];
            match epoll::wait(&self.set, &mut events[..], is_over.then_some(&none)) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(LinkError::io("waiting for a descriptor", error)),
                Ok((events, _)) => {
                    let mut others = false;
                    for event in events {
                        match event.data.u64() {
                            ALARM => self.alarm_at = None,
                            _ => others = true,
                        }
                    }
                    if others {
                        return Ok(());
                    }
                }
            }
            if is_over {
                return Err(LinkError::Deadline(deadline.saturating_duration_since(started)));
            }
            now = Instant::now();
        }
    }

    fn set_alarm(&mut self, at: Instant, now: Instant) -> Result<(), LinkError> {
        // A deadline beyond what the kernel counts is none.
        let Ok(it_value) = Timespec::try_from(at - now) else { return Ok(()) };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })
            .map_err(|error| LinkError::io("setting an alarm", error))?;
        self.alarm_at = Some(at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::bell::Bell;
    use std::os::fd::AsFd;
    use std::time::Duration;

    /// Deadlines that come nearer, go further away and are over; and something that is ready before each kind.
    #[test]
    fn deadlines_in_any_order() {
        let bell = Bell::new().unwrap();
        let mut edges = Edges::of(&[Interest { fd: bell.as_fd(), writable: false }]).unwrap();
        for ms in [30_000, 20, 5, 40, 0, 10, 30_000] {
            let deadline = Instant::now() + Duration::from_millis(ms);
            if ms < 1000 {
                assert!(matches!(edges.wait(deadline), Err(LinkError::Deadline(_))), "{ms} ms");
                assert!(Instant::now() >= deadline, "{ms} ms: before its time");
            }
            bell.ring();
            edges.wait(deadline).unwrap();
        }
    }
}
