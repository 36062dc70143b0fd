//! What a sender has taken and not yet moved on: a stream of bytes in pieces.
//!
//! 1. Headers, heads and small bodies are copied together into one buffer; larger bodies wait as they are.
//! 2. A piece of a body is dropped as soon as its last byte is moved on.

use crate::frame::{Frame, HEADER_BYTES};
use crate::link::Body;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::OwnedFd;

/// Pieces of bodies up to this are copied: cheaper than a piece of its own in a vectored write.
const SMALL_PIECE_BYTES: usize = 512;

/// How much of the buffer may lie behind what is moved on, and how much is kept when it is empty.
const SLACK_BYTES: usize = 64 * 1024;

#[derive(Debug)]
enum Piece {
    /// So many of the next bytes of the buffer.
    Copied(usize),
    /// These.
    Lent(Bytes),
    /// To be passed before what follows.
    Descriptor(OwnedFd),
}

/// What comes next.
pub(crate) enum Front<'a> {
    Nothing,
    Bytes(&'a [u8]),
    Descriptor(&'a OwnedFd),
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    pieces: VecDeque<Piece>,
    buffer: Vec<u8>,
    /// How much of the buffer is moved on.
    moved: usize,
    /// Bytes in the pieces.
    bytes: u64,
    descriptors: usize,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn descriptors(&self) -> usize {
        self.descriptors
    }

    pub(crate) fn push_message(&mut self, head: &[u8], body: Body, body_len: u64) {
        self.copy(&Frame::Message { head_len: head.len(), body_len }.encode());
        self.copy(head);
        for piece in body {
            if piece.len() <= SMALL_PIECE_BYTES {
                self.copy(&piece);
            } else {
                self.bytes += piece.len() as u64;
                self.pieces.push_back(Piece::Lent(piece));
            }
        }
    }

    pub(crate) fn push_descriptor(&mut self, tag: u32, fd: OwnedFd) {
        self.pieces.push_back(Piece::Descriptor(fd));
        self.descriptors += 1;
        self.copy(&Frame::Descriptor { tag }.encode());
    }

    fn copy(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.buffer.extend_from_slice(bytes);
        self.bytes += bytes.len() as u64;
        match self.pieces.back_mut() {
            Some(Piece::Copied(len)) => *len += bytes.len(),
            _ => self.pieces.push_back(Piece::Copied(bytes.len())),
        }
    }

    pub(crate) fn front(&self) -> Front<'_> {
        match self.pieces.front() {
            None => Front::Nothing,
            Some(Piece::Copied(len)) => Front::Bytes(&self.buffer[self.moved..self.moved + len]),
            Some(Piece::Lent(bytes)) => Front::Bytes(bytes),
            Some(Piece::Descriptor(fd)) => Front::Descriptor(fd),
        }
    }

    /// The next bytes as a vectored write takes them, as many pieces as there is place for. How many pieces.
    pub(crate) fn gather<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut copied = self.moved;
        let mut count = 0;
        for (place, piece) in into.iter_mut().zip(&self.pieces) {
            *place = IoSlice::new(match piece {
                Piece::Copied(len) => {
                    copied += len;
                    &self.buffer[copied - len..copied]
                }
                Piece::Lent(bytes) => bytes,
                Piece::Descriptor(_) => break,
            });
            count += 1;
        }
        count
    }

    /// So many bytes are moved on; not more than there are before the next descriptor.
    pub(crate) fn advance(&mut self, mut by: usize) {
        self.bytes -= by as u64;
        while by > 0 {
            let piece = self.pieces.front_mut().expect("caller: moves on what there is");
            let step = match piece {
                Piece::Copied(len) => {
                    let step = by.min(*len);
                    *len -= step;
                    self.moved += step;
                    (step, *len == 0)
                }
                Piece::Lent(bytes) => {
                    let step = by.min(bytes.len());
                    bytes::Buf::advance(bytes, step);
                    (step, bytes.is_empty())
                }
                Piece::Descriptor(_) => unreachable!("caller: stops at descriptors"),
            };
            by -= step.0;
            if step.1 {
                self.pieces.pop_front();
            }
        }
        if self.moved == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(SLACK_BYTES);
            self.moved = 0;
        } else if self.moved > SLACK_BYTES && self.moved > self.buffer.len() / 2 {
            self.buffer.drain(..self.moved);
            self.moved = 0;
        }
    }

    /// The descriptor in front is passed; its header comes next.
    pub(crate) fn descriptor_passed(&mut self) {
        let piece = self.pieces.pop_front();
        debug_assert!(matches!(piece, Some(Piece::Descriptor(_))));
        self.descriptors -= 1;
    }
}

/// Length of a message in the stream.
pub(crate) fn message_bytes(head: &[u8], body_len: u64) -> u64 {
    (HEADER_BYTES + head.len()) as u64 + body_len
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Invariants 1 and 2: whatever the pieces and the steps, the stream is the same.
        #[test]
        fn the_stream_is_what_was_pushed(
            messages in prop::collection::vec((0..40usize, prop::collection::vec(0..2000usize, 0..4)), 1..12),
            steps in prop::collection::vec(1..3000usize, 1..50),
            gather in 1..5usize,
        ) {
            let mut queue = Queue::default();
            let (mut expected, mut got) = (Vec::new(), Vec::new());
            for (number, (head_len, pieces)) in messages.into_iter().enumerate() {
                let head = vec![number as u8; head_len];
                let body: Body = pieces.iter().map(|&len| Bytes::from(vec![!(number as u8); len])).collect();
                let body_len = pieces.iter().sum::<usize>() as u64;
                expected.extend(Frame::Message { head_len, body_len }.encode());
                expected.extend(&head);
                expected.extend(body.iter().flatten());
                queue.push_message(&head, body, body_len);
            }
            for step in steps.iter().cycle() {
                prop_assert_eq!(queue.bytes() as usize, expected.len() - got.len());
                if queue.is_empty() {
                    break;
                }
                let mut slices = [IoSlice::new(&[]); 5];
                let count = queue.gather(&mut slices[..gather]);
                let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
                let Front::Bytes(front) = queue.front() else { panic!("there are bytes") };
                prop_assert!(!front.is_empty() && bytes.starts_with(front));
                let taken = bytes.len().min(*step);
                got.extend_from_slice(&bytes[..taken]);
                queue.advance(taken);
            }
            prop_assert_eq!(got, expected);
        }
    }
}
