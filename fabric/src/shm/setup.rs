//! How the two sides of a shared-memory link come by it.
//!
//! The acceptor makes everything and sends it at once, in one message with six descriptors: the memory, the bells of both
//! rings, and a socket for descriptors to come. It waits for nothing, so that no peer can make it wait.
//!
//! ```text
//! the message      0       8       12      16           24
//!                  ┌───────┬───────┬───────┬────────────┐
//!                  │ magic │version│ status│ ring bytes │   little endian
//!                  └───────┴───────┴───────┴────────────┘
//! the memory       0           2048        4096           4096 + ring bytes
//!                  ┌───────────┬───────────┬──────────────┬──────────────┐
//!                  │ indices A │ indices B │ bytes of A   │ bytes of B   │   A: acceptor to connector, B: back
//!                  └───────────┴───────────┴──────────────┴──────────────┘
//! ```
//!
//! 1. The memory is sealed against shrinking and growing before anybody maps it; a connector checks that.
//! 2. Both sides check who the other is before anything is passed or used.

use super::area::Area;
use super::bell::Bell;
use super::credentials::{Credentials, credentials};
use super::lifeline::Lifeline;
use super::receiver::{ShmReceiver, State};
use super::ring::{Consumer, Indices, Producer};
use super::sender::ShmSender;
use crate::link::{Interest, Link, LinkError, Peer};
use crate::options::LinkOptions;
use crate::queue::Queue;
use crate::wait::wait;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::any::Any;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

const MAGIC: [u8; 8] = *b"DmRPCshm";
const VERSION: u32 = 1;
const ACCEPTED: u32 = 0;
const REFUSED: u32 = 1;

const MESSAGE_BYTES: usize = 24;
const DESCRIPTORS: usize = 6;

/// The smallest and the largest ring: one that has place for a few headers, and one that still maps.
const MIN_RING_BYTES: usize = 64;
const MAX_RING_BYTES: usize = 1 << 30;

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Where the parts of the memory are, in bytes.
const INDICES: [usize; 2] = [0, 2048];
const RINGS: usize = 4096;

const _: () = assert!(INDICES[1] - INDICES[0] >= size_of::<Indices>() && RINGS - INDICES[1] >= size_of::<Indices>());

/// The memory of a link, mapped.
struct Map {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it is only an address; whoever reaches the memory answers for it.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps a sealed memfd. `populate`: have all of it allocated now.
    fn new(memory: &OwnedFd, len: usize, populate: bool) -> Result<Self, LinkError> {
        let flags = if populate { MapFlags::SHARED | MapFlags::POPULATE } else { MapFlags::SHARED };
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags, memory, 0) }
            .map_err(|error| LinkError::io("mapping the memory of a link", error))?;
        let start = NonNull::new(start.cast()).ok_or(LinkError::Unsupported("memory at address 0"))?;
        Ok(Self { start, len })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by us, and nobody has its address any more: every `Area` keeps it alive.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

fn memory_bytes(ring_bytes: usize) -> usize {
    RINGS + 2 * ring_bytes
}

/// What a side does with the ring of that index.
fn area(map: &Arc<Map>, index: usize, ring_bytes: usize) -> Area {
    debug_assert!(map.len == memory_bytes(ring_bytes));
    // SAFETY: both lie within the map, which is as long as that.
    let (indices, bytes) = unsafe { (map.start.add(INDICES[index]), map.start.add(RINGS + index * ring_bytes)) };
    let owner: Arc<dyn Any + Send + Sync> = map.clone();
    // SAFETY: within the map, apart from each other, aligned as the map is to a page and the offsets are; only `Area` knows
    // the addresses, and the peer is not of this process.
    unsafe { Area::new(indices.cast(), bytes, ring_bytes, owner) }
}

/// Everything of a link before it is put together.
struct Kit {
    map: Arc<Map>,
    ring_bytes: usize,
    /// Data and space of ring A, data and space of ring B.
    bells: [[Bell; 2]; 2],
    channel: OwnedFd,
    socket: OwnedFd,
    peer: Peer,
}

