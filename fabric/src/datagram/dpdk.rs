//! A port of DPDK's as a device: IPv4 and UDP over Ethernet, past the kernel.
//!
//! EAL is a process-wide thing, so the port is too: the first link or listener of a process starts it, and all share it. Frames
//! are ordinary UDP, so that switches, receive-side scaling and packet dissectors understand them; neighbours are found by ARP.
//! Payload goes out from where it is if it lies in DPDK's own memory and the driver sends frames in pieces; else it is
//! copied into DPDK's buffers. What comes in stays in the driver's buffer until it is copied to its place.

use super::device::{Device, Frame};
use super::endpoint::EndpointOptions;
use super::links::{PlaceOfPeer, Shared};
use super::outbox::Piece;
use crate::link::{Interests, LinkError, Peer};
use bytes::Bytes;
use dmrpc_dpdk_sys as sys;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const ETHERNET_BYTES: usize = 14;
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
const RING_ENTRIES: u16 = 1024;
const BUFFERS: u32 = 8192;
/// With fewer free buffers than this, frames are copied out of them, so that the port goes on receiving.
const LOW_BUFFERS: u32 = 2048;
/// The same neighbour is asked for at most so often.
const ARP_INTERVAL: Duration = Duration::from_millis(1);
/// A port without a link is started anew at most so often.
const RESTART_INTERVAL: Duration = Duration::from_millis(20);
/// Neighbours that are remembered.
const MAX_NEIGHBOURS: usize = 65_536;

type Mac = [u8; 6];

/// How a process uses DPDK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpdkOptions {
    /// Arguments of EAL, as one would give them to any program of DPDK's.
    pub eal: Vec<String>,
    /// This host's address on the port's network.
    pub address: Ipv4Addr,
    /// The longest IP packet, in bytes. For net_memif `bsize` less 14 at most.
    pub mtu: usize,
}

impl DpdkOptions {
    /// From the environment: `DMRPC_DPDK_EAL`, `DMRPC_DPDK_ADDRESS`, `DMRPC_DPDK_MTU` (1500).
    ///
    /// # Errors
    ///
    /// [`LinkError::Unsupported`] if something is missing or makes no sense.
    pub fn from_env() -> Result<Self, LinkError> {
        let eal = std::env::var("DMRPC_DPDK_EAL")
            .map_err(|_| LinkError::Unsupported("DPDK without EAL arguments: set DMRPC_DPDK_EAL"))?;
        let address = std::env::var("DMRPC_DPDK_ADDRESS")
            .ok()
            .and_then(|address| address.parse().ok())
            .ok_or(LinkError::Unsupported("DPDK without an IPv4 address of this host: set DMRPC_DPDK_ADDRESS"))?;
        let mtu = match std::env::var("DMRPC_DPDK_MTU") {
            Ok(mtu) => mtu.parse().map_err(|_| LinkError::Unsupported("a DMRPC_DPDK_MTU that is no number"))?,
            Err(_) => 1500,
        };
        Ok(Self { eal: eal.split_whitespace().map(str::to_owned).collect(), address, mtu })
    }
}

/// What this process was told by [`configure`].
static CONFIGURED: OnceLock<DpdkOptions> = OnceLock::new();

/// Says how this process uses DPDK, before its first link over it; otherwise the environment does.
///
/// # Errors
///
/// [`LinkError::Unsupported`] if something else was said before.
pub fn configure(options: DpdkOptions) -> Result<(), LinkError> {
    match CONFIGURED.set(options) {
        Ok(()) => Ok(()),
        Err(options) if CONFIGURED.get() == Some(&options) => Ok(()),
        Err(_) => Err(LinkError::Unsupported("DPDK configured twice in one process")),
    }
}

