//! The memory node: a pool of copy-on-write pages, and the authority on who may read what, and until when.
//!
//! [`core`] decides and does nothing; [`Node`] is the core with sockets, memory and a clock around it, in threads of this
//! process. The program `dmrpc-memnode` is a [`Node`] and a command line.

pub mod core;
mod driver;

pub use driver::{Hugepages, Node, NodeConfig, NodeError};
