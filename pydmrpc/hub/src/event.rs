//! What goes into the hub and what comes out.

use crate::id::{ActorId, ClientId, FunctionId, ResultId, TaskId, WorkerId};
use crate::resources::Resources;

/// Milliseconds since the hub started. It has no clock of its own.
pub type Now = u64;

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure<P> {
    /// The function raised, and this is what.
    Raised(P),
    /// It was cancelled.
    Cancelled,
    /// The worker died more often than the task may be tried, with these last words.
    WorkerDied(String),
    /// The actor has ended, for this reason.
    ActorDied(ActorId, String),
    /// The actor's class raised when it was made, and this is what.
    ActorNotMade(ActorId, P),
    /// The actor is being made again, and the call may not be repeated.
    ActorUnavailable(ActorId, String),
    /// The values ended before this one.
    NoMoreValues,
    /// There will never be what the task needs.
    Infeasible(String),
    /// The client that was to make it is gone.
    Lost(String),
}

/// A value, or why there is none; and the results that the value contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<P> {
    /// The value.
    pub value: Result<P, Failure<P>>,
    /// Results to which the value has references.
    pub contains: Vec<ResultId>,
}

impl<P> Outcome<P> {
    /// A failure.
    pub fn failed(failure: Failure<P>) -> Self {
        Self { value: Err(failure), contains: Vec::new() }
    }
}

/// What a task runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work<P> {
    /// The function, class or method, as its worker knows it.
    pub function: FunctionId,
    /// The arguments.
    pub payload: P,
    /// Results whose values the arguments need, in order.
    pub needs: Vec<ResultId>,
    /// Results to which the arguments have references that stay references.
    pub contains: Vec<ResultId>,
    /// How many values it returns; [`STREAM`](crate::STREAM) if they come one by one.
    pub returns: u32,
    /// How often it may be tried again after its worker died; `u32::MAX` is without end.
    pub retries: u32,
    /// Whether it is also tried again when it raises.
    pub retry_raised: bool,
}

impl<P> Work<P> {
    /// How many results are promised from the start.
    pub fn promised(&self) -> u32 {
        if self.returns == crate::STREAM { 1 } else { self.returns }
    }
}

/// A task to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec<P> {
    /// Its name.
    pub id: TaskId,
    /// The task that made it, if one did.
    pub parent: Option<TaskId>,
    /// What it is.
    pub work: Work<P>,
    /// What it occupies while it runs.
    pub resources: Resources,
    /// The environment that its worker must have, 0 for the usual one.
    pub environment: u64,
}

/// An actor to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorSpec<P> {
    /// Its name.
    pub id: ActorId,
    /// Its class and arguments. `returns` is 0; `retries` is how often it is made again after its worker died.
    pub work: Work<P>,
    /// What it occupies as long as it lives.
    pub resources: Resources,
    /// The environment that its worker must have.
    pub environment: u64,
    /// What others find it by: namespace and name.
    pub name: Option<(String, String)>,
    /// Whether it lives on when nobody has a handle any more.
    pub detached: bool,
    /// Whether a call that is not ready lets those behind it go before it.
    pub unordered: bool,
}

