//! How processes reach each other: ordered messages, and memory that both can touch.
//!
//! A [`Link`](link::Link) is two halves, [`Sender`](link::Sender) and [`Receiver`](link::Receiver), neither of which ever
//! blocks, starts a thread or knows a runtime. Whoever waits does so on the descriptors of [`Interest`](link::Interest): an
//! epoll loop, a blocked thread, tokio, asyncio. The halves may live on different threads.
//!
//! | module | what it has |
//! | --- | --- |
//! | [`address`] | [`Address`](address::Address): `unix:///path`, `tcp://host:port`, `tls://host:port`, `rdma://host:port`, … |
//! | [`listen`] | [`Listener`](listen::Listener) and [`connect`](listen::connect): links to and from addresses |
//! | [`link`] | the halves, what they carry, and [`LinkError`](link::LinkError) |
//! | [`blocking`], [`asynchronous`] | shells around the halves for threads and for tokio tasks |
//! | [`buffer`] | a place for a body in the heap |
//! | [`inproc`] | links within a process, without an address |
//! | [`fake`] | a link with faults, around any other |
//! | [`memory`] | bulk: registered and mapped memory |
//! | [`rdma`] | memory at the other end of a link over RDMA |
//!
//! A `tls://` address gives a link over TCP within TLS: `docs/tls.md`.
//!
//! A Unix address gives a link through shared memory: rings in a sealed memfd, eventfds to wake each other with, and no system
//! call while both sides are busy. The limits of a link are its [`LinkOptions`].
//!
//! # How to use the halves
//!
//! - Send: [`try_send`](link::Sender::try_send) as often as there is something, then [`flush`](link::Sender::flush) once. On
//!   `Full`: flush, and try again at once if that says `true`; if it says `false`, wait for the sender's interests first. After
//!   the last message also wait and flush until it says `true`.
//! - Receive: [`recv`](link::Receiver::recv) until it says `Empty`, then wait. After a head with a body
//!   [`place`](link::Receiver::place) it, then receive on.
//! - In an epoll set of one's own: the descriptors of both halves are distinct. Register all of them level-triggered; those that
//!   are `writable` only while a flush says `false`. Delete them from the set before the half is dropped: the kernel keeps a
//!   descriptor in a set as long as a duplicate of it lives. [`turn_bytes`](LinkOptions::turn_bytes) keeps one long body from
//!   holding up the loop.
//! - Drop both halves together. What was flushed arrives before the end does.
//!
//! # Invariants
//!
//! 1. Messages arrive whole, once, and in order; a link that can't keep that promise ends with a
//!    [`LinkError`](link::LinkError).
//! 2. Nothing that a peer sends makes a half panic, allocate more than the limits of the link, or write outside the memory
//!    that the receiver chose.
//! 3. A body is not copied by the sender's half before it is on its way, unless it is small enough to go with its head, and goes
//!    straight to the place that the receiver chose for it.
//! 4. The end of a peer is seen by both halves within the transport's own limits, also if it died without a word, and after
//!    all that it had sent.
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
pub mod cache_lines;
#[cfg(not(loom))]
pub mod datagram;
#[cfg(not(loom))]
mod dial;
mod dice;
#[cfg(not(loom))]
pub mod fake;
#[cfg(not(loom))]
mod frame;
#[cfg(all(feature = "fuzz", not(loom)))]
#[doc(hidden)]
pub mod fuzz;
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
#[cfg(not(loom))]
pub mod rdma;
#[cfg(not(loom))]
mod reception;
mod shm;
mod sync;
#[cfg(not(loom))]
mod tcp;
#[cfg(not(loom))]
mod tls;
#[cfg(not(loom))]
mod wait;

#[cfg(not(loom))]
pub use options::{Allow, LinkOptions};
