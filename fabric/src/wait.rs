//! Waiting for descriptors until a deadline.
#![forbid(unsafe_code)]

use crate::link::{Interest, LinkError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use smallvec::SmallVec;
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
