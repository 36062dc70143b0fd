//! Every way in which a request can be wrong has an error of its own, and changes nothing.

mod core_world;

use core_world::{Down, PAGE, World};
use dmrpc_memnode::core::{CoreConfig, Event, LinkId};
use dmrpc_pages::{Extent, PageSize, SegmentId};
use dmrpc_wire::{
    Commit, FEATURE_LOCAL, Grant, GrantToken, Hello, NodeId, Notice, ObjectId, Patch, RawExtent, ReleaseEntry, Reply,
    Request, SlotLease, Span, Stats, Status, Welcome, Write,
};

const NODE: NodeId = NodeId(3);

/// What came back, as far as tests look at it.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Welcome(Welcome),
    Leased(Option<(u32, u32)>, Vec<SlotLease>),
    Done,
    Failed(u64),
    Held(Vec<Status>),
    Resolved(u64, Vec<Extent>),
    Data(Vec<u8>),
    Stats(Box<Stats>),
    Segment(u32, u32),
    Freed(Vec<Extent>, Vec<SlotLease>),
    Reclaim,
    Goodbye,
    Wanted,
}

/// A client that asks one thing after the other.
struct Peer {
    link: LinkId,
    sequence: u64,
    slots: Vec<SlotLease>,
}

fn config() -> CoreConfig {
    let mut config = CoreConfig::new(NODE, PageSize::default(), 64);
    config.quota_pages = 32;
    config.max_sessions = 4;
    config.max_slots_per_session = 100;
    config.max_grants = 2;
    config
}

fn world() -> World {
    World::new(config(), 1)
}

const HELLO: Hello<'static> = Hello {
    features: FEATURE_LOCAL,
    quota_pages: 0,
    resume_session: 0,
    resume_epoch: 0,
    resume_key: [0; 16],
    token: b"",
    name: "a peer",
};

fn answers(world: &mut World, link: LinkId) -> Vec<(Status, Answer)> {
    world.run();
    let mut all = Vec::new();
    while let Some((head, body)) = world.deliver_down(link) {
        let (head, reply) = Reply::decode(&head).expect("the node sends what can be decoded");
        let extents = |raw: &[RawExtent]| raw.iter().map(|&extent| Extent::from(extent)).collect();
        let answer = match reply {
            Reply::Welcome(welcome) => Answer::Welcome(welcome),
            Reply::Leased(leased) => {
                Answer::Leased(leased.segment.map(|info| (info.segment, info.pages)), leased.slots.to_vec())
            }
            Reply::Done => Answer::Done,
            Reply::Held(statuses) => {
                Answer::Held(statuses.iter().map(|s| Status::from_wire(s.get()).expect("a status")).collect())
            }
            Reply::Resolved(resolved) => Answer::Resolved(resolved.size, extents(resolved.extents)),
            Reply::Data => Answer::Data(body),
            Reply::Stats(stats) => Answer::Stats(Box::new(*stats)),
            Reply::SegmentInfo(info) => Answer::Segment(info.segment, info.pages),
            Reply::Notice(Notice::Failed) => Answer::Failed(head.sequence),
            Reply::Notice(Notice::Freed { extents: e, slots }) => Answer::Freed(extents(e), slots.to_vec()),
            Reply::Notice(Notice::Reclaim { .. }) => Answer::Reclaim,
            Reply::Notice(Notice::Goodbye) => Answer::Goodbye,
            Reply::Notice(Notice::Wanted) => Answer::Wanted,
            _ => unreachable!("no other replies"),
        };
        all.push((head.status, answer));
    }
    all
}

fn say_hello(world: &mut World, hello: Hello<'_>, local: bool) -> (LinkId, Vec<(Status, Answer)>) {
    let link = world.connect(local);
    world.send(link, &Request::Hello(hello), 0, 0, Vec::new());
    let answers = answers(world, link);
    (link, answers)
}

impl Peer {
    fn local(world: &mut World) -> Self {
        Self::new(world, HELLO, true)
    }

    fn remote(world: &mut World) -> Self {
        Self::new(world, Hello { features: 0, ..HELLO }, false)
    }

    fn new(world: &mut World, hello: Hello<'_>, local: bool) -> Self {
        let (link, answers) = say_hello(world, hello, local);
        assert!(matches!(answers[..], [(Status::Ok, Answer::Welcome(_))]), "{answers:?}");
        let mut peer = Self { link, sequence: 0, slots: Vec::new() };
        let lease = peer.one(world, Request::Lease { pages: 0, slots: 20, wait_ms: 0 });
        let (Status::Ok, Answer::Leased(None, slots)) = lease else { panic!("{lease:?}") };
        peer.slots = slots;
        peer
    }

    fn send(&mut self, world: &mut World, request: Request<'_>, body: &[u8]) {
        let sequenced = request.op().is_sequenced();
        self.sequence += u64::from(sequenced);
        let tag = if sequenced { self.sequence } else { 1 << 40 };
        world.send(self.link, &request, tag, self.sequence.saturating_sub(1), body.to_vec());
    }

    fn all(&mut self, world: &mut World, request: Request<'_>) -> Vec<(Status, Answer)> {
        self.send(world, request, &[]);
        answers(world, self.link)
    }

    /// The one answer to a request.
    fn one(&mut self, world: &mut World, request: Request<'_>) -> (Status, Answer) {
        let answers = self.all(world, request);
        assert_eq!(answers.len(), 1, "{answers:?} to {request:?}");
        answers.into_iter().next().expect("one")
    }

    /// A one-way request fails.
    fn fails(&mut self, world: &mut World, request: Request<'_>) -> Status {
        let (status, answer) = self.one(world, request);
        assert_eq!(answer, Answer::Failed(self.sequence));
        status
    }

    fn works(&mut self, world: &mut World, request: Request<'_>) {
        let answers = self.all(world, request);
        assert!(
            answers.iter().all(|(_, answer)| matches!(answer, Answer::Freed(..) | Answer::Reclaim)),
            "{answers:?} to {request:?}"
        );
    }

