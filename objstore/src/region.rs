//! Memory of large buffers, used again.
//!
//! Memory that is new to a process is zeroed by the kernel piece by piece as it is touched, which takes longer than a socket
//! takes to bring the bytes. So large buffers leave their memory here for the next ones.
//!
//! 1. At most [`MAX_KEPT_BYTES`] are kept, and nothing for longer than from one [`release_idle`] to the next but one.
//! 2. What is in a region is initialized: zeros, or bytes of a buffer of this process that is gone.

use parking_lot::Mutex;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::alloc::{Layout, handle_alloc_error};
use std::ptr::NonNull;

/// Buffers from this length on are regions. For shorter ones the allocator does the same.
pub(crate) const MIN_REGION_BYTES: usize = 256 << 10;
/// The most that is kept for later, in bytes.
const MAX_KEPT_BYTES: usize = 256 << 20;
/// A region is not given for less than this part of it.
const MAX_WASTE: usize = 2;
/// The size of a huge page. Regions of at least one are made of them, where the kernel has some.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Smaller regions are multiples of this.
const GRAIN_BYTES: usize = 64 << 10;

/// Memory of one owner, to be written and read. It begins at a page.
pub(crate) struct Region {
    start: NonNull<u8>,
    /// Of the mapping, all of which is this region's.
    len: usize,
}

// SAFETY: it owns its memory, as a `Box<[u8]>` does.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

struct Kept {
    /// With whether it was there at the last [`release_idle`]. What came last is last.
    regions: Vec<(Region, bool)>,
    bytes: usize,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { regions: Vec::new(), bytes: 0 });

impl Region {
    /// At least `len` bytes.
    pub(crate) fn new(len: usize) -> Self {
        Self::kept(len).unwrap_or_else(|| Self::map(len))
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The region that came last of those that fit.
    fn kept(len: usize) -> Option<Self> {
        let mut kept = KEPT.lock();
        let fits = |(region, _): &(Self, bool)| region.len >= len && region.len / MAX_WASTE <= len;
        let at = kept.regions.iter().rposition(fits)?;
        let (region, _) = kept.regions.remove(at);
        kept.bytes -= region.len;
        Some(region)
    }

    fn map(len: usize) -> Self {
        let grain = if len >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { GRAIN_BYTES };
        let layout = Layout::from_size_align(len, grain).expect("lengths are those of slices");
        let len = layout.pad_to_align().size();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, wherever there is room.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::PRIVATE) };
        let start = start.ok().and_then(|start| NonNull::new(start.cast::<u8>()));
        let start = start.unwrap_or_else(|| handle_alloc_error(layout));
        if len >= HUGE_PAGE_BYTES {
            // SAFETY: the mapping that was just made. Without huge pages it works as well, if slower.
            let _ = unsafe { madvise(start.as_ptr().cast(), len, Advice::LinuxHugepage) };
        }
        Self { start, len }
    }

    fn unmap(self) {
        // SAFETY: the mapping is the region's, which is the caller's, and ends here.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "a mapping of our own");
        std::mem::forget(self);
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let mut over = Vec::new();
        let region = Self { start: self.start, len: self.len };
        if region.len > MAX_KEPT_BYTES {
            over.push(region);
        } else {
            let mut kept = KEPT.lock();
            while kept.bytes + region.len > MAX_KEPT_BYTES {
                let (oldest, _) = kept.regions.remove(0);
                kept.bytes -= oldest.len;
                over.push(oldest);
            }
            kept.bytes += region.len;
            kept.regions.push((region, false));
        }
        // Not under the lock: it takes a while.
        over.into_iter().for_each(Self::unmap);
    }
}

/// Gives back to the kernel what was there at the last call already.
pub(crate) fn release_idle() {
    let idle: Vec<Region> = {
        let mut kept = KEPT.lock();
        let idle: Vec<Region> =
            kept.regions.extract_if(.., |(_, seen)| std::mem::replace(seen, true)).map(|(region, _)| region).collect();
        kept.bytes -= idle.iter().map(|region| region.len).sum::<usize>();
        idle
    };
    idle.into_iter().for_each(Region::unmap);
}

/// Whether there is something to be given back.
pub(crate) fn has_kept() -> bool {
    KEPT.lock().bytes > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Invariants 1 and 2. One test, as what is kept is the process's.
    #[test]
    fn memory_is_used_again_and_goes_when_it_is_not() {
        let first = Region::new(3 << 20);
        let start = first.start();
        // SAFETY: as long as the region, which is alive.
        unsafe { start.write_bytes(7, 3 << 20) };
        drop(first);
        let small = Region::new(MIN_REGION_BYTES);
        assert_ne!(small.start(), start, "it is not wasted on little");
        let second = Region::new(2 << 20);
        assert_eq!(second.start(), start);
        // SAFETY: as above.
        assert_eq!(unsafe { *second.start().as_ptr().add(100) }, 7);
        drop((second, small));
        assert!(has_kept());
        release_idle();
        assert!(has_kept(), "it may just have come");
        release_idle();
        assert!(!has_kept());
        drop(Region::new(MAX_KEPT_BYTES + 1));
        assert!(!has_kept(), "too large to be kept");
        let regions: Vec<Region> = (0..10).map(|_| Region::new(MAX_KEPT_BYTES / 8)).collect();
        drop(regions);
        assert_eq!(KEPT.lock().bytes, MAX_KEPT_BYTES);
        release_idle();
        release_idle();
        assert!(!has_kept());
    }
}
