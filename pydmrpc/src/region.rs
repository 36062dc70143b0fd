//! Memory of the store that Python looks at, and what is known of it by address.
//!
//! A numpy array over the store has a [`PageBuffer`](crate::page_buffer::PageBuffer) for its base, which has a [`Region`]. When
//! an array is stored, its address leads back to the region it lies in: what was only looked at, or changed in few places,
//! need not be copied (`derive.rs`).
//!
//! 1. A region's memory stays mapped, at its address, until the last buffer of it is gone.
//! 2. [`find`] gives a region only while it lives, and only for addresses in it.
//! 3. Bytes that Python may write are read through raw pointers only.

use crate::fork::Native;
use dmrpc_objstore::{AnyRef, PrivateView, StoreError, View};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Weak};

/// Writable arrays up to this size are copies: below it, copying is cheaper than a mapping of one's own and a fault for each
/// page that is written (`bench/`: a mapping made and dropped 5 µs, a fault 2-3 µs, a copy of 64 KiB 5 µs).
const COPY_MAX_BYTES: usize = 64 * 1024;

/// A run of memory that Python sees: an object, or a range of one, from its first byte on.
pub(crate) struct Region {
    memory: Native<Memory>,
    start: *mut u8,
    len: usize,
}

enum Memory {
    /// The pages themselves, read-only.
    Shared(View),
    /// A private, writable picture of them.
    Private(PrivateView),
    /// A copy, writable.
    Copy(#[expect(dead_code, reason = "it is only owned")] Box<[u8]>),
}

/// How a region differs from what it shows.
pub(crate) struct Changes {
    /// What it shows.
    pub(crate) base: AnyRef,
    /// Bytes that may differ from that.
    pub(crate) dirty: Vec<Range<u64>>,
}

// SAFETY: `start` points into `memory`, which may be sent; no reference is ever made of it for bytes that may be written.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// Every region of more than [`COPY_MAX_BYTES`] by its first address.
static KNOWN: Mutex<BTreeMap<usize, Weak<Region>>> = Mutex::new(BTreeMap::new());

impl Region {
    /// The region of a view.
    pub(crate) fn open(view: View, writable: bool) -> Arc<Self> {
        let (memory, start, len) = if !writable {
            let (start, len) = (view.as_bytes().as_ptr().cast_mut(), view.as_bytes().len());
            (Memory::Shared(view), start, len)
        } else if view.as_bytes().len() <= COPY_MAX_BYTES {
            let mut copy: Box<[u8]> = view.as_bytes().into();
            let start = copy.as_mut_ptr();
            let len = copy.len();
            (Memory::Copy(copy), start, len)
        } else {
            let mut private = view.into_private();
            let (start, len) = (private.as_bytes_mut().as_mut_ptr(), private.as_bytes().len());
            (Memory::Private(private), start, len)
        };
        let region = Arc::new(Self { memory: Native::new(memory), start, len });
        if len > COPY_MAX_BYTES {
            start.expose_provenance();
            KNOWN.lock().insert(start.addr(), Arc::downgrade(&region));
        }
        region
    }

    /// Where byte `offset` is.
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.len, "the buffer lies in its region");
        self.start.wrapping_add(offset)
    }

    /// Its first address.
    pub(crate) fn address(&self) -> usize {
        self.start.addr()
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether Python may write it.
    pub(crate) fn is_writable(&self) -> bool {
        !matches!(*self.memory, Memory::Shared(_))
    }

    /// What it shows, and what was written since; `None` for copies, which show nothing.
    pub(crate) fn changes(&self) -> Option<Result<Changes, StoreError>> {
        match &*self.memory {
            _ if self.memory.is_foreign() => None,
            Memory::Shared(view) => Some(Ok(Changes { base: view.as_any().clone(), dirty: Vec::new() })),
            Memory::Private(private) => {
                Some(private.dirty_ranges().map(|dirty| Changes { base: private.base().clone(), dirty }))
            }
            Memory::Copy(_) => None,
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.len > COPY_MAX_BYTES && !self.memory.is_foreign() {
            let mut known = KNOWN.lock();
            // Two views of the same pages may begin at one address: then the entry may be the other's.
            if known.get(&self.address()).is_some_and(|region| region.strong_count() == 0) {
                known.remove(&self.address());
            }
        }
    }
}

/// The region that has all of `address .. address + len`.
pub(crate) fn find(address: usize, len: usize) -> Option<Arc<Region>> {
    // Regions may overlap, as slices of one object do: any that has the range will do. The nearest few before it are asked.
    const MAX_TRIES: usize = 8;
    // Looked at without the lock: the last owner of a region may be this function, and its end takes the lock.
    let near: SmallVec<[Arc<Region>; MAX_TRIES]> =
        KNOWN.lock().range(..=address).rev().take(MAX_TRIES).filter_map(|(_, region)| region.upgrade()).collect();
    near.into_iter().find(|region| address + len <= region.address() + region.len())
}
