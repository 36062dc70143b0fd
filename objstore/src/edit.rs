//! Edits: a new object out of an old one, sharing every page that is not touched.

use crate::client::Client;
use crate::draft;
use crate::object::Object;
use crate::overlay::Overlay;
use crate::reference::Target;
use crate::spans::Spans;
use crate::{AnyRef, INLINE_BYTES, ObjectRef, StoreError};
use std::sync::Arc;

/// The most that an object without a memory node can grow to.
const MAX_INLINE: u64 = 1 << 20;

/// A private, mutable picture of an object.
///
/// Only pages that are written take memory. Nobody sees anything of it before [`commit`](Edit::commit), and the object that
/// it was made of never changes. To share pages the picture has to begin where its object does: an edit of a slice from the
/// middle copies that slice when it is committed.
///
/// ```
/// use dmrpc_objstore::{Store, block_on};
///
/// # block_on(async {
/// let store = Store::embedded().await?;
/// let before = store.put(vec![1; 1 << 20]).await?;
/// let mut edit = before.edit().await?;
/// edit.write(5000, &[2; 10])?;
/// let after = edit.commit().await?;
/// assert_eq!((after.get().await?[5000], before.get().await?[5000]), (2, 1));
/// # Ok::<(), dmrpc_objstore::StoreError>(())
/// # }).unwrap();
/// ```
pub struct Edit {
    base: AnyRef,
    len: u64,
    kind: Kind,
}

enum Kind {
    /// Small: all of it.
    Bytes(Vec<u8>),
    /// Pages of the arena over the pages of the base.
    Pages(Overlay),
    /// Bytes that will be sent.
    Spans(Spans),
}

impl Edit {
    pub(crate) async fn open(base: AnyRef) -> Result<Self, StoreError> {
        let len = base.byte_len();
        let kind = match &base.target {
            Target::Stored(object) if len > INLINE_BYTES as u64 && object.client.local => {
                object.locate(&base.range()).await?;
                Kind::Pages(Overlay::new(object, base.offset, len))
            }
            Target::Stored(object) if len > INLINE_BYTES as u64 => {
                object.check_claim()?;
                Kind::Spans(Spans::new(object, base.offset, len))
            }
            _ => Kind::Bytes(base.get().await?.to_vec()),
        };
        Ok(Self { base, len, kind })
    }

    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What it was made of.
    pub fn base(&self) -> &AnyRef {
        &self.base
    }

    /// Writes `bytes` at `offset`. Past the end is no place: [`resize`](Edit::resize) first.
    ///
    /// # Errors
    ///
    /// [`StoreError::OutOfRange`]; nothing was written then.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.check(offset, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        match &mut self.kind {
            Kind::Bytes(all) => all[offset as usize..][..bytes.len()].copy_from_slice(bytes),
            Kind::Pages(overlay) => overlay.write(offset, bytes),
            Kind::Spans(spans) => spans.write(offset, bytes),
        }
        Ok(())
    }

    /// Fills `into` with the bytes from `offset` on, as they would be committed.
    ///
    /// # Errors
    ///
    /// [`StoreError::OutOfRange`], and as [`ObjectRef::get`].
    pub async fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), StoreError> {
        self.check(offset, into.len())?;
        match &self.kind {
            Kind::Bytes(all) => into.copy_from_slice(&all[offset as usize..][..into.len()]),
            Kind::Pages(overlay) => overlay.read(offset, into),
            Kind::Spans(spans) => spans.read(&self.base, offset, into).await?,
        }
        Ok(())
    }

    fn check(&self, offset: u64, len: usize) -> Result<(), StoreError> {
        let end = offset.saturating_add(len as u64);
        if end <= self.len { Ok(()) } else { Err(StoreError::OutOfRange { start: offset, end, len: self.len }) }
    }

    fn client(&self) -> Option<&Arc<Client>> {
        match &self.base.target {
            Target::Stored(object) => Some(&object.client),
            Target::Inline(_) => None,
        }
    }

    /// Cuts it, or extends it by zeros, to `len` bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`] over the limit of the memory node; an object that travels with its references and has none
    /// can grow to 1 MiB.
    pub fn resize(&mut self, len: u64) -> Result<(), StoreError> {
        match self.client() {
            Some(client) => draft::check_len(client, len)?,
            None if len > MAX_INLINE => {
                return Err(StoreError::TooLarge { what: "inline object", len, limit: MAX_INLINE });
            }
            None => {}
        }
        match &mut self.kind {
            Kind::Bytes(all) => all.resize(len as usize, 0),
            Kind::Pages(overlay) => overlay.resize(len),
            Kind::Spans(spans) => spans.resize(len),
        }
        self.len = len;
        Ok(())
    }

    /// Makes a new object of it. On the memory node's host nothing is sent, until a reference to it is.
    ///
    /// # Errors
    ///
    /// As [`Store::put`](crate::Store::put); over a network also [`StoreError::Stale`] if the base is gone.
    pub async fn commit(self) -> Result<ObjectRef, StoreError> {
        let base_is_it = self.base.codec();
        let any = self.commit_any().await?;
        debug_assert_eq!(any.codec(), base_is_it);
        any.with_codec(crate::Codec::RAW).cast()
    }

    /// As [`commit`](Edit::commit), to be understood as the base.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn commit_any(self) -> Result<AnyRef, StoreError> {
        let client = self.client().cloned();
        let Self { base, len, kind } = self;
        let codec = base.codec();
        if len <= INLINE_BYTES as u64 && !matches!(kind, Kind::Bytes(_)) {
            let mut bytes = vec![0; len as usize];
            Self { base, len, kind }.read(0, &mut bytes).await?;
            return Ok(AnyRef::inline(&bytes, codec));
        }
        let object: Arc<Object> = match (kind, client) {
            (Kind::Bytes(bytes), Some(client)) if bytes.len() > INLINE_BYTES => {
                return crate::store::put_any(&client, &bytes, codec).await;
            }
            (Kind::Bytes(bytes), _) => return Ok(AnyRef::inline(&bytes, codec)),
            (Kind::Pages(overlay), _) => overlay.commit(len).await?,
            (Kind::Spans(spans), _) => spans.commit(&base, len).await?,
        };
        Ok(AnyRef::stored(object, codec))
    }
}

impl std::fmt::Debug for Edit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Edit({:?}, {} bytes)", self.base, self.len)
    }
}
