//! Where a peer is, as a URL.
#![forbid(unsafe_code)]

use crate::link::LinkError;
use std::fmt;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::str::FromStr;

/// Where to listen or connect.
///
/// ```
/// use dmrpc_fabric::address::Address;
///
/// let address: Address = "unix:///run/dmrpc/node.sock".parse()?;
/// assert_eq!(address, Address::Unix("/run/dmrpc/node.sock".into()));
/// assert_eq!(address.to_string(), "unix:///run/dmrpc/node.sock");
/// assert!("tcp://[::1]:7070".parse::<Address>().is_ok());
/// assert!("http://example.org".parse::<Address>().is_err());
/// # Ok::<(), dmrpc_fabric::link::LinkError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// `unix:///path`: a Unix socket on this host, over which a shared-memory link is set up.
    Unix(PathBuf),
    /// `tcp://host:port`: a host by name or number, IPv6 in brackets. To listen at port 0 means at any free one.
    Tcp {
        /// Name or number, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// `udp://host:port`: our own protocol over UDP. To listen at port 0 means at any free one.
    Udp {
        /// Name or number, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// `dpdk://1.2.3.4:port`: the same over a port of DPDK's, past the kernel; see `docs/operations.md`.
    Dpdk(SocketAddrV4),
    /// `rdma://host:port`: over an RDMA device; the host and port are those of a control channel over TCP. To listen at port 0
    /// means at any free one.
    Rdma {
        /// Name or number, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// `inproc://name`: in this very process.
    InProcess(String),
}

impl Address {
    /// Whether links to it pass descriptors, that is, whether it is on this host for sure.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_) | Self::InProcess(_))
    }
}

impl FromStr for Address {
    type Err = LinkError;

    fn from_str(url: &str) -> Result<Self, LinkError> {
        let wrong = |why| LinkError::Address { address: url.to_owned(), why };
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| wrong("it has no scheme: unix://, tcp://, udp://, dpdk://, rdma:// or inproc://"))?;
        match scheme {
            "unix" if rest.contains('\0') => Err(wrong("a path has no NUL")),
            "unix" if rest.starts_with('/') && rest.len() > 1 => Ok(Self::Unix(rest.into())),
            "unix" => Err(wrong("the path of a socket has to be absolute: unix:///path")),
            "tcp" => host_and_port(rest).map(|(host, port)| Self::Tcp { host, port }).map_err(wrong),
            "udp" => host_and_port(rest).map(|(host, port)| Self::Udp { host, port }).map_err(wrong),
            "dpdk" => {
                rest.parse().map(Self::Dpdk).map_err(|_| wrong("it has no IPv4 address and port: dpdk://1.2.3.4:port"))
            }
            "rdma" => host_and_port(rest).map(|(host, port)| Self::Rdma { host, port }).map_err(wrong),
            "inproc" if rest.is_empty() => Err(wrong("it has no name: inproc://name")),
            "inproc" => Ok(Self::InProcess(rest.to_owned())),
            _ => Err(wrong("its scheme is not unix, tcp, udp, dpdk, rdma or inproc")),
        }
    }
}

/// A host, without brackets, and a port; or what is wrong.
fn host_and_port(text: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("it has no port: host:port")?;
    let port = port.parse().map_err(|_| "a port is a number from 0 to 65535")?;
    let bare = match host.strip_prefix('[') {
        Some(bare) => bare.strip_suffix(']').ok_or("a bracket is not closed")?,
        None if host.contains(':') => return Err("IPv6 goes in brackets: [::1]:port"),
        None => host,
    };
    if bare.is_empty() || bare.contains(|c: char| c.is_whitespace() || "/[]@#?\0".contains(c)) {
        return Err("it has no host: host:port");
    }
    Ok((bare.to_owned(), port))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Udp { host, port } if host.contains(':') => write!(f, "udp://[{host}]:{port}"),
            Self::Udp { host, port } => write!(f, "udp://{host}:{port}"),
            Self::Rdma { host, port } if host.contains(':') => write!(f, "rdma://[{host}]:{port}"),
            Self::Rdma { host, port } => write!(f, "rdma://{host}:{port}"),
            Self::Dpdk(address) => write!(f, "dpdk://{address}"),
            Self::InProcess(name) => write!(f, "inproc://{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_people_write_it() {
        for url in [
            "unix:///a",
            "unix:///run/x y.sock",
            "tcp://localhost:1",
            "tcp://10.0.0.1:65535",
            "tcp://[fe80::1]:0",
            "udp://localhost:1",
            "udp://[::1]:7",
            "dpdk://10.0.0.1:7000",
            "rdma://node-7:7471",
            "rdma://[fd00::1]:0",
            "inproc://a/b",
        ] {
            assert_eq!(url.parse::<Address>().unwrap().to_string(), url);
        }
        for url in [
            "",
            "unix",
            "unix://",
            "unix:///",
            "unix://relative",
            "tcp://",
            "tcp://host",
            "tcp://:1",
            "tcp://host:",
            "tcp://host:65536",
            "tcp://::1:80",
            "tcp://[::1:80",
            "tcp://[]:80",
            "tcp://a/b:80",
            "inproc://",
            "udp://a",
            "dpdk://host:1",
            "http://a:1",
        ] {
            assert!(matches!(url.parse::<Address>(), Err(LinkError::Address { .. })), "{url}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(unix|tcp|udp|dpdk|rdma|inproc)?(://)?.*") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
            }
        }
    }
}
