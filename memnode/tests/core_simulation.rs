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

use core_world::client::{Client, GRACE_MS, Known, LEASE_MS, NODE, Pending, TOKENS, key};
use core_world::{PAGE, World};
use dmrpc_memnode::core::{CoreConfig, LinkId};
use dmrpc_pages::PageSize;
use dmrpc_test_random::Random;
use dmrpc_wire::{Notice, ObjectId, Reply, Request, Status};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const POOL_PAGES: u32 = 160;

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
                let asked = self.clients.iter().any(|client| {
                    client.applied < client.sequence || client.pending.keys().any(|s| !client.one_way.contains(s))
                });
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
        assert_eq!(self.world.stats().objects.get(), objects.len() as u64, "objects");
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
