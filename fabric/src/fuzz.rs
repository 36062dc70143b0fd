//! Doors for the fuzz targets: receivers whose peer writes what it likes.

use crate::link::{LinkError, Receiver};
use crate::options::LinkOptions;
use crate::shm::setup::{RawPeer, offer};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io::Write as _;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Bytes of the ring between the two: few, so that what goes through it comes in pieces.
const RING_BYTES: usize = 256;

/// What a TCP link makes of these bytes, after which the peer is gone. At most as many as a socket holds.
///
/// # Errors
///
/// [`LinkError`] if there is no socket to be had.
pub fn tcp(bytes: &[u8], max_body_bytes: u64) -> Result<Box<dyn Receiver>, LinkError> {
    let io = |source| LinkError::Io { doing: "making a socket", source };
    let (mut peer, socket) = UnixStream::pair().map_err(io)?;
    peer.write_all(bytes).map_err(io)?;
    // A stream socket like another: the receiver reads it with the same call.
    let options = LinkOptions::default().max_body_bytes(max_body_bytes);
    Ok(crate::tcp::receiver(TcpStream::from(OwnedFd::from(socket)), &options))
}

/// The peer of a shared-memory link.
pub struct ShmPeer(RawPeer);

/// A shared-memory link: its receiver, and what writes into its ring.
///
/// # Errors
///
/// [`LinkError`] if it can't be made.
pub fn shm(max_body_bytes: u64) -> Result<(ShmPeer, Box<dyn Receiver>), LinkError> {
    let (socket, peer) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|error| LinkError::Io { doing: "making a socket", source: error.into() })?;
    let options = LinkOptions::default().ring_bytes(RING_BYTES).max_body_bytes(max_body_bytes);
    let link = offer(socket, &options)?;
    let peer = RawPeer::take(peer, Instant::now() + Duration::from_secs(5))?;
    Ok((ShmPeer(peer), link.receiver))
}

impl ShmPeer {
    /// Writes as much as there is room for; says how much.
    ///
    /// # Errors
    ///
    /// [`LinkError`] if the other side broke the ring.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, LinkError> {
        self.0.write(bytes)
    }

    /// Puts something else where the end of what was written stands.
    pub fn lie(&self, tail: u64) {
        self.0.lie(tail);
    }
}
