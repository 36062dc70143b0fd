//! Seeded simulation: drivers, workers and actors that do whatever they may, at any time, and die at any time.
//!
//! After every event all counts are taken again from scratch. A seed that fails prints itself; `HUB_SEED=n` runs it alone.

use crate::*;
use dmrpc_test_random::Random;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

type Payload = u64;

#[derive(Default)]
struct Client {
    next: u32,
    /// Results it was given, and how often.
    holds: BTreeMap<ResultId, u32>,
    /// Results it asked for and was not given.
    wants: BTreeSet<ResultId>,
}

struct Process {
    worker: WorkerId,
    actor: Option<ActorId>,
    runs: VecDeque<(TaskId, u32)>,
    /// The first of `runs` was begun.
    begun: bool,
    blocked: bool,
    leaving: bool,
}

struct World {
    hub: Hub<Payload>,
    random: Random,
    clients: BTreeMap<ClientId, Client>,
    processes: BTreeMap<ClientId, Process>,
    starting: BTreeSet<WorkerId>,
    next_client: u32,
    /// How often each task may be begun, and was.
    chances: BTreeMap<TaskId, (u32, u32)>,
    running: BTreeSet<TaskId>,
    actors: Vec<ActorId>,
    tasks: Vec<TaskId>,
    /// The last call that was begun, by caller and actor; calls that may be repeated are left out.
    order: BTreeMap<(ClientId, ActorId), u32>,
    /// Actors whose calls may overtake each other.
    unordered: BTreeSet<ActorId>,
    calls: BTreeMap<TaskId, (ActorId, bool)>,
    done: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut options = HubOptions::cpus(1 + random.below(3) as u64);
        options.max_workers = 40;
        options.max_assigned = 1 + random.below(4);
        let mut world = Self {
            hub: Hub::new(options),
            random,
            clients: BTreeMap::new(),
            processes: BTreeMap::new(),
            starting: BTreeSet::new(),
            next_client: 0,
            chances: BTreeMap::new(),
            running: BTreeSet::new(),
            actors: Vec::new(),
            tasks: Vec::new(),
            order: BTreeMap::new(),
            unordered: BTreeSet::new(),
            calls: BTreeMap::new(),
            done: 0,
        };
        for _ in 0..1 + world.random.below(2) {
            let client = world.new_client();
            world.step(Event::DriverUp { client });
        }
        world
    }

    fn new_client(&mut self) -> ClientId {
        let client = ClientId(self.next_client);
        self.next_client += 1;
        self.clients.insert(client, Client::default());
        client
    }

    fn step(&mut self, event: Event<Payload>) {
        let mut actions = Vec::new();
        self.hub.step(0, event, &mut actions);
        for action in actions {
            self.act(action);
        }
        self.hub.recount();
    }

    fn gave(&mut self, client: ClientId, results: impl IntoIterator<Item = ResultId>) {
        if let Some(client) = self.clients.get_mut(&client) {
            for result in results {
                *client.holds.entry(result).or_default() += 1;
            }
        }
    }

    fn act(&mut self, action: Action<Payload>) {
        match action {
            Action::Start { worker, .. } => {
                assert!(self.starting.insert(worker));
            }
            Action::Stop { worker } => {
                if self.starting.contains(&worker) {
                    return;
                }
                if let Some(process) = self.processes.values_mut().find(|process| process.worker == worker) {
                    process.leaving = true;
                }
            }
            Action::Run { client, task, actor, create, values, returns, .. } => {
                assert!(values.iter().all(|&value| value == 7));
                let process = self.processes.get_mut(&client).expect("a worker that is there");
                assert!(create || actor == process.actor || process.actor.is_none() && actor.is_none());
                if create {
                    process.actor = actor;
                }
                assert!(!process.runs.iter().any(|(other, _)| *other == task), "{task:?} twice");
                process.runs.push_back((task, returns));
                // What it was given is whatever the hub says it holds: see `held`.
            }
            Action::Recall { client, most } => {
                let Some(process) = self.processes.get_mut(&client) else { return };
                let begun = usize::from(process.begun);
                let keep = process.runs.len().saturating_sub(most as usize).max(begun);
                let tasks = process.runs.split_off(keep).into_iter().map(|(task, _)| task).collect();
                self.step(Event::Returned { client, tasks });
            }
            Action::Interrupt { client, task } => {
                let Some(process) = self.processes.get_mut(&client) else { return };
                let Some(place) = process.runs.iter().position(|(other, _)| *other == task) else { return };
                let begun = place == 0 && process.begun;
                if begun && !self.random.one_in(2) {
                    return;
                }
                process.runs.remove(place);
                if begun {
                    process.begun = false;
                    self.running.remove(&task);
                    if std::mem::take(&mut process.blocked) {
                        self.step(Event::Unblocked { client });
                    }
                }
                let outcomes = vec![Outcome::failed(Failure::Raised(1))];
                self.step(Event::Finished { client, task, outcomes, micros: 10 });
            }
            Action::Exit { client } => {
                if let Some(process) = self.processes.get_mut(&client) {
                    process.leaving = true;
                }
            }
            Action::Deliver { client, result, outcome } => {
                assert!(outcome.value.is_ok() || outcome.contains.is_empty());
                if let Some(client) = self.clients.get_mut(&client) {
                    assert!(client.wants.remove(&result), "{result:?} was not asked for");
                }
                self.done += 1;
            }
        }
    }

    /// What a client holds, as the hub has it: it was given these in arguments and values.
    fn held(&self, client: ClientId) -> Vec<ResultId> {
        self.hub.holds_of(client)
    }

    fn some_results(&mut self, client: ClientId, most: usize) -> Vec<ResultId> {
        let held = self.held(client);
        let count = self.random.below(most + 1);
        (0..count).filter_map(|_| self.random.pick(&held)).collect()
    }

    fn work(&mut self, client: ClientId, returns: u32) -> Work<Payload> {
        let mut needs = self.some_results(client, 2);
        // A task that waits for one that needs what only it can give waits for ever: those made by tasks need what is there.
        let within = self.processes.contains_key(&client);
        needs.retain(|need| need.actor().is_none() && (!within || self.hub.outcome(*need).is_some()));
        Work {
            function: FunctionId(self.random.below(3) as u128),
            payload: 3,
            needs,
            contains: self.some_results(client, 2),
            returns,
            retries: self.random.below(3) as u32,
            retry_raised: self.random.one_in(4),
        }
    }

    fn new_task(&mut self, client: ClientId) -> TaskId {
        let numbers = &mut self.clients.get_mut(&client).expect("there").next;
        *numbers += 1;
        TaskId { client, number: *numbers }
    }

    /// Submits a task, an actor or a call; gives a result to wait for.
    fn submit(&mut self, client: ClientId, parent: Option<TaskId>) -> Option<ResultId> {
        let id = self.new_task(client);
        let returns = self.random.below(3) as u32;
        let work = self.work(client, returns);
        let promised: Vec<ResultId> = (0..returns).map(|index| id.result(index)).collect();
        match self.random.below(6) {
            0 => {
                let detached = self.random.one_in(8);
                let unordered = self.random.one_in(3);
                let name = self.random.one_in(3).then(|| ("n".to_owned(), self.random.below(3).to_string()));
                let resources = Resources::cpu(if self.random.one_in(4) { ONE_CPU } else { 0 });
                if unordered {
                    self.unordered.insert(ActorId(id));
                }
                let actor = ActorSpec { id: ActorId(id), work, resources, environment: 0, name, detached, unordered };
                self.gave(client, [ActorId(id).handle()]);
                self.actors.push(ActorId(id));
                self.step(Event::Create { client, actor });
                return None;
            }
            1 | 2 => {
                let handles: Vec<ActorId> = self.held(client).iter().filter_map(|held| held.actor()).collect();
                let actor = self.random.pick(&handles)?;
                self.chances.insert(id, (1 + work.retries, 0));
                self.calls.insert(id, (actor, work.retries > 0));
                self.gave(client, promised.iter().copied());
                self.step(Event::Call { client, call: CallSpec { id, actor, parent, work }, want: false });
                // Two actors that wait for each other wait for ever.
                return None;
            }
            _ => {
                self.chances.insert(id, (1 + work.retries, 0));
                self.gave(client, promised.iter().copied());
                let cpu = [0, ONE_CPU / 2, ONE_CPU, ONE_CPU][self.random.below(4)];
                let environment = if self.random.one_in(6) { 1 } else { 0 };
                let task = TaskSpec { id, parent, work, resources: Resources::cpu(cpu), environment };
                self.tasks.push(id);
                self.step(Event::Submit { client, task, want: false });
            }
        }
        self.random.pick(&promised)
    }

    fn want(&mut self, client: ClientId, result: ResultId) {
        if self.clients.get_mut(&client).expect("there").wants.insert(result) {
            self.step(Event::Want { client, result });
        }
    }

    fn release_some(&mut self, client: ClientId, all: bool) {
        let held = self.held(client);
        let wants = self.clients[&client].wants.clone();
        let mut results = Vec::new();
        for result in held.into_iter().filter(|result| !wants.contains(result)) {
            if all {
                results.push((result, u32::MAX));
            } else if self.random.one_in(3) {
                results.push((result, 1 + self.random.below(2) as u32));
            }
        }
        self.step(Event::Release { client, results });
    }

    fn begin(&mut self, client: ClientId) {
        let process = self.processes.get_mut(&client).expect("there");
        let Some(&(task, _)) = process.runs.front() else { return };
        process.begun = true;
        assert!(self.running.insert(task), "{task:?} runs twice at a time");
        if let Some((chances, begun)) = self.chances.get_mut(&task) {
            *begun += 1;
            assert!(*begun <= *chances, "{task:?} was begun {begun} times");
        }
        if let Some(&(actor, false)) = self.calls.get(&task)
            && !self.unordered.contains(&actor)
        {
            let last = self.order.entry((task.client, actor)).or_default();
            assert!(*last < task.number, "{task:?} overtook call {last}");
            *last = task.number;
        }
    }

    fn finish(&mut self, client: ClientId) {
        let process = self.processes.get_mut(&client).expect("there");
        let (task, returns) = process.runs.pop_front().expect("begun");
        process.begun = false;
        self.running.remove(&task);
        if std::mem::take(&mut process.blocked) {
            self.step(Event::Unblocked { client });
        }
        let outcomes = if self.random.one_in(6) {
            vec![Outcome::failed(Failure::Raised(1))]
        } else {
            let wrong = u32::from(self.random.one_in(30));
            (0..returns + wrong)
                .map(|_| {
                    // Of values that contain each other neither would ever go: only what is there is put into others.
                    let mut contains = self.some_results(client, 1);
                    contains.retain(|id| id.actor().is_some() || self.hub.outcome(*id).is_some());
                    Outcome { value: Ok(7), contains }
                })
                .collect()
        };
        let micros = [5, 200, 5000][self.random.below(3)];
        self.step(Event::Finished { client, task, outcomes, micros });
    }

    fn die(&mut self, client: ClientId) {
        if let Some(Process { begun: true, runs, .. }) = self.processes.remove(&client) {
            self.running.remove(&runs[0].0);
        }
        self.clients.remove(&client);
        self.step(Event::ClientDown { client, why: "killed".into() });
    }

    fn worker_turn(&mut self, client: ClientId, calm: bool) {
        let process = &self.processes[&client];
        if !calm && self.random.one_in(40) {
            return self.die(client);
        }
        if process.leaving && (process.runs.is_empty() || self.random.one_in(3)) {
            return self.die(client);
        }
        if !process.begun {
            return self.begin(client);
        }
        if process.blocked {
            // It goes on when it has all that it wanted.
            if self.clients[&client].wants.is_empty() {
                self.processes.get_mut(&client).expect("there").blocked = false;
                self.step(Event::Unblocked { client });
            }
            return;
        }
        let parent = process.runs.front().map(|(task, _)| *task);
        match self.random.below(8) {
            0 if !calm => {
                if let Some(result) = self.submit(client, parent)
                    && self.processes.contains_key(&client)
                {
                    self.want(client, result);
                    if self.processes.get(&client).is_some_and(|process| process.begun) {
                        self.processes.get_mut(&client).expect("there").blocked = true;
                        self.step(Event::Blocked { client });
                    }
                }
            }
            1 => self.release_some(client, false),
            2 if !calm => {
                if self.processes[&client].actor.is_some() && self.random.one_in(10) {
                    self.processes.get_mut(&client).expect("there").leaving = true;
                    self.step(Event::Exits { client });
                }
            }
            _ => self.finish(client),
        }
    }

    fn turn(&mut self, calm: bool) {
        if let Some(worker) = self.random.pick(&self.starting.iter().copied().collect::<Vec<_>>())
            && self.random.one_in(2)
        {
            self.starting.remove(&worker);
            if !calm && self.random.one_in(10) {
                return self.step(Event::WorkerFailed { worker, why: "no".into() });
            }
            let client = self.new_client();
            let process =
                Process { worker, actor: None, runs: VecDeque::new(), begun: false, blocked: false, leaving: false };
            self.processes.insert(client, process);
            return self.step(Event::WorkerUp { client, worker });
        }
        let clients: Vec<ClientId> = self.clients.keys().copied().collect();
        let Some(client) = self.random.pick(&clients) else { return };
        if self.processes.contains_key(&client) {
            return self.worker_turn(client, calm);
        }
        match self.random.below(12) {
            _ if calm => {}
            0 => self.release_some(client, false),
            1 => {
                if let Some(result) = self.random.pick(&self.held(client)).filter(|held| held.actor().is_none()) {
                    self.want(client, result);
                }
            }
            2 if self.random.one_in(4) => {
                if let Some(task) = self.random.pick(&self.tasks.clone()) {
                    let (force, recursive) = (self.random.one_in(3), self.random.one_in(2));
                    self.step(Event::Cancel { task, force, recursive });
                }
            }
            3 if self.random.one_in(4) => {
                if let Some(actor) = self.random.pick(&self.actors.clone()) {
                    let restart = self.random.one_in(2);
                    self.step(Event::Kill { actor, restart });
                }
            }
            _ => drop(self.submit(client, None)),
        }
    }

    fn run(&mut self) {
        let turns = 50 + self.random.below(400);
        for _ in 0..turns {
            self.turn(false);
        }
        // From now on nobody dies and nothing new is wanted: everything ends.
        let detached: Vec<ActorId> = self.actors.clone();
        for actor in detached {
            self.step(Event::Kill { actor, restart: false });
        }
        for turn in 0.. {
            assert!(turn < 100_000, "not done: {}", self.hub.describe());
            let waiting = self.clients.values().any(|client| !client.wants.is_empty());
            if self.hub.totals().tasks == 0 && !waiting && self.starting.is_empty() {
                break;
            }
            self.turn(true);
        }
        for client in self.clients.keys().copied().collect::<Vec<_>>() {
            self.release_some(client, true);
        }
        for turn in 0.. {
            assert!(turn < 100_000, "not gone: {}", self.hub.describe());
            let totals = self.hub.totals();
            if totals.results == 0 && totals.actors == 0 && totals.tasks == 0 {
                break;
            }
            self.turn(true);
            for client in self.clients.keys().copied().collect::<Vec<_>>() {
                self.release_some(client, true);
            }
        }
        for client in self.processes.keys().copied().collect::<Vec<_>>() {
            self.die(client);
        }
        let total = self.hub.total().clone();
        assert_eq!(self.hub.totals().available, total, "something is occupied by nobody");
    }
}

#[test]
fn everything_ends_and_nothing_is_left() {
    let run = |seed| World::new(seed).run();
    if let Ok(seed) = std::env::var("HUB_SEED") {
        return run(seed.parse().expect("HUB_SEED is a number"));
    }
    for seed in 0..1500 {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "failed with HUB_SEED={seed}");
    }
}
