//! Registered memory to read into and write from.
//!
//! Registering takes longer than most operations, so it is done for slabs, out of which blocks are handed. A block that is larger
//! than a slab's half has a registration of its own.
//!
//! 1. A page belongs to one block at most.
//! 2. Free slabs beyond [`KEPT_SLABS`] are given back.

use crate::link::LinkError;
use dmrpc_pages::Buddy;
use dmrpc_rdma_sys::{Access, MemoryRegion, ProtectionDomain};
use parking_lot::Mutex;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

/// Size of a slab, in bytes.
const SLAB_BYTES: usize = 16 << 20;
/// The unit of blocks, in bytes.
const PAGE_BYTES: usize = 4096;
/// A huge page: where slabs begin.
const HUGE_BYTES: usize = 2 << 20;
/// Slabs that are kept though nothing is in them.
const KEPT_SLABS: usize = 2;

/// Registered memory of one domain.
pub struct Heap {
    domain: ProtectionDomain,
    slabs: Mutex<Vec<Slab>>,
}

struct Slab {
    memory: Arc<Registered>,
    buddy: Buddy,
}

/// A run of memory, and its registration.
struct Registered {
    region: MemoryRegion,
}

/// Memory of ours that begins at a huge page.
struct Pages {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its memory; whoever reaches it answers for it.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    fn new(len: usize) -> Self {
        let alignment = if len >= HUGE_BYTES { HUGE_BYTES } else { PAGE_BYTES };
        let layout = Layout::from_size_align(len, alignment).expect("lengths are those of slices");
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        if len >= HUGE_BYTES {
            let advice = rustix::mm::Advice::LinuxHugepage;
            // SAFETY: our memory, and advice changes no contents. Without huge pages it takes longer to register.
            let _ = unsafe { rustix::mm::madvise(start.as_ptr().cast(), len, advice) };
        }
        Self { start, layout }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated with that layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

impl Registered {
    fn new(domain: &ProtectionDomain, len: usize) -> Result<Self, LinkError> {
        let len = len.next_multiple_of(PAGE_BYTES);
        let pages = Arc::new(Pages::new(len));
        let start = pages.start.as_ptr();
        // SAFETY: the pages live as long as their owner; of what is in them references are made by blocks alone, whose memory
        // the device writes only while an operation has them.
        let region = unsafe { MemoryRegion::new(domain, start, len, Access::Local, pages)? };
        Ok(Self { region })
    }
}

impl Heap {
    pub(super) fn new(domain: ProtectionDomain) -> Self {
        Self { domain, slabs: Mutex::default() }
    }

    /// A block of `len` bytes. What is in it is zeros, or what earlier blocks of this process left.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] if no more memory can be registered, with the limit that says so.
    pub fn block(self: &Arc<Self>, len: usize) -> Result<Block, LinkError> {
        if len > SLAB_BYTES / 2 {
            let memory = Arc::new(Registered::new(&self.domain, len)?);
            return Ok(Block { memory, offset: 0, len, heap: Weak::new() });
        }
        let pages = len.div_ceil(PAGE_BYTES).max(1) as u32;
        let mut slabs = self.slabs.lock();
        for slab in slabs.iter_mut() {
            if let Some(first) = slab.buddy.alloc(pages) {
                return Ok(Block::new(self, &slab.memory, first, len));
            }
        }
        let memory = Arc::new(Registered::new(&self.domain, SLAB_BYTES)?);
        let mut buddy = Buddy::new((SLAB_BYTES / PAGE_BYTES) as u32);
        let first = buddy.alloc(pages).expect("it is empty");
        let block = Block::new(self, &memory, first, len);
        slabs.push(Slab { memory, buddy });
        Ok(block)
    }

    fn give_back(&self, memory: &Arc<Registered>, first: u32, pages: u32) {
        let mut slabs = self.slabs.lock();
        let Some(slab) = slabs.iter_mut().find(|slab| Arc::ptr_eq(&slab.memory, memory)) else { return };
        slab.buddy.free(first, pages).expect("a block is given back once");
        let is_free = |slab: &Slab| slab.buddy.free_pages() == slab.buddy.pages();
        if is_free(slab) && slabs.iter().filter(|slab| is_free(slab)).count() > KEPT_SLABS {
            slabs.retain(|slab| !Arc::ptr_eq(&slab.memory, memory));
        }
    }
}

/// Bytes that a device may read and write for operations of this process. They have one owner.
pub struct Block {
    memory: Arc<Registered>,
    offset: usize,
    len: usize,
    /// Where its pages go; nowhere, if the registration is its own.
    heap: Weak<Heap>,
}

impl Block {
    fn new(heap: &Arc<Heap>, memory: &Arc<Registered>, first: u32, len: usize) -> Self {
        Self { memory: memory.clone(), offset: first as usize * PAGE_BYTES, len, heap: Arc::downgrade(heap) }
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.memory.region.start().wrapping_add(self.offset)
    }

    pub(super) fn local_key(&self) -> u32 {
        self.memory.region.local_key()
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are in its own pages, and the device writes them only while an operation owns the block.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the block has one owner.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(heap) = self.heap.upgrade() {
            let pages = self.len.div_ceil(PAGE_BYTES).max(1) as u32;
            heap.give_back(&self.memory, (self.offset / PAGE_BYTES) as u32, pages);
        }
    }
}
