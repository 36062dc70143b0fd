//! What memory nodes and their clients say to each other.

use crate::Target;
use dmrpc_pages::{Extent, SegmentId};
use dmrpc_wire::*;

pub(crate) const REQUEST: Target = Target { name: "request", run: request, seeds: requests };
pub(crate) const REPLY: Target = Target { name: "reply", run: reply, seeds: replies };
pub(crate) const REFERENCE: Target = Target { name: "reference", run: reference, seeds: references };

fn request(data: &[u8]) {
    if let Ok((head, request)) = Request::decode(data) {
        assert_eq!(head.op, request.op());
        let mut again = Vec::new();
        request.encode(head.sequence, head.acknowledged, &mut again);
        assert_eq!(again, data, "{request:?}");
    }
}

fn reply(data: &[u8]) {
    if let Ok((head, reply)) = Reply::decode(data) {
        assert_eq!(head.op, reply.op());
        let mut again = Vec::new();
        reply.encode(head.status, head.sequence, head.applied, &mut again);
        assert_eq!(again, data, "{reply:?}");
    }
}

/// References follow each other in a message.
fn reference(data: &[u8]) {
    let mut rest = data;
    while let Ok((reference, after)) = WireRef::decode(rest) {
        let mut again = Vec::new();
        reference.encode(&mut again);
        assert_eq!(again, rest[..rest.len() - after.len()], "{reference:?}");
        rest = after;
    }
}

fn id() -> ObjectId {
    ObjectId::new(NodeId(7), SlotLease::new(11, 3), *b"random bytes")
}

fn extents() -> [RawExtent; 2] {
    [Extent::new(SegmentId(5), 16, 64).into(), Extent::hole(8).into()]
}

fn requests() -> Vec<Vec<u8>> {
    let [extent, hole] = extents();
    let patches = [Patch { at: 0.into(), extent }, Patch { at: 64.into(), extent: hole }];
    let spans = [Span { offset: 100.into(), length: 1000.into() }];
    let grant = Grant { id: id(), token: GrantToken([9; 16]), ttl_ms: 60_000.into() };
    let hello = Hello {
        features: FEATURE_LOCAL,
        quota_pages: 1024,
        resume_session: 2,
        resume_epoch: 1,
        resume_key: [8; 16],
        token: b"token",
        name: "fuzz",
    };
    let slots = [SlotLease::new(1, 2), SlotLease::new(3, 4)];
    let commit = Commit { id: id(), base: ObjectId::NULL, size: 300_000, patches: &patches };
    [
        Request::Hello(hello),
        Request::Lease { pages: 512, slots: 64, wait_ms: 1000 },
        Request::Mapped { segment: 5 },
        Request::Commit(commit),
        Request::Hold(&[id(), id()]),
        Request::Release(&[ReleaseEntry { id: id(), count: 2.into() }]),
        Request::Resolve { id: id(), first_page: 1, pages: 2 },
        Request::Read { id: id(), offset: 4096, length: 8192 },
        Request::Write(Write { id: id(), base: id(), size: 300_000, spans: &spans }),
        Request::Grant(grant),
        Request::Redeem(grant),
        Request::Revoke(grant),
        Request::Return { segment: Some(5), slots: &slots },
        Request::Return { segment: None, slots: &slots },
        Request::Renew,
        Request::Stat,
        Request::Segment { segment: 5 },
        Request::Region { segment: Some(5), write: true },
        Request::Region { segment: None, write: false },
        Request::Bye,
    ]
    .iter()
    .map(|request| encoded(|out| request.encode(21, 20, out)))
    .collect()
}

fn replies() -> Vec<Vec<u8>> {
    let extents = extents();
    let slots = [SlotLease::new(1, 2), SlotLease::new(3, 4)];
    let welcome = Welcome {
        node: NodeId(7),
        page_bytes: 4096,
        session: 2,
        epoch: 1,
        lease_ms: 10_000,
        grace_ms: 2000,
        quota_pages: 1024,
        max_object_bytes: 1 << 40,
        resume_key: [8; 16],
        coherence: Coherence::Flush,
    };
    let segment = SegmentInfo { segment: 5, pages: 512, file_offset: 1 << 21 };
    let stats = Stats { pool_pages: 1024.into(), objects: 3.into(), ..Stats::default() };
    [
        (Status::Ok, Reply::Welcome(welcome)),
        (Status::Ok, Reply::Leased(Leased { segment: Some(segment), slots: &slots })),
        (Status::Ok, Reply::Leased(Leased { segment: None, slots: &slots })),
        (Status::Ok, Reply::Done),
        (Status::OutOfMemory, Reply::Done),
        (Status::Ok, Reply::Held(&[0.into(), Status::Stale.to_wire().into()])),
        (Status::Ok, Reply::Resolved(Resolved { size: 300_000, extents: &extents })),
        (Status::Ok, Reply::Data),
        (Status::Ok, Reply::Stats(&stats)),
        (Status::Ok, Reply::SegmentInfo(segment)),
        (Status::Ok, Reply::Region(RegionInfo { address: 1 << 40, bytes: 1 << 21, key: 77 })),
        (Status::Ok, Reply::Notice(Notice::Freed { extents: &extents, slots: &slots })),
        (Status::QuotaExceeded, Reply::Notice(Notice::Failed)),
        (Status::Ok, Reply::Notice(Notice::Reclaim { pages: 64 })),
        (Status::ShuttingDown, Reply::Notice(Notice::Goodbye)),
        (Status::Ok, Reply::Notice(Notice::Wanted)),
    ]
    .iter()
    .map(|(status, reply)| encoded(|out| reply.encode(*status, 21, 20, out)))
    .collect()
}

fn references() -> Vec<Vec<u8>> {
    let extents = extents();
    let stored = WireRef {
        id: id(),
        offset: 10,
        length: 8000,
        size: 300_000,
        loan: 77,
        codec: 1,
        bytes: Inlined::Stored(&extents),
    };
    let far = WireRef { bytes: Inlined::Stored(&[]), ..stored };
    let inline =
        WireRef { id: ObjectId::NULL, offset: 1, length: 2, size: 3, loan: 0, codec: 0, bytes: Inlined::Bytes(b"abc") };
    let mut all: Vec<_> = [stored, far, inline].iter().map(|reference| encoded(|out| reference.encode(out))).collect();
    all.push(all.concat());
    all
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}
