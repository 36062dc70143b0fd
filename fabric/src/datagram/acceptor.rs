//! Listeners at addresses, and how to connect to them.
#![forbid(unsafe_code)]

#[cfg(feature = "dpdk")]
use super::dpdk::Flow;
use super::endpoint::EndpointOptions;
use super::links::{self, DatagramListener};
use super::udp::UdpDevice;
use crate::address::Address;
use crate::dial::look_up;
use crate::link::{Link, LinkError};
use crate::options::LinkOptions;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io::ErrorKind;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// Accepts links over the datagram protocol.
pub(crate) struct Acceptor {
    listener: Kind,
    address: Address,
    /// All that the listener waits on, as one descriptor.
    epoll: OwnedFd,
}

enum Kind {
    Udp(DatagramListener<UdpDevice>),
    #[cfg(feature = "dpdk")]
    Dpdk(DatagramListener<super::dpdk::DpdkDevice>),
}

impl Acceptor {
    pub(crate) fn bind_udp(host: &str, port: u16, options: &LinkOptions) -> Result<Self, LinkError> {
        let address = look_up(host, port, Instant::now() + options.setup_timeout)?[0];
        // Between processes of one host datagrams are as long as they can be; else they fit any network.
        let datagram_bytes = if address.ip().is_loopback() { Some(usize::MAX) } else { None };
        let device = UdpDevice::bind(address, datagram_bytes)?;
        let port = device.address()?.port();
        let endpoint = endpoint_options(device.window_packets(), options);
        let listener = Kind::Udp(DatagramListener::new(device, endpoint)?);
        Self::new(listener, Address::Udp { host: host.to_owned(), port })
    }

    #[cfg(feature = "dpdk")]
    pub(crate) fn bind_dpdk(address: SocketAddrV4, options: &LinkOptions) -> Result<Self, LinkError> {
        let lanes = super::dpdk::lanes(address.port(), &endpoint_options(DPDK_WINDOW_PACKETS, options))?;
        if lanes[0].with_device(|device| device.port().address()) != address {
            return Err(LinkError::Unsupported(
                "listening at another address than this process's DPDK port has: set DMRPC_DPDK_ADDRESS, and DMRPC_DPDK_PORT \
                 if it connects before it listens",
            ));
        }
        Self::new(Kind::Dpdk(DatagramListener::on(lanes.to_vec())?), Address::Dpdk(address))
    }

    #[cfg(not(feature = "dpdk"))]
    pub(crate) fn bind_dpdk(_address: SocketAddrV4, _options: &LinkOptions) -> Result<Self, LinkError> {
        Err(super::dpdk::NO_DPDK)
    }

    fn new(listener: Kind, address: Address) -> Result<Self, LinkError> {
        let failed = |error| LinkError::io("making an epoll set", error);
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(failed)?;
        let interests = match &listener {
            Kind::Udp(listener) => listener.interests(),
            #[cfg(feature = "dpdk")]
            Kind::Dpdk(listener) => listener.interests(),
        };
        for interest in &interests {
            epoll::add(&epoll, interest.fd, EventData::new_u64(0), EventFlags::IN).map_err(failed)?;
        }
        drop(interests);
        Ok(Self { listener, address, epoll })
    }

    pub(crate) fn try_accept(&mut self) -> Result<Option<Link>, LinkError> {
        match &mut self.listener {
            Kind::Udp(listener) => listener.try_accept(),
            #[cfg(feature = "dpdk")]
            Kind::Dpdk(listener) => listener.try_accept(),
        }
    }

    /// Whether the device is one that no kernel waits for.
    pub(crate) fn is_polled(&self) -> bool {
        match &self.listener {
            Kind::Udp(_) => false,
            #[cfg(feature = "dpdk")]
            Kind::Dpdk(_) => true,
        }
    }

    pub(crate) fn poll(&mut self, ready: &mut Vec<u64>) -> Result<bool, LinkError> {
        match &mut self.listener {
            Kind::Udp(listener) => listener.poll(ready),
            #[cfg(feature = "dpdk")]
            Kind::Dpdk(listener) => listener.poll(ready),
        }
    }

    pub(crate) fn sleep(&mut self) -> Result<bool, LinkError> {
        match &mut self.listener {
            Kind::Udp(listener) => listener.sleep(),
            #[cfg(feature = "dpdk")]
            Kind::Dpdk(listener) => listener.sleep(),
        }
    }

    pub(crate) fn address(&self) -> Address {
        self.address.clone()
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// Packets that a session over DPDK has room for.
#[cfg(feature = "dpdk")]
const DPDK_WINDOW_PACKETS: u32 = 512;

fn endpoint_options(window_packets: u32, options: &LinkOptions) -> EndpointOptions {
    EndpointOptions {
        window_packets,
        max_body_bytes: options.max_body_bytes,
        max_queued_bytes: options.max_queued_bytes,
        ..EndpointOptions::default()
    }
}

/// Connects over UDP.
pub(crate) fn connect_udp(host: &str, port: u16, options: &LinkOptions, deadline: Instant) -> Result<Link, LinkError> {
    let address = look_up(host, port, deadline)?[0];
    let device = UdpDevice::towards(address)?;
    let endpoint = endpoint_options(device.window_packets(), options);
    links::connect(device, endpoint, address, deadline).map_err(nobody)
}

/// Connects over DPDK, from this process's port of it.
#[cfg(feature = "dpdk")]
pub(crate) fn connect_dpdk(address: SocketAddrV4, options: &LinkOptions, deadline: Instant) -> Result<Link, LinkError> {
    let lanes = super::dpdk::lanes(address.port(), &endpoint_options(DPDK_WINDOW_PACKETS, options))?;
    let port = lanes[0].with_device(|device| device.port().clone());
    let (lane, udp_port) = port.next_link();
    let mut next = Some(udp_port);
    let place = || Flow { peer: address, udp_port: next.take().unwrap_or_else(|| port.next_udp_port()) };
    links::connect_over(&lanes, lane, place, deadline).map_err(nobody)
}

/// Connects over DPDK.
#[cfg(not(feature = "dpdk"))]
pub(crate) fn connect_dpdk(
    _address: SocketAddrV4,
    _options: &LinkOptions,
    _deadline: Instant,
) -> Result<Link, LinkError> {
    Err(super::dpdk::NO_DPDK)
}

/// A peer that refuses a session listens to nobody.
fn nobody(error: LinkError) -> LinkError {
    match error {
        LinkError::Closed => LinkError::io("connecting over datagrams", ErrorKind::ConnectionRefused),
        error => error,
    }
}
