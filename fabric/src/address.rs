//! Where a peer is, as a URL.
#![forbid(unsafe_code)]

use crate::link::LinkError;
pub use crate::tls::TlsFiles;
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
    /// `tls://host:port`: the same within TLS. `?cert=FILE&key=FILE` says who this side is, `ca=FILE` whom it trusts; see
    /// `docs/tls.md`.
    Tls {
        /// Name or number, without brackets; the listener's certificate is for it.
        host: String,
        /// Port.
        port: u16,
        /// The files of this side.
        files: TlsFiles,
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
    /// means at any free one. `?device=rxe0&gid=1` says which of this host's devices and GIDs it goes through.
    Rdma {
        /// Name or number, without brackets.
        host: String,
        /// Port.
        port: u16,
        /// What it goes through on this side.
        through: AdapterChoice,
    },
    /// `inproc://name`: in this very process.
    InProcess(String),
}

/// Which RDMA device and which entry of its port's table of GIDs links go through; what is not said is chosen by the address that
/// they come to or go from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AdapterChoice {
    /// The device of this name, as `rdma link` shows it.
    pub device: Option<String>,
    /// The entry of this number.
    pub gid_index: Option<u8>,
}

impl AdapterChoice {
    /// Whether it chooses anything.
    pub(crate) fn is_some(&self) -> bool {
        *self != Self::default()
    }

    /// From the options of an address; or what is wrong with them.
    fn parse(options: &str) -> Result<Self, &'static str> {
        let mut choice = Self::default();
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("device", name)) if is_device_name(name) => choice.device = Some(name.to_owned()),
                Some(("device", _)) => return Err("device is the name of an RDMA device, as `rdma link` shows it"),
                Some(("gid", index)) => {
                    let index = index.parse().map_err(|_| "gid is the number of an entry in a port's table of GIDs")?;
                    choice.gid_index = Some(index);
                }
                _ => return Err("an rdma:// address has the options device=NAME and gid=NUMBER"),
            }
        }
        Ok(choice)
    }
}

impl fmt::Display for AdapterChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device.as_ref().map(|name| format!("device={name}"));
        let gid = self.gid_index.map(|index| format!("gid={index}"));
        let options: Vec<_> = device.into_iter().chain(gid).collect();
        if options.is_empty() { Ok(()) } else { write!(f, "?{}", options.join("&")) }
    }
}

fn is_device_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte))
}

impl Address {
    /// The address as others may know it: without the options, which are of this side alone.
    ///
    /// ```
    /// use dmrpc_fabric::address::Address;
    ///
    /// let address: Address = "rdma://node:7471?device=rxe0".parse()?;
    /// assert_eq!(address.without_options().to_string(), "rdma://node:7471");
    /// # Ok::<(), dmrpc_fabric::link::LinkError>(())
    /// ```
    #[must_use]
    pub fn without_options(mut self) -> Self {
        match &mut self {
            Self::Tls { files, .. } => *files = TlsFiles::default(),
            Self::Rdma { through, .. } => *through = AdapterChoice::default(),
            _ => {}
        }
        self
    }

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
            .ok_or_else(|| wrong("it has no scheme: unix://, tcp://, tls://, udp://, dpdk://, rdma:// or inproc://"))?;
        match scheme {
            "unix" if rest.contains('\0') => Err(wrong("a path has no NUL")),
            "unix" if rest.starts_with('/') && rest.len() > 1 => Ok(Self::Unix(rest.into())),
            "unix" => Err(wrong("the path of a socket has to be absolute: unix:///path")),
            "tcp" => host_and_port(rest).map(|(host, port)| Self::Tcp { host, port }).map_err(wrong),
            "tls" => {
                let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
                let (host, port) = host_and_port(place).map_err(wrong)?;
                let files = TlsFiles::parse(options).map_err(wrong)?;
                Ok(Self::Tls { host, port, files })
            }
            "udp" => host_and_port(rest).map(|(host, port)| Self::Udp { host, port }).map_err(wrong),
            "dpdk" => {
                rest.parse().map(Self::Dpdk).map_err(|_| wrong("it has no IPv4 address and port: dpdk://1.2.3.4:port"))
            }
            "rdma" => {
                let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
                let (host, port) = host_and_port(place).map_err(wrong)?;
                let through = AdapterChoice::parse(options).map_err(wrong)?;
                Ok(Self::Rdma { host, port, through })
            }
            "inproc" if rest.is_empty() => Err(wrong("it has no name: inproc://name")),
            "inproc" => Ok(Self::InProcess(rest.to_owned())),
            _ => Err(wrong("its scheme is not unix, tcp, tls, udp, dpdk, rdma or inproc")),
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
            Self::Tls { host, port, files } if host.contains(':') => write!(f, "tls://[{host}]:{port}{files}"),
            Self::Tls { host, port, files } => write!(f, "tls://{host}:{port}{files}"),
            Self::Udp { host, port } if host.contains(':') => write!(f, "udp://[{host}]:{port}"),
            Self::Udp { host, port } => write!(f, "udp://{host}:{port}"),
            Self::Rdma { host, port, through } if host.contains(':') => write!(f, "rdma://[{host}]:{port}{through}"),
            Self::Rdma { host, port, through } => write!(f, "rdma://{host}:{port}{through}"),
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
            "tls://node:7070",
            "tls://[::1]:0?ca=/etc/ca.pem&cert=/etc/a b.pem&key=relative.key",
            "udp://localhost:1",
            "udp://[::1]:7",
            "dpdk://10.0.0.1:7000",
            "rdma://node-7:7471",
            "rdma://[fd00::1]:0",
            "rdma://0.0.0.0:7471?device=mlx5_0&gid=3",
            "rdma://[::]:0?gid=255",
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
            "tcp://a:1?gid=1",
            "tls://a",
            "tls://a:1?ca",
            "tls://a:1?ca=",
            "tls://a:1?cert=/c",
            "tls://a:1?key=/k&ca=/c",
            "tls://a:1?token=x",
            "rdma://a:1?gid",
            "rdma://a:1?gid=",
            "rdma://a:1?gid=256",
            "rdma://a:1?gid=-1",
            "rdma://a:1?device=",
            "rdma://a:1?device=../x",
            "rdma://a:1?port=1",
            "rdma://a?gid=1",
            "dpdk://host:1",
            "http://a:1",
        ] {
            assert!(matches!(url.parse::<Address>(), Err(LinkError::Address { .. })), "{url}");
        }
    }

    #[test]
    fn options_are_of_one_side_and_what_is_wrong_with_them_is_said() {
        let address: Address = "rdma://a:1?gid=1&device=rxe0".parse().unwrap();
        assert_eq!(address.to_string(), "rdma://a:1?device=rxe0&gid=1");
        assert_eq!(address.without_options().to_string(), "rdma://a:1");
        for (url, names) in [
            ("rdma://a:1?gid=x", "table of GIDs"),
            ("rdma://a:1?device=a/b", "rdma link"),
            ("rdma://a:1?mtu=1", "device=NAME and gid=NUMBER"),
            ("tls://a:1?verify=no", "ca=FILE, cert=FILE and key=FILE"),
        ] {
            let error = url.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(names), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(unix|tcp|tls|udp|dpdk|rdma|inproc)?(://)?(.*|a:1\\?((gid|device|ca|cert|key)?=?[0-9a-z/]{0,4}&?){0,3})") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
            }
        }
    }
}
