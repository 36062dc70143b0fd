//! What is missing, or what went wrong.

use crate::device::Gid;
use std::io;

/// Why there is no RDMA, or why it does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RdmaError {
    /// The library is not there, or is not one.
    #[error("libibverbs.so.1 can't be loaded (Debian: apt install libibverbs1 ibverbs-providers): {why}")]
    Library {
        /// What the loader said.
        why: String,
    },
    /// The kernel does not offer verbs to user programs.
    #[error("the kernel offers no RDMA verbs: load the module ib_uverbs (modprobe ib_uverbs) and that of the device")]
    NoKernelModule,
    /// The kernel has no device.
    #[error(
        "this host has no RDMA device: load the module of the card (mlx5_ib, irdma, ...), or make a software device \
         (modprobe rdma_rxe; rdma link add rxe0 type rxe netdev eth0)"
    )]
    NoDevice,
    /// The kernel has devices that the library does not know.
    #[error(
        "the kernel has RDMA devices ({present}) but libibverbs has no provider for them (apt install ibverbs-providers)"
    )]
    NoProvider {
        /// Their names.
        present: String,
    },
    /// It may not be opened.
    #[error("the RDMA device {device} can't be opened, which needs access to /dev/infiniband/uverbs*: {source}")]
    Open {
        /// Its name.
        device: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no device of this name.
    #[error("there is no RDMA device {wanted} here, only: {present}")]
    NoSuchDevice {
        /// What was asked for.
        wanted: String,
        /// What there is.
        present: String,
    },
    /// All ports are down.
    #[error("no port of the RDMA devices here ({present}) is active: is the network interface up?")]
    NoPort {
        /// What there is.
        present: String,
    },
    /// No GID that can be used.
    #[error(
        "no active port of {present} has {}: give its network interface an address",
        match wanted { Some(gid) => format!("the GID {gid}"), None => "a RoCEv2 GID".to_owned() }
    )]
    NoGid {
        /// The GID that was looked for, if it was a certain one.
        wanted: Option<Gid>,
        /// What there is.
        present: String,
    },
    /// No GID that can be used at this place of the table.
    #[error("no active port has a GID to use at {wanted} of its table, only: {present}")]
    NoSuchGid {
        /// The number of the entry that was asked for.
        wanted: u8,
        /// The entries that there are, with their ports.
        present: String,
    },
    /// Memory may not be locked.
    #[error(
        "{bytes} bytes can't be registered: this process may lock {limit} bytes (`ulimit -l`; raise memlock in \
         /etc/security/limits.conf, or LimitMEMLOCK= of the service)"
    )]
    Memlock {
        /// How much was to be registered.
        bytes: usize,
        /// What the process may lock.
        limit: u64,
    },
    /// A verb failed.
    #[error("{doing}: {source}")]
    Verb {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl RdmaError {
    /// The last error of the system, while `doing`.
    pub(crate) fn last(doing: &'static str) -> Self {
        Self::Verb { doing, source: io::Error::last_os_error() }
    }

    /// What a verb returned, while `doing`: 0, or an error number. Some drivers return -1 and set errno.
    pub(crate) fn check(doing: &'static str, returned: i32) -> Result<(), Self> {
        match returned {
            0 => Ok(()),
            -1 => Err(Self::last(doing)),
            error => Err(Self::Verb { doing, source: io::Error::from_raw_os_error(error.abs()) }),
        }
    }
}
