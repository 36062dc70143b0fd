//! Bulk: memory that is registered under numbers and reached by region and offset.
//!
//! [`Memory`] is what users program against. [`Mappings`] is memory of this host, mapped; [`InProcessMemory`] is a stand-in
//! in the heap, and [`FakeMemory`] fails on purpose.
//!
//! 1. An access outside of a region is [`MemoryError::OutOfRange`] and touches nothing.
//! 2. Nothing here makes references to registered memory, which other processes may change at any time: there are raw
//!    copies, and addresses. Whoever makes a reference of an address answers for nobody writing there meanwhile, also not
//!    through [`Memory::write_from`] or [`Mapping::discard`].
//! 3. A mapping never reaches beyond its file when it is made; a file that may shrink later is for its maker to seal.
//! 4. A file of huge pages is mapped and unmapped by whole ones: the kernel rounds a length up when it maps, also over what
//!    was there before, and refuses it when it unmaps.

use parking_lot::RwLock;
use rustix::fs::{FileType, fstat, fstatfs};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A place in registered memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The region.
    pub region: u32,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// Why memory can't be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// Nothing is registered under that number.
    #[error("no memory is registered as region {0}")]
    NoRegion(u32),
    /// Outside of the region, or not at a multiple of a page where it has to be.
    #[error("{len} bytes at {offset} are not within a region of {region_len} bytes, or not whole pages of it")]
    OutOfRange {
        /// Where.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// Size of the region in bytes.
        region_len: u64,
    },
    /// It can't be written.
    #[error("the memory is mapped for reading only")]
    ReadOnly,
    /// The file is shorter than what was to be mapped of it.
    #[error("the file has {file_len} bytes, not {wanted}")]
    TooShort {
        /// Size of the file in bytes.
        file_len: u64,
        /// Where the mapping was to end.
        wanted: u64,
    },
    /// The operating system said no.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: std::io::Error,
    },
}

/// Registered memory.
pub trait Memory: Send + Sync {
    /// Size of a region in bytes.
    ///
    /// # Errors
    ///
    /// [`MemoryError::NoRegion`].
    fn region_len(&self, region: u32) -> Result<u64, MemoryError>;

    /// Copies from registered memory.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] if the place is not there or can't be reached; `to` is undefined then.
    fn read_into(&self, from: Place, to: &mut [u8]) -> Result<(), MemoryError>;

    /// Copies to registered memory.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] if the place is not there or can't be reached; how much was written is unknown only if it can't be
    /// reached.
    fn write_from(&self, to: Place, from: &[u8]) -> Result<(), MemoryError>;

    /// The address of `len` bytes at a place, where loads and stores reach it. Valid as long as the region is registered.
    fn as_ptr(&self, at: Place, len: u64) -> Option<NonNull<u8>>;
}

/// What may be done with mapped memory, and who sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read; writes of others are seen.
    ReadOnly,
    /// Read and written, seen by all who map it.
    Writable,
    /// Read and written; a page that is written is copied first and is nobody else's. Until then writes of others are
    /// seen. No memory is reserved for the copies.
    Private,
}

/// `HUGETLBFS_MAGIC` of the kernel's `linux/magic.h`.
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// What can be mapped of a file by itself: multiples of so many bytes. More than a page of the processor for files whose pages
/// were set aside as huge ones, also memfds.
///
/// # Errors
///
/// What the kernel says if it does not tell.
pub fn granule_bytes(fd: impl AsFd) -> std::io::Result<u64> {
    let stat = fstatfs(fd)?;
    let page = rustix::param::page_size() as u64;
    let is_huge = stat.f_type as u64 & 0xffff_ffff == HUGETLBFS_MAGIC;
    Ok(if is_huge { u64::try_from(stat.f_bsize).unwrap_or(page).max(page) } else { page })
}

/// A part of a file, mapped. Unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
    access: Access,
    granule_bytes: u64,
}

