//! The half of a TCP link that sends.
#![forbid(unsafe_code)]

use super::stream::Stream;
use crate::link::{Body, Interest, Interests, LinkError, Sender, TrySendError, check_lengths};
use crate::queue::{Queue, message_bytes};
use smallvec::smallvec;
use std::io::IoSlice;
use std::os::fd::AsFd;

/// Pieces of one vectored write.
const MAX_PIECES: usize = 64;

/// What is gathered before it is written without being asked to.
const GATHERED_BYTES: u64 = 64 * 1024;

pub(super) struct TcpSender {
    pub(super) stream: Stream,
    pub(super) queue: Queue,
    /// Nothing can be written any more.
    pub(super) ended: bool,
    pub(super) max_body_bytes: u64,
    pub(super) max_queued_bytes: u64,
    /// How much one call moves.
    pub(super) turn_bytes: u64,
}

impl TcpSender {
    /// Writes what the socket takes. Whether that was all.
    fn write(&mut self) -> Result<bool, LinkError> {
        let written = self.write_some();
        if written.is_err() {
            self.ended = true;
            self.queue = Queue::default();
        }
        written
    }

    fn write_some(&mut self) -> Result<bool, LinkError> {
        let mut turn = self.turn_bytes;
        while !self.queue.is_empty() {
            if turn == 0 {
                return Ok(false);
            }
            let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
            let count = self.queue.gather(&mut pieces);
            let Some(written) = self.stream.write(&pieces[..count])? else { return Ok(false) };
            self.queue.advance(written);
            turn = turn.saturating_sub(written as u64);
        }
        self.stream.flush()
    }

    fn alive(&self) -> Result<(), LinkError> {
        if self.ended { Err(LinkError::Closed) } else { Ok(()) }
    }
}

impl Sender for TcpSender {
    fn try_send(&mut self, head: &[u8], body: Body) -> Result<(), TrySendError> {
        self.alive()?;
        let body_len = check_lengths(head, &body, || self.max_body_bytes)?;
        let bytes = message_bytes(head, body_len);
        let limit = self.max_queued_bytes;
        let over = |queue: &Queue| !queue.is_empty() && queue.bytes() + bytes > limit;
        if over(&self.queue) && !self.write()? && over(&self.queue) {
            return Err(TrySendError::Full(body));
        }
        self.queue.push_message(head, body, body_len);
        if self.queue.bytes() >= GATHERED_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<bool, LinkError> {
        self.alive()?;
        self.write()
    }

    fn interests(&self) -> Interests<'_> {
        smallvec![Interest { fd: self.stream.socket().as_fd(), writable: true }]
    }
}

impl Drop for TcpSender {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.write();
        }
        self.stream.end_writing();
    }
}
