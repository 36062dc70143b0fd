//! Links through shared memory, between processes of one host.
//!
//! A sealed memfd has a ring of bytes each way; a message is a frame in that stream, of any length: what does not fit goes
//! through in pieces. Each ring has two eventfds, one to wake its consumer and one its producer. The Unix socket over which
//! all of this was passed stays open and silent: when it ends, the peer is dead. Passed descriptors go over a socket of
//! their own, and a frame in the ring says when.
//!
//! 1. While both sides are busy neither makes a system call.
//! 2. What was published by a peer that died is received before [`LinkError::Closed`](crate::link::LinkError::Closed).
//! 3. A peer that writes garbage gets [`LinkError::Protocol`](crate::link::LinkError::Protocol) here, and nothing else happens.

#![cfg_attr(loom, allow(dead_code))]

mod area;
#[cfg(not(loom))]
pub(crate) mod bell;
#[cfg(not(loom))]
mod credentials;
#[cfg(not(loom))]
mod lifeline;
#[cfg(not(loom))]
mod receiver;
mod ring;
#[cfg(not(loom))]
mod sender;
#[cfg(not(loom))]
pub(crate) mod setup;

/// Descriptors in the channel that the receiver has not taken out of it. The kernel holds more than this many.
#[cfg(not(loom))]
const MAX_DESCRIPTORS_UNDER_WAY: usize = 64;
