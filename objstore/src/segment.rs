//! Segments of the memory node's pool, mapped into this process, or reached through a device.
//!
//! 1. A mapping stays as long as any object of this process has pages in it.
//! 2. A descriptor that this process opened by itself is of the very file that the node passes one of.
//! 3. Extents come from peers: [`Segment::start_of`] gives an address only for pages that are there.

use crate::StoreError;
use dmrpc_fabric::cache_lines;
use dmrpc_fabric::memory::{Access, Mapping, MemoryError};
use dmrpc_fabric::rdma::RemoteRun;
use dmrpc_pages::{Extent, PageSize};
use dmrpc_wire::{RegionInfo, SegmentInfo};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use rustix::fs::{FileType, Mode, OFlags, SealFlags, fstat};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A segment that is mapped here.
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) pages: u32,
    page_size: PageSize,
    memory: Memory,
    /// Whether it was used since somebody last looked.
    used: AtomicBool,
    own: bool,
}

enum Memory {
    Mapped {
        file_offset: u64,
        mapping: Mapping,
        fd: OwnedFd,
    },
    /// Of another host, and reached through a device.
    Far(RegionInfo),
}

impl Segment {
    /// Maps a segment: this session's own to write, or another's to read.
    /// `pool_at`: where this process finds the pool's file by itself.
    pub(crate) fn map(
        info: SegmentInfo,
        fd: OwnedFd,
        page_size: PageSize,
        own: bool,
        pool_at: Option<&Path>,
    ) -> Result<Self, StoreError> {
        let fd = match pool_at {
            Some(path) => open_same(path, &fd, own)?,
            None => fd,
        };
        let len = u64::from(info.pages) << page_size.shift();
        let len = usize::try_from(len).map_err(|_| StoreError::Malformed("a segment larger than the address space"))?;
        let access = if own { Access::Writable } else { Access::ReadOnly };
        let mapping = Mapping::new(&fd, info.file_offset, len, access, own).map_err(memory_error)?;
        Ok(Self {
            number: info.segment,
            pages: info.pages,
            page_size,
            memory: Memory::Mapped { file_offset: info.file_offset, mapping, fd },
            used: AtomicBool::new(true),
            own,
        })
    }

    /// All that this process wrote to it is in memory from now on. How many cache lines it has.
    pub(crate) fn write_back(&self) -> usize {
        match &self.memory {
            // SAFETY: all of the mapping.
            Memory::Mapped { mapping, .. } => unsafe {
                cache_lines::write_back(mapping.as_ptr().as_ptr(), mapping.len())
            },
            Memory::Far(_) => 0,
        }
    }

    /// A segment of this session on another host, registered for it to write.
    pub(crate) fn far(number: u32, pages: u32, page_size: PageSize, region: RegionInfo) -> Result<Self, StoreError> {
        if region.bytes < u64::from(pages) << page_size.shift() {
            return Err(StoreError::Malformed("a region smaller than its segment"));
        }
        Ok(Self { number, pages, page_size, memory: Memory::Far(region), used: AtomicBool::new(true), own: true })
    }

    /// Where an extent of this segment is for a device, if it lies within.
    pub(crate) fn remote_of(&self, extent: Extent) -> Option<RemoteRun> {
        let Memory::Far(region) = &self.memory else { return None };
        let shift = self.page_size.shift();
        crate::far::run(region, u64::from(extent.first) << shift, u64::from(extent.count) << shift)
    }

