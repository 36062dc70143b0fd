//! The hub with what it needs: links to workers and drivers, the zygote, what workers print.
//!
//! Everything is under one lock, held for a moment at a time and never while waiting or with a wish for the GIL.
//!
//! 1. What clients send is done in the order in which it came; what workers sent before they ended is done before they are gone.
//! 2. A worker's end is told to the core once: when its link has ended and the zygote has said how, or a moment after that.

use super::client::Client;
use super::completions::List;
use super::nearness::{Habit, current_cpu};
use super::output::{Lines, Output, Printed};
use super::payload::Payload;
use super::peer::{self, Inward, Outgoing, PeerError};
use super::questions;
use super::slot::Waiter;
use super::tallies::Tallies;
use super::zygote::{News, Recipe, Zygote};
use dmrpc_fabric::listen::Listener;
use dmrpc_hub::record::{Record, Results, Who};
use dmrpc_hub::{
    Action, Censuses, ClientId, Ended, Event, FunctionId, Grants, Hub, HubOptions, Outcome, ResultId, WorkerId,
};
use dmrpc_objstore::Borrows;
use rustc_hash::FxHashMap;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

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

/// So often in a row one thing runs alone before its worker is told to be near who waits for it.
const TURNS_TAKEN: u32 = 4;

/// Records of one client that are read before others have their turn.
const BATCH: usize = 512;
/// How long the zygote may take to say how a worker ended whose link has.
const ENDING: Duration = Duration::from_millis(500);
/// So many zygotes try to start a worker.
const MAX_ZYGOTES: u32 = 3;
/// How long a reference outside of links keeps its result.
const GRANT_MS: u64 = 600_000;
/// So many references outside of links keep results at a time; beyond them the oldest do no longer.
const MAX_GRANTS: usize = 1 << 20;

/// A client at the other end of a link.
struct Peer {
    outgoing: Outgoing,
    inward: Option<Inward>,
    client: Option<ClientId>,
    worker: Option<WorkerId>,
    pid: u32,
    /// Where it was told to sleep.
    near: Option<u32>,
    dirty: bool,
}

/// A worker's process.
struct Process {
    secret: u64,
    environment: u64,
    pid: u32,
    /// How many zygotes were to start it.
    zygotes: u32,
    process: Option<OwnedFd>,
    client: Option<ClientId>,
    output: [Option<Output>; 2],
    /// It is to be killed as soon as it can be.
    doomed: bool,
    /// When its link ended.
    unlinked: Option<Instant>,
    /// What its actor calls itself.
    title: Option<String>,
    /// The driver that it works for, or worked for last.
    driver: ClientId,
    /// How it ended.
    status: Option<i32>,
}

/// What a record asks for.
enum Wish {
    Event(Event<Payload>),
    Hello(Who, u32),
    Function(FunctionId, Payload),
    Want(Vec<ResultId>),
    Hold(Vec<ResultId>),
    Grant(Vec<ResultId>),
    Ask(u64, Vec<u8>),
    Holdings(u64, Vec<u8>),
}

