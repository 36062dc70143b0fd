//! A segment as the node has it: a descriptor to pass on, and a mapping of its own.
//!
//! 1. All of a segment is mapped, writable, for as long as the value lives; its pages are allocated before anybody else hears of it.
//! 2. Nobody here makes a reference to its bytes: other processes write some of them at any time. They are copied by
//!    `ptr::copy` and by the kernel only.

use dmrpc_fabric::memory::{Access, Mapping, MemoryError};
use rustix::fs::{SealFlags, fcntl_add_seals};
use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::{io, ptr};

/// A segment.
pub(crate) struct Segment {
    /// Its memory; with a pool file, that of all segments.
    file: Arc<OwnedFd>,
    file_offset: u64,
    mapping: Mapping,
    /// Whether it is a memfd of its own, on which seals can be put.
    sealable: bool,
}

impl Segment {
    /// Maps `bytes` bytes of `file` from `file_offset` on. Pages are not touched yet.
    pub(crate) fn map(file: Arc<OwnedFd>, file_offset: u64, bytes: usize, sealable: bool) -> io::Result<Self> {
        match Mapping::new(&*file, file_offset, bytes, Access::Writable, false) {
            Ok(mapping) => Ok(Self { file, file_offset, mapping, sealable }),
            Err(MemoryError::Io { source, .. }) => Err(source),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Where the mapping begins, for advice to the kernel.
    pub(crate) fn base(&self) -> *mut c_void {
        self.mapping.as_ptr().as_ptr().cast()
    }

    /// Its size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.mapping.len()
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
        match self.mapping.at(offset, length) {
            Ok(start) => start.as_ptr(),
            Err(error) => panic!("the core names bytes that are not there: {error}"),
        }
    }

    /// Copies `length` bytes from `from` (a segment and an offset; zeros if there is none) to `offset` in this segment.
    pub(crate) fn copy_from(&self, offset: u64, from: Option<(&Segment, u64)>, length: u64) {
        let to = self.at(offset, length);
        match from {
            Some((segment, from_offset)) => {
                let source = segment.at(from_offset, length);
                // SAFETY: both runs were checked, and `copy` allows them to overlap.
                unsafe { ptr::copy(source, to, length as usize) };
            }
            // SAFETY: the run was checked.
            None => unsafe { ptr::write_bytes(to, 0, length as usize) },
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
