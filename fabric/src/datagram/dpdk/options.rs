//! How this process uses DPDK.
#![forbid(unsafe_code)]

use crate::link::LinkError;
use parking_lot::Mutex;
#[cfg(any(test, feature = "dpdk"))]
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use std::net::Ipv4Addr;

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
#[cfg(feature = "dpdk")]
const MAX_QUEUES: u8 = 64;

/// Bytes of an IP packet that every Ethernet takes.
pub const DEFAULT_MTU: usize = 1500;

impl DpdkOptions {
    /// From the environment: `DMRPC_DPDK_EAL`, `DMRPC_DPDK_ADDRESS`, and if need be `DMRPC_DPDK_MTU` (1500), `DMRPC_DPDK_QUEUES` (1)
    /// and `DMRPC_DPDK_PORT`.
    ///
    /// The address may be a range, `10.1.0.2-10.1.0.9`, for several processes with one environment: then this process takes the first
    /// that no other of this host has taken, for as long as it lives. `%n` in EAL's arguments is the last number of the address.
    ///
    /// # Errors
    ///
    /// [`LinkError::Unsupported`] if something is missing or makes no sense.
    #[cfg(feature = "dpdk")]
    fn from_env() -> Result<Self, LinkError> {
        let number = |name| std::env::var(name).ok();
        let eal =
            number("DMRPC_DPDK_EAL").ok_or(LinkError::Unsupported("DPDK without EAL arguments: set DMRPC_DPDK_EAL"))?;
        let mtu = number("DMRPC_DPDK_MTU").map(|mtu| mtu.parse()).transpose();
        let mtu = mtu.map_err(|_| LinkError::Unsupported("a DMRPC_DPDK_MTU that is no number"))?;
        let udp_port = number("DMRPC_DPDK_PORT").map(|port| port.parse()).transpose();
        let udp_port = udp_port.map_err(|_| LinkError::Unsupported("a DMRPC_DPDK_PORT that is no port"))?;
        let queues = number("DMRPC_DPDK_QUEUES").map_or(Some(DEFAULT_QUEUES), |queues| queues.parse().ok());
        let queues = queues.filter(|queues| (1..=MAX_QUEUES).contains(queues));
        let queues = queues.ok_or(LinkError::Unsupported("a DMRPC_DPDK_QUEUES that is not a number from 1 to 64"))?;
        let address = match number("DMRPC_DPDK_ADDRESS").as_deref().and_then(parse_addresses) {
            Some((first, last)) if first == last => first,
            Some((first, last)) => take_address(first, last)?,
            None => {
                return Err(LinkError::Unsupported(
                    "DPDK without an IPv4 address of this host: set DMRPC_DPDK_ADDRESS",
                ));
            }
        };
        let eal = eal.replace("%n", &address.octets()[3].to_string());
        let eal = eal.split_whitespace().map(str::to_owned).collect();
        Ok(Self { eal, address, mtu: mtu.unwrap_or(DEFAULT_MTU), udp_port, queues })
    }
}

/// An address, or a range of them.
#[cfg(any(test, feature = "dpdk"))]
fn parse_addresses(text: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (Ipv4Addr, Ipv4Addr) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

/// Takes the first of these addresses that no process of this network namespace has taken, until this process ends.
#[cfg(any(test, feature = "dpdk"))]
fn take_address(first: Ipv4Addr, last: Ipv4Addr) -> Result<Ipv4Addr, LinkError> {
    let failed = |error: rustix::io::Errno| LinkError::io("taking an address", error);
    for bits in u32::from(first)..=u32::from(last) {
        let address = Ipv4Addr::from(bits);
        // A name that the kernel gives to one process at a time, and back when it ends, however it does.
        let name = SocketAddrUnix::new_abstract_name(format!("dmrpc-dpdk-{address}").as_bytes()).map_err(failed)?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).map_err(failed)?;
        match bind(&socket, &name) {
            Ok(()) => {
                std::mem::forget(socket);
                return Ok(address);
            }
            Err(rustix::io::Errno::ADDRINUSE) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(LinkError::Unsupported("more processes over DPDK than there are addresses in DMRPC_DPDK_ADDRESS"))
}

/// What this process was told, by whatever way.
static CONFIGURED: Mutex<Option<DpdkOptions>> = Mutex::new(None);

/// Says how this process uses DPDK, before its first link over it; otherwise the environment does, by `DMRPC_DPDK_EAL` and others
/// (`docs/operations.md`).
///
/// # Errors
///
/// [`LinkError::Unsupported`] if something else was said before.
pub fn configure(options: DpdkOptions) -> Result<(), LinkError> {
    let mut configured = CONFIGURED.lock();
    match &*configured {
        Some(before) if *before != options => Err(LinkError::Unsupported("DPDK configured twice in one process")),
        _ => {
            *configured = Some(options);
            Ok(())
        }
    }
}

/// What this process was told.
#[cfg(feature = "dpdk")]
pub(super) fn get() -> Result<DpdkOptions, LinkError> {
    let mut configured = CONFIGURED.lock();
    match &*configured {
        Some(options) => Ok(options.clone()),
        None => Ok(configured.insert(DpdkOptions::from_env()?).clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_has_an_address_of_its_own() {
        let host = std::process::id() as u8;
        let (first, last) = (Ipv4Addr::new(198, 18, host, 1), Ipv4Addr::new(198, 18, host, 2));
        assert_eq!(parse_addresses(&format!("{first}-{last}")), Some((first, last)));
        assert_eq!(parse_addresses("10.0.0.1"), Some((Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 1))));
        assert_eq!((parse_addresses("10.0.0.2-10.0.0.1"), parse_addresses("here")), (None, None));
        assert_eq!(take_address(first, last).expect("free"), first);
        assert_eq!(take_address(first, last).expect("free"), last);
        assert!(take_address(first, last).is_err(), "all are taken");
    }
}
