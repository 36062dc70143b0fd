//! A segment as a client maps it.

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::OwnedFd;
use std::ptr;

/// A mapping, unmapped on drop.
pub(crate) struct Mapped {
    start: *mut u8,
    len: usize,
}

impl Mapped {
    pub(crate) fn writable(fd: &OwnedFd, offset: u64, len: usize) -> io::Result<Self> {
        Self::map(fd, offset, len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)
    }

    pub(crate) fn read_only(fd: &OwnedFd, offset: u64, len: usize) -> io::Result<Self> {
        Self::map(fd, offset, len, ProtFlags::READ, MapFlags::SHARED)
    }

    pub(crate) fn private(fd: &OwnedFd, offset: u64, len: usize) -> io::Result<Self> {
        Self::map(fd, offset, len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE)
    }

    fn map(fd: &OwnedFd, offset: u64, len: usize, protection: ProtFlags, flags: MapFlags) -> io::Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe { mmap(ptr::null_mut(), len, protection, flags, fd, offset)? };
        Ok(Self { start: start.cast(), len })
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len);
        // SAFETY: within the mapping. A test that writes to one that is not writable is to crash.
        unsafe { self.start.add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    pub(crate) fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.len);
        let mut bytes = vec![0; len];
        // SAFETY: within the mapping.
        unsafe { self.start.add(offset).copy_to_nonoverlapping(bytes.as_mut_ptr(), len) };
        bytes
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nobody has its address any more.
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}
