//! A client that speaks the bare protocol.

use super::{Mapped, limit};
use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::address::Address;
use dmrpc_fabric::blocking::{BlockingReceiver, BlockingSender};
use dmrpc_fabric::buffer::Buffer;
use dmrpc_fabric::link::{Body, Incoming, LinkError};
use dmrpc_fabric::listen::connect;
use dmrpc_pages::{Extent, SegmentId};
use dmrpc_wire::{
    Coherence, Commit, FEATURE_LOCAL, Hello, Leased, NodeId, Notice, ObjectId, Patch, RawExtent, Reply, Request,
    SegmentInfo, SlotLease, Span, Stats, Status, Welcome, Write,
};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// A session.
pub(crate) struct Client {
    pub(crate) sender: BlockingSender,
    pub(crate) receiver: BlockingReceiver,
    pub(crate) welcome: Welcome,
    sequence: u64,
    tag: u64,
    keys: u64,
    slots: Vec<SlotLease>,
    /// What came unasked: heads.
    pub(crate) notices: Vec<Vec<u8>>,
}

/// How to say hello.
#[derive(Clone, Copy, Default)]
pub(crate) struct Terms<'a> {
    pub(crate) local: bool,
    pub(crate) token: &'a [u8],
    pub(crate) quota_pages: u32,
}

/// An answer.
pub(crate) struct Answer {
    head: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn reply(&self) -> Reply<'_> {
        Reply::decode(&self.head).expect("a node sends what decodes").1
    }

    pub(crate) fn status(&self) -> Status {
        Reply::decode(&self.head).expect("a node sends what decodes").0.status
    }
}

impl Client {
    /// A session of a client on the node's host.
    pub(crate) fn local(address: &Address) -> Self {
        Self::open(address, &Terms { local: true, ..Terms::default() }).expect("a session")
    }

    /// A session over the network.
    pub(crate) fn remote(address: &Address) -> Self {
        Self::open(address, &Terms::default()).expect("a session")
    }

    /// A session, or why not.
    pub(crate) fn open(address: &Address, terms: &Terms<'_>) -> Result<Self, Status> {
        let link = connect(address, &LinkOptions::default(), limit()).expect("a link");
        let mut client = Self {
            sender: BlockingSender::new(link.sender),
            receiver: BlockingReceiver::new(link.receiver),
            welcome: Welcome {
                node: NodeId(0),
                page_bytes: 0,
                session: 0,
                epoch: 0,
                lease_ms: 0,
                grace_ms: 0,
                quota_pages: 0,
                max_object_bytes: 0,
                resume_key: [0; 16],
                coherence: Coherence::Hardware,
            },
            sequence: 0,
            tag: 1 << 32,
            keys: u64::from(std::process::id()) << 32,
            slots: Vec::new(),
            notices: Vec::new(),
        };
        let hello = Hello {
            features: if terms.local { FEATURE_LOCAL } else { 0 },
            quota_pages: terms.quota_pages,
            resume_session: 0,
            resume_epoch: 0,
            resume_key: [0; 16],
            token: terms.token,
            name: "test",
        };
        let answer = client.ask(&Request::Hello(hello));
        match answer.reply() {
            Reply::Welcome(welcome) => client.welcome = welcome,
            _ => return Err(answer.status()),
        }
        Ok(client)
    }

    pub(crate) fn page_bytes(&self) -> usize {
        self.welcome.page_bytes as usize
    }

    /// Sends a request; returns its sequence number or tag.
    pub(crate) fn send(&mut self, request: &Request<'_>, body: Body) -> u64 {
        let number = if request.op().is_sequenced() {
            self.sequence += 1;
            self.sequence
        } else {
            self.tag += 1;
            self.tag
        };
        let mut head = Vec::new();
        request.encode(number, self.sequence.saturating_sub(1), &mut head);
        match self.sender.send(&head, body, limit()) {
            // A node that closes the link has said why before.
            Ok(()) | Err(LinkError::Closed) => {}
            Err(error) => panic!("the node takes requests: {error}"),
        }
        number
    }

    /// The next thing that the node sends.
    pub(crate) fn next(&mut self) -> Result<Answer, LinkError> {
        self.next_until(limit())
    }

    pub(crate) fn next_until(&mut self, limit: Instant) -> Result<Answer, LinkError> {
        match self.receiver.recv(limit)? {
            Incoming::Head { head, body_len } => {
                let head = head.to_vec();
                let body = if body_len == 0 {
                    Vec::new()
                } else {
                    let target = self.receiver.recv_body(Buffer::zeroed(body_len as usize).into(), limit)?;
                    Buffer::from_target(target).expect("our own").into_vec()
                };
                Ok(Answer { head, body })
            }
            Incoming::Body(_) | Incoming::Empty => unreachable!("bodies are received at once, and the shell waits"),
        }
    }

