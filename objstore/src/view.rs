//! Views: the bytes of an object, to read.

use crate::codec::{self, Content, Encoded};
use crate::reference::Target;
use crate::{AnyRef, Pod, PrivateView, StoreError};
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

/// The bytes of an object, which stay as they are for as long as the view lives.
///
/// A view of a slice of plain numbers is that slice. Views are cheap to clone, keep their object alive, and may go to other
/// threads.
///
/// ```
/// use dmrpc_objstore::{ObjectRef, block_on};
///
/// let view = block_on(ObjectRef::inline([1, 2, 3]).get())?;
/// assert_eq!(view.iter().sum::<u8>(), 6);
/// # Ok::<(), dmrpc_objstore::StoreError>(())
/// ```
pub struct View<T: ?Sized = [u8]> {
    start: *const u8,
    byte_len: usize,
    /// Keeps the bytes where they are.
    of: AnyRef,
    content: PhantomData<fn() -> Box<T>>,
}

// SAFETY: a view gives out shared references to immutable bytes, which any thread may read; `of` is `Send` and `Sync`.
unsafe impl<T: ?Sized> Send for View<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized> Sync for View<T> {}

impl View {
    pub(crate) async fn open(of: &AnyRef) -> Result<Self, StoreError> {
        Self::try_open(of).unwrap_or(Err(StoreError::Closed))
    }

    pub(crate) fn try_open(of: &AnyRef) -> Option<Result<Self, StoreError>> {
        match &of.target {
            Target::Inline(bytes) => {
                let bytes = &bytes.bytes()[of.offset as usize..(of.offset + of.length) as usize];
                Some(Ok(Self { start: bytes.as_ptr(), byte_len: bytes.len(), of: of.clone(), content: PhantomData }))
            }
            Target::Stored(_) => None,
        }
    }

    /// The caller knows that the reference was to a `T`.
    pub(crate) fn trusted_cast<T: Content + ?Sized>(self) -> View<T> {
        View { start: self.start, byte_len: self.byte_len, of: self.of, content: PhantomData }
    }
}

impl<T: ?Sized> View<T> {
    /// The bytes, whatever they are to be understood as.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: whoever made the view saw to it that the bytes are there and unchanged for as long as `of` lives.
        unsafe { std::slice::from_raw_parts(self.start, self.byte_len) }
    }

    /// A reference to the same bytes.
    pub fn as_any(&self) -> &AnyRef {
        &self.of
    }

    /// A picture of the same bytes that can be written in place, and that nobody else sees.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the kernel refuses the mapping.
    pub fn into_private(self) -> Result<PrivateView<T>, StoreError> {
        PrivateView::open(self)
    }
}

impl<T> View<Encoded<T>> {
    /// The value.
    ///
    /// # Errors
    ///
    /// [`StoreError::Codec`] if the bytes are no such value.
    pub fn decode(&self) -> Result<T, StoreError>
    where
        T: DeserializeOwned,
    {
        codec::decode(self.as_bytes())
    }
}

impl<T: Pod> Deref for View<[T]> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `Content::check` held for the reference: the bytes are whole elements, and aligned, as objects begin at
        // multiples of `MAX_ALIGNMENT`. Any bytes are a `T`, since it is `FromBytes`.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.byte_len / size_of::<T>()) }
    }
}

impl<T: Pod> AsRef<[T]> for View<[T]> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T: ?Sized> Clone for View<T> {
    fn clone(&self) -> Self {
        Self { start: self.start, byte_len: self.byte_len, of: self.of.clone(), content: PhantomData }
    }
}

impl<T: ?Sized> fmt::Debug for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({:?})", self.of)
    }
}