    fn id(&mut self) -> ObjectId {
        ObjectId::new(NODE, self.slots.pop().expect("twenty slots are enough"), [7; 12])
    }

    /// A segment that is mapped and sealed.
    fn segment(&mut self, world: &mut World, pages: u32) -> u32 {
        let lease = self.one(world, Request::Lease { pages, slots: 0, wait_ms: 0 });
        let (Status::Ok, Answer::Leased(Some((segment, _)), _)) = lease else { panic!("{lease:?}") };
        self.works(world, Request::Mapped { segment });
        segment
    }

    /// An object of pages of a segment.
    fn commit(&mut self, world: &mut World, segment: u32, first: u32, count: u32) -> ObjectId {
        let id = self.id();
        let patches = [patch(0, segment, first, count)];
        let size = u64::from(count) * PAGE as u64;
        self.works(world, Request::Commit(Commit { id, base: ObjectId::NULL, size, patches: &patches }));
        id
    }

    fn write(&mut self, world: &mut World, id: ObjectId, base: ObjectId, size: u64, at: u64, body: &[u8]) -> Status {
        let spans = [Span { offset: at.into(), length: (body.len() as u64).into() }];
        let spans = if body.is_empty() { &[][..] } else { &spans[..] };
        self.send(world, Request::Write(Write { id, base, size, spans }), body);
        let answers = answers(world, self.link);
        let [(status, Answer::Done)] = answers[..] else { panic!("{answers:?}") };
        status
    }

    fn hold(&mut self, world: &mut World, id: ObjectId) -> Status {
        match self.one(world, Request::Hold(&[id])) {
            (Status::Ok, Answer::Held(statuses)) => statuses[0],
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, world: &mut World, id: ObjectId, offset: u64, length: u64) -> Result<Vec<u8>, Status> {
        match self.one(world, Request::Read { id, offset, length }) {
            (Status::Ok, Answer::Data(bytes)) => Ok(bytes),
            (status, Answer::Done) => Err(status),
            other => panic!("{other:?}"),
        }
    }
}

fn patch(at: u32, segment: u32, first: u32, count: u32) -> Patch {
    Patch { at: at.into(), extent: Extent::new(SegmentId(segment), first, count).into() }
}

fn commit(id: ObjectId, size: u64, patches: &[Patch]) -> Request<'_> {
    Request::Commit(Commit { id, base: ObjectId::NULL, size, patches })
}

fn release(id: ObjectId, count: u32) -> [ReleaseEntry; 1] {
    [ReleaseEntry { id, count: count.into() }]
}

fn closes(world: &mut World, link: LinkId) -> bool {
    let answers = answers(world, link);
    matches!(answers.last(), Some((_, Answer::Goodbye))) && !world.links.contains_key(&link)
        || world.links.get(&link).is_none_or(|link| link.closing)
}

#[test]
fn stale_guessed_and_foreign_ids() {
    let mut world = world();
    let mut peer = Peer::local(&mut world);
    let segment = peer.segment(&mut world, 8);
    let id = peer.commit(&mut world, segment, 0, 2);
    let guessed = ObjectId::new(NODE, SlotLease::new(id.slot(), id.generation()), [8; 12]);
    let later = ObjectId::new(NODE, SlotLease::new(id.slot(), id.generation() + 1), *id.key());
    let elsewhere = ObjectId::new(NodeId(4), SlotLease::new(id.slot(), id.generation()), *id.key());
    let nowhere = ObjectId::new(NODE, SlotLease::new(77_777, 1), *id.key());
    for wrong in [guessed, later, elsewhere, nowhere, ObjectId::NULL] {
        assert_eq!(peer.hold(&mut world, wrong), Status::NotFound, "{wrong}");
        assert_eq!(peer.read(&mut world, wrong, 0, 1), Err(Status::NotFound));
        let resolve = Request::Resolve { id: wrong, first_page: 0, pages: 0 };
        assert_eq!(peer.one(&mut world, resolve), (Status::NotFound, Answer::Done));
        assert_eq!(peer.fails(&mut world, Request::Release(&release(wrong, 1))), Status::NotFound);
    }
    assert_eq!(peer.hold(&mut world, id), Status::Ok);
    peer.works(&mut world, Request::Release(&release(id, 2)));
    assert_eq!(peer.hold(&mut world, id), Status::Stale);
    assert_eq!(peer.read(&mut world, id, 0, 1), Err(Status::Stale));
}

#[test]
fn more_is_let_go_of_than_is_held() {
    let mut world = world();
    let (mut maker, mut other) = (Peer::local(&mut world), Peer::remote(&mut world));
    let segment = maker.segment(&mut world, 8);
    let id = maker.commit(&mut world, segment, 0, 2);
    assert_eq!(other.fails(&mut world, Request::Release(&release(id, 1))), Status::NotHeld);
    assert_eq!(other.hold(&mut world, id), Status::Ok);
    assert_eq!(maker.fails(&mut world, Request::Release(&release(id, 2))), Status::NotHeld);
    maker.works(&mut world, Request::Release(&release(id, 1)));
    assert_eq!(maker.fails(&mut world, Request::Release(&release(id, 1))), Status::NotHeld, "a double release");
    assert_eq!(world.stats().holds.get(), 1);
    other.works(&mut world, Request::Release(&release(id, 1)));
    assert_eq!(other.fails(&mut world, Request::Release(&release(id, 1))), Status::Stale, "the object is gone");
    // One entry that is wrong does not keep the others from being done.
    let (a, b) = (maker.commit(&mut world, segment, 2, 1), maker.commit(&mut world, segment, 3, 1));
    let entries = [release(a, 1)[0], release(id, 1)[0], release(b, 1)[0]];
    let answers = maker.all(&mut world, Request::Release(&entries));
    assert!(answers.contains(&(Status::Stale, Answer::Failed(maker.sequence))), "{answers:?}");
    assert_eq!(world.stats().objects.get(), 0);
}

