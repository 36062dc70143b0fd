//! A UDP socket as a device: many datagrams a system call (`sendmmsg`, `recvmmsg`), and many a packet through the kernel
//! (segmentation and receive offload), where it has them.
//!
//! All of the crate's direct calls of libc are in this module: rustix has neither `recvmmsg` nor the offloads.

use super::device::{Device, Frame};
use super::outbox::Piece;
use super::packet::HEADER_BYTES;
use crate::link::{Interest, Interests, LinkError};
use bytes::Bytes;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

/// The longest datagram, whatever the network would take: what fits IPv4 and UDP.
const MAX_DATAGRAM_BYTES: usize = 65_507;
/// What every IPv4 network in use takes, less IPv6 and UDP headers.
const DEFAULT_DATAGRAM_BYTES: usize = 1_452;
/// Buffers read into at once. Each holds one datagram, or several that the kernel joined.
const RECEIVE_BUFFERS: usize = 16;
const BUFFER_BYTES: usize = 64 * 1024;
/// Frames shorter than this are copied out, so that a small one does not hold a whole buffer.
const COPIED_BYTES: usize = 512;
/// Datagrams taken before they must go to the kernel.
const SEND_BATCH: usize = 64;
/// The most that the kernel cuts into datagrams at once.
const MAX_OFFLOAD_SEGMENTS: usize = 60;
const MAX_OFFLOAD_BYTES: usize = 60_000;
/// What is asked of the kernel for each direction; it gives an ordinary user less.
const SOCKET_BUFFER_BYTES: libc::c_int = 8 << 20;

type Buffer = Arc<[u8]>;

/// A datagram in the buffer it came in.
pub struct UdpFrame {
    buffer: Buffer,
    range: Range<usize>,
}

impl Frame for UdpFrame {
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

/// Part of a datagram that waits to be sent.
enum Stored {
    /// In `UdpDevice::copied`.
    Copied(Range<usize>),
    /// Memory of somebody else's.
    Lent(Bytes),
}

struct Waiting {
    to: SocketAddr,
    pieces: Range<usize>,
    len: usize,
}

/// A UDP socket.
pub struct UdpDevice {
    socket: UdpSocket,
    datagram_bytes: usize,
    offload: bool,
    buffers: Vec<Buffer>,
    copied: Vec<u8>,
    stored: Vec<Stored>,
    waiting: Vec<Waiting>,
    /// Whether the last look found nothing: then the next is for one packet only, since to prepare for many costs more than the look.
    quiet: bool,
}

impl UdpDevice {
    /// A socket at `address` that sends datagrams of at most `datagram_bytes`; `None` for what every network takes.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] if there can't be one.
    pub fn bind(address: SocketAddr, datagram_bytes: Option<usize>) -> Result<Self, LinkError> {
        let socket = UdpSocket::bind(address).map_err(|error| LinkError::io("binding a UDP socket", error))?;
        socket.set_nonblocking(true).map_err(|error| LinkError::io("preparing a UDP socket", error))?;
        for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
            if set_option(&socket, libc::SOL_SOCKET, force, SOCKET_BUFFER_BYTES).is_err() {
                set_option(&socket, libc::SOL_SOCKET, plain, SOCKET_BUFFER_BYTES)
                    .map_err(|error| LinkError::io("sizing a UDP socket's buffers", error))?;
            }
        }
        // An old kernel has no offloads; all works without.
        let _ = set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
        let offload = get_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
        Ok(Self {
            socket,
            datagram_bytes: datagram_bytes.unwrap_or(DEFAULT_DATAGRAM_BYTES).min(MAX_DATAGRAM_BYTES),
            offload,
            buffers: Vec::new(),
            copied: Vec::new(),
            stored: Vec::new(),
            waiting: Vec::new(),
            quiet: false,
        })
    }

    /// A socket to speak to `peer`, with datagrams as long as the way there takes.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] if there can't be one.
    pub fn towards(peer: SocketAddr) -> Result<Self, LinkError> {
        let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        Self::bind((any, 0).into(), path_datagram_bytes(peer, any))
    }

    /// Where the socket is.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] if the system does not tell.
    pub fn address(&self) -> Result<SocketAddr, LinkError> {
        self.socket.local_addr().map_err(|error| LinkError::io("asking for a socket's address", error))
    }

    /// Packets of full length that the kernel keeps until they are read.
    pub fn window_packets(&self) -> u32 {
        let bytes = get_option(&self.socket, libc::SOL_SOCKET, libc::SO_RCVBUF).unwrap_or(212_992) as usize;
        // The kernel counts its own bookkeeping too.
        let packets = bytes / 2 / (self.datagram_bytes + 1024);
        1 << packets.clamp(4, 256).ilog2()
    }

    fn buffer(&mut self) -> Buffer {
        match self.buffers.iter().position(|buffer| Arc::strong_count(buffer) == 1) {
            Some(free) => self.buffers.swap_remove(free),
            None => vec![0; BUFFER_BYTES].into(),
        }
    }

