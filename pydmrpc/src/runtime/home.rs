//! The hub with what it needs: links to workers and drivers, the zygote, what workers print.
//!
//! | file | noun |
//! | --- | --- |
//! | `home.rs` | what the core decides, done; what is ready or due |
//! | `home/links.rs`, `home/wish.rs` | links to workers and drivers; what their records ask for |
//! | `home/processes.rs` | workers' processes |
//! | `home/census.rs` | what all clients hold |
//! | `home/together.rs` | whether two had better be on one processor |
//!
//! Everything is under one lock, held for a moment at a time and never while waiting or with a wish for the GIL.
//!
//! 1. What clients send is done in the order in which it came; what workers sent before they ended is done before they are gone.
//! 2. A worker's end is told to the core once: when its link has ended and the zygote has said how, or a moment after that.

mod census;
mod links;
mod processes;
mod together;
mod wish;

use super::client::Client;
use super::nearness::Habit;
use super::output::Lines;
use super::payload::Payload;
use super::peer;
use super::questions;
use super::tallies::Tallies;
use super::zygote::{Recipe, Zygote};
use census::Asker;
use dmrpc_fabric::listen::Listener;
use dmrpc_hub::record::Record;
use dmrpc_hub::{Action, Censuses, ClientId, Event, FunctionId, Grants, Hub, HubOptions, ResultId, WorkerId};
use links::Peer;
use processes::{ENDING, Process};
use rustc_hash::FxHashMap;
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// Keys of the descriptors that are listened to.
const LISTENER: u64 = 0;
const ZYGOTE: u64 = 1;
const FIRST_PEER: u64 = 16;
const FIRST_OUTPUT: u64 = 1 << 32;

/// The driver in whose process the hub is.
pub(crate) const OWN: ClientId = ClientId(0);
/// Holds results whose references are on their way outside of links.
const GRANTS: ClientId = ClientId(1);
const FIRST_CLIENT: u32 = 2;

/// How long a reference outside of links keeps its result.
const GRANT_MS: u64 = 600_000;
/// So many references outside of links keep results at a time; beyond them the oldest do no longer.
const MAX_GRANTS: usize = 1 << 20;

/// See the module.
pub(crate) struct Home {
    pub(crate) hub: Hub<Payload>,
    actions: Vec<Action<Payload>>,
    /// When something ended the last time.
    now_ms: u64,
    peers: Vec<Option<Peer>>,
    by_client: FxHashMap<ClientId, usize>,
    dirty: Vec<usize>,
    processes: BTreeMap<WorkerId, Process>,
    functions: FxHashMap<FunctionId, Payload>,
    zygote: Option<Zygote>,
    recipe: Recipe,
    listener: Listener,
    address: String,
    store_url: String,
    about: Vec<u8>,
    next_client: u32,
    grants: Grants,
    /// How often in a row somebody waited here while one thing ran and nothing else.
    turns_taken: u32,
    habit: Habit,
    /// The worker that was told to sleep near who waits.
    near: Option<usize>,
    /// Drivers in other processes.
    joined: usize,
    /// Lines that workers printed, for the driver.
    printed: Lines,
    /// What programs count.
    pub(crate) tallies: Tallies,
    /// Questions to all clients.
    censuses: Censuses<Asker, Value>,
}

/// What a hub is made of.
pub(crate) struct Plan {
    pub(crate) options: HubOptions,
    pub(crate) recipe: Recipe,
    pub(crate) listener: Listener,
    pub(crate) address: String,
    pub(crate) store_url: String,
    pub(crate) about: Vec<u8>,
}

impl Home {
    pub(crate) fn new(plan: Plan) -> Self {
        let Plan { options, recipe, listener, address, store_url, about } = plan;
        let mut home = Self {
            hub: Hub::new(options),
            actions: Vec::new(),
            now_ms: now_ms(),
            peers: Vec::new(),
            by_client: FxHashMap::default(),
            dirty: Vec::new(),
            processes: BTreeMap::new(),
            functions: FxHashMap::default(),
            zygote: None,
            recipe,
            listener,
            address,
            store_url,
            about,
            next_client: FIRST_CLIENT,
            grants: Grants::new(MAX_GRANTS, GRANT_MS),
            turns_taken: 0,
            habit: Habit::default(),
            near: None,
            joined: 0,
            printed: Lines::default(),
            tallies: Tallies::default(),
            censuses: Censuses::default(),
        };
        let mut none = Vec::new();
        for client in [OWN, GRANTS] {
            home.hub.step(0, Event::DriverUp { client }, &mut none);
        }
        home
    }

    /// Begins to listen, and starts the zygote.
    pub(crate) fn open(&mut self, client: &Arc<Client>) -> std::io::Result<()> {
        client.turns().add(self.listener.as_fd(), LISTENER)?;
        self.start_zygote(client)
    }

    /// Where other drivers of this host join.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Something happened; what follows is done at once.
    pub(crate) fn step(&mut self, client: &Arc<Client>, event: Event<Payload>) {
        let mut actions = std::mem::take(&mut self.actions);
        // Only when something ended depends on time, and that for people.
        if matches!(event, Event::Finished { .. } | Event::ClientDown { .. } | Event::Cancel { .. }) {
            self.now_ms = now_ms();
        }
        self.hub.step(self.now_ms, event, &mut actions);
        for action in actions.drain(..) {
            self.act(client, action);
        }
        self.actions = actions;
    }

