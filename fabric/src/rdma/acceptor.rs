//! Accepts control channels, and makes links of them, all at once.
#![forbid(unsafe_code)]

use super::adapter::Adapter;
use super::channel::Channel;
use super::control::{prepare, say};
use super::hello::{Greeting, Hello, READY, Status};
use crate::address::{AdapterChoice, Address};
use crate::link::{Link, LinkError};
use crate::options::LinkOptions;
use crate::reception::{Heard, Host, Reception};
use dmrpc_rdma_sys::ProtectionDomain;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

pub(crate) struct Acceptor {
    reception: Reception<Guest>,
    house: House,
}

impl Acceptor {
    pub(crate) fn bind(
        host: &str,
        port: u16,
        through: &AdapterChoice,
        options: &LinkOptions,
    ) -> Result<Self, LinkError> {
        let reception = Reception::bind(host, port, options)?;
        let adapter = Adapter::near(reception.ip(), through, options)?;
        let domains = (0..options.rdma_domains.len().max(1)).map(|_| ProtectionDomain::new(&adapter.device));
        let domains = domains.collect::<Result<_, _>>()?;
        Ok(Self { reception, house: House { adapter, domains } })
    }

    pub(crate) fn try_accept(&mut self, options: &LinkOptions) -> Result<Option<Link>, LinkError> {
        self.reception.try_accept(&mut self.house, options)
    }

    pub(crate) fn address(&self) -> Address {
        let (host, port) = (self.reception.host().to_owned(), self.reception.port());
        Address::Rdma { host, port, through: AdapterChoice::default() }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reception.as_fd()
    }
}

/// What links are made with.
struct House {
    adapter: Arc<Adapter>,
    /// Of each domain of the options, in their order; or the one that all links are in.
    domains: Vec<ProtectionDomain>,
}

enum Guest {
    /// It has yet to say where its queue pairs are.
    Hello(TcpStream, Greeting),
    /// It has yet to connect its queue pairs with ours.
    Connecting { channel: Box<Channel>, domain: usize, theirs: Hello },
}

impl Host for House {
    type Guest = Guest;

    fn greet(&mut self, control: TcpStream, _: &LinkOptions) -> Result<Guest, LinkError> {
        prepare(&control)?;
        Ok(Guest::Hello(control, Greeting::default()))
    }

    fn socket<'a>(&self, guest: &'a Guest) -> &'a TcpStream {
        match guest {
            Guest::Hello(control, _) => control,
            Guest::Connecting { channel, .. } => channel.control(),
        }
    }

    fn hear(&self, guest: Guest, options: &LinkOptions) -> Result<Heard<Guest>, LinkError> {
        match guest {
            Guest::Hello(control, mut greeting) => match greeting.read(&control)? {
                Some(theirs) => self.answer(control, theirs, options),
                None => Ok(Heard::Waits(Guest::Hello(control, greeting))),
            },
            Guest::Connecting { ref channel, .. } => {
                Ok(if hear_ready(channel.control())? { Heard::Ready(guest) } else { Heard::Waits(guest) })
            }
        }
    }

    fn link(&self, guest: Guest, peer: SocketAddr, _: &LinkOptions) -> Result<Link, LinkError> {
        let Guest::Connecting { channel, domain, theirs } = guest else {
            unreachable!("only one that has connected is ready")
        };
        channel.into_link(peer, Some(domain), &theirs)
    }
}

impl House {
    /// Makes queue pairs for one who has said where its own are.
    fn answer(&self, control: TcpStream, theirs: Hello, options: &LinkOptions) -> Result<Heard<Guest>, LinkError> {
        // All are looked at wholly: how long it takes tells nothing.
        let is = |name: &Vec<u8>| {
            name.len() == theirs.domain.len()
                && name.iter().zip(&theirs.domain).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
        };
        let names = &options.rdma_domains;
        let known =
            names.iter().enumerate().fold(None, |found, (index, name)| if is(name) { Some(index) } else { found });
        let domain = known.unwrap_or(0);
        let channel = Box::new(Channel::new(&self.adapter, &self.domains[domain], control, options)?);
        if known.is_none() && !names.is_empty() {
            say(channel.control(), &Hello::of(&channel, Status::Refused, &[]).encode())?;
            return Ok(Heard::Refused);
        }
        channel.connect(&theirs)?;
        say(channel.control(), &Hello::of(&channel, Status::Accepted, &[]).encode())?;
        Ok(Heard::Waits(Guest::Connecting { channel, domain, theirs }))
    }
}

/// Whether a connector has said that it is ready.
fn hear_ready(control: &TcpStream) -> Result<bool, LinkError> {
    let mut byte = [0];
    loop {
        return match recv(control, &mut byte, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(LinkError::Closed),
            Ok(_) if byte[0] == READY => Ok(true),
            Ok(_) => Err(LinkError::Protocol("something else than that the peer is ready")),
            Err(Errno::AGAIN) => Ok(false),
            Err(Errno::INTR) => continue,
            Err(error) => Err(LinkError::socket("waiting for a peer to be ready", error)),
        };
    }
}