/// Who asks what clients hold.
enum Asker {
    /// A thread of this process, who finds the answers in the cell.
    Here(Arc<Waiter>, Arc<OnceLock<Value>>),
    /// A client, by its number of the question.
    Away(ClientId, u64),
}

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

    fn start_zygote(&mut self, client: &Arc<Client>) -> std::io::Result<()> {
        let zygote = Zygote::start(&self.recipe)?;
        client.turns().add(zygote.descriptor(), ZYGOTE)?;
        self.zygote = Some(zygote);
        Ok(())
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

    /// A worker works for a client from now on: for a driver, or whoever that worker works for.
    fn works_for(&mut self, worker: ClientId, client: ClientId) {
        let worker_of = |home: &Self, client| {
            let &index = home.by_client.get(&client)?;
            home.peers[index].as_ref()?.worker
        };
        let driver = match worker_of(self, client) {
            Some(other) => self.processes.get(&other).map_or(OWN, |process| process.driver),
            None => client,
        };
        if let Some(process) = worker_of(self, worker).and_then(|worker| self.processes.get_mut(&worker)) {
            process.driver = driver;
        }
    }

    fn send_to(
        &mut self,
        client: &Arc<Client>,
        to: ClientId,
        send: impl FnOnce(&mut Outgoing, &FxHashMap<FunctionId, Payload>) -> Result<(), PeerError>,
    ) {
        let Some(&index) = self.by_client.get(&to) else { return };
        let Some(peer) = &mut self.peers[index] else { return };
        if let Err(error) = send(&mut peer.outgoing, &self.functions) {
            // Its end is told when its descriptor says so; what was not sent is lost with it.
            self.condemn(client, index, &error);
            return;
        }
        if !peer.dirty {
            peer.dirty = true;
            self.dirty.push(index);
        }
    }

    /// A peer of which nothing more is wanted: if it is a worker it is killed, and the rest follows.
    fn condemn(&mut self, _client: &Arc<Client>, index: usize, _error: &PeerError) {
        let worker = self.peers[index].as_ref().and_then(|peer| peer.worker);
        if let Some(process) = worker.and_then(|worker| self.processes.get_mut(&worker)) {
            process.doomed = true;
            process.kill();
        }
    }

    // Workers.

    fn start(&mut self, client: &Arc<Client>, worker: WorkerId, environment: u64, zygotes: u32) {
        let mut secret = [0; 8];
        let _ = rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty());
        let secret = u64::from_le_bytes(secret);
        let definition = self.functions.get(&FunctionId(u128::from(environment))).map(|payload| payload.bytes.clone());
        let mut process = Process {
            secret,
            environment,
            pid: 0,
            zygotes,
            process: None,
            client: None,
            output: [None, None],
            doomed: false,
            unlinked: None,
            title: None,
            driver: OWN,
            status: None,
        };
        if self.zygote.is_none() && self.start_zygote(client).is_err() {
            process.status = Some(i32::MAX);
        }
        let key = FIRST_OUTPUT + 2 * u64::from(worker.0);
        let pipes = Output::pipe().and_then(|out| Ok((out, Output::pipe()?)));
        match (&mut self.zygote, pipes) {
            (Some(zygote), Ok(((out, out_end), (error, error_end)))) => {
                let _ = client.turns().add(out.descriptor(), key);
                let _ = client.turns().add(error.descriptor(), key + 1);
                process.output = [Some(out), Some(error)];
                let definition = definition.as_deref().unwrap_or_default();
                zygote.fork(worker.0, secret, environment, definition, [out_end, error_end]);
            }
            _ => process.status = Some(i32::MAX),
        }
        self.processes.insert(worker, process);
    }

    fn zygote_ready(&mut self, client: &Arc<Client>) {
        loop {
            let Some(zygote) = &mut self.zygote else { return };
            match zygote.news() {
                None => return zygote.push(),
                Some(News::Started { worker, pid, process }) => {
                    let Some(entry) = self.processes.get_mut(&WorkerId(worker)) else { continue };
                    (entry.pid, entry.process) = (pid, Some(process));
                    if entry.doomed {
                        entry.kill();
                    }
                }
                Some(News::Ended { worker, status }) => {
                    if let Some(process) = self.processes.get_mut(&WorkerId(worker)) {
                        process.status = Some(status);
                        self.drain(client, WorkerId(worker));
                        self.bury(client, WorkerId(worker));
                    }
                }
                Some(News::Gone) => {
                    if let Some(zygote) = self.zygote.take() {
                        client.turns().remove(zygote.descriptor());
                    }
                    // Those that are not there yet are started by another, unless that is what zygotes die of; how the
                    // others end nobody will say.
                    let coming = self.processes.iter().filter(|(_, process)| process.client.is_none());
                    let coming: Vec<WorkerId> = coming.map(|(&worker, _)| worker).collect();
                    for worker in coming {
                        let process = self.processes.get_mut(&worker).expect("just listed");
                        process.kill();
                        if process.doomed || process.zygotes == MAX_ZYGOTES {
                            process.status = Some(i32::MAX);
                            self.bury(client, worker);
                            continue;
                        }
                        let (environment, zygotes) = (process.environment, process.zygotes);
                        let process = self.processes.remove(&worker).expect("just looked at");
                        for output in process.output.iter().flatten() {
                            client.turns().remove(output.descriptor());
                        }
                        self.start(client, worker, environment, zygotes + 1);
                    }
                    return;
                }
            }
        }
    }

    /// Reads what an ended worker sent and printed last.
    fn drain(&mut self, client: &Arc<Client>, worker: WorkerId) {
        let peer = self.processes.get(&worker).and_then(|process| process.client);
        if let Some(&index) = peer.and_then(|peer| self.by_client.get(&peer)) {
            while self.receive(client, index) {}
        }
        for stream in [0, 1] {
            self.print(client, worker, stream);
        }
    }

    /// A worker's process or link has ended, or both: tells the core when all is known.
    fn bury(&mut self, client: &Arc<Client>, worker: WorkerId) {
        let Some(process) = self.processes.get(&worker) else { return };
        let linked = process.client.is_some_and(|client| self.by_client.contains_key(&client));
        let waited = process.unlinked.is_some_and(|since| since.elapsed() > ENDING);
        match process.status {
            // Its link goes when its process has; what was in it was read.
            Some(_) if linked => {
                let index = self.by_client[&process.client.expect("linked")];
                self.unlink(client, index);
                return self.bury(client, worker);
            }
            Some(_) => {}
            None if process.unlinked.is_some() && (waited || self.zygote.is_none()) => process.kill(),
            None => return,
        }
        for stream in [0, 1] {
            self.print(client, worker, stream);
        }
        let mut process = self.processes.remove(&worker).expect("just looked at");
        for output in process.output.iter().flatten() {
            client.turns().remove(output.descriptor());
        }
        let why = process.last_words();
        match process.client {
            Some(gone) => self.step(client, Event::ClientDown { client: gone, why }),
            None => self.step(client, Event::WorkerFailed { worker, why }),
        }
    }

    fn print(&mut self, client: &Arc<Client>, worker: WorkerId, stream: usize) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        let Some(output) = &mut process.output[stream] else { return };
        let (pid, driver, is_error) = (process.pid, process.driver, stream == 1);
        let mut lines = Vec::new();
        output.read(|line| lines.push(line.to_owned()));
        // Of a driver that has left, it is ours.
        if driver != OWN && self.by_client.contains_key(&driver) {
            for line in &lines {
                self.send_to(client, driver, |peer, _| peer.send(&Record::Printed { pid, is_error, line }));
            }
            return self.flush(client);
        }
        for line in lines {
            self.printed.push(Printed { pid, is_error, line });
        }
    }

    /// Lines that workers printed since this was last asked for; `bell` is rung when there are more.
    pub(crate) fn take_printed(&mut self, bell: &Arc<List>) -> Vec<Printed> {
        self.printed.take(bell)
    }

    // Links.

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

    // What clients hold.

    /// Asks all clients what they hold; `waiter` is told when the answers are in the cell.
    pub(crate) fn take_census(
        &mut self,
        client: &Arc<Client>,
        waiter: &Arc<Waiter>,
        limit: Duration,
    ) -> Arc<OnceLock<Value>> {
        let answers = Arc::new(OnceLock::new());
        self.begin_census(client, Asker::Here(waiter.clone(), answers.clone()), limit);
        self.flush(client);
        answers
    }

    fn begin_census(&mut self, client: &Arc<Client>, asker: Asker, limit: Duration) {
        let to: Vec<ClientId> = self.by_client.keys().copied().collect();
        let until = now_ms() + limit.as_millis() as u64;
        let (number, crowded) = self.censuses.ask(asker, until, to.iter().copied());
        for to in to {
            self.send_to(client, to, |peer, _| peer.send(&Record::Census { number }));
        }
        let mut ended = self.censuses.take_due(now_ms());
        ended.extend(crowded);
        self.end_censuses(client, ended);
    }

    fn end_censuses(&mut self, client: &Arc<Client>, ended: impl IntoIterator<Item = Ended<Asker, Value>>) {
        for Ended { asker, answers } in ended {
            let own = questions::holder(OWN, std::process::id(), false, Some(&crate::held::list()));
            let others = answers.into_iter().filter_map(|(id, held)| {
                let (pid, is_worker) = self.process_of(id)?;
                Some(questions::holder(id, pid, is_worker, held.as_ref()))
            });
            let rows: Value = std::iter::once(own).chain(others).collect();
            match asker {
                Asker::Here(waiter, answers) => {
                    let _ = answers.set(rows);
                    waiter.one_less(client);
                }
                Asker::Away(to, number) => {
                    let what = rows.to_string();
                    self.send_to(client, to, |peer, _| {
                        peer.send(&Record::Answer { number, what: what.as_bytes(), given: Results::new() })
                    });
                    self.flush(client);
                }
            }
        }
    }

    /// Somebody is about to sleep until something is there. If what runs is one thing for one worker, again and again, both had
    /// better be on one processor.
    pub(crate) fn near(&mut self, client: &Arc<Client>) -> Option<u32> {
        let alone = self.hub.only_runner().and_then(|runner| self.by_client.get(&runner).copied());
        let Some(index) = alone else {
            self.scatter(client);
            return None;
        };
        self.turns_taken += 1;
        if self.turns_taken < TURNS_TAKEN {
            return None;
        }
        if !self.habit.is_together() {
            self.part(client);
            return None;
        }
        let cpu = current_cpu();
        let peer = self.peers[index].as_mut()?;
        if peer.near != Some(cpu) {
            peer.near = Some(cpu);
            let to = peer.client?;
            if self.near.is_some_and(|other| other != index) {
                self.scatter(client);
            }
            self.near = Some(index);
            self.send_to(client, to, |peer, _| peer.send(&Record::Near { cpu: Some(cpu) }));
        }
        Some(cpu)
    }

    /// Things run side by side, or nobody waits: each where there is room.
    pub(crate) fn scatter(&mut self, client: &Arc<Client>) {
        self.turns_taken = 0;
        self.part(client);
    }

    /// How long somebody slept, in microseconds, and whether where we said.
    pub(crate) fn took(&mut self, together: bool, micros: f32) {
        if self.turns_taken >= TURNS_TAKEN {
            self.habit.took(together, micros);
        }
    }

    fn part(&mut self, client: &Arc<Client>) {
        let Some(index) = self.near.take() else { return };
        let Some(Some(peer)) = self.peers.get_mut(index) else { return };
        peer.near = None;
        if let Some(to) = peer.client {
            self.send_to(client, to, |peer, _| peer.send(&Record::Near { cpu: None }));
        }
    }

    /// How long nobody need look, if nothing comes.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let ending = self.processes.values().any(|process| process.unlinked.is_some());
        let due = [self.censuses.next_due(), self.grants.next_due()].into_iter().flatten().min();
        let due = due.map(|due| Duration::from_millis(due.saturating_sub(now_ms())));
        [ending.then_some(ENDING), due].into_iter().flatten().min()
    }

    fn accept(&mut self, client: &Arc<Client>) {
        // A peer that could not be accepted is its own affair.
        while let Ok(Some(link)) = self.listener.try_accept() {
            let turns = client.turns_of();
            let (outgoing, inward) = peer::halves(link, move || turns.nudge());
            let index = self.peers.iter().position(Option::is_none).unwrap_or(self.peers.len());
            let key = FIRST_PEER + index as u64;
            let descriptors = outgoing.descriptors().into_iter().chain(inward.descriptors());
            let added = descriptors.into_iter().try_for_each(|descriptor| client.turns().add(descriptor, key));
            if added.is_err() {
                continue;
            }
            let peer = Some(Peer {
                outgoing,
                inward: Some(inward),
                client: None,
                worker: None,
                pid: 0,
                near: None,
                dirty: false,
            });
            if index == self.peers.len() {
                self.peers.push(peer);
            } else {
                self.peers[index] = peer;
            }
            while self.receive(client, index) {}
            self.flush_peer(client, index);
        }
    }

    /// Reads what a client sent and does it. Whether there may be more.
    fn receive(&mut self, client: &Arc<Client>, index: usize) -> bool {
        let Some(Some(peer)) = self.peers.get_mut(index) else { return false };
        let Some(mut inward) = peer.inward.take() else { return false };
        let (from, outgoing) = (peer.client, &peer.outgoing);
        let mut wishes = Vec::new();
        let received = inward.receive(BATCH, |record, borrows| {
            if let Record::Loans(numbers) = record {
                outgoing.loans.returned(numbers);
                return Ok(());
            }
            wishes.push(wish(from, record, borrows)?);
            Ok(())
        });
        peer.inward = Some(inward);
        for wish in wishes {
            self.grant_wish(client, index, wish);
        }
        match received {
            Ok(more) => more,
            Err(_) => {
                self.unlink(client, index);
                false
            }
        }
    }

    fn grant_wish(&mut self, client: &Arc<Client>, index: usize, wish: Wish) {
        let from = self.peers[index].as_ref().and_then(|peer| peer.client);
        match (wish, from) {
            (Wish::Hello(who, pid), None) => self.welcome(client, index, who, pid),
            (Wish::Event(event), Some(_)) => self.step(client, event),
            (Wish::Function(id, definition), Some(_)) => self.define(id, definition),
            (Wish::Want(results), Some(from)) => {
                for result in results {
                    self.step(client, Event::Want { client: from, result });
                }
            }
            (Wish::Hold(results), Some(from)) => {
                for result in results {
                    self.hub.hold(from, result);
                }
            }
            (Wish::Grant(results), Some(_)) => self.grant(client, &results),
            (Wish::Holdings(number, what), Some(from)) => {
                if let Some(held) = questions::held(&what) {
                    let ended = self.censuses.answered(number, from, held);
                    self.end_censuses(client, ended);
                }
            }
            (Wish::Ask(number, what), Some(from)) if let Some(limit) = questions::census(&what) => {
                self.begin_census(client, Asker::Away(from, number), limit);
            }
            (Wish::Ask(number, what), Some(from)) => {
                let (answer, given) = self.answer(client, from, &what);
                self.send_to(client, from, |peer, _| {
                    peer.send(&Record::Answer { number, what: &answer, given: given.into() })
                });
            }
            // Who has not said hello, or says it again, makes no sense.
            _ => {}
        }
    }

    fn welcome(&mut self, client: &Arc<Client>, index: usize, who: Who, pid: u32) {
        let id = ClientId(self.next_client);
        if let Who::Worker(worker, secret) = who {
            let process = self.processes.get_mut(&worker);
            let Some(process) = process.filter(|process| process.secret == secret && process.client.is_none()) else {
                return self.unlink(client, index);
            };
            process.client = Some(id);
            process.pid = pid;
            if process.process.is_none() {
                process.process = i32::try_from(pid)
                    .ok()
                    .and_then(rustix::process::Pid::from_raw)
                    .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            }
        }
        self.next_client += 1;
        self.by_client.insert(id, index);
        let peer = self.peers[index].as_mut().expect("it said hello");
        (peer.client, peer.pid) = (Some(id), pid);
        peer.worker = if let Who::Worker(worker, _) = who { Some(worker) } else { None };
        let (store, about) = (self.store_url.clone(), self.about.clone());
        self.send_to(client, id, |peer, _| peer.send(&Record::Welcome { client: id, store: &store, about: &about }));
        match who {
            Who::Driver => {
                self.joined += 1;
                self.step(client, Event::DriverUp { client: id });
            }
            Who::Worker(worker, _) => {
                self.step(client, Event::WorkerUp { client: id, worker });
            }
        }
    }

    /// A link has ended.
    fn unlink(&mut self, client: &Arc<Client>, index: usize) {
        let Some(peer) = self.peers[index].take() else { return };
        for descriptor in peer.outgoing.descriptors() {
            client.turns().remove(descriptor);
        }
        for descriptor in peer.inward.iter().flat_map(Inward::descriptors) {
            client.turns().remove(descriptor);
        }
        peer.outgoing.close();
        let Some(gone) = peer.client else { return };
        self.by_client.remove(&gone);
        let ended = self.censuses.gone(gone);
        self.end_censuses(client, ended);
        match peer.worker {
            None => {
                self.joined -= 1;
                self.step(client, Event::ClientDown { client: gone, why: "its link ended".into() });
            }
            Some(worker) => {
                if let Some(process) = self.processes.get_mut(&worker) {
                    process.unlinked = Some(Instant::now());
                }
                self.bury(client, worker);
            }
        }
    }

    /// Moves on what was sent to clients.
    pub(crate) fn flush(&mut self, client: &Arc<Client>) {
        for index in std::mem::take(&mut self.dirty) {
            self.flush_peer(client, index);
        }
    }

    fn flush_peer(&mut self, client: &Arc<Client>, index: usize) {
        let Some(Some(peer)) = self.peers.get_mut(index) else { return };
        peer.dirty = false;
        if let Err(error) = peer.outgoing.flush() {
            self.condemn(client, index, &error);
        }
    }

    /// What the hub says to a question, and the results that go with that.
    pub(crate) fn answer(&mut self, client: &Arc<Client>, from: ClientId, what: &[u8]) -> (Vec<u8>, Vec<ResultId>) {
        questions::answer(self, client, from, what)
    }

    /// A client's process, and whether it is a worker.
    pub(crate) fn process_of(&self, client: ClientId) -> Option<(u32, bool)> {
        if client == OWN {
            return Some((std::process::id(), false));
        }
        let peer = self.peers[*self.by_client.get(&client)?].as_ref()?;
        Some((peer.pid, peer.worker.is_some()))
    }

    /// Each driver and its process: ours, and those that joined.
    pub(crate) fn drivers(&self) -> impl Iterator<Item = (ClientId, u32)> {
        let joined = self.peers.iter().flatten().filter(|peer| peer.worker.is_none());
        std::iter::once((OWN, std::process::id())).chain(joined.filter_map(|peer| Some((peer.client?, peer.pid))))
    }

    /// Each worker: its name, process, environment, whether it is there, what it has printed last.
    pub(crate) fn workers(&self) -> impl Iterator<Item = (WorkerId, u32, u64, Option<ClientId>)> {
        self.processes.iter().map(|(&id, process)| (id, process.pid, process.environment, process.client))
    }

    /// What an actor calls itself, as its worker told.
    pub(crate) fn set_title(&mut self, from: ClientId, title: String) {
        if let Some(process) = self.processes.values_mut().find(|process| process.client == Some(from)) {
            process.title = Some(title);
        }
    }

    /// What a worker's actor calls itself, if it told.
    pub(crate) fn title(&self, worker: WorkerId) -> Option<&str> {
        self.processes.get(&worker)?.title.as_deref()
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

impl Process {
    fn kill(&self) {
        if let Some(process) = &self.process {
            let _ = pidfd_send_signal(process.as_fd(), Signal::KILL);
        }
    }

    /// How it ended, for people.
    fn last_words(&mut self) -> String {
        let mut words = match self.status {
            Some(i32::MAX) => "it could not be started".to_owned(),
            Some(status @ ..0) => match Signal::from_named_raw(-status) {
                Some(signal) => format!("process {} was ended by signal {} ({signal:?})", self.pid, -status),
                None => format!("process {} was ended by signal {}", self.pid, -status),
            },
            Some(status) => format!("process {} exited with code {status}", self.pid),
            None => format!("process {} is gone", self.pid),
        };
        for (output, name) in self.output.iter().flatten().zip(["output", "error output"]) {
            let last = output.last_lines();
            if last.len() > 0 {
                words.push_str(&format!("\n  the last it printed to its standard {name}:\n"));
                for line in last {
                    words.push_str(&format!("    {line}\n"));
                }
            }
        }
        words
    }
}

/// Milliseconds of a clock that all processes of the host have, as of the kernel's last tick: a look costs next to nothing.
pub(crate) fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// What a record of a client's asks for.
fn wish(from: Option<ClientId>, record: &Record<'_>, borrows: &Borrows) -> Result<Wish, PeerError> {
    let client = from.unwrap_or(ClientId(u32::MAX));
    let event = match record {
        Record::Hello { who, pid } => return Ok(Wish::Hello(*who, *pid)),
        Record::Function { id, definition } => return Ok(Wish::Function(*id, Payload::read(definition, borrows)?)),
        Record::Hold(results) => return Ok(Wish::Hold(results.to_vec())),
        Record::Grant(results) => return Ok(Wish::Grant(results.to_vec())),
        Record::Ask { number, what } => return Ok(Wish::Ask(*number, what.to_vec())),
        Record::Holdings { number, what } => return Ok(Wish::Holdings(*number, what.to_vec())),
        Record::Submit { task, parent, work, resources, environment } => Event::Submit {
            client,
            want: false,
            task: dmrpc_hub::TaskSpec {
                id: *task,
                parent: *parent,
                work: peer::work(work, borrows)?,
                resources: resources.clone(),
                environment: *environment,
            },
        },
        Record::Create { actor, work, resources, environment, name, detached, unordered } => Event::Create {
            client,
            actor: dmrpc_hub::ActorSpec {
                id: *actor,
                work: peer::work(work, borrows)?,
                resources: resources.clone(),
                environment: *environment,
                name: name.clone(),
                detached: *detached,
                unordered: *unordered,
            },
        },
        Record::Call { task, actor, parent, work } => Event::Call {
            client,
            want: false,
            call: dmrpc_hub::CallSpec { id: *task, actor: *actor, parent: *parent, work: peer::work(work, borrows)? },
        },
        Record::Finished { task, outcomes, micros } => {
            let outcomes: Result<Vec<Outcome<Payload>>, _> =
                outcomes.iter().map(|came| peer::outcome(came, borrows)).collect();
            Event::Finished { client, task: *task, outcomes: outcomes?, micros: *micros }
        }
        Record::Yielded { result, outcome } => {
            Event::Yielded { client, result: *result, outcome: peer::outcome(outcome, borrows)? }
        }
        Record::Want(results) => return Ok(Wish::Want(results.to_vec())),
        Record::Release(results) => Event::Release { client, results: results.to_vec() },
        Record::Blocked => Event::Blocked { client },
        Record::Unblocked => Event::Unblocked { client },
        Record::Returned(tasks) => Event::Returned { client, tasks: tasks.to_vec() },
        Record::Cancel { task, force, recursive } => {
            Event::Cancel { task: *task, force: *force, recursive: *recursive }
        }
        Record::Kill { actor, restart } => Event::Kill { actor: *actor, restart: *restart },
        Record::Exits => Event::Exits { client },
        Record::Welcome { .. }
        | Record::Run { .. }
        | Record::Deliver { .. }
        | Record::Recall { .. }
        | Record::Interrupt { .. }
        | Record::Near { .. }
        | Record::Printed { .. }
        | Record::Exit
        | Record::Answer { .. }
        | Record::Census { .. }
        | Record::Loans(_) => return Err(dmrpc_hub::record::Malformed("not from a client").into()),
    };
    Ok(Wish::Event(event))
}