    pub(crate) fn define(&mut self, id: FunctionId, definition: Payload) {
        self.functions.insert(id, definition);
    }

    pub(crate) fn definition(&self, id: FunctionId) -> Option<&Payload> {
        self.functions.get(&id)
    }

    /// References to these are on their way outside of links.
    pub(crate) fn grant(&mut self, client: &Arc<Client>, results: &[ResultId]) {
        for &result in results {
            if self.hub.hold(GRANTS, result) {
                let ended = self.grants.add(now_ms(), result);
                self.end_grants(client, ended);
            }
        }
    }

    /// References outside of links that keep their results no longer.
    fn end_grants(&mut self, client: &Arc<Client>, ended: impl IntoIterator<Item = ResultId>) {
        for result in ended {
            self.step(client, Event::Release { client: GRANTS, results: vec![(result, 1)] });
        }
    }

    fn act(&mut self, client: &Arc<Client>, action: Action<Payload>) {
        match action {
            Action::Start { worker, environment } => self.start(client, worker, environment, 1),
            Action::Stop { worker } => {
                if let Some(process) = self.processes.get_mut(&worker) {
                    process.doomed = true;
                    process.kill();
                }
            }
            Action::Run { client: to, task, actor, create, function, payload, values, given, returns } => {
                if self.joined > 0 && (actor.is_none() || create) {
                    self.works_for(to, task.client);
                }
                self.send_to(client, to, |outgoing, functions| {
                    outgoing.send_function(function, || functions.get(&function).cloned())?;
                    let mut tables = vec![Vec::new(); values.len()];
                    let mut table = Vec::new();
                    payload.lend(&outgoing.loans, &mut table)?;
                    for (value, table) in values.iter().zip(&mut tables) {
                        value.lend(&outgoing.loans, table)?;
                    }
                    outgoing.send(&Record::Run {
                        task,
                        actor,
                        create,
                        function,
                        payload: payload.value(&table),
                        values: values.iter().zip(&tables).map(|(value, table)| value.value(table)).collect(),
                        given: given.into(),
                        returns,
                    })
                });
            }
            Action::Recall { client: to, most } => {
                self.send_to(client, to, |peer, _| peer.send(&Record::Recall { most }));
            }
            Action::Interrupt { client: to, task } => {
                self.send_to(client, to, |peer, _| peer.send(&Record::Interrupt { task }));
            }
            Action::Exit { client: to } => self.send_to(client, to, |peer, _| peer.send(&Record::Exit)),
            Action::Deliver { client: OWN, result, outcome } => client.deliver(result, outcome),
            Action::Deliver { client: to, result, outcome } => self.send_to(client, to, |outgoing, _| {
                let (mut table, loans) = (Vec::new(), outgoing.loans.clone());
                outgoing.send(&Record::Deliver { result, outcome: peer::came(&outcome, &loans, &mut table)? })
            }),
        }
    }

    /// Sees to what is ready.
    pub(crate) fn ready(&mut self, client: &Arc<Client>, keys: impl Iterator<Item = u64>) {
        for key in keys {
            match key {
                LISTENER => self.accept(client),
                ZYGOTE => self.zygote_ready(client),
                FIRST_OUTPUT.. => {
                    let key = key - FIRST_OUTPUT;
                    self.print(client, WorkerId((key / 2) as u32), (key % 2) as usize);
                }
                _ => {
                    let index = (key - FIRST_PEER) as usize;
                    while self.receive(client, index) {}
                    self.flush_peer(client, index);
                }
            }
        }
    }

    /// Looks at all links, and at what is due.
    pub(crate) fn look(&mut self, client: &Arc<Client>) {
        for index in 0..self.peers.len() {
            while self.receive(client, index) {}
        }
        if self.processes.values().any(|process| process.unlinked.is_some() || process.status.is_some()) {
            let ended: Vec<WorkerId> = self.processes.keys().copied().collect();
            for worker in ended {
                self.bury(client, worker);
            }
        }
        while let Some(ended) = self.grants.take_due(now_ms()) {
            self.end_grants(client, [ended]);
        }
        if self.censuses.next_due().is_some() {
            let due = self.censuses.take_due(now_ms());
            self.end_censuses(client, due);
        }
    }

    /// How long nobody need look, if nothing comes.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let ending = self.processes.values().any(|process| process.unlinked.is_some());
        let due = [self.censuses.next_due(), self.grants.next_due()].into_iter().flatten().min();
        let due = due.map(|due| Duration::from_millis(due.saturating_sub(now_ms())));
        [ending.then_some(ENDING), due].into_iter().flatten().min()
    }

    /// What the hub says to a question, and the results that go with that.
    pub(crate) fn answer(&mut self, client: &Arc<Client>, from: ClientId, what: &[u8]) -> (Vec<u8>, Vec<ResultId>) {
        questions::answer(self, client, from, what)
    }

    /// Ends all workers.
    pub(crate) fn close(&mut self, client: &Arc<Client>) {
        for process in self.processes.values_mut() {
            process.kill();
        }
        for index in 0..self.peers.len() {
            if let Some(peer) = self.peers[index].take() {
                peer.outgoing.close();
            }
        }
        self.by_client.clear();
        if let Some(zygote) = self.zygote.take() {
            client.turns().remove(zygote.descriptor());
        }
    }
}

/// Milliseconds of a clock that all processes of the host have, as of the kernel's last tick: a look costs next to nothing.
pub(crate) fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}
