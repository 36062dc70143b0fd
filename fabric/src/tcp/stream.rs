//! The bytes of a link over TCP, plain or within TLS.
#![forbid(unsafe_code)]

use super::session::Session;
use crate::link::LinkError;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};
use std::io::{IoSlice, IoSliceMut};
use std::net::{Shutdown, TcpStream};

/// One half of a link has it, or who sets the link up. It never blocks.
pub(super) struct Stream {
    socket: TcpStream,
    session: Option<Session>,
}

impl Stream {
    /// Over a new socket; with `connection` all goes through that.
    pub(super) fn new(socket: TcpStream, connection: Option<rustls::Connection>) -> Result<Self, LinkError> {
        socket.set_nonblocking(true).map_err(|error| LinkError::io("preparing a socket", error))?;
        // One that knows nothing of delays has none.
        let _ = socket.set_nodelay(true);
        Ok(Self { socket, session: connection.map(Session::new) })
    }

    /// One for the half that sends beside this one, which reads. It has a descriptor of its own, so that both fit into one epoll set.
    pub(super) fn for_sending(&self) -> Result<Self, LinkError> {
        let socket = self.socket.try_clone().map_err(|error| LinkError::io("preparing a socket", error))?;
        Ok(Self { socket, session: self.session.as_ref().map(Session::for_sending) })
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn is_within_tls(&self) -> bool {
        self.session.is_some()
    }

    /// Goes on with the handshake, if there is one. Whether it is over.
    pub(super) fn shake_hands(&mut self) -> Result<bool, LinkError> {
        self.session.as_mut().map_or(Ok(true), |session| session.shake_hands(&self.socket))
    }

    /// Whether something that was written waits for room in the socket.
    pub(super) fn waits_for_room(&self) -> bool {
        self.session.as_ref().is_some_and(Session::waits_for_room)
    }

    /// Reads what came into the parts, in order. How many bytes; `None` if there are none now, and they will come by the socket. Without
    /// `from_socket` only what was taken from the socket before.
    ///
    /// # Errors
    ///
    /// [`LinkError::Closed`] at the end.
    pub(super) fn read(&mut self, parts: &mut [IoSliceMut<'_>], from_socket: bool) -> Result<Option<usize>, LinkError> {
        match &mut self.session {
            Some(session) => session.read(&self.socket, parts, from_socket),
            None if !from_socket => Ok(None),
            None => match parts {
                [part] => receive(&self.socket, part),
                parts => loop {
                    return match rustix::io::readv(&self.socket, parts) {
                        Ok(0) => Err(LinkError::Closed),
                        Ok(count) => Ok(Some(count)),
                        Err(Errno::AGAIN) => Ok(None),
                        Err(Errno::INTR) => continue,
                        Err(error) => Err(LinkError::socket("receiving", error)),
                    };
                },
            },
        }
    }

    /// Takes from the pieces what can be on its way. How many bytes; `None` if there is no room in the socket.
    pub(super) fn write(&mut self, pieces: &[IoSlice<'_>]) -> Result<Option<usize>, LinkError> {
        match &mut self.session {
            Some(session) => session.write(&self.socket, pieces),
            None => match send_pieces(&self.socket, pieces) {
                Ok(count) => Ok(Some(count)),
                Err(Errno::AGAIN) => Ok(None),
                Err(error) => Err(LinkError::socket("sending", error)),
            },
        }
    }

    /// Whether all that was written is on its way.
    pub(super) fn flush(&mut self) -> Result<bool, LinkError> {
        self.session.as_mut().map_or(Ok(true), |session| session.flush(&self.socket))
    }

    /// Nothing more is written.
    pub(super) fn end_writing(&mut self) {
        if let Some(session) = &mut self.session {
            session.say_end(&self.socket);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

/// Receives some bytes; `None` if there are none now.
pub(super) fn receive(socket: &TcpStream, into: &mut [u8]) -> Result<Option<usize>, LinkError> {
    loop {
        return match recv(socket, &mut *into, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(LinkError::Closed),
            Ok((_, count)) => Ok(Some(count)),
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::INTR) => continue,
            Err(error) => Err(LinkError::socket("receiving", error)),
        };
    }
}

/// Sends some of the pieces.
pub(super) fn send_pieces(socket: &TcpStream, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let mut control = SendAncillaryBuffer::default();
    loop {
        match sendmsg(socket, pieces, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent,
        }
    }
}
