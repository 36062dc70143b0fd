//! A queue of DPDK's port as a device: IPv4 and UDP over Ethernet, past the kernel.
//!
//! EAL is a process-wide thing, so the [port](super::port) is too: the first link or listener of a process starts it, and all share
//! it. Frames are ordinary UDP, so that switches, receive-side scaling and packet dissectors understand them; neighbours are found by ARP.
//! Payload goes out from where it is if it lies in DPDK's own memory and the driver sends frames in pieces; else it is
//! copied into DPDK's buffers. What comes in stays in the driver's buffer until it is copied to its place.

use super::port::{ETHERNET_BYTES, FIRST_OWN_UDP_PORT, Mac, Neighbour, Port};
use super::reserved;
use crate::datagram::device::{Device, Frame};
use crate::datagram::links::PlaceOfPeer;
use crate::datagram::outbox::Piece;
use crate::link::{Interest, Interests, LinkError, Peer};
use bytes::Bytes;
use dmrpc_dpdk_sys as sys;
use std::ffi::c_void;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
/// What comes before a datagram in its frame.
const HEADERS_BYTES: usize = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const BROADCAST: Mac = [0xff; 6];
/// The shortest frame, for which Ethernet pads.
const MIN_FRAME_BYTES: usize = 60;
/// Frames to a driver in one call.
const BURST: usize = 64;
/// Peers whose headers are kept ready.
const ROUTES: usize = 64;
/// Shorter pieces are cheaper to copy than to lend.
const LENT_BYTES: usize = 256;
/// With fewer free buffers than this, frames are copied out of them, so that the port goes on receiving.
const LOW_BUFFERS: u32 = 2048;
/// After so many looks that found nothing the link itself is looked at.
const LOOKS: u32 = 1024;
/// After so many bursts the free buffers are counted.
const BURSTS: u32 = 32;
/// A frame in the driver's buffer, or out of it.
pub struct DpdkFrame {
    storage: Storage,
    start: usize,
    end: usize,
    /// Whether it came to another queue than it was for.
    strayed: bool,
}

enum Storage {
    /// In the driver's buffer.
    Mbuf { mbuf: *mut c_void, start: *const u8 },
    /// Copied out.
    Copied(Box<[u8]>),
}

// SAFETY: an mbuf is owned by this value alone, its bytes are only read, and it may be freed on any thread.
unsafe impl Send for DpdkFrame {}

impl Frame for DpdkFrame {
    fn bytes(&self) -> &[u8] {
        match &self.storage {
            // SAFETY: the frame is ours until it is freed, and was found to be at least `end` bytes long.
            Storage::Mbuf { start, .. } => unsafe {
                std::slice::from_raw_parts(start.add(self.start), self.end - self.start)
            },
            Storage::Copied(bytes) => &bytes[self.start..self.end],
        }
    }

    fn strayed(&self) -> bool {
        self.strayed
    }
}

impl Drop for DpdkFrame {
    fn drop(&mut self) {
        if let Storage::Mbuf { mbuf, .. } = self.storage {
            // SAFETY: it is ours and freed once.
            unsafe { sys::dmrpc_frame_free(mbuf) };
        }
    }
}

/// Two ends of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The other end.
    pub peer: SocketAddrV4,
    /// The UDP port of this end, which together with the other's decides which queues the frames come to.
    pub udp_port: u16,
}

impl PlaceOfPeer for Flow {
    fn peer(&self) -> Peer {
        Peer::Remote(self.peer.into())
    }
}

/// How to reach a peer, in the form it is needed for each frame.
struct Route {
    flow: Flow,
    mac: Mac,
    /// Ethernet, IPv4 and UDP headers, but for lengths and checksum.
    front: [u8; HEADERS_BYTES],
    /// The sum of the IPv4 header without its length.
    sum: u32,
}