#[test]
fn a_pool_that_is_too_small() {
    let mut world = world();
    let mut peers: Vec<_> = (0..3).map(|_| Peer::local(&mut world)).collect();
    let lease = |pages| Request::Lease { pages, slots: 0, wait_ms: 0 };
    assert_eq!(peers[0].one(&mut world, lease(33)), (Status::QuotaExceeded, Answer::Done));
    let segment = peers[0].segment(&mut world, 32);
    assert_eq!(peers[0].one(&mut world, lease(1)), (Status::QuotaExceeded, Answer::Done));
    let idle = peers[1].segment(&mut world, 30);
    assert_eq!(peers[2].one(&mut world, lease(3)), (Status::OutOfMemory, Answer::Done));
    assert_eq!(peers[2].one(&mut world, lease(u32::MAX)), (Status::QuotaExceeded, Answer::Done));
    // Those who have something idle were asked for it.
    assert_eq!(answers(&mut world, peers[1].link), [(Status::Ok, Answer::Reclaim)]);
    // Who waits gets it as soon as it is given back, and until then others go on.
    peers[2].send(&mut world, Request::Lease { pages: 3, slots: 2, wait_ms: 500 }, &[]);
    assert_eq!(answers(&mut world, peers[2].link), []);
    let id = peers[0].commit(&mut world, segment, 0, 1);
    peers[1].send(&mut world, Request::Return { segment: Some(idle), slots: &[] }, &[]);
    let got = answers(&mut world, peers[2].link);
    assert!(matches!(&got[..], [(Status::Ok, Answer::Leased(Some((_, 3)), slots))] if slots.len() == 2), "{got:?}");
    // Who waits in vain is told so in time.
    peers[2].segment(&mut world, 29);
    peers[1].send(&mut world, Request::Lease { pages: 9, slots: 0, wait_ms: 500 }, &[]);
    world.run();
    world.tick(499);
    assert!(!answers(&mut world, peers[1].link).iter().any(|(status, _)| *status == Status::OutOfMemory));
    world.tick(1);
    assert_eq!(answers(&mut world, peers[1].link), [(Status::OutOfMemory, Answer::Done)]);
    assert_eq!(peers[0].hold(&mut world, id), Status::Ok);
    // A segment that can't be made is no more to be had.
    peers[0].send(&mut world, Request::Return { segment: Some(segment), slots: &[] }, &[]);
    assert_eq!(
        answers(&mut world, peers[0].link),
        [(Status::Denied, Answer::Failed(peers[0].sequence))],
        "it is in use"
    );
}

#[test]
fn a_write_into_a_full_pool_waits_and_fails() {
    // Renewals stand behind its body: that it waits does not cost it its lease.
    let mut world = World::new(CoreConfig { lease_ms: 2_000, ..config() }, 1);
    let (mut a, mut b) = (Peer::local(&mut world), Peer::local(&mut world));
    let (mut writer, body) = (Peer::remote(&mut world), vec![1; 5 * PAGE]);
    a.segment(&mut world, 32);
    let segment = b.segment(&mut world, 30);
    let (id, other) = (writer.id(), writer.id());
    let size = body.len() as u64;
    let spans = [Span { offset: 0.into(), length: size.into() }];
    writer.send(&mut world, Request::Write(Write { id, base: ObjectId::NULL, size, spans: &spans }), &body);
    // It stands still for that, and so does what is behind it.
    writer.send(&mut world, Request::Lease { pages: 0, slots: 1, wait_ms: 0 }, &[]);
    assert_eq!(answers(&mut world, writer.link), []);
    for _ in 0..49 {
        world.tick(100);
    }
    assert_eq!(answers(&mut world, writer.link), []);
    world.tick(100);
    let got = answers(&mut world, writer.link);
    assert_eq!(got[0], (Status::OutOfMemory, Answer::Done));
    assert!(matches!(got[1], (Status::Ok, Answer::Leased(None, _))));
    // The next one is luckier.
    writer.send(&mut world, Request::Write(Write { id: other, base: ObjectId::NULL, size, spans: &spans }), &body);
    assert_eq!(answers(&mut world, writer.link), []);
    b.send(&mut world, Request::Return { segment: Some(segment), slots: &[] }, &[]);
    assert_eq!(answers(&mut world, writer.link), [(Status::Ok, Answer::Done)]);
    assert_eq!(writer.read(&mut world, other, 0, size), Ok(body));
    // More than the session's share is refused at once.
    let id = writer.id();
    let big = vec![2; 33 * PAGE];
    assert_eq!(writer.write(&mut world, id, ObjectId::NULL, big.len() as u64, 0, &big), Status::QuotaExceeded);
}

#[test]
fn too_many() {
    let mut world = world();
    let mut peers: Vec<_> = (0..4).map(|_| Peer::remote(&mut world)).collect();
    let (link, answers) = say_hello(&mut world, HELLO, true);
    assert_eq!(answers, [(Status::TooManySessions, Answer::Done)]);
    assert!(closes(&mut world, link));
    // Slots, of which it has twenty.
    let slots = |slots| Request::Lease { pages: 0, slots, wait_ms: 0 };
    assert_eq!(peers[0].one(&mut world, slots(81)), (Status::QuotaExceeded, Answer::Done));
    assert_eq!(peers[0].one(&mut world, slots(5000)), (Status::TooLarge, Answer::Done));
    assert!(matches!(peers[0].one(&mut world, slots(80)), (Status::Ok, Answer::Leased(None, all)) if all.len() == 80));
    // Grants.
    let id = peers[0].id();
    assert_eq!(peers[0].write(&mut world, id, ObjectId::NULL, 3, 0, b"abc"), Status::Ok);
    for token in 0..3 {
        let grant = Grant { id, token: GrantToken([token; 16]), ttl_ms: u64::MAX.into() };
        let expected = if token < 2 { Status::Ok } else { Status::TooManyReferences };
        assert_eq!(peers[0].one(&mut world, Request::Grant(grant)), (expected, Answer::Done));
    }
    // Holds of one object.
    let entry = ReleaseEntry { id, count: u32::MAX.into() };
    assert_eq!(peers[0].fails(&mut world, Request::Release(&[entry])), Status::NotHeld);
    // Sessions that end make room when their grace is over.
    peers[1].send(&mut world, Request::Bye, &[]);
    world.run();
    let (link, answers) = say_hello(&mut world, HELLO, true);
    assert!(matches!(answers[..], [(Status::Ok, Answer::Welcome(_))]));
    world.disconnect(link);
    let (_, answers) = say_hello(&mut world, HELLO, true);
    assert_eq!(answers, [(Status::TooManySessions, Answer::Done)], "the one before is in its grace period");
    world.tick(1000);
    let (_, answers) = say_hello(&mut world, HELLO, true);
    assert!(matches!(answers[..], [(Status::Ok, Answer::Welcome(_))]));
}

