//! What each side says first, over the control channel. `docs/rdma.md` draws it.
#![forbid(unsafe_code)]

use super::channel::Channel;
use super::lane::Lane;
use super::slots::{SLOT_BYTES, WINDOW};
use crate::link::LinkError;
use dmrpc_rdma_sys::Gid;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::net::TcpStream;

const MAGIC: [u8; 8] = *b"DmRPCrdm";
const VERSION: u32 = 2;
/// Length without the domain's name.
pub(super) const HELLO_BYTES: usize = 64;
/// The longest name of a domain, in bytes.
pub(super) const MAX_DOMAIN_BYTES: usize = 1024;
/// What a connector says when its queue pair is ready.
pub(super) const READY: u8 = 1;

/// Whether a link may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Accepted,
    Refused,
}

/// Where queue pairs are, and what their side takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) status: Status,
    pub(super) body_limit: u64,
    pub(super) gid: Gid,
    pub(super) number: u32,
    pub(super) bulk_number: u32,
    /// Of both queue pairs.
    pub(super) first_packet: u32,
    pub(super) mtu: u8,
    /// READs that it answers at a time.
    pub(super) reads: u8,
    pub(super) domain: Vec<u8>,
}

impl Hello {
    pub(super) fn of(channel: &Channel, status: Status, domain: &[u8]) -> Self {
        let adapter = channel.adapter();
        Self {
            status,
            body_limit: channel.max_body_bytes(),
            gid: adapter.port.gid,
            number: channel.number(Lane::Messages),
            bulk_number: channel.number(Lane::Bulk),
            first_packet: channel.first_packet(),
            mtu: adapter.port.mtu,
            reads: adapter.device.limits().max_reads_answered,
            domain: domain.to_vec(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HELLO_BYTES + self.domain.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((self.status as u32).to_le_bytes());
        bytes.extend(self.body_limit.to_le_bytes());
        bytes.extend(self.gid.0);
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.first_packet.to_le_bytes());
        bytes.extend(WINDOW.to_le_bytes());
        bytes.extend((SLOT_BYTES as u32).to_le_bytes());
        bytes.extend([self.mtu, self.reads]);
        bytes.extend((self.domain.len() as u16).to_le_bytes());
        bytes.extend(self.bulk_number.to_le_bytes());
        bytes.extend(&self.domain);
        bytes
    }

    /// The fixed part, and how long the name is that follows.
    fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<(Self, usize), LinkError> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if bytes[..8] != MAGIC {
            return Err(LinkError::Protocol("a hello of something else"));
        }
        if word(8) != VERSION {
            return Err(LinkError::Protocol("the peer speaks another version"));
        }
        let status = match word(12) {
            0 => Status::Accepted,
            1 => Status::Refused,
            _ => return Err(LinkError::Protocol("a hello with a status that is not one")),
        };
        let domain_len = usize::from(u16::from_le_bytes([bytes[58], bytes[59]]));
        let hello = Self {
            status,
            body_limit: u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes")),
            gid: Gid(bytes[24..40].try_into().expect("sixteen bytes")),
            number: word(40),
            bulk_number: word(60),
            first_packet: word(44),
            mtu: bytes[56],
            reads: bytes[57],
            domain: Vec::new(),
        };
        if word(48) != WINDOW || word(52) != SLOT_BYTES as u32 {
            return Err(LinkError::Protocol("the peer has another window"));
        }
        let is_24_bits = |number: u32| number >> 24 == 0;
        if !(1..=5).contains(&hello.mtu)
            || hello.reads == 0
            || !is_24_bits(hello.number)
            || !is_24_bits(hello.bulk_number)
            || !is_24_bits(hello.first_packet)
            || domain_len > MAX_DOMAIN_BYTES
        {
            return Err(LinkError::Protocol("a hello that makes no sense"));
        }
        Ok((hello, domain_len))
    }
}

/// A hello as it comes.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    bytes: Vec<u8>,
}

impl Greeting {
    /// Reads on. The hello once all of it came; nothing behind it is read.
    pub(super) fn read(&mut self, control: &TcpStream) -> Result<Option<Hello>, LinkError> {
        loop {
            let wanted = match self.bytes.first_chunk::<HELLO_BYTES>() {
                None => HELLO_BYTES,
                Some(fixed) => {
                    let (hello, domain_len) = Hello::decode(fixed)?;
                    if self.bytes.len() == HELLO_BYTES + domain_len {
                        return Ok(Some(Hello { domain: self.bytes[HELLO_BYTES..].to_vec(), ..hello }));
                    }
                    HELLO_BYTES + domain_len
                }
            };
            let mut buffer = [0; MAX_DOMAIN_BYTES];
            let room = (wanted - self.bytes.len()).min(buffer.len());
            match recv(control, &mut buffer[..room], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(LinkError::Closed),
                Ok((_, count)) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(LinkError::socket("receiving a hello", error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::net::TcpListener;

    fn hello() -> impl Strategy<Value = Hello> {
        let status = prop_oneof![Just(Status::Accepted), Just(Status::Refused)];
        let name = prop::collection::vec(any::<u8>(), 0..MAX_DOMAIN_BYTES);
        (status, any::<u64>(), any::<[u8; 16]>(), 0..1u32 << 24, 0..1u32 << 24, 0..1u32 << 24, 1..=5u8, 1..=255u8, name)
            .prop_map(|(status, body_limit, gid, number, bulk_number, first_packet, mtu, reads, domain)| Hello {
                status,
                body_limit,
                gid: Gid(gid),
                number,
                bulk_number,
                first_packet,
                mtu,
                reads,
                domain,
            })
    }

    proptest! {
        #[test]
        fn decodes_what_was_encoded(hello in hello()) {
            let bytes = hello.encode();
            let (decoded, domain_len) = Hello::decode(bytes.first_chunk().unwrap()).unwrap();
            prop_assert_eq!(Hello { domain: bytes[HELLO_BYTES..].to_vec(), ..decoded }, hello);
            prop_assert_eq!(domain_len, bytes.len() - HELLO_BYTES);
        }

        #[test]
        fn any_bytes_are_survived(mut bytes: [u8; HELLO_BYTES], real in hello(), at in 0..HELLO_BYTES) {
            let _ = Hello::decode(&bytes);
            bytes = *real.encode().first_chunk().unwrap();
            bytes[at] ^= 0x55;
            let _ = Hello::decode(&bytes);
        }
    }

    /// In pieces, with what comes after it left alone.
    #[test]
    fn a_hello_comes_in_pieces() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let here = listener.accept().unwrap().0;
        let hello = Hello {
            status: Status::Accepted,
            body_limit: 5,
            gid: Gid([3; 16]),
            number: 17,
            bulk_number: 18,
            first_packet: 99,
            mtu: 3,
            reads: 16,
            domain: b"a tenant".to_vec(),
        };
        let mut bytes = hello.encode();
        bytes.push(READY);
        let mut greeting = Greeting::default();
        for (at, piece) in bytes.chunks(7).enumerate() {
            assert!(greeting.read(&here).unwrap().is_none(), "piece {at}");
            there.write_all(piece).unwrap();
            crate::wait::wait(
                &[crate::link::Interest { fd: std::os::fd::AsFd::as_fd(&here), writable: false }],
                std::time::Instant::now() + std::time::Duration::from_secs(20),
            )
            .unwrap();
            if (at + 1) * 7 >= bytes.len() - 1 {
                break;
            }
        }
        assert_eq!(greeting.read(&here).unwrap(), Some(hello));
    }
}
