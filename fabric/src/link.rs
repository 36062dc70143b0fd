//! The two halves of a link, and what they carry.

use bytes::Bytes;
use smallvec::SmallVec;
use std::any::Any;
use std::os::fd::{BorrowedFd, OwnedFd};

/// The largest head, in bytes.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The bytes that follow a head, in pieces that are sent without being copied first. `Bytes::from_owner` lends memory that
/// somebody else owns, such as pages: the owner is dropped when the link no longer looks at it.
pub type Body = SmallVec<[Bytes; 2]>;

/// Memory that a body is to be put in.
///
/// # Safety
///
/// The parts must be initialized, valid for writes, and touched by nobody else, for as long as the value lives, wherever it
/// moves.
pub unsafe trait Destination: Any + Send {
    /// Where the body goes, in order. Always the same parts; together exactly as long as the body.
    fn parts(&self) -> &[Part];

    /// The value itself again, for whoever gave it.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

/// A run of bytes in memory.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The first byte.
    pub start: *mut u8,
    /// How many bytes.
    pub len: usize,
}

// SAFETY: a `Part` is only an address; whoever turns it into a reference answers for it.
unsafe impl Send for Part {}
// SAFETY: as above.
unsafe impl Sync for Part {}

/// What a body is to become.
pub enum Target {
    /// Put it there.
    Memory(Box<dyn Destination>),
    /// Skip it.
    Discard,
}

/// What a receiver has to say.
pub enum Incoming<'a> {
    /// Nothing just now. Wait for [`Receiver::interests`].
    Empty,
    /// A message. If `body_len` is not 0 the body waits: call [`Receiver::place`] before receiving on.
    Head {
        /// The head.
        head: &'a [u8],
        /// Length of the body in bytes.
        body_len: u64,
    },
    /// The body of the last head is in its place, whole.
    Body(Target),
}

/// A descriptor to wait on.
#[derive(Clone, Copy, Debug)]
pub struct Interest<'a> {
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
    /// Wait until it can be written, rather than read.
    pub writable: bool,
}

/// What to wait on.
pub type Interests<'a> = SmallVec<[Interest<'a>; 2]>;

/// The half of a link that sends.
///
/// Dropping it flushes once more and ends its direction: the peer receives all that was flushed, then
/// [`LinkError::Closed`]. The other direction goes on.
pub trait Sender: Send {
    /// Takes a message to be sent, if there is room for it; the head is copied, the body is not.
    ///
    /// Nothing need be on its way before [`flush`](Sender::flush): gather what there is to send, then flush once.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] gives the body back: flush, wait for [`interests`](Sender::interests) if that says `false`, and
    /// try again.
    /// [`TrySendError::Link`] if the link has ended or the message is over a limit of the link.
    fn try_send(&mut self, head: &[u8], body: Body) -> Result<(), TrySendError>;

    /// Lets the peer see what was taken so far, if that takes no system call. Whether there is nothing left to be done: else
    /// [`flush`](Sender::flush) soon, which also wakes a peer that sleeps. For those who send one message after the other and
    /// flush when they have no more: a peer that is awake begins with the first meanwhile.
    fn publish(&mut self) -> bool {
        false
    }

    /// Moves on what was taken, and wakes the peer at most once. Whether all of it is out of this half's hands.
    ///
    /// # Errors
    ///
    /// [`LinkError`] if the link has ended.
    fn flush(&mut self) -> Result<bool, LinkError>;

    /// What to wait on when `flush` said `false`, and then only: a socket can nearly always be written. A `flush` that said
    /// so has asked for the wake-up. The same descriptors for the life of the link, and none of them is also the receiver's, so that both halves fit into one epoll set.
    fn interests(&self) -> Interests<'_>;

    /// As [`Receiver::tag`]: for a half that waits for room.
    fn tag(&mut self, tag: u64) {
        let _ = tag;
    }

    /// Passes a descriptor, under a number that messages sent from now on may refer to.
    ///
    /// # Errors
    ///
    /// [`LinkError::Unsupported`] where the peer is on another host.
    fn pass_fd(&mut self, tag: u32, fd: BorrowedFd<'_>) -> Result<(), LinkError> {
        let _ = (tag, fd);
        Err(LinkError::Unsupported("passing descriptors"))
    }
}

/// The half of a link that receives.
///
/// Dropping it ends the link for those who send to it: the peer's sender says [`LinkError::Closed`] from then on (as may
/// the sender beside it, so drop both halves together).
pub trait Receiver: Send {
    /// The next thing that came.
    ///
    /// A receiver that said [`Incoming::Empty`] has asked its peer for a wake-up: one is due on its interests as soon as
    /// there is something, so that a caller may go to sleep without looking again.
    ///
    /// # Errors
    ///
    /// [`LinkError::Closed`] after the last message of a peer that is gone; others when the link broke.
    ///
    /// # Panics
    ///
    /// If a body waits to be placed.
    fn recv(&mut self) -> Result<Incoming<'_>, LinkError>;

