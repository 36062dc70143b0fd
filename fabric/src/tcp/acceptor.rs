//! Accepts connections and waits for their hellos, all at once.
#![forbid(unsafe_code)]

use super::{Greeting, assemble, greet};
use crate::address::Address;
use crate::dial::look_up;
use crate::link::{Link, LinkError};
use crate::options::LinkOptions;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// What the listener is known as in the epoll set; those who set up are counted from 1.
const LISTENER: u64 = 0;

/// How many events are looked at a time.
const EVENTS: usize = 32;

pub(crate) struct Acceptor {
    listener: TcpListener,
    host: String,
    port: u16,
    /// Has the listener and all who set up, so that there is one descriptor to wait on.
    epoll: OwnedFd,
    /// Those who have not said all of their hello, oldest first.
    setups: BTreeMap<u64, Setup>,
    next: u64,
}

struct Setup {
    socket: TcpStream,
    peer: SocketAddr,
    greeting: Greeting,
    since: Instant,
}

impl Acceptor {
    pub(crate) fn bind(host: &str, port: u16, options: &LinkOptions) -> Result<Self, LinkError> {
        let failed = |error: std::io::Error| LinkError::io("listening over TCP", error);
        let addresses = look_up(host, port, Instant::now() + options.setup_timeout)?;
        let listener = TcpListener::bind(&addresses[..]).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)
            .map_err(|error| failed(error.into()))?;
        Ok(Self { listener, host: host.to_owned(), port, epoll, setups: BTreeMap::new(), next: LISTENER + 1 })
    }

    pub(crate) fn try_accept(&mut self, options: &LinkOptions) -> Result<Option<Link>, LinkError> {
        loop {
            let mut events = [MaybeUninit::<epoll::Event>::uninit(); EVENTS];
            let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let ready = match epoll::wait(&self.epoll, &mut events[..], Some(&zero)) {
                Ok(([], _)) => {
                    self.expire(options);
                    return Ok(None);
                }
                Ok((events, _)) => events,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(LinkError::io("waiting for those who connect", error)),
            };
            // The set is level-triggered: what is not looked at now comes again.
            for event in ready.iter() {
                let token = event.data.u64();
                if token == LISTENER {
                    self.welcome(options)?;
                } else if let Some(link) = self.hear(token, options)? {
                    return Ok(Some(link));
                }
            }
        }
    }

    /// Accepts one connection, if there is one.
    fn welcome(&mut self, options: &LinkOptions) -> Result<(), LinkError> {
        let (socket, peer) = match self.listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                return match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted => Ok(()),
                    _ => Err(LinkError::io("accepting a link", error)),
                };
            }
        };
        greet(&socket, options)?;
        self.expire(options);
        while self.setups.len() >= options.max_setups.max(1) {
            self.setups.pop_first();
        }
        epoll::add(&self.epoll, &socket, EventData::new_u64(self.next), EventFlags::IN)
            .map_err(|error| LinkError::io("waiting for a hello", error))?;
        self.setups.insert(self.next, Setup { socket, peer, greeting: Greeting::default(), since: Instant::now() });
        self.next += 1;
        Ok(())
    }

    /// Reads what one who sets up has to say.
    fn hear(&mut self, token: u64, options: &LinkOptions) -> Result<Option<Link>, LinkError> {
        let Some(setup) = self.setups.get_mut(&token) else { return Ok(None) };
        let greeting = setup.greeting.read(&setup.socket);
        if matches!(greeting, Ok(None)) {
            return Ok(None);
        }
        let setup = self.setups.remove(&token).expect("found above");
        match greeting {
            Ok(Some(body_limit)) => {
                // Out of this set: the socket lives on.
                epoll::delete(&self.epoll, &setup.socket)
                    .map_err(|error| LinkError::io("letting go of a socket", error))?;
                assemble(setup.socket, setup.peer, body_limit, options).map(Some)
            }
            // Somebody knocked and went.
            Err(LinkError::Closed) | Ok(None) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives up those who took too long.
    fn expire(&mut self, options: &LinkOptions) {
        while let Some(oldest) = self.setups.first_entry() {
            if oldest.get().since.elapsed() < options.setup_timeout {
                break;
            }
            oldest.remove();
        }
    }

    pub(crate) fn address(&self) -> Address {
        Address::Tcp { host: self.host.clone(), port: self.port }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
