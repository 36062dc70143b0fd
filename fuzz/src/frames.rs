//! Streams of frames as hostile peers write them. A model says what a receiver has to make of each.

use crate::Target;
use dmrpc_fabric::buffer::Buffer;
use dmrpc_fabric::fuzz;
use dmrpc_fabric::link::{Incoming, LinkError, MAX_HEAD_BYTES, Receiver, Target as Place};

pub(crate) const TCP: Target = Target { name: "frames_tcp", run: tcp, seeds };
pub(crate) const SHM: Target = Target { name: "frames_shm", run: shm, seeds };

/// The longest body that the receivers take.
const MAX_BODY_BYTES: u64 = 4096;
/// A stream that begins with this is followed by what the peer claims to have written in the end.
const LIE: u8 = 0xff;

/// How a stream has to end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// The peer is gone, be it in the middle of a message.
    Closed,
    /// The peer broke the rules.
    Protocol,
}

/// A head and its body.
type Message<'a> = (&'a [u8], &'a [u8]);

/// The messages of a stream, and how it ends.
fn model(mut stream: &[u8]) -> (Vec<Message<'_>>, End) {
    let mut messages = Vec::new();
    loop {
        let Some((header, rest)) = stream.split_at_checked(16) else { return (messages, End::Closed) };
        let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let (head_len, kind) = (number(0) as usize, number(4));
        let body_len = u64::from_le_bytes(header[8..].try_into().expect("eight bytes"));
        // No descriptor was ever passed, so that a frame for one is as wrong as one of no known kind.
        if kind != 0 || head_len > MAX_HEAD_BYTES || body_len > MAX_BODY_BYTES {
            return (messages, End::Protocol);
        }
        let Some((head, rest)) = rest.split_at_checked(head_len) else { return (messages, End::Closed) };
        // A head is told before its body came.
        let Some((body, rest)) = rest.split_at_checked(body_len as usize) else {
            messages.push((head, &[]));
            return (messages, End::Closed);
        };
        messages.push((head, body));
        stream = rest;
    }
}

/// A receiver and what it has to say next.
struct Check<'a> {
    receiver: Box<dyn Receiver>,
    messages: std::vec::IntoIter<Message<'a>>,
    body: Option<&'a [u8]>,
    end: End,
}

impl<'a> Check<'a> {
    fn new(receiver: Box<dyn Receiver>, stream: &'a [u8]) -> Self {
        let (messages, end) = model(stream);
        Self { receiver, messages: messages.into_iter(), body: None, end }
    }

    /// Receives what there is. Whether the link has ended.
    fn receive(&mut self) -> bool {
        loop {
            match self.receiver.recv() {
                Ok(Incoming::Empty) => return false,
                Ok(Incoming::Head { head, body_len }) => {
                    let (want, body) = self.messages.next().expect("no more messages than the model has");
                    assert_eq!(head, want);
                    self.body = Some(body);
                    if body_len > 0 {
                        // Every other one is skipped.
                        let skip = body_len.is_multiple_of(2);
                        let place = if skip { Place::Discard } else { Buffer::zeroed(body_len as usize).into() };
                        self.receiver.place(place);
                    }
                }
                Ok(Incoming::Body(place)) => {
                    let body = self.body.take().expect("a head came first");
                    if let Some(buffer) = Buffer::from_target(place) {
                        assert_eq!(buffer.into_vec(), body);
                    }
                }
                Err(error) => {
                    let end = match error {
                        LinkError::Closed => End::Closed,
                        LinkError::Protocol(_) => End::Protocol,
                        other => panic!("{other}"),
                    };
                    assert_eq!(end, self.end);
                    assert_eq!(self.messages.len(), 0, "messages of the model that did not come");
                    assert!(matches!(self.receiver.recv(), Err(LinkError::Closed)), "an end is for ever");
                    return true;
                }
            }
        }
    }
}

fn tcp(stream: &[u8]) {
    let receiver = fuzz::tcp(stream, MAX_BODY_BYTES).expect("a socket");
    let ended = Check::new(receiver, stream).receive();
    assert!(ended, "everything came, and the peer is gone");
}

fn shm(data: &[u8]) {
    let (mut peer, receiver) = fuzz::shm(MAX_BODY_BYTES).expect("a link");
    let (lie, stream) = match data {
        [LIE, rest @ ..] if rest.len() >= 8 => {
            let (lie, stream) = rest.split_at(8);
            (Some(u64::from_le_bytes(lie.try_into().expect("eight bytes"))), stream)
        }
        _ => (None, data),
    };
    let mut check = Check::new(receiver, stream);
    let mut rest = stream;
    while !rest.is_empty() {
        let count = peer.write(rest).expect("the receiver keeps to the rules");
        rest = &rest[count..];
        if check.receive() {
            return;
        }
    }
    if let Some(lie) = lie {
        // What comes now is anybody's guess, but that it comes to an end.
        peer.lie(lie);
        drop(peer);
        let mut looks = 0..10_000;
        while looks.next().is_some() {
            match check.receiver.recv() {
                Ok(Incoming::Head { body_len, .. }) if body_len > 0 => check.receiver.place(Place::Discard),
                Ok(_) => {}
                Err(_) => return,
            }
        }
        panic!("a link without end");
    }
    drop(peer);
    // The first look finds nothing and asks to be woken, the second looks whether anybody is left.
    let ended = (0..3).any(|_| check.receive());
    assert!(ended, "everything came, and the peer is gone");
}

fn seeds() -> Vec<Vec<u8>> {
    let frame = |head: &[u8], kind: u32, body: &[u8]| {
        let mut out = (head.len() as u32).to_le_bytes().to_vec();
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&(body.len() as u64).to_le_bytes());
        out.extend_from_slice(head);
        out.extend_from_slice(body);
        out
    };
    let small = frame(b"head", 0, b"");
    let with_body = frame(b"h", 0, &[7; 301]);
    let skipped = frame(b"", 0, &[9; 600]);
    let descriptor = frame(b"", 1, b"");
    let mut too_large = frame(b"x", 0, b"");
    too_large[8..16].copy_from_slice(&(MAX_BODY_BYTES + 1).to_le_bytes());
    let mut lie = vec![LIE];
    lie.extend_from_slice(&u64::MAX.to_le_bytes());
    lie.extend_from_slice(&small);
    vec![
        small.clone(),
        [with_body.clone(), small.clone(), skipped].concat(),
        [small.clone(), descriptor].concat(),
        [small, too_large].concat(),
        with_body[..100].to_vec(),
        lie,
    ]
}
