//! How processes reach each other: ordered messages, and memory that both can touch.
//!
//! A [`Link`](link::Link) is two halves, [`Sender`](link::Sender) and [`Receiver`](link::Receiver), neither of which ever blocks, starts a thread or knows a
//! runtime. Whoever waits does so on the descriptors of [`Interest`](link::Interest): an epoll loop, a blocked thread, tokio, asyncio.
//!
//! 1. Messages arrive whole, once, and in order; a link that can't keep that promise ends with a [`LinkError`](link::LinkError).
//! 2. Nothing that a peer sends makes a half panic, allocate more than the limits of the link, or write outside the memory
//!    that the receiver chose.
//! 3. A body is not copied by the sender's half before it is on its way, and goes straight to the place that the receiver
//!    chose for it.
//! 4. The end of a peer is seen by both halves within the transport's own limits, also if it died without a word.
//! 5. This crate knows nothing of objects.

#[cfg(not(loom))]
pub mod address;
#[cfg(not(loom))]
pub mod asynchronous;
#[cfg(not(loom))]
pub mod blocking;
pub mod buffer;
#[cfg(not(loom))]
pub mod datagram;
mod frame;
#[cfg(not(loom))]
pub mod inproc;
mod landing;
pub mod link;
#[cfg(not(loom))]
pub mod listen;
mod options;
mod queue;
mod shm;
mod sync;
#[cfg(not(loom))]
mod tcp;
#[cfg(not(loom))]
mod wait;

pub use options::{Allow, LinkOptions};
