//! A segment as the node has it: a descriptor to pass on, and where its bytes are.
//!
//! 1. All of a segment is mapped, writable, for as long as the value lives; its pages are allocated before anybody else hears of it.
//! 2. Nobody here makes a reference to its bytes: other processes write some of them at any time. They are copied by
//!    `ptr::copy` and by the kernel only.

use dmrpc_fabric::cache_lines;
use dmrpc_fabric::datagram::dpdk::Reserved;
use dmrpc_fabric::memory::{Access, Mapping, MemoryError};
use rustix::fs::{SealFlags, fcntl_add_seals};
use rustix::mm::Advice;
use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::{io, ptr};

/// What fresh pages are written with.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// A segment.
pub(crate) struct Segment {
    /// Its memory; with a pool file, that of all segments.
    file: Arc<OwnedFd>,
    file_offset: u64,
    memory: Memory,
    /// Whether it is a memfd of its own, on which seals can be put.
    sealable: bool,
    /// Whether others see only what was written back, and what they wrote is seen only once old lines are dropped.
    flushed: bool,
}

/// Where the bytes of a segment are.
enum Memory {
    Mapped(Mapping),
    /// In memory that DPDK reserved and has mapped: `bytes` from `start` on.
    Reserved {
        all: Arc<Reserved>,
        start: usize,
        bytes: usize,
    },
}

impl Segment {
    /// `bytes` bytes of memory that DPDK reserved, from `start` on. `file` is where clients find it.
    ///
    /// # Panics
    ///
    /// If it has not so many.
    pub(crate) fn reserved(file: Arc<OwnedFd>, all: Arc<Reserved>, start: usize, bytes: usize) -> Self {
        assert!(start.checked_add(bytes).is_some_and(|end| end <= all.len()), "{bytes} bytes from {start} on");
        let file_offset = all.file().1 + start as u64;
        Self { file, file_offset, memory: Memory::Reserved { all, start, bytes }, sealable: false, flushed: false }
    }

    /// Maps `bytes` bytes of `file` from `file_offset` on. Pages are not touched yet.
    pub(crate) fn map(file: Arc<OwnedFd>, file_offset: u64, bytes: usize, sealable: bool) -> io::Result<Self> {
        match Mapping::new(&*file, file_offset, bytes, Access::Writable, false) {
            Ok(mapping) => Ok(Self { file, file_offset, memory: Memory::Mapped(mapping), sealable, flushed: false }),
            Err(MemoryError::Io { source, .. }) => Err(source),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// The same, of memory that no hardware keeps coherent, if `flushed`.
    pub(crate) fn flushed(self, flushed: bool) -> Self {
        Self { flushed, ..self }
    }

    /// What the node wrote there can be seen by all from now on.
    pub(crate) fn write_back(&self, offset: u64, length: u64) {
        if self.flushed {
            // SAFETY: the run is checked, and mapped.
            unsafe { cache_lines::write_back(self.at(offset, length), length as usize) };
        }
    }

    /// What others wrote there is seen by the node from now on.
    pub(crate) fn drop_lines(&self, offset: u64, length: u64) {
        if self.flushed {
            // SAFETY: the run is checked, and mapped.
            unsafe { cache_lines::drop_lines(self.at(offset, length), length as usize) };
        }
    }

    /// Where its bytes begin, for advice to the kernel.
    pub(crate) fn base(&self) -> *mut c_void {
        self.at(0, 0).cast()
    }

    /// Where in the memory that DPDK reserved it begins, if it is there.
    pub(crate) fn reserved_start(&self) -> Option<usize> {
        match self.memory {
            Memory::Mapped(_) => None,
            Memory::Reserved { start, .. } => Some(start),
        }
    }

    /// Its size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match &self.memory {
            Memory::Mapped(mapping) => mapping.len(),
            Memory::Reserved { bytes, .. } => *bytes,
        }
    }

    /// The descriptor to pass to clients.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Where the segment begins in the file that the descriptor names.
    pub(crate) fn file_offset(&self) -> u64 {
        self.file_offset
    }

    /// The address of `length` bytes from `offset` on.
    ///
    /// # Panics
    ///
    /// If they are not in the segment: the core names only pages that are.
    pub(crate) fn at(&self, offset: u64, length: u64) -> *mut u8 {
        match &self.memory {
            Memory::Mapped(mapping) => match mapping.at(offset, length) {
                Ok(start) => start.as_ptr(),
                Err(error) => panic!("the core names bytes that are not there: {error}"),
            },
            Memory::Reserved { all, start, bytes } => {
                let end = offset.checked_add(length);
                assert!(end.is_some_and(|end| end <= *bytes as u64), "the core names bytes that are not there");
                all.as_ptr().as_ptr().wrapping_add(start + offset as usize)
            }
        }
    }

    /// Copies `length` bytes from `from` (a segment and an offset; zeros if there is none) to `offset` in this segment.
    pub(crate) fn copy_from(&self, offset: u64, from: Option<(&Segment, u64)>, length: u64) {
        let to = self.at(offset, length);
        match from {
            Some((segment, from_offset)) => {
                segment.drop_lines(from_offset, length);
                let source = segment.at(from_offset, length);
                // SAFETY: both runs were checked, and `copy` allows them to overlap.
                unsafe { ptr::copy(source, to, length as usize) };
            }
            // SAFETY: the run was checked.
            None => unsafe { ptr::write_bytes(to, 0, length as usize) },
        }
        self.write_back(offset, length);
    }

    /// Writes `length` zeros from `offset` on to the file itself, which makes pages of it that are not there yet.
    pub(crate) fn write_zeros(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut at = 0;
        while at < length {
            let piece = (ZEROS.len() as u64).min(length - at) as usize;
            at += rustix::io::pwrite(&self.file, &ZEROS[..piece], self.file_offset + offset + at)? as u64;
        }
        Ok(())
    }

    /// Takes the pages out of the page table of the node, in pieces. Dropping the mapping then is quick, and nobody waits for
    /// the lock on the address space that it holds meanwhile.
    pub(crate) fn unmap_pages(&self, piece_bytes: u64) {
        if let Memory::Reserved { .. } = self.memory {
            return;
        }
        let bytes = self.bytes() as u64;
        for at in (0..bytes).step_by(piece_bytes as usize) {
            let piece = piece_bytes.min(bytes - at);
            // SAFETY: advice on a part of our mapping, which is shared: the bytes stay in the file.
            let _ = unsafe { rustix::mm::madvise(self.at(at, piece).cast(), piece as usize, Advice::LinuxDontNeed) };
        }
    }

    /// Lets nobody map the segment writable any more; those that did go on. Without effect on a part of a file.
    pub(crate) fn seal_against_new_writers(&self) -> io::Result<()> {
        if self.sealable {
            fcntl_add_seals(&self.file, SealFlags::FUTURE_WRITE | SealFlags::SEAL)?;
        }
        Ok(())
    }
}
