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
use crate::datagram::packet::HEADER_BYTES;
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
/// After so many frames the free buffers are counted.
const FRAMES: u32 = 1024;

/// A datagram in the driver's buffer, or out of it.
pub struct DpdkFrame {
    /// Null if it was copied out: then the bytes are a boxed slice.
    mbuf: *mut c_void,
    start: *const u8,
    len: u32,
    /// Whether it came to another queue than it was for.
    strayed: bool,
}

impl DpdkFrame {
    /// Gives the driver its buffer back.
    fn copied(self) -> Self {
        let bytes: Box<[u8]> = self.bytes().into();
        let (len, strayed) = (self.len, self.strayed);
        Self { mbuf: std::ptr::null_mut(), start: Box::into_raw(bytes).cast(), len, strayed }
    }
}

// SAFETY: an mbuf or a box is owned by this value alone, its bytes are only read, and it may be freed on any thread.
unsafe impl Send for DpdkFrame {}

impl Frame for DpdkFrame {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: the frame is ours until it is freed, and was found to be so long.
        unsafe { std::slice::from_raw_parts(self.start, self.len as usize) }
    }

    fn strayed(&self) -> bool {
        self.strayed
    }
}

impl Drop for DpdkFrame {
    #[inline]
    fn drop(&mut self) {
        if self.mbuf.is_null() {
            let bytes = std::ptr::slice_from_raw_parts_mut(self.start.cast_mut(), self.len as usize);
            // SAFETY: it is the box that `copied` made, and freed once.
            drop(unsafe { Box::from_raw(bytes) });
        } else {
            // SAFETY: it is ours and freed once.
            unsafe { sys::dmrpc_frame_free(self.mbuf) };
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
    /// What a frame from there has where its addresses and ports are: from the source's Ethernet address on, and from its IPv4
    /// address on.
    ethernet: [u8; 8],
    addresses: [u8; 12],
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
    /// Frames that came since the free buffers were counted.
    uncounted: u32,
    /// Whether there are few free buffers.
    scarce: bool,
    /// Frames that wait to be sent.
    packets: Vec<sys::TxFrame>,
    /// Buffers for more.
    spare: Vec<sys::TxFrame>,
    /// Frames of the last burst that was sent: so many buffers are taken at a time.
    last_burst: usize,
    /// Frames that came in, of one burst.
    frames: Box<[sys::RxFrame; BURST]>,
    /// Frames that the shim has room for.
    room: usize,
    /// What to wait on, where the driver has something.
    fd: Option<OwnedFd>,
}

// SAFETY: the queue is used by whoever has the device, one thread at a time, and buffers may change threads.
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
            uncounted: 0,
            scarce: false,
            packets: Vec::with_capacity(BURST),
            spare: Vec::with_capacity(BURST),
            last_burst: 1,
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
    #[inline]
    fn forget_moved(&mut self) {
        let moves = self.port.moves();
        if std::mem::replace(&mut self.moves, moves) != moves {
            self.routes.fill_with(|| None);
        }
    }

    /// Where the route of a flow is kept.
    fn place(flow: &Flow) -> usize {
        (flow.peer.ip().octets()[3] ^ flow.peer.port() as u8 ^ flow.udp_port as u8) as usize % ROUTES
    }

    /// The way to a peer, unless its Ethernet address is to be asked for first.
    #[inline]
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
            let mut ethernet = [0; 8];
            ethernet[..6].copy_from_slice(&mac);
            ethernet[6..].copy_from_slice(&ETHERTYPE_IPV4);
            let mut addresses = [0; 12];
            addresses[..4].copy_from_slice(&flow.peer.ip().octets());
            addresses[4..8].copy_from_slice(&self.port.address().ip().octets());
            addresses[8..10].copy_from_slice(&flow.peer.port().to_be_bytes());
            addresses[10..].copy_from_slice(&flow.udp_port.to_be_bytes());
            self.routes[place] = Some(Route { flow: *flow, mac, front, ethernet, addresses, sum });
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
        let Some(mut buffer) = self.buffer() else { return };
        write(&mut buffer, &frame);
        self.packets.push(buffer);
    }

