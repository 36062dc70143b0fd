//! Stores: connections to memory nodes.

use crate::client::{CacheLines, Client};
use crate::codec::{self, Encoded};
use crate::object::Object;
use crate::session::{Answer, Undo};
use crate::{AnyRef, Codec, Draft, Granted, ObjectRef, Pod, StoreError, Subject, Workspace, draft, io, registry};
use bytes::Bytes;
use dmrpc_fabric::address::Address;
use dmrpc_fabric::link::Body;
use dmrpc_memnode::{Node, NodeConfig};
use dmrpc_wire::{Grant, NodeId, ObjectId, Request, Stats};
use serde::Serialize;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use zerocopy::IntoBytes;

/// Up to this many bytes travel with their reference and never touch a memory node. Sent to another process, 2 KiB take half
/// as long inline as in pages, 4 KiB as long, more take longer (`examples/hot_path.rs`); and through seven processes 4 KiB are
/// quicker in pages (`examples/img_transcode`, `--size`).
pub const INLINE_BYTES: usize = 2048;

/// How to connect to a memory node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Where the memory node is: `unix:///path` on this host, `tcp://host:port`, `tls://host:port?ca=FILE` or
    /// `rdma://host:port` elsewhere.
    pub url: String,
    /// The tenant's token; empty where the node asks for none.
    pub token: Vec<u8>,
    /// What this client calls itself, for people who look at the node's sessions.
    pub name: String,
    /// No operation waits longer than this for the node.
    pub deadline: Duration,
    /// How long to wait for memory to come free when there is none, before [`StoreError::OutOfMemory`] or
    /// [`StoreError::QuotaExceeded`].
    pub memory_wait: Duration,
    /// How much memory the session would like to be allowed, in bytes; 0 for what the node gives by default.
    pub quota_bytes: u64,
    /// How much memory to spend on objects that were read over the network, in bytes.
    pub cache_bytes: u64,
    /// Where this process finds the file or device of the node's pool (`--pool-file`) among its own mounts: it is opened there,
    /// and has to be the one that the node uses. `None`: by the descriptor that the node passes.
    pub pool_at: Option<PathBuf>,
}

impl StoreOptions {
    /// The defaults, for the memory node at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: Vec::new(),
            name: String::new(),
            deadline: Duration::from_secs(10),
            memory_wait: Duration::from_secs(1),
            quota_bytes: 0,
            cache_bytes: 64 << 20,
            pool_at: None,
        }
    }
}

/// How to start a memory node within this process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EmbeddedOptions {
    /// How the node is to be. Besides the addresses given there it listens at a socket of its own in the directory for
    /// temporary files.
    pub node: NodeConfig,
    /// How this process's store connects to it; its address is filled in.
    pub store: StoreOptions,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { node: NodeConfig::default(), store: StoreOptions::new("") }
    }
}

/// A connection to a memory node. Clones are the same connection; the last one dropped, and the last reference and view
/// that came of it, ends it.
#[derive(Clone)]
pub struct Store {
    client: Arc<Client>,
}

