//! The events, and what they do.

mod actors;
mod answers;
mod clients;
mod dispatch;
mod tasks;

use crate::actors::Actors;
use crate::event::{Action, Event, Now, Outcome};
use crate::history::History;
use crate::id::{ActorId, ClientId, FunctionId, ResultId, TaskId};
use crate::resources::{ONE_CPU, Resources};
use crate::results::Results;
use crate::streams::Streams;
use crate::tasks::{Stage, Tasks};
use crate::workers::{Shapes, Workers};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// So many workers in a row that end before they are there, and what waits for one fails.
const MAX_FAILED_STARTS: u32 = 4;

/// What a hub has to give.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// What tasks and actors may occupy together.
    pub total: Resources,
    /// Workers at the same time, those that are blocked included.
    pub max_workers: usize,
    /// Workers that are kept although there is nothing to do.
    pub idle_workers: usize,
    /// Tasks and calls that are not done.
    pub max_tasks: usize,
    /// Calls that the worker of an actor is given at a time; others wait here.
    pub max_assigned: usize,
}

impl HubOptions {
    /// For so many processors.
    pub fn cpus(cpus: u64) -> Self {
        Self {
            total: Resources::cpu(cpus * ONE_CPU),
            max_workers: 1000,
            idle_workers: cpus as usize,
            max_tasks: 10_000_000,
            max_assigned: 10_000,
        }
    }
}

/// How much there is of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Tasks and calls that are not done.
    pub tasks: usize,
    /// Results that somebody keeps, actors' handles included.
    pub results: usize,
    /// Actors, dead ones included whose handles are still about.
    pub actors: usize,
    /// Workers.
    pub workers: usize,
    /// What is free.
    pub available: Resources,
}

/// The tasks, actors, results and workers of Python programs.
pub struct Hub<P> {
    pub(crate) options: HubOptions,
    pub(crate) tasks: Tasks<P>,
    pub(crate) results: Results<P>,
    pub(crate) streams: Streams<P>,
    pub(crate) history: History,
    now: Now,
    pub(crate) actors: Actors<P>,
    pub(crate) workers: Workers,
    pub(crate) shapes: Shapes,
    /// Actors that are ready to be made.
    makers: VecDeque<TaskId>,
    drivers: BTreeSet<ClientId>,
    pub(crate) available: Resources,
    /// What is occupied beyond the total, by what was blocked and went on.
    pub(crate) debt: Resources,
    /// Which queue is served first.
    turn: u32,
    /// Workers in a row that ended before they were there, by environment.
    failed_starts: BTreeMap<u64, u32>,
    /// Something became ready to run, or room to run it.
    restless: bool,
    out: Vec<Action<P>>,
}

impl<P: Clone> Hub<P> {
    /// A hub without anybody.
    pub fn new(options: HubOptions) -> Self {
        Self {
            available: options.total.clone(),
            options,
            tasks: Tasks::new(),
            results: Results::new(),
            streams: Streams::new(),
            history: History::default(),
            now: 0,
            actors: Actors::new(),
            workers: Workers::default(),
            shapes: Shapes::default(),
            makers: VecDeque::new(),
            drivers: BTreeSet::new(),
            debt: Resources::default(),
            turn: 0,
            failed_starts: BTreeMap::new(),
            restless: false,
            out: Vec::new(),
        }
    }

