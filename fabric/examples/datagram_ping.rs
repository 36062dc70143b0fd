//! Round trips and bulk over the datagram protocol between two processes, both ends spinning.
//!
//! ```text
//! datagram_ping serve 127.0.0.1:7000
//! datagram_ping ping 127.0.0.1:7000
//! ```
//!
//! With the feature `dpdk` and DMRPC_DPDK_EAL set, over DPDK's first port; DMRPC_DPDK_ADDRESS is each one's own address.

#![allow(clippy::print_stdout, reason = "a program that prints figures")]

use bytes::Bytes;
use dmrpc_fabric::buffer::Buffer;
use dmrpc_fabric::datagram::endpoint::EndpointOptions;
use dmrpc_fabric::datagram::links::{DatagramListener, connect};
use dmrpc_fabric::datagram::udp::UdpDevice;
use dmrpc_fabric::link::{Body, Incoming, Link, LinkError, Target};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SPIN: Duration = Duration::from_millis(100);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let address: SocketAddr = arguments[2].parse()?;
    let seconds = std::env::var("SECONDS_TO_SERVE").ok().and_then(|s| s.parse().ok()).unwrap_or(30);
    let until = Instant::now() + Duration::from_secs(seconds);
    match arguments[1].as_str() {
        "serve" => serve(address, until),
        _ => ping(address),
    }
}

#[cfg(feature = "dpdk")]
fn dpdk() -> bool {
    std::env::var_os("DMRPC_DPDK_EAL").is_some()
}

fn open(address: SocketAddr) -> Result<Link, LinkError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    #[cfg(feature = "dpdk")]
    if let (true, SocketAddr::V4(v4)) = (dpdk(), address) {
        use dmrpc_fabric::datagram::dpdk::{DpdkDevice, DpdkOptions};
        let device = DpdkDevice::start(&DpdkOptions::from_env()?, v4.port())?;
        eprintln!("over {}", device.driver());
        return connect(device, EndpointOptions::default(), v4, deadline);
    }
    connect(UdpDevice::towards(address)?, EndpointOptions::default(), address, deadline)
}

fn serve(address: SocketAddr, until: Instant) -> Result<(), Box<dyn std::error::Error>> {
    #[cfg(feature = "dpdk")]
    if let (true, SocketAddr::V4(v4)) = (dpdk(), address) {
        use dmrpc_fabric::datagram::dpdk::{DpdkDevice, DpdkOptions};
        let device = DpdkDevice::start(&DpdkOptions::from_env()?, v4.port())?;
        let mut listener = DatagramListener::new(device, EndpointOptions::default())?;
        return answer(move || { let mut ready = Vec::new(); listener.poll(&mut ready)?; listener.try_accept() }, until);
    }
    let bytes = std::env::var("DATAGRAM_BYTES").ok().and_then(|s| s.parse().ok());
    let mut listener = DatagramListener::new(UdpDevice::bind(address, bytes)?, EndpointOptions::default())?;
    answer(move || { let mut ready = Vec::new(); listener.poll(&mut ready)?; listener.try_accept() }, until)
}

/// Answers each message by its head, and by its body if its head says so.
fn answer(
    mut accept: impl FnMut() -> Result<Option<Link>, LinkError>,
    until: Instant,
) -> Result<(), Box<dyn std::error::Error>> {
    let data = Bytes::from(vec![7u8; 1 << 20]);
    let mut links: Vec<Link> = Vec::new();
    while Instant::now() < until {
        links.extend(accept()?);
        links.retain_mut(|link| {
            loop {
                if !link.receiver.spin(Duration::ZERO) { let _ = link.sender.flush(); return true; }
                match link.receiver.recv() {
                    Ok(Incoming::Empty) => return true,
                    Ok(Incoming::Head { head, body_len }) => {
                        let wanted = u64::from_le_bytes(head[..8].try_into().unwrap_or_default()) as usize;
                        let body = if wanted == 0 { Body::new() } else { Body::from_iter([data.slice(..wanted)]) };
                        if body_len > 0 {
                            link.receiver.place(Target::Discard);
                        }
                        let head = link.receiver.head().to_vec();
                        if link.sender.try_send(&head, body).is_err() || (wanted > 0 && link.sender.flush().is_err()) {
                            return false;
                        }
                    }
                    Ok(Incoming::Body(_)) => {}
                    Err(_) => return false,
                }
            }
        });
    }
    Ok(())
}

fn ping(address: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
    let mut link = open(address)?;
    for (wanted, rounds) in [(0u64, 100_000u32), (4096, 50_000), (65_536, 10_000), (1 << 20, 1_000)] {
        let mut times = Vec::new();
        let begun = Instant::now();
        for round in 0..rounds {
            let start = Instant::now();
            let mut head = [round as u8; 64];
            head[..8].copy_from_slice(&wanted.to_le_bytes());
            link.sender.try_send(&head, Body::new())?;
            link.sender.flush()?;
            let mut done = false;
            while !done {
                link.receiver.spin(SPIN);
                match link.receiver.recv()? {
                    Incoming::Head { body_len, .. } if body_len > 0 => {
                        link.receiver.place(Buffer::zeroed(body_len as usize).into());
                    }
                    Incoming::Head { .. } => done = true,
                    Incoming::Body(target) => {
                        let bytes = Buffer::from_target(target).expect("what was given").into_vec();
                        assert!(bytes.iter().all(|&byte| byte == 7), "damaged");
                        done = true;
                    }
                    Incoming::Empty => {}
                }
            }
            times.push(start.elapsed());
            if begun.elapsed() > Duration::from_secs(3) {
                break;
            }
        }
        times.sort();
        println!(
            "answer of {wanted:>7} bytes: p50 {:?} p99 {:?} over {} rounds",
            times[times.len() / 2],
            times[times.len() * 99 / 100],
            times.len()
        );
    }
    // Many small ones in flight.
    let (mut sent, mut received, total) = (0u64, 0u64, 2_000_000u64);
    let start = Instant::now();
    while received < total && start.elapsed() < Duration::from_secs(4) {
        let mut gathered = 0;
        while sent < total && sent - received < 128 && gathered < 32 {
            if link.sender.try_send(&[0u8; 32], Body::new()).is_err() {
                break;
            }
            sent += 1;
            gathered += 1;
        }
        if gathered > 0 {
            link.sender.flush()?;
        }
        while link.receiver.spin(Duration::ZERO) {
            if let Incoming::Head { .. } = link.receiver.recv()? { received += 1; } else { break; }
        }
    }
    println!("{:.2} M small requests a second", received as f64 / start.elapsed().as_secs_f64() / 1e6);
    Ok(())
}