#[test]
fn too_many_tree_nodes() {
    let mut config = config();
    config.max_tree_nodes = 20;
    let mut world = World::new(config, 1);
    let mut peer = Peer::local(&mut world);
    let segment = peer.segment(&mut world, 32);
    let id = peer.id();
    let patches: Vec<_> = (0..16).map(|i| patch(i, segment, 31 - i, 1)).collect();
    let size = 16 * PAGE as u64;
    peer.works(&mut world, Request::Commit(Commit { id, base: ObjectId::NULL, size, patches: &patches }));
    let before = world.stats();
    let edited = peer.id();
    let patches: Vec<_> = (0..6).map(|i| patch(2 * i, segment, i, 1)).collect();
    let commit = Commit { id: edited, base: id, size, patches: &patches };
    assert_eq!(peer.fails(&mut world, Request::Commit(commit)), Status::OutOfMemory);
    let after = world.stats();
    assert_eq!((before.tree_nodes, before.live_pages), (after.tree_nodes, after.live_pages), "nothing was done");
    // The slot is still there for something smaller, and another reference costs no node at all.
    peer.works(&mut world, Request::Commit(Commit { id: edited, base: id, size, patches: &[] }));
    assert_eq!(world.stats().tree_nodes, before.tree_nodes);
    assert_eq!(world.stats().objects.get(), 2);
}

#[test]
fn ranges_that_are_not_there() {
    let mut world = world();
    let mut peer = Peer::local(&mut world);
    let segment = peer.segment(&mut world, 8);
    let id = peer.id();
    let patches = [patch(0, segment, 0, 2)];
    peer.works(&mut world, commit(id, 5000, &patches));
    assert_eq!(peer.read(&mut world, id, 0, 5000).map(|bytes| bytes.len()), Ok(5000));
    assert_eq!(peer.read(&mut world, id, 5000, 0), Ok(Vec::new()));
    for (offset, length) in [(0, 5001), (5001, 0), (4999, 2), (u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX)] {
        assert_eq!(peer.read(&mut world, id, offset, length), Err(Status::OutOfRange), "{offset} {length}");
    }
    let resolve = |first_page, pages| Request::Resolve { id, first_page, pages };
    let all = vec![Extent::new(SegmentId(segment), 0, 2)];
    assert_eq!(peer.one(&mut world, resolve(0, 0)), (Status::Ok, Answer::Resolved(5000, all)));
    for (first, pages) in [(0, 3), (3, 0), (2, 1), (1, u32::MAX), (u32::MAX, u32::MAX)] {
        assert_eq!(peer.one(&mut world, resolve(first, pages)), (Status::OutOfRange, Answer::Done), "{first} {pages}");
    }
    let new = peer.id();
    let wrong = [
        (5000, patch(1, segment, 2, 2), Status::OutOfRange),
        (5000, patch(2, segment, 2, 1), Status::OutOfRange),
        (5000, patch(u32::MAX, segment, 2, 1), Status::OutOfRange),
        (5000, patch(0, segment, 7, 2), Status::OutOfRange),
        (5000, patch(0, segment, 2, 0), Status::Malformed),
        (5000, patch(0, segment, u32::MAX, 2), Status::Malformed),
        (5000, patch(0, segment, 0, 1), Status::Denied),
        (5000, patch(0, segment, 1, 2), Status::Denied),
        (5000, patch(0, segment + 1, 2, 1), Status::NotFound),
        (u64::MAX, patch(0, segment, 2, 1), Status::TooLarge),
        (65 * PAGE as u64, patch(0, segment, 2, 1), Status::TooLarge),
    ];
    for (size, patch, status) in wrong {
        assert_eq!(peer.fails(&mut world, commit(new, size, &[patch])), status, "{patch:?}");
    }
    // What lies behind the end of a base would show when it grows.
    let longer = |patches| Request::Commit(Commit { id: new, base: id, size: 9000, patches });
    for patches in [&[][..], &[patch(0, segment, 2, 1)], &[patch(2, segment, 2, 1)]] {
        assert_eq!(peer.fails(&mut world, longer(patches)), Status::Malformed);
    }
    let grown = peer.id();
    let patches = [patch(1, segment, 4, 2)];
    peer.works(&mut world, Request::Commit(Commit { id: grown, base: id, size: 9000, patches: &patches }));
    peer.works(&mut world, commit(new, 5000, &[patch(0, segment, 2, 2)]));
    assert_eq!(peer.fails(&mut world, commit(new, 5000, &[])), Status::Stale, "the slot is in use");
}

