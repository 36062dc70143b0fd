//! Actors: their workers, their calls, their names and ends.

use crate::event::{Failure, Work};
use crate::id::{ActorId, ClientId, TaskId, WorkerId};
use crate::resources::Resources;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Waits for what its making needs, a worker included.
    Coming,
    /// Is being made.
    Making(WorkerId),
    Alive(WorkerId),
    /// Ends when it has done what it was given.
    Leaving(WorkerId),
    /// For this reason.
    Dead(String),
}

pub(crate) struct Actor<P> {
    /// What makes it, and makes it again.
    pub(crate) work: Work<P>,
    pub(crate) resources: Resources,
    pub(crate) environment: u64,
    pub(crate) name: Option<(String, String)>,
    pub(crate) detached: bool,
    /// Whether calls that are ready go before those that are not. Then the former stand before the latter in each line.
    pub(crate) unordered: bool,
    pub(crate) life: Life,
    pub(crate) restarts: u32,
    /// How often it was made again.
    pub(crate) lives: u32,
    /// Calls that were not given to the worker, in the order of each caller. Ordered, so that the hub does the same in each run.
    pub(crate) callers: BTreeMap<ClientId, VecDeque<TaskId>>,
    /// Why it is to be dead when its worker is gone, if that is no accident.
    pub(crate) sentence: Option<String>,
    /// What its class raised.
    pub(crate) unmade: Option<P>,
}

impl<P> Actor<P> {
    pub(crate) fn worker(&self) -> Option<WorkerId> {
        match self.life {
            Life::Making(worker) | Life::Alive(worker) | Life::Leaving(worker) => Some(worker),
            Life::Coming | Life::Dead(_) => None,
        }
    }

    /// How calls fail, if it is dead.
    pub(crate) fn failure(&self, id: ActorId) -> Option<Failure<P>>
    where
        P: Clone,
    {
        match (&self.life, &self.unmade) {
            (Life::Dead(_), Some(raised)) => Some(Failure::ActorNotMade(id, raised.clone())),
            (Life::Dead(why), None) => Some(Failure::ActorDied(id, why.clone())),
            _ => None,
        }
    }

    /// Where it stands, and why it is dead if it is.
    pub(crate) fn state(&self) -> (&'static str, Option<String>) {
        match &self.life {
            Life::Coming | Life::Making(_) if self.lives > 0 => ("RESTARTING", None),
            Life::Coming | Life::Making(_) => ("PENDING_CREATION", None),
            Life::Alive(_) | Life::Leaving(_) => ("ALIVE", None),
            Life::Dead(why) => ("DEAD", Some(why.clone())),
        }
    }

    /// Whether calls wait that were not given to the worker.
    pub(crate) fn has_calls(&self) -> bool {
        self.callers.values().any(|calls| !calls.is_empty())
    }
}

pub(crate) struct Actors<P> {
    table: FxHashMap<ActorId, Actor<P>>,
    names: BTreeMap<(String, String), ActorId>,
}

impl<P> Actors<P> {
    pub(crate) fn new() -> Self {
        Self { table: FxHashMap::default(), names: BTreeMap::new() }
    }

    /// Adds an actor; gives it back if its name is taken.
    pub(crate) fn insert(&mut self, id: ActorId, actor: Actor<P>) -> Option<Actor<P>> {
        if let Some(name) = &actor.name {
            if self.names.contains_key(name) {
                return Some(actor);
            }
            self.names.insert(name.clone(), id);
        }
        self.table.insert(id, actor);
        None
    }

    pub(crate) fn get(&self, id: ActorId) -> Option<&Actor<P>> {
        self.table.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: ActorId) -> Option<&mut Actor<P>> {
        self.table.get_mut(&id)
    }

    pub(crate) fn contains(&self, id: ActorId) -> bool {
        self.table.contains_key(&id)
    }

    /// A client will not call again.
    pub(crate) fn forget_caller(&mut self, client: ClientId) {
        for actor in self.table.values_mut() {
            if actor.callers.get(&client).is_some_and(VecDeque::is_empty) {
                actor.callers.remove(&client);
            }
        }
    }

    /// The actor of this namespace and name.
    pub(crate) fn named(&self, namespace: &str, name: &str) -> Option<ActorId> {
        self.names.get(&(namespace.to_owned(), name.to_owned())).copied()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = (&(String, String), ActorId)> {
        self.names.iter().map(|(name, &id)| (name, id))
    }

    /// The name of a dead actor is free.
    pub(crate) fn free_name(&mut self, id: ActorId) {
        if let Some(name) = self.table.get(&id).and_then(|actor| actor.name.as_ref())
            && self.names.get(name) == Some(&id)
        {
            self.names.remove(name);
        }
    }

    /// A dead actor of which nobody has a handle is forgotten.
    pub(crate) fn remove(&mut self, id: ActorId) {
        self.free_name(id);
        self.table.remove(&id);
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&ActorId, &Actor<P>)> {
        self.table.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}
