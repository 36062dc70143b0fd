//! Peers that break the rules, by hand-made bytes. Invariant 8 of `docs/actors.md`, and 9 for what waits meanwhile.

use dmrpc_actors::{ActorError, Message, System, actor};
use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::blocking::{BlockingReceiver, BlockingSender};
use dmrpc_fabric::link::{Body, Incoming, Link, LinkError, Target};
use dmrpc_fabric::listen::{Listener, connect};
use std::time::{Duration, Instant};

const HELLO: u8 = 1;
const LOOKUP: u8 = 2;
const ASK: u8 = 3;
const TELL: u8 = 4;
const REPLY: u8 = 5;
const CANCEL: u8 = 6;
const RETURN: u8 = 7;
const GONE: u8 = 9;

const MALFORMED: u32 = 7;

struct Adder;

#[actor]
impl Adder {
    #[message]
    fn add(&mut self, a: u32, b: u32) -> u32 {
        a.wrapping_add(b)
    }

    #[message]
    fn text(&mut self, text: String) -> usize {
        text.len()
    }

    #[message]
    fn sink(&mut self, picky: Picky) {
        let _ = picky;
    }
}

/// Panics when it is decoded, as code of a user may.
struct Picky;

impl serde::Serialize for Picky {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(0)
    }
}

impl<'de> serde::Deserialize<'de> for Picky {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("picky")
    }
}

const ADD: u32 = <AdderAdd as Message<Adder>>::ID;

/// The fixed part of a message, as `docs/actors.md` draws it.
#[derive(Clone, Copy, Default)]
struct Head {
    kind: u8,
    codec: u8,
    flags: u8,
    attachments: u8,
    request: u32,
    target: u32,
    message: u32,
    timeout_ms: u32,
    name_len: u16,
    refs: u16,
    payload_len: u32,
    table_len: u32,
}

impl Head {
    fn bytes(self, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![self.kind, self.codec, self.flags, self.attachments];
        for number in [self.request, self.target, self.message, self.timeout_ms] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.name_len.to_le_bytes());
        bytes.extend_from_slice(&self.refs.to_le_bytes());
        bytes.extend_from_slice(&self.payload_len.to_le_bytes());
        bytes.extend_from_slice(&self.table_len.to_le_bytes());
        assert_eq!(bytes.len(), 32);
        bytes.extend_from_slice(rest);
        bytes
    }

    fn with_payload(self, payload: &[u8]) -> Vec<u8> {
        Self { payload_len: payload.len() as u32, ..self }.bytes(payload)
    }
}

fn hello() -> Vec<u8> {
    // An empty name, no address, no nodes.
    Head { kind: HELLO, target: 2, message: 0x6341_6d44, ..Head::default() }.with_payload(&[0, 0, 0])
}

struct Raw {
    sender: BlockingSender,
    receiver: BlockingReceiver,
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

impl Raw {
    fn new(link: Link) -> Self {
        Self { sender: BlockingSender::new(link.sender), receiver: BlockingReceiver::new(link.receiver) }
    }

    /// Connects, says hello and hears it.
    fn greeted(address: &str) -> Self {
        let mut raw = Self::mute(address);
        raw.send(&hello());
        let said = raw.recv().expect("a hello");
        assert_eq!(said[0], HELLO);
        raw
    }

    fn mute(address: &str) -> Self {
        let address = address.parse().expect("an address");
        Self::new(connect(&address, &LinkOptions::default(), soon()).expect("connects"))
    }

    fn send(&mut self, head: &[u8]) {
        self.send_with(head, b"");
    }

    fn send_with(&mut self, head: &[u8], body: &'static [u8]) {
        let mut pieces = Body::new();
        if !body.is_empty() {
            pieces.push(bytes::Bytes::from_static(body));
        }
        self.sender.send(head, pieces, soon()).expect("the link takes it");
    }

    fn recv(&mut self) -> Result<Vec<u8>, LinkError> {
        let (head, body_len) = match self.receiver.recv(soon())? {
            Incoming::Head { head, body_len } => (head.to_vec(), body_len),
            Incoming::Body(_) | Incoming::Empty => panic!("a body without a head"),
        };
        if body_len > 0 {
            self.receiver.recv_body(Target::Discard, soon())?;
        }
        Ok(head)
    }