#[test]
fn writes_that_make_no_sense() {
    let mut world = world();
    let mut peer = Peer::remote(&mut world);
    let id = peer.id();
    let span = |offset: u64, length: u64| Span { offset: offset.into(), length: length.into() };
    let wrong: [(&[Span], u64, usize, Status); 8] = [
        (&[span(0, 0)], 10, 0, Status::Malformed),
        (&[span(4, 4), span(0, 4)], 10, 8, Status::Malformed),
        (&[span(0, 4), span(3, 4)], 10, 8, Status::Malformed),
        (&[span(0, 4)], 10, 5, Status::Malformed),
        (&[span(0, 4)], 10, 0, Status::Malformed),
        (&[span(8, 4)], 10, 4, Status::OutOfRange),
        (&[span(u64::MAX, 4)], u64::MAX, 4, Status::OutOfRange),
        (&[span(0, 4)], u64::MAX, 4, Status::TooLarge),
    ];
    for (spans, size, body, status) in wrong {
        peer.send(&mut world, Request::Write(Write { id, base: ObjectId::NULL, size, spans }), &vec![1; body]);
        assert_eq!(answers(&mut world, peer.link), [(status, Answer::Done)], "{spans:?}");
    }
    assert_eq!(peer.write(&mut world, id, ObjectId::NULL, 10, 4, b"here"), Status::Ok);
    assert_eq!(peer.read(&mut world, id, 0, 10), Ok(b"\0\0\0\0here\0\0".to_vec()));
    // Cut and grown again: what was cut does not come back.
    let (cut, grown) = (peer.id(), peer.id());
    assert_eq!(peer.write(&mut world, cut, id, 6, 0, &[]), Status::Ok);
    assert_eq!(peer.read(&mut world, cut, 0, 6), Ok(b"\0\0\0\0he".to_vec()));
    assert_eq!(peer.write(&mut world, grown, cut, 10_000, 9_000, b"there"), Status::Ok);
    let mut expected = vec![0; 10_000];
    expected[4..6].copy_from_slice(b"he");
    expected[9_000..9_005].copy_from_slice(b"there");
    assert_eq!(peer.read(&mut world, grown, 0, 10_000), Ok(expected));
    assert_eq!(peer.read(&mut world, id, 0, 10), Ok(b"\0\0\0\0here\0\0".to_vec()), "3: it is as it was");
}

#[test]
fn what_is_not_ones_own() {
    let mut world = world();
    let (mut a, mut b, mut far) = (Peer::local(&mut world), Peer::local(&mut world), Peer::remote(&mut world));
    let segment = a.segment(&mut world, 8);
    let new = b.id();
    let patches = [patch(0, segment, 0, 1)];
    assert_eq!(b.fails(&mut world, commit(new, 10, &patches)), Status::Denied, "another's pages");
    let foreign = a.id();
    assert_eq!(b.fails(&mut world, commit(foreign, 10, &[])), Status::Denied, "another's slot");
    assert_eq!(b.fails(&mut world, Request::Mapped { segment }), Status::Denied);
    assert_eq!(b.fails(&mut world, Request::Mapped { segment: 99 }), Status::NotFound);
    assert_eq!(a.fails(&mut world, Request::Mapped { segment }), Status::Denied, "mapped twice");
    assert_eq!(b.fails(&mut world, Request::Return { segment: Some(segment), slots: &[] }), Status::Denied);
    let lease = SlotLease::new(foreign.slot(), foreign.generation());
    assert_eq!(b.fails(&mut world, Request::Return { segment: None, slots: &[lease] }), Status::Denied);
    a.works(&mut world, Request::Return { segment: None, slots: &[lease] });
    assert_eq!(a.fails(&mut world, Request::Return { segment: None, slots: &[lease] }), Status::Stale);
    // To see, but not to write; and not from afar.
    assert_eq!(b.one(&mut world, Request::Segment { segment }), (Status::Ok, Answer::Segment(segment, 8)));
    assert_eq!(far.one(&mut world, Request::Segment { segment }), (Status::Denied, Answer::Done));
    assert_eq!(far.one(&mut world, Request::Lease { pages: 1, slots: 0, wait_ms: 0 }), (Status::Denied, Answer::Done));
    assert_eq!(b.one(&mut world, Request::Segment { segment: 99 }), (Status::NotFound, Answer::Done));
}

#[test]
fn a_segment_is_nobody_elses_before_it_is_sealed() {
    let mut world = world();
    let (mut a, mut b) = (Peer::local(&mut world), Peer::local(&mut world));
    let lease = a.one(&mut world, Request::Lease { pages: 4, slots: 0, wait_ms: 0 });
    let (Status::Ok, Answer::Leased(Some((segment, _)), _)) = lease else { panic!("{lease:?}") };
    let id = a.id();
    let commit = Commit { id, base: ObjectId::NULL, size: 10, patches: &[patch(0, segment, 0, 1)] };
    assert_eq!(a.fails(&mut world, Request::Commit(commit)), Status::Denied);
    b.send(&mut world, Request::Segment { segment }, &[]);
    assert_eq!(answers(&mut world, b.link), []);
    assert!(!world.segments[&segment].sealed);
    a.works(&mut world, Request::Mapped { segment });
    assert!(world.segments[&segment].sealed);
    assert_eq!(answers(&mut world, b.link), [(Status::Ok, Answer::Segment(segment, 4))]);
}

/// Whether a session is told that somebody waits for what it makes, and nothing else.
fn is_told(world: &mut World, maker: &Peer) -> bool {
    let told = answers(world, maker.link);
    !told.is_empty() && told.iter().all(|answer| *answer == (Status::Ok, Answer::Wanted))
}

#[test]
fn a_request_that_overtakes_its_commit_waits() {
    let mut world = world();
    let (mut maker, mut other) = (Peer::local(&mut world), Peer::remote(&mut world));
    let segment = maker.segment(&mut world, 8);
    let (id, never) = (maker.id(), maker.id());
    other.send(&mut world, Request::Hold(&[id]), &[]);
    other.send(&mut world, Request::Release(&release(id, 1)), &[]);
    other.send(&mut world, Request::Hold(&[id]), &[]);
    other.send(&mut world, Request::Read { id, offset: 0, length: 3 }, &[]);
    assert_eq!(answers(&mut world, other.link), []);
    // Its maker may have lent it without a word, and is told that somebody waits.
    assert!(is_told(&mut world, &maker));
    world.segments.get_mut(&segment).expect("it is there").bytes[..3].copy_from_slice(b"abc");
    let patches = [patch(0, segment, 0, 1)];
    maker.works(&mut world, Request::Commit(Commit { id, base: ObjectId::NULL, size: 3, patches: &patches }));
    let got = answers(&mut world, other.link);
    let held = (Status::Ok, Answer::Held(vec![Status::Ok]));
    assert_eq!(got.iter().filter(|answer| **answer == held).count(), 2, "{got:?}");
    assert!(got.contains(&(Status::Ok, Answer::Data(b"abc".to_vec()))), "{got:?}");
    assert_eq!(world.stats().holds.get(), 2);
    // One that never comes is waited for no longer than is named.
    other.send(&mut world, Request::Hold(&[id, never]), &[]);
    other.send(&mut world, Request::Resolve { id: never, first_page: 0, pages: 0 }, &[]);
    assert!(is_told(&mut world, &maker));
    world.tick(999);
    assert_eq!(answers(&mut world, other.link), []);
    world.tick(1);
    let got = answers(&mut world, other.link);
    assert_eq!(got[0], (Status::Ok, Answer::Held(vec![Status::Ok, Status::DeadlineExceeded])));
    assert_eq!(got[1], (Status::DeadlineExceeded, Answer::Done));
    // If its maker dies nobody waits for it.
    other.send(&mut world, Request::Hold(&[never]), &[]);
    assert_eq!(answers(&mut world, other.link), []);
    assert!(is_told(&mut world, &maker));
    world.disconnect(maker.link);
    assert_eq!(answers(&mut world, other.link), [(Status::Ok, Answer::Held(vec![Status::Stale]))]);
    // Over a network an object is made by the bytes that come: there is nothing to tell its maker.
    let id = other.id();
    let mut third = Peer::remote(&mut world);
    third.send(&mut world, Request::Hold(&[id]), &[]);
    assert_eq!((answers(&mut world, third.link), answers(&mut world, other.link)), (vec![], vec![]));
}

