//! What every section works with: the effort, a memory node, and the rows so far.

use crate::report::Row;
use crate::statistics::Effort;
use anyhow::Context as _;
use dmrpc_memnode::{Node, NodeConfig};
use dmrpc_objstore::{Store, StoreOptions, block_on};
use std::path::PathBuf;

/// A run of some sections.
pub(crate) struct Bench {
    /// How thoroughly.
    pub(crate) effort: Effort,
    /// The largest object.
    pub(crate) max_object_bytes: usize,
    /// What was found.
    pub(crate) rows: Vec<Row>,
}

/// A memory node of our own, and a directory for its socket.
pub(crate) struct Host {
    node: Option<Node>,
    dir: PathBuf,
}

impl Host {
    /// Starts a node with a pool of so many bytes, for clients on this host and over TCP.
    pub(crate) fn start(pool_bytes: u64) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("dmrpc-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let listen = [format!("unix://{}", dir.join("node.sock").display()), "tcp://127.0.0.1:0".to_owned()];
        let listen = listen.iter().map(|url| url.parse()).collect::<Result<Vec<_>, _>>()?;
        let node = Node::start(NodeConfig { pool_bytes, listen, ..NodeConfig::default() })?;
        Ok(Self { node: Some(node), dir })
    }

    /// Where clients on this host find it.
    pub(crate) fn local_url(&self) -> String {
        self.url(true)
    }

    /// Where clients elsewhere find it.
    pub(crate) fn network_url(&self) -> String {
        self.url(false)
    }

    fn url(&self, local: bool) -> String {
        let addresses = self.node.as_ref().expect("stopped on drop only").addresses();
        addresses.iter().find(|address| address.is_local() == local).expect("listens at both").to_string()
    }

    /// A new session of a client on this host.
    pub(crate) fn connect(&self) -> anyhow::Result<Store> {
        Ok(block_on(Store::connect_with(StoreOptions::new(self.local_url())))?)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.shutdown();
        }
        // A directory that stays behind is empty and in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
