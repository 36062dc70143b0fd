//! Links through shared memory, between processes of one host.
//!
//! A sealed memfd has a ring of bytes each way; a message is a frame in that stream, of any length: what does not fit goes
//! through in pieces. Each ring has two eventfds, one to wake its consumer and one its producer. The Unix socket over which
//! all of this was passed stays open and silent: when it ends, the peer is dead. Passed descriptors go over a socket of
//! their own, and a frame in the ring says when.
//!
//! 1. While both sides are busy neither makes a system call.
//! 2. What was published by a peer that died is received before [`LinkError::Closed`].
//! 3. A peer that writes garbage gets [`LinkError::Protocol`] here, and nothing else happens.

mod area;
pub(crate) mod bell;
mod receiver;
pub(crate) mod ring;
mod sender;
pub(crate) mod setup;

use crate::link::LinkError;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Descriptors in the channel that the receiver has not taken out of it. The kernel holds more than this many.
const MAX_DESCRIPTORS_UNDER_WAY: usize = 64;

/// The socket whose end is the end of the peer.
#[derive(Debug)]
struct Lifeline {
    socket: OwnedFd,
    /// Shared by the halves of a link, so that one tells the other.
    dead: Arc<AtomicBool>,
}

impl Lifeline {
    fn new(socket: OwnedFd) -> Result<(Self, Self), LinkError> {
        let dead = Arc::new(AtomicBool::new(false));
        let twin = socket.try_clone().map_err(|error| LinkError::io("duplicating a socket", error))?;
        Ok((Self { socket, dead: dead.clone() }, Self { socket: twin, dead }))
    }

    /// Whether the peer is known to be dead. No system call.
    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Asks the kernel whether the peer is dead.
    fn look(&self) -> Result<(), LinkError> {
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
