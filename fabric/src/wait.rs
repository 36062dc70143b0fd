//! Waiting for descriptors until a deadline.
#![forbid(unsafe_code)]

use crate::link::{Interest, LinkError};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
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
pub(crate) struct Edges(OwnedFd);

impl Edges {
    pub(crate) fn of(interests: &[Interest<'_>]) -> Result<Self, LinkError> {
        let failed = |error| LinkError::io("making a set of descriptors to wait for", error);
        let set = epoll::create(CreateFlags::CLOEXEC).map_err(failed)?;
        for interest in interests {
            let ready = if interest.writable { EventFlags::OUT } else { EventFlags::IN };
            epoll::add(&set, interest.fd, EventData::new_u64(0), ready | EventFlags::ET).map_err(failed)?;
        }
        Ok(Self(set))
    }

    /// Waits until one of them became ready (or hung up) since this last was said.
    ///
    /// # Errors
    ///
    /// [`LinkError::Deadline`] if none does by then.
    pub(crate) fn wait(&self, deadline: Instant) -> Result<(), LinkError> {
        let started = Instant::now();
        let mut now = started;
        loop {
            let left = deadline.saturating_duration_since(now);
            // A deadline beyond what the kernel counts is none.
            let timeout = Timespec::try_from(left).ok();
            let mut events = [MaybeUninit::<epoll::Event>::uninit(); 4];
            match epoll::wait(&self.0, &mut events[..], timeout.as_ref()) {
                Ok(([], _)) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(LinkError::io("waiting for a descriptor", error)),
            }
            now = Instant::now();
            if now >= deadline {
                return Err(LinkError::Deadline(deadline.saturating_duration_since(started)));
            }
        }
    }
}