/// The port of this process, which speaks at UDP port `udp_port`. It is started once, and stays.
pub(super) fn endpoint(udp_port: u16, options: EndpointOptions) -> Result<Arc<Shared<DpdkDevice>>, LinkError> {
    static ENDPOINT: Mutex<Option<Arc<Shared<DpdkDevice>>>> = Mutex::new(None);
    let mut endpoint = ENDPOINT.lock();
    let shared = match &*endpoint {
        Some(shared) => shared.clone(),
        None => {
            let dpdk = match CONFIGURED.get() {
                Some(options) => options.clone(),
                None => DpdkOptions::from_env()?,
            };
            endpoint.insert(Shared::new(DpdkDevice::start(&dpdk, udp_port)?, options)?).clone()
        }
    };
    let speaks_at = shared.with_device(|device| device.address().port());
    if speaks_at != udp_port {
        return Err(LinkError::Unsupported("a second UDP port on the DPDK port of one process"));
    }
    Ok(shared)
}

/// What the shim said went wrong last.
fn shim_error(doing: &'static str) -> LinkError {
    // SAFETY: the shim gives a string that lives as long as its thread.
    let message = unsafe { CStr::from_ptr(sys::dmrpc_error()) }.to_string_lossy().into_owned();
    LinkError::Io { doing, source: std::io::Error::other(message) }
}

/// Starts EAL, the first time.
fn start_eal(arguments: &[String]) -> Result<(), LinkError> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let result = STARTED.get_or_init(|| {
        // SAFETY: both give strings that live for ever.
        let (built, running) =
            unsafe { (CStr::from_ptr(sys::dmrpc_version_built()), CStr::from_ptr(sys::dmrpc_version_running())) };
        let (built, running) = (built.to_string_lossy(), running.to_string_lossy());
        if !running.contains(&*built) {
            return Err(format!("built for DPDK {built} and run with {running}: build again"));
        }
        let mut arguments: Vec<*mut std::ffi::c_char> = std::iter::once("dmrpc")
            .chain(arguments.iter().map(String::as_str))
            // EAL keeps pointers into its arguments.
            .map(|argument| CString::new(argument).map(CString::into_raw))
            .collect::<Result<_, _>>()
            .map_err(|_| "an EAL argument with a NUL".to_owned())?;
        let count = arguments.len() as i32;
        arguments.push(std::ptr::null_mut());
        // SAFETY: `count` strings and a null; EAL may reorder them and keep them, so the array is leaked with them.
        let result = unsafe { sys::dmrpc_eal_init(count, arguments.leak().as_mut_ptr()) };
        if result == 0 { Ok(()) } else { Err(shim_error("starting DPDK").to_string()) }
    });
    result.clone().map_err(|why| LinkError::Io { doing: "starting DPDK", source: std::io::Error::other(why) })
}

/// A frame in the driver's buffer, or out of it.
pub struct DpdkFrame {
    storage: Storage,
    start: usize,
    end: usize,
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
}

impl Drop for DpdkFrame {
    fn drop(&mut self) {
        if let Storage::Mbuf { mbuf, .. } = self.storage {
            // SAFETY: it is ours and freed once.
            unsafe { sys::dmrpc_frame_free(mbuf) };
        }
    }
}

impl PlaceOfPeer for SocketAddrV4 {
    fn peer(&self) -> Peer {
        Peer::Remote((*self).into())
    }
}

struct Neighbour {
    mac: Option<Mac>,
    asked: Option<Instant>,
}

/// A started port.
pub struct DpdkDevice {
    port: *mut sys::Port,
    info: sys::PortInfo,
    address: SocketAddrV4,
    mtu: usize,
    neighbours: HashMap<Ipv4Addr, Neighbour>,
    identification: u16,
    up: bool,
    restarted: Instant,
    /// Headers and copied pieces of the frames that wait; never grows beyond its first capacity, so that pointers into it hold.
    copied: Vec<u8>,
    pieces: Vec<sys::TxPiece>,
    packets: Vec<sys::TxPacket>,
    /// Frames that the driver did not take.
    dropped: u64,
}

// SAFETY: the port is used by whoever has the device, one thread at a time; the pieces' pointers are used up by `flush`.
unsafe impl Send for DpdkDevice {}

