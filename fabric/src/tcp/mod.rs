//! Links over TCP.
//!
//! Each side says hello, then both directions are streams of frames.
//!
//! ```text
//! the hello    0       8       12      16           24
//!              ┌───────┬───────┬───────┬────────────┐
//!              │ magic │version│ 0     │ body limit │   little endian
//!              └───────┴───────┴───────┴────────────┘
//! ```
//!
//! 1. A peer that stalls in its hello keeps nobody waiting, and one of its kind more than there may be ends the oldest.
//! 2. Bodies are written from where they are and read to where they belong; only what comes with a head is copied.
//! 3. A dropped receiver ends the connection, so that the peer's sender learns of it.

mod acceptor;
mod receiver;
mod sender;

pub(crate) use acceptor::Acceptor;

use crate::dial::dial;
use crate::link::{Interest, Link, LinkError, Peer};
use crate::options::LinkOptions;
use crate::queue::Queue;
use crate::wait::wait;
use receiver::TcpReceiver;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use sender::TcpSender;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

const MAGIC: [u8; 8] = *b"DmRPCtcp";
const VERSION: u32 = 1;
const HELLO_BYTES: usize = 24;

/// The receiving half of a link whose hello is over.
#[cfg(feature = "fuzz")]
pub(crate) fn receiver(socket: TcpStream, options: &LinkOptions) -> Box<dyn crate::link::Receiver> {
    Box::new(TcpReceiver::new(socket, options))
}

fn hello(options: &LinkOptions) -> [u8; HELLO_BYTES] {
    let mut hello = [0; HELLO_BYTES];
    hello[..8].copy_from_slice(&MAGIC);
    hello[8..12].copy_from_slice(&VERSION.to_le_bytes());
    hello[16..].copy_from_slice(&options.max_body_bytes.to_le_bytes());
    hello
}

/// A hello as it comes.
#[derive(Debug, Default)]
struct Greeting {
    bytes: [u8; HELLO_BYTES],
    filled: usize,
}

impl Greeting {
    /// Reads on. The peer's body limit once all of it came.
    fn read(&mut self, socket: &TcpStream) -> Result<Option<u64>, LinkError> {
        while self.filled < HELLO_BYTES {
            match recv(socket, &mut self.bytes[self.filled..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(LinkError::Closed),
                Ok((_, count)) => self.filled += count,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(LinkError::socket("receiving a hello", error)),
            }
            let magic = self.filled.min(MAGIC.len());
            if self.bytes[..magic] != MAGIC[..magic] {
                return Err(LinkError::Protocol("a hello of something else"));
            }
        }
        if self.bytes[8..12] != VERSION.to_le_bytes() {
            return Err(LinkError::Protocol("the peer speaks another version"));
        }
        Ok(Some(u64::from_le_bytes(self.bytes[16..].try_into().expect("eight bytes"))))
    }
}

/// Says hello on a new socket, whose buffer is empty.
fn greet(socket: &TcpStream, options: &LinkOptions) -> Result<(), LinkError> {
    match send(socket, &hello(options), SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(HELLO_BYTES) => Ok(()),
        Ok(_) => Err(LinkError::Closed),
        Err(error) => Err(LinkError::socket("sending a hello", error)),
    }
}

/// The link over a socket on which both have said hello.
fn assemble(socket: TcpStream, peer: SocketAddr, body_limit: u64, options: &LinkOptions) -> Result<Link, LinkError> {
    let prepare = |socket: &TcpStream| {
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        // A descriptor of its own for each half, so that both fit into one epoll set.
        socket.try_clone()
    };
    let twin = prepare(&socket).map_err(|error| LinkError::io("preparing a socket", error))?;
    let sender = TcpSender {
        socket,
        queue: Queue::default(),
        ended: false,
        max_body_bytes: options.max_body_bytes.min(body_limit),
        max_queued_bytes: options.max_queued_bytes,
        turn_bytes: options.turn_bytes.max(1),
    };
    let receiver = TcpReceiver::new(twin, options);
    Ok(Link { sender: Box::new(sender), receiver: Box::new(receiver), peer: Peer::Remote(peer) })
}

/// Connects to the first address of the host that can be.
pub(crate) fn connect(host: &str, port: u16, options: &LinkOptions, deadline: Instant) -> Result<Link, LinkError> {
    let (socket, address) = dial(host, port, deadline, "connecting over TCP")?;
    greet(&socket, options)?;
    let mut greeting = Greeting::default();
    let body_limit = loop {
        match greeting.read(&socket)? {
            Some(body_limit) => break body_limit,
            None => wait(&[Interest { fd: socket.as_fd(), writable: false }], deadline)?,
        }
    };
    assemble(socket, address, body_limit, options)
}