#[test]
fn grants() {
    let mut world = world();
    let (mut a, mut b) = (Peer::remote(&mut world), Peer::remote(&mut world));
    let id = a.id();
    assert_eq!(a.write(&mut world, id, ObjectId::NULL, 3, 0, b"abc"), Status::Ok);
    let grant = |token, ttl_ms: u64| Grant { id, token: GrantToken([token; 16]), ttl_ms: ttl_ms.into() };
    assert_eq!(b.one(&mut world, Request::Redeem(grant(1, 0))), (Status::NotFound, Answer::Done));
    assert_eq!(a.one(&mut world, Request::Grant(grant(1, 500))), (Status::Ok, Answer::Done));
    assert_eq!(a.one(&mut world, Request::Grant(grant(1, 500))), (Status::Denied, Answer::Done), "the same token");
    a.works(&mut world, Request::Release(&release(id, 1)));
    // The grant keeps it, and gives holds.
    assert_eq!(b.one(&mut world, Request::Redeem(grant(2, 0))), (Status::NotFound, Answer::Done));
    assert_eq!(b.one(&mut world, Request::Redeem(grant(1, 0))), (Status::Ok, Answer::Done));
    b.works(&mut world, Request::Release(&release(id, 1)));
    world.tick(499);
    assert_eq!(b.read(&mut world, id, 0, 3), Ok(b"abc".to_vec()));
    world.tick(1);
    assert_eq!(b.one(&mut world, Request::Redeem(grant(1, 0))), (Status::Stale, Answer::Done));
    let id = a.id();
    let grant = Grant { id, token: GrantToken([5; 16]), ttl_ms: 500.into() };
    assert_eq!(a.write(&mut world, id, ObjectId::NULL, 3, 0, b"abc"), Status::Ok);
    assert_eq!(a.one(&mut world, Request::Grant(grant)), (Status::Ok, Answer::Done));
    b.works(&mut world, Request::Revoke(grant));
    assert_eq!(b.fails(&mut world, Request::Revoke(grant)), Status::NotFound);
    assert_eq!(world.stats().grants.get(), 0);
}

#[test]
fn tenants_do_not_meet() {
    let mut config = config();
    config.tenant_tokens = vec![b"one".to_vec(), b"two".to_vec()];
    let mut world = World::new(config, 1);
    for token in [&b""[..], b"on", b"onf", b"one "] {
        let (link, answers) = say_hello(&mut world, Hello { token, ..HELLO }, true);
        assert_eq!(answers, [(Status::Denied, Answer::Done)]);
        assert!(closes(&mut world, link));
    }
    let mut a = Peer::new(&mut world, Hello { token: b"one", ..HELLO }, true);
    let mut b = Peer::new(&mut world, Hello { token: b"two", ..HELLO }, true);
    let segment = a.segment(&mut world, 8);
    let id = a.commit(&mut world, segment, 0, 1);
    let empty = a.id();
    let grant = Grant { id, token: GrantToken([5; 16]), ttl_ms: 500.into() };
    assert_eq!(a.one(&mut world, Request::Grant(grant)), (Status::Ok, Answer::Done));
    let nothing = (Status::NotFound, Answer::Done);
    assert_eq!(b.hold(&mut world, id), Status::NotFound);
    assert_eq!(b.hold(&mut world, empty), Status::NotFound, "not even to wait for");
    assert_eq!(b.read(&mut world, id, 0, 1), Err(Status::NotFound));
    assert_eq!(b.one(&mut world, Request::Redeem(grant)), nothing);
    assert_eq!(b.fails(&mut world, Request::Revoke(grant)), Status::NotFound);
    assert_eq!(b.one(&mut world, Request::Segment { segment }), nothing);
    assert_eq!(b.fails(&mut world, Request::Return { segment: Some(segment), slots: &[] }), Status::NotFound);
    assert_eq!(b.fails(&mut world, Request::Mapped { segment }), Status::NotFound);
    let new = b.id();
    let commit = Commit { id: new, base: id, size: 10, patches: &[] };
    assert_eq!(b.fails(&mut world, Request::Commit(commit)), Status::NotFound);
}

