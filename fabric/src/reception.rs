//! Receives those who connect over TCP, and hears all of them at once until each is a link.
//!
//! 1. One who stalls keeps nobody waiting: each has [`setup_timeout`](crate::LinkOptions::setup_timeout), and one more than there
//!    may be ends the oldest.
//! 2. What is wrong with one of them is its own end, and an error of one call; the reception goes on.
#![forbid(unsafe_code)]

use crate::dial::look_up;
use crate::link::{Link, LinkError};
use crate::options::LinkOptions;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// What the listener is known as in the epoll set; guests are counted from 1.
const LISTENER: u64 = 0;

/// How many events are looked at a time.
const EVENTS: usize = 32;

/// Makes links of those who connect.
pub(crate) trait Host {
    /// One who sets up a link.
    type Guest;

    /// Begins with one who has just connected, over a socket that does not block.
    fn greet(&mut self, socket: TcpStream, options: &LinkOptions) -> Result<Self::Guest, LinkError>;

    /// What the guest speaks over.
    fn socket<'a>(&self, guest: &'a Self::Guest) -> &'a TcpStream;

    /// Whether the guest waits for room in the socket, too.
    fn waits_for_room(&self, guest: &Self::Guest) -> bool {
        let _ = guest;
        false
    }

    /// Hears what the guest has to say, as far as it has come.
    ///
    /// # Errors
    ///
    /// [`LinkError::Closed`] for a guest that went.
    fn hear(&self, guest: Self::Guest, options: &LinkOptions) -> Result<Heard<Self::Guest>, LinkError>;

    /// The link of a guest that is ready.
    fn link(&self, guest: Self::Guest, peer: SocketAddr, options: &LinkOptions) -> Result<Link, LinkError>;
}

/// What has become of a guest.
pub(crate) enum Heard<G> {
    /// It has more to say.
    Waits(G),
    /// It is to have its link.
    Ready(G),
    /// It was told that it gets none.
    Refused,
}

/// A listening socket, with all who set up over it.
pub(crate) struct Reception<G> {
    listener: TcpListener,
    address: SocketAddr,
    host: String,
    /// Has the listener and all guests, so that there is one descriptor to wait on.
    epoll: OwnedFd,
    /// Oldest first.
    guests: BTreeMap<u64, Visit<G>>,
    next: u64,
}

struct Visit<G> {
    guest: G,
    peer: SocketAddr,
    since: Instant,
    /// Whether it is waited for room, too.
    for_room: bool,
}

impl<G> Reception<G> {
    pub(crate) fn bind(host: &str, port: u16, options: &LinkOptions) -> Result<Self, LinkError> {
        let failed = |error: std::io::Error| LinkError::io("listening over TCP", error);
        let addresses = look_up(host, port, Instant::now() + options.setup_timeout)?;
        let listener = TcpListener::bind(&addresses[..]).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)
            .map_err(|error| failed(error.into()))?;
        Ok(Self { listener, address, host: host.to_owned(), epoll, guests: BTreeMap::new(), next: LISTENER + 1 })
    }

    /// What it was told to listen at, by name or number.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The address that it listens at, which may be any of this host.
    pub(crate) fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// The port that it has.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The next link, if there is one. Never waits.
    pub(crate) fn try_accept<H>(&mut self, host: &mut H, options: &LinkOptions) -> Result<Option<Link>, LinkError>
    where
        H: Host<Guest = G>,
    {
        loop {
            let mut events = [MaybeUninit::<epoll::Event>::uninit(); EVENTS];
            let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let ready = match epoll::wait(&self.epoll, &mut events[..], Some(&zero)) {
                Ok(([], _)) => {
                    self.expire(options);
                    return Ok(None);
                }
                Ok((events, _)) => events,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(LinkError::io("waiting for those who connect", error)),
            };
            // The set is level-triggered: what is not looked at now comes again.
            for event in ready.iter() {
                let token = event.data.u64();
                if token == LISTENER {
                    self.welcome(host, options)?;
                } else if let Some(link) = self.hear(token, host, options)? {
                    return Ok(Some(link));
                }
            }
        }
    }

    /// Accepts one connection, if there is one.
    fn welcome(&mut self, host: &mut impl Host<Guest = G>, options: &LinkOptions) -> Result<(), LinkError> {
        let (socket, peer) = match self.listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                return match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted => Ok(()),
                    _ => Err(LinkError::io("accepting a connection", error)),
                };
            }
        };
        socket.set_nonblocking(true).map_err(|error| LinkError::io("preparing a socket", error))?;
        let guest = host.greet(socket, options)?;
        self.expire(options);
        while self.guests.len() >= options.max_setups.max(1) {
            self.guests.pop_first();
        }
        epoll::add(&self.epoll, host.socket(&guest), EventData::new_u64(self.next), EventFlags::IN)
            .map_err(|error| LinkError::io("waiting for a hello", error))?;
        self.guests.insert(self.next, Visit { guest, peer, since: Instant::now(), for_room: false });
        self.next += 1;
        Ok(())
    }

    /// Hears a guest. Its link, once that is ready.
    fn hear<H>(&mut self, token: u64, host: &H, options: &LinkOptions) -> Result<Option<Link>, LinkError>
    where
        H: Host<Guest = G>,
    {
        let Some(Visit { guest, peer, since, for_room: had }) = self.guests.remove(&token) else { return Ok(None) };
        match host.hear(guest, options) {
            Ok(Heard::Waits(guest)) => {
                let for_room = host.waits_for_room(&guest);
                if for_room != had {
                    let ready = if for_room { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
                    epoll::modify(&self.epoll, host.socket(&guest), EventData::new_u64(token), ready)
                        .map_err(|error| LinkError::io("waiting for room in a socket", error))?;
                }
                self.guests.insert(token, Visit { guest, peer, since, for_room });
                Ok(None)
            }
            Ok(Heard::Ready(guest)) => {
                // Out of this set: the socket lives on.
                epoll::delete(&self.epoll, host.socket(&guest))
                    .map_err(|error| LinkError::io("letting go of a socket", error))?;
                host.link(guest, peer, options).map(Some)
            }
            // Somebody knocked and went, or was sent away.
            Ok(Heard::Refused) | Err(LinkError::Closed) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives up those who took too long.
    fn expire(&mut self, options: &LinkOptions) {
        while let Some(oldest) = self.guests.first_entry() {
            if oldest.get().since.elapsed() < options.setup_timeout {
                break;
            }
            oldest.remove();
        }
    }
}

impl<G> AsFd for Reception<G> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
