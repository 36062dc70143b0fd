//! Stores: connections to memory nodes.

use crate::codec::{self, Encoded};
use crate::{AnyRef, Codec, Draft, Granted, ObjectRef, Pod, StoreError};
use bytes::Bytes;
use dmrpc_wire::{NodeId, Stats};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use zerocopy::IntoBytes;

/// Up to this many bytes travel with their reference and never touch a memory node.
pub const INLINE_BYTES: usize = 2048;

/// How to connect to a memory node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Where the memory node is: `unix:///path` on this host, `tcp://host:port` elsewhere.
    pub url: String,
    /// The tenant's token; empty where the node asks for none.
    pub token: Vec<u8>,
    /// What this client calls itself, for people who look at the node's sessions.
    pub name: String,
    /// No operation waits longer than this for the node.
    pub deadline: Duration,
    /// How much memory the session would like to be allowed, in bytes; 0 for what the node gives by default.
    pub quota_bytes: u64,
    /// How much memory to spend on objects that were read over the network, in bytes.
    pub cache_bytes: u64,
}

impl StoreOptions {
    /// The defaults, for the memory node at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: Vec::new(),
            name: String::new(),
            deadline: Duration::from_secs(10),
            quota_bytes: 0,
            cache_bytes: 64 << 20,
        }
    }
}

/// How to start a memory node within this process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EmbeddedOptions {
    /// The size of its pool in bytes.
    pub pool_bytes: u64,
    /// The size of its pages in bytes.
    pub page_bytes: u64,
    /// Addresses to listen at, besides a socket of its own in the directory for temporary files.
    pub listen: Vec<String>,
    /// How this process's store connects to it; its address is filled in.
    pub store: StoreOptions,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { pool_bytes: 1 << 30, page_bytes: 4096, listen: Vec::new(), store: StoreOptions::new("") }
    }
}

/// A connection to a memory node. Clones are the same connection; the last one dropped, and the last reference and view
/// that came of it, ends it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<StoreOptions>,
}

impl Store {
    /// Connects to the memory node at `url`: `unix:///path` or `tcp://host:port`.
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
        Ok(Self { shared: Arc::new(options) })
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
        Self::connect_with(options.store).await
    }

    /// The store of this process that is connected to `node`, if there is one.
    pub fn of_node(node: NodeId) -> Option<Self> {
        let _ = node;
        None
    }

    /// Where its memory node is.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// Which memory node it is.
    pub fn node(&self) -> NodeId {
        NodeId(0)
    }

    /// The size of a page, the unit of copy-on-write, in bytes.
    pub fn page_size(&self) -> usize {
        4096
    }

    /// Whether the memory node is on this host, so that views are its very pages.
    pub fn is_local(&self) -> bool {
        false
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
        if bytes.len() <= INLINE_BYTES { Ok(AnyRef::inline(bytes, codec)) } else { Err(StoreError::Closed) }
    }

    /// As [`put`](Store::put). To a node on another host `bytes` are sent without a copy.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn put_bytes(&self, bytes: Bytes) -> Result<ObjectRef, StoreError> {
        self.put(bytes).await
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
        Err(StoreError::TooLarge { what: "draft", len: len as u64, limit: 0 })
    }

    /// Takes a reference by a grant.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] if the grant is over, [`StoreError::UnknownNode`] if it is of another node.
    pub async fn redeem(&self, granted: &Granted) -> Result<AnyRef, StoreError> {
        Err(StoreError::UnknownNode(granted.node()))
    }

    /// Ends a grant before its time. References that were taken by it stay.
    ///
    /// # Errors
    ///
    /// What can go wrong with any request.
    pub async fn revoke(&self, granted: &Granted) -> Result<(), StoreError> {
        Err(StoreError::UnknownNode(granted.node()))
    }

    /// The memory node's figures.
    ///
    /// # Errors
    ///
    /// What can go wrong with any request.
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        Err(StoreError::Closed)
    }

    /// Waits until the node has done everything that was sent to it so far, releases included.
    ///
    /// # Errors
    ///
    /// What can go wrong with any request.
    pub async fn flush(&self) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    /// Ends the session at once, with all that it holds. References and views that are left are dead: their next use is
    /// [`StoreError::Closed`], but bytes that a view shows stay readable.
    ///
    /// # Errors
    ///
    /// [`StoreError::NodeUnreachable`] if the node could not be told.
    pub async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