#[test]
fn sequences() {
    let mut world = world();
    let mut peer = Peer::remote(&mut world);
    let id = peer.id();
    assert_eq!(peer.write(&mut world, id, ObjectId::NULL, 3, 0, b"abc"), Status::Ok);
    let wait = |world: &mut World, peer: &Peer| answers(world, peer.link);
    // 6: whatever comes again is answered again and done once.
    for _ in 0..3 {
        world.send(peer.link, &Request::Hold(&[id]), peer.sequence + 1, peer.sequence, Vec::new());
        assert_eq!(wait(&mut world, &peer), [(Status::Ok, Answer::Held(vec![Status::Ok]))]);
    }
    peer.sequence += 1;
    assert_eq!(world.stats().holds.get(), 2);
    assert_eq!(world.stats().replays.get(), 2);
    // A gap.
    world.send(peer.link, &Request::Hold(&[id]), peer.sequence + 2, peer.sequence, Vec::new());
    assert_eq!(wait(&mut world, &peer), [(Status::OutOfSequence, Answer::Done)]);
    // An answer that was said to have come is forgotten.
    world.send(peer.link, &Request::Renew, 9, peer.sequence, Vec::new());
    assert_eq!(wait(&mut world, &peer), [(Status::Ok, Answer::Done)]);
    world.send(peer.link, &Request::Hold(&[id]), peer.sequence, peer.sequence, Vec::new());
    assert_eq!(wait(&mut world, &peer), [(Status::OutOfSequence, Answer::Done)]);
    assert_eq!(world.stats().holds.get(), 2);
}

#[test]
fn a_session_is_taken_up_again() {
    let mut world = world();
    let (link, answers_) = say_hello(&mut world, Hello { features: 0, ..HELLO }, false);
    let [(Status::Ok, Answer::Welcome(welcome))] = answers_[..] else { panic!("{answers_:?}") };
    let mut peer = Peer { link, sequence: 0, slots: Vec::new() };
    let lease = peer.one(&mut world, Request::Lease { pages: 0, slots: 3, wait_ms: 0 });
    let Answer::Leased(None, slots) = lease.1 else { panic!("{lease:?}") };
    peer.slots = slots;
    let id = peer.id();
    assert_eq!(peer.write(&mut world, id, ObjectId::NULL, 3, 0, b"abc"), Status::Ok);
    let hello = Hello {
        features: 0,
        resume_session: welcome.session,
        resume_epoch: welcome.epoch,
        resume_key: welcome.resume_key,
        ..HELLO
    };
    for wrong in [
        Hello { resume_session: welcome.session + 1, ..hello },
        Hello { resume_epoch: welcome.epoch + 1, ..hello },
        Hello { resume_key: [0; 16], ..hello },
    ] {
        let (link, answers) = say_hello(&mut world, wrong, false);
        assert_eq!(answers, [(Status::LeaseExpired, Answer::Done)]);
        assert!(closes(&mut world, link));
    }
    // While the body of a write is under way the link breaks: it is as if it had never come.
    let lost = peer.id();
    let spans = [Span { offset: 0.into(), length: 4.into() }];
    let write = Request::Write(Write { id: lost, base: id, size: 4, spans: &spans });
    peer.send(&mut world, write, b"lost");
    assert!(world.deliver_up(link));
    let (&segment, _) = world.making.first_key_value().expect("it waits for memory");
    world.finish_segment(segment, true);
    assert!(world.links[&link].receiving.is_some());
    // The node has not noticed: it closes the old link, and waits for its end before it says welcome.
    let new = world.connect(false);
    world.send(new, &Request::Hello(hello), 0, 0, Vec::new());
    assert!(world.deliver_up(new));
    assert!(world.links[&link].closing && world.links[&new].down.is_empty());
    world.disconnect(link);
    let got = answers(&mut world, new);
    let [(Status::Ok, Answer::Welcome(again))] = got[..] else { panic!("{got:?}") };
    assert_eq!((again.session, again.epoch), (welcome.session, welcome.epoch));
    peer.link = new;
    world.send(new, &write, peer.sequence, peer.sequence - 1, b"back".to_vec());
    assert_eq!(answers(&mut world, new), [(Status::Ok, Answer::Done)]);
    assert_eq!(peer.read(&mut world, lost, 0, 4), Ok(b"back".to_vec()));
    // Too late.
    world.disconnect(new);
    for _ in 0..100 {
        world.tick(100);
    }
    let (_, answers) = say_hello(&mut world, hello, false);
    assert_eq!(answers, [(Status::LeaseExpired, Answer::Done)]);
    assert_eq!(world.stats().leases_expired.get(), 1);
}

/// 7: a client on this host that is gone loses what it did not publish at once, its holds after the grace period.
#[test]
fn a_client_on_this_host_dies() {
    let mut world = world();
    let (mut a, mut b) = (Peer::local(&mut world), Peer::local(&mut world));
    let (used, unused) = (a.segment(&mut world, 8), a.segment(&mut world, 4));
    let kept = a.commit(&mut world, used, 0, 2);
    let _lost = a.commit(&mut world, used, 2, 3);
    assert_eq!(b.hold(&mut world, kept), Status::Ok);
    // A stopped process keeps all it has, for however long.
    for _ in 0..200 {
        world.tick(1000);
    }
    assert_eq!((world.stats().sessions.get(), world.stats().objects.get()), (2, 2));
    world.disconnect(a.link);
    world.settle();
    let stats = world.stats();
    assert!(!world.segments.contains_key(&unused));
    assert_eq!((stats.objects.get(), stats.unpublished_pages.get(), stats.committed_pages.get()), (2, 0, 8));
    world.tick(999);
    assert_eq!(world.stats().objects.get(), 2, "those it lent to have time");
    world.tick(1);
    world.settle();
    assert_eq!(world.stats().objects.get(), 1);
    assert_eq!(b.read(&mut world, kept, 0, 2 * PAGE as u64).map(|bytes| bytes.len()), Ok(2 * PAGE));
    b.works(&mut world, Request::Release(&release(kept, 1)));
    assert!(world.segments.is_empty(), "it went with its last live page");
    assert_eq!(world.stats().committed_pages.get(), 0);
}

/// 4: pages of a client that says it goes are not given to others before its mapping is surely gone.
#[test]
fn pages_are_quarantined_until_the_writer_is_gone() {
    let mut world = world();
    let mut a = Peer::local(&mut world);
    let segment = a.segment(&mut world, 8);
    a.commit(&mut world, segment, 0, 2);
    a.send(&mut world, Request::Bye, &[]);
    assert!(world.deliver_up(a.link));
    world.settle();
    let stats = world.stats();
    assert_eq!((stats.objects.get(), stats.sessions.get()), (0, 0));
    assert_eq!((stats.quarantined_pages.get(), stats.committed_pages.get()), (8, 8));
    world.disconnect(a.link);
    assert_eq!(world.stats().committed_pages.get(), 0);
}

