//! Bytes of this process that begin at a multiple of [`MAX_ALIGNMENT`]: what is read over a network, and copies.

use crate::codec::MAX_ALIGNMENT;
use crate::region::{MIN_REGION_BYTES, Region};
use dmrpc_fabric::link::{Destination, Part};
use dmrpc_fabric::rdma::Block;
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;

/// Where bytes are.
enum Memory {
    Heap,
    /// In memory that was used before and will be again.
    Region {
        _region: Region,
    },
    /// In memory that is registered with a device.
    Registered(Arc<Block>),
}

/// Bytes of one owner.
pub(crate) struct Buffer {
    start: NonNull<u8>,
    len: usize,
    memory: Memory,
}

// SAFETY: it owns its memory, as a `Box<[u8]>` does.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        // SAFETY: `in_heap` gives a layout that is not empty.
        Self::in_heap(len, |layout| unsafe { alloc_zeroed(layout) })
    }

    /// `len` bytes, whatever they are: zeros, or bytes of buffers that are gone.
    pub(crate) fn of_len(len: usize) -> Self {
        if len < MIN_REGION_BYTES {
            return Self::zeroed(len);
        }
        let region = Region::new(len);
        Self { start: region.start(), len, memory: Memory::Region { _region: region } }
    }

    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        let buffer = if bytes.len() < MIN_REGION_BYTES {
            // SAFETY: `in_heap` gives a layout that is not empty.
            Self::in_heap(bytes.len(), |layout| unsafe { alloc(layout) })
        } else {
            Self::of_len(bytes.len())
        };
        // SAFETY: memory of that length, which nobody else has; all of it is written.
        unsafe { buffer.start.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        buffer
    }

    /// The first `len` bytes of a block.
    pub(crate) fn registered(mut block: Block, len: usize) -> Self {
        let start = NonNull::from(&mut block[..len]).cast();
        Self { start, len, memory: Memory::Registered(Arc::new(block)) }
    }

    /// The block that the bytes are in, for a device to read. Nobody changes them who shares them.
    pub(crate) fn block(&self) -> Option<&Arc<Block>> {
        match &self.memory {
            Memory::Registered(block) => Some(block),
            _ => None,
        }
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len.max(1), MAX_ALIGNMENT).expect("lengths are those of slices")
    }

    fn in_heap(len: usize, allocate: impl FnOnce(Layout) -> *mut u8) -> Self {
        let layout = Self::layout(len);
        let start = NonNull::new(allocate(layout)).unwrap_or_else(|| handle_alloc_error(layout));
        Self { start, len, memory: Memory::Heap }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if matches!(self.memory, Memory::Heap) {
            // SAFETY: allocated with that layout.
            unsafe { dealloc(self.start.as_ptr(), Self::layout(self.len)) };
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: all of it was written when it was made.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and there is one owner.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// A buffer that bytes arrive in, at several places at once. It can be read when all of them are here.
pub(crate) struct Arrivals {
    buffer: Arc<Buffer>,
    given: usize,
}

impl Arrivals {
    pub(crate) fn new(len: usize) -> Self {
        Self { buffer: Arc::new(Buffer::of_len(len)), given: 0 }
    }

    /// The next `len` bytes, to be written by somebody else.
    ///
    /// # Panics
    ///
    /// If there are not so many left.
    pub(crate) fn next(&mut self, len: usize) -> Box<dyn Destination> {
        let range = self.given..self.given + len;
        assert!(range.end <= self.buffer.len, "more than was to arrive");
        self.given = range.end;
        Box::new(Berth::new(self.buffer.clone(), range))
    }

    /// The buffer, if nobody writes any more. What was never written is whatever it was before.
    pub(crate) fn finish(mut self) -> Option<Arc<Buffer>> {
        // Also sees to it that what others wrote is seen here.
        Arc::get_mut(&mut self.buffer)?;
        Some(self.buffer)
    }
}

/// A range of a buffer that one message's body goes to.
struct Berth {
    /// Nobody reads before all berths are gone.
    _buffer: Arc<Buffer>,
    part: [Part; 1],
}

impl Berth {
    fn new(buffer: Arc<Buffer>, range: Range<usize>) -> Self {
        // SAFETY: `Arrivals::next` gives out ranges within the buffer.
        let start = unsafe { buffer.start.as_ptr().add(range.start) };
        Self { _buffer: buffer, part: [Part { start, len: range.len() }] }
    }
}

// SAFETY: the part is a range of a buffer that this keeps alive, that no other berth has, and that nobody reads while a
// berth is left.
unsafe impl Destination for Berth {
    fn parts(&self) -> &[Part] {
        &self.part
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