    /// The datagrams from `first` on that can go to the kernel as one: to the same place, all but the last of one length.
    fn run(&self, first: usize) -> usize {
        let head = &self.waiting[first];
        if !self.offload {
            return 1;
        }
        let (mut count, mut bytes) = (1, head.len);
        for next in self.waiting[first + 1..].iter().take(MAX_OFFLOAD_SEGMENTS - 1) {
            if next.to != head.to || next.len > head.len || bytes + next.len > MAX_OFFLOAD_BYTES {
                break;
            }
            count += 1;
            bytes += next.len;
            if next.len < head.len {
                break;
            }
        }
        count
    }
}

/// The longest datagram that the way to `peer` takes, as far as the kernel knows.
fn path_datagram_bytes(peer: SocketAddr, from: IpAddr) -> Option<usize> {
    let probe = UdpSocket::bind((from, 0)).ok()?;
    probe.connect(peer).ok()?;
    let (level, option, headers) =
        if peer.is_ipv4() { (libc::IPPROTO_IP, libc::IP_MTU, 28) } else { (libc::IPPROTO_IPV6, libc::IPV6_MTU, 48) };
    let mtu = usize::try_from(get_option(&probe, level, option).ok()?).ok()?;
    Some(mtu.checked_sub(headers)?.clamp(DEFAULT_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES))
}

impl Device for UdpDevice {
    type Frame = UdpFrame;
    type Place = SocketAddr;

    fn datagram_bytes(&self) -> usize {
        self.datagram_bytes
    }

    /// UDP has one of its own, which the kernel or the card computes.
    fn needs_checksum(&self) -> bool {
        false
    }

    fn receive(&mut self, most: usize, mut take: impl FnMut(SocketAddr, UdpFrame)) -> Result<(), LinkError> {
        let mut taken = 0;
        while taken < most {
            let quiet = std::mem::take(&mut self.quiet);
            let count = if quiet { 1 } else { RECEIVE_BUFFERS.min(most - taken) };
            let mut buffers: Vec<Buffer> = (0..count).map(|_| self.buffer()).collect();
            let received = receive_into(&self.socket, &mut buffers)?;
            for (buffer, message) in buffers.iter().zip(&received) {
                let Some(from) = message.from else { continue };
                let mut start = 0;
                while start < message.len {
                    let end = message.len.min(start + message.segment);
                    let frame = if end - start < COPIED_BYTES {
                        UdpFrame { buffer: buffer[start..end].into(), range: 0..end - start }
                    } else {
                        UdpFrame { buffer: buffer.clone(), range: start..end }
                    };
                    take(from, frame);
                    taken += 1;
                    start = end;
                }
            }
            self.buffers.append(&mut buffers);
            self.quiet = received.is_empty();
            // More than one at a time is rare after a silence, and seen at the next look.
            if quiet || received.len() < count {
                break;
            }
        }
        Ok(())
    }

    fn room(&mut self) -> usize {
        SEND_BATCH - self.waiting.len()
    }

    fn send(&mut self, to: &SocketAddr, header: &[u8; HEADER_BYTES], pieces: &[Piece<'_>]) {
        if self.waiting.len() == SEND_BATCH {
            return;
        }
        let first = self.stored.len();
        let mut copied = self.copied.len();
        self.copied.extend_from_slice(header);
        let mut len = header.len();
        for piece in pieces {
            len += piece.bytes().len();
            match piece {
                Piece::Lent(bytes, start, end) if end - start >= COPIED_BYTES => {
                    self.stored.push(Stored::Copied(copied..self.copied.len()));
                    copied = self.copied.len();
                    self.stored.push(Stored::Lent(bytes.slice(*start..*end)));
                }
                piece => self.copied.extend_from_slice(piece.bytes()),
            }
        }
        if copied < self.copied.len() {
            self.stored.push(Stored::Copied(copied..self.copied.len()));
        }
        self.waiting.push(Waiting { to: *to, pieces: first..self.stored.len(), len });
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        let mut sent = 0;
        while sent < self.waiting.len() {
            let count = self.run(sent);
            match self.send_run(sent, count) {
                Ok(()) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The card or the kernel cannot cut: we do it from now on.
                Err(error) if count > 1 && matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL)) => {
                    self.offload = false;
                }
                // The way there is closed or too narrow just now, or an earlier datagram met nobody: as good as lost.
                Err(_) => sent += count,
            }
        }
        self.waiting.drain(..sent);
        if self.waiting.is_empty() {
            self.stored.clear();
            self.copied.clear();
        }
        Ok(())
    }

    fn interests(&self) -> Interests<'_> {
        Interests::from_iter([Interest { fd: self.socket.as_fd(), writable: false }])
    }
}

impl UdpDevice {
    /// Gives `count` datagrams from `first` on to the kernel, as one.
    fn send_run(&self, first: usize, count: usize) -> io::Result<()> {
        let run = &self.waiting[first..first + count];
        let pieces = &self.stored[run[0].pieces.start..run[count - 1].pieces.end];
        let parts: Vec<libc::iovec> = pieces
            .iter()
            .map(|piece| match piece {
                Stored::Copied(range) => &self.copied[range.clone()],
                Stored::Lent(bytes) => bytes,
            })
            .map(|bytes| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() })
            .collect();
        send_parts(&self.socket, run[0].to, &parts, if count > 1 { Some(run[0].len as u16) } else { None })
    }
}

