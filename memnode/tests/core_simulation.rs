//! The whole core under everything that can go wrong, from a seed.
//!
//! Clients on this host and over a network make, edit, hold, read and let go of objects; links break, and with them whatever
//! was on its way; what was sent comes again; old links go on while new ones take their session up; clients die at any
//! moment, or stand still past their lease; the pool is too small; segments can't be made; and some clients send whatever
//! they like. After each step everything is counted from scratch (`Core::recount`). Whoever holds an object reads the bytes
//! it was made of. In the end faults stop, and what is left is exactly what the living hold.
//!
//! A failing seed prints itself: run it again with `CORE_SIMULATION_SEED=… cargo test -p dmrpc-memnode --test
//! core_simulation`. `CORE_SIMULATION_SEEDS` and `CORE_SIMULATION_STEPS` set how many and how long.

mod core_world;

use core_world::{PAGE, Random, World};
use dmrpc_memnode::core::{CoreConfig, LinkId};
use dmrpc_pages::{Buddy, Extent, PageSize, SegmentId};
use dmrpc_wire::{
    Commit, FEATURE_LOCAL, Grant, GrantToken, Hello, NodeId, Notice, ObjectId, Patch, RawExtent, ReleaseEntry, Reply,
    ReplyHead, Request, SlotLease, Span, Status, Welcome, Write,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use zerocopy::IntoBytes;

const NODE: NodeId = NodeId(7);
const LEASE_MS: u64 = 3_000;
const GRACE_MS: u64 = 300;
const POOL_PAGES: u32 = 160;

type Key = [u8; 24];

fn key(id: &ObjectId) -> Key {
    id.as_bytes().try_into().expect("ids are 24 bytes")
}

/// What everybody knows: ids travel between clients faster than their commits reach the node.
#[derive(Default)]
struct Known {
    /// Ids that were sent in a commit or a write, with their tenant.
    ids: Vec<(ObjectId, usize)>,
    /// The bytes of each object.
    contents: BTreeMap<Key, Vec<u8>>,
    grants: Vec<(Grant, usize)>,
}

#[derive(Clone, Debug)]
enum Pending {
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

struct Client {
    name: usize,
    local: bool,
    tenant: usize,
    hostile: bool,
    link: Option<LinkId>,
    welcome: Option<Welcome>,
    /// Whether the welcome came over this link.
    greeted: bool,
    sequence: u64,
    tag: u64,
    /// The last of all sequenced requests that the node says it has applied.
    applied: u64,
    pending: BTreeMap<u64, Pending>,
    /// Those of `pending` that are answered only if they fail.
    one_way: BTreeSet<u64>,
    /// Sequenced requests that may have to be sent again.
    unanswered: VecDeque<(u64, Vec<u8>, Vec<u8>)>,
    /// Free pages of the client's own segments.
    arena: BTreeMap<u32, (Buddy, u32)>,
    slots: Vec<SlotLease>,
    held: BTreeMap<Key, (ObjectId, u32)>,
    /// The sequence of the commit of each object that this client made.
    made_at: BTreeMap<Key, u64>,
    /// Stands still until then.
    still_until: u64,
    last_renewed: u64,
}

struct Simulation {
    world: World,
    random: Random,
    clients: Vec<Client>,
    known: Known,
    next_name: usize,
    faults: bool,
    /// What happened, for people who look at a failing seed.
    reads: usize,
    makes: usize,
    failures: BTreeMap<(&'static str, u16), usize>,
}

const TOKENS: [&[u8]; 2] = [b"first tenant", b"second tenant"];

fn config(random: &mut Random) -> CoreConfig {
    let mut config = CoreConfig::new(NODE, PageSize::default(), POOL_PAGES);
    config.tenant_tokens = TOKENS.iter().map(|token| token.to_vec()).collect();
    config.segment_granule_pages = if random.one_in(2) { 1 } else { 8 };
    config.quota_pages = POOL_PAGES / 2;
    config.lease_ms = LEASE_MS;
    config.grace_ms = GRACE_MS;
    config.max_sessions = 10;
    config.max_slots_per_session = 40;
    config.max_grants = 6;
    config.max_tree_nodes = if random.one_in(3) { 60 } else { 2000 };
    config.max_object_bytes = 12 * PAGE as u64;
    config
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let world = World::new(config(&mut random), random.next());
        Self {
            world,
            random,
            clients: Vec::new(),
            known: Known::default(),
            next_name: 0,
            faults: true,
            reads: 0,
            makes: 0,
            failures: BTreeMap::new(),
        }
    }

    fn new_client(&mut self) {
        let random = &mut self.random;
        let local = random.one_in(2);
        self.next_name += 1;
        let mut client = Client {
            name: self.next_name,
            local,
            tenant: random.below(5) / 4,
            hostile: random.one_in(8),
            link: None,
            welcome: None,
            greeted: false,
            sequence: 0,
            tag: 1 << 40,
            applied: 0,
            pending: BTreeMap::new(),
            one_way: BTreeSet::new(),
            unanswered: VecDeque::new(),
            arena: BTreeMap::new(),
            slots: Vec::new(),
            held: BTreeMap::new(),
            made_at: BTreeMap::new(),
            still_until: 0,
            last_renewed: self.world.now,
        };
        client.connect(&mut self.world);
        self.clients.push(client);
    }

    fn step(&mut self) {
        let clients = self.clients.len();
        match self.random.below(100) {
            0..=2 if clients < 8 => self.new_client(),
            0..=34 if clients > 0 => {
                let at = self.random.below(clients);
                self.act(at);
            }
            35..=59 => {
                let links: Vec<LinkId> = self.world.links.keys().copied().collect();
                if !links.is_empty() {
                    let link = links[self.random.below(links.len())];
                    for _ in 0..=self.random.below(3) {
                        self.world.deliver_up(link);
                    }
                }
            }
            60..=84 if clients > 0 => {
                let at = self.random.below(clients);
                for _ in 0..=self.random.below(4) {
                    self.receive(at);
                }
            }
            85..=88 => {
                let links: Vec<LinkId> = self.world.links.keys().copied().collect();
                for link in links {
                    self.world.finish_body(link);
                }
            }
            89..=91 => {
                if let Some((&segment, _)) = self.world.making.first_key_value() {
                    let works = !(self.faults && self.random.one_in(10));
                    self.world.finish_segment(segment, works);
                }
            }
            92..=96 => {
                let ms = self.random.next() % 60;
                self.world.tick(ms);
                self.close_links();
            }
            97 if self.faults && clients > 0 => self.fault(),
            _ => self.world.settle(),
        }
    }

    /// Links that the node closed end; their clients notice some time.
    fn close_links(&mut self) {
        let closing: Vec<LinkId> =
            self.world.links.iter().filter(|(_, link)| link.closing).map(|(&link, _)| link).collect();
        for link in closing {
            if self.random.one_in(2) {
                continue;
            }
            while self.world.links.get(&link).is_some_and(|l| !l.down.is_empty()) {
                let now = self.world.now;
                match self.clients.iter().position(|c| c.link == Some(link) && c.still_until <= now) {
                    Some(at) => self.receive(at),
                    None => {
                        self.world.deliver_down(link);
                    }
                }
            }
            self.world.disconnect(link);
        }
    }

    fn fault(&mut self) {
        let at = self.random.below(self.clients.len());
        match self.random.below(10) {
            // The link breaks. Each end may notice first.
            0..=3 => {
                let client = &mut self.clients[at];
                if let Some(link) = client.link {
                    if client.local || self.random.one_in(2) {
                        self.world.disconnect(link);
                    }
                    self.clients[at].link = None;
                }
            }
            // The client dies, and nobody notices if it was far away.
            4 => self.kill(at),
            // It stands still, perhaps for too long.
            5 | 6 => self.clients[at].still_until = self.world.now + self.random.next() % (2 * LEASE_MS),
            // A link that nobody uses any more ends.
            7 => {
                let used: BTreeSet<LinkId> = self.clients.iter().filter_map(|client| client.link).collect();
                let stray = self.world.links.keys().copied().find(|link| !used.contains(link));
                stray.into_iter().for_each(|link| self.world.disconnect(link));
            }
            // What was sent over a network comes again.
            8 if !self.clients[at].local => {
                let client = &mut self.clients[at];
                if let (Some(link), true, false) = (client.link, client.greeted, client.unanswered.is_empty()) {
                    let again = self.random.below(client.unanswered.len());
                    let (_, head, body) = client.unanswered[again].clone();
                    if let Some(link) = self.world.links.get_mut(&link) {
                        link.up.push_back((head, body));
                    }
                }
            }
            // The session ends in peace.
            _ => {
                let mut client = self.clients.swap_remove(at);
                client.ask(&mut self.world, &Request::Bye, Pending::Other);
            }
        }
    }

    fn kill(&mut self, at: usize) {
        let client = self.clients.swap_remove(at);
        if let Some(link) = client.link
            && (client.local || self.random.one_in(2))
        {
            self.world.disconnect(link);
        }
    }

    /// A client does something.
    fn act(&mut self, at: usize) {
        let Self { world, random, clients, known, .. } = self;
        let client = &mut clients[at];
        if client.still_until > world.now {
            return;
        }
        if client.link.is_some_and(|link| !world.links.contains_key(&link)) {
            client.link = None;
        }
        if client.link.is_none() {
            if client.local {
                // Its link is its life.
                self.clients.swap_remove(at);
            } else {
                client.connect(world);
            }
            return;
        }
        if !client.greeted {
            return;
        }
        if client.hostile && random.one_in(2) {
            return client.misbehave(world, random, known);
        }
        if world.now - client.last_renewed > LEASE_MS / 6 {
            client.last_renewed = world.now;
            client.ask(world, &Request::Renew, Pending::Other);
        }
        if client.pending.len() > 40 {
            return;
        }
        match random.below(20) {
            0..=1 if client.slots.len() < 8 || random.one_in(10) => client.lease(world, random),
            2..=8 if !client.slots.is_empty() => {
                self.makes += usize::from(client.make(world, random, known));
            }
            9..=11 => client.hold(world, random, known),
            12..=14 => client.release(world, random),
            15..=17 => client.look(world, random, known),
            18 => client.grant(world, random, known),
            19 => client.give_back(world, random),
            _ if client.slots.is_empty() => client.lease(world, random),
            _ => client.look(world, random, known),
        }
    }

    /// A client takes what came first.
    fn receive(&mut self, at: usize) {
        let Some(client) = self.clients.get_mut(at) else { return };
        if client.still_until > self.world.now {
            return;
        }
        let Some(link) = client.link else { return };
        let Some((head, body)) = self.world.deliver_down(link) else { return };
        let (head, reply) = Reply::decode(&head).expect("the node sends what can be decoded");
        if head.status != Status::Ok {
            *self.failures.entry((op_name(&reply), head.status.to_wire())).or_default() += 1;
        }
        let goes_on = client.take(&mut self.world, &mut self.known, head, &reply, &body, &mut self.reads);
        if !goes_on {
            // The session is over.
            self.clients.swap_remove(at);
        }
    }

    /// Faults have stopped: everybody catches up, and what is left is what the living hold.
    fn end(&mut self) {
        self.faults = false;
        // Those who misbehaved are gone, and those who stood still wake up.
        while let Some(at) = self.clients.iter().position(|client| client.hostile) {
            self.kill(at);
        }
        for client in &mut self.clients {
            client.still_until = 0;
        }
        let used: BTreeSet<LinkId> = self.clients.iter().filter_map(|client| client.link).collect();
        let stray: Vec<LinkId> = self.world.links.keys().copied().filter(|link| !used.contains(link)).collect();
        stray.into_iter().for_each(|link| self.world.disconnect(link));
        self.quiet(false);
        let patience = 40 * (LEASE_MS + GRACE_MS) / 100 + 200;
        for _ in 0..patience {
            // The dead are given their time; the living renew.
            self.quiet(true);
            self.world.tick(100);
            if self.world.core.is_settled() && self.expected_holds() == self.world.stats().holds.get() {
                let stats = self.world.stats();
                let asked =
                    self.clients.iter().any(|client| client.pending.keys().any(|s| !client.one_way.contains(s)));
                if stats.sessions.get() == self.clients.len() as u64 && stats.grants.get() == 0 && !asked {
                    break;
                }
            }
        }
        self.check_living();
        // All say goodbye: everything is free.
        for mut client in std::mem::take(&mut self.clients) {
            client.ask(&mut self.world, &Request::Bye, Pending::Other);
        }
        self.world.run();
        // What was on its way to them is never taken.
        let links: Vec<LinkId> = self.world.links.keys().copied().collect();
        links.into_iter().for_each(|link| self.world.disconnect(link));
        self.world.settle();
        let stats = self.world.stats();
        assert_eq!(stats.objects.get(), 0, "objects outlived all");
        assert_eq!((stats.holds.get(), stats.grants.get(), stats.sessions.get()), (0, 0, 0));
        assert_eq!(stats.tree_nodes.get(), 0);
        assert_eq!(stats.free_pages, stats.committed_pages, "pages outlived all");
        assert!(self.world.segments.values().all(|memory| memory.access == dmrpc_memnode::core::Access::Node));
    }

    fn expected_holds(&self) -> u64 {
        self.clients.iter().flat_map(|client| client.held.values()).map(|&(_, count)| u64::from(count)).sum()
    }

    /// Everybody gets everything, and connects again if need be.
    fn quiet(&mut self, renew: bool) {
        for _ in 0..1000 {
            self.world.run();
            let mut at = 0;
            let mut moved = false;
            while at < self.clients.len() {
                let before = self.clients.len();
                if self.clients[at].link.is_some_and(|link| !self.world.links.contains_key(&link)) {
                    self.clients[at].link = None;
                }
                let client = &mut self.clients[at];
                match client.link {
                    None if client.local => {
                        self.clients.swap_remove(at);
                        moved = true;
                    }
                    None => {
                        client.connect(&mut self.world);
                        moved = true;
                    }
                    Some(link) if !self.world.links[&link].down.is_empty() => {
                        self.receive(at);
                        moved = true;
                    }
                    Some(_) if renew && client.last_renewed + 500 < self.world.now && client.greeted => {
                        client.last_renewed = self.world.now;
                        client.ask(&mut self.world, &Request::Renew, Pending::Other);
                        moved = true;
                    }
                    Some(_) => {}
                }
                at += usize::from(self.clients.len() == before);
            }
            if !moved {
                return;
            }
        }
        panic!("it never gets quiet");
    }

    /// 7: nothing of the living is lost, and nothing of the dead is left.
    fn check_living(&mut self) {
        let mut objects = BTreeSet::new();
        for client in &self.clients {
            let open: Vec<_> =
                client.pending.iter().filter(|(sequence, _)| !client.one_way.contains(sequence)).collect();
            assert!(open.is_empty(), "client {} still waits for {open:?}", client.name);
            objects.extend(client.held.keys().copied());
        }
        let stats = self.world.stats();
        assert_eq!(stats.sessions.get(), self.clients.len() as u64, "sessions");
        assert_eq!(stats.grants.get(), 0, "grants live for a while only");
        assert_eq!(stats.holds.get(), self.expected_holds(), "holds");
        assert_eq!(stats.objects.get(), objects.len() as u64, "objects");
        for at in 0..self.clients.len() {
            let ids: Vec<ObjectId> = self.clients[at].held.values().map(|&(id, _)| id).collect();
            for id in ids {
                let client = &mut self.clients[at];
                let size = self.known.contents[&key(&id)].len() as u64;
                let (request, pending) = if client.local {
                    (Request::Resolve { id, first_page: 0, pages: 0 }, Pending::Resolve(id, true))
                } else {
                    (
                        Request::Read { id, offset: 0, length: size },
                        Pending::Read { id, offset: 0, length: size, held: true },
                    )
                };
                client.ask(&mut self.world, &request, pending);
                let before = self.reads;
                self.quiet(false);
                assert_eq!(self.reads, before + 1, "the living read what they hold");
            }
        }
    }
}

fn op_name(reply: &Reply<'_>) -> &'static str {
    match reply {
        Reply::Done => "done",
        Reply::Notice(Notice::Failed) => "failed",
        Reply::Notice(Notice::Goodbye) => "goodbye",
        _ => "other",
    }
}

impl Client {
    fn connect(&mut self, world: &mut World) {
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
    fn acknowledged(&self) -> u64 {
        let open =
            |(_, head, _): &&(u64, Vec<u8>, Vec<u8>)| Request::decode(head).is_ok_and(|(h, _)| h.op.is_answered());
        self.unanswered.iter().find(open).map_or(self.sequence, |&(sequence, _, _)| sequence - 1)
    }

    /// A sequenced request.
    fn order(&mut self, world: &mut World, request: &Request<'_>, body: Vec<u8>, pending: Pending) {
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
    fn ask(&mut self, world: &mut World, request: &Request<'_>, pending: Pending) {
        assert!(!request.op().is_sequenced());
        self.tag += 1;
        if request.op().is_answered() {
            self.pending.insert(self.tag, pending);
        }
        if let Some(link) = self.link.filter(|link| world.links.contains_key(link)) {
            world.send(link, request, self.tag, self.acknowledged(), Vec::new());
        }
    }

    fn lease(&mut self, world: &mut World, random: &mut Random) {
        let free: u32 = self.arena.values().map(|(buddy, _)| buddy.free_pages()).sum();
        let wants = self.local && (free < 8 || random.one_in(8));
        let pages = if wants { 1 + random.below(30) as u32 } else { 0 };
        let slots = random.below(12) as u32;
        let wait_ms = if random.one_in(2) { 0 } else { random.below(1500) as u32 };
        self.order(world, &Request::Lease { pages, slots, wait_ms }, Vec::new(), Pending::Lease);
    }

    /// Makes an object, from nothing or from another. Whether it could.
    fn make(&mut self, world: &mut World, random: &mut Random, known: &mut Known) -> bool {
        let Some(lease) = self.slots.pop() else { return false };
        let id = ObjectId::new(NODE, lease, random.bytes());
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
    fn commit(
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
                    let memory = world.segments.get_mut(&extent.segment.0).expect("the arena is there");
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

    fn write(&mut self, world: &mut World, random: &mut Random, (id, base): (ObjectId, ObjectId), content: &mut [u8]) {
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

    fn allocate(&mut self, pages: u32) -> Option<Extent> {
        self.arena.iter_mut().find_map(|(&segment, (buddy, _))| {
            let (first, count) = buddy.alloc_most(pages)?;
            Some(Extent::new(SegmentId(segment), first, count))
        })
    }

    fn free(&mut self, extent: Extent) {
        // A segment that was given back meanwhile has no such page.
        if let Some((buddy, _)) = self.arena.get_mut(&extent.segment.0) {
            buddy.free(extent.first, extent.count).expect("only pages that were used come free, and once");
        }
    }

    /// An id of this tenant: of what this client holds, or of anything it has heard of.
    fn some_id(&self, random: &mut Random, known: &Known) -> Option<ObjectId> {
        if random.one_in(2) && !self.held.is_empty() {
            return self.held.values().nth(random.below(self.held.len())).map(|&(id, _)| id);
        }
        // What was made lately is what is passed around.
        let recent = known.ids.len().saturating_sub(30);
        let (id, tenant) = *known.ids.get(recent + random.below(known.ids.len() - recent))?;
        (tenant == self.tenant).then_some(id)
    }

    fn hold(&mut self, world: &mut World, random: &mut Random, known: &Known) {
        let ids: Vec<ObjectId> = (0..=random.below(3)).filter_map(|_| self.some_id(random, known)).collect();
        self.order(world, &Request::Hold(&ids), Vec::new(), Pending::Hold(ids.clone()));
    }

    fn release(&mut self, world: &mut World, random: &mut Random) {
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

    fn unhold(&mut self, k: &Key, gone: u32) {
        if let Some((_, count)) = self.held.get_mut(k) {
            *count = count.saturating_sub(gone);
            if *count == 0 {
                self.held.remove(k);
            }
        }
    }

    /// Whether the node must know by now that this client holds it.
    fn surely_holds(&self, id: &ObjectId) -> bool {
        let k = key(id);
        self.held.contains_key(&k) && self.made_at.get(&k).is_none_or(|&sequence| sequence <= self.applied)
    }

    fn look(&mut self, world: &mut World, random: &mut Random, known: &Known) {
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

    fn grant(&mut self, world: &mut World, random: &mut Random, known: &mut Known) {
        match random.below(3) {
            0 => {
                let Some(id) = self.some_id(random, known) else { return };
                let ttl_ms = random.next() % 2000;
                let grant = Grant { id, token: GrantToken(random.bytes()), ttl_ms: ttl_ms.into() };
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
    fn give_back(&mut self, world: &mut World, random: &mut Random) {
        let unused = self.arena.iter().find(|(_, (buddy, pages))| buddy.free_pages() == *pages).map(|(&s, _)| s);
        let slots: Vec<SlotLease> = if random.one_in(2) { self.slots.pop().into_iter().collect() } else { Vec::new() };
        if let Some(segment) = unused {
            self.arena.remove(&segment);
        }
        self.order(world, &Request::Return { segment: unused, slots: &slots }, Vec::new(), Pending::Other);
    }

    /// Whatever comes to mind.
    fn misbehave(&mut self, world: &mut World, random: &mut Random, known: &Known) {
        let Some(link) = self.link else { return };
        let mut id = match known.ids.len() {
            0 => ObjectId::new(NODE, SlotLease::new(random.below(9) as u32, random.below(3) as u32), random.bytes()),
            n => known.ids[random.below(n)].0,
        };
        if random.one_in(2) {
            // Guessed: right slot, wrong key; or right key, wrong use of the slot.
            let lease = SlotLease::new(id.slot(), id.generation().wrapping_add(random.below(3) as u32).wrapping_sub(1));
            id = ObjectId::new(NODE, lease, if random.one_in(2) { random.bytes() } else { *id.key() });
        }
        let extent = |random: &mut Random| -> RawExtent {
            let segment = if random.one_in(8) { u32::MAX } else { random.below(30) as u32 };
            let first = if random.one_in(9) { u32::MAX } else { random.below(50) as u32 };
            Extent::new(SegmentId(segment), first, random.below(40) as u32).into()
        };
        let big = [0, 1, 4095, 4096, 100_000, u64::MAX - 5, u64::MAX][random.below(7)];
        let patches: Vec<Patch> = (0..random.below(4))
            .map(|_| Patch { at: (random.below(14) as u32).into(), extent: extent(random) })
            .collect();
        let spans: Vec<Span> = (0..random.below(4))
            .map(|i| Span { offset: ((i as u64).wrapping_mul(big)).into(), length: (random.below(9000) as u64).into() })
            .collect();
        let grant = Grant { id, token: GrantToken([random.below(3) as u8; 16]), ttl_ms: big.min(5000).into() };
        let entries: Vec<_> =
            (0..random.below(4)).map(|_| ReleaseEntry { id, count: (random.below(5) as u32).into() }).collect();
        let slots: Vec<_> = (0..3).map(|_| SlotLease::new(random.below(40) as u32, random.below(6) as u32)).collect();
        let small = random.below(50) as u32;
        let own = self.slots.last().copied().unwrap_or(slots[0]);
        let new = ObjectId::new(NODE, own, random.bytes());
        let base = if random.one_in(2) { id } else { ObjectId::NULL };
        let size = random.next() % (14 * PAGE as u64);
        let request = match random.below(18) {
            0 => Request::Lease { pages: small * small * small, slots: small * small * 2, wait_ms: small * 40 },
            1 => Request::Mapped { segment: small },
            2 | 3 => Request::Commit(Commit { id: new, base, size, patches: &patches }),
            4 | 5 => Request::Write(Write { id: new, base, size, spans: &spans }),
            6 => Request::Hold(std::slice::from_ref(&id)),
            7 => Request::Release(&entries),
            8 => Request::Resolve { id, first_page: small, pages: random.next() as u32 },
            9 => Request::Read { id, offset: big, length: random.next() % 9000 },
            10 => Request::Grant(grant),
            11 => Request::Redeem(grant),
            12 => Request::Revoke(grant),
            13 => Request::Return { segment: Some(small), slots: &slots },
            14 => Request::Segment { segment: small },
            15 => Request::Stat,
            16 => Request::Hold(&[]),
            _ => Request::Renew,
        };
        let body_len = match request {
            Request::Write(write) if random.below(4) > 0 => {
                write.spans.iter().map(|span| span.length.get()).sum::<u64>().min(50_000)
            }
            _ if random.one_in(60) => 100,
            _ => 0,
        };
        let mut head = Vec::new();
        let sequence = if random.one_in(10) { random.next() >> random.below(64) } else { self.sequence + 1 };
        if sequence == self.sequence + 1 && request.op().is_sequenced() {
            self.sequence += 1;
        }
        request.encode(sequence, random.next() >> random.below(64), &mut head);
        if random.one_in(40) {
            let at = random.below(head.len());
            head[at] ^= 1 << random.below(8);
        }
        if let Some(link) = world.links.get_mut(&link) {
            link.up.push_back((head, vec![0xee; body_len as usize]));
        }
    }

    /// Takes an answer or a notice. Whether the session goes on.
    fn take(
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
    fn taken(
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

    fn take_hostile(&mut self, world: &mut World, reply: &Reply<'_>) -> bool {
        match *reply {
            Reply::Welcome(welcome) => {
                self.welcome = Some(welcome);
                self.greeted = true;
            }
            Reply::Notice(Notice::Goodbye) => return false,
            Reply::Leased(leased) => {
                self.slots.extend_from_slice(leased.slots);
                if let Some(info) = leased.segment {
                    self.arena.insert(info.segment, (Buddy::new(info.pages), info.pages));
                    self.order(world, &Request::Mapped { segment: info.segment }, Vec::new(), Pending::Other);
                }
            }
            _ => {}
        }
        true
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Invariants 1 to 8 of the core.
#[test]
fn whatever_happens() {
    let steps = number("CORE_SIMULATION_STEPS", 2500);
    let seeds = match std::env::var("CORE_SIMULATION_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("a seed is a number");
            seed..seed + 1
        }
        Err(_) => 0..number("CORE_SIMULATION_SEEDS", 200),
    };
    let (mut reads, mut makes) = (0, 0);
    let mut failures = BTreeMap::new();
    let mut all = [0u64; 4];
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| {
            let mut simulation = Simulation::new(seed);
            for _ in 0..steps {
                simulation.step();
            }
            simulation.end();
            simulation
        });
        match std::panic::catch_unwind(run) {
            Ok(simulation) => {
                reads += simulation.reads;
                makes += simulation.makes;
                for (what, times) in simulation.failures {
                    *failures.entry(what).or_insert(0usize) += times;
                }
                let stats = simulation.world.stats();
                all[0] += stats.commits.get();
                all[1] += stats.replays.get();
                all[2] += stats.leases_expired.get();
                all[3] += stats.pages_copied.get();
            }
            Err(panic) => {
                eprintln!("seed {seed} fails: CORE_SIMULATION_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    eprintln!("{makes} made and {reads} read; commits, replays, leases expired, pages copied: {all:?}; {failures:?}");
    if std::env::var("CORE_SIMULATION_SEED").is_err() && steps >= 1000 {
        // A simulation in which nothing happens finds nothing.
        assert!(all.iter().all(|&times| times > 0) && reads > 1000, "{reads} {all:?}");
    }
}
