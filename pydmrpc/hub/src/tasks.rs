//! What is to be run, and where it stands.

use crate::event::Work;
use crate::id::{ActorId, ClientId, TaskId, WorkerId};
use crate::numbered::ByTask;

/// Which queue of ready tasks: an index of [`Shapes`](crate::workers::Shapes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ShapeKey(pub(crate) u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Runs on any worker that fits.
    Task(ShapeKey),
    /// Makes an actor.
    Make(ActorId),
    /// Runs on an actor's worker.
    Call(ActorId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// So many of its needs are not there.
    Waiting(u32),
    /// Ready, and in a queue.
    Queued,
    /// A worker has it.
    Assigned(WorkerId),
}

pub(crate) struct Task<P> {
    pub(crate) kind: Kind,
    pub(crate) work: Work<P>,
    pub(crate) client: ClientId,
    pub(crate) stage: Stage,
    pub(crate) retries: u32,
    pub(crate) cancelled: bool,
    /// It was cancelled before it began, so it has no value whatever its worker says.
    pub(crate) refused: bool,
    /// Tasks that it made, those that are not done among them.
    pub(crate) children: Vec<TaskId>,
    /// How many of these are done.
    pub(crate) done_children: usize,
    pub(crate) parent: Option<TaskId>,
    /// How long it ran, in microseconds.
    pub(crate) micros: u32,
}

pub(crate) struct Tasks<P> {
    table: ByTask<Task<P>>,
}

impl<P> Tasks<P> {
    pub(crate) fn new() -> Self {
        Self { table: ByTask::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn contains(&self, id: TaskId) -> bool {
        self.table.contains(id)
    }

    pub(crate) fn get(&self, id: TaskId) -> Option<&Task<P>> {
        self.table.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: TaskId) -> Option<&mut Task<P>> {
        self.table.get_mut(id)
    }

    pub(crate) fn insert(&mut self, id: TaskId, task: Task<P>) {
        if let Some(parent) = task.parent.and_then(|parent| self.table.get_mut(parent)) {
            parent.children.push(id);
        }
        self.table.insert(id, task);
    }

    pub(crate) fn remove(&mut self, id: TaskId) -> Option<Task<P>> {
        let task = self.table.remove(id)?;
        if let Some(parent) = task.parent
            && let Some(entry) = self.table.get_mut(parent)
        {
            entry.done_children += 1;
            // Those that are done are dropped when they are the most, so that a task may make any number of others.
            if entry.done_children * 2 > entry.children.len() {
                entry.done_children = 0;
                let mut children = std::mem::take(&mut entry.children);
                children.retain(|&child| self.table.contains(child));
                self.table.get_mut(parent).expect("it was there").children = children;
            }
        }
        Some(task)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TaskId, &Task<P>)> {
        self.table.iter()
    }
}
