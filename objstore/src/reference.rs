//! References: capabilities to an object, or to a range of one.

use crate::codec::Content;
use crate::inline::InlineBytes;
use crate::layout::Layout;
use crate::object::Object;
use crate::{Chunks, Codec, Edit, Granted, StoreError, View};
use dmrpc_pages::Extent;
use dmrpc_wire::{NodeId, ObjectId};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

/// A reference to an object or to a range of one, that keeps it alive.
///
/// Cloning and slicing take some nanoseconds, whatever the size. The object is immutable: [`edit`](ObjectRef::edit) makes a
/// new one that shares every page that was not touched.
///
/// ```
/// use dmrpc_objstore::{ObjectRef, block_on};
///
/// let whole = ObjectRef::inline(b"hello world");
/// let part = whole.slice(6..)?;
/// assert_eq!(&block_on(part.get())?[..], b"world");
/// # Ok::<(), dmrpc_objstore::StoreError>(())
/// ```
pub struct ObjectRef<T: ?Sized = [u8]> {
    any: AnyRef,
    content: PhantomData<fn() -> Box<T>>,
}

/// A reference to bytes, whatever they are to be understood as. What [`Loans`](crate::Loans) carry.
#[derive(Clone)]
pub struct AnyRef {
    pub(crate) target: Target,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) codec: Codec,
}

/// What a reference leads to.
#[derive(Clone)]
pub(crate) enum Target {
    /// Bytes that are here.
    Inline(InlineBytes),
    /// An object in a memory node.
    Stored(Arc<Object>),
}

impl AnyRef {
    pub(crate) fn inline(bytes: &[u8], codec: Codec) -> Self {
        Self { target: Target::Inline(InlineBytes::copy_of(bytes)), offset: 0, length: bytes.len() as u64, codec }
    }