/// A call of an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSpec<P> {
    /// Its name.
    pub id: TaskId,
    /// The actor.
    pub actor: ActorId,
    /// The task that made it, if one did.
    pub parent: Option<TaskId>,
    /// What it is.
    pub work: Work<P>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event<P> {
    /// A driver is there.
    DriverUp {
        /// Its name.
        client: ClientId,
    },
    /// A worker that was wished for is there.
    WorkerUp {
        /// Its name as a client.
        client: ClientId,
        /// Which.
        worker: WorkerId,
    },
    /// A worker that was wished for did not come, or ended before it was there.
    WorkerFailed {
        /// Which.
        worker: WorkerId,
        /// Why.
        why: String,
    },
    /// A client is gone.
    ClientDown {
        /// Which.
        client: ClientId,
        /// Why, for people: its last words.
        why: String,
    },
    /// A client wants a task run. It holds the results from now on.
    Submit {
        /// Who.
        client: ClientId,
        /// What.
        task: TaskSpec<P>,
        /// Whether it wants the results, without saying so later.
        want: bool,
    },
    /// A client wants an actor. It holds the [handle](crate::ActorId::handle) from now on.
    Create {
        /// Who.
        client: ClientId,
        /// What.
        actor: ActorSpec<P>,
    },
    /// A client calls an actor. It holds the results from now on.
    Call {
        /// Who.
        client: ClientId,
        /// What.
        call: CallSpec<P>,
        /// Whether it wants the results, without saying so later.
        want: bool,
    },
    /// A worker has run a task, a call, or made an actor.
    Finished {
        /// The worker.
        client: ClientId,
        /// What it ran.
        task: TaskId,
        /// What came of it: as many as it was to return, or one failure for all.
        outcomes: Vec<Outcome<P>>,
        /// How long it ran, in microseconds.
        micros: u32,
    },
    /// A worker has one of the values of what it runs, and runs on.
    Yielded {
        /// The worker.
        client: ClientId,
        /// Which value of which task.
        result: ResultId,
        /// The value.
        outcome: Outcome<P>,
    },
    /// A worker gives back tasks that it has not begun.
    Returned {
        /// The worker.
        client: ClientId,
        /// Which.
        tasks: Vec<TaskId>,
    },
    /// What a worker runs waits for a result.
    Blocked {
        /// The worker.
        client: ClientId,
    },
    /// It goes on.
    Unblocked {
        /// The worker.
        client: ClientId,
    },
    /// A client wants to be given a result when it is there.
    Want {
        /// Who.
        client: ClientId,
        /// What.
        result: ResultId,
    },
    /// A client has no more references to results: so many of those it was given are done with.
    Release {
        /// Who.
        client: ClientId,
        /// Which, and how many.
        results: Vec<(ResultId, u32)>,
    },
    /// A client wants a task not to be run, or to stop.
    Cancel {
        /// The task.
        task: TaskId,
        /// Whether its worker may be killed for it.
        force: bool,
        /// Whether the tasks that it made are cancelled, too.
        recursive: bool,
    },
    /// A client wants an actor to end.
    Kill {
        /// The actor.
        actor: ActorId,
        /// Whether it may be made again.
        restart: bool,
    },
    /// An actor's worker wants to end, as `exit_actor` does.
    Exits {
        /// The worker.
        client: ClientId,
    },
    /// Time went by.
    Tick,
}

/// Something that is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<P> {
    /// Start a worker, then say [`Event::WorkerUp`] or [`Event::WorkerFailed`].
    Start {
        /// Its name.
        worker: WorkerId,
        /// The environment that it is to have.
        environment: u64,
    },
    /// End a worker, whatever it does, then say [`Event::ClientDown`] (or `WorkerFailed`).
    Stop {
        /// Which.
        worker: WorkerId,
    },
    /// Let a worker run a task after those that it has.
    Run {
        /// The worker.
        client: ClientId,
        /// The task.
        task: TaskId,
        /// The actor whose call it is, or which is to be made.
        actor: Option<ActorId>,
        /// Whether the actor is to be made.
        create: bool,
        /// What to run.
        function: FunctionId,
        /// The arguments.
        payload: P,
        /// The values that the arguments need, in order.
        values: Vec<P>,
        /// The results that arguments and values contain: the worker was given these once each.
        given: Vec<ResultId>,
        /// How many values it returns.
        returns: u32,
    },
    /// Ask a worker to give back at most so many tasks that it has not begun, the last first.
    Recall {
        /// The worker.
        client: ClientId,
        /// How many.
        most: u32,
    },
    /// Ask a worker to stop what it runs, or not to begin it.
    Interrupt {
        /// The worker.
        client: ClientId,
        /// The task.
        task: TaskId,
    },
    /// Ask an actor's worker to end when it has done all that it was given.
    Exit {
        /// The worker.
        client: ClientId,
    },
    /// Give a client a result. It was given each result that the value contains once.
    Deliver {
        /// Who.
        client: ClientId,
        /// Which.
        result: ResultId,
        /// What it is.
        outcome: Outcome<P>,
    },
}
