//! The fabrics that there are here, and how two processes come to be at its ends.

use anyhow::{Context, Result, bail, ensure};
use dmrpc_rdma_sys::{Device, Selection};
use dmrpc_test_authority::Authority;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;

/// A fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fabric {
    /// Rings in shared memory.
    Shm,
    /// Sockets of the loopback device.
    Tcp,
    Udp,
    /// DPDK, by its driver: shared memory between two processes.
    Memif,
    /// The same, where the client's buffers are what the node writes to.
    MemifZeroCopy,
    /// The same by vhost and virtio-user, which share huge pages.
    Vhost,
    /// DPDK over the kernel's packet sockets, in two network namespaces.
    AfPacket,
    AfXdp,
    /// TCP within TLS, where both ends show certificates.
    Tls,
    /// The first RDMA device of this host.
    Rdma,
}

const NAMES: [(&str, Fabric); 10] = [
    ("shm", Fabric::Shm),
    ("tcp", Fabric::Tcp),
    ("tls", Fabric::Tls),
    ("udp", Fabric::Udp),
    ("memif", Fabric::Memif),
    ("memif-zero-copy", Fabric::MemifZeroCopy),
    ("vhost", Fabric::Vhost),
    ("af_packet", Fabric::AfPacket),
    ("af_xdp", Fabric::AfXdp),
    ("rdma", Fabric::Rdma),
];

/// The two namespaces, and the device in each.
const NAMESPACES: [(&str, &str); 2] = [("dmmicro0", "dmm0"), ("dmmicro1", "dmm1")];
/// Addresses of the two ends on the network of a DPDK port.
const ADDRESSES: [&str; 2] = ["10.9.0.1", "10.9.0.2"];

impl FromStr for Fabric {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(other, _)| *other == name);
        found.map(|(_, fabric)| *fabric).ok_or_else(|| {
            let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("one of {}", names.join(", "))
        })
    }
}

impl fmt::Display for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) = NAMES.iter().find(|(_, fabric)| fabric == self).expect("all have names");
        f.write_str(name)
    }
}