    /// The status and payload of the answer to `request`, which is the next message.
    fn answer(&mut self, request: u32) -> (u32, Vec<u8>) {
        let head = self.recv().expect("an answer");
        assert_eq!((head[0], &head[4..8]), (REPLY, &request.to_le_bytes()[..]));
        (u32::from_le_bytes(head[8..12].try_into().expect("four")), head[32..].to_vec())
    }

    fn look_up(&mut self) -> u32 {
        self.send(&Head { kind: LOOKUP, request: 1, name_len: 5, ..Head::default() }.bytes(b"adder"));
        let head = self.recv().expect("an answer");
        assert_eq!(head[8..12], [0; 4], "found");
        u32::from_le_bytes(head[12..16].try_into().expect("four"))
    }

    #[track_caller]
    fn assert_closed(mut self) {
        let error = loop {
            match self.recv() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(!matches!(error, LinkError::Deadline(_)), "the link is still open");
    }
}

struct Rig {
    runtime: tokio::runtime::Runtime,
    system: System,
    address: String,
    _directory: tempfile::TempDir,
}

fn rig() -> Rig {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("starts");
    let address = format!("unix://{}/s", directory.path().display());
    let built = System::builder().listen(&address).max_message_bytes(1 << 20).build();
    let system = runtime.block_on(built).expect("listens");
    let adder = system.spawn(Adder);
    system.register("adder", &adder).expect("free");
    Rig { runtime, system, address, _directory: directory }
}

impl Rig {
    /// Whether an honest client is served.
    #[track_caller]
    fn assert_alive(&self) {
        let alive = self.runtime.block_on(async {
            let client = System::builder().build().await?;
            let adder = client.connect::<Adder>(&format!("{}#adder", self.address)).await?;
            adder.add(1, 2).await
        });
        assert_eq!(alive, Ok(3));
        assert!(self.system.find::<Adder>("adder").is_ok());
    }
}

#[test]
fn heads_that_make_no_sense_close_the_link_alone() {
    let rig = rig();
    let honest = Head { kind: ASK, ..Head::default() };
    let cases: Vec<Vec<u8>> = vec![
        vec![],
        vec![ASK; 31],
        Head { kind: 0, ..Head::default() }.bytes(b""),
        Head { kind: 99, ..Head::default() }.bytes(b""),
        Head { flags: 2, ..honest }.bytes(b""),
        Head { payload_len: u32::MAX, ..honest }.bytes(b"short"),
        Head { table_len: 1, ..honest }.bytes(b""),
        Head { attachments: 255, ..honest }.bytes(b"no lengths"),
        Head { attachments: 1, ..honest }.bytes(&u64::MAX.to_le_bytes()),
        Head { name_len: 1000, ..honest }.bytes(&[b'a'; 1000]),
        Head { name_len: 1, ..honest }.bytes(b"\xff"),
        Head { refs: 1, ..honest }.bytes(b""),
        Head { table_len: 5, refs: 1, ..honest }.bytes(b"table"),
        Head { flags: 1, payload_len: 7, ..honest }.bytes(b""),
        // Of the second kind: well formed, and never sent by an honest peer.
        hello(),
        Head { kind: REPLY, request: 77, ..Head::default() }.bytes(b""),
        Head { kind: RETURN, ..Head::default() }.with_payload(b"odd"),
    ];
    for (case, head) in cases.iter().enumerate() {
        let mut raw = Raw::greeted(&rig.address);
        raw.send(head);
        eprintln!("case {case}");
        raw.assert_closed();
    }
    rig.assert_alive();
}

#[test]
fn bodies_that_make_no_sense_close_the_link_alone() {
    let rig = rig();
    let honest = Head { kind: ASK, ..Head::default() };
    for head in [
        honest.bytes(b""),
        Head { flags: 1, payload_len: 3, ..honest }.bytes(b""),
        Head { flags: 1, payload_len: 2, table_len: u32::MAX, ..honest }.bytes(b""),
        Head { attachments: 1, ..honest }.bytes(&5_u64.to_le_bytes()),
    ] {
        let mut raw = Raw::greeted(&rig.address);
        raw.send_with(&head, b"body");
        raw.assert_closed();
    }
    rig.assert_alive();
}

#[test]
fn nothing_is_said_before_a_hello() {
    let rig = rig();
    let old = Head { kind: HELLO, target: 99, message: 0x6341_6d44, ..Head::default() }.with_payload(&[0, 0, 0]);
    let other = Head { kind: HELLO, target: 1, message: 1, ..Head::default() }.with_payload(&[0, 0, 0]);
    let empty = Head { kind: HELLO, target: 2, message: 0x6341_6d44, ..Head::default() }.bytes(b"");
    let early = Head { kind: LOOKUP, name_len: 5, ..Head::default() }.bytes(b"adder");
    for head in [old, other, empty, early] {
        let mut raw = Raw::mute(&rig.address);
        raw.send(&head);
        raw.assert_closed();
    }
    rig.assert_alive();
}

#[test]
fn payloads_that_make_no_sense_are_answered_and_the_link_goes_on() {
    let rig = rig();
    let mut raw = Raw::greeted(&rig.address);
    let actor = raw.look_up();
    let ask = Head { kind: ASK, request: 9, target: actor, message: ADD, ..Head::default() };
    let text = <AdderText as Message<Adder>>::ID;
    let sink = <AdderSink as Message<Adder>>::ID;
    let cases: Vec<(u32, Vec<u8>)> = vec![
        // Too short, too long, no UTF-8, a length without end, code of the user that panics.
        (MALFORMED, ask.with_payload(&[1])),
        (MALFORMED, ask.with_payload(&[1, 2, 3])),
        (MALFORMED, Head { message: text, ..ask }.with_payload(&[2, 0xff, 0xff])),
        (MALFORMED, Head { message: text, ..ask }.with_payload(&[0xff, 0xff, 0xff, 0xff, 0x0f])),
        (MALFORMED, Head { message: sink, ..ask }.with_payload(&[0])),
        (MALFORMED, Head { codec: 9, ..ask }.with_payload(&[1, 2])),
        (MALFORMED, Head { codec: 1, ..ask }.with_payload(&[0xc1])),
        (MALFORMED, Head { codec: 1, ..ask }.with_payload(&[])),
        // Nested deeper than a stack.
        (MALFORMED, Head { codec: 1, ..ask }.with_payload(&[0x91; 30_000])),
        // No such method, no such actor.
        (6, Head { message: 4711, ..ask }.with_payload(&[1, 2])),
        (6, Head { message: 0, name_len: 3, ..ask }.bytes(b"sub")),
    ];
    for (case, (status, head)) in cases.iter().enumerate() {
        raw.send(head);
        assert_eq!(raw.answer(9).0, *status, "case {case}");
        // The same as a tell is nobody's business.
        let mut tell = head.clone();
        tell[0] = TELL;
        raw.send(&tell);
    }
    // No such actor: that it is gone is said too, of a tell only that.
    let gone = Head { target: 4711, ..ask }.with_payload(&[1, 2]);
    for kind in [ASK, TELL] {
        let mut message = gone.clone();
        message[0] = kind;
        raw.send(&message);
        assert_eq!(raw.recv().expect("a notice")[..12], [GONE, 0, 0, 0, 0, 0, 0, 0, 0x67, 0x12, 0, 0]);
        if kind == ASK {
            assert_eq!(raw.answer(9).0, 3);
        }
    }
    // Withdrawals and returns of nothing are nothing.
    raw.send(&Head { kind: CANCEL, request: 1234, ..Head::default() }.bytes(b""));
    raw.send(&Head { kind: RETURN, ..Head::default() }.with_payload(&[9; 16]));
    raw.send(&ask.with_payload(&[40, 2]));
    assert_eq!(raw.answer(9), (0, vec![42]));
    // By name, in MessagePack.
    raw.send(&Head { codec: 1, message: 0, name_len: 3, payload_len: 3, ..ask }.bytes(b"add\x92\x28\x02"));
    assert_eq!(raw.answer(9), (0, vec![42]));
}

#[test]
fn half_a_message_costs_its_own_link() {
    let rig = rig();
    let mut raw = Raw::greeted(&rig.address);
    // A head whose body comes only in part: the ring takes some, then this end goes.
    let head = Head { kind: ASK, flags: 1, payload_len: 1 << 20, ..Head::default() }.bytes(b"");
    let mut body = Body::new();
    body.push(vec![0; 1 << 20].into());
    raw.sender.get_mut().try_send(&head, body).map_err(|_| ()).expect("taken");
    let _ = raw.sender.get_mut().flush();
    rig.assert_alive();
    drop(raw);
    rig.assert_alive();
}

#[test]
fn a_message_over_the_limit_is_refused() {
    let rig = rig();
    let mut raw = Raw::greeted(&rig.address);
    let head = Head { kind: ASK, flags: 1, payload_len: 2 << 20, ..Head::default() }.bytes(b"");
    let mut body = Body::new();
    body.push(vec![0; 2 << 20].into());
    // Either this end of the link knows the limit, or the other end closes it.
    if raw.sender.send(&head, body, soon()).is_ok() {
        raw.assert_closed();
    }
    rig.assert_alive();
}

/// A server that says nothing, or nonsense.
#[test]
fn a_caller_survives_its_server() {
    let rig = rig();
    let directory = tempfile::tempdir().expect("a directory");
    // Each time at an address of its own: at the same one, a link that has just ended may still be taken for a good one.
    let connect = |name: &str, within| {
        let address = format!("unix://{}/{name}", directory.path().display());
        let listener = Listener::bind(&address.parse().expect("parses"), &LinkOptions::default()).expect("listens");
        let (system, address) = (rig.system.clone(), format!("{address}#adder"));
        let connecting = rig.runtime.spawn(async move {
            let connecting = system.connect::<Adder>(&address);
            tokio::time::timeout(within, connecting).await.map(|connected| connected.map(drop))
        });
        (listener, connecting)
    };

    // Nothing.
    let (mut listener, silent) = connect("silent", Duration::from_millis(100));
    let link = listener.accept(soon()).expect("connected");
    assert!(rig.runtime.block_on(silent).expect("no panic").is_err(), "nothing came, and nobody waits for ever");
    drop(link);

    // An answer to another question.
    let (mut listener, confused) = connect("confused", Duration::from_secs(60));
    let mut raw = Raw::new(listener.accept(soon()).expect("connected"));
    raw.send(&hello());
    assert_eq!((raw.recv().expect("a hello")[0], raw.recv().expect("a lookup")[0]), (HELLO, LOOKUP));
    raw.send(&Head { kind: REPLY, request: 4711, ..Head::default() }.bytes(b""));
    let connected = rig.runtime.block_on(confused).expect("no panic").expect("at once");
    assert!(matches!(connected, Err(ActorError::Unreachable { .. })), "{connected:?}");

    // It goes in the middle.
    let (mut listener, left) = connect("left", Duration::from_secs(60));
    let mut raw = Raw::new(listener.accept(soon()).expect("connected"));
    raw.send(&hello());
    raw.recv().expect("a hello");
    drop(raw);
    let connected = rig.runtime.block_on(left).expect("no panic").expect("at once");
    assert!(matches!(connected, Err(ActorError::Unreachable { .. })), "{connected:?}");

    // An error of a later version.
    let (mut listener, newer) = connect("newer", Duration::from_secs(60));
    let mut raw = Raw::new(listener.accept(soon()).expect("connected"));
    raw.send(&hello());
    raw.recv().expect("a hello");
    let lookup = raw.recv().expect("a lookup");
    let request = u32::from_le_bytes(lookup[4..8].try_into().expect("four"));
    raw.send(&Head { kind: REPLY, request, target: 999, ..Head::default() }.bytes(b""));
    let connected = rig.runtime.block_on(newer).expect("no panic").expect("at once");
    assert!(matches!(connected, Err(ActorError::Malformed(_))), "{connected:?}");
}