// SAFETY: it is an address; what is done with it is raw copies, and who does more answers for it (invariant 2).
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of a file from `offset` on, both multiples of its page size. `populate`: read all pages in now, so
    /// that no access faults later (writes to a private mapping still do).
    ///
    /// # Errors
    ///
    /// [`MemoryError::TooShort`]; [`MemoryError::Io`] if the kernel does not want to.
    pub fn new(fd: impl AsFd, offset: u64, len: usize, access: Access, populate: bool) -> Result<Self, MemoryError> {
        Self::map(fd.as_fd(), offset, len, access, populate)
    }

    fn map(fd: BorrowedFd<'_>, offset: u64, len: usize, access: Access, populate: bool) -> Result<Self, MemoryError> {
        let failed = |error: rustix::io::Errno| MemoryError::Io { doing: "mapping memory", source: error.into() };
        let stat = fstat(fd).map_err(failed)?;
        // Devices have no size.
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            let file_len = u64::try_from(stat.st_size).unwrap_or(0);
            let wanted = offset.saturating_add(len as u64);
            if file_len < wanted {
                return Err(MemoryError::TooShort { file_len, wanted });
            }
        }
        let (protection, flags) = match access {
            Access::ReadOnly => (ProtFlags::READ, MapFlags::SHARED),
            Access::Writable => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED),
            Access::Private => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE),
        };
        let granule_bytes =
            granule_bytes(fd).map_err(|source| MemoryError::Io { doing: "looking at a file", source })?;
        let whole = whole(len, granule_bytes);
        let start = match Reserved::aligned(offset, whole).map_err(failed)? {
            Some(reserved) => {
                let fixed = flags | MapFlags::FIXED;
                // SAFETY: over addresses that we have just reserved, and which nobody else uses.
                let start = unsafe { mmap(reserved.start, whole, protection, fixed, fd, offset) }.map_err(failed)?;
                std::mem::forget(reserved);
                start
            }
            // SAFETY: a new mapping, at an address that the kernel chooses.
            None => unsafe { mmap(std::ptr::null_mut(), whole, protection, flags, fd, offset) }.map_err(failed)?,
        };
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address 0 unasked");
        let mapping = Self { start, len, access, granule_bytes };
        if populate {
            // Not MAP_POPULATE, which would copy every page of a private mapping, as if it were written.
            let advice =
                if access == Access::Writable { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
            // SAFETY: our mapping; the advice changes no contents.
            unsafe { madvise(start.as_ptr().cast(), whole, advice) }.map_err(failed)?;
        }
        Ok(mapping)
    }

    /// Its first byte.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.start
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes; never so.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What may be done with it.
    pub fn access(&self) -> Access {
        self.access
    }

    /// What can be mapped of its file by itself: multiples of so many bytes.
    pub fn granule_bytes(&self) -> u64 {
        self.granule_bytes
    }

    /// The address of `len` bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutOfRange`].
    pub fn at(&self, offset: u64, len: u64) -> Result<NonNull<u8>, MemoryError> {
        check(offset, len, self.len as u64)?;
        // SAFETY: within the mapping.
        Ok(unsafe { self.start.add(offset as usize) })
    }

    /// Copies from it.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutOfRange`].
    pub fn read_into(&self, offset: u64, to: &mut [u8]) -> Result<(), MemoryError> {
        let from = self.at(offset, to.len() as u64)?;
        // SAFETY: within the mapping, which is apart from `to`: nobody makes references to it (invariant 2).
        unsafe { from.as_ptr().copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Copies to it.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutOfRange`], [`MemoryError::ReadOnly`].
    pub fn write_from(&self, offset: u64, from: &[u8]) -> Result<(), MemoryError> {
        let to = self.at(offset, from.len() as u64)?;
        if self.access == Access::ReadOnly {
            return Err(MemoryError::ReadOnly);
        }
        // SAFETY: within the mapping, which is writable. `copy_to`, not `nonoverlapping`: `from` may be of the mapping, if
        // its maker answers for it (invariant 2).
        unsafe { to.as_ptr().copy_from(from.as_ptr(), from.len()) };
        Ok(())
    }

    /// Throws away what was written to pages of a private mapping: they read as the file does again. Whole pages only.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutOfRange`], also for parts of pages; [`MemoryError::ReadOnly`] if the mapping is not private.
    pub fn discard(&self, range: Range<u64>) -> Result<(), MemoryError> {
        let len = range.end.saturating_sub(range.start);
        let from = self.at(range.start, len)?;
        let page = rustix::param::page_size() as u64;
        if !range.start.is_multiple_of(page) || !range.end.is_multiple_of(page) {
            return Err(MemoryError::OutOfRange { offset: range.start, len, region_len: self.len as u64 });
        }
        if self.access != Access::Private {
            return Err(MemoryError::ReadOnly);
        }
        // SAFETY: whole pages of our mapping, which nobody has references to (invariant 2).
        unsafe { madvise(from.as_ptr().cast(), len as usize, Advice::LinuxDontNeed) }
            .map_err(|error| MemoryError::Io { doing: "discarding pages", source: error.into() })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by us; an address is valid as long as the mapping lives.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), whole(self.len, self.granule_bytes)) };
    }
}

