//! What a node is to be: its pool, its addresses, its limits.
#![forbid(unsafe_code)]

use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::address::Address;
use dmrpc_pages::PageSize;
use dmrpc_wire::Coherence;
use std::path::PathBuf;
use std::time::Duration;

/// What pages segments are made of.
///
/// Huge pages that were set aside on the host (`vm.nr_hugepages`) are mapped and copied whole or not at all, so that objects that
/// share pages, and private views, are read from and kept in copies: they are for pools whose device wants them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hugepages {
    /// Ordinary memory in pieces of huge pages where the kernel has some, and ordinary pages where not.
    #[default]
    Auto,
    /// Huge pages that were set aside for the whole pool, or the node does not start.
    Require,
    /// Ordinary pages only.
    Never,
}

/// What a node is to be.
///
/// ```
/// use dmrpc_memnode::NodeConfig;
///
/// let config = NodeConfig { pool_bytes: 64 << 20, ..NodeConfig::default() };
/// assert_eq!(config.page_size.bytes(), 4096);
/// ```
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The hard limit of memory, in bytes.
    pub pool_bytes: u64,
    /// The unit of copy-on-write.
    pub page_size: PageSize,
    /// Where clients find the node.
    pub listen: Vec<Address>,
    /// What pages the pool is made of.
    pub hugepages: Hugepages,
    /// A file or a `/dev/dax` device to take the pool from, in place of memory of the node's own. It has one tenant: who can
    /// open one segment can read them all.
    pub pool_file: Option<PathBuf>,
    /// Whether hardware keeps the pool file the same for all who map it, or its users have to write back and drop cache lines.
    pub coherence: Coherence,
    /// What tenants say to be let in. Empty: there is one tenant, any process of this user, and over the network anybody.
    pub tenant_tokens: Vec<Vec<u8>>,
    /// What a session may have at most, in bytes; `None` for the whole pool.
    pub quota_bytes: Option<u64>,
    /// A session over the network that is not renewed for so long is over.
    pub lease: Duration,
    /// After its end a session's holds stand for so long.
    pub grace: Duration,
    /// A client that has not said hello after so long is dropped.
    pub handshake: Duration,
    /// A client that takes nothing of what is sent to it for so long is cut off.
    pub stall: Duration,
    /// Links at the same time, those that have not said hello included.
    pub max_links: usize,
    /// Sessions at the same time, those in their grace period included.
    pub max_sessions: usize,
    /// The NUMA node whose memory the pool is made of; `None` for what the kernel chooses.
    pub numa_node: Option<u32>,
    /// For so long after something came over a device that no kernel waits for (DPDK) the node's thread looks at it all the time.
    pub spin: Duration,
    /// The limits of links.
    pub link: LinkOptions,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            pool_bytes: 256 << 20,
            page_size: PageSize::default(),
            listen: Vec::new(),
            hugepages: Hugepages::default(),
            pool_file: None,
            coherence: Coherence::default(),
            tenant_tokens: Vec::new(),
            quota_bytes: None,
            lease: Duration::from_secs(10),
            grace: Duration::from_secs(1),
            handshake: Duration::from_secs(5),
            stall: Duration::from_secs(10),
            max_links: 4096,
            max_sessions: 4096,
            numa_node: None,
            spin: Duration::from_micros(100),
            link: LinkOptions::default(),
        }
    }
}