impl DpdkDevice {
    /// Starts EAL and its first port.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] with what DPDK says is wrong.
    pub fn start(options: &DpdkOptions, udp_port: u16) -> Result<Self, LinkError> {
        start_eal(&options.eal)?;
        // SAFETY: EAL runs.
        if unsafe { sys::dmrpc_port_count() } == 0 {
            return Err(LinkError::Unsupported("DPDK without a port: name a device in the EAL arguments"));
        }
        let frame_bytes = options.mtu + ETHERNET_BYTES;
        let port_options = sys::PortOptions {
            rx_descriptors: RING_ENTRIES,
            tx_descriptors: RING_ENTRIES,
            frame_bytes: frame_bytes as u32,
            rx_buffers: BUFFERS,
            tx_buffers: BUFFERS,
        };
        let mut info = sys::PortInfo { driver: [0; 64], mac: [0; 6], multi_segment: 0, rx_interrupt: 0, numa_node: -1 };
        // SAFETY: both point to structs of the shim's layout.
        let port = unsafe { sys::dmrpc_port_start(0, &raw const port_options, &raw mut info) };
        if port.is_null() {
            return Err(shim_error("starting a DPDK port"));
        }
        Ok(Self {
            port,
            info,
            address: SocketAddrV4::new(options.address, udp_port),
            mtu: options.mtu,
            neighbours: HashMap::new(),
            identification: 0,
            up: false,
            restarted: Instant::now(),
            copied: Vec::with_capacity((BURST + 1) * frame_bytes),
            pieces: Vec::new(),
            packets: Vec::new(),
            dropped: 0,
        })
    }

