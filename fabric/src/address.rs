//! Where a peer is, as a URL.
#![forbid(unsafe_code)]

use crate::link::LinkError;
use std::fmt;
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
    /// `inproc://name`: in this very process.
    InProcess(String),
}

impl Address {
    /// Whether links to it pass descriptors, that is, whether it is on this host for sure.
    pub fn is_local(&self) -> bool {
        !matches!(self, Self::Tcp { .. })
    }
}

impl FromStr for Address {
    type Err = LinkError;

    fn from_str(url: &str) -> Result<Self, LinkError> {
        let wrong = |why| LinkError::Address { address: url.to_owned(), why };
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| wrong("it has no scheme: unix://, tcp:// or inproc://"))?;
        match scheme {
            "unix" if rest.contains('\0') => Err(wrong("a path has no NUL")),
            "unix" if rest.starts_with('/') && rest.len() > 1 => Ok(Self::Unix(rest.into())),
            "unix" => Err(wrong("the path of a socket has to be absolute: unix:///path")),
            "tcp" => {
                let (host, port) = rest.rsplit_once(':').ok_or_else(|| wrong("it has no port: tcp://host:port"))?;
                let port = port.parse().map_err(|_| wrong("a port is a number from 0 to 65535"))?;
                let bare = match host.strip_prefix('[') {
                    Some(bare) => bare.strip_suffix(']').ok_or_else(|| wrong("a bracket is not closed"))?,
                    None if host.contains(':') => return Err(wrong("IPv6 goes in brackets: tcp://[::1]:port")),
                    None => host,
                };
                if bare.is_empty() || bare.contains(|c: char| c.is_whitespace() || "/[]@#?\0".contains(c)) {
                    return Err(wrong("it has no host: tcp://host:port"));
                }
                Ok(Self::Tcp { host: bare.to_owned(), port })
            }
            "inproc" if rest.is_empty() => Err(wrong("it has no name: inproc://name")),
            "inproc" => Ok(Self::InProcess(rest.to_owned())),
            _ => Err(wrong("its scheme is not unix, tcp or inproc")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
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
            "udp://a:1",
        ] {
            assert!(matches!(url.parse::<Address>(), Err(LinkError::Address { .. })), "{url}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(unix|tcp|inproc)?(://)?.*") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
            }
        }
    }
}