/// A queue of the port.
pub struct DpdkDevice {
    port: Arc<Port>,
    lane: u8,
    queue: *mut sys::Queue,
    /// Peers spoken to lately, each at a place that follows from its address.
    routes: Vec<Option<Route>>,
    /// The port's count of moves when the routes were made.
    moves: u32,
    /// Looks in a row that found nothing.
    looks: u32,
    bursts: u32,
    /// Whether there are few free buffers.
    scarce: bool,
    /// Headers and copied pieces of the frames that wait; never grows beyond its first capacity, so that pointers into it hold.
    copied: Vec<u8>,
    pieces: Vec<sys::TxPiece>,
    packets: Vec<sys::TxPacket>,
    /// Frames that came in, of one burst.
    frames: Box<[sys::RxFrame; BURST]>,
    /// Frames that the shim has room for.
    room: usize,
    /// What to wait on, where the driver has something.
    fd: Option<OwnedFd>,
}

// SAFETY: the queue is used by whoever has the device, one thread at a time; the pieces' pointers are used up by `flush`.
unsafe impl Send for DpdkDevice {}

impl DpdkDevice {
    /// The queue of a port with this number.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] if there is no descriptor for what to wait on.
    pub(super) fn new(port: Arc<Port>, lane: u8) -> Result<Self, LinkError> {
        let queue = port.queue(lane);
        // SAFETY: the port runs, and the queue is nobody's yet.
        let raw_fd = unsafe { sys::dmrpc_rx_fd(queue) };
        let fd = (raw_fd >= 0).then(|| {
            // SAFETY: the driver keeps it open as long as the port is started.
            let fd = unsafe { BorrowedFd::borrow_raw(raw_fd) }.try_clone_to_owned()?;
            rustix::fs::fcntl_setfl(&fd, rustix::fs::fcntl_getfl(&fd)? | rustix::fs::OFlags::NONBLOCK)?;
            Ok(fd)
        });
        let fd =
            fd.transpose().map_err(|error: std::io::Error| LinkError::io("preparing a driver's descriptor", error))?;
        let none = sys::RxFrame { mbuf: std::ptr::null_mut(), start: std::ptr::null(), len: 0 };
        Ok(Self {
            lane,
            queue,
            routes: (0..ROUTES).map(|_| None).collect(),
            moves: port.moves(),
            looks: LOOKS,
            bursts: 0,
            scarce: false,
            copied: Vec::with_capacity((BURST + 1) * (port.mtu() + ETHERNET_BYTES)),
            pieces: Vec::new(),
            packets: Vec::new(),
            frames: Box::new([none; BURST]),
            room: BURST,
            fd,
            port,
        })
    }

    /// The port.
    pub fn port(&self) -> &Arc<Port> {
        &self.port
    }

    fn learn(&mut self, address: Ipv4Addr, mac: Mac) {
        self.port.learn(address, mac);
        self.forget_moved();
    }

    /// Drops the routes if a neighbour has moved since they were made.
    fn forget_moved(&mut self) {
        let moves = self.port.moves();
        if std::mem::replace(&mut self.moves, moves) != moves {
            self.routes.fill_with(|| None);
        }
    }

    /// Where the route of a flow is kept.
    fn place(flow: &Flow) -> usize {
        (usize::from(flow.peer.ip().octets()[3]) ^ usize::from(flow.peer.port()) ^ usize::from(flow.udp_port)) % ROUTES
    }

    /// The way to a peer, unless its Ethernet address is to be asked for first.
    fn route(&mut self, flow: &Flow) -> Option<&Route> {
        self.forget_moved();
        let place = Self::place(flow);
        if self.routes[place].as_ref().is_none_or(|route| route.flow != *flow) {
            let mac = match self.port.neighbour(*flow.peer.ip()) {
                Neighbour::Known(mac) => mac,
                Neighbour::Unknown { ask } => {
                    if ask {
                        self.send_arp(1, BROADCAST, [0; 6], *flow.peer.ip());
                    }
                    return None;
                }
            };
            let mut front = [0u8; HEADERS_BYTES];
            front[0..6].copy_from_slice(&mac);
            front[6..12].copy_from_slice(&self.port.mac());
            front[12..14].copy_from_slice(&ETHERTYPE_IPV4);
            let ip = &mut front[ETHERNET_BYTES..];
            ip[0] = 0x45;
            // Not to be fragmented, so that the identification means nothing (RFC 6864).
            ip[6] = 0x40;
            ip[8] = 64;
            ip[9] = 17;
            ip[12..16].copy_from_slice(&self.port.address().ip().octets());
            ip[16..20].copy_from_slice(&flow.peer.ip().octets());
            let sum = internet_sum(&ip[..IPV4_BYTES]);
            let udp = &mut ip[IPV4_BYTES..];
            udp[0..2].copy_from_slice(&flow.udp_port.to_be_bytes());
            udp[2..4].copy_from_slice(&flow.peer.port().to_be_bytes());
            self.routes[place] = Some(Route { flow: *flow, mac, front, sum });
        }
        self.routes[place].as_ref()
    }