impl Fabric {
    /// All of them, in the order of the table.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(_, fabric)| *fabric)
    }

    pub(crate) fn is_dpdk(self) -> bool {
        !matches!(self, Self::Shm | Self::Tcp | Self::Tls | Self::Udp | Self::Rdma)
    }

    /// Why it can't be had here, if so.
    pub(crate) fn missing(self) -> Option<String> {
        if self == Self::Rdma {
            return rdma_address().err().map(|error| error.to_string());
        }
        if !self.is_dpdk() {
            return None;
        }
        if !cfg!(feature = "dpdk") {
            return Some("built without the feature dpdk".to_owned());
        }
        if self == Self::Vhost && !has_huge_pages() {
            return Some("it shares huge pages, and fewer than 1024 are free (sysctl vm.nr_hugepages)".to_owned());
        }
        if matches!(self, Self::AfPacket | Self::AfXdp) {
            if !rustix::process::geteuid().is_root() {
                return Some("network namespaces need root".to_owned());
            }
            if !Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
                return Some("there is no `ip` (iproute2)".to_owned());
            }
        }
        None
    }

    /// What each end adds to the address; `folder` is for files.
    pub(crate) fn options(self, folder: &Path) -> String {
        if self != Self::Tls {
            return String::new();
        }
        let authority = Authority::at(folder);
        format!("?{}&{}", authority.options(), authority.issue("host", &["127.0.0.1"]).options())
    }

    /// Where its server listens; `folder` is for files.
    pub(crate) fn address(self, folder: &Path) -> String {
        match self {
            Self::Shm => format!("unix://{}/socket", folder.display()),
            Self::Tcp => "tcp://127.0.0.1:0".to_owned(),
            Self::Tls => "tls://127.0.0.1:0".to_owned(),
            Self::Udp => "udp://127.0.0.1:0".to_owned(),
            Self::Rdma => rdma_address().map_or_else(|why| why.to_string(), |address| format!("rdma://{address}:0")),
            _ => format!("dpdk://{}:7000", ADDRESSES[0]),
        }
    }

    /// The longest IP packet.
    fn mtu(self) -> u32 {
        match self {
            // XDP takes no frame that does not fit a page with what the kernel puts around it.
            Self::AfXdp => 3_000,
            _ => 9000,
        }
    }

    /// The network that it needs.
    pub(crate) fn network(self) -> Result<Option<Network>> {
        matches!(self, Self::AfPacket | Self::AfXdp).then(|| Network::make(self.mtu())).transpose()
    }

    /// This program again, as one end of the fabric: 0 listens, 1 connects.
    pub(crate) fn command(self, end: usize, folder: &Path) -> Result<Command> {
        let program = std::env::current_exe()?;
        let mut command = if matches!(self, Self::AfPacket | Self::AfXdp) {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", NAMESPACES[end].0]).arg(program);
            command
        } else {
            Command::new(program)
        };
        if self.is_dpdk() {
            command
                .env("DMRPC_DPDK_EAL", self.eal(end, folder))
                .env("DMRPC_DPDK_ADDRESS", ADDRESSES[end])
                .env("DMRPC_DPDK_MTU", self.mtu().to_string())
                .env("RUNTIME_DIRECTORY", folder);
        }
        Ok(command)
    }

    fn eal(self, end: usize, folder: &Path) -> String {
        // A node's end may find the pages taken that the other end has.
        let huge = self == Self::Vhost || has_huge_pages();
        let memory = if huge {
            "-m 1024 --single-file-segments --in-memory"
        } else {
            "--no-huge -m 1024 --single-file-segments"
        };
        let device = match self {
            Self::Memif | Self::MemifZeroCopy => {
                let role = if end == 0 { "server" } else { "client" };
                // The client's memory is what both look at.
                let zero = self == Self::MemifZeroCopy;
                let copies = if zero && end == 1 { ",zero-copy=yes" } else { "" };
                let socket = folder.join("memif");
                let socket = socket.display();
                format!(
                    "--vdev=net_memif0,role={role},id=0,socket={socket},socket-abstract=no,bsize=9216,rsize=8,\
                     mac=02:00:00:00:00:0{end}{copies}"
                )
            }
            Self::Vhost => {
                let socket = folder.join("vhost");
                let socket = socket.display();
                match end {
                    0 => format!("--vdev=net_vhost0,iface={socket},queues=1"),
                    _ => format!(
                        "--vdev=net_virtio_user0,path={socket},queues=1,queue_size=1024,packed_vq=1,mrg_rxbuf=1,in_order=1,\
                         mac=02:00:00:00:00:0b"
                    ),
                }
            }
            Self::AfPacket => format!(
                "--vdev=net_af_packet0,iface={},framesz=9216,blocksz=36864,framecnt=512,qdisc_bypass=1",
                NAMESPACES[end].1
            ),
            _ => format!("--vdev=net_af_xdp0,iface={},start_queue=0,queue_count=1", NAMESPACES[end].1),
        };
        format!(
            "-l {} --no-pci {memory} --iova-mode=va --no-telemetry --log-level=4 --log-level=pmd.net.memif:2 --file-prefix=dmmicro{end} {device}",
            crate::core(end)
        )
    }
}

/// The address of the device that RDMA goes over.
pub(crate) fn rdma_address() -> Result<IpAddr> {
    let (_, port) = Device::open(&Selection::default())?;
    let address = IpAddr::from(port.gid.0).to_canonical();
    ensure!(address.is_ipv4(), "the RDMA device has no IPv4 address");
    Ok(address)
}

/// Whether both ends can have their memory in huge pages.
fn has_huge_pages() -> bool {
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    free.ok().and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or(0) >= 1024
}

/// Two namespaces with a cable between them, as long as the value lives.
pub(crate) struct Network;

impl Network {
    fn make(mtu: u32) -> Result<Self> {
        let [(left, a), (right, b)] = NAMESPACES;
        // What a run that was killed left behind.
        drop(Self);
        let network = Self;
        ip(&["netns", "add", left])?;
        ip(&["netns", "add", right])?;
        ip(&["link", "add", a, "netns", left, "type", "veth", "peer", "name", b, "netns", right])?;
        for (namespace, device) in NAMESPACES {
            // Neighbour discovery of IPv6 would come between.
            let quiet = format!("net.ipv6.conf.{device}.disable_ipv6=1");
            let _ = ip(&["netns", "exec", namespace, "sysctl", "-qw", &quiet]);
            ip(&["-n", namespace, "link", "set", device, "mtu", &mtu.to_string(), "up"])?;
        }
        Ok(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for (namespace, _) in NAMESPACES {
            let _ = Command::new("ip").args(["netns", "del", namespace]).stderr(Stdio::null()).status();
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("running ip")?;
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// An address as it is written, or an error that says what is wrong.
pub(crate) fn parse(address: &str) -> Result<dmrpc_fabric::address::Address> {
    match address.parse() {
        Ok(address) => Ok(address),
        Err(error) => bail!("{error}"),
    }
}
