//! Names of clients, workers, tasks, actors and results.

use std::fmt;
use std::hash::{Hash, Hasher};

/// A process that speaks to the hub: a driver or a worker. Never given out twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u32);

/// A worker, from the wish for one to its end. Never given out twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u32);

/// A function or class, named by what it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId(pub u128);

/// A task or an actor's call, numbered by the client that made it, so that it has its name before the hub hears of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskId {
    /// Who made it.
    pub client: ClientId,
    /// Which of the client's tasks and actors it is.
    pub number: u32,
}

/// An actor, numbered as tasks are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActorId(pub TaskId);

/// One of the values that a task returns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResultId {
    /// The task.
    pub task: TaskId,
    /// Which of its values.
    pub index: u32,
}

// One number each, since tables are asked for these several times a call.
impl Hash for TaskId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.client.0) << 32 | u64::from(self.number));
    }
}

impl Hash for ResultId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let task = u64::from(self.task.client.0) << 32 | u64::from(self.task.number);
        state.write_u64(task ^ u64::from(self.index) << 40);
    }
}

impl ActorId {
    /// What stands for the actor's handles among the results: it is held, passed on and let go like one, and never there.
    pub fn handle(self) -> ResultId {
        self.0.result(HANDLE)
    }
}

/// [`ResultId::index`] of an actor's handle.
const HANDLE: u32 = u32::MAX;

impl ResultId {
    /// The actor whose handle this is.
    pub fn actor(self) -> Option<ActorId> {
        (self.index == HANDLE).then_some(ActorId(self.task))
    }
}

impl TaskId {
    /// The task's `index`-th value.
    pub fn result(self, index: u32) -> ResultId {
        ResultId { task: self, index }
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}", self.0)
    }
}

impl fmt::Debug for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{:032x}", self.0)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}t{}", self.client, self.number)
    }
}

impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}a{}", self.0.client, self.0.number)
    }
}

impl fmt::Debug for ResultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.{}", self.task, self.index)
    }
}
