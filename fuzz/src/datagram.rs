//! Datagrams of a peer that sends what it likes.

use crate::Target;
use dmrpc_fabric::datagram::device::Frame;
use dmrpc_fabric::datagram::packet::{HEADER_BYTES, Header, Kind, MessagePrefix, SessionName};
use dmrpc_fabric::datagram::sequence::Sequence;
use dmrpc_fabric::datagram::session::{Session, Terms};
use dmrpc_fabric::datagram::{Head, News};
use dmrpc_fabric::link::{Body, Target as Place};
use zerocopy::IntoBytes;

pub(crate) const DATAGRAM: Target = Target { name: "datagram", run: datagram, seeds };

/// Bytes of a datagram's payload in the session under test.
const PAYLOAD_BYTES: usize = 100;
const WINDOW: u32 = 16;

struct Datagram(Vec<u8>);

impl Frame for Datagram {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

fn terms() -> Terms {
    Terms {
        payload_bytes: PAYLOAD_BYTES,
        window: WINDOW,
        peer_window: WINDOW,
        contended: true,
        checksum: false,
        max_body_bytes: 5_000,
        max_queued_bytes: 10_000,
        silence_ns: 1_000_000,
        keep_alive_ns: 500_000,
    }
}

/// Each run of bytes, its length before it, is a datagram. A header that decodes encodes to what it came from; a session takes
/// whatever there is, or ends.
fn datagram(data: &[u8]) {
    let mut session = Session::<Datagram>::new(0, SessionName { index: 1, token: 2 }, terms());
    let _ = session.push(b"a question", Body::from_iter([vec![7; 3 * PAYLOAD_BYTES].into()]));
    let (mut head, mut rest, mut now) = (Head::default(), data, 0);
    while let Some((&len, after)) = rest.split_first() {
        let (bytes, after) = after.split_at(usize::from(len).min(after.len()));
        rest = after;
        now += 10_000;
        while session.transmit(now).is_some() {}
        if let Some((header, payload)) = Header::decode(bytes, false) {
            let mut pieces = std::iter::once(payload);
            let checked = bytes[HEADER_BYTES - 4..HEADER_BYTES] != [0; 4];
            let encoded = header.encode(payload.len(), checked.then_some(&mut pieces as _));
            assert_eq!(encoded[..], bytes[..HEADER_BYTES]);
            let _ = session.datagram(now, &header, payload.len(), Datagram(bytes.to_vec()));
        }
        while let Ok(News::Head { body_len }) = session.recv(&mut head) {
            if body_len > 0 {
                session.place(Place::Discard);
            }
        }
        session.timeout(now);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let header = |kind, sequence, fragment| Header {
        kind,
        to: SessionName { index: 0, token: 0 },
        sequence: Sequence(sequence),
        ack: Sequence(0),
        limit: Sequence(WINDOW),
        fragment,
        ack_delay_ns: 100,
    };
    let datagram = |header: Header, payload: &[u8], checked: bool| {
        let mut pieces = std::iter::once(payload);
        let front = header.encode(payload.len(), checked.then_some(&mut pieces as _));
        let len = (front.len() + payload.len()) as u8;
        [&[len][..], &front, payload].concat()
    };
    let prefix = MessagePrefix { head: 4.into(), body: 150.into() };
    let first = [prefix.as_bytes(), b"head", &[1; PAYLOAD_BYTES - 16]].concat();
    let sacks = 0b101u64.to_le_bytes();
    vec![
        datagram(header(Kind::Data, 0, 0), &first, true),
        [
            datagram(header(Kind::Data, 1, 1), &[2; 66], false),
            datagram(header(Kind::Data, 0, 0), &first, false),
            datagram(header(Kind::Probe, 0, 0), &[], false),
        ]
        .concat(),
        [datagram(header(Kind::Ack, 0, 0), &sacks, true), datagram(header(Kind::Bye, 0, 0), &[], true)].concat(),
    ]
}
