//! Reads and writes of a memory node over the network, by the bare protocol and on the caller's own thread, which spins. Over RDMA see
//! `one_sided.rs`.

use crate::row::{Row, Sample};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::address::Address;
use dmrpc_fabric::buffer::Buffer;
use dmrpc_fabric::link::{Body, Incoming, Link, TrySendError};
use dmrpc_fabric::listen::connect;
use dmrpc_memnode::{Node, NodeConfig};
use dmrpc_pages::Extent;
use dmrpc_wire::{
    FEATURE_REGISTERED, Hello, Leased, NodeId, Notice, ObjectId, ReleaseEntry, Reply, Request, SlotLease, Span, Status,
    Write,
};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes of an object or of a part that is read.
const SIZES: [u64; 6] = [64, 4 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20];
/// Operations under way at a time, for those of at most [`SMALL_BYTES`].
const DEPTHS: [u32; 3] = [1, 8, 32];
const SMALL_BYTES: u64 = 64 << 10;
const POOL_BYTES: u64 = 384 << 20;
const LEAST: u64 = 10;
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// Slots leased at a time.
const SLOTS: u32 = 256;

/// Runs a node until standard input ends.
pub(crate) fn serve(address: &Address) -> Result<()> {
    // The bare client does not renew its session.
    let lease = Duration::from_secs(3600);
    let config = NodeConfig { pool_bytes: POOL_BYTES, listen: vec![address.clone()], lease, ..NodeConfig::default() };
    let node = Node::start(config)?;
    eprintln!("memory: {}", node.memory());
    crate::ready(&node.addresses()[0]);
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut std::io::stdin(), &mut rest)?;
    node.shutdown();
    Ok(())
}

/// Reads and writes, and takes the time.
pub(crate) fn ask(fabric: &str, address: &Address, turn: Duration) -> Result<Vec<Row>> {
    let mut client = Client::open(address)?;
    if let Some(one_sided) = client.link.receiver.one_sided() {
        return crate::one_sided::ask(client, one_sided, turn);
    }
    let mut rows = Vec::new();
    let largest = SIZES[SIZES.len() - 1];
    let source: Vec<u8> = (0..largest).map(|at| (at % 251) as u8).collect();
    let source = Bytes::from(source);
    let object = client.write(&source)?;
    for size in SIZES {
        for depth in DEPTHS {
            if depth > 1 && size > SMALL_BYTES {
                continue;
            }
            rows.push(client.reads(object, &source, size, depth, turn)?.row(fabric, "read", size));
        }
    }
    client.release(object)?;
    for size in SIZES {
        rows.push(client.writes(&source.slice(..size as usize), turn)?.row(fabric, "write", size));
    }
    Ok(rows)
}

pub(crate) struct Outcome {
    pub(crate) sample: Sample,
    pub(crate) depth: u32,
    pub(crate) took: Duration,
}

impl Outcome {
    pub(crate) fn row(&self, fabric: &str, what: &str, size: u64) -> Row {
        self.sample.row(fabric, what, size, self.depth, self.took)
    }
}

/// A session at a node.
pub(crate) struct Client {
    link: Link,
    node: NodeId,
    sequence: u64,
    tag: u64,
    keys: u64,
    slots: Vec<SlotLease>,
    head: Vec<u8>,
    /// Pages of the session's that came free, and that nobody has waited for yet.
    freed_pages: u64,
}

/// An answer's body, if it had one.
type Answer = Option<Buffer>;

