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

// Under loom only the ring and what it needs is there: the runtime and the kernel are not modelled.
#[cfg(not(loom))]
pub mod address;
#[cfg(not(loom))]
pub mod asynchronous;
#[cfg(not(loom))]
pub mod blocking;
#[cfg(not(loom))]
pub mod buffer;
#[cfg(not(loom))]
mod dice;
#[cfg(not(loom))]
pub mod fake;
#[cfg(not(loom))]
mod frame;
#[cfg(not(loom))]
pub mod inproc;
#[cfg(not(loom))]
mod landing;
pub mod link;
#[cfg(not(loom))]
pub mod listen;
#[cfg(not(loom))]
pub mod memory;
#[cfg(not(loom))]
mod options;
#[cfg(not(loom))]
mod queue;
mod shm;
mod sync;
#[cfg(not(loom))]
mod tcp;
#[cfg(not(loom))]
mod wait;

#[cfg(not(loom))]
pub use options::{Allow, LinkOptions};
