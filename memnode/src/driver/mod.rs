//! The node around the core: sockets, memory and the clock.
//!
//! One thread runs the loop ([`event_loop`]): it waits on all links at once, feeds the core and carries out what the core
//! says. A second one makes segments ([`maker`]), because pre-faulting takes long. Nothing else has a thread.
//!
//! | file | noun |
//! | --- | --- |
//! | `node.rs` | [`Node`]: what starts, answers and ends |
//! | `config.rs` | [`NodeConfig`]: what it is to be |
//! | `event_loop.rs` | `EventLoop`: who is served when |
//! | `connection.rs` | `Connection`: a client's link, and what waits for it |
//! | `inbox.rs` | `Inbox`: what other threads tell the loop |
//! | `transfer.rs` | `Sending`, `Landing`: bytes between links and pages, not copied in between |
//! | `segment.rs` | `Segment`: a descriptor and a mapping |
//! | `maker.rs` | `Maker`: the thread that makes segments |
//! | `backing.rs` | `Backing`: what segments are made of |
//! | `registry.rs` | `Registry`: what is registered with a device, and for whom |
//! | `board.rs` | `Board`: what is published in each slot |
//! | `numa.rs` | `NumaNode`: where in the host |
//!
//! 1. The loop never blocks but in its one wait, and no client gets more than its budget in a turn.
//! 2. Nothing that a client sends makes the loop panic; if it panics for a bug of ours the process ends at once, loudly,
//!    rather than go on with half a node.
//! 3. The core hears of the end of a link only after all transfers of the link have ended.

mod backing;
mod board;
mod config;
mod connection;
mod error;
mod event_loop;
mod inbox;
mod maker;
mod node;
mod numa;
mod registry;
mod segment;
mod transfer;

pub use config::{Hugepages, NodeConfig};
pub use error::NodeError;
pub use node::Node;

/// Ends the process if the thread that has it panics. What panicked has been printed then.
struct AbortOnPanic(&'static str);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Not by way of a log that may not be there.
            eprintln!(
                "dmrpc-memnode: the {} of the memory node has panicked, which is a bug: the process ends",
                self.0
            );
            std::process::abort();
        }
    }
}
