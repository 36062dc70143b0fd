//! Accepts control channels, and makes links of them, all at once.
#![forbid(unsafe_code)]

use super::adapter::Adapter;
use super::channel::Channel;
use super::hello::{Greeting, Hello, READY, Status};
use super::{failed, prepare, say};
use crate::address::Address;
use crate::dial::look_up;
use crate::link::{Link, LinkError};
use crate::options::LinkOptions;
use dmrpc_rdma_sys::ProtectionDomain;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

/// What the listener is known as in the epoll set; those who set up are counted from 1.
const LISTENER: u64 = 0;

/// How many events are looked at a time.
const EVENTS: usize = 32;

pub(crate) struct Acceptor {
    listener: TcpListener,
    adapter: Arc<Adapter>,
    /// Of each domain of the options, in their order; or the one that all links are in.
    domains: Vec<ProtectionDomain>,
    host: String,
    port: u16,
    /// Has the listener and all who set up, so that there is one descriptor to wait on.
    epoll: OwnedFd,
    /// Those whose links are not ready, oldest first.
    setups: BTreeMap<u64, Setup>,
    next: u64,
}

struct Setup {
    peer: SocketAddr,
    since: Instant,
    stage: Stage,
}

enum Stage {
    /// It has yet to say where its queue pair is.
    Hello(TcpStream, Greeting),
    /// It has yet to connect its queue pair with ours.
    Ready { channel: Box<Channel>, domain: Option<usize>, theirs: Hello },
}

impl Acceptor {
    pub(crate) fn bind(host: &str, port: u16, options: &LinkOptions) -> Result<Self, LinkError> {
        let failed = |error: std::io::Error| LinkError::io("listening for control channels", error);
        let addresses = look_up(host, port, Instant::now() + options.setup_timeout)?;
        let listener = TcpListener::bind(&addresses[..]).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let adapter = Adapter::near(local.ip())?;
        let domains = (0..options.rdma_domains.len().max(1)).map(|_| ProtectionDomain::new(&adapter.device));
        let domains = domains.collect::<Result<_, _>>()?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)
            .map_err(|error| failed(error.into()))?;
        let (host, port) = (host.to_owned(), local.port());
        Ok(Self { listener, adapter, domains, host, port, epoll, setups: BTreeMap::new(), next: LISTENER + 1 })
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
                Err(Errno::INTR) => continue,
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

    /// Accepts one control channel, if there is one.
    fn welcome(&mut self, options: &LinkOptions) -> Result<(), LinkError> {
        let (control, peer) = match self.listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                return match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted => Ok(()),
                    _ => Err(LinkError::io("accepting a control channel", error)),
                };
            }
        };
        prepare(&control)?;
        self.expire(options);
        while self.setups.len() >= options.max_setups.max(1) {
            self.setups.pop_first();
        }
        epoll::add(&self.epoll, &control, EventData::new_u64(self.next), EventFlags::IN)
            .map_err(|error| LinkError::io("waiting for a hello", error))?;
        let stage = Stage::Hello(control, Greeting::default());
        self.setups.insert(self.next, Setup { peer, since: Instant::now(), stage });
        self.next += 1;
        Ok(())
    }

    /// Reads what one who sets up has to say. Its link, once that is ready.
    fn hear(&mut self, token: u64, options: &LinkOptions) -> Result<Option<Link>, LinkError> {
        let Some(setup) = self.setups.remove(&token) else { return Ok(None) };
        let outcome = match setup.stage {
            Stage::Hello(control, mut greeting) => match greeting.read(&control) {
                Ok(Some(theirs)) => self.answer(control, theirs, options),
                Ok(None) => Ok(Some(Stage::Hello(control, greeting))),
                Err(error) => Err(error),
            },
            Stage::Ready { channel, domain, theirs } => match hear_ready(channel.control()) {
                Ok(true) => {
                    // Out of this set: the channel lives on.
                    epoll::delete(&self.epoll, channel.control())
                        .map_err(|error| LinkError::io("letting go of a control channel", error))?;
                    return channel.into_link(setup.peer, domain, &theirs).map(Some);
                }
                Ok(false) => Ok(Some(Stage::Ready { channel, domain, theirs })),
                Err(error) => Err(error),
            },
        };
        match outcome {
            Ok(Some(stage)) => {
                self.setups.insert(token, Setup { stage, peer: setup.peer, since: setup.since });
                Ok(None)
            }
            // Somebody was refused, or knocked and went.
            Ok(None) | Err(LinkError::Closed) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a queue pair for one who has said where its own is. `None` if it is refused.
    fn answer(&self, control: TcpStream, theirs: Hello, options: &LinkOptions) -> Result<Option<Stage>, LinkError> {
        // All are looked at wholly: how long it takes tells nothing.
        let is = |name: &Vec<u8>| {
            name.len() == theirs.domain.len()
                && name.iter().zip(&theirs.domain).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
        };
        let names = &options.rdma_domains;
        let known =
            names.iter().enumerate().fold(None, |found, (index, name)| if is(name) { Some(index) } else { found });
        let domain = &self.domains[known.unwrap_or(0)];
        let channel = Box::new(Channel::new(&self.adapter, domain, control, options)?);
        if known.is_none() && !names.is_empty() {
            say(channel.control(), &Hello::of(&channel, Status::Refused, &[]).encode())?;
            return Ok(None);
        }
        channel.connect(&theirs)?;
        say(channel.control(), &Hello::of(&channel, Status::Accepted, &[]).encode())?;
        Ok(Some(Stage::Ready { channel, domain: Some(known.unwrap_or(0)), theirs }))
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
        Address::Rdma { host: self.host.clone(), port: self.port }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
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
            Err(error) => Err(failed("waiting for a peer to be ready", error)),
        };
    }
}