#[test]
fn a_client_that_breaks_the_protocol_is_shown_the_door() {
    type Trick<'a> = &'a dyn Fn(&mut World, LinkId);
    let break_with = |world: &mut World, peer: &Peer, what: Trick<'_>| {
        what(world, peer.link);
        let mut told = Vec::new();
        while world.deliver_up(peer.link) {}
        world.settle();
        while let Some(down) = world.links.get_mut(&peer.link).and_then(|link| link.down.pop_front()) {
            if let Down::Head(head) = down {
                let (head, reply) = Reply::decode(&head).expect("the node sends what can be decoded");
                told.push((head.status, reply.op()));
            }
        }
        assert_eq!(told.last(), Some(&(Status::Malformed, dmrpc_wire::ReplyOp::Goodbye)));
        assert!(world.links[&peer.link].closing);
    };
    let mut world = world();
    let mut honest = Peer::remote(&mut world);
    let id = honest.id();
    assert_eq!(honest.write(&mut world, id, ObjectId::NULL, 3, 0, b"abc"), Status::Ok);
    let tricks: [Trick<'_>; 3] = [
        &|world, link| world.send(link, &Request::Hello(HELLO), 0, 0, Vec::new()),
        &|world, link| world.send(link, &Request::Renew, 0, 0, vec![1; 100]),
        &|world, link| world.links.get_mut(&link).expect("it is there").up.push_back((vec![0xff; 40], vec![1; 10])),
    ];
    for (trick, local) in tricks.iter().zip([true, false, true]) {
        let mut peer = if local { Peer::local(&mut world) } else { Peer::remote(&mut world) };
        assert_eq!(peer.hold(&mut world, id), Status::Ok);
        break_with(&mut world, &peer, *trick);
        // Nothing more is heard from it, and its holds stand until it is surely gone.
        world.send(peer.link, &Request::Bye, 0, 0, Vec::new());
        assert!(!world.deliver_up(peer.link));
        let head = Request::Bye;
        let (head, request) = (dmrpc_wire::RequestHead { op: head.op(), sequence: 9, acknowledged: 0 }, head);
        world.event(Event::Request { link: peer.link, head, request, body_len: 0 });
        assert_eq!(world.stats().holds.get(), 2);
        world.disconnect(peer.link);
        world.tick(1000);
        assert_eq!((world.stats().holds.get(), world.stats().sessions.get()), (1, 1));
    }
    // Strangers have nothing to say at all.
    let link = world.connect(false);
    world.send(link, &Request::Stat, 0, 0, Vec::new());
    assert!(closes(&mut world, link));
    assert_eq!(honest.read(&mut world, id, 0, 3), Ok(b"abc".to_vec()));
}

/// A client that lets answers gather without saying that it has them would fill the node's memory.
#[test]
fn answers_are_not_kept_for_ever() {
    let mut world = world();
    let mut peer = Peer::remote(&mut world);
    let id = peer.id();
    assert_eq!(peer.write(&mut world, id, ObjectId::NULL, 3, 0, b"abc"), Status::Ok);
    for sequence in 1..=4096 {
        world.send(peer.link, &Request::Hold(&[id]), peer.sequence + sequence, 0, Vec::new());
    }
    let got = answers(&mut world, peer.link);
    assert_eq!(got.last(), Some(&(Status::TooLarge, Answer::Goodbye)));
}

/// The node's own pauses are not held against its clients.
#[test]
fn a_node_that_stood_still_ends_no_session() {
    let mut world = world();
    let mut peer = Peer::remote(&mut world);
    for _ in 0..50 {
        world.tick(100);
    }
    let mut dead = Peer::local(&mut world);
    let segment = dead.segment(&mut world, 4);
    dead.commit(&mut world, segment, 0, 1);
    world.disconnect(dead.link);
    world.tick(60_000);
    assert_eq!((world.stats().sessions.get(), world.stats().objects.get()), (2, 1), "the grace period is put off too");
    world.tick(1000);
    world.settle();
    assert_eq!((world.stats().sessions.get(), world.stats().objects.get()), (1, 0));
    assert_eq!(peer.one(&mut world, Request::Renew), (Status::Ok, Answer::Done));
    for _ in 0..99 {
        world.tick(100);
    }
    assert_eq!(world.stats().leases_expired.get(), 0, "it was renewed since");
    world.tick(100);
    assert_eq!(world.stats().leases_expired.get(), 1);
}

#[test]
fn figures() {
    let mut world = world();
    let mut peer = Peer::local(&mut world);
    let segment = peer.segment(&mut world, 8);
    let id = peer.commit(&mut world, segment, 0, 3);
    let copy = peer.id();
    let patches = [patch(1, segment, 5, 1)];
    peer.works(&mut world, Request::Commit(Commit { id: copy, base: id, size: 3 * PAGE as u64, patches: &patches }));
    let (Status::Ok, Answer::Stats(stats)) = peer.one(&mut world, Request::Stat) else { panic!("figures") };
    assert_eq!((stats.pool_pages.get(), stats.committed_pages.get()), (64, 8));
    assert_eq!((stats.live_pages.get(), stats.logical_pages.get(), stats.unpublished_pages.get()), (4, 6, 4));
    assert_eq!((stats.objects.get(), stats.holds.get(), stats.sessions.get(), stats.commits.get()), (2, 2, 1, 2));
    // Freed pages and slots are told to whoever has them, together.
    let entries = [release(id, 1)[0], release(copy, 1)[0]];
    let answers = peer.all(&mut world, Request::Release(&entries));
    let [(Status::Ok, Answer::Freed(extents, slots))] = &answers[..] else { panic!("{answers:?}") };
    let mut pages: Vec<u32> = extents.iter().flat_map(|extent| extent.first..extent.first + extent.count).collect();
    pages.sort_unstable();
    assert_eq!((pages, slots.len()), (vec![0, 1, 2, 5], 2));
}