    /// As [`recv`](Receiver::recv), for a caller that looks again by itself soon: [`Incoming::Empty`] asks for no wake-up, if the
    /// transport can do without, so that the peer need give none. Before it sleeps it has to call `recv`.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// As there.
    fn recv_awake(&mut self) -> Result<Incoming<'_>, LinkError> {
        self.recv()
    }

    /// Whether [`recv_awake`](Receiver::recv_awake) that finds nothing takes no system call.
    fn looks_for_free(&self) -> bool {
        false
    }

    /// The head that was received last, once more, until the next one is: for callers that cannot keep the borrow of
    /// [`recv`](Receiver::recv). Empty before the first.
    fn head(&self) -> &[u8];

    /// Burns up to `budget` of processor time until there is something to receive, if the transport can tell without the
    /// operating system. Call it before [`recv`](Receiver::recv): it takes back a wake-up that was asked for and not yet
    /// given, so that neither side makes a system call. Whether `recv` may have something to say; a transport that can't tell
    /// says that it may. With a budget of zero it looks once, or relies on a look that
    /// somebody just took.
    fn spin(&mut self, budget: std::time::Duration) -> bool {
        let _ = budget;
        true
    }

    /// What a loop calls this half that turns its listener itself: see [`Listener::poll`](crate::listen::Listener::poll).
    fn tag(&mut self, tag: u64) {
        let _ = tag;
    }

    /// Says whether the caller waits edge-triggered: not for a descriptor to be ready, but for it to become ready again. Then
    /// a half may leave its bells ringing, which saves a system call a wake-up. At first it does not.
    fn edge_triggered(&mut self, edges: bool) {
        let _ = edges;
    }

    /// Says where the body goes whose head was just received.
    ///
    /// # Panics
    ///
    /// If no body waits, or the destination has another length.
    fn place(&mut self, target: Target);

    /// What to wait on after [`Incoming::Empty`]. The same descriptors for the life of the link.
    fn interests(&self) -> Interests<'_>;

    /// Reads and writes of memory at the other end, where the transport has them.
    #[cfg(not(loom))]
    fn one_sided(&self) -> Option<crate::rdma::OneSided> {
        None
    }

    /// A descriptor that the peer passed under this number, if it came. It comes before any message sent after it.
    fn take_fd(&mut self, tag: u32) -> Option<OwnedFd> {
        let _ = tag;
        None
    }
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// This very process.
    InProcess,
    /// A process on this host, as the kernel vouches for it.
    Local {
        /// Its process; 0 if it is in a container of its own, into which this process can't look.
        pid: u32,
        /// Its user.
        uid: u32,
    },
    /// A process elsewhere.
    Remote(std::net::SocketAddr),
}

/// A connection to a peer.
pub struct Link {
    /// The half that sends.
    pub sender: Box<dyn Sender>,
    /// The half that receives.
    pub receiver: Box<dyn Receiver>,
    /// Who is at the other end.
    pub peer: Peer,
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TrySendError {
    /// No room just now.
    #[error("the link is full")]
    Full(Body),
    /// Never.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Why a link does not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer is gone, or this end was closed.
    #[error("the peer is gone")]
    Closed,
    /// The peer breaks the rules of the transport; the link is closed.
    #[error("the peer broke the protocol of the link: {0}")]
    Protocol(&'static str),
    /// A message over a limit. It was not sent, and the link goes on.
    #[error("{what} of {len} bytes is over the link's limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        len: u64,
        /// What may be.
        limit: u64,
    },
    /// The transport can't do that.
    #[error("this link does not support {0}")]
    Unsupported(&'static str),
    /// The peer is there and does not want us, or we it.
    #[error("refused: {0}")]
    Refused(&'static str),
    /// It took longer than it may.
    #[error("nothing within {0:?}")]
    Deadline(std::time::Duration),
    /// The peer's certificate is none that we may trust.
    #[error("the certificate of the peer is not accepted: {0}")]
    Certificate(String),
    /// A file of our own that TLS was to use can't be.
    #[error("{}: {why}", .file.display())]
    Credentials {
        /// The file.
        file: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An address that can't be understood.
    #[error("{address:?} is not an address: {why}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The operating system said no.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: std::io::Error,
    },
}

impl LinkError {
    pub(crate) fn io(doing: &'static str, source: impl Into<std::io::Error>) -> Self {
        Self::Io { doing, source: source.into() }
    }

    /// What an error of a socket means.
    #[cfg(not(loom))]
    pub(crate) fn socket(doing: &'static str, error: rustix::io::Errno) -> Self {
        use rustix::io::Errno;
        match error {
            Errno::PIPE
            | Errno::CONNRESET
            | Errno::CONNABORTED
            | Errno::TIMEDOUT
            | Errno::NOTCONN
            | Errno::SHUTDOWN => Self::Closed,
            error => Self::io(doing, error),
        }
    }
}

/// Checks a message against the limits of a link; the length of its body.
pub(crate) fn check_lengths(
    head: &[u8],
    body: &[Bytes],
    max_body_bytes: impl FnOnce() -> u64,
) -> Result<u64, LinkError> {
    if head.len() > MAX_HEAD_BYTES {
        return Err(LinkError::TooLarge { what: "a head", len: head.len() as u64, limit: MAX_HEAD_BYTES as u64 });
    }
    if body.is_empty() {
        return Ok(0);
    }
    let len = body.iter().map(|piece| piece.len() as u64).sum();
    let limit = max_body_bytes();
    if len > limit {
        return Err(LinkError::TooLarge { what: "a body", len, limit });
    }
    Ok(len)
}