impl Kit {
    /// The link of the side that produces in ring `out`.
    fn assemble(self, out: usize, options: &LinkOptions) -> Result<Link, LinkError> {
        let into = 1 - out;
        let (receiving, sending) = Lifeline::new(self.socket)?;
        let channel = Arc::new(self.channel);
        let [a, b] = self.bells;
        let ([out_data, out_space], [in_data, in_space]) = if out == 0 { (a, b) } else { (b, a) };
        // SAFETY: each side has been given its end of each ring, and makes it once, here.
        let producer = unsafe { Producer::new(area(&self.map, out, self.ring_bytes)) };
        // SAFETY: as above.
        let consumer = unsafe { Consumer::new(area(&self.map, into, self.ring_bytes)) };
        // Relaxed: a number that stands for itself.
        consumer.indices().rare.0.body_limit.store(options.max_body_bytes, Ordering::Relaxed);
        let sender = ShmSender {
            producer,
            queue: Queue::default(),
            data: out_data,
            space: out_space,
            waiting: false,
            lifeline: sending,
            channel: channel.clone(),
            passed: Default::default(),
            max_body_bytes: options.max_body_bytes,
            max_queued_bytes: options.max_queued_bytes,
            turn_bytes: options.turn_bytes.max(1),
            yielded: false,
            owes_bell: false,
        };
        let receiver = ShmReceiver {
            consumer,
            data: in_data,
            space: in_space,
            waiting: false,
            slept: false,
            lifeline: receiving,
            channel,
            kept: Vec::new(),
            max_body_bytes: options.max_body_bytes,
            turn_bytes: options.turn_bytes.max(1),
            yielded: false,
            edges: false,
            said_empty: false,
            state: State::Header,
            head: Vec::new(),
            head_len: 0,
        };
        Ok(Link { sender: Box::new(sender), receiver: Box::new(receiver), peer: self.peer })
    }
}

/// Who is at the other end, if it may be.
fn peer_of(socket: &OwnedFd, options: &LinkOptions) -> Result<Peer, LinkError> {
    let Credentials { pid, uid } =
        credentials(socket).map_err(|error| LinkError::io("asking who the peer is", error))?;
    if !options.allow.permits(uid) {
        return Err(LinkError::Refused("the peer runs as a user who is not allowed"));
    }
    Ok(Peer::Local { pid, uid })
}

fn message(status: u32, ring_bytes: usize) -> [u8; MESSAGE_BYTES] {
    let mut message = [0; MESSAGE_BYTES];
    message[..8].copy_from_slice(&MAGIC);
    message[8..12].copy_from_slice(&VERSION.to_le_bytes());
    message[12..16].copy_from_slice(&status.to_le_bytes());
    message[16..].copy_from_slice(&(ring_bytes as u64).to_le_bytes());
    message
}

/// The acceptor's part, over a socket that was just accepted. Never waits.
pub(crate) fn offer(socket: OwnedFd, options: &LinkOptions) -> Result<Link, LinkError> {
    let peer = match peer_of(&socket, options) {
        Err(refused @ LinkError::Refused(_)) => {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let _ = rustix::net::send(&socket, &message(REFUSED, 0), flags);
            return Err(refused);
        }
        peer => peer?,
    };
    let making = |error: Errno| LinkError::io("making the memory of a link", error);
    let ring_bytes = options.ring_bytes.clamp(MIN_RING_BYTES, MAX_RING_BYTES).next_power_of_two();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = memfd_create("dmrpc-link", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|error| if error == Errno::INVAL { memfd_create("dmrpc-link", flags) } else { Err(error) })
        .map_err(making)?;
    ftruncate(&memory, memory_bytes(ring_bytes) as u64).map_err(making)?;
    fcntl_add_seals(&memory, SEALS).map_err(making)?;
    let map = Arc::new(Map::new(&memory, memory_bytes(ring_bytes), false)?);
    for (index, limit) in [(0, u64::MAX), (1, options.max_body_bytes)] {
        // Relaxed: the peer sees it as it gets the descriptor. It lowers the limit of the ring that it consumes.
        area(&map, index, ring_bytes).indices().rare.0.body_limit.store(limit, Ordering::Relaxed);
    }
    let bell = || Bell::new().map_err(|error| LinkError::io("making an eventfd", error));
    let bells = [[bell()?, bell()?], [bell()?, bell()?]];
    let (channel, channel_of_peer) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
            .map_err(|error| LinkError::io("making a socket for descriptors", error))?;

    let fds: [_; DESCRIPTORS] = [
        memory.as_fd(),
        bells[0][0].as_fd(),
        bells[0][1].as_fd(),
        bells[1][0].as_fd(),
        bells[1][1].as_fd(),
        channel_of_peer.as_fd(),
    ];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = control.push(SendAncillaryMessage::ScmRights(&fds));
    debug_assert!(fits, "the space is made for it");
    let message = message(ACCEPTED, ring_bytes);
    // The socket is new and its buffer empty: this is taken whole or the peer is gone.
    match sendmsg(&socket, &[IoSlice::new(&message)], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(MESSAGE_BYTES) => {}
        Ok(_) => return Err(LinkError::Closed),
        Err(Errno::PIPE | Errno::CONNRESET) => return Err(LinkError::Closed),
        Err(error) => return Err(LinkError::io("passing the memory of a link", error)),
    }
    Kit { map, ring_bytes, bells, channel, socket, peer }.assemble(0, options)
}

