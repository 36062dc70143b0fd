//! What there is and what there was, for people to look at.

use crate::event::{Failure, Now};
use crate::hub::Hub;
use crate::id::{ActorId, ClientId, FunctionId, ResultId, TaskId, WorkerId};
use crate::resources::Resources;
use crate::tasks::{Kind, Stage, Task};
use std::collections::VecDeque;

/// Tasks that have ended, of which the latest are remembered.
const MAX_ENDED: usize = 10_000;

/// A task, an actor's call, or the making of an actor.
#[derive(Clone, Debug)]
pub struct TaskRow {
    /// Its name.
    pub id: TaskId,
    /// The task that made it.
    pub parent: Option<TaskId>,
    /// What it runs.
    pub function: FunctionId,
    /// The actor that it calls or makes.
    pub actor: Option<ActorId>,
    /// Whether it makes that actor.
    pub makes: bool,
    /// Where it stands.
    pub state: &'static str,
    /// The worker that has it, or had it.
    pub worker: Option<WorkerId>,
    /// When it ended, if it has.
    pub ended: Option<Now>,
    /// How long it ran, in microseconds.
    pub micros: u32,
}

/// An actor.
#[derive(Clone, Debug)]
pub struct ActorRow {
    /// Its name.
    pub id: ActorId,
    /// Its class.
    pub class: FunctionId,
    /// Namespace and name that it is found by.
    pub name: Option<(String, String)>,
    /// Where it stands.
    pub state: &'static str,
    /// Why it is dead.
    pub why: Option<String>,
    /// Its worker.
    pub worker: Option<WorkerId>,
    /// Whether it stays without handles.
    pub detached: bool,
    /// How often it was made again.
    pub restarts: u32,
    /// What it occupies.
    pub resources: Resources,
}

/// The latest tasks that have ended.
#[derive(Debug, Default)]
pub(crate) struct History(VecDeque<TaskRow>);

impl History {
    pub(crate) fn add<P>(&mut self, now: Now, id: TaskId, task: &Task<P>, failed: Option<&Failure<P>>) {
        if self.0.len() >= MAX_ENDED {
            self.0.pop_front();
        }
        let state = if failed.is_some() { "FAILED" } else { "FINISHED" };
        self.0.push_back(TaskRow { state, ended: Some(now), ..row(id, task) });
    }
}

fn row<P>(id: TaskId, task: &Task<P>) -> TaskRow {
    let (state, worker) = match task.stage {
        Stage::Waiting(_) => ("PENDING_ARGS_AVAIL", None),
        Stage::Queued => ("PENDING_NODE_ASSIGNMENT", None),
        Stage::Assigned(worker) => ("RUNNING", Some(worker)),
    };
    let actor = match task.kind {
        Kind::Task(_) => None,
        Kind::Make(actor) | Kind::Call(actor) => Some(actor),
    };
    TaskRow {
        id,
        parent: task.parent,
        function: task.work.function,
        actor,
        makes: matches!(task.kind, Kind::Make(_)),
        state,
        worker,
        ended: None,
        micros: task.micros,
    }
}

impl<P: Clone> Hub<P> {
    /// Tasks that are not done, and the latest of those that are.
    pub fn task_rows(&self) -> impl Iterator<Item = TaskRow> {
        let living = self.tasks.iter().map(|(id, task)| row(id, task));
        self.history.0.iter().cloned().chain(living)
    }

    /// A task that is not done.
    pub fn task_row(&self, id: TaskId) -> Option<TaskRow> {
        self.tasks.get(id).map(|task| row(id, task))
    }

    /// What a task occupies, or its actor.
    pub fn resources_of(&self, id: TaskId) -> Option<&Resources> {
        match self.tasks.get(id)?.kind {
            Kind::Task(shape) => Some(&self.shapes.get(shape).resources),
            Kind::Make(actor) | Kind::Call(actor) => Some(&self.actors.get(actor)?.resources),
        }
    }

    /// Actors that somebody has a handle of, or that live.
    pub fn actor_rows(&self) -> impl Iterator<Item = ActorRow> {
        self.actors.all().map(|(&id, actor)| {
            let (state, why) = actor.state();
            ActorRow {
                id,
                class: actor.work.function,
                name: actor.name.clone(),
                state,
                why,
                worker: actor.worker(),
                detached: actor.detached,
                restarts: actor.lives,
                resources: actor.resources.clone(),
            }
        })
    }

    /// What a worker was given last: a function, or its actor's class.
    pub fn runs_of(&self, worker: WorkerId) -> Option<FunctionId> {
        self.workers.get(worker)?.runs
    }

    /// Results: each with the value if it is there, and which clients hold it.
    pub fn result_rows(&self) -> impl Iterator<Item = (ResultId, Option<&P>, Vec<ClientId>)> {
        self.results.rows()
    }

    /// More of named resources than before, or less; what is taken away beyond what is free is owed.
    pub fn change_resources(&mut self, name: &str, more: i64) {
        let change = |amount: u64| Resources { other: [(name.to_owned(), amount)].into(), ..Resources::default() };
        let total = self.options.total.other.entry(name.to_owned()).or_default();
        *total = total.saturating_add_signed(more);
        if *total == 0 {
            self.options.total.other.remove(name);
        }
        match u64::try_from(more) {
            Ok(more) => self.available.give(&change(more), &mut self.debt),
            Err(_) => self.available.take(&change(more.unsigned_abs()), &mut self.debt),
        }
    }
}