impl Store {
    /// Connects to the memory node at `url`: `unix:///path`, `tcp://host:port`, `tls://host:port?ca=FILE` or
    /// `rdma://host:port`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Address`], [`StoreError::NodeUnreachable`], [`StoreError::Denied`], [`StoreError::TooManySessions`],
    /// [`StoreError::Deadline`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::connect_with(StoreOptions::new(url)).await
    }

    /// As [`connect`](Store::connect), with options.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn connect_with(options: StoreOptions) -> Result<Self, StoreError> {
        let client = io::start(options)?.await.unwrap_or(Err(StoreError::Closed))?;
        Ok(Self { client })
    }

    /// Starts a memory node on a thread of this process and connects to it. Others on this host can connect to it at
    /// [`url`](Store::url). It ends with the store.
    ///
    /// # Errors
    ///
    /// [`StoreError::NodeUnreachable`] if it does not start.
    pub async fn embedded() -> Result<Self, StoreError> {
        Self::embedded_with(EmbeddedOptions::default()).await
    }

    /// As [`embedded`](Store::embedded), with options.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn embedded_with(options: EmbeddedOptions) -> Result<Self, StoreError> {
        let EmbeddedOptions { node: mut config, mut store } = options;
        let socket = socket_path();
        config.listen.insert(0, Address::Unix(socket.clone()));
        store.url = Address::Unix(socket).to_string();
        let node = Node::start(config)
            .map_err(|error| StoreError::NodeUnreachable { url: store.url.clone(), why: error.to_string() })?;
        let embedded = Self::connect_with(store).await?;
        embedded.client.set_embedded(node);
        Ok(embedded)
    }

    /// The store of this process that is connected to `node`, if there is one; one on the node's host before others.
    pub fn of_node(node: NodeId) -> Option<Self> {
        registry::find(node).map(|client| Self { client })
    }

    /// Where else the memory node that this store [embeds](Store::embedded) listens; empty for others.
    pub fn embedded_urls(&self) -> Vec<String> {
        self.client.embedded_urls()
    }

    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Where its memory node is.
    pub fn url(&self) -> &str {
        &self.client.session.url
    }

    /// Which memory node it is.
    pub fn node(&self) -> NodeId {
        self.client.node
    }

    /// How many cache lines this store wrote back and dropped, for a pool that no hardware keeps coherent.
    pub fn cache_lines(&self) -> CacheLines {
        self.client.cache_lines()
    }

    /// The size of a page, the unit of copy-on-write, in bytes.
    pub fn page_size(&self) -> usize {
        self.client.page_size.bytes() as usize
    }

    /// Whether the memory node is on this host, so that views are its very pages.
    pub fn is_local(&self) -> bool {
        self.client.local
    }

    /// Makes an object with a copy of `bytes`. On the memory node's host nothing is sent.
    ///
    /// # Errors
    ///
    /// [`StoreError::OutOfMemory`], [`StoreError::QuotaExceeded`], [`StoreError::TooLarge`], and what can go wrong with any
    /// request: [`StoreError::NodeUnreachable`], [`StoreError::LeaseExpired`], [`StoreError::Deadline`].
    pub async fn put(&self, bytes: impl AsRef<[u8]>) -> Result<ObjectRef, StoreError> {
        let bytes = bytes.as_ref();
        self.put_any(bytes, Codec::RAW).await.map(ObjectRef::trusted)
    }

    /// As [`put`](Store::put), with a codec of the caller's choice.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn put_any(&self, bytes: &[u8], codec: Codec) -> Result<AnyRef, StoreError> {
        put_any(&self.client, bytes, codec).await
    }

    /// As [`put`](Store::put). To a node on another host `bytes` are sent without a copy, but over RDMA.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn put_bytes(&self, bytes: Bytes) -> Result<ObjectRef, StoreError> {
        if self.client.local || self.client.far.is_some() || bytes.len() <= INLINE_BYTES {
            return self.put(bytes).await;
        }
        let len = bytes.len() as u64;
        let object = draft::write(&self.client, ObjectId::NULL, len, &draft::whole(bytes)).await?;
        Ok(ObjectRef::trusted(AnyRef::stored(object, Codec::RAW)))
    }

    /// Makes an object of `len` bytes that `fill` writes in place.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put), and what `fill` says.
    pub async fn put_with<E: From<StoreError>>(
        &self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<ObjectRef, E> {
        let mut draft = self.create(len).await?;
        fill(&mut draft)?;
        Ok(draft.seal().await?)
    }

    /// Makes an object with a copy of plain values.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put).
    pub async fn put_slice<T: Pod>(&self, values: &[T]) -> Result<ObjectRef<[T]>, StoreError> {
        self.put_any(values.as_bytes(), Codec::RAW).await.map(ObjectRef::trusted)
    }

    /// Makes an object with the encoding of `value`.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put), and [`StoreError::Codec`].
    pub async fn put_value<T: Serialize>(&self, value: &T) -> Result<ObjectRef<Encoded<T>>, StoreError> {
        self.put_any(&codec::encode(value)?, Codec::POSTCARD).await.map(ObjectRef::trusted)
    }

    /// Memory for an object of `len` bytes, to be filled in place and sealed.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put).
    pub async fn create(&self, len: usize) -> Result<Draft, StoreError> {
        Draft::new(&self.client, len).await
    }

    /// Memory for an object of `len` bytes that stays in use, at its address, when the object is made.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put).
    pub async fn workspace(&self, len: usize) -> Result<Workspace, StoreError> {
        Workspace::open(&self.client, len).await
    }

    /// Takes a reference by a grant.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] if the grant is over, [`StoreError::UnknownNode`] if it is of another node.
    pub async fn redeem(&self, granted: &Granted) -> Result<AnyRef, StoreError> {
        let raw = &granted.raw;
        if granted.node() != self.client.node {
            return Err(StoreError::UnknownNode(granted.node()));
        }
        let request = Request::Redeem(Grant { id: raw.id, token: raw.token, ttl_ms: 0.into() });
        let undo = Undo::Release(raw.id);
        self.client.ask("redeeming a grant", Some(Subject::Grant), &request, Body::new(), undo).await?;
        let object = Object::held(&self.client, raw.id, raw.size.get());
        Ok(AnyRef { offset: raw.offset.get(), length: raw.length.get(), ..AnyRef::stored(object, Codec(raw.codec)) })
    }

    /// Ends a grant before its time. References that were taken by it stay.
    ///
    /// # Errors
    ///
    /// What can go wrong with any request.
    pub async fn revoke(&self, granted: &Granted) -> Result<(), StoreError> {
        let raw = &granted.raw;
        if granted.node() != self.client.node {
            return Err(StoreError::UnknownNode(granted.node()));
        }
        self.client.check_open()?;
        self.client.session.tell(&Request::Revoke(Grant { id: raw.id, token: raw.token, ttl_ms: 0.into() }))?;
        self.flush().await
    }

    /// The memory node's figures.
    ///
    /// # Errors
    ///
    /// What can go wrong with any request.
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        match self.client.ask("asking for figures", None, &Request::Stat, Body::new(), Undo::Nothing).await? {
            Answer::Stats(stats) => Ok(*stats),
            _ => Err(StoreError::Malformed("an answer to another request")),
        }
    }

    /// Waits until the node has done everything that was sent to it so far, releases included.
    ///
    /// # Errors
    ///
    /// What can go wrong with any request.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.client.check_open()?;
        self.client.session.lock().send_releases();
        // A request for nothing, which is answered in its turn.
        self.client.ask("flushing", None, &Request::Hold(&[]), Body::new(), Undo::Nothing).await.map(drop)
    }

    /// Begins nothing new: what needs the node is [`StoreError::Closed`] from now on. The session ends, with all that it
    /// holds, when the last clone of the store and the last reference and view that came of it is dropped; not before, as
    /// nothing may change under a view.
    pub fn close(&self) {
        self.client.start_closing();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({} at {})", self.client.node.0, self.client.session.url)
    }
}