    /// The bytes of the object that are referred to.
    pub(crate) fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.length
    }

    pub(crate) fn stored(object: Arc<Object>, codec: Codec) -> Self {
        let length = object.size();
        Self { target: Target::Stored(object), offset: 0, length, codec }
    }

    /// Number of bytes that are referred to.
    pub fn byte_len(&self) -> u64 {
        self.length
    }

    /// How the bytes are to be understood.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The same bytes, to be understood otherwise.
    #[must_use]
    pub fn with_codec(self, codec: Codec) -> Self {
        Self { codec, ..self }
    }

    /// The object's name, or `None` for inline bytes.
    pub fn id(&self) -> Option<ObjectId> {
        match &self.target {
            Target::Inline(_) => None,
            Target::Stored(object) => Some(object.id()),
        }
    }

    /// The memory node that has the object, or `None` for inline bytes.
    pub fn node(&self) -> Option<NodeId> {
        self.id().map(|id| id.node())
    }

    /// Whether the bytes travel with the reference, and no memory node knows of them.
    pub fn is_inline(&self) -> bool {
        matches!(self.target, Target::Inline(_))
    }

    /// The bytes `range` of what is referred to.
    ///
    /// # Errors
    ///
    /// [`StoreError::OutOfRange`].
    pub fn slice(&self, range: impl RangeBounds<u64>) -> Result<Self, StoreError> {
        let (start, end) = resolve(&range, self.length)?;
        Ok(Self { offset: self.offset + start, length: end - start, ..self.clone() })
    }

    /// Sees the bytes as `T`, if they can be that. Their [`Codec`] is not looked at.
    ///
    /// # Errors
    ///
    /// [`StoreError::Misaligned`].
    pub fn cast<T: Content + ?Sized>(self) -> Result<ObjectRef<T>, StoreError> {
        T::check(self.offset, self.length)?;
        Ok(ObjectRef::trusted(self.with_codec(T::CODEC)))
    }

    /// As [`ObjectRef::get`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn get(&self) -> Result<View, StoreError> {
        View::open(self).await
    }

    /// As [`ObjectRef::try_get`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_get(&self) -> Option<Result<View, StoreError>> {
        View::try_open(self)
    }

    /// The bytes in the pieces that they lie in, however many those are.
    ///
    /// # Errors
    ///
    /// As [`ObjectRef::get`].
    pub async fn chunks(&self) -> Result<Chunks, StoreError> {
        Chunks::open(self).await
    }

    /// Copies the bytes from `offset` on, without a view of them. For what lies in many pieces, or is only partly wanted.
    ///
    /// # Errors
    ///
    /// [`StoreError::OutOfRange`], and as [`ObjectRef::get`].
    pub async fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), StoreError> {
        let range = offset..offset.saturating_add(into.len() as u64);
        if let Target::Stored(object) = &self.target
            && object.client.local
        {
            let (start, end) = resolve(&range, self.length)?;
            let (start, end) = (self.offset + start, self.offset + end);
            object.locate(&(start..end)).await?.copy_to(start, into);
        } else {
            into.copy_from_slice(View::open(&self.slice(range)?).await?.as_bytes());
        }
        Ok(())
    }

    /// The pages that the bytes lie in, in order, holes included; none for inline bytes. References to objects that share pages
    /// have extents in common.
    ///
    /// # Errors
    ///
    /// As [`ObjectRef::get`].
    pub async fn extents(&self) -> Result<Vec<Extent>, StoreError> {
        let Target::Stored(object) = &self.target else { return Ok(Vec::new()) };
        let pages = Layout::pages_of(&self.range(), object.client.page_size);
        if object.client.local {
            return Ok(object.locate(&self.range()).await?.extents(pages).collect());
        }
        object.check_claim()?;
        let mut at = 0;
        let mut extents = object.client.resolve(object.id(), object.size()).await?;
        extents.retain_mut(|extent| {
            let (start, end) = (pages.start.max(at), pages.end.min(at + extent.count));
            let skip = start.saturating_sub(at);
            at += extent.count;
            if start >= end {
                return false;
            }
            let first = if extent.is_hole() { 0 } else { extent.first + skip };
            *extent = Extent::new(extent.segment, first, end - start);
            true
        });
        Ok(extents)
    }

    /// As [`ObjectRef::edit`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn edit(&self) -> Result<Edit, StoreError> {
        Edit::open(self.clone()).await
    }

    /// As [`ObjectRef::grant`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn grant(&self, time_to_live: Duration) -> Result<Granted, StoreError> {
        match &self.target {
            Target::Inline(_) => Err(StoreError::Malformed("inline bytes need no grant: send the bytes themselves")),
            Target::Stored(object) => object.grant(self, time_to_live).await,
        }
    }

    /// Sees to it that the reference depends on nobody else: the object is published, and if the reference was borrowed,
    /// this session takes a hold of its own.
    ///
    /// # Errors
    ///
    /// [`StoreError::Stale`] if the object is gone, and what can go wrong with any request.
    pub async fn keep(&self) -> Result<(), StoreError> {
        match &self.target {
            Target::Inline(_) => Ok(()),
            Target::Stored(object) => object.keep().await,
        }
    }

    /// Whether both lead to the same bytes of the same object.
    pub fn same(&self, other: &AnyRef) -> bool {
        let same_target = match (&self.target, &other.target) {
            (Target::Inline(a), Target::Inline(b)) => a.same(b),
            (Target::Stored(a), Target::Stored(b)) => a.id() == b.id(),
            _ => false,
        };
        same_target && self.offset == other.offset && self.length == other.length
    }
}

impl fmt::Debug for AnyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.offset + self.length;
        match self.id() {
            Some(id) => write!(f, "ObjectRef({id}[{}..{end}])", self.offset),
            None => write!(f, "ObjectRef(inline[{}..{end}])", self.offset),
        }
    }
}

impl ObjectRef<[u8]> {
    /// A copy of `bytes` that travels with the reference, however long it is. For what is small: see
    /// [`INLINE_BYTES`](crate::INLINE_BYTES).
    pub fn inline(bytes: impl AsRef<[u8]>) -> Self {
        Self::trusted(AnyRef::inline(bytes.as_ref(), Codec::RAW))
    }
}

impl<T: Content + ?Sized> ObjectRef<T> {
    /// The caller has checked that the range can be a `T`.
    pub(crate) fn trusted(any: AnyRef) -> Self {
        Self { any, content: PhantomData }
    }

    /// The reference without its type.
    pub fn as_any(&self) -> &AnyRef {
        &self.any
    }

    /// The reference without its type.
    pub fn into_any(self) -> AnyRef {
        self.any
    }

    /// Number of bytes that are referred to.
    pub fn byte_len(&self) -> u64 {
        self.any.length
    }