/// Invariant 4.
fn whole(len: usize, granule_bytes: u64) -> usize {
    if granule_bytes == rustix::param::page_size() as u64 { len } else { len.next_multiple_of(granule_bytes as usize) }
}

/// A huge page of the hardware, in bytes. Whatever is mapped so that it could be mapped by huge pages is: where the file has
/// them, one fault then does for what else takes 512.
const HUGE_BYTES: usize = 2 << 20;

/// Addresses that nothing is mapped at yet, and nothing else will be.
struct Reserved {
    start: *mut std::ffi::c_void,
    len: usize,
}

impl Reserved {
    /// Place for `len` bytes that begins at a huge page, if that is of use for a file mapped from `offset` on. The kernel
    /// cares for it by itself only where it makes huge pages of shared memory unasked.
    fn aligned(offset: u64, len: usize) -> rustix::io::Result<Option<Self>> {
        if len < HUGE_BYTES || !offset.is_multiple_of(HUGE_BYTES as u64) {
            return Ok(None);
        }
        let Some(wide) =
            len.checked_next_multiple_of(rustix::param::page_size()).and_then(|len| len.checked_add(HUGE_BYTES))
        else {
            return Ok(None);
        };
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), wide, ProtFlags::empty(), flags)? };
        let before = start.align_offset(HUGE_BYTES);
        // SAFETY: both ends are parts of the new mapping, whole pages, and what is between them is as long as asked for.
        unsafe {
            let aligned = start.byte_add(before);
            let end = aligned.byte_add(wide - HUGE_BYTES);
            if before > 0 {
                munmap(start, before)?;
            }
            if before < HUGE_BYTES {
                munmap(end, HUGE_BYTES - before)?;
            }
            Ok(Some(Self { start: aligned, len: wide - HUGE_BYTES }))
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // SAFETY: ours, and nothing was mapped over it.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

/// Invariant 1.
fn check(offset: u64, len: u64, region_len: u64) -> Result<(), MemoryError> {
    match offset.checked_add(len) {
        Some(end) if end <= region_len => Ok(()),
        _ => Err(MemoryError::OutOfRange { offset, len, region_len }),
    }
}

/// Mapped memory of this host, by region.
#[derive(Debug, Default)]
pub struct Mappings {
    regions: RwLock<BTreeMap<u32, Arc<Mapping>>>,
}

impl Mappings {
    /// Registers a mapping; the one that was registered before under that number.
    pub fn insert(&self, region: u32, mapping: Arc<Mapping>) -> Option<Arc<Mapping>> {
        self.regions.write().insert(region, mapping)
    }

    /// Takes a mapping out. It is unmapped when nobody else has it.
    pub fn remove(&self, region: u32) -> Option<Arc<Mapping>> {
        self.regions.write().remove(&region)
    }

    /// The mapping of a region.
    ///
    /// # Errors
    ///
    /// [`MemoryError::NoRegion`].
    pub fn get(&self, region: u32) -> Result<Arc<Mapping>, MemoryError> {
        self.regions.read().get(&region).cloned().ok_or(MemoryError::NoRegion(region))
    }
}

impl Memory for Mappings {
    fn region_len(&self, region: u32) -> Result<u64, MemoryError> {
        Ok(self.get(region)?.len() as u64)
    }

    fn read_into(&self, from: Place, to: &mut [u8]) -> Result<(), MemoryError> {
        self.get(from.region)?.read_into(from.offset, to)
    }

    fn write_from(&self, to: Place, from: &[u8]) -> Result<(), MemoryError> {
        self.get(to.region)?.write_from(to.offset, from)
    }

    fn as_ptr(&self, at: Place, len: u64) -> Option<NonNull<u8>> {
        self.get(at.region).ok()?.at(at.offset, len).ok()
    }
}

/// Memory in the heap, by region; not reached by loads and stores, as if it were far away.
#[derive(Debug, Default)]
pub struct InProcessMemory {
    regions: RwLock<BTreeMap<u32, RwLock<Vec<u8>>>>,
}

impl InProcessMemory {
    /// Registers a region of `len` bytes, all 0.
    pub fn insert(&self, region: u32, len: usize) {
        self.regions.write().insert(region, RwLock::new(vec![0; len]));
    }

    fn within<T>(
        &self,
        place: Place,
        len: usize,
        reach: impl FnOnce(&RwLock<Vec<u8>>, Range<usize>) -> T,
    ) -> Result<T, MemoryError> {
        let regions = self.regions.read();
        let region = regions.get(&place.region).ok_or(MemoryError::NoRegion(place.region))?;
        let region_len = region.read().len() as u64;
        check(place.offset, len as u64, region_len)?;
        let start = place.offset as usize;
        Ok(reach(region, start..start + len))
    }
}

impl Memory for InProcessMemory {
    fn region_len(&self, region: u32) -> Result<u64, MemoryError> {
        let regions = self.regions.read();
        Ok(regions.get(&region).ok_or(MemoryError::NoRegion(region))?.read().len() as u64)
    }

    fn read_into(&self, from: Place, to: &mut [u8]) -> Result<(), MemoryError> {
        self.within(from, to.len(), |region, range| to.copy_from_slice(&region.read()[range]))
    }

    fn write_from(&self, to: Place, from: &[u8]) -> Result<(), MemoryError> {
        self.within(to, from.len(), |region, range| region.write()[range].copy_from_slice(from))
    }

    fn as_ptr(&self, _: Place, _: u64) -> Option<NonNull<u8>> {
        None
    }
}

/// Memory that can't be reached now and then, as a seed decides.
#[derive(Debug)]
pub struct FakeMemory<M> {
    inner: M,
    seed: u64,
    accesses: AtomicU64,
    /// Of so many accesses one fails; 0: none.
    one_in: u64,
}

impl<M: Memory> FakeMemory<M> {
    /// Around other memory: one in `one_in` accesses fails; 0: none.
    pub fn new(inner: M, seed: u64, one_in: u64) -> Self {
        Self { inner, seed, accesses: AtomicU64::new(0), one_in }
    }

    fn luck(&self) -> Result<(), MemoryError> {
        // Relaxed: a count of its own.
        let access = self.accesses.fetch_add(1, Ordering::Relaxed);
        if self.one_in > 0 && crate::dice::mix(self.seed ^ crate::dice::mix(access)).is_multiple_of(self.one_in) {
            let source = std::io::Error::other("failed on purpose");
            return Err(MemoryError::Io { doing: "reaching memory", source });
        }
        Ok(())
    }
}

impl<M: Memory> Memory for FakeMemory<M> {
    fn region_len(&self, region: u32) -> Result<u64, MemoryError> {
        self.inner.region_len(region)
    }

    fn read_into(&self, from: Place, to: &mut [u8]) -> Result<(), MemoryError> {
        self.luck()?;
        self.inner.read_into(from, to)
    }

    fn write_from(&self, to: Place, from: &[u8]) -> Result<(), MemoryError> {
        self.luck()?;
        self.inner.write_from(to, from)
    }

    fn as_ptr(&self, at: Place, len: u64) -> Option<NonNull<u8>> {
        self.inner.as_ptr(at, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    #[test]
    fn a_large_mapping_begins_at_a_huge_page_and_a_small_one_anywhere() {
        let file = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 9 * HUGE_BYTES as u64).unwrap();
        let mut kept = Vec::new();
        for (offset, len) in
            [(0, HUGE_BYTES), (0, 3 * HUGE_BYTES + 5000), (2 * HUGE_BYTES, HUGE_BYTES + 4096), (0, 4096)]
        {
            for access in [Access::ReadOnly, Access::Writable, Access::Private] {
                let mapping = Mapping::new(&file, offset as u64, len, access, true).unwrap();
                assert!(len < HUGE_BYTES || mapping.as_ptr().as_ptr().addr().is_multiple_of(HUGE_BYTES));
                let mut byte = [1];
                mapping.read_into(len as u64 - 1, &mut byte).unwrap();
                assert_eq!(byte, [0]);
                kept.push(mapping);
            }
        }
    }
}