pub(crate) async fn put_any(client: &Arc<Client>, bytes: &[u8], codec: Codec) -> Result<AnyRef, StoreError> {
    if bytes.len() <= INLINE_BYTES {
        return Ok(AnyRef::inline(bytes, codec));
    }
    draft::check_len(client, bytes.len() as u64)?;
    let object = if client.local {
        draft::put_pages(client, bytes).await?
    } else {
        let mut buffer = client.buffer(bytes.len());
        buffer.copy_from_slice(bytes);
        draft::put_buffer(client, Arc::new(buffer)).await?
    };
    Ok(AnyRef::stored(object, codec))
}

/// Where a node within this process listens. The first one sweeps up what killed processes left.
fn socket_path() -> PathBuf {
    static NODES: AtomicU64 = AtomicU64::new(0);
    let directory = std::env::temp_dir();
    // Relaxed: a number of its own for each.
    let number = NODES.fetch_add(1, Ordering::Relaxed);
    if number == 0 {
        sweep_sockets(&directory);
    }
    directory.join(format!("dmrpc-{}-{number}.sock", std::process::id()))
}

/// Removes the sockets of embedded nodes whose processes are gone: a process that is killed can't.
fn sweep_sockets(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let sockets = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
    for path in sockets.map(|entry| entry.path()) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(rest) = name.strip_prefix("dmrpc-").and_then(|name| name.strip_suffix(".sock")) else { continue };
        let Some(Ok(pid)) = rest.split_once('-').map(|(pid, _)| pid.parse::<u32>()) else { continue };
        let is_here = Path::new(&format!("/proc/{pid}")).exists();
        // A process of another container that shares the folder is not in /proc, but answers.
        let refuses =
            || UnixStream::connect(&path).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
        if !is_here && refuses() {
            let _ = std::fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_sockets_of_who_is_gone_are_swept() {
        let directory = std::env::temp_dir().join(format!("sweep-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let bind = |name: &str| UnixListener::bind(directory.join(name)).unwrap();
        // No process has such a number.
        drop(bind("dmrpc-4294967295-0.sock"));
        let _elsewhere = bind("dmrpc-4294967295-1.sock");
        drop(bind(&format!("dmrpc-{}-7.sock", std::process::id())));
        drop(bind("dmrpc-other-0.sock"));
        std::fs::write(directory.join("dmrpc-4294967295-2.sock"), "no socket").unwrap();
        sweep_sockets(&directory);
        let left =
            std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut left: Vec<_> = left.collect();
        left.sort_unstable();
        let mine = format!("dmrpc-{}-7.sock", std::process::id());
        let mut expected = [mine.as_str(), "dmrpc-4294967295-1.sock", "dmrpc-4294967295-2.sock", "dmrpc-other-0.sock"];
        expected.sort_unstable();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(left, expected);
    }
}