    fn send_arp(&mut self, operation: u8, to: Mac, target: Mac, target_address: Ipv4Addr) {
        if self.packets.len() >= self.room {
            return;
        }
        let mut frame = [0u8; MIN_FRAME_BYTES];
        frame[0..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&self.port.mac());
        frame[12..14].copy_from_slice(&ETHERTYPE_ARP);
        // Ethernet, IPv4, lengths of their addresses.
        frame[14..20].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
        frame[21] = operation;
        frame[22..28].copy_from_slice(&self.port.mac());
        frame[28..32].copy_from_slice(&self.port.address().ip().octets());
        frame[32..38].copy_from_slice(&target);
        frame[38..42].copy_from_slice(&target_address.octets());
        let (first, start) = (self.pieces.len() as u32, self.copied.len());
        self.copied.extend_from_slice(&frame);
        self.push_copied(start);
        self.packets.push(sys::TxPacket { first, count: 1 });
    }

    /// Adds the piece of what was copied from `start` on, if it is any.
    fn push_copied(&mut self, start: usize) {
        let bytes = &self.copied[start..];
        if !bytes.is_empty() {
            self.pieces.push(sys::TxPiece { start: bytes.as_ptr(), len: bytes.len() as u32, lent: 0, owner: [0; 4] });
        }
    }

    /// What a frame is: a datagram for us, from whom and where in the frame; or something that was dealt with.
    fn classify(&mut self, frame: &[u8]) -> Option<(Flow, usize, usize)> {
        let mac: Mac = frame.get(6..12)?.try_into().ok()?;
        match frame.get(12..14)?.try_into().ok()? {
            ETHERTYPE_ARP => {
                let arp = frame.get(14..42)?;
                let sender = Ipv4Addr::from(<[u8; 4]>::try_from(&arp[14..18]).ok()?);
                let target = Ipv4Addr::from(<[u8; 4]>::try_from(&arp[24..28]).ok()?);
                if arp[..6] != [0, 1, 8, 0, 6, 4] || arp[6] != 0 || target != *self.port.address().ip() {
                    return None;
                }
                let sender_mac: Mac = arp[8..14].try_into().ok()?;
                self.learn(sender, sender_mac);
                if arp[7] == 1 {
                    self.send_arp(2, sender_mac, sender_mac, sender);
                }
                None
            }
            ETHERTYPE_IPV4 => {
                let ip = &frame[ETHERNET_BYTES..];
                let header = usize::from(ip.first()? & 15) * 4;
                let fragmented = u16::from_be_bytes(ip.get(6..8)?.try_into().ok()?) & 0x3fff != 0;
                if ip[0] >> 4 != 4 || header < IPV4_BYTES || fragmented || *ip.get(9)? != 17 {
                    return None;
                }
                let source = Ipv4Addr::from(<[u8; 4]>::try_from(ip.get(12..16)?).ok()?);
                let target = Ipv4Addr::from(<[u8; 4]>::try_from(ip.get(16..20)?).ok()?);
                let udp = ip.get(header..header + UDP_BYTES)?;
                let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
                let ours = port(2) == self.port.address().port() || port(2) >= FIRST_OWN_UDP_PORT;
                if target != *self.port.address().ip() || !ours {
                    return None;
                }
                let start = ETHERNET_BYTES + header + UDP_BYTES;
                let end = start + usize::from(port(4)).checked_sub(UDP_BYTES)?;
                if end > frame.len() {
                    return None;
                }
                let flow = Flow { peer: SocketAddrV4::new(source, port(0)), udp_port: port(2) };
                let known = self.routes[Self::place(&flow)].as_ref();
                if !known.is_some_and(|route| *route.flow.peer.ip() == source && route.mac == mac) {
                    self.learn(source, mac);
                }
                Some((flow, start, end))
            }
            _ => None,
        }
    }

