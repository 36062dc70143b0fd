//! Links over TCP, plain or within TLS (`docs/tls.md`).
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
//! 2. Bodies are written from where they are and read to where they belong; only what comes with a head is copied. Within TLS they are
//!    encrypted and decrypted on the way.
//! 3. A dropped receiver ends the connection, so that the peer's sender learns of it.

mod acceptor;
mod greeting;
mod receiver;
mod sender;
mod session;
mod stream;

pub(crate) use acceptor::Acceptor;

use crate::dial::dial;
use crate::link::{Interest, Link, LinkError, Peer};
use crate::options::LinkOptions;
use crate::queue::Queue;
use crate::tls::{self, TlsFiles};
use crate::wait::wait;
use greeting::{Greeting, Side};
use receiver::TcpReceiver;
use sender::TcpSender;
use smallvec::smallvec;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;
use stream::Stream;

/// The receiving half of a link whose hello is over.
#[cfg(feature = "fuzz")]
pub(crate) fn receiver(socket: TcpStream, options: &LinkOptions) -> Box<dyn crate::link::Receiver> {
    let stream = Stream::new(socket, None).expect("a socket that can be told not to block");
    Box::new(TcpReceiver::new(stream, options))
}

/// The link over a stream on which both have said hello.
fn assemble(stream: Stream, peer: SocketAddr, body_limit: u64, options: &LinkOptions) -> Result<Link, LinkError> {
    let sender = TcpSender {
        stream: stream.for_sending()?,
        queue: Queue::default(),
        ended: false,
        max_body_bytes: options.max_body_bytes.min(body_limit),
        max_queued_bytes: options.max_queued_bytes,
        turn_bytes: options.turn_bytes.max(1),
    };
    let receiver = TcpReceiver::new(stream, options);
    Ok(Link { sender: Box::new(sender), receiver: Box::new(receiver), peer: Peer::Remote(peer) })
}

/// Connects to the first address of the host that can be.
pub(crate) fn connect(host: &str, port: u16, options: &LinkOptions, deadline: Instant) -> Result<Link, LinkError> {
    let (socket, peer) = dial(host, port, deadline, "connecting over TCP")?;
    greet(socket, None, peer, options, deadline)
}

/// The same within TLS.
pub(crate) fn connect_tls(
    host: &str,
    port: u16,
    files: &TlsFiles,
    options: &LinkOptions,
    deadline: Instant,
) -> Result<Link, LinkError> {
    // What is wrong with the files is said before anybody is bothered.
    let connection = tls::connection_to(host, files.or(options))?;
    let (socket, peer) = dial(host, port, deadline, "connecting over TCP")?;
    greet(socket, Some(connection), peer, options, deadline)
}

fn greet(
    socket: TcpStream,
    connection: Option<rustls::Connection>,
    peer: SocketAddr,
    options: &LinkOptions,
    deadline: Instant,
) -> Result<Link, LinkError> {
    let mut greeting = Greeting::new(Stream::new(socket, connection)?, Side::Connector);
    let body_limit = loop {
        if let Some(body_limit) = greeting.go_on(options)? {
            break body_limit;
        }
        let stream = &greeting.stream;
        let mut interests: crate::link::Interests<'_> =
            smallvec![Interest { fd: stream.socket().as_fd(), writable: false }];
        if stream.waits_for_room() {
            interests.push(Interest { fd: stream.socket().as_fd(), writable: true });
        }
        wait(&interests, deadline)?;
    };
    assemble(greeting.stream, peer, body_limit, options)
}
