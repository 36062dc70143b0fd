//! Invariants 1 and 2: whatever is encoded decodes to the same, and no bytes make a decoder panic.

use dmrpc_pages::{Extent, SegmentId};
use dmrpc_wire::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn object_id() -> impl Strategy<Value = ObjectId> {
    (any::<u32>(), any::<u32>(), any::<u32>(), any::<[u8; 12]>())
        .prop_map(|(node, slot, generation, key)| ObjectId::new(NodeId(node), SlotLease::new(slot, generation), key))
}

fn raw_extent() -> impl Strategy<Value = RawExtent> {
    (any::<u32>(), any::<u32>(), any::<u32>())
        .prop_map(|(segment, first, count)| Extent { segment: SegmentId(segment), first, count }.into())
}

fn slot_lease() -> impl Strategy<Value = SlotLease> {
    (any::<u32>(), any::<u32>()).prop_map(|(slot, generation)| SlotLease::new(slot, generation))
}

fn check_request(request: Request<'_>, sequence: u64, acknowledged: u64) {
    let mut head = Vec::new();
    request.encode(sequence, acknowledged, &mut head);
    let (decoded_head, decoded) = Request::decode(&head).expect("own encoding");
    assert_eq!(decoded_head, RequestHead { op: request.op(), sequence, acknowledged });
    assert_eq!(decoded, request);
    for cut in 0..head.len() {
        assert!(Request::decode(&head[..cut]).is_err(), "cut at {cut} of {}", head.len());
    }
    head.push(0);
    assert!(Request::decode(&head).is_err(), "a byte too many");
}

fn check_reply(reply: Reply<'_>, status: Status, sequence: u64, applied: u64) {
    let mut head = Vec::new();
    reply.encode(status, sequence, applied, &mut head);
    let (decoded_head, decoded) = Reply::decode(&head).expect("own encoding");
    assert_eq!(decoded_head, ReplyHead { op: reply.op(), status, sequence, applied });
    assert_eq!(decoded, reply);
    for cut in 0..head.len() {
        assert!(Reply::decode(&head[..cut]).is_err(), "cut at {cut} of {}", head.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn requests(
        (sequence, acknowledged, size, a, b) in any::<(u64, u64, u64, u32, u32)>(),
        (id, base) in (object_id(), object_id()),
        ids in vec(object_id(), 0..20),
        extents in vec(raw_extent(), 0..20),
        slots in vec(slot_lease(), 0..20),
        (token, key, ttl) in (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u64>()),
        name in "\\PC{0,40}",
    ) {
        let patches: Vec<Patch> = extents.iter().map(|&extent| Patch { at: a.into(), extent }).collect();
        let spans: Vec<Span> = ids.iter().map(|_| Span { offset: size.into(), length: ttl.into() }).collect();
        let releases: Vec<ReleaseEntry> = ids.iter().map(|&id| ReleaseEntry { id, count: b.into() }).collect();
        let grant = dmrpc_wire::Grant { id, token: GrantToken(token), ttl_ms: ttl.into() };
        let hello = Hello {
            features: FEATURE_LOCAL, quota_pages: a, resume_session: ttl, resume_epoch: b, resume_key: key, token: &token, name: &name,
        };
        for request in [
            Request::Hello(hello),
            Request::Lease { pages: a, slots: b, wait_ms: a },
            Request::Mapped { segment: a },
            Request::Commit(Commit { id, base, size, patches: &patches }),
            Request::Hold(&ids),
            Request::Release(&releases),
            Request::Resolve { id, first_page: a, pages: b },
            Request::Read { id, offset: size, length: ttl },
            Request::Write(Write { id, base, size, spans: &spans }),
            Request::Grant(grant),
            Request::Redeem(grant),
            Request::Revoke(grant),
            Request::Return { segment: Some(a & 0xffff), slots: &slots },
            Request::Return { segment: None, slots: &slots },
            Request::Renew,
            Request::Stat,
            Request::Segment { segment: b },
            Request::Region { segment: Some(b & 0xffff), write: a & 1 == 0 },
            Request::Region { segment: None, write: false },
            Request::Bye,
        ] {
            check_request(request, sequence, acknowledged);
        }
    }

    #[test]
    fn replies(
        (sequence, applied, size, a, b) in any::<(u64, u64, u64, u32, u32)>(),
        extents in vec(raw_extent(), 0..20),
        slots in vec(slot_lease(), 0..20),
        resume_key in any::<[u8; 16]>(),
    ) {
        let welcome = Welcome {
            node: NodeId(a), page_bytes: 4096, session: size, epoch: b, lease_ms: a, grace_ms: b, quota_pages: a,
            max_object_bytes: size, resume_key, coherence: if a % 2 == 0 { Coherence::Hardware } else { Coherence::Flush },
        };
        let info = SegmentInfo { segment: a & 0xffff, pages: b, file_offset: size };
        let stats = Stats { pool_pages: size.into(), ..Stats::default() };
        let statuses: Vec<_> = slots.iter().map(|slot| (slot.slot() as u16).into()).collect();
        for reply in [
            Reply::Welcome(welcome),
            Reply::Leased(Leased { segment: Some(info), slots: &slots }),
            Reply::Leased(Leased { segment: None, slots: &slots }),
            Reply::Done,
            Reply::Held(&statuses),
            Reply::Resolved(Resolved { size, extents: &extents }),
            Reply::Data,
            Reply::Stats(&stats),
            Reply::SegmentInfo(info),
            Reply::Region(RegionInfo { address: size >> 1, bytes: u64::from(a), key: b }),
            Reply::Notice(Notice::Freed { extents: &extents, slots: &slots }),
            Reply::Notice(Notice::Failed),
            Reply::Notice(Notice::Reclaim { pages: a }),
            Reply::Notice(Notice::Goodbye),
            Reply::Notice(Notice::Wanted),
        ] {
            check_reply(reply, Status::Stale, sequence, applied);
        }
    }

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..200), op in 0u16..80) {
        let _ = Request::decode(&bytes);
        let _ = Reply::decode(&bytes);
        let _ = WireRef::decode(&bytes);
        let mut head = op.to_le_bytes().to_vec();
        head.extend_from_slice(&bytes);
        let _ = Request::decode(&head);
        let _ = Reply::decode(&head);
    }
}
