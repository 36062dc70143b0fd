//! The limits of a link, and whom it may be with.

use crate::address::{AdapterChoice, Address, TlsFiles};
use std::time::Duration;

/// How a link is to be. The defaults serve; each side has its own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinkOptions {
    /// Bytes of the ring of a shared-memory link, each way; rounded up to a power of two. The acceptor's counts.
    pub ring_bytes: usize,
    /// The longest body that this side sends or receives, in bytes. A sender keeps to the peer's limit too.
    pub max_body_bytes: u64,
    /// Heads and bodies that a sender takes while the link is busy, in bytes; a message that would make them more is
    /// [`Full`](crate::link::TrySendError::Full). A sender that is not busy takes any message.
    pub max_queued_bytes: u64,
    /// How many bytes of bodies one call of a half moves before it says [`Empty`](crate::link::Incoming::Empty) or `false`
    /// though it could go on, so that a loop over many links is fair. Only for those who wait level-triggered (`poll`, plain
    /// `epoll`): the descriptors stay ready. The blocking and the tokio
    /// receiver need the default, no such limit.
    pub turn_bytes: u64,
    /// How long a peer may take to set up a link that it began, before the acceptor gives it up.
    pub setup_timeout: Duration,
    /// How many peers of an acceptor may be setting up at a time; the one that took longest makes way for the next.
    pub max_setups: usize,
    /// Which users of this host may be at the other end of a Unix socket.
    pub allow: Allow,
    /// Over TLS: the files of links whose address names none.
    pub tls: TlsFiles,
    /// Over RDMA: what links go through whose address does not say it.
    pub rdma_through: AdapterChoice,
    /// Over RDMA, to connect: in which of the acceptor's domains to be.
    pub rdma_domain: Vec<u8>,
    /// Over RDMA, to accept: the names of domains, of which each link is in one, and reaches what is registered for that alone.
    /// None: all are in the same, whatever they name.
    pub rdma_domains: Vec<Vec<u8>>,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            ring_bytes: 256 * 1024,
            max_body_bytes: 1 << 40,
            max_queued_bytes: 1024 * 1024,
            turn_bytes: u64::MAX,
            setup_timeout: Duration::from_secs(5),
            max_setups: 256,
            allow: Allow::SameUser,
            tls: TlsFiles::default(),
            rdma_through: AdapterChoice::default(),
            rdma_domain: Vec::new(),
            rdma_domains: Vec::new(),
        }
    }
}

impl LinkOptions {
    /// Takes over what the options of `address` say, for links of its kind whose own addresses have no options.
    pub fn adopt(&mut self, address: &Address) {
        match address {
            Address::Tls { files, .. } if files.is_some() => self.tls = files.clone(),
            Address::Rdma { through, .. } if through.is_some() => self.rdma_through = through.clone(),
            _ => {}
        }
    }

    /// Sets [`ring_bytes`](Self::ring_bytes).
    #[must_use]
    pub fn ring_bytes(mut self, bytes: usize) -> Self {
        self.ring_bytes = bytes;
        self
    }

    /// Sets [`max_body_bytes`](Self::max_body_bytes).
    #[must_use]
    pub fn max_body_bytes(mut self, bytes: u64) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// Sets [`max_queued_bytes`](Self::max_queued_bytes).
    #[must_use]
    pub fn max_queued_bytes(mut self, bytes: u64) -> Self {
        self.max_queued_bytes = bytes;
        self
    }

    /// Sets [`turn_bytes`](Self::turn_bytes).
    #[must_use]
    pub fn turn_bytes(mut self, bytes: u64) -> Self {
        self.turn_bytes = bytes;
        self
    }

    /// Sets [`rdma_domain`](Self::rdma_domain).
    #[must_use]
    pub fn rdma_domain(mut self, name: &[u8]) -> Self {
        self.rdma_domain = name.to_vec();
        self
    }

    /// Sets [`rdma_domains`](Self::rdma_domains).
    #[must_use]
    pub fn rdma_domains(mut self, names: Vec<Vec<u8>>) -> Self {
        self.rdma_domains = names;
        self
    }

    /// Sets [`allow`](Self::allow).
    #[must_use]
    pub fn allow(mut self, allow: Allow) -> Self {
        self.allow = allow;
        self
    }
}

/// Users of this host. The superuser is always allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Allow {
    /// The user that this process runs as.
    SameUser,
    /// These, and the user that this process runs as.
    Users(Vec<u32>),
    /// All.
    Anyone,
}

impl Allow {
    /// Whether `uid` is one of them.
    pub fn permits(&self, uid: u32) -> bool {
        let own = || uid == 0 || uid == rustix::process::geteuid().as_raw();
        match self {
            Self::SameUser => own(),
            Self::Users(users) => users.contains(&uid) || own(),
            Self::Anyone => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_address_says_is_for_others_too() {
        let mut options = LinkOptions::default();
        for (url, device) in [
            ("rdma://a:1?device=x", Some("x")),
            ("rdma://b:1", Some("x")),
            ("tcp://b:1", Some("x")),
            ("rdma://c:1?gid=2", None),
        ] {
            options.adopt(&url.parse().unwrap());
            assert_eq!(options.rdma_through.device.as_deref(), device, "{url}");
        }
    }

    #[test]
    fn only_those_who_may() {
        let own = rustix::process::geteuid().as_raw();
        let other = own + 1000;
        assert!(Allow::SameUser.permits(own) && Allow::SameUser.permits(0) && !Allow::SameUser.permits(other));
        assert!(Allow::Users(vec![other]).permits(other) && !Allow::Users(vec![other]).permits(other + 1));
        assert!(Allow::Anyone.permits(other));
    }
}
