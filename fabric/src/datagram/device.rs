//! What carries datagrams: a network card, a socket, or the test's own network.

use super::outbox::Piece;
use super::packet::HEADER_BYTES;
use crate::link::{Interests, LinkError};
use std::fmt::Debug;
use std::hash::Hash;

/// A datagram that came in, in the buffer it came in. Dropping it gives the buffer back to the device.
pub trait Frame: Send + 'static {
    /// The whole datagram, without the headers of the layers below.
    fn bytes(&self) -> &[u8];

    /// Whether it came to another [lane](Device::lane) first.
    fn strayed(&self) -> bool {
        false
    }
}

/// Carries datagrams, unreliably. Never blocks.
pub trait Device: Send + 'static {
    /// A datagram that came in.
    type Frame: Frame;
    /// Where a peer is.
    type Place: Clone + Debug + Eq + Hash + Send + 'static;

    /// The longest datagram, in bytes.
    fn datagram_bytes(&self) -> usize;

    /// Whether a damaged datagram may be delivered, so that each needs a checksum.
    fn needs_checksum(&self) -> bool;

    /// Whether what is under way waits in queues that others share, so that delay says how full they are. Not so where the two ends
    /// have a ring between them that nobody else uses and that takes no more than it holds.
    fn is_contended(&self) -> bool {
        true
    }

    /// Takes in what has arrived, at most `most` datagrams: each with where it came from.
    ///
    /// # Errors
    ///
    /// [`LinkError`] when the device is of no more use.
    fn receive(&mut self, most: usize, take: impl FnMut(Self::Place, Self::Frame)) -> Result<(), LinkError>;

    /// How many datagrams it would take now.
    fn room(&mut self) -> usize;

    /// Takes a datagram to be sent: a header to be copied, and pieces that may be sent from where they are. It may be lost on
    /// the way, and is when there was no [`room`](Device::room).
    fn send(&mut self, to: &Self::Place, header: &[u8; HEADER_BYTES], pieces: &[Piece<'_>]);

    /// Puts what was taken on its way.
    ///
    /// # Errors
    ///
    /// [`LinkError`] when the device is of no more use.
    fn flush(&mut self) -> Result<(), LinkError>;

    /// Which of several devices at one address this is, each with sessions of its own. It is part of the names of sessions, so that a
    /// datagram that came to the wrong one finds home.
    fn lane(&self) -> u8 {
        0
    }

    /// How many there are.
    fn lanes(&self) -> u8 {
        1
    }

    /// Gives on a datagram that came here and is another lane's. It may be lost on the way.
    fn pass(&mut self, lane: u8, from: Self::Place, frame: Self::Frame) {
        let _ = (lane, from, frame);
    }

    /// The lane that answers a peer's attempt to open a session: this one, unless the same hello came to another before.
    fn claim(&mut self, from: &Self::Place, attempt: u64) -> u8 {
        let _ = (from, attempt);
        self.lane()
    }

    /// The session is over that this lane made of an attempt.
    fn disclaim(&mut self, from: &Self::Place, attempt: u64) {
        let _ = (from, attempt);
    }

    /// What to wait on until something arrives; empty for a device that can only be polled.
    fn interests(&self) -> Interests<'_>;

    /// Somebody is about to wait on the device, or has done so. Whether to look at it once more before the wait, because its bell
    /// only rings for what comes from now on.
    fn rest(&mut self, asleep: bool) -> bool {
        let _ = asleep;
        false
    }
}