    /// Done now and then while nothing comes.
    fn see_to_link(&mut self) {
        self.looks = 0;
        {
            let _use = self.port.hold();
            // SAFETY: the port runs.
            unsafe { sys::dmrpc_tx_reap(self.queue) };
        }
        self.port.see_to_link();
    }
}

/// The sum of RFC 1071 over a header, not yet folded.
fn internet_sum(header: &[u8]) -> u32 {
    header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

/// The checksum that a sum makes.
fn internet_checksum(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

const _: () = assert!(size_of::<Bytes>() == size_of::<sys::Owner>() && align_of::<Bytes>() <= align_of::<sys::Owner>());

/// Drops what kept lent memory.
unsafe extern "C" fn release(owner: *mut sys::Owner) {
    // SAFETY: the shim passes each owner that it was given back once, and every one is a `Bytes` (see `send`).
    drop(unsafe { owner.cast::<Bytes>().read() });
}

/// Makes this thread known to EAL once, for as long as it lives.
fn attach_thread() {
    struct Attached;
    impl Drop for Attached {
        fn drop(&mut self) {
            // SAFETY: the thread was attached.
            unsafe { sys::dmrpc_thread_detach() };
        }
    }
    thread_local! {
        static ATTACHED: Option<Attached> = {
            // SAFETY: EAL runs, as there is a port.
            (unsafe { sys::dmrpc_thread_attach() } == 0).then_some(Attached)
        };
    }
    // At the end of a thread it is too late, and works without.
    let _ = ATTACHED.try_with(|_| ());
}

impl Device for DpdkDevice {
    type Frame = DpdkFrame;
    type Place = Flow;

    fn datagram_bytes(&self) -> usize {
        self.port.mtu() - IPV4_BYTES - UDP_BYTES
    }

    /// Frames have Ethernet's, and shared memory damages none.
    fn needs_checksum(&self) -> bool {
        false
    }

    fn receive(&mut self, most: usize, take: &mut dyn FnMut(Flow, DpdkFrame)) -> Result<(), LinkError> {
        attach_thread();
        self.port.passed(self.lane, take);
        let most = most.min(BURST) as u32;
        let count = {
            let _use = self.port.hold();
            // SAFETY: the port runs, and there is room for so many frames.
            unsafe { sys::dmrpc_rx_burst(self.queue, self.frames.as_mut_ptr(), most) as usize }
        };
        if count == 0 {
            self.looks += 1;
            if self.looks >= LOOKS {
                self.see_to_link();
            }
            return Ok(());
        }
        self.looks = 0;
        self.port.count(self.lane, count as u64);
        self.bursts += 1;
        if self.bursts >= BURSTS || self.scarce {
            self.bursts = 0;
            // SAFETY: the port runs.
            self.scarce = unsafe { sys::dmrpc_rx_buffers_free(self.queue) } < LOW_BUFFERS;
        }
        for index in 0..count {
            let raw = self.frames[index];
            let storage = Storage::Mbuf { mbuf: raw.mbuf, start: raw.start };
            let mut frame = DpdkFrame { storage, start: 0, end: raw.len as usize, strayed: false };
            // SAFETY: the frame is ours and so long.
            let bytes = unsafe { std::slice::from_raw_parts(raw.start, raw.len as usize) };
            let Some((flow, start, end)) = self.classify(bytes) else { continue };
            (frame.start, frame.end) = (start, end);
            if self.scarce {
                let storage = Storage::Copied(frame.bytes().into());
                frame = DpdkFrame { start: 0, end: end - start, storage, strayed: false };
            }
            take(flow, frame);
        }
        Ok(())
    }

    fn lane(&self) -> u8 {
        self.lane
    }

    fn lanes(&self) -> u8 {
        self.port.lanes()
    }

    fn pass(&mut self, lane: u8, flow: Flow, mut frame: DpdkFrame) {
        frame.strayed = true;
        self.port.pass(self.lane, lane, flow, frame);
    }

    fn claim(&mut self, flow: &Flow, attempt: u64) -> u8 {
        self.port.claim(flow, attempt, self.lane)
    }

    fn disclaim(&mut self, flow: &Flow, attempt: u64) {
        self.port.disclaim(flow, attempt);
    }

    fn room(&mut self) -> usize {
        // An answer to ARP may come between.
        (self.room - self.packets.len()).saturating_sub(1)
    }

    fn send(&mut self, to: &Flow, header: &[u8], pieces: &[Piece<'_>]) {
        let payload: usize = header.len() + pieces.iter().map(|piece| piece.bytes().len()).sum::<usize>();
        if self.packets.len() >= self.room || payload > self.datagram_bytes() {
            return;
        }
        let Some(route) = self.route(to) else { return };
        let ip_bytes = (IPV4_BYTES + UDP_BYTES + payload) as u16;
        let mut front = route.front;
        let checksum = internet_checksum(route.sum + u32::from(ip_bytes));
        front[ETHERNET_BYTES + 2..][..2].copy_from_slice(&ip_bytes.to_be_bytes());
        front[ETHERNET_BYTES + 10..][..2].copy_from_slice(&checksum.to_be_bytes());
        let udp_bytes = (UDP_BYTES + payload) as u16;
        front[ETHERNET_BYTES + IPV4_BYTES + 4..][..2].copy_from_slice(&udp_bytes.to_be_bytes());

        let first = self.pieces.len();
        let mut copied = self.copied.len();
        debug_assert!(copied + HEADERS_BYTES + payload.max(MIN_FRAME_BYTES) <= self.copied.capacity());
        self.copied.extend_from_slice(&front);
        self.copied.extend_from_slice(header);
        for piece in pieces {
            match piece {
                Piece::Lent(bytes, start, end) if end - start >= LENT_BYTES => {
                    let reserved = self.port.sends_pieces() && reserved::contains(&bytes[*start..*end]);
                    self.push_copied(copied);
                    copied = self.copied.len();
                    let lent = bytes.slice(*start..*end);
                    let (start, len) = (lent.as_ptr(), lent.len() as u32);
                    // SAFETY: a `Bytes` is as large, has no padding, and is made of plain words and pointers; it is read back as
                    // one, once, by `release`.
                    let owner = unsafe { std::mem::transmute::<Bytes, sys::Owner>(lent) };
                    // Other memory is copied once, by the shim, into the driver's buffer.
                    let lent = if reserved { sys::LENT } else { sys::OWNED };
                    self.pieces.push(sys::TxPiece { start, len, lent, owner });
                }
                piece => self.copied.extend_from_slice(piece.bytes()),
            }
        }
        let frame = HEADERS_BYTES + payload;
        if frame < MIN_FRAME_BYTES {
            self.copied.extend_from_slice(&[0; MIN_FRAME_BYTES][..MIN_FRAME_BYTES - frame]);
        }
        self.push_copied(copied);
        let count = (self.pieces.len() - first) as u32;
        self.packets.push(sys::TxPacket { first: first as u32, count });
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        if self.packets.is_empty() && self.room == BURST {
            return Ok(());
        }
        attach_thread();
        let count = self.packets.len() as u32;
        let room = {
            let _use = self.port.hold();
            // SAFETY: the port runs; there are no more frames than there was room for; pieces point into `copied`, which has not
            // moved, or to memory that their owners keep; the shim takes the owners.
            unsafe { sys::dmrpc_tx_burst(self.queue, self.packets.as_ptr(), count, self.pieces.as_mut_ptr(), release) }
        };
        self.room = room as usize;
        self.packets.clear();
        self.pieces.clear();
        self.copied.clear();
        Ok(())
    }

    fn interests(&self) -> Interests<'_> {
        // A driver that can't be waited on is looked at often enough for what other lanes pass on.
        let fds = self.fd.iter().flat_map(|fd| [fd, self.port.bell(self.lane)]);
        fds.map(|fd| Interest { fd: fd.as_fd(), writable: false }).collect()
    }

    fn rest(&mut self, asleep: bool) -> bool {
        let Some(fd) = &self.fd else { return false };
        // SAFETY: the port runs.
        unsafe { sys::dmrpc_rx_interrupt(self.queue, asleep.into()) };
        if !asleep {
            // Some drivers leave their bell ringing.
            let _ = rustix::io::read(fd, &mut [0u8; 8]);
        }
        asleep
    }
}

impl Drop for DpdkDevice {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}