    /// Something happened; what is to be done is appended to `out`, in order.
    pub fn step(&mut self, now: Now, event: Event<P>, out: &mut Vec<Action<P>>) {
        self.now = now;
        // What was to be done between two steps comes first.
        out.append(&mut self.out);
        std::mem::swap(&mut self.out, out);
        // What these say changes nothing about who may run; what they lead to says so itself.
        self.restless |= !matches!(
            event,
            Event::Call { .. }
                | Event::Submit { .. }
                | Event::Finished { .. }
                | Event::Want { .. }
                | Event::Release { .. }
                | Event::Yielded { .. }
        );
        match event {
            Event::DriverUp { client } => {
                self.drivers.insert(client);
            }
            Event::WorkerUp { client, worker } => self.worker_up(client, worker),
            Event::WorkerFailed { worker, why } => self.worker_failed(worker, &why),
            Event::ClientDown { client, why } => self.client_down(client, &why),
            Event::Submit { client, task, want } => self.submit(client, task, want),
            Event::Create { client, actor } => self.create(client, actor),
            Event::Call { client, call, want } => self.call(client, call, want),
            Event::Finished { client, task, outcomes, micros } => self.finished(client, task, outcomes, micros),
            Event::Yielded { client, result, outcome } => self.yielded(client, result, outcome),
            Event::Returned { client, tasks } => self.returned(client, &tasks),
            Event::Blocked { client } => self.blocked(client),
            Event::Unblocked { client } => self.unblocked(client),
            Event::Want { client, result } => self.want(client, result),
            Event::Release { client, results } => {
                for (result, count) in results {
                    self.results.release(client, result, count);
                }
            }
            Event::Cancel { task, force, recursive } => self.cancel(task, force, recursive),
            Event::Kill { actor, restart } => self.kill(actor, restart),
            Event::Exits { client } => self.exits(client),
            Event::Tick => {}
        }
        while let Some(actor) = self.results.pop_abandoned() {
            self.leave_if_unreachable(actor);
        }
        while let Some(task) = self.results.pop_dropped() {
            self.drop_stream(task);
        }
        if std::mem::take(&mut self.restless) {
            self.dispatch();
        }
        std::mem::swap(&mut self.out, out);
    }

    /// The value of a result, if it is there.
    pub fn outcome(&self, result: ResultId) -> Option<&Outcome<P>> {
        self.results.outcome(result)
    }

    /// Whether anybody keeps the result.
    pub fn is_kept(&self, result: ResultId) -> bool {
        self.results.is_kept(result)
    }

    /// A client takes one more hold of a result that it can name because somebody gave it the name. `false` if it is gone.
    ///
    /// The next value of a task whose values come one by one is promised by that.
    pub fn hold(&mut self, client: ClientId, result: ResultId) -> bool {
        if result.index != 0 && result.actor().is_none() && self.streams.get_mut(result.task).is_some() {
            return self.expect(client, result);
        }
        self.results.hold(client, result)
    }

    /// A client takes a handle of an actor that lives on although nobody has one. `false` if it does not live.
    pub fn revive(&mut self, client: ClientId, actor: ActorId) -> bool {
        let lives = self.actors.get(actor).is_some_and(|entry| entry.failure(actor).is_none());
        lives && self.results.promise(client, actor.handle(), false)
    }

    /// What there is to give.
    pub fn total(&self) -> &Resources {
        &self.options.total
    }

    /// The living actor of this namespace and name.
    pub fn named(&self, namespace: &str, name: &str) -> Option<ActorId> {
        self.actors.named(namespace, name)
    }

    /// Namespaces and names of all living actors that have one.
    pub fn names(&self) -> impl Iterator<Item = (&(String, String), ActorId)> {
        self.actors.names()
    }

    /// The class of an actor.
    pub fn class(&self, actor: ActorId) -> Option<FunctionId> {
        Some(self.actors.get(actor)?.work.function)
    }

    /// The worker that runs something, if nothing else is to be run or runs.
    pub fn only_runner(&self) -> Option<ClientId> {
        if self.tasks.len() != 1 {
            return None;
        }
        let (_, task) = self.tasks.iter().next()?;
        let Stage::Assigned(worker) = task.stage else { return None };
        self.workers.get(worker)?.client
    }

    /// How much there is of everything.
    pub fn totals(&self) -> Totals {
        Totals {
            tasks: self.tasks.len(),
            results: self.results.len(),
            actors: self.actors.len(),
            workers: self.workers.len(),
            available: self.available.clone(),
        }
    }
}

/// One try less, unless there is no end to them.
fn less(tries: u32) -> u32 {
    if tries == u32::MAX { tries } else { tries.saturating_sub(1) }
}
