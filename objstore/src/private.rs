//! Private views: written in place, and seen by nobody else.
//!
//! A large object is mapped once more, privately: the kernel copies the pages that are written. That costs some 2 to 3 µs a
//! page, so that a small object is simply copied out, and so is one in huge pages that were set aside, which the kernel could only
//! copy whole. For few writes at known places an [`Edit`] beats both.

use crate::buffer::Buffer;
use crate::codec::Content;
use crate::layout::Layout;
use crate::mosaic::Mosaic;
use crate::reference::Target;
use crate::{AnyRef, Edit, ObjectRef, Pod, StoreError, View, dirty};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};

/// Up to so many bytes are copied rather than mapped: a mapping and the first faults in it cost about as much as copying this
/// (`examples/hot_path.rs`).
const COPY_BYTES: usize = 256 << 10;

/// The bytes of an object, writable in place: only pages that are written take memory, and nobody else sees them.
///
/// Dropped, it leaves nothing behind; [`commit`](PrivateView::commit) makes a new object that stores only the pages that
/// were written.
pub struct PrivateView<T: ?Sized = [u8]> {
    memory: Memory,
    /// What it was made of, which its unwritten pages are.
    base: View<T>,
    content: PhantomData<fn() -> Box<T>>,
}

enum Memory {
    Copy(Buffer),
    /// The pages of the object, of which the view's bytes begin after `skip`.
    Mapped {
        mosaic: Mosaic,
        skip: usize,
    },
}

impl<T: ?Sized> PrivateView<T> {
    pub(crate) fn open(base: View<T>) -> Self {
        let memory = Self::map(&base).unwrap_or_else(|| Memory::Copy(Buffer::copy_of(base.as_bytes())));
        Self { memory, base, content: PhantomData }
    }

    fn map(base: &View<T>) -> Option<Memory> {
        let of = base.as_any();
        let Target::Stored(object) = &of.target else { return None };
        if base.as_bytes().len() <= COPY_BYTES || !object.client.local {
            return None;
        }
        let range = of.range();
        let layout = object.layout(&range)?;
        let page_size = layout.page_size();
        let pieces: Vec<_> = layout.cut(Layout::pages_of(&range, page_size)).collect();
        let mosaic = Mosaic::of(&pieces, page_size, true).ok()?;
        let skip = (range.start & (page_size.bytes() - 1)) as usize;
        Some(Memory::Mapped { mosaic, skip })
    }

    /// Over a mapping of the base's pages, which begins where the base does.
    pub(crate) fn in_mosaic(mosaic: Mosaic, base: View<T>) -> Self {
        Self { memory: Memory::Mapped { mosaic, skip: 0 }, base, content: PhantomData }
    }

    /// Over a copy of the base.
    pub(crate) fn in_buffer(buffer: Buffer, base: View<T>) -> Self {
        Self { memory: Memory::Copy(buffer), base, content: PhantomData }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.base.as_bytes().len();
        match &self.memory {
            Memory::Copy(buffer) => buffer,
            // SAFETY: the mosaic has the pages of the whole view, and is ours alone; unwritten pages are those of an object
            // that `base` keeps.
            Memory::Mapped { mosaic, skip } => unsafe { std::slice::from_raw_parts(mosaic.start().add(*skip), len) },
        }
    }

    /// The bytes, to write.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        let len = self.base.as_bytes().len();
        match &mut self.memory {
            Memory::Copy(buffer) => buffer,
            // SAFETY: as above; pages that are written become ours alone.
            Memory::Mapped { mosaic, skip } => unsafe {
                std::slice::from_raw_parts_mut(mosaic.start().add(*skip), len)
            },
        }
    }

    /// What it was made of.
    pub fn base(&self) -> &AnyRef {
        self.base.as_any()
    }

    /// The runs of bytes that may differ from the base, in pages of the memory node.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the kernel does not say.
    pub fn dirty_ranges(&self) -> Result<Vec<Range<u64>>, StoreError> {
        let len = self.base.as_bytes().len() as u64;
        let page = match &self.base().target {
            Target::Stored(object) => object.client.page_size.bytes(),
            Target::Inline(_) => len.max(1),
        };
        // Pages of the object, in which the view begins somewhere.
        let skip = self.base().offset & (page - 1);
        let written: Vec<Range<u64>> = match &self.memory {
            Memory::Copy(buffer) => {
                let bounds = |index: u64| (index * page).saturating_sub(skip).min(len);
                let pages = (skip + len).div_ceil(page);
                let pages = (0..pages).map(|index| bounds(index)..bounds(index + 1));
                let differs = |range: &Range<u64>| {
                    let range = range.start as usize..range.end as usize;
                    buffer[range.clone()] != self.base.as_bytes()[range]
                };
                pages.filter(differs).collect()
            }
            Memory::Mapped { mosaic, .. } => dirty::written(mosaic.start(), mosaic.len())?
                .into_iter()
                .map(|range| {
                    let (start, end) = (range.start / page * page, range.end.div_ceil(page) * page);
                    start.saturating_sub(skip).min(len)..end.saturating_sub(skip).min(len)
                })
                .collect(),
        };
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for range in written {
            match ranges.last_mut() {
                Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
                _ => ranges.push(range),
            }
        }
        Ok(ranges)
    }

    /// How many pages of the memory node may differ from the base.
    ///
    /// # Errors
    ///
    /// As [`dirty_ranges`](PrivateView::dirty_ranges).
    pub fn dirty_pages(&self) -> Result<u64, StoreError> {
        let Target::Stored(object) = &self.base().target else { return Ok(0) };
        let page = object.client.page_size.bytes();
        let skip = self.base().offset & (page - 1);
        let pages = |range: &Range<u64>| (range.end + skip).div_ceil(page) - (range.start + skip) / page;
        Ok(self.dirty_ranges()?.iter().map(pages).sum())
    }
}

impl<T: Content + ?Sized> PrivateView<T> {
    /// A new object with the bytes as they are now, which shares all pages that were not written with the base.
    ///
    /// # Errors
    ///
    /// As [`Store::put`](crate::Store::put).
    pub async fn commit(self) -> Result<ObjectRef<T>, StoreError> {
        let mut edit = Edit::open(self.base().clone()).await?;
        for range in self.dirty_ranges()? {
            edit.write(range.start, &self.as_bytes()[range.start as usize..range.end as usize])?;
        }
        // As long as the base, and of the same kind.
        edit.commit_any().await.map(|any| ObjectRef::trusted(any.with_codec(T::CODEC)))
    }
}

impl<T: Pod> Deref for PrivateView<[T]> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let bytes = self.as_bytes();
        // SAFETY: `Content::check` held for the base, and the bytes begin where its do, up to multiples of the alignment.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>()) }
    }
}

impl<T: Pod> DerefMut for PrivateView<[T]> {
    fn deref_mut(&mut self) -> &mut [T] {
        let bytes = self.as_bytes_mut();
        // SAFETY: as above, and any bytes are a `T`.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<T>()) }
    }
}
