//! The socket whose end is the end of the peer.
#![forbid(unsafe_code)]

use crate::link::LinkError;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The socket whose end is the end of the peer.
#[derive(Debug)]
pub(super) struct Lifeline {
    pub(super) socket: OwnedFd,
    /// Shared by the halves of a link, so that one tells the other.
    dead: Arc<AtomicBool>,
}

impl Lifeline {
    pub(super) fn new(socket: OwnedFd) -> Result<(Self, Self), LinkError> {
        let dead = Arc::new(AtomicBool::new(false));
        let twin = socket.try_clone().map_err(|error| LinkError::io("duplicating a socket", error))?;
        Ok((Self { socket, dead: dead.clone() }, Self { socket: twin, dead }))
    }

    /// Whether the peer is known to be dead. No system call.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Asks the kernel whether the peer is dead.
    pub(super) fn look(&self) -> Result<(), LinkError> {
        let mut byte = [0; 1];
        match recv(&self.socket, &mut byte[..], RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Ok((_, 1)) => Err(LinkError::Protocol("bytes on a socket that has to be silent")),
            Ok(_) | Err(_) => {
                self.dead.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}
