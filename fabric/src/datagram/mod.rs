//! Ordered, reliable messages over datagrams: a protocol of our own, over any [`Device`](device::Device).
//!
//! | file | noun |
//! | --- | --- |
//! | `packet.rs` | the bytes of a datagram |
//! | `sequence.rs` | packet numbers, which wrap |
//! | `outbox.rs` | messages that are sent: fragments, what is under way, what is lost |
//! | `inbox.rs` | packets that come in, and the messages that they make |
//! | `rtt.rs` | how long a round trip takes |
//! | `congestion.rs` | how many packets may be under way |
//! | `session.rs` | one link, as a state machine |
//! | `endpoint.rs` | all sessions over one device |
//! | `device.rs` | what carries datagrams |
//! | `udp.rs` | a UDP socket as a device |
//! | `dpdk/` | a port of DPDK's as a device, and memory that it sends from where it is, with the feature `dpdk` |
//! | `clock.rs` | the time, cheaply |
//! | `acceptor.rs` | the listener at an address, and how to connect to one |
//! | `links.rs` | sessions as links, and the listener |
//!
//! The ideas are those of eRPC (Kalia, Kaminsky, Andersen: *Datacenter RPCs can be General and Fast*, NSDI 2019): no
//! acknowledgement of its own where an answer can carry it, a window that the receiver grants, congestion control that costs
//! nothing while the fabric is idle, payload sent from where it is. What differs: both ends send messages of any size in order;
//! a lost packet is sent again alone, as soon as three later ones overtook it or after a multiple of the measured round trip.

mod acceptor;
pub mod device;
pub mod dpdk;
pub mod endpoint;
pub mod links;
pub mod packet;
pub mod sequence;
pub mod session;
pub mod udp;

mod clock;
mod congestion;
mod inbox;
mod outbox;
mod rtt;

pub(crate) use acceptor::{Acceptor, connect_dpdk, connect_udp};
pub use inbox::{Head, News};
pub use outbox::{Piece, Pieces};
