//! A memory node: what starts, answers and ends.
#![forbid(unsafe_code)]

use super::AbortOnPanic;
use super::backing::Backing;
use super::config::NodeConfig;
use super::error::NodeError;
use super::event_loop::{EventLoop, TURN_BYTES};
use super::inbox::{Inbox, News};
use super::maker::Maker;
use crate::core::{Core, CoreConfig};
use dmrpc_fabric::address::Address;
use dmrpc_fabric::listen::Listener;
use dmrpc_pages::ByteSize;
use dmrpc_wire::{MAX_TOKEN_BYTES, NodeId, Stats};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The size that segments are kept ready in before any client asked for one: what the object store leases first.
const EXPECTED_SEGMENT_BYTES: u64 = 4 << 20;
/// How long [`Node::stats`] waits. The loop never blocks, so this is a limit for bugs only.
const STATS_DEADLINE: Duration = Duration::from_secs(10);

/// A memory node, running in threads of its own until it is shut down or dropped.
///
/// ```
/// use dmrpc_memnode::{Node, NodeConfig};
///
/// let folder = tempfile::tempdir()?;
/// let address = format!("unix://{}/node", folder.path().display()).parse()?;
/// let node = Node::start(NodeConfig { pool_bytes: 16 << 20, listen: vec![address], ..NodeConfig::default() })?;
/// assert_eq!(node.stats()?.sessions.get(), 0);
/// node.shutdown();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Node {
    id: NodeId,
    addresses: Vec<Address>,
    memory: String,
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// Starts a node. It can be reached when this returns.
    ///
    /// # Errors
    ///
    /// [`NodeError`] if the configuration makes no sense, or asks for memory or addresses that can't be had.
    pub fn start(mut config: NodeConfig) -> Result<Self, NodeError> {
        if config.tenant_tokens.iter().any(|token| token.is_empty() || token.len() > MAX_TOKEN_BYTES) {
            return Err(NodeError::Config("a tenant's token has 1 to 1024 bytes"));
        }
        let backing = Backing::open(&config)?;
        let page_bytes = config.page_size.bytes();
        let granule_bytes = backing.granule_bytes().max(page_bytes);
        let pool_bytes = config.pool_bytes / granule_bytes * granule_bytes;
        if pool_bytes == 0 {
            return Err(NodeError::PoolTooSmall { pool: ByteSize(config.pool_bytes), least: ByteSize(granule_bytes) });
        }
        let pool_pages = config.page_size.pages_for(pool_bytes).ok_or(NodeError::PoolTooLarge {
            pool: ByteSize(pool_bytes),
            what: "a pool of such pages",
            most: ByteSize(u64::from(u32::MAX) * page_bytes),
        })?;
        let id = NodeId(random_id());
        let is_rdma = |address: &Address| matches!(address, Address::Rdma { .. });
        config.link.rdma_domains.clone_from(&config.tenant_tokens);
        let core = Core::new(CoreConfig {
            has_board: config.listen.iter().any(is_rdma),
            segment_granule_pages: (granule_bytes / page_bytes) as u32,
            tenant_tokens: std::mem::take(&mut config.tenant_tokens),
            quota_pages: quota_pages(&config, pool_pages),
            lease_ms: config.lease.as_millis() as u64,
            grace_ms: config.grace.as_millis() as u64,
            max_sessions: config.max_sessions,
            coherence: config.coherence,
            ..CoreConfig::new(id, config.page_size, pool_pages)
        });
        let memory = backing.to_string();
        let inbox = Arc::new(Inbox::new().map_err(NodeError::io("making an eventfd"))?);
        let expected_bytes = EXPECTED_SEGMENT_BYTES.next_multiple_of(granule_bytes);
        let maker = Maker::start(backing, pool_bytes, expected_bytes, Arc::clone(&inbox))
            .map_err(NodeError::io("starting a thread"))?;
        config.link.setup_timeout = config.handshake;
        config.link.turn_bytes = TURN_BYTES;
        let listeners = config.listen.iter().map(|address| {
            Listener::bind(address, &config.link)
                .map_err(|source| NodeError::Listen { address: Box::new(address.clone()), source })
        });
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let addresses = listeners.iter().map(Listener::address).collect();
        let event_loop = EventLoop::new(&config, listeners, core, maker, Arc::clone(&inbox))
            .map_err(NodeError::io("setting up epoll"))?;
        let run = move || {
            let _guard = AbortOnPanic("loop");
            event_loop.run();
        };
        let thread = thread::Builder::new().name("dmrpc-memnode".into()).spawn(run);
        let thread = Some(thread.map_err(NodeError::io("starting a thread"))?);
        Ok(Self { id, addresses, memory, inbox, thread })
    }

    /// Which node this is.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Where it can be reached, with the ports that it got.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// What its memory is made of, for people.
    pub fn memory(&self) -> &str {
        &self.memory
    }

    /// Its figures, as of now.
    ///
    /// # Errors
    ///
    /// [`NodeError::Stopped`] if it does not answer.
    pub fn stats(&self) -> Result<Stats, NodeError> {
        let (asker, answer) = mpsc::sync_channel(1);
        self.inbox.tell(News::Stats(asker));
        answer.recv_timeout(STATS_DEADLINE).map_err(|_| NodeError::Stopped)
    }

    /// Says goodbye to all clients, closes everything and gives all memory back. Dropping the node does the same.
    pub fn shutdown(self) {}
}

impl Drop for Node {
    fn drop(&mut self) {
        self.inbox.tell(News::Shutdown);
        if let Some(thread) = self.thread.take() {
            // It ends the process when it panics.
            let _ = thread.join();
        }
    }
}

fn quota_pages(config: &NodeConfig, pool_pages: u32) -> u32 {
    let pages = config.quota_bytes.and_then(|bytes| config.page_size.pages_for(bytes));
    pages.unwrap_or(pool_pages).min(pool_pages)
}

/// A number that no other node is likely to have. 0 stands for none.
fn random_id() -> u32 {
    loop {
        let [a, b, c, d, ..] = super::event_loop::entropy();
        match u32::from_ne_bytes([a, b, c, d]) {
            0 => {}
            id => return id,
        }
    }
}