    /// The answer to the request of this number, or the notice that says that it failed. Other notices are kept.
    pub(crate) fn answer(&mut self, number: u64) -> Answer {
        loop {
            let answer = self.next().expect("the node answers");
            let (head, reply) = Reply::decode(&answer.head).expect("a node sends what decodes");
            match reply {
                Reply::Notice(Notice::Failed) if head.sequence == number => return answer,
                Reply::Notice(Notice::Goodbye) => return answer,
                Reply::Notice(_) => self.notices.push(answer.head),
                _ if head.sequence == number => return answer,
                reply => panic!("an answer to {} while {number} is waited for: {reply:?}", head.sequence),
            }
        }
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask(&mut self, request: &Request<'_>) -> Answer {
        let number = self.send(request, Body::new());
        self.answer(number)
    }

    /// Waits until the node has handled all that was sent.
    pub(crate) fn sync(&mut self) -> Stats {
        self.stats()
    }

    pub(crate) fn stats(&mut self) -> Stats {
        let answer = self.ask(&Request::Stat);
        match answer.reply() {
            Reply::Stats(stats) => *stats,
            reply => panic!("figures were asked for: {reply:?}"),
        }
    }

    pub(crate) fn renew(&mut self) -> Status {
        self.ask(&Request::Renew).status()
    }

    /// Ends the session and waits for the end of the link.
    pub(crate) fn bye(mut self) {
        self.send(&Request::Bye, Body::new());
        loop {
            match self.next() {
                Ok(_) => {}
                Err(LinkError::Closed) => return,
                Err(error) => panic!("the node closes the link after a bye: {error}"),
            }
        }
    }

    /// Leases a segment and slots, maps it and says so.
    pub(crate) fn lease(&mut self, pages: u32, slots: u32) -> Result<(SegmentInfo, Mapped), Status> {
        let (info, fd) = self.lease_unmapped(pages, slots)?;
        let mapped = Mapped::writable(&fd, info.file_offset, info.pages as usize * self.page_bytes());
        self.send(&Request::Mapped { segment: info.segment }, Body::new());
        Ok((info, mapped.expect("a segment of one's own can be mapped")))
    }

    pub(crate) fn lease_unmapped(&mut self, pages: u32, slots: u32) -> Result<(SegmentInfo, OwnedFd), Status> {
        let answer = self.ask(&Request::Lease { pages, slots, wait_ms: 0 });
        let Reply::Leased(Leased { segment, slots }) = answer.reply() else { return Err(answer.status()) };
        self.slots.extend_from_slice(slots);
        let info = segment.expect("a segment was asked for");
        let fd = self.receiver.take_fd(info.segment).expect("the descriptor comes before the answer");
        Ok((info, fd))
    }

    /// Leases slots only.
    pub(crate) fn lease_slots(&mut self, slots: u32) {
        let answer = self.ask(&Request::Lease { pages: 0, slots, wait_ms: 0 });
        let Reply::Leased(Leased { segment: None, slots }) = answer.reply() else {
            panic!("slots were asked for: {:?} {:?}", answer.status(), answer.reply());
        };
        self.slots.extend_from_slice(slots);
    }

    /// A name for an object to be made.
    pub(crate) fn new_id(&mut self) -> ObjectId {
        if self.slots.is_empty() {
            self.lease_slots(16);
        }
        self.keys += 1;
        let mut key = [7; 12];
        key[..8].copy_from_slice(&self.keys.to_le_bytes());
        ObjectId::new(self.welcome.node, self.slots.pop().expect("they were just leased"), key)
    }

    /// Makes an object of pages of the arena.
    pub(crate) fn commit(&mut self, segment: u32, first: u32, pages: u32, size: u64) -> ObjectId {
        let id = self.new_id();
        let extent = RawExtent::from(Extent { segment: SegmentId(segment), first, count: pages });
        let patches = [Patch { at: 0.into(), extent }];
        self.send(&Request::Commit(Commit { id, base: ObjectId::NULL, size, patches: &patches }), Body::new());
        id
    }

    /// Makes an object of bytes that are sent.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<ObjectId, Status> {
        let size = bytes.len() as u64;
        self.write_over(ObjectId::NULL, size, &[(0, bytes)])
    }

    /// Makes an object of another and bytes that are sent.
    pub(crate) fn write_over(
        &mut self,
        base: ObjectId,
        size: u64,
        pieces: &[(u64, &[u8])],
    ) -> Result<ObjectId, Status> {
        let id = self.new_id();
        let spans: Vec<Span> = (pieces.iter().filter(|(_, bytes)| !bytes.is_empty()))
            .map(|(offset, bytes)| Span { offset: (*offset).into(), length: (bytes.len() as u64).into() })
            .collect();
        let body = pieces.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>().concat();
        let body = if body.is_empty() { Body::new() } else { Body::from_iter([body.into()]) };
        let number = self.send(&Request::Write(Write { id, base, size, spans: &spans }), body);
        match self.answer(number).status() {
            Status::Ok => Ok(id),
            status => Err(status),
        }
    }

    pub(crate) fn read(&mut self, id: ObjectId, offset: u64, length: u64) -> Result<Vec<u8>, Status> {
        let answer = self.ask(&Request::Read { id, offset, length });
        match answer.status() {
            Status::Ok => Ok(answer.body),
            status => Err(status),
        }
    }

    pub(crate) fn hold(&mut self, id: ObjectId) -> Status {
        let answer = self.ask(&Request::Hold(&[id]));
        match answer.reply() {
            Reply::Held(statuses) => Status::from_wire(statuses[0].get()).expect("a known status"),
            _ => answer.status(),
        }
    }

    /// Size and extents of a whole object.
    pub(crate) fn resolve(&mut self, id: ObjectId) -> Result<(u64, Vec<Extent>), Status> {
        let answer = self.ask(&Request::Resolve { id, first_page: 0, pages: 0 });
        match answer.reply() {
            Reply::Resolved(resolved) => {
                Ok((resolved.size, resolved.extents.iter().map(|&extent| extent.into()).collect()))
            }
            _ => Err(answer.status()),
        }
    }

    /// Another's segment: what it is, and its descriptor.
    pub(crate) fn segment(&mut self, segment: u32) -> Result<(SegmentInfo, OwnedFd), Status> {
        let answer = self.ask(&Request::Segment { segment });
        let Reply::SegmentInfo(info) = answer.reply() else { return Err(answer.status()) };
        let fd = self.receiver.take_fd(info.segment).expect("the descriptor comes before the answer");
        Ok((info, fd))
    }
}
