//! Why a node does not start or does not answer.
#![forbid(unsafe_code)]

use dmrpc_fabric::address::Address;
use dmrpc_fabric::link::LinkError;
use dmrpc_pages::ByteSize;
use std::path::PathBuf;

/// Why a node does not start or does not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Not even one segment would fit.
    #[error("a pool of {pool} is too small: make it {least} or more")]
    PoolTooSmall {
        /// What was asked for.
        pool: ByteSize,
        /// The least that works.
        least: ByteSize,
    },
    /// More than there is.
    #[error("a pool of {pool} is too large: {what} has {most}")]
    PoolTooLarge {
        /// What was asked for.
        pool: ByteSize,
        /// What limits it.
        what: &'static str,
        /// The most that works.
        most: ByteSize,
    },
    /// Huge pages were required and there are too few.
    #[error(
        "the pool needs {wanted} huge pages of {size} and {free} are free: set more aside with \
         `sysctl vm.nr_hugepages=...`, or start with --hugepages auto"
    )]
    NoHugepages {
        /// How many the pool needs.
        wanted: u64,
        /// How many are free.
        free: u64,
        /// How large each is.
        size: ByteSize,
    },
    /// The file or device of the pool can't be used.
    #[error("the pool file {path:?}: {doing}: {source}")]
    PoolFile {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// DPDK does not start, or gives no memory.
    #[error("pages of {pool} in DPDK's memory: {source}")]
    Dpdk {
        /// How much was asked for.
        pool: ByteSize,
        /// What DPDK says.
        source: LinkError,
    },
    /// What was asked for contradicts itself or makes no sense.
    #[error("{0}")]
    Config(&'static str),
    /// There is no such NUMA node.
    #[error("there is no NUMA node {node} on this host, only: {present}")]
    Numa {
        /// What was asked for.
        node: u32,
        /// What there is, as the kernel writes it.
        present: String,
    },
    /// An address can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: Box<Address>,
        /// Why.
        source: LinkError,
    },
    /// The operating system said no.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: std::io::Error,
    },
    /// The node has been shut down.
    #[error("the node has been shut down")]
    Stopped,
}

impl NodeError {
    /// For `map_err`: what was being done when the system said no.
    pub(crate) fn io<E: Into<std::io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { doing, source: source.into() }
    }
}
