//! Doors for the fuzz targets: what systems make of heads that a peer wrote.

use crate::remote::frame::{Data, Frame, Kind};
use crate::remote::hello::Hello;

/// Decodes a head that comes with a body of `body_len` bytes. Whether it is one.
///
/// # Panics
///
/// If it encodes to something else.
pub fn head(bytes: &[u8], body_len: u64) -> bool {
    let Ok(frame) = Frame::decode(bytes, body_len) else { return false };
    let mut again = Vec::new();
    frame.encode(frame.attachments(), &mut again);
    assert_eq!(again, bytes, "{frame:?}");
    if let Ok(hello) = Hello::decode(&frame) {
        hello.encode(|frame| {
            assert_eq!(Hello::decode(frame).expect("its own encoding"), hello);
        });
    }
    true
}

/// Heads of every kind, with the lengths of their bodies.
pub fn heads() -> Vec<(Vec<u8>, u64)> {
    use Kind::{Ask, Bye, Cancel, Lookup, Reply, Return, Tell, Watch};
    let mut heads = Vec::new();
    let mut push = |frame: &Frame<'_>, attachments: &[u64], body_len| {
        let mut head = Vec::new();
        frame.encode(attachments.iter().copied(), &mut head);
        heads.push((head, body_len));
    };
    let data = Data::Head { payload: &[1, 2, 3], table: &[0; 64] };
    for kind in [Lookup, Ask, Tell, Reply, Cancel, Return, Bye, Watch] {
        let frame = Frame { codec: 1, request: 7, target: 3, message: 5, timeout_ms: 1000, ..Frame::new(kind) };
        push(&Frame { name: "adder", refs: 1, data, ..frame }, &[], 0);
        push(&Frame { data: Data::Body { payload_len: 100, table_len: 64 }, ..frame }, &[8000, 9000], 17_164);
    }
    let hello = Hello {
        system: "a".into(),
        address: Some("tcp://localhost:7070".into()),
        nodes: vec![(7, "unix:///run/dmrpc/node.sock".into())],
    };
    hello.encode(|frame| push(frame, &[], 0));
    heads
}