    /// Whether the segment has its memory to itself: when it is dropped, what is mapped of it stays as it is. A part of a file
    /// is soon part of another segment.
    pub(crate) fn is_separate(&self) -> bool {
        match &self.memory {
            // A memfd that is a segment can't shrink; a file that holds several can't be sealed so.
            Memory::Mapped { fd, .. } => {
                rustix::fs::fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK))
            }
            Memory::Far(_) => false,
        }
    }

    /// Where an extent of this segment begins in memory, if it lies within.
    pub(crate) fn start_of(&self, extent: Extent) -> Option<NonNull<u8>> {
        let offset = u64::from(extent.first) << self.page_size.shift();
        let len = u64::from(extent.count) << self.page_size.shift();
        match &self.memory {
            Memory::Mapped { mapping, .. } => mapping.at(offset, len).ok(),
            Memory::Far(_) => None,
        }
    }

    /// Whether its pages can be mapped one by one at other addresses: not if its memory is of huge pages that were set aside, or
    /// not mapped here.
    pub(crate) fn has_single_pages(&self) -> bool {
        match &self.memory {
            Memory::Mapped { mapping, .. } => mapping.granule_bytes() <= self.page_size.bytes(),
            Memory::Far(_) => false,
        }
    }

    /// The file that a page of this segment lies in, and where, if it is mapped.
    pub(crate) fn file_at(&self, page: u32) -> Option<(BorrowedFd<'_>, u64)> {
        match &self.memory {
            Memory::Mapped { file_offset, fd, .. } => {
                Some((fd.as_fd(), file_offset + (u64::from(page) << self.page_size.shift())))
            }
            Memory::Far(_) => None,
        }
    }
}

/// Opens the pool's file at a path of this process's own. Invariant 2.
fn open_same(path: &Path, passed: &OwnedFd, writable: bool) -> Result<OwnedFd, StoreError> {
    let failed = |error: rustix::io::Errno| StoreError::Io { doing: "opening the pool's file", why: error.to_string() };
    let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
    let own = rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let (a, b) = (fstat(&own).map_err(failed)?, fstat(passed).map_err(failed)?);
    let device = |mode| FileType::from_raw_mode(mode) == FileType::CharacterDevice;
    // A device may have several names, which are several files.
    let same = if device(a.st_mode) && device(b.st_mode) {
        a.st_rdev == b.st_rdev
    } else {
        (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
    };
    if same {
        return Ok(own);
    }
    let why = format!("{} is not the file that the memory node has its pool in", path.display());
    Err(StoreError::Io { doing: "opening the pool's file", why })
}

pub(crate) fn memory_error(error: MemoryError) -> StoreError {
    match error {
        MemoryError::Io { doing, source } => StoreError::Io { doing, why: source.to_string() },
        other => StoreError::Io { doing: "mapping a segment", why: other.to_string() },
    }
}

/// The segments that are mapped here, by number. Numbers are never given to other segments.
#[derive(Default)]
pub(crate) struct Segments {
    table: RwLock<FxHashMap<u32, Arc<Segment>>>,
}

impl Segments {
    pub(crate) fn get(&self, number: u32) -> Option<Arc<Segment>> {
        let segment = self.table.read().get(&number).cloned()?;
        // Relaxed: a hint.
        segment.used.store(true, Ordering::Relaxed);
        Some(segment)
    }

    pub(crate) fn insert(&self, segment: Arc<Segment>) {
        self.table.write().insert(segment.number, segment);
    }

    pub(crate) fn remove(&self, number: u32) -> Option<Arc<Segment>> {
        self.table.write().remove(&number)
    }

    /// Those that are this session's own to write.
    pub(crate) fn own(&self) -> Vec<Arc<Segment>> {
        self.table.read().values().filter(|segment| segment.own).cloned().collect()
    }

    /// Unmaps what nobody has used since the last time, and no object has pages in: the node may have dropped it long ago.
    pub(crate) fn unmap_idle(&self) {
        self.table.write().retain(|_, segment| {
            if segment.own {
                return true;
            }
            // Relaxed: a hint. The count can't grow meanwhile but through the table, which is locked.
            segment.used.swap(false, Ordering::Relaxed) || Arc::strong_count(segment) > 1
        });
    }

    /// Whether there are segments of other sessions.
    pub(crate) fn has_foreign(&self) -> bool {
        self.table.read().values().any(|segment| !segment.own)
    }
}
