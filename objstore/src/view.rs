//! Views: the bytes of an object, to read.

use crate::buffer::Buffer;
use crate::codec::{self, Content, Encoded};
use crate::layout::{Layout, Place};
use crate::object::Object;
use crate::reference::Target;
use crate::{AnyRef, Pod, PrivateView, StoreError, far};
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Up to so many bytes of an object in several pieces are copied; more are mapped side by side, once for the object. Mapping
/// and unmapping three pieces and touching them first takes about as long as copying this much (`examples/hot_path.rs`).
const COPY_BYTES: u64 = 256 << 10;

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
    /// Keeps the object, and its pages where they are.
    of: AnyRef,
    /// Keeps the bytes, if they are a copy.
    copy: Option<Arc<Buffer>>,
    content: PhantomData<fn() -> Box<T>>,
}

// SAFETY: a view gives out shared references to immutable bytes, which any thread may read; `of` is `Send` and `Sync`.
unsafe impl<T: ?Sized> Send for View<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized> Sync for View<T> {}

impl View {
    pub(crate) async fn open(of: &AnyRef) -> Result<Self, StoreError> {
        let Target::Stored(object) = &of.target else { return Ok(Self::inline(of)) };
        let range = of.range();
        if object.client.local {
            let layout = object.locate(&range).await?;
            return Ok(Self::in_layout(of, layout, &range));
        }
        if let Some(view) = Self::cached(of, object, &range) {
            return Ok(view);
        }
        object.check_claim()?;
        let buffer = match far::read(object, &range).await? {
            Some(buffer) => buffer,
            None => object.client.read(object.id(), range.clone()).await?,
        };
        object.client.cache.insert(object.id(), range, &buffer);
        Ok(Self::copied(of, buffer, 0))
    }

    pub(crate) fn try_open(of: &AnyRef) -> Option<Result<Self, StoreError>> {
        let Target::Stored(object) = &of.target else { return Some(Ok(Self::inline(of))) };
        let range = of.range();
        if let Err(error) = object.check_claim() {
            return Some(Err(error));
        }
        if object.client.local {
            let layout = object.layout(&range)?;
            return Some(Ok(Self::in_layout(of, layout, &range)));
        }
        Self::cached(of, object, &range).map(Ok)
    }

    fn inline(of: &AnyRef) -> Self {
        let Target::Inline(bytes) = &of.target else { unreachable!("the caller looked") };
        let bytes = &bytes.bytes()[of.offset as usize..(of.offset + of.length) as usize];
        Self::at(bytes.as_ptr(), of, None)
    }

    fn cached(of: &AnyRef, object: &Object, range: &Range<u64>) -> Option<Self> {
        let (buffer, at) = object.client.cache.get(&object.id(), range)?;
        Some(Self::copied(of, buffer, at))
    }

    fn copied(of: &AnyRef, buffer: Arc<Buffer>, at: usize) -> Self {
        let start = buffer[at..at + of.length as usize].as_ptr();
        Self::at(start, of, Some(buffer))
    }

    fn in_layout(of: &AnyRef, layout: &Layout, range: &Range<u64>) -> Self {
        if let Place::There(start) = layout.place(range) {
            return Self::at(start, of, None);
        }
        if of.length > COPY_BYTES
            && let Some(mosaic) = layout.mosaic()
        {
            return Self::at(layout.in_mosaic(mosaic, range), of, None);
        }
        let buffer = Arc::new(layout.copy_of(range));
        Self::copied(of, buffer, 0)
    }

    fn at(start: *const u8, of: &AnyRef, copy: Option<Arc<Buffer>>) -> Self {
        Self { start, byte_len: of.length as usize, of: of.clone(), copy, content: PhantomData }
    }

    /// The caller knows that the reference was to a `T`.
    pub(crate) fn trusted_cast<T: Content + ?Sized>(self) -> View<T> {
        View { start: self.start, byte_len: self.byte_len, of: self.of, copy: self.copy, content: PhantomData }
    }
}

/// The bytes of an object in the pieces that they lie in: nothing is copied or mapped for it. For vectored writing.
///
/// ```
/// use dmrpc_objstore::{ObjectRef, block_on};
///
/// let chunks = block_on(ObjectRef::inline(b"hello").as_any().chunks())?;
/// assert_eq!(chunks.iter().collect::<Vec<_>>().concat(), b"hello");
/// # Ok::<(), dmrpc_objstore::StoreError>(())
/// ```
pub struct Chunks {
    pieces: Vec<(*const u8, usize)>,
    /// Keep the bytes where they are.
    _of: AnyRef,
    _copy: Option<Arc<Buffer>>,
}

// SAFETY: as a view.
unsafe impl Send for Chunks {}
// SAFETY: as a view.
unsafe impl Sync for Chunks {}

/// What holes show.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl Chunks {
    pub(crate) async fn open(of: &AnyRef) -> Result<Self, StoreError> {
        let mut pieces = Vec::new();
        let range = of.range();
        let copy = match &of.target {
            Target::Stored(object) if object.client.local => {
                for (start, mut len) in object.locate(&range).await?.chunks(range) {
                    match start {
                        Some(start) => pieces.push((start, len)),
                        None => {
                            while len > 0 {
                                let part = len.min(ZEROS.len());
                                pieces.push((ZEROS.as_ptr(), part));
                                len -= part;
                            }
                        }
                    }
                }
                None
            }
            _ => {
                let view = View::open(of).await?;
                pieces.push((view.start, view.byte_len));
                view.copy
            }
        };
        Ok(Self { pieces, _of: of.clone(), _copy: copy })
    }

    /// The pieces, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        // SAFETY: whoever made it saw to it that the bytes are there and unchanged for as long as the reference lives.
        self.pieces.iter().map(|&(start, len)| unsafe { std::slice::from_raw_parts(start, len) })
    }
}

impl<T: ?Sized> View<T> {
    /// The bytes, whatever they are to be understood as.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: whoever made the view saw to it that the bytes are there and unchanged for as long as `of` lives.
        unsafe { std::slice::from_raw_parts(self.start, self.byte_len) }
    }

    /// Whether the bytes are the memory node's very pages.
    pub fn is_zero_copy(&self) -> bool {
        self.copy.is_none()
    }

    /// A reference to the same bytes.
    pub fn as_any(&self) -> &AnyRef {
        &self.of
    }

    /// A picture of the same bytes that can be written in place, and that nobody else sees.
    pub fn into_private(self) -> PrivateView<T> {
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
        Self {
            start: self.start,
            byte_len: self.byte_len,
            of: self.of.clone(),
            copy: self.copy.clone(),
            content: PhantomData,
        }
    }
}

impl<T: ?Sized> fmt::Debug for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({:?})", self.of)
    }
}
