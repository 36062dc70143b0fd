//! Accepts connections and waits for their hellos, all at once.
#![forbid(unsafe_code)]

use super::assemble;
use super::greeting::{Greeting, Side};
use super::stream::Stream;
use crate::address::Address;
use crate::link::{Link, LinkError};
use crate::options::LinkOptions;
use crate::reception::{Heard, Host, Reception};
use crate::tls::{Listening, TlsFiles};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

pub(crate) struct Acceptor {
    reception: Reception<Guest>,
    house: House,
}

/// One with whom hellos are exchanged.
struct Guest {
    greeting: Greeting,
    /// Of the peer, when all of its hello came.
    body_limit: u64,
}

impl Acceptor {
    pub(crate) fn bind(host: &str, port: u16, options: &LinkOptions) -> Result<Self, LinkError> {
        Ok(Self { reception: Reception::bind(host, port, options)?, house: House { tls: None } })
    }

    pub(crate) fn bind_tls(host: &str, port: u16, files: &TlsFiles, options: &LinkOptions) -> Result<Self, LinkError> {
        let house = House { tls: Some(Listening::new(files.or(options))?) };
        Ok(Self { reception: Reception::bind(host, port, options)?, house })
    }

    pub(crate) fn try_accept(&mut self, options: &LinkOptions) -> Result<Option<Link>, LinkError> {
        self.reception.try_accept(&mut self.house, options)
    }

    pub(crate) fn address(&self) -> Address {
        let (host, port) = (self.reception.host().to_owned(), self.reception.port());
        match self.house.tls {
            Some(_) => Address::Tls { host, port, files: TlsFiles::default() },
            None => Address::Tcp { host, port },
        }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reception.as_fd()
    }
}

/// Who says hello to those who come, within TLS if there is some.
struct House {
    tls: Option<Listening>,
}

impl Host for House {
    type Guest = Guest;

    fn greet(&mut self, socket: TcpStream, options: &LinkOptions) -> Result<Guest, LinkError> {
        let connection = self.tls.as_mut().map(Listening::accept).transpose()?;
        let mut greeting = Greeting::new(Stream::new(socket, connection)?, Side::Acceptor);
        greeting.begin(options)?;
        Ok(Guest { greeting, body_limit: 0 })
    }

    fn socket<'a>(&self, guest: &'a Guest) -> &'a TcpStream {
        guest.greeting.stream.socket()
    }

    fn waits_for_room(&self, guest: &Guest) -> bool {
        guest.greeting.stream.waits_for_room()
    }

    fn hear(&self, mut guest: Guest, options: &LinkOptions) -> Result<Heard<Guest>, LinkError> {
        Ok(match guest.greeting.go_on(options)? {
            Some(body_limit) => Heard::Ready(Guest { body_limit, ..guest }),
            None => Heard::Waits(guest),
        })
    }

    fn link(&self, guest: Guest, peer: SocketAddr, options: &LinkOptions) -> Result<Link, LinkError> {
        assemble(guest.greeting.stream, peer, guest.body_limit, options)
    }
}