    /// The driver's name.
    pub fn driver(&self) -> String {
        let bytes: Vec<u8> = self.info.driver.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Where the port speaks.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Frames that the driver did not take.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn learn(&mut self, address: Ipv4Addr, mac: Mac) {
        if self.neighbours.len() < MAX_NEIGHBOURS || self.neighbours.contains_key(&address) {
            self.neighbours.insert(address, Neighbour { mac: Some(mac), asked: None });
        }
    }

    /// The Ethernet address of a neighbour, if it is known; asks for it if not.
    fn neighbour(&mut self, address: Ipv4Addr) -> Option<Mac> {
        if let Some(Neighbour { mac: Some(mac), .. }) = self.neighbours.get(&address) {
            return Some(*mac);
        }
        if self.neighbours.len() >= MAX_NEIGHBOURS {
            self.neighbours.retain(|_, neighbour| neighbour.mac.is_some());
        }
        let now = Instant::now();
        let neighbour = self.neighbours.entry(address).or_insert(Neighbour { mac: None, asked: None });
        if neighbour.asked.is_none_or(|asked| now - asked >= ARP_INTERVAL) {
            neighbour.asked = Some(now);
            self.send_arp(1, BROADCAST, [0; 6], address);
        }
        None
    }

    fn send_arp(&mut self, operation: u8, to: Mac, target: Mac, target_address: Ipv4Addr) {
        if self.packets.len() >= BURST {
            return;
        }
        let mut frame = [0u8; MIN_FRAME_BYTES];
        frame[0..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&self.info.mac);
        frame[12..14].copy_from_slice(&ETHERTYPE_ARP);
        // Ethernet, IPv4, lengths of their addresses.
        frame[14..20].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
        frame[21] = operation;
        frame[22..28].copy_from_slice(&self.info.mac);
        frame[28..32].copy_from_slice(&self.address.ip().octets());
        frame[32..38].copy_from_slice(&target);
        frame[38..42].copy_from_slice(&target_address.octets());
        let first = self.pieces.len() as u32;
        self.copy(&frame);
        self.packets.push(sys::TxPacket { first, count: 1 });
    }

    /// Adds a piece that is copied.
    fn copy(&mut self, bytes: &[u8]) {
        debug_assert!(self.copied.len() + bytes.len() <= self.copied.capacity(), "room was asked for");
        let start = self.copied.len();
        self.copied.extend_from_slice(bytes);
        let start = self.copied[start..].as_ptr();
        self.pieces.push(sys::TxPiece { start, len: bytes.len() as u32, owner: std::ptr::null_mut() });
    }

    /// What a frame is: a datagram for us, from whom and where in the frame; or something that was dealt with.
    fn classify(&mut self, frame: &[u8]) -> Option<(SocketAddrV4, usize, usize)> {
        let mac: Mac = frame.get(6..12)?.try_into().ok()?;
        match frame.get(12..14)?.try_into().ok()? {
            ETHERTYPE_ARP => {
                let arp = frame.get(14..42)?;
                let sender = Ipv4Addr::from(<[u8; 4]>::try_from(&arp[14..18]).ok()?);
                let target = Ipv4Addr::from(<[u8; 4]>::try_from(&arp[24..28]).ok()?);
                if arp[..6] != [0, 1, 8, 0, 6, 4] || arp[6] != 0 || target != *self.address.ip() {
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
                if target != *self.address.ip() || port(2) != self.address.port() {
                    return None;
                }
                let start = ETHERNET_BYTES + header + UDP_BYTES;
                let end = start + usize::from(port(4)).checked_sub(UDP_BYTES)?;
                if end > frame.len() {
                    return None;
                }
                if !matches!(self.neighbours.get(&source), Some(Neighbour { mac: Some(known), .. }) if *known == mac) {
                    self.learn(source, mac);
                }
                Some((SocketAddrV4::new(source, port(0)), start, end))
            }
            _ => None,
        }
    }

    /// A virtual device's peer may come late, or go and come again.
    fn see_to_link(&mut self) {
        if self.up || self.restarted.elapsed() < RESTART_INTERVAL {
            return;
        }
        // SAFETY: the port was started and not stopped.
        self.up = unsafe { sys::dmrpc_port_is_up(self.port) } != 0;
        if !self.up {
            // SAFETY: as above.
            unsafe { sys::dmrpc_port_restart(self.port) };
        }
        self.restarted = Instant::now();
    }
}

/// The sum of RFC 1071 over a header whose checksum field is 0.
fn internet_checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Whether bytes lie in memory of DPDK's own.
fn is_dpdk_memory(bytes: &[u8]) -> bool {
    // SAFETY: only the address is looked at.
    unsafe { sys::dmrpc_memory_is_dpdk(bytes.as_ptr().cast()) != 0 }
}

/// Drops what kept lent memory.
unsafe extern "C" fn release(owner: *mut c_void) {
    // SAFETY: the shim passes each owner that it was given back once.
    drop(unsafe { Box::from_raw(owner.cast::<Bytes>()) });
}

impl Device for DpdkDevice {
    type Frame = DpdkFrame;
    type Place = SocketAddrV4;

    fn datagram_bytes(&self) -> usize {
        self.mtu - IPV4_BYTES - UDP_BYTES
    }

    /// Frames have Ethernet's, and shared memory damages none.
    fn needs_checksum(&self) -> bool {
        false
    }

    fn receive(&mut self, most: usize, take: &mut dyn FnMut(SocketAddrV4, DpdkFrame)) -> Result<(), LinkError> {
        self.see_to_link();
        let mut frames = [sys::RxFrame { mbuf: std::ptr::null_mut(), start: std::ptr::null(), len: 0 }; BURST];
        // SAFETY: the port runs, and there is room for so many frames.
        let count = unsafe { sys::dmrpc_rx_burst(self.port, frames.as_mut_ptr(), most.min(BURST) as u32) } as usize;
        if count == 0 {
            return Ok(());
        }
        self.up = true;
        // SAFETY: the port runs.
        let scarce = unsafe { sys::dmrpc_rx_buffers_free(self.port) } < LOW_BUFFERS;
        for raw in &frames[..count] {
            let storage = Storage::Mbuf { mbuf: raw.mbuf, start: raw.start };
            let mut frame = DpdkFrame { storage, start: 0, end: raw.len as usize };
            // SAFETY: the frame is ours and so long.
            let bytes = unsafe { std::slice::from_raw_parts(raw.start, raw.len as usize) };
            let Some((from, start, end)) = self.classify(bytes) else { continue };
            (frame.start, frame.end) = (start, end);
            if scarce {
                frame = DpdkFrame { start: 0, end: end - start, storage: Storage::Copied(frame.bytes().into()) };
            }
            take(from, frame);
        }
        Ok(())
    }

    fn room(&mut self) -> usize {
        // An answer to ARP may come between.
        (BURST - 1).saturating_sub(self.packets.len())
    }

    fn send(&mut self, to: &SocketAddrV4, header: &[u8], pieces: &[Piece<'_>]) {
        let Some(mac) = self.neighbour(*to.ip()) else { return };
        let payload: usize = header.len() + pieces.iter().map(|piece| piece.bytes().len()).sum::<usize>();
        if self.packets.len() >= BURST || payload > self.datagram_bytes() {
            return;
        }
        let mut front = [0u8; HEADERS_BYTES];
        front[0..6].copy_from_slice(&mac);
        front[6..12].copy_from_slice(&self.info.mac);
        front[12..14].copy_from_slice(&ETHERTYPE_IPV4);
        let ip = &mut front[ETHERNET_BYTES..];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&((IPV4_BYTES + UDP_BYTES + payload) as u16).to_be_bytes());
        ip[4..6].copy_from_slice(&self.identification.to_be_bytes());
        // Not to be fragmented.
        ip[6] = 0x40;
        ip[8] = 64;
        ip[9] = 17;
        ip[12..16].copy_from_slice(&self.address.ip().octets());
        ip[16..20].copy_from_slice(&to.ip().octets());
        let checksum = internet_checksum(&ip[..IPV4_BYTES]);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        let udp = &mut ip[IPV4_BYTES..];
        udp[0..2].copy_from_slice(&self.address.port().to_be_bytes());
        udp[2..4].copy_from_slice(&to.port().to_be_bytes());
        udp[4..6].copy_from_slice(&((UDP_BYTES + payload) as u16).to_be_bytes());
        self.identification = self.identification.wrapping_add(1);

        let first = self.pieces.len();
        self.copy(&front);
        self.copy(header);
        for piece in pieces {
            match piece {
                Piece::Lent(bytes, start, end)
                    if self.info.multi_segment != 0
                        && end - start >= MIN_FRAME_BYTES
                        && is_dpdk_memory(&bytes[*start..*end]) =>
                {
                    let lent = bytes.slice(*start..*end);
                    let (start, len) = (lent.as_ptr(), lent.len() as u32);
                    let owner = Box::into_raw(Box::new(lent)).cast();
                    self.pieces.push(sys::TxPiece { start, len, owner });
                }
                piece => self.copy(piece.bytes()),
            }
        }
        let frame = HEADERS_BYTES + payload;
        if frame < MIN_FRAME_BYTES {
            self.copy(&[0; MIN_FRAME_BYTES][..MIN_FRAME_BYTES - frame]);
        }
        let count = (self.pieces.len() - first) as u32;
        self.packets.push(sys::TxPacket { first: first as u32, count });
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        if self.packets.is_empty() {
            return Ok(());
        }
        let count = self.packets.len() as u32;
        // SAFETY: the port runs; pieces point into `copied`, which has not moved, or to memory that their owners keep; the
        // shim takes the owners.
        let sent =
            unsafe { sys::dmrpc_tx_burst(self.port, self.packets.as_ptr(), count, self.pieces.as_ptr(), release) };
        self.dropped += u64::from(count - sent);
        self.packets.clear();
        self.pieces.clear();
        self.copied.clear();
        Ok(())
    }

    /// None: it is looked at by the clock while nobody spins on it.
    fn interests(&self) -> Interests<'_> {
        Interests::new()
    }
}

impl Drop for DpdkDevice {
    fn drop(&mut self) {
        let _ = self.flush();
        // SAFETY: the port runs, and is not used after.
        unsafe { sys::dmrpc_port_stop(self.port) };
    }
}
