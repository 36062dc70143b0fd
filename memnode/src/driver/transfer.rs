//! Bytes in flight between links and pages, without a copy in between.
//!
//! 1. The end of every transfer is told to the loop exactly once: a read's when the link no longer looks at the pages, a
//!    write's when its body has come ([`Landing::whole`]) or never will.
//! 2. A transfer keeps its segments mapped.

use super::inbox::{Inbox, News};
use super::segment::Segment;
use crate::core::{LinkId, Ticket};
use bytes::Bytes;
use dmrpc_fabric::link::{Body, Destination, Part};
use std::any::Any;
use std::sync::Arc;

/// What holes are sent from.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// A read on its way out. Clones of its `Arc` are the owners of the pieces of its body.
pub(crate) struct Sending {
    link: LinkId,
    ticket: Ticket,
    inbox: Arc<Inbox>,
}

impl Sending {
    /// A read that ends when the last piece of it is dropped.
    pub(crate) fn new(link: LinkId, ticket: Ticket, inbox: &Arc<Inbox>) -> Arc<Self> {
        Arc::new(Self { link, ticket, inbox: Arc::clone(inbox) })
    }

    /// Appends `length` bytes of `segment` from `offset` on to `body`.
    pub(crate) fn push(self: &Arc<Self>, body: &mut Body, segment: &Arc<Segment>, offset: u64, length: u64) {
        segment.drop_lines(offset, length);
        let start = segment.at(offset, length);
        let part = Part { start, len: length as usize };
        body.push(Bytes::from_owner(Piece { part, _segment: Arc::clone(segment), _sending: Arc::clone(self) }));
    }

    /// Appends `length` zeros to `body`.
    pub(crate) fn push_zeros(body: &mut Body, mut length: u64) {
        while length > 0 {
            let piece = length.min(ZEROS.len() as u64);
            body.push(Bytes::from_static(&ZEROS[..piece as usize]));
            length -= piece;
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.inbox.tell(News::Sent { link: self.link, ticket: self.ticket });
    }
}

/// A run of pages lent to a link.
struct Piece {
    part: Part,
    _segment: Arc<Segment>,
    _sending: Arc<Sending>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the part lies in `_segment`, which stays mapped. The pages belong to an object that the core keeps until
        // `Sending` is dropped, and objects never change: neither the node nor an honest client writes them. A client that
        // spoils its own object while it is sent spoils what its readers get; the bytes are only ever copied, never parsed.
        unsafe { std::slice::from_raw_parts(self.part.start, self.part.len) }
    }
}

/// Where the body of a write lands.
pub(crate) struct Landing {
    link: LinkId,
    ticket: Ticket,
    inbox: Arc<Inbox>,
    parts: Vec<Part>,
    /// Where each part is: its segment, and where in it.
    places: Vec<(Arc<Segment>, u64)>,
    whole: bool,
}

impl Landing {
    pub(crate) fn new(link: LinkId, ticket: Ticket, inbox: &Arc<Inbox>) -> Self {
        Self { link, ticket, inbox: Arc::clone(inbox), parts: Vec::new(), places: Vec::new(), whole: false }
    }

    /// Adds `length` bytes of `segment` from `offset` on.
    pub(crate) fn push(&mut self, segment: &Arc<Segment>, offset: u64, length: u64) {
        self.parts.push(Part { start: segment.at(offset, length), len: length as usize });
        self.places.push((Arc::clone(segment), offset));
    }

    /// How many bytes land here.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.len as u64).sum()
    }

    /// All of the body has come: whose it was, to be told by the caller.
    pub(crate) fn whole(mut self) -> Ticket {
        for (part, (segment, offset)) in self.parts.iter().zip(&self.places) {
            segment.write_back(*offset, part.len as u64);
        }
        self.whole = true;
        self.ticket
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if !self.whole {
            self.inbox.tell(News::Aborted { link: self.link, ticket: self.ticket });
        }
    }
}

// SAFETY: the parts lie in segments that the value keeps mapped, and the core gives the pages of a write to nobody else before
// it hears of the end of the transfer. They are in segments that only the node maps writable.
unsafe impl Destination for Landing {
    fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