impl Client {
    fn open(address: &Address) -> Result<Self> {
        let link = connect(address, &LinkOptions::default(), Instant::now() + LIMIT).context("connecting")?;
        let features = if link.receiver.one_sided().is_some() { FEATURE_REGISTERED } else { 0 };
        let (node, slots, head) = (NodeId(0), Vec::new(), Vec::new());
        let mut client = Self { link, node, sequence: 0, tag: 1 << 32, keys: 0, slots, head, freed_pages: 0 };
        let hello = Hello {
            features,
            quota_pages: 0,
            resume_session: 0,
            resume_epoch: 0,
            resume_key: [0; 16],
            token: b"",
            name: "micro",
        };
        client.send(&Request::Hello(hello), Body::new())?;
        let mut node = None;
        client.receive(None, |reply| {
            if let Reply::Welcome(welcome) = reply {
                node = Some(welcome.node);
            }
        })?;
        client.node = node.context("the node did not say welcome")?;
        Ok(client)
    }

    pub(crate) fn send(&mut self, request: &Request<'_>, body: Body) -> Result<()> {
        self.queue(request, body)?;
        // What there is no room for yet leaves while the answer is waited for.
        self.link.sender.flush()?;
        Ok(())
    }

    /// As [`send`](Self::send), to leave with what is sent next.
    pub(crate) fn gather(&mut self, request: &Request<'_>) -> Result<()> {
        self.queue(request, Body::new())
    }

