//! Memory that a device may reach.

use crate::raw::*;
use crate::{Device, RdmaError};
use std::any::Any;
use std::sync::Arc;

/// Whose memory a queue pair reaches: regions and queue pairs of one domain only know each other. Clones are the same.
#[derive(Clone)]
pub struct ProtectionDomain {
    inner: Arc<Inner>,
}

struct Inner {
    device: Device,
    domain: *mut ibv_pd,
}

// SAFETY: the functions of the library may be called from any thread.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: made by us, and all that was made of it is gone (invariant 1 of the crate).
        let _ = unsafe { (self.device.library().ibv_dealloc_pd)(self.domain) };
    }
}

impl ProtectionDomain {
    /// A new domain.
    ///
    /// # Errors
    ///
    /// [`RdmaError::Verb`].
    pub fn new(device: &Device) -> Result<Self, RdmaError> {
        // SAFETY: an open device.
        let domain = unsafe { (device.library().ibv_alloc_pd)(device.context()) };
        if domain.is_null() {
            return Err(RdmaError::last("making a protection domain"));
        }
        Ok(Self { inner: Arc::new(Inner { device: device.clone(), domain }) })
    }

    /// Its device.
    pub fn device(&self) -> &Device {
        &self.inner.device
    }

    pub(crate) fn raw(&self) -> *mut ibv_pd {
        self.inner.domain
    }
}

/// What may be done to a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// This side's queue pairs send from it and receive into it.
    Local,
    /// Peers read it.
    RemoteRead,
    /// Peers write it.
    RemoteWrite,
}

impl Access {
    fn flags(self) -> i32 {
        match self {
            Self::Local => IBV_ACCESS_LOCAL_WRITE,
            Self::RemoteRead => IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ,
            Self::RemoteWrite => IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE,
        }
    }
}

/// Memory that is registered: its pages stay where they are, and the device reaches them. Deregistered on drop; whoever still
/// has its key is refused from then on.
pub struct MemoryRegion {
    region: *mut ibv_mr,
    domain: ProtectionDomain,
    /// Keeps the memory.
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: as for domains.
unsafe impl Send for MemoryRegion {}
// SAFETY: as above.
unsafe impl Sync for MemoryRegion {}

impl MemoryRegion {
    /// Registers `len` bytes from `start` on.
    ///
    /// # Errors
    ///
    /// [`RdmaError::Memlock`] if the process may not lock so much, else [`RdmaError::Verb`].
    ///
    /// # Safety
    ///
    /// The bytes are mapped, writable, and initialized, as long as `owner` lives; and whoever has references to them is
    /// prepared for what the device writes there, as `access` says.
    pub unsafe fn new(
        domain: &ProtectionDomain,
        start: *mut u8,
        len: usize,
        access: Access,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self, RdmaError> {
        let library = domain.device().library();
        // SAFETY: as the caller says.
        let region = unsafe { (library.ibv_reg_mr)(domain.raw(), start.cast(), len, access.flags()) };
        if region.is_null() {
            let source = std::io::Error::last_os_error();
            let limit = memlock_limit();
            return Err(match source.raw_os_error() {
                Some(libc::ENOMEM | libc::EAGAIN | libc::EPERM) if limit < len as u64 => {
                    RdmaError::Memlock { bytes: len, limit }
                }
                _ => RdmaError::Verb { doing: "registering memory", source },
            });
        }
        Ok(Self { region, domain: domain.clone(), _owner: owner })
    }

    /// What this side's work requests call it.
    pub fn local_key(&self) -> u32 {
        // SAFETY: it is registered.
        unsafe { (*self.region).lkey }
    }

    /// What peers call it.
    pub fn remote_key(&self) -> u32 {
        // SAFETY: it is registered.
        unsafe { (*self.region).rkey }
    }

    /// Its first byte.
    pub fn start(&self) -> *mut u8 {
        // SAFETY: it is registered.
        unsafe { (*self.region).addr.cast() }
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        // SAFETY: it is registered.
        unsafe { (*self.region).length }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for MemoryRegion {
    fn drop(&mut self) {
        // SAFETY: registered by us. A window that is still bound to it keeps it: those know their region and go first.
        let _ = unsafe { (self.domain.device().library().ibv_dereg_mr)(self.region) };
    }
}

/// How many bytes this process may lock.
fn memlock_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for the answer.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } == 0 { limit.rlim_cur } else { u64::MAX }
}
