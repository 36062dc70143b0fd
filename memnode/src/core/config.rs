//! What a node allows.

use dmrpc_pages::PageSize;
use dmrpc_wire::{Coherence, NodeId};

/// What a node allows.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Which node this is.
    pub node: NodeId,
    /// The page size of the pool.
    pub page_size: PageSize,
    /// The hard limit of memory in segments, in pages.
    pub pool_pages: u32,
    /// Segments are multiples of this, in pages: what the memory behind them comes in.
    pub segment_granule_pages: u32,
    /// What tenants say to be let in. Empty: there is one tenant, and it needs no token.
    pub tenant_tokens: Vec<Vec<u8>>,
    /// What a session may have at most, in pages.
    pub quota_pages: u32,
    /// A session that is not renewed for so long is over.
    pub lease_ms: u64,
    /// After its end a session's holds stand for so long.
    pub grace_ms: u64,
    /// Sessions at the same time, those in their grace period included.
    pub max_sessions: usize,
    /// Slots, and so objects, of one session at the same time.
    pub max_slots_per_session: usize,
    /// Grants at the same time, of all sessions.
    pub max_grants: usize,
    /// Nodes of extent trees: fragments of all objects.
    pub max_tree_nodes: usize,
    /// The largest object, in bytes.
    pub max_object_bytes: u64,
    /// Whether there is a board, on which clients that read pages by themselves see what is published.
    pub has_board: bool,
    /// What clients are told to do for others to see what they write.
    pub coherence: Coherence,
}

impl CoreConfig {
    /// The defaults for a pool of so many pages.
    pub fn new(node: NodeId, page_size: PageSize, pool_pages: u32) -> Self {
        Self {
            node,
            page_size,
            pool_pages,
            segment_granule_pages: 1,
            tenant_tokens: Vec::new(),
            quota_pages: pool_pages,
            lease_ms: 10_000,
            grace_ms: 1_000,
            max_sessions: 4096,
            max_slots_per_session: 1 << 20,
            max_grants: 1 << 16,
            max_tree_nodes: 1 << 24,
            max_object_bytes: u64::from(pool_pages) << page_size.shift(),
            has_board: false,
            coherence: Coherence::Hardware,
        }
    }
}
