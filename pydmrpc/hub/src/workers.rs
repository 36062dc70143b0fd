//! Processes that run tasks and actors, and the queues that they serve.

use crate::id::{ActorId, ClientId, FunctionId, TaskId, WorkerId};
use crate::resources::Resources;
use crate::tasks::ShapeKey;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, VecDeque};

/// A worker is given as many tasks ahead as it finishes within this time.
const AHEAD_MICROS: u32 = 1_000;
/// Never more than so many.
const MAX_AHEAD: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Not there yet.
    Starting,
    Idle,
    /// Serves a queue.
    Leased(ShapeKey),
    Actor(ActorId),
    /// Is about to end.
    Ending,
}

pub(crate) struct Worker {
    pub(crate) client: Option<ClientId>,
    pub(crate) environment: u64,
    pub(crate) role: Role,
    /// What it has to run, in order; the first is running. An actor may run several at once.
    pub(crate) assigned: VecDeque<TaskId>,
    /// How many of its threads wait for results.
    pub(crate) blocked: u32,
    /// What it occupies while it is not blocked.
    pub(crate) occupies: Resources,
    /// It was asked to give tasks back and has not answered.
    pub(crate) recalled: bool,
    /// The function that it was given last, or its actor's class.
    pub(crate) runs: Option<FunctionId>,
}

#[derive(Default)]
pub(crate) struct Workers {
    /// Ordered, so that the hub does the same in each run.
    table: BTreeMap<WorkerId, Worker>,
    by_client: FxHashMap<ClientId, WorkerId>,
    /// Those without work, by environment; the one that worked last is asked first, since its caches are warm.
    idle: BTreeMap<u64, Vec<WorkerId>>,
    next: u32,
}

impl Workers {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn start(&mut self, environment: u64) -> WorkerId {
        self.next += 1;
        let id = WorkerId(self.next);
        let worker = Worker {
            client: None,
            environment,
            role: Role::Starting,
            assigned: VecDeque::new(),
            blocked: 0,
            occupies: Resources::default(),
            recalled: false,
            runs: None,
        };
        self.table.insert(id, worker);
        id
    }

    pub(crate) fn up(&mut self, id: WorkerId, client: ClientId) -> bool {
        match self.table.get_mut(&id) {
            Some(worker) if worker.client.is_none() => {
                worker.client = Some(client);
                self.by_client.insert(client, id);
                true
            }
            _ => false,
        }
    }

    pub(crate) fn of(&self, client: ClientId) -> Option<WorkerId> {
        self.by_client.get(&client).copied()
    }

    pub(crate) fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.table.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.table.get_mut(&id)
    }

    pub(crate) fn remove(&mut self, id: WorkerId) -> Option<Worker> {
        let worker = self.table.remove(&id)?;
        if let Some(client) = worker.client {
            self.by_client.remove(&client);
        }
        if let Some(idle) = self.idle.get_mut(&worker.environment) {
            idle.retain(|&other| other != id);
        }
        Some(worker)
    }

    pub(crate) fn set_idle(&mut self, id: WorkerId) {
        let worker = self.table.get_mut(&id).expect("the caller has it");
        worker.role = Role::Idle;
        self.idle.entry(worker.environment).or_default().push(id);
    }

    pub(crate) fn idle_of(&self, environment: u64) -> usize {
        self.idle.get(&environment).map_or(0, Vec::len)
    }

    pub(crate) fn take_idle(&mut self, environment: u64) -> Option<WorkerId> {
        self.idle.get_mut(&environment)?.pop()
    }

    /// Some idle worker of another environment, to make room for one of this.
    pub(crate) fn take_idle_but(&mut self, environment: u64) -> Option<WorkerId> {
        self.idle.iter_mut().filter(|(other, _)| **other != environment).find_map(|(_, idle)| idle.pop())
    }

    pub(crate) fn starting_of(&self, environment: u64) -> usize {
        self.table.values().filter(|worker| worker.role == Role::Starting && worker.environment == environment).count()
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.table.iter().map(|(&id, worker)| (id, worker))
    }
}

/// Tasks that can share a worker's lease: they occupy the same, in the same environment.
pub(crate) struct Shape {
    pub(crate) resources: Resources,
    pub(crate) environment: u64,
    pub(crate) ready: VecDeque<TaskId>,
    /// Workers that serve the queue.
    pub(crate) leased: Vec<WorkerId>,
}

/// The queues of ready tasks.
#[derive(Default)]
pub(crate) struct Shapes {
    shapes: Vec<Shape>,
    by_need: FxHashMap<(Resources, u64), ShapeKey>,
    /// How long each function ran of late, in microseconds.
    durations: FxHashMap<FunctionId, u32>,
}

impl Shapes {
    pub(crate) fn key(&mut self, resources: &Resources, environment: u64) -> ShapeKey {
        if let Some(&key) = self.by_need.get(&(resources.clone(), environment)) {
            return key;
        }
        let key = ShapeKey(u32::try_from(self.shapes.len()).expect("programs have few kinds of tasks"));
        let (ready, leased) = (VecDeque::new(), Vec::new());
        self.shapes.push(Shape { resources: resources.clone(), environment, ready, leased });
        self.by_need.insert((resources.clone(), environment), key);
        key
    }

    pub(crate) fn get(&self, key: ShapeKey) -> &Shape {
        &self.shapes[key.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, key: ShapeKey) -> &mut Shape {
        &mut self.shapes[key.0 as usize]
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = ShapeKey> + use<> {
        (0..self.shapes.len() as u32).map(ShapeKey)
    }

    /// A function ran for so long.
    pub(crate) fn ran(&mut self, function: FunctionId, micros: u32) {
        let mean = self.durations.entry(function).or_insert(micros);
        *mean = ((u64::from(*mean) * 7 + u64::from(micros)) / 8) as u32;
    }

    /// How many tasks of a function a worker may have at once: the one that it runs, and those ahead.
    pub(crate) fn depth(&self, function: FunctionId) -> usize {
        let ahead = self.durations.get(&function).map_or(1, |&micros| (AHEAD_MICROS / micros.max(1)) as usize);
        1 + ahead.clamp(1, MAX_AHEAD)
    }
}