/// The connector's part, over a socket that was just connected.
pub(crate) fn take(socket: OwnedFd, options: &LinkOptions, deadline: Instant) -> Result<Link, LinkError> {
    unpack(socket, options, deadline)?.assemble(1, options)
}

/// What a connector gets, before anything is read or written.
fn unpack(socket: OwnedFd, options: &LinkOptions, deadline: Instant) -> Result<Kit, LinkError> {
    let peer = peer_of(&socket, options)?;
    let mut bytes = [0; MESSAGE_BYTES];
    let mut filled = 0;
    let mut fds: Vec<OwnedFd> = Vec::new();
    while filled < MESSAGE_BYTES {
        wait(&[Interest { fd: socket.as_fd(), writable: false }], deadline)?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes[filled..])], &mut control, flags) {
            Ok(received) if received.bytes == 0 => return Err(LinkError::Closed),
            Ok(received) => filled += received.bytes,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(Errno::CONNRESET) => return Err(LinkError::Closed),
            Err(error) => return Err(LinkError::io("receiving the memory of a link", error)),
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
    }
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    if bytes[..8] != MAGIC {
        return Err(LinkError::Protocol("what listens there does not offer links"));
    }
    if word(8) != VERSION {
        return Err(LinkError::Protocol("the peer speaks another version"));
    }
    match word(12) {
        ACCEPTED => {}
        REFUSED => return Err(LinkError::Refused("the peer does not allow the user of this process")),
        _ => return Err(LinkError::Protocol("an answer of no known kind")),
    }
    let ring_bytes = usize::try_from(u64::from_le_bytes(bytes[16..].try_into().expect("eight bytes"))).unwrap_or(0);
    if !ring_bytes.is_power_of_two() || !(MIN_RING_BYTES..=MAX_RING_BYTES).contains(&ring_bytes) {
        return Err(LinkError::Protocol("a ring of no possible size"));
    }
    let Ok([memory, a_data, a_space, b_data, b_space, channel]) = <[OwnedFd; DESCRIPTORS]>::try_from(fds) else {
        return Err(LinkError::Protocol("not the descriptors of a link"));
    };
    // Invariant 1. Without the seals a peer could take the memory from under us.
    let seals = fcntl_get_seals(&memory).map_err(|_| LinkError::Protocol("memory that has no seals"))?;
    let stat = fstat(&memory).map_err(|error| LinkError::io("looking at the memory of a link", error))?;
    if !seals.contains(SEALS) || u64::try_from(stat.st_size) != Ok(memory_bytes(ring_bytes) as u64) {
        return Err(LinkError::Protocol("memory that is not sealed, or not as large as said"));
    }
    let map = Arc::new(Map::new(&memory, memory_bytes(ring_bytes), true)?);
    let bells = [[a_data.into(), a_space.into()], [b_data.into(), b_space.into()]];
    Ok(Kit { map, ring_bytes, bells, channel, socket, peer })
}

/// A connector that writes what it likes into the ring that its peer reads.
#[cfg(feature = "fuzz")]
pub(crate) struct RawPeer {
    producer: Producer,
    /// What else makes a link; its end is the peer's.
    kit: Kit,
}

#[cfg(feature = "fuzz")]
impl RawPeer {
    pub(crate) fn take(socket: OwnedFd, deadline: Instant) -> Result<Self, LinkError> {
        let kit = unpack(socket, &LinkOptions::default(), deadline)?;
        // SAFETY: the connector's end of ring B, which is made here only.
        let producer = unsafe { Producer::new(area(&kit.map, 1, kit.ring_bytes)) };
        Ok(Self { producer, kit })
    }

    /// Writes and publishes as much as there is room for; says how much.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<usize, LinkError> {
        let count = self.producer.room(1)?.min(bytes.len());
        self.producer.push(&bytes[..count]);
        self.producer.publish();
        if self.producer.consumer_wants_bell() {
            self.kit.bells[1][0].ring();
        }
        Ok(count)
    }

    /// Puts something else where the end of what was written stands.
    pub(crate) fn lie(&self, tail: u64) {
        self.producer.indices().producer.0.index.store(tail, Ordering::Release);
    }
}