    /// The object's name, or `None` for inline bytes. References to ranges of one object have the same.
    pub fn id(&self) -> Option<ObjectId> {
        self.any.id()
    }

    /// The memory node that has the object, or `None` for inline bytes.
    pub fn node(&self) -> Option<NodeId> {
        self.any.node()
    }

    /// Whether the bytes travel with the reference, and no memory node knows of them.
    pub fn is_inline(&self) -> bool {
        self.any.is_inline()
    }

    /// Sees the bytes as `U`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Misaligned`] if they can't be that.
    pub fn cast<U: Content + ?Sized>(self) -> Result<ObjectRef<U>, StoreError> {
        self.any.cast()
    }

    /// The bytes. On the memory node's host that is arithmetic on addresses, without a copy, for any size; from elsewhere
    /// they are read, unless the store's cache has them.
    ///
    /// An object in several pieces is copied if it is small, else mapped side by side once; [`AnyRef::chunks`] and
    /// [`AnyRef::read`] do without.
    ///
    /// # Errors
    ///
    /// [`StoreError::Stale`] or [`StoreError::NotFound`] if the object is gone; [`StoreError::NodeUnreachable`],
    /// [`StoreError::LeaseExpired`], [`StoreError::Deadline`] if the node had to be asked and did not answer.
    pub async fn get(&self) -> Result<View<T>, StoreError> {
        View::open(&self.any).await.map(View::trusted_cast)
    }

    /// As [`get`](ObjectRef::get) if that need not wait for anybody, else `None`.
    ///
    /// # Errors
    ///
    /// As [`get`](ObjectRef::get).
    pub fn try_get(&self) -> Option<Result<View<T>, StoreError>> {
        View::try_open(&self.any).map(|view| view.map(View::trusted_cast))
    }

    /// A private, mutable picture of the bytes, from which a new object can be made.
    ///
    /// # Errors
    ///
    /// As [`get`](ObjectRef::get).
    pub async fn edit(&self) -> Result<Edit, StoreError> {
        self.any.edit().await
    }

    /// A bearer token with which anyone of the tenant can take a reference within `time_to_live`, also when this process is
    /// gone by then.
    ///
    /// # Errors
    ///
    /// What can go wrong with any request. [`StoreError::Malformed`] for inline bytes: those can be sent as they are.
    pub async fn grant(&self, time_to_live: Duration) -> Result<Granted, StoreError> {
        self.any.grant(time_to_live).await
    }

    /// As [`AnyRef::keep`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn keep(&self) -> Result<(), StoreError> {
        self.any.keep().await
    }
}

impl<T> ObjectRef<[T]>
where
    [T]: Content,
{
    /// Number of elements that are referred to.
    pub fn len(&self) -> u64 {
        self.any.length / size_of::<T>() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.any.length == 0
    }

    /// The elements `range` of what is referred to. Nothing is copied, and nobody asked.
    ///
    /// # Errors
    ///
    /// [`StoreError::OutOfRange`], in bytes.
    pub fn slice(&self, range: impl RangeBounds<u64>) -> Result<Self, StoreError> {
        let (start, end) = resolve(&range, self.len())?;
        let unit = size_of::<T>() as u64;
        let any = AnyRef { offset: self.any.offset + start * unit, length: (end - start) * unit, ..self.any.clone() };
        Ok(Self::trusted(any))
    }
}

/// The ends of a range within `0 .. len`.
fn resolve(range: &impl RangeBounds<u64>, len: u64) -> Result<(u64, u64), StoreError> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => len,
    };
    if start <= end && end <= len { Ok((start, end)) } else { Err(StoreError::OutOfRange { start, end, len }) }
}

impl<T: ?Sized> Clone for ObjectRef<T> {
    fn clone(&self) -> Self {
        Self { any: self.any.clone(), content: PhantomData }
    }
}

impl<T: ?Sized> fmt::Debug for ObjectRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.any.fmt(f)
    }
}

impl<T: Content + ?Sized> From<ObjectRef<T>> for AnyRef {
    fn from(reference: ObjectRef<T>) -> Self {
        reference.any
    }
}

const _: () = {
    const fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<ObjectRef<[f32]>>();
    shared_between_threads::<View<[f32]>>();
};
