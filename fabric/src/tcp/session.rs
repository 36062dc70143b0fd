//! The TLS connection that both halves of a link share.
//!
//! What is encrypted is sent under its lock, so that records go in their order. Records that came are the reading stream's own affair
//! until they are decrypted.
#![forbid(unsafe_code)]

use super::stream::{receive, send_pieces};
use crate::link::LinkError;
use crate::tls::link_error;
use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;
use rustls::Connection;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;

/// How much of records is read from the socket at a time.
const RECORDS_BYTES: usize = 64 * 1024;

/// So much of records has something in it: the longest is a quarter of a read.
const MAX_EMPTY_BYTES: usize = 2 * RECORDS_BYTES;

/// A stream's share in the connection.
pub(super) struct Session {
    connection: Arc<Mutex<Connection>>,
    incoming: Incoming,
}

/// Records on their way in.
#[derive(Default)]
struct Incoming {
    /// Made when the first come.
    records: Box<[u8]>,
    /// Those that are not decrypted.
    came: Range<usize>,
    /// Why nothing comes any more; said when all that came before is read.
    end: Option<LinkError>,
}

impl Session {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection: Arc::new(Mutex::new(connection)), incoming: Incoming::default() }
    }

    /// That of the half that sends.
    pub(super) fn for_sending(&self) -> Self {
        Self { connection: Arc::clone(&self.connection), incoming: Incoming::default() }
    }

    /// Goes on with the handshake. Whether it is over.
    pub(super) fn shake_hands(&mut self, socket: &TcpStream) -> Result<bool, LinkError> {
        loop {
            let mut connection = self.connection.lock();
            // One that hears no more may have said why.
            let _ = send_records(&mut connection, socket);
            if !connection.is_handshaking() {
                return Ok(true);
            }
            if self.incoming.decrypt(&mut connection, socket) {
                continue;
            }
            if let Some(error) = self.incoming.end.take() {
                return Err(error);
            }
            if !self.incoming.receive(socket)? {
                return Ok(false);
            }
        }
    }

    /// Whether records wait for room in the socket.
    pub(super) fn waits_for_room(&self) -> bool {
        self.connection.lock().wants_write()
    }

    /// As [`Stream::read`](super::stream::Stream::read).
    pub(super) fn read(
        &mut self,
        socket: &TcpStream,
        parts: &mut [IoSliceMut<'_>],
        from_socket: bool,
    ) -> Result<Option<usize>, LinkError> {
        let room = parts.iter().map(|part| part.len()).sum();
        let (mut filled, mut empty_bytes) = (0, 0);
        loop {
            {
                let mut connection = self.connection.lock();
                loop {
                    filled += self.incoming.take(&mut connection, parts, filled);
                    if filled == room || !self.incoming.decrypt(&mut connection, socket) {
                        break;
                    }
                }
            }
            if filled > 0 {
                return Ok(Some(filled));
            }
            if let Some(end) = self.incoming.end.take() {
                return Err(end);
            }
            if !from_socket || !self.incoming.receive(socket)? {
                return Ok(None);
            }
            empty_bytes += self.incoming.came.len();
            if empty_bytes > MAX_EMPTY_BYTES {
                return Err(LinkError::Protocol("TLS records with nothing in them"));
            }
        }
    }

    /// As [`Stream::write`](super::stream::Stream::write).
    pub(super) fn write(&mut self, socket: &TcpStream, pieces: &[IoSlice<'_>]) -> Result<Option<usize>, LinkError> {
        let mut connection = self.connection.lock();
        if !send_records(&mut connection, socket)? {
            return Ok(None);
        }
        // It takes as much as there may be of records that wait, and nothing once the connection has failed.
        let taken = connection.writer().write_vectored(pieces).map_err(|_| LinkError::Closed)?;
        send_records(&mut connection, socket)?;
        Ok(Some(taken))
    }

    /// Sends what is encrypted. Whether that is all.
    pub(super) fn flush(&mut self, socket: &TcpStream) -> Result<bool, LinkError> {
        send_records(&mut self.connection.lock(), socket)
    }

    /// Says that nothing more is said.
    pub(super) fn say_end(&mut self, socket: &TcpStream) {
        let mut connection = self.connection.lock();
        connection.send_close_notify();
        let _ = send_records(&mut connection, socket);
    }
}

impl Incoming {
    /// Has records come. Whether any did.
    fn receive(&mut self, socket: &TcpStream) -> Result<bool, LinkError> {
        if self.records.is_empty() {
            self.records = vec![0; RECORDS_BYTES].into_boxed_slice();
        }
        let count = receive(socket, &mut self.records)?;
        self.came = 0..count.unwrap_or(0);
        Ok(count.is_some())
    }

    /// Decrypts some of what came. Whether there was any.
    fn decrypt(&mut self, connection: &mut MutexGuard<'_, Connection>, socket: &TcpStream) -> bool {
        if self.came.is_empty() || self.end.is_some() {
            return false;
        }
        match connection.read_tls(&mut &self.records[self.came.clone()]) {
            // After the peer's end there is nothing.
            Ok(0) => self.came = 0..0,
            Ok(count) => self.came.start += count,
            Err(_) => self.end = Some(LinkError::Protocol("a TLS record over the limit")),
        }
        if let Err(error) = connection.process_new_packets() {
            self.end = Some(link_error(error));
        }
        // An alert, or new keys that were asked for. Nobody need hear it.
        let _ = send_records(connection, socket);
        true
    }

    /// Takes what is decrypted into the parts, of which so much is filled. How much it was.
    fn take(
        &mut self,
        connection: &mut MutexGuard<'_, Connection>,
        parts: &mut [IoSliceMut<'_>],
        filled: usize,
    ) -> usize {
        let mut skip = filled;
        let mut taken = 0;
        for part in parts {
            let mut at = skip.min(part.len());
            skip -= at;
            while at < part.len() {
                match connection.reader().read(&mut part[at..]) {
                    Ok(0) => {
                        self.end.get_or_insert(LinkError::Closed);
                        return taken;
                    }
                    Ok(count) => {
                        at += count;
                        taken += count;
                    }
                    // Nothing just now.
                    Err(_) => return taken,
                }
            }
        }
        taken
    }
}

/// Sends what is encrypted, as far as the socket takes it. Whether that is all.
fn send_records(connection: &mut Connection, socket: &TcpStream) -> Result<bool, LinkError> {
    while connection.wants_write() {
        match connection.write_tls(&mut Records(socket)) {
            Ok(_) => {}
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) => return Ok(false),
                Some(error) => return Err(LinkError::socket("sending", error)),
                None => return Err(LinkError::io("sending", error)),
            },
        }
    }
    Ok(true)
}

/// Where records go.
struct Records<'a>(&'a TcpStream);

impl Write for Records<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> std::io::Result<usize> {
        Ok(send_pieces(self.0, pieces)?)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
