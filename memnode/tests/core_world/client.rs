//! A client of the simulation: what it has, what it asks, and what it makes of the answers.

use super::{PAGE, World};
use dmrpc_memnode::core::LinkId;
use dmrpc_pages::{Buddy, Extent, SegmentId};
use dmrpc_test_random::Random;
use dmrpc_wire::{
    Commit, FEATURE_LOCAL, Grant, GrantToken, Hello, NodeId, Notice, ObjectId, Patch, ReleaseEntry, Reply, ReplyHead,
    Request, SlotLease, Span, Status, Welcome, Write,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use zerocopy::IntoBytes;

pub(crate) const NODE: NodeId = NodeId(7);
pub(crate) const LEASE_MS: u64 = 3_000;
pub(crate) const GRACE_MS: u64 = 300;

pub(crate) type Key = [u8; 24];

pub(crate) fn key(id: &ObjectId) -> Key {
    id.as_bytes().try_into().expect("ids are 24 bytes")
}

/// What everybody knows: ids travel between clients faster than their commits reach the node.
#[derive(Default)]
pub(crate) struct Known {
    /// Ids that were sent in a commit or a write, with their tenant.
    pub(crate) ids: Vec<(ObjectId, usize)>,
    /// The bytes of each object.
    pub(crate) contents: BTreeMap<Key, Vec<u8>>,
    pub(crate) grants: Vec<(Grant, usize)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Pending {
    Lease,
    /// With the slot, and the arena pages.
    Make {
        id: ObjectId,
        pages: Vec<Extent>,
    },
    Hold(Vec<ObjectId>),
    Release(Vec<ReleaseEntry>),
    Grant(Grant),
    Redeem(ObjectId),
    Resolve(ObjectId, bool),
    Read {
        id: ObjectId,
        offset: u64,
        length: u64,
        held: bool,
    },
    Probe,
    Other,
}

pub(crate) struct Client {
    pub(crate) name: usize,
    pub(crate) local: bool,
    pub(crate) tenant: usize,
    pub(crate) hostile: bool,
    pub(crate) link: Option<LinkId>,
    pub(crate) welcome: Option<Welcome>,
    /// Whether the welcome came over this link.
    pub(crate) greeted: bool,
    pub(crate) sequence: u64,
    pub(crate) tag: u64,
    /// The last of all sequenced requests that the node says it has applied.
    pub(crate) applied: u64,
    pub(crate) pending: BTreeMap<u64, Pending>,
    /// Those of `pending` that are answered only if they fail.
    pub(crate) one_way: BTreeSet<u64>,
    /// Sequenced requests that may have to be sent again.
    pub(crate) unanswered: VecDeque<(u64, Vec<u8>, Vec<u8>)>,
    /// Free pages of the client's own segments.
    pub(crate) arena: BTreeMap<u32, (Buddy, u32)>,
    pub(crate) slots: Vec<SlotLease>,
    pub(crate) held: BTreeMap<Key, (ObjectId, u32)>,
    /// The sequence of the commit of each object that this client made.
    pub(crate) made_at: BTreeMap<Key, u64>,
    /// Stands still until then.
    pub(crate) still_until: u64,
    pub(crate) last_renewed: u64,
}

pub(crate) const TOKENS: [&[u8]; 2] = [b"first tenant", b"second tenant"];

impl Client {
    pub(crate) fn connect(&mut self, world: &mut World) {
        let link = world.connect(self.local);
        self.link = Some(link);
        self.greeted = false;
        let hello = Hello {
            features: if self.local { FEATURE_LOCAL } else { 0 },
            quota_pages: 0,
            resume_session: self.welcome.map_or(0, |welcome| welcome.session),
            resume_epoch: self.welcome.map_or(0, |welcome| welcome.epoch),
            resume_key: self.welcome.map_or([0; 16], |welcome| welcome.resume_key),
            token: TOKENS[self.tenant],
            name: "a client",
        };
        world.send(link, &Request::Hello(hello), 0, 0, Vec::new());
        // The answers of what is asked again are expected anew.
        self.pending.retain(|&tag, _| tag < 1 << 40);
    }

    /// All answers up to this have come.
    pub(crate) fn acknowledged(&self) -> u64 {
        let open =
            |(_, head, _): &&(u64, Vec<u8>, Vec<u8>)| Request::decode(head).is_ok_and(|(h, _)| h.op.is_answered());
        self.unanswered.iter().find(open).map_or(self.sequence, |&(sequence, _, _)| sequence - 1)
    }

    /// A sequenced request.
    pub(crate) fn order(&mut self, world: &mut World, request: &Request<'_>, body: Vec<u8>, pending: Pending) {
        assert!(request.op().is_sequenced());
        let acknowledged = self.acknowledged();
        self.sequence += 1;
        let mut head = Vec::new();
        request.encode(self.sequence, acknowledged, &mut head);
        self.pending.insert(self.sequence, pending);
        if !request.op().is_answered() {
            self.one_way.insert(self.sequence);
        }
        self.unanswered.push_back((self.sequence, head.clone(), body.clone()));
        if let Some(link) = self.link.and_then(|link| world.links.get_mut(&link)) {
            link.up.push_back((head, body));
        }
    }

    /// An unsequenced request.
    pub(crate) fn ask(&mut self, world: &mut World, request: &Request<'_>, pending: Pending) {
        assert!(!request.op().is_sequenced());
        self.tag += 1;
        if request.op().is_answered() {
            self.pending.insert(self.tag, pending);
        }
        if let Some(link) = self.link.filter(|link| world.links.contains_key(link)) {
            world.send(link, request, self.tag, self.acknowledged(), Vec::new());
        }
    }

    pub(crate) fn lease(&mut self, world: &mut World, random: &mut Random) {
        let free: u32 = self.arena.values().map(|(buddy, _)| buddy.free_pages()).sum();
        let wants = self.local && (free < 8 || random.one_in(8));
        let pages = if wants { 1 + random.below(30) as u32 } else { 0 };
        let slots = random.below(12) as u32;
        let wait_ms = if random.one_in(2) { 0 } else { random.below(1500) as u32 };
        self.order(world, &Request::Lease { pages, slots, wait_ms }, Vec::new(), Pending::Lease);
    }

    /// Makes an object, from nothing or from another. Whether it could.
    pub(crate) fn make(&mut self, world: &mut World, random: &mut Random, known: &mut Known) -> bool {
        let Some(lease) = self.slots.pop() else { return false };
        let id = ObjectId::new(NODE, lease, random.array());
        let base = if random.one_in(2) { self.some_id(random, known) } else { None };
        let mut content = base.map_or(Vec::new(), |id| known.contents[&key(&id)].clone());
        let old_size = content.len();
        let size = match random.below(4) {
            0 => random.below(8 * PAGE),
            1 => random.below(4) * PAGE,
            _ if base.is_some() => old_size,
            _ => random.below(3 * PAGE),
        };
        content.resize(size, 0);
        let base_id = base.unwrap_or(ObjectId::NULL);
        let made = if self.local {
            self.commit(world, random, (id, base_id), old_size, &mut content)
        } else {
            self.write(world, random, (id, base_id), &mut content);
            true
        };
        if !made {
            self.slots.push(lease);
            return false;
        }
        known.contents.insert(key(&id), content);
        known.ids.push((id, self.tenant));
        self.held.insert(key(&id), (id, 1));
        self.made_at.insert(key(&id), self.sequence);
        true
    }

    /// Writes pages of the arena and makes an object with them. Whether there was room.
    pub(crate) fn commit(
        &mut self,
        world: &mut World,
        random: &mut Random,
        (id, base): (ObjectId, ObjectId),
        old_size: usize,
        content: &mut [u8],
    ) -> bool {
        let pages = content.len().div_ceil(PAGE);
        let mut touched: BTreeSet<usize> = if base.is_null() && random.below(4) > 0 {
            (0..pages).collect()
        } else {
            (0..random.below(3)).filter(|_| pages > 0).map(|_| random.below(pages)).collect()
        };
        if content.len() > old_size && !old_size.is_multiple_of(PAGE) {
            // What lies behind the end of the base in its last page is not the node's to clear.
            touched.insert(old_size / PAGE);
        }
        let mut patches = Vec::new();
        let mut taken = Vec::new();
        let mut at = touched.iter().copied().peekable();
        while let Some(first) = at.next() {
            let mut count = 1;
            while at.next_if_eq(&(first + count)).is_some() {
                count += 1;
            }
            let mut done = 0;
            while done < count {
                let Some(extent) = self.allocate((count - done) as u32) else {
                    taken.iter().for_each(|&extent| self.free(extent));
                    return false;
                };
                taken.push(extent);
                patches.push(Patch { at: ((first + done) as u32).into(), extent: extent.into() });
                for page in 0..extent.count as usize {
                    let start = (first + done + page) * PAGE;
                    let end = content.len().min(start + PAGE);
                    random.fill(&mut content[start..end]);
                    let Some(memory) = world.segments.get_mut(&extent.segment.0) else {
                        assert!(self.hostile, "others don't write what they gave back");
                        continue;
                    };
                    let bytes = &mut memory.bytes[(extent.first as usize + page) * PAGE..][..PAGE];
                    bytes.fill(0);
                    bytes[..end - start].copy_from_slice(&content[start..end]);
                }
                done += extent.count as usize;
            }
        }
        let commit = Commit { id, base, size: content.len() as u64, patches: &patches };
        self.order(world, &Request::Commit(commit), Vec::new(), Pending::Make { id, pages: taken });
        true
    }

    pub(crate) fn write(
        &mut self,
        world: &mut World,
        random: &mut Random,
        (id, base): (ObjectId, ObjectId),
        content: &mut [u8],
    ) {
        let (mut spans, mut body, mut at) = (Vec::new(), Vec::new(), 0);
        let all = base.is_null() && random.one_in(2);
        while at < content.len() && (all || spans.len() < 3) {
            let start = if all { at } else { at + random.below(content.len() - at) };
            let mut length = if all { content.len() - at } else { 1 + random.below(content.len() - start) };
            if random.one_in(2) {
                length = length.min(1 + random.below(200));
            }
            random.fill(&mut content[start..start + length]);
            spans.push(Span { offset: (start as u64).into(), length: (length as u64).into() });
            body.extend_from_slice(&content[start..start + length]);
            at = start + length;
            if !all && random.one_in(2) {
                break;
            }
        }
        let write = Write { id, base, size: content.len() as u64, spans: &spans };
        self.order(world, &Request::Write(write), body, Pending::Make { id, pages: Vec::new() });
    }

    pub(crate) fn allocate(&mut self, pages: u32) -> Option<Extent> {
        self.arena.iter_mut().find_map(|(&segment, (buddy, _))| {
            let (first, count) = buddy.alloc_most(pages)?;
            Some(Extent::new(SegmentId(segment), first, count))
        })
    }

    pub(crate) fn free(&mut self, extent: Extent) {
        // A segment that was given back meanwhile has no such page.
        if let Some((buddy, _)) = self.arena.get_mut(&extent.segment.0) {
            buddy.free(extent.first, extent.count).expect("only pages that were used come free, and once");
        }
    }

    /// An id of this tenant: of what this client holds, or of anything it has heard of.
    pub(crate) fn some_id(&self, random: &mut Random, known: &Known) -> Option<ObjectId> {
        if random.one_in(2) && !self.held.is_empty() {
            return self.held.values().nth(random.below(self.held.len())).map(|&(id, _)| id);
        }
        // What was made lately is what is passed around.
        let recent = known.ids.len().saturating_sub(30);
        let (id, tenant) = *known.ids.get(recent + random.below(known.ids.len() - recent))?;
        (tenant == self.tenant).then_some(id)
    }

    pub(crate) fn hold(&mut self, world: &mut World, random: &mut Random, known: &Known) {
        let ids: Vec<ObjectId> = (0..=random.below(3)).filter_map(|_| self.some_id(random, known)).collect();
        self.order(world, &Request::Hold(&ids), Vec::new(), Pending::Hold(ids.clone()));
    }

    pub(crate) fn release(&mut self, world: &mut World, random: &mut Random) {
        let mut entries = Vec::new();
        for _ in 0..=random.below(3) {
            let Some((&k, &(id, count))) = self.held.iter().nth(random.below(self.held.len())) else { break };
            let gone = 1 + random.below(count as usize) as u32;
            entries.push(ReleaseEntry { id, count: gone.into() });
            self.unhold(&k, gone);
        }
        if !entries.is_empty() {
            self.order(world, &Request::Release(&entries), Vec::new(), Pending::Release(entries.clone()));
        }
    }

    pub(crate) fn unhold(&mut self, k: &Key, gone: u32) {
        if let Some((_, count)) = self.held.get_mut(k) {
            *count = count.saturating_sub(gone);
            if *count == 0 {
                self.held.remove(k);
            }
        }
    }

    /// Whether the node must know by now that this client holds it.
    pub(crate) fn surely_holds(&self, id: &ObjectId) -> bool {
        let k = key(id);
        self.held.contains_key(&k) && self.made_at.get(&k).is_none_or(|&sequence| sequence <= self.applied)
    }

    pub(crate) fn look(&mut self, world: &mut World, random: &mut Random, known: &Known) {
        if random.one_in(6) {
            // Somebody else's: another tenant's objects are not there.
            let other = known.ids.iter().rev().find(|&&(_, tenant)| tenant != self.tenant);
            if let Some(&(id, _)) = other {
                self.ask(world, &Request::Resolve { id, first_page: 0, pages: 0 }, Pending::Probe);
            }
            return;
        }
        let Some(id) = self.some_id(random, known) else { return };
        let held = self.surely_holds(&id);
        let size = known.contents[&key(&id)].len() as u64;
        if self.local && random.below(3) > 0 {
            self.ask(world, &Request::Resolve { id, first_page: 0, pages: 0 }, Pending::Resolve(id, held));
        } else {
            let offset = random.next() % (size + 1);
            let length = random.next() % (size - offset + 1);
            let pending = Pending::Read { id, offset, length, held };
            self.ask(world, &Request::Read { id, offset, length }, pending);
        }
    }

    pub(crate) fn grant(&mut self, world: &mut World, random: &mut Random, known: &mut Known) {
        match random.below(3) {
            0 => {
                let Some(id) = self.some_id(random, known) else { return };
                let ttl_ms = random.next() % 2000;
                let grant = Grant { id, token: GrantToken(random.array()), ttl_ms: ttl_ms.into() };
                self.order(world, &Request::Grant(grant), Vec::new(), Pending::Grant(grant));
            }
            1 => {
                let Some(&(grant, tenant)) = known.grants.last() else { return };
                let pending = if tenant == self.tenant { Pending::Redeem(grant.id) } else { Pending::Probe };
                self.order(world, &Request::Redeem(grant), Vec::new(), pending);
            }
            _ => {
                let Some((grant, _)) = known.grants.pop() else { return };
                self.order(world, &Request::Revoke(grant), Vec::new(), Pending::Other);
            }
        }
    }

    /// Gives back a segment that is wholly unused, and a slot.
    pub(crate) fn give_back(&mut self, world: &mut World, random: &mut Random) {
        let unused = self.arena.iter().find(|(_, (buddy, pages))| buddy.free_pages() == *pages).map(|(&s, _)| s);
        let slots: Vec<SlotLease> = if random.one_in(2) { self.slots.pop().into_iter().collect() } else { Vec::new() };
        if let Some(segment) = unused {
            self.arena.remove(&segment);
        }
        self.order(world, &Request::Return { segment: unused, slots: &slots }, Vec::new(), Pending::Other);
    }

    /// Takes an answer or a notice. Whether the session goes on.
    pub(crate) fn take(
        &mut self,
        world: &mut World,
        known: &mut Known,
        head: ReplyHead,
        reply: &Reply<'_>,
        body: &[u8],
        reads: &mut usize,
    ) -> bool {
        self.applied = self.applied.max(head.applied);
        if self.hostile {
            return self.take_hostile(world, reply);
        }
        match *reply {
            Reply::Welcome(welcome) => {
                if self.welcome.is_some() {
                    // All that was not answered is asked again.
                    let applied = head.applied;
                    self.unanswered.retain(|(sequence, head, _)| {
                        *sequence > applied || Request::decode(head).is_ok_and(|(head, _)| head.op.is_answered())
                    });
                    if let Some(link) = self.link.and_then(|link| world.links.get_mut(&link)) {
                        for (_, head, body) in &self.unanswered {
                            link.up.push_back((head.clone(), body.clone()));
                        }
                    }
                }
                self.welcome = Some(welcome);
                self.greeted = true;
                return true;
            }
            Reply::Notice(Notice::Goodbye) => {
                assert_eq!(head.status, Status::LeaseExpired, "nobody here breaks the protocol");
                return false;
            }
            Reply::Notice(Notice::Reclaim { .. }) => {
                self.give_back(world, &mut Random(1));
                return true;
            }
            Reply::Notice(Notice::Freed { extents, slots }) => {
                extents.iter().for_each(|&extent| self.free(extent.into()));
                self.slots.extend_from_slice(slots);
                return true;
            }
            Reply::Done if head.sequence == 0 => {
                // No to the hello.
                let expected = [Status::LeaseExpired, Status::TooManySessions];
                assert!(expected.contains(&head.status), "{:?}", head.status);
                return false;
            }
            _ => {}
        }
        let Some(pending) = self.pending.remove(&head.sequence) else {
            // A request came twice, and so does its answer; or it was asked over a link before this.
            return true;
        };
        if head.sequence < 1 << 40 {
            self.unanswered.retain(|&(sequence, _, _)| sequence != head.sequence);
        }
        self.taken(world, known, head, reply, body, pending, reads);
        // What was applied and did not fail has worked.
        while let Some(&sequence) = self.one_way.first()
            && sequence <= self.applied
        {
            self.one_way.pop_first();
            self.pending.remove(&sequence);
            self.unanswered.retain(|&(other, _, _)| other != sequence);
        }
        true
    }

    #[allow(clippy::too_many_arguments, reason = "it is a part of `take`")]
    pub(crate) fn taken(
        &mut self,
        world: &mut World,
        known: &mut Known,
        head: ReplyHead,
        reply: &Reply<'_>,
        body: &[u8],
        pending: Pending,
        reads: &mut usize,
    ) {
        let failed = head.status != Status::Ok;
        match (pending, reply) {
            (Pending::Lease, Reply::Leased(leased)) => {
                self.slots.extend_from_slice(leased.slots);
                if let Some(info) = leased.segment {
                    self.arena.insert(info.segment, (Buddy::new(info.pages), info.pages));
                    self.order(world, &Request::Mapped { segment: info.segment }, Vec::new(), Pending::Other);
                }
            }
            (Pending::Lease, _) => {
                assert!(matches!(head.status, Status::OutOfMemory | Status::QuotaExceeded), "{:?}", head.status);
            }
            (Pending::Make { id, pages }, _) if failed => {
                let fair = [
                    Status::OutOfMemory,
                    Status::QuotaExceeded,
                    Status::NotFound,
                    Status::Stale,
                    Status::DeadlineExceeded,
                ];
                assert!(fair.contains(&head.status), "{:?} for {id}", head.status);
                // Nothing was done: pages and slot are as they were.
                pages.into_iter().for_each(|extent| self.free(extent));
                self.slots.push(SlotLease::new(id.slot(), id.generation()));
                self.held.remove(&key(&id));
            }
            (Pending::Make { .. }, _) => {}
            (Pending::Hold(ids), Reply::Held(statuses)) => {
                assert_eq!(ids.len(), statuses.len());
                for (id, status) in ids.iter().zip(statuses.iter()) {
                    match Status::from_wire(status.get()).expect("a status") {
                        Status::Ok => self.held.entry(key(id)).or_insert((*id, 0)).1 += 1,
                        Status::NotFound | Status::Stale | Status::DeadlineExceeded => {}
                        status => panic!("{status:?} for a hold of {id}"),
                    }
                }
            }
            (Pending::Release(entries), _) => {
                // Only what was never made can't be let go of.
                assert!(failed);
                assert!(
                    entries.iter().any(|entry| self.made_at.contains_key(&key(&entry.id))),
                    "{:?} for {entries:?}",
                    head.status
                );
            }
            (Pending::Grant(grant), _) => {
                if !failed {
                    known.grants.push((grant, self.tenant));
                }
            }
            (Pending::Redeem(id), _) => {
                if !failed {
                    self.held.entry(key(&id)).or_insert((id, 0)).1 += 1;
                }
            }
            (Pending::Resolve(id, held), _) => {
                let must = held && self.surely_holds(&id);
                let Reply::Resolved(resolved) = reply else {
                    assert!(!must, "{:?} for {id}, which is held", head.status);
                    return;
                };
                let content = &known.contents[&key(&id)];
                assert_eq!(resolved.size, content.len() as u64);
                if must {
                    let bytes: Vec<u8> = resolved.extents.iter().flat_map(|&e| world.pages(e.into())).collect();
                    assert!(bytes[..content.len()] == content[..], "3: {id} is not what was made");
                    *reads += 1;
                }
            }
            (Pending::Read { id, offset, length, held }, _) => {
                if !matches!(reply, Reply::Data) {
                    assert!(!(held && self.surely_holds(&id)), "{:?} for {id}, which is held", head.status);
                    return;
                }
                let content = &known.contents[&key(&id)];
                let wanted = &content[offset as usize..(offset + length) as usize];
                assert!(body == wanted, "3: {id} is not what was made");
                *reads += 1;
            }
            (Pending::Probe, _) => assert!(failed, "5: another tenant's object was found"),
            (Pending::Other, _) => {}
            (pending, reply) => panic!("{reply:?} is no answer to {pending:?}"),
        }
    }
}
