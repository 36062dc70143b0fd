//! The memory of a ring: its indices and its bytes. The only place where they are reached.

use super::ring::Indices;
use std::sync::Arc;

#[cfg(not(loom))]
pub(crate) use shared::Area;

#[cfg(loom)]
pub(crate) use modelled::Area;

/// In memory that somebody else may write too.
#[cfg(not(loom))]
mod shared {
    use super::{Arc, Indices};
    use std::any::Any;
    use std::ptr::NonNull;

    pub(crate) struct Area {
        indices: NonNull<Indices>,
        bytes: NonNull<u8>,
        /// Capacity - 1; the capacity is a power of two.
        mask: u64,
        /// Keeps the memory where it is.
        _owner: Arc<dyn Any + Send + Sync>,
    }

    // SAFETY: the memory is shared by design: the indices are atomics, and the bytes are reached only through `read` and
    // `write`, whose callers answer for whose they are.
    unsafe impl Send for Area {}

    impl std::fmt::Debug for Area {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Area").field("capacity", &self.capacity()).finish_non_exhaustive()
        }
    }

    impl Area {
        /// # Safety
        ///
        /// `indices` and the `capacity` bytes from `bytes` on are valid for reads and writes, apart from each other and
        /// aligned, as long as `owner` lives, and are reached by atomics and raw copies only.
        pub(crate) unsafe fn new(
            indices: NonNull<Indices>,
            bytes: NonNull<u8>,
            capacity: usize,
            owner: Arc<dyn Any + Send + Sync>,
        ) -> Self {
            assert!(capacity.is_power_of_two() && indices.is_aligned(), "caller: lays out a ring");
            Self { indices, bytes, mask: capacity as u64 - 1, _owner: owner }
        }

        pub(crate) fn indices(&self) -> &Indices {
            // SAFETY: valid as long as `_owner` lives, and nothing but atomics, which may change under a reference.
            unsafe { self.indices.as_ref() }
        }

        pub(crate) fn capacity(&self) -> u64 {
            self.mask + 1
        }

        /// Splits a run at the end of the memory: offset, bytes before the end, bytes from the beginning on.
        fn split(&self, position: u64, len: usize) -> (usize, usize, usize) {
            debug_assert!(len as u64 <= self.capacity());
            let offset = (position & self.mask) as usize;
            let first = len.min(self.capacity() as usize - offset);
            (offset, first, len - first)
        }

        /// # Safety
        ///
        /// The place of `position` and those after it are the caller's, and not more than the capacity.
        pub(crate) unsafe fn write(&self, position: u64, from: &[u8]) {
            let (offset, first, rest) = self.split(position, from.len());
            // SAFETY: `split` stays within the `capacity` bytes from `bytes` on, which are valid for writes.
            unsafe {
                self.bytes.as_ptr().add(offset).copy_from_nonoverlapping(from.as_ptr(), first);
                if rest > 0 {
                    self.bytes.as_ptr().copy_from_nonoverlapping(from.as_ptr().add(first), rest);
                }
            }
        }

        /// # Safety
        ///
        /// The place of `position` and those after it are the caller's, and not more than the capacity. `to` is valid for
        /// writes of `len` bytes and not in the ring.
        pub(crate) unsafe fn read(&self, position: u64, to: *mut u8, len: usize) {
            let (offset, first, rest) = self.split(position, len);
            // SAFETY: `split` stays within the `capacity` bytes from `bytes` on, which are valid for reads; a hostile peer
            // that writes them meanwhile spoils the copy, which is checked after.
            unsafe {
                to.copy_from_nonoverlapping(self.bytes.as_ptr().add(offset), first);
                if rest > 0 {
                    to.add(first).copy_from_nonoverlapping(self.bytes.as_ptr(), rest);
                }
            }
        }
    }

    #[cfg(test)]
    impl Area {
        /// The two ends of a ring in the heap.
        pub(crate) fn heap_pair(capacity: usize) -> (Self, Self) {
            /// Raw memory, freed on drop.
            struct Heap(NonNull<u8>, std::alloc::Layout);
            // SAFETY: it is only an address; `Area` answers for the accesses.
            unsafe impl Send for Heap {}
            // SAFETY: as above.
            unsafe impl Sync for Heap {}
            impl Drop for Heap {
                fn drop(&mut self) {
                    // SAFETY: allocated below with this layout.
                    unsafe { std::alloc::dealloc(self.0.as_ptr(), self.1) };
                }
            }
            let layout =
                std::alloc::Layout::from_size_align(size_of::<Indices>() + capacity, 128).expect("a small layout");
            // SAFETY: the layout is not empty.
            let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).expect("a little memory");
            let heap: Arc<dyn Any + Send + Sync> = Arc::new(Heap(start, layout));
            // SAFETY: within the allocation.
            let bytes = unsafe { start.add(size_of::<Indices>()) };
            let end = || {
                // SAFETY: zeroed memory of that size, aligned, freed with the last owner.
                unsafe { Self::new(start.cast(), bytes, capacity, heap.clone()) }
            };
            (end(), end())
        }
    }
}

/// Under loom: bytes that tell when two threads touch them at a time.
#[cfg(loom)]
mod modelled {
    use super::super::ring::{Line, Rare, Side};
    use super::{Arc, Indices};
    use crate::sync::AtomicU64;
    use loom::cell::UnsafeCell;

    #[derive(Debug)]
    pub(crate) struct Area {
        shared: Arc<(Indices, Vec<UnsafeCell<u8>>)>,
    }

    // SAFETY: as for shared memory; loom checks it.
    unsafe impl Send for Area {}

    impl Area {
        pub(crate) fn heap_pair(capacity: usize) -> (Self, Self) {
            let zero = || AtomicU64::new(0);
            let indices = Indices {
                producer: Line(Side { index: zero(), waits: zero() }),
                consumer: Line(Side { index: zero(), waits: zero() }),
                rare: Line(Rare {
                    producer_ended: zero(),
                    consumer_ended: zero(),
                    body_limit: AtomicU64::new(u64::MAX),
                }),
            };
            let bytes = (0..capacity).map(|_| UnsafeCell::new(0)).collect();
            let shared = Arc::new((indices, bytes));
            (Self { shared: shared.clone() }, Self { shared })
        }

        pub(crate) fn indices(&self) -> &Indices {
            &self.shared.0
        }

        pub(crate) fn capacity(&self) -> u64 {
            self.shared.1.len() as u64
        }

        /// # Safety
        ///
        /// None: loom checks it.
        pub(crate) unsafe fn write(&self, position: u64, from: &[u8]) {
            for (position, byte) in (position..).zip(from) {
                // SAFETY: loom fails the test if it is not ours.
                self.shared.1[(position % self.capacity()) as usize].with_mut(|place| unsafe { *place = *byte });
            }
        }

        /// # Safety
        ///
        /// `to` is valid for writes of `len` bytes.
        pub(crate) unsafe fn read(&self, position: u64, to: *mut u8, len: usize) {
            for index in 0..len {
                let place = ((position + index as u64) % self.capacity()) as usize;
                // SAFETY: the caller answers for `to`; loom fails the test if the place is not ours.
                self.shared.1[place].with(|place| unsafe { *to.add(index) = *place });
            }
        }
    }
}
