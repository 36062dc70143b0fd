//! What goes into the core and what comes out of it.

use dmrpc_pages::Extent;
use dmrpc_wire::{Hello, RegionInfo, Request, RequestHead};
use std::ops::Range;

/// Milliseconds since the node started. The core has no clock of its own.
pub type Now = u64;

/// A link to a client, named by the driver and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// Bytes in flight between a link and pages. The pages stand still until the driver says that it is done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Who may write a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// One client on this host maps it writable, and after it said so nobody else can.
    Client,
    /// Only the node.
    Node,
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A client said hello over a new link. `local`: the link passes descriptors and its end is the client's end.
    Hello {
        /// The link.
        link: LinkId,
        /// What it said.
        hello: Hello<'a>,
        /// The request's tag, for the answer.
        sequence: u64,
        /// Whether the client is on this host.
        local: bool,
        /// The tenant whose registered memory it can reach over this link.
        reaches: Option<u32>,
        /// Random bytes for the session's secrets.
        entropy: [u8; 24],
    },
    /// A client asked something. A request with a body comes before its body is read.
    Request {
        /// The link.
        link: LinkId,
        /// Its head.
        head: RequestHead,
        /// What it asks.
        request: Request<'a>,
        /// Length of the body that waits to be read, in bytes.
        body_len: u64,
    },
    /// Something came that is no request. The link is closed for it.
    Malformed {
        /// The link.
        link: LinkId,
        /// Length of the body that waits to be read, in bytes.
        body_len: u64,
    },
    /// The body of a write is in its pages, whole or not.
    Received {
        /// What was received.
        ticket: Ticket,
        /// Whether all of it came.
        whole: bool,
    },
    /// The pages of a read are no longer looked at.
    Sent {
        /// What was sent.
        ticket: Ticket,
    },
    /// A link is gone, and the driver touches no pages on its behalf any more. From a client on this host: so is its mapping.
    Disconnected {
        /// The link.
        link: LinkId,
    },
    /// A segment that was asked for is there.
    SegmentMade {
        /// The segment.
        segment: u32,
        /// Where it begins in its file, in bytes.
        file_offset: u64,
    },
    /// A segment that was asked for can't be had.
    SegmentFailed {
        /// The segment.
        segment: u32,
    },
    /// Memory that was to be registered is, or can't be.
    Registered {
        /// What was asked.
        ticket: Ticket,
        /// Where it is.
        region: Option<RegionInfo>,
    },
    /// Time went by. Wanted at least ten times a second.
    Tick,
}

/// Something that the driver is to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this head, which lies in [`Actions::heads`], without a body.
    Send {
        /// To whom.
        link: LinkId,
        /// The head.
        head: Range<usize>,
    },
    /// Send this head and the bytes of these pages as its body, then say [`Event::Sent`].
    SendPages {
        /// To whom.
        link: LinkId,
        /// The head.
        head: Range<usize>,
        /// What to say when done, or when given up.
        ticket: Ticket,
        /// The pages, in [`Actions::extents`]; holes are zeros.
        extents: Range<usize>,
        /// How many bytes to skip in the first page.
        skip: u32,
        /// How many bytes to send.
        length: u64,
    },
    /// Read the waiting body into these pages, then say [`Event::Received`]. Nothing else is read from the link before.
    Receive {
        /// From whom.
        link: LinkId,
        /// What to say when done.
        ticket: Ticket,
        /// Runs of bytes, in [`Actions::regions`], in the order of the body.
        regions: Range<usize>,
    },
    /// Skip the waiting body.
    Discard {
        /// Whose.
        link: LinkId,
    },
    /// Copy the page at `from` to the page at `to` (of which each is one page; a hole is zeros).
    CopyPage {
        /// The original.
        from: Extent,
        /// The copy.
        to: Extent,
    },
    /// Fill these bytes with zeros.
    ZeroBytes {
        /// Which.
        region: Region,
    },
    /// Make a segment, all its pages allocated and zero, then say [`Event::SegmentMade`] or [`Event::SegmentFailed`].
    MakeSegment {
        /// Its number.
        segment: u32,
        /// Its size.
        pages: u32,
        /// Who is to write it.
        access: Access,
    },
    /// Pass the segment's descriptor to the client over the link's descriptor channel.
    PassSegment {
        /// To whom.
        link: LinkId,
        /// Which.
        segment: u32,
    },
    /// Register memory for the client of this link, then say [`Event::Registered`]. What is registered for writing is the
    /// link's: it ends before [`Event::Disconnected`] is said.
    Register {
        /// For whom.
        link: LinkId,
        /// What to say when done.
        ticket: Ticket,
        /// The segment; `None` for the board.
        segment: Option<u32>,
        /// Whether to write, else to read.
        write: bool,
    },
    /// Enter an object on the board, or take it off.
    Post {
        /// The slot.
        slot: u32,
        /// The generation that is published there; 0 for none.
        generation: u32,
    },
    /// Let nobody map the segment writable any more.
    SealSegment {
        /// Which.
        segment: u32,
    },
    /// Forget the segment and give its memory back, even if clients still map it.
    DropSegment {
        /// Which.
        segment: u32,
    },
    /// Close the link once what was sent is out, then say [`Event::Disconnected`].
    Close {
        /// Which.
        link: LinkId,
    },
}

/// A run of bytes in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The segment.
    pub segment: u32,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// What the driver is to do, and the variable parts of it. Cleared and used again, so that steady work allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    /// What to do, in order.
    pub list: Vec<Action>,
    /// Heads of messages.
    pub heads: Vec<u8>,
    /// Pages to send.
    pub extents: Vec<Extent>,
    /// Bytes to receive into.
    pub regions: Vec<Region>,
}

impl Actions {
    /// Empties it.
    pub fn clear(&mut self) {
        self.list.clear();
        self.heads.clear();
        self.extents.clear();
        self.regions.clear();
    }

    /// Appends a message whose head `encode` writes.
    pub(crate) fn send(&mut self, link: LinkId, encode: impl FnOnce(&mut Vec<u8>)) {
        let head = self.head(encode);
        self.list.push(Action::Send { link, head });
    }

    /// Appends a head without sending it yet.
    pub(crate) fn head(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let start = self.heads.len();
        encode(&mut self.heads);
        start..self.heads.len()
    }
}