    /// A buffer for a frame; none if all are on their way.
    #[inline]
    fn buffer(&mut self) -> Option<sys::TxFrame> {
        if self.spare.is_empty() {
            let most = self.last_burst.clamp(1, BURST);
            // SAFETY: the port runs, and there is room for so many, of which as many are written as is said.
            unsafe {
                let count = sys::dmrpc_tx_alloc(self.queue, self.spare.as_mut_ptr(), most as u32);
                self.spare.set_len(count as usize);
            }
        }
        self.spare.pop()
    }

    /// Appends memory of DPDK's to a frame, from where it is.
    fn lend(&self, buffer: &sys::TxFrame, bytes: Bytes) -> bool {
        let (start, len) = (bytes.as_ptr(), bytes.len() as u32);
        // SAFETY: a `Bytes` is as large, has no padding, and is made of plain words and pointers; it is read back as one, once, by
        // `release`.
        let owner = unsafe { std::mem::transmute::<Bytes, sys::Owner>(bytes) };
        // SAFETY: the port runs, the buffer is ours, and the shim keeps the owner as long as it looks at the memory.
        unsafe { sys::dmrpc_tx_lend(self.queue, buffer.mbuf, start, len, &raw const owner, release) == 0 }
    }

    /// A datagram from a peer that is spoken to, as nearly all are: its headers are those that go there, the other way round.
    #[inline]
    fn expected(&self, frame: &[u8]) -> Option<(Flow, usize, usize)> {
        let head = frame.first_chunk::<HEADERS_BYTES>()?;
        let (ip, udp) = (ETHERNET_BYTES, ETHERNET_BYTES + IPV4_BYTES);
        let place = (head[ip + 15] ^ head[udp + 1] ^ head[udp + 3]) as usize % ROUTES;
        let route = self.routes[place].as_ref()?;
        let end = HEADERS_BYTES - UDP_BYTES + usize::from(u16::from_be_bytes([head[udp + 4], head[udp + 5]]));
        // Version and header length, no fragment, protocol; and that the peer has not moved.
        let is_it = head[6..14] == route.ethernet
            && head[ip + 12..udp + 4] == route.addresses
            && head[ip] == 0x45
            && u16::from_be_bytes([head[ip + 6], head[ip + 7]]) & 0x3fff == 0
            && head[ip + 9] == 17;
        (is_it && end >= HEADERS_BYTES && end <= frame.len()).then_some((route.flow, HEADERS_BYTES, end))
    }

