//! What one half of a link sleeps on.
#![forbid(unsafe_code)]

use crate::link::LinkError;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// An eventfd, and whether somebody sleeps on it.
pub(super) struct Sleeper {
    bell: OwnedFd,
    rung: bool,
    pub(super) asleep: bool,
}

impl Sleeper {
    pub(super) fn new() -> Result<Self, LinkError> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| LinkError::io("making an eventfd", error))?;
        Ok(Self { bell, rung: false, asleep: false })
    }

    pub(super) fn wake(&mut self) {
        if std::mem::take(&mut self.asleep) {
            self.stay_ready();
        }
    }

    /// Rings, whether it sleeps or not.
    pub(super) fn stay_ready(&mut self) {
        if !std::mem::replace(&mut self.rung, true) {
            // It can only fail when the counter is full, and then it is readable anyhow.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    pub(super) fn silence(&mut self) {
        if std::mem::take(&mut self.rung) {
            let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
        }
    }
}

impl AsFd for Sleeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
