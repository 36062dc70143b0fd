//! How this process uses DPDK.
#![forbid(unsafe_code)]

use crate::link::LinkError;
use std::net::Ipv4Addr;
use std::sync::OnceLock;

/// How a process uses DPDK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpdkOptions {
    /// Arguments of EAL, as one would give them to any program of DPDK's.
    pub eal: Vec<String>,
    /// This host's address on the port's network.
    pub address: Ipv4Addr,
    /// The longest IP packet, in bytes. For net_memif `bsize` less 14 at most.
    pub mtu: usize,
    /// The UDP port that the process speaks at; `None` for the one that it listens or connects to first.
    pub udp_port: Option<u16>,
    /// Queues of the device that are used, each by a thread of its own; fewer if it has not as many.
    pub queues: u8,
}

/// Queues where nobody says how many.
pub const DEFAULT_QUEUES: u8 = 1;
/// More than a process has any use for.
const MAX_QUEUES: u8 = 64;

/// Bytes of an IP packet that every Ethernet takes.
pub const DEFAULT_MTU: usize = 1500;

impl DpdkOptions {
    /// From the environment: `DMRPC_DPDK_EAL`, `DMRPC_DPDK_ADDRESS`, and if need be `DMRPC_DPDK_MTU` (1500), `DMRPC_DPDK_QUEUES` (1)
    /// and `DMRPC_DPDK_PORT`.
    ///
    /// # Errors
    ///
    /// [`LinkError::Unsupported`] if something is missing or makes no sense.
    pub fn from_env() -> Result<Self, LinkError> {
        let eal = std::env::var("DMRPC_DPDK_EAL")
            .map_err(|_| LinkError::Unsupported("DPDK without EAL arguments: set DMRPC_DPDK_EAL"))?;
        let address = std::env::var("DMRPC_DPDK_ADDRESS")
            .ok()
            .and_then(|address| address.parse().ok())
            .ok_or(LinkError::Unsupported("DPDK without an IPv4 address of this host: set DMRPC_DPDK_ADDRESS"))?;
        let number = |name| std::env::var(name).ok();
        let mtu = number("DMRPC_DPDK_MTU").map(|mtu| mtu.parse()).transpose();
        let udp_port = number("DMRPC_DPDK_PORT").map(|port| port.parse()).transpose();
        let queues = number("DMRPC_DPDK_QUEUES").map(|queues| queues.parse()).transpose();
        let queues = queues.ok().map(|queues| queues.unwrap_or(DEFAULT_QUEUES));
        Ok(Self {
            queues: queues
                .filter(|queues| (1..=MAX_QUEUES).contains(queues))
                .ok_or(LinkError::Unsupported("a DMRPC_DPDK_QUEUES that is not a number from 1 to 64"))?,
            eal: eal.split_whitespace().map(str::to_owned).collect(),
            address,
            mtu: mtu.map_err(|_| LinkError::Unsupported("a DMRPC_DPDK_MTU that is no number"))?.unwrap_or(DEFAULT_MTU),
            udp_port: udp_port.map_err(|_| LinkError::Unsupported("a DMRPC_DPDK_PORT that is no port"))?,
        })
    }
}

/// What this process was told by [`configure`].
static CONFIGURED: OnceLock<DpdkOptions> = OnceLock::new();

/// Says how this process uses DPDK, before its first link over it; otherwise the environment does.
///
/// # Errors
///
/// [`LinkError::Unsupported`] if something else was said before.
pub fn configure(options: DpdkOptions) -> Result<(), LinkError> {
    match CONFIGURED.set(options) {
        Ok(()) => Ok(()),
        Err(options) if CONFIGURED.get() == Some(&options) => Ok(()),
        Err(_) => Err(LinkError::Unsupported("DPDK configured twice in one process")),
    }
}

/// What this process was told, by whatever way.
#[cfg(feature = "dpdk")]
pub(super) fn get() -> Result<DpdkOptions, LinkError> {
    CONFIGURED.get().cloned().map_or_else(DpdkOptions::from_env, Ok)
}
