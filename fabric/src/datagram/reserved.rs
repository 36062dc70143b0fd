//! Memory of DPDK's own, for pages that drivers send from where they are.
//!
//! 1. What was reserved stays where it is as long as the process lives: no driver looks at memory that is gone.

use super::dpdk;
use crate::link::LinkError;
use dmrpc_dpdk_sys as sys;
use parking_lot::RwLock;
use std::ffi::CString;
use std::ops::Range;
use std::ptr::NonNull;

/// All that was reserved.
static RESERVED: RwLock<Vec<Range<usize>>> = RwLock::new(Vec::new());

/// A piece of DPDK's memory, for ever this process's own.
#[derive(Debug)]
pub struct Reserved {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it is an address and a length; whoever makes references of it answers for them.
unsafe impl Send for Reserved {}
// SAFETY: as above.
unsafe impl Sync for Reserved {}

impl Reserved {
    /// Reserves `bytes` of zeros, aligned to 2 MiB, near a NUMA node if one is given. Starts EAL if it does not run, as
    /// [`configure`](dpdk::configure) or the environment says.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] with what DPDK says is wrong: mostly that it was given less memory (`-m`, huge pages).
    pub fn new(name: &str, bytes: usize, numa_node: Option<u32>) -> Result<Self, LinkError> {
        dpdk::start()?;
        let name = CString::new(name).map_err(|_| LinkError::Unsupported("a name with a NUL"))?;
        let node = numa_node.and_then(|node| i32::try_from(node).ok()).unwrap_or(-1);
        let mut reserved = 0;
        // SAFETY: EAL runs, and the pointers hold through the call.
        let start =
            unsafe { sys::dmrpc_memory_reserve(name.as_ptr(), bytes as u64, node, &raw mut reserved) }.cast::<u8>();
        let start = NonNull::new(start).ok_or_else(|| dpdk::shim_error("reserving memory of DPDK's"))?;
        // SAFETY: it was just reserved, so long, for nobody else.
        unsafe { start.as_ptr().write_bytes(0, bytes) };
        let from = start.as_ptr().addr();
        RESERVED.write().push(from..from + bytes);
        Ok(Self { start, len: bytes })
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
}

/// Whether all bytes lie in memory that was reserved.
pub(super) fn contains(bytes: &[u8]) -> bool {
    let range = bytes.as_ptr_range();
    let (start, end) = (range.start.addr(), range.end.addr());
    RESERVED.read().iter().any(|reserved| reserved.start <= start && end <= reserved.end)
}