/// Room for one control message with an integer, aligned as the kernel wants it.
#[repr(align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

fn send_parts(socket: &UdpSocket, to: SocketAddr, parts: &[libc::iovec], segment: Option<u16>) -> io::Result<()> {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let name_len = write_name(to, &mut name);
    let mut control = Control([0; 64]);
    // SAFETY: all zeros is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = name_len;
    message.msg_iov = parts.as_ptr().cast_mut();
    message.msg_iovlen = parts.len() as _;
    if let Some(segment) = segment {
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: the control buffer is larger than one message with a u16, and aligned.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_UDP;
            (*header).cmsg_type = libc::UDP_SEGMENT;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
            libc::CMSG_DATA(header).cast::<u16>().write_unaligned(segment);
        }
    }
    // SAFETY: name, parts and control point to memory that lives through the call, which only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    if sent >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

struct Received {
    from: Option<SocketAddr>,
    len: usize,
    /// The kernel joined datagrams of this length.
    segment: usize,
}

/// Reads one packet into each buffer, as many as there are. Nobody else may hold the buffers.
fn receive_into(socket: &UdpSocket, buffers: &mut [Buffer]) -> Result<Vec<Received>, LinkError> {
    let count = buffers.len();
    let mut names = vec![MaybeUninit::<libc::sockaddr_storage>::zeroed(); count];
    let mut controls = vec![Control([0; 64]); count];
    let mut parts: Vec<libc::iovec> = buffers
        .iter_mut()
        .map(|buffer| {
            let bytes = Arc::get_mut(buffer).expect("nobody else holds a buffer that is read into");
            libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
        })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = (0..count)
        .map(|index| {
            // SAFETY: all zeros is an empty message.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_name = names[index].as_mut_ptr().cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as _;
            message.msg_hdr.msg_iov = &raw mut parts[index];
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = controls[index].0.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = size_of::<Control>() as _;
            message
        })
        .collect();
    // SAFETY: each message points to a name, a buffer and a control buffer of its own, all of which live through the call.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            count as _,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut(),
        )
    };
    if received < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            // An earlier datagram met nobody, which the session will notice.
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused => Ok(Vec::new()),
            _ => Err(LinkError::io("receiving datagrams", error)),
        };
    }
    Ok(messages[..received as usize]
        .iter()
        .zip(&names)
        .map(|(message, name)| {
            let len = message.msg_len as usize;
            // SAFETY: the kernel filled the header, and its control buffer is there still.
            let segment = unsafe { joined_segment(&message.msg_hdr) }.filter(|&segment| segment > 0).unwrap_or(len);
            Received { from: read_name(name), len, segment: segment.max(1) }
        })
        .collect())
}

/// The length of the datagrams that the kernel joined, if it did.
///
/// # Safety
///
/// The header's control buffer must be as the kernel filled it.
unsafe fn joined_segment(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the caller's promise; the macros stay within the buffer.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            if (*control).cmsg_level == libc::SOL_UDP && (*control).cmsg_type == libc::UDP_GRO {
                let value = libc::CMSG_DATA(control).cast::<libc::c_int>().read_unaligned();
                return usize::try_from(value).ok();
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
        None
    }
}

fn write_name(address: SocketAddr, name: &mut MaybeUninit<libc::sockaddr_storage>) -> libc::socklen_t {
    match address {
        SocketAddr::V4(v4) => {
            // SAFETY: all zeros is an address.
            let mut raw: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            raw.sin_family = libc::AF_INET as _;
            raw.sin_port = v4.port().to_be();
            raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            // SAFETY: the storage is larger than any address and aligned for all.
            unsafe { name.as_mut_ptr().cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>() as _
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above.
            let mut raw: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            raw.sin6_family = libc::AF_INET6 as _;
            raw.sin6_port = v6.port().to_be();
            raw.sin6_addr.s6_addr = v6.ip().octets();
            raw.sin6_scope_id = v6.scope_id();
            // SAFETY: as above.
            unsafe { name.as_mut_ptr().cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>() as _
        }
    }
}

fn read_name(name: &MaybeUninit<libc::sockaddr_storage>) -> Option<SocketAddr> {
    // SAFETY: the storage was zeroed before the kernel wrote to it, and is larger than any address and aligned for all.
    unsafe {
        match libc::c_int::from((*name.as_ptr()).ss_family) {
            libc::AF_INET => {
                let raw = &*name.as_ptr().cast::<libc::sockaddr_in>();
                Some((Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes()), u16::from_be(raw.sin_port)).into())
            }
            libc::AF_INET6 => {
                let raw = &*name.as_ptr().cast::<libc::sockaddr_in6>();
                let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
                Some(std::net::SocketAddrV6::new(ip, u16::from_be(raw.sin6_port), 0, raw.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

fn set_option(socket: &UdpSocket, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the value is an int of the length that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn get_option(socket: &UdpSocket, level: libc::c_int, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and there is room for an int.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut len) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