    fn queue(&mut self, request: &Request<'_>, body: Body) -> Result<()> {
        let number = if request.op().is_sequenced() {
            self.sequence += 1;
            self.sequence
        } else {
            self.tag += 1;
            self.tag
        };
        self.head.clear();
        request.encode(number, self.sequence.saturating_sub(1), &mut self.head);
        let mut body = body;
        loop {
            match self.link.sender.try_send(&self.head, body) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) => body = back,
                Err(TrySendError::Link(error)) => return Err(error.into()),
            }
            self.link.sender.flush()?;
        }
        Ok(())
    }

    /// The next answer, which must not be a refusal. Its body goes to `buffer`, or to a new one.
    pub(crate) fn receive(&mut self, mut buffer: Option<Buffer>, mut look: impl FnMut(Reply<'_>)) -> Result<Answer> {
        let deadline = Instant::now() + LIMIT;
        loop {
            self.link.receiver.spin(Duration::from_micros(200));
            match self.link.receiver.recv()? {
                Incoming::Empty => {
                    ensure!(Instant::now() < deadline, "the node does not answer");
                    self.link.sender.flush()?;
                }
                Incoming::Head { head, body_len } => {
                    let (head, reply) = Reply::decode(head)?;
                    ensure!(head.status == Status::Ok, "the node refuses: {:?}", head.status);
                    if let Reply::Notice(notice) = reply {
                        ensure!(body_len == 0, "a notice with a body");
                        match notice {
                            Notice::Freed { extents, .. } => {
                                let pages = extents.iter().map(|extent| u64::from(Extent::from(*extent).count));
                                self.freed_pages += pages.sum::<u64>();
                            }
                            other => eprintln!("notice: {other:?}"),
                        }
                        continue;
                    }
                    look(reply);
                    if body_len == 0 {
                        return Ok(None);
                    }
                    let target = match buffer.take() {
                        Some(buffer) => buffer,
                        None => Buffer::zeroed(body_len as usize),
                    };
                    self.link.receiver.place(target.into());
                }
                Incoming::Body(target) => return Ok(Buffer::from_target(target)),
            }
        }
    }

    /// Waits until so many pages have come free.
    pub(crate) fn wait_for_freed(&mut self, pages: u64) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while self.freed_pages < pages {
            ensure!(Instant::now() < deadline, "the node gives nothing back");
            // A request for nothing: what came before its answer came with it.
            self.send(&Request::Hold(&[]), Body::new())?;
            self.receive(None, |_| ())?;
        }
        self.freed_pages -= pages;
        Ok(())
    }

    /// Leases a segment; its number.
    pub(crate) fn lease(&mut self, pages: u32) -> Result<u32> {
        self.send(&Request::Lease { pages, slots: SLOTS, wait_ms: 0 }, Body::new())?;
        let (mut slots, mut found) = (Vec::new(), None);
        self.receive(None, |reply| {
            if let Reply::Leased(Leased { segment, slots: leased }) = reply {
                slots.extend_from_slice(leased);
                found = segment.filter(|info| info.pages >= pages);
            }
        })?;
        self.slots.extend(slots);
        Ok(found.context("the node leases no memory")?.segment)
    }

    pub(crate) fn new_id(&mut self) -> Result<ObjectId> {
        if self.slots.is_empty() {
            self.send(&Request::Lease { pages: 0, slots: SLOTS, wait_ms: 0 }, Body::new())?;
            let mut slots = Vec::new();
            self.receive(None, |reply| {
                if let Reply::Leased(Leased { slots: leased, .. }) = reply {
                    slots.extend_from_slice(leased);
                }
            })?;
            self.slots = slots;
        }
        self.keys += 1;
        let mut key = [7; 12];
        key[..8].copy_from_slice(&self.keys.to_le_bytes());
        let slot = self.slots.pop().context("the node leases no slots")?;
        Ok(ObjectId::new(self.node, slot, key))
    }

    /// Makes an object of bytes.
    fn write(&mut self, bytes: &Bytes) -> Result<ObjectId> {
        let (id, size) = (self.new_id()?, bytes.len() as u64);
        let spans = [Span { offset: 0.into(), length: size.into() }];
        let write = Write { id, base: ObjectId::NULL, size, spans: &spans };
        self.send(&Request::Write(write), Body::from_iter([bytes.clone()]))?;
        self.receive(None, |_| ())?;
        Ok(id)
    }

    pub(crate) fn release(&mut self, id: ObjectId) -> Result<()> {
        let entries = [ReleaseEntry { id, count: 1.into() }];
        self.send(&Request::Release(&entries), Body::new())
    }

    /// Reads `size` bytes again and again, from place to place of an object whose bytes are known.
    fn reads(&mut self, id: ObjectId, source: &Bytes, size: u64, depth: u32, turn: Duration) -> Result<Outcome> {
        let places = (source.len() as u64 / size).min(1024);
        let mut sample = Sample::new();
        let mut asked: VecDeque<(Instant, u64)> = VecDeque::new();
        let mut buffer = None;
        let (start, mut round) = (Instant::now(), 0);
        let mut now = start;
        let mut more = true;
        while more || !asked.is_empty() {
            while more && asked.len() < depth as usize {
                let offset = round % places * size;
                round += 1;
                asked.push_back((Instant::now(), offset));
                self.send(&Request::Read { id, offset, length: size }, Body::new())?;
            }
            let came = self.receive(buffer.take(), |_| ())?.context("an answer without bytes")?;
            now = Instant::now();
            let (when, offset) = asked.pop_front().context("an answer to no question")?;
            sample.add(now - when);
            // All bytes of the first round, some of each later one.
            let bytes = came.into_vec();
            let wanted = &source[offset as usize..][..size as usize];
            let sound = if round <= u64::from(depth) { bytes == wanted } else { bytes[..8] == wanted[..8] };
            if !sound || bytes.last() != wanted.last() {
                bail!("{size} bytes from {offset} came damaged");
            }
            buffer = Some(bytes.into());
            more = now - start < turn || sample.count() < LEAST && now - start < LIMIT;
        }
        Ok(Outcome { sample, depth, took: now - start })
    }

    /// Makes objects of `bytes` and lets them go, one at a time.
    fn writes(&mut self, bytes: &Bytes, turn: Duration) -> Result<Outcome> {
        // The session's first segments are made for it.
        for _ in 0..2 {
            let id = self.write(bytes)?;
            self.release(id)?;
        }
        let mut sample = Sample::new();
        let start = Instant::now();
        let mut spent = Duration::ZERO;
        while start.elapsed() < turn || sample.count() < LEAST && start.elapsed() < LIMIT {
            let begun = Instant::now();
            let id = self.write(bytes)?;
            let took = begun.elapsed();
            spent += took;
            sample.add(took);
            self.release(id)?;
        }
        Ok(Outcome { sample, depth: 1, took: spent })
    }
}
