//! Accepts connections and waits for their hellos, all at once.
#![forbid(unsafe_code)]

use super::{Greeting, assemble, greet};
use crate::address::Address;
use crate::link::{Link, LinkError};
use crate::options::LinkOptions;
use crate::reception::{Heard, Host, Reception};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

pub(crate) struct Acceptor {
    reception: Reception<Guest>,
}

/// One who has not said all of its hello, or has.
struct Guest {
    socket: TcpStream,
    greeting: Greeting,
    /// Of the peer, when all of its hello came.
    body_limit: u64,
}

impl Acceptor {
    pub(crate) fn bind(host: &str, port: u16, options: &LinkOptions) -> Result<Self, LinkError> {
        Ok(Self { reception: Reception::bind(host, port, options)? })
    }

    pub(crate) fn try_accept(&mut self, options: &LinkOptions) -> Result<Option<Link>, LinkError> {
        self.reception.try_accept(&Hellos, options)
    }

    pub(crate) fn address(&self) -> Address {
        Address::Tcp { host: self.reception.host().to_owned(), port: self.reception.port() }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reception.as_fd()
    }
}

/// Each says hello.
struct Hellos;

impl Host for Hellos {
    type Guest = Guest;

    fn greet(&self, socket: TcpStream, options: &LinkOptions) -> Result<Guest, LinkError> {
        greet(&socket, options)?;
        Ok(Guest { socket, greeting: Greeting::default(), body_limit: 0 })
    }

    fn socket<'a>(&self, guest: &'a Guest) -> &'a TcpStream {
        &guest.socket
    }

    fn hear(&self, mut guest: Guest, _: &LinkOptions) -> Result<Heard<Guest>, LinkError> {
        Ok(match guest.greeting.read(&guest.socket)? {
            Some(body_limit) => Heard::Ready(Guest { body_limit, ..guest }),
            None => Heard::Waits(guest),
        })
    }

    fn link(&self, guest: Guest, peer: SocketAddr, options: &LinkOptions) -> Result<Link, LinkError> {
        assemble(guest.socket, peer, guest.body_limit, options)
    }
}
