//! Memory of DPDK's own, for pages that drivers send from where they are.
//!
//! 1. What was reserved stays where it is as long as the process lives: no driver looks at memory that is gone.

use crate::link::LinkError;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

/// A piece of DPDK's memory, for ever this process's own.
#[derive(Debug)]
pub struct Reserved {
    start: NonNull<u8>,
    len: usize,
    fd: OwnedFd,
    fd_offset: u64,
}

// SAFETY: it is an address and a length; whoever makes references of it answers for them.
unsafe impl Send for Reserved {}
// SAFETY: as above.
unsafe impl Sync for Reserved {}

impl Reserved {
    /// Reserves `bytes` of it, aligned to 2 MiB, near a NUMA node if one is given. Starts EAL if it does not run, as
    /// [`configure`](super::configure) or the environment says.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] with what DPDK says is wrong: mostly that it was given less memory (`-m`, huge pages), or memory in
    /// many files (`--single-file-segments` makes it one).
    #[cfg(feature = "dpdk")]
    pub fn new(name: &str, bytes: usize, numa_node: Option<u32>) -> Result<Self, LinkError> {
        enabled::reserve(name, bytes, numa_node)
    }

    /// Says that there is none without the feature `dpdk`.
    ///
    /// # Errors
    ///
    /// Always.
    #[cfg(not(feature = "dpdk"))]
    pub fn new(_name: &str, _bytes: usize, _numa_node: Option<u32>) -> Result<Self, LinkError> {
        Err(super::NO_DPDK)
    }

    /// Its first byte.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.start
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The file that it is part of, opened for reading only, and where it begins there.
    pub fn file(&self) -> (&OwnedFd, u64) {
        (&self.fd, self.fd_offset)
    }
}

#[cfg(feature = "dpdk")]
pub(super) use enabled::contains;

#[cfg(feature = "dpdk")]
mod enabled {
    use super::super::port;
    use super::{LinkError, NonNull, Reserved};
    use dmrpc_dpdk_sys as sys;
    use parking_lot::RwLock;
    use rustix::fs::{Mode, OFlags};
    use std::ffi::CString;
    use std::ops::Range;

    /// All that was reserved.
    static RESERVED: RwLock<Vec<Range<usize>>> = RwLock::new(Vec::new());

    pub(super) fn reserve(name: &str, bytes: usize, numa_node: Option<u32>) -> Result<Reserved, LinkError> {
        port::start()?;
        let name = CString::new(name).map_err(|_| LinkError::Unsupported("a name with a NUL"))?;
        let node = numa_node.and_then(|node| i32::try_from(node).ok()).unwrap_or(-1);
        // SAFETY: EAL runs, and the name holds through the call.
        let start = unsafe { sys::dmrpc_memory_reserve(name.as_ptr(), bytes as u64, node) }.cast::<u8>();
        let start = NonNull::new(start).ok_or_else(|| port::shim_error("reserving memory of DPDK's"))?;
        let mut fd_offset = 0;
        // SAFETY: it was just reserved, so long.
        let fd = unsafe { sys::dmrpc_memory_file(start.as_ptr().cast(), bytes as u64, &raw mut fd_offset) };
        if fd < 0 {
            return Err(LinkError::Unsupported(
                "pages in DPDK's memory that is in many files: add --single-file-segments to EAL's arguments",
            ));
        }
        // DPDK's own descriptor is writable; those that pages are shown to get one that is not.
        let fd = rustix::fs::open(format!("/proc/self/fd/{fd}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| LinkError::io("opening DPDK's memory for reading", error))?;
        let from = start.as_ptr().addr();
        RESERVED.write().push(from..from + bytes);
        Ok(Reserved { start, len: bytes, fd, fd_offset })
    }

    /// Whether all bytes lie in memory that was reserved.
    pub(in super::super) fn contains(bytes: &[u8]) -> bool {
        let range = bytes.as_ptr_range();
        let (start, end) = (range.start.addr(), range.end.addr());
        RESERVED.read().iter().any(|reserved| reserved.start <= start && end <= reserved.end)
    }
}