    /// What a frame is: a datagram for us, from whom and where in the frame; or something that was dealt with.
    fn classify(&mut self, frame: &[u8]) -> Option<(Flow, usize, usize)> {
        if let Some(found) = self.expected(frame) {
            return Some(found);
        }
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

/// Appends bytes to what was written to a buffer, which has room for the longest frame of the port.
#[inline]
fn write(buffer: &mut sys::TxFrame, bytes: &[u8]) {
    // SAFETY: the buffer is ours, and `send` checks that a frame is not longer than the port's longest.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.start.add(buffer.len as usize), bytes.len()) };
    buffer.len += bytes.len() as u32;
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
    // SAFETY: the shim passes each owner that it was given back once, and every one is a `Bytes` (see `lend`).
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

    fn is_contended(&self) -> bool {
        !self.port.is_ring()
    }

    /// Frames have Ethernet's, and shared memory damages none.
    fn needs_checksum(&self) -> bool {
        false
    }

    #[inline]
    fn receive(&mut self, most: usize, mut take: impl FnMut(Flow, DpdkFrame)) -> Result<(), LinkError> {
        attach_thread();
        self.port.passed(self.lane, &mut take);
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
        self.uncounted += count as u32;
        if self.uncounted >= FRAMES || self.scarce {
            self.uncounted = 0;
            // SAFETY: the port runs.
            self.scarce = unsafe { sys::dmrpc_rx_buffers_free(self.queue) } < LOW_BUFFERS;
        }
        for index in 0..count {
            let raw = self.frames[index];
            let mut frame = DpdkFrame { mbuf: raw.mbuf, start: raw.start, len: raw.len, strayed: false };
            // SAFETY: the frame is ours and so long.
            let bytes = unsafe { std::slice::from_raw_parts(raw.start, raw.len as usize) };
            let Some((flow, start, end)) = self.classify(bytes) else { continue };
            // SAFETY: the datagram is a part of the frame.
            (frame.start, frame.len) = (unsafe { raw.start.add(start) }, (end - start) as u32);
            if self.scarce {
                frame = frame.copied();
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

    #[inline]
    fn send(&mut self, to: &Flow, header: &[u8; HEADER_BYTES], pieces: &[Piece<'_>]) {
        let payload: usize = header.len() + pieces.iter().map(|piece| piece.bytes().len()).sum::<usize>();
        if self.packets.len() >= self.room || payload > self.datagram_bytes() {
            return;
        }
        let Some(mut buffer) = self.buffer() else { return };
        let Some(route) = self.route(to) else { return self.spare.push(buffer) };
        let ip_bytes = (IPV4_BYTES + UDP_BYTES + payload) as u16;
        let checksum = internet_checksum(route.sum + u32::from(ip_bytes));
        let udp_bytes = (UDP_BYTES + payload) as u16;
        let mut front = [0u8; HEADERS_BYTES + HEADER_BYTES];
        front[..HEADERS_BYTES].copy_from_slice(&route.front);
        front[ETHERNET_BYTES + 2..][..2].copy_from_slice(&ip_bytes.to_be_bytes());
        front[ETHERNET_BYTES + 10..][..2].copy_from_slice(&checksum.to_be_bytes());
        front[ETHERNET_BYTES + IPV4_BYTES + 4..][..2].copy_from_slice(&udp_bytes.to_be_bytes());
        front[HEADERS_BYTES..].copy_from_slice(header);
        write(&mut buffer, &front);
        // Behind a piece that was lent the others are in buffers of their own.
        let mut lent = false;
        for piece in pieces {
            let sound = match piece {
                Piece::Lent(bytes, start, end)
                    if end - start >= LENT_BYTES
                        && self.port.sends_pieces()
                        && reserved::contains(&bytes[*start..*end]) =>
                {
                    lent = true;
                    self.lend(&buffer, bytes.slice(*start..*end))
                }
                piece if !lent => {
                    write(&mut buffer, piece.bytes());
                    true
                }
                piece => {
                    let bytes = piece.bytes();
                    // SAFETY: the port runs, the buffer is ours, and the bytes are copied.
                    unsafe { sys::dmrpc_tx_append(self.queue, buffer.mbuf, bytes.as_ptr(), bytes.len() as u32) == 0 }
                }
            };
            if !sound {
                // SAFETY: it is ours and freed once.
                return unsafe { sys::dmrpc_frame_free(buffer.mbuf) };
            }
        }
        if HEADERS_BYTES + payload < MIN_FRAME_BYTES {
            write(&mut buffer, &[0; MIN_FRAME_BYTES][HEADERS_BYTES + payload..]);
        }
        self.packets.push(buffer);
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        if self.packets.is_empty() && self.room == BURST {
            return Ok(());
        }
        attach_thread();
        let count = self.packets.len();
        let room = {
            let _use = self.port.hold();
            // SAFETY: the port runs; there are no more frames than there was room for, and the shim takes them.
            unsafe { sys::dmrpc_tx_burst(self.queue, self.packets.as_ptr(), count as u32) }
        };
        self.room = room as usize;
        self.last_burst = count;
        self.packets.clear();
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
        for buffer in self.spare.drain(..) {
            // SAFETY: it is ours and freed once.
            unsafe { sys::dmrpc_frame_free(buffer.mbuf) };
        }
    }
}
