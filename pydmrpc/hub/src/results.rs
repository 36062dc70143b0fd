//! Values that were promised: who waits for them, and who keeps them.
//!
//! Invariant 1 of the crate in numbers: `keepers` of a result is the sum of the clients' holds, the tasks that need or contain it,
//! and the values that contain it. At zero the result goes, and with it what its value contains. Values that contain each other, as two
//! tasks can make them that return each other's references, are kept for ever, as everywhere where references are counted.

use crate::event::Outcome;
use crate::id::{ActorId, ClientId, ResultId, TaskId};
use crate::numbered::ByResult;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::{SmallVec, smallvec};

struct Promise<P> {
    /// `None` until the value is there.
    outcome: Option<Outcome<P>>,
    keepers: u32,
    /// Those of the keepers that are clients' holds.
    holders: SmallVec<[(ClientId, u32); 1]>,
    /// Who is to be given it.
    wanted_by: SmallVec<[ClientId; 1]>,
    /// Tasks that can't begin without.
    needed_by: SmallVec<[TaskId; 1]>,
}

/// Who is to hear of a value.
pub(crate) struct Waiters {
    pub(crate) clients: SmallVec<[ClientId; 1]>,
    pub(crate) tasks: SmallVec<[TaskId; 1]>,
}

pub(crate) struct Results<P> {
    promises: ByResult<Promise<P>>,
    /// How many results each client holds.
    holding: FxHashMap<ClientId, usize>,
    /// Actors whose last handle went.
    abandoned: Vec<ActorId>,
    /// Tasks whose first result is to be minded, and those of which it went.
    minded: FxHashSet<TaskId>,
    dropped: Vec<TaskId>,
}

impl<P: Clone> Results<P> {
    pub(crate) fn new() -> Self {
        Self {
            promises: ByResult::default(),
            holding: FxHashMap::default(),
            abandoned: Vec::new(),
            minded: FxHashSet::default(),
            dropped: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.promises.len()
    }

    /// A client made a task and holds its result; `want` says whether it is to be given it. `false` if there was such a one before.
    pub(crate) fn promise(&mut self, client: ClientId, id: ResultId, want: bool) -> bool {
        if self.promises.get(id).is_some() {
            return false;
        }
        let mut wanted_by = SmallVec::new();
        if want {
            wanted_by.push(client);
        }
        let holders = smallvec![(client, 1)];
        self.promises.insert(id, Promise { outcome: None, keepers: 1, holders, wanted_by, needed_by: SmallVec::new() });
        *self.holding.entry(client).or_default() += 1;
        true
    }

    /// One more hold of a client's. `false` if the result is gone, or never was.
    pub(crate) fn hold(&mut self, client: ClientId, id: ResultId) -> bool {
        let Some(promise) = self.promises.get_mut(id) else { return false };
        promise.keepers += 1;
        match promise.holders.iter_mut().find(|(holder, _)| *holder == client) {
            Some((_, count)) => *count += 1,
            None => {
                promise.holders.push((client, 1));
                *self.holding.entry(client).or_default() += 1;
            }
        }
        true
    }

    /// So many fewer holds of a client's; more than it has are ignored.
    pub(crate) fn release(&mut self, client: ClientId, id: ResultId, count: u32) {
        let Some(promise) = self.promises.get_mut(id) else { return };
        let Some(place) = promise.holders.iter().position(|(holder, _)| *holder == client) else { return };
        let held = &mut promise.holders[place].1;
        let count = count.min(*held);
        *held -= count;
        if *held == 0 {
            promise.holders.swap_remove(place);
            self.let_one_go(client);
        }
        self.let_go(id, count);
    }

    /// A client holds one result less.
    fn let_one_go(&mut self, client: ClientId) {
        if let Some(holding) = self.holding.get_mut(&client) {
            *holding -= 1;
        }
    }

    /// A client is gone, and all that it held. All results are looked through, unless it held none.
    pub(crate) fn forget_client(&mut self, client: ClientId) {
        if self.holding.remove(&client).unwrap_or(0) == 0 {
            return;
        }
        let mut held = Vec::new();
        for (id, promise) in self.promises.iter_mut() {
            if let Some(place) = promise.holders.iter().position(|(holder, _)| *holder == client) {
                held.push((id, promise.holders.swap_remove(place).1));
            }
        }
        // In an order that is the same in each run.
        held.sort_unstable();
        for (id, count) in held {
            self.let_go(id, count);
        }
    }

    /// One more keeper. `false` if the result is gone.
    pub(crate) fn keep(&mut self, id: ResultId) -> bool {
        match self.promises.get_mut(id) {
            Some(promise) => {
                promise.keepers += 1;
                true
            }
            None => false,
        }
    }

    /// So many fewer keepers.
    pub(crate) fn let_go(&mut self, id: ResultId, count: u32) {
        let mut gone: SmallVec<[(ResultId, u32); 4]> = SmallVec::new();
        gone.push((id, count));
        while let Some((id, count)) = gone.pop() {
            let Some(promise) = self.promises.get_mut(id) else { continue };
            promise.keepers = promise.keepers.saturating_sub(count);
            if promise.keepers > 0 {
                continue;
            }
            let promise = self.promises.remove(id).expect("it was there");
            self.abandoned.extend(id.actor());
            if id.index == 0 && self.minded.remove(&id.task) {
                self.dropped.push(id.task);
            }
            gone.extend(promise.outcome.iter().flat_map(|outcome| outcome.contains.iter().map(|&id| (id, 1))));
        }
    }

    /// It is to be told when nobody has a reference to the first result of a task any more.
    pub(crate) fn mind(&mut self, task: TaskId) {
        self.minded.insert(task);
    }

    /// A task that was minded, whose first result went.
    pub(crate) fn pop_dropped(&mut self) -> Option<TaskId> {
        self.dropped.pop()
    }

    /// A result that nobody promised, kept by the hub itself.
    pub(crate) fn keep_new(&mut self, id: ResultId) {
        let (holders, wanted_by, needed_by) = (SmallVec::new(), SmallVec::new(), SmallVec::new());
        let promise = Promise { outcome: None, keepers: 1, holders, wanted_by, needed_by };
        self.promises.insert(id, promise);
    }

    /// An actor whose last handle went.
    pub(crate) fn pop_abandoned(&mut self) -> Option<ActorId> {
        self.abandoned.pop()
    }

    /// The value, if it is there.
    pub(crate) fn outcome(&self, id: ResultId) -> Option<&Outcome<P>> {
        self.promises.get(id)?.outcome.as_ref()
    }

    /// Whether anybody keeps the result.
    pub(crate) fn is_kept(&self, id: ResultId) -> bool {
        self.promises.get(id).is_some()
    }

    /// A client is to be given the result once it is there. `false` if there is no such result.
    pub(crate) fn want(&mut self, client: ClientId, id: ResultId) -> bool {
        let Some(promise) = self.promises.get_mut(id) else { return false };
        if !promise.wanted_by.contains(&client) {
            promise.wanted_by.push(client);
        }
        true
    }

    /// A task waits for the result. `false` if the value is there.
    pub(crate) fn need(&mut self, task: TaskId, id: ResultId) -> bool {
        match self.promises.get_mut(id) {
            Some(promise) if promise.outcome.is_none() => {
                promise.needed_by.push(task);
                true
            }
            _ => false,
        }
    }

    /// The value is there. What it contains is kept with it.
    pub(crate) fn fulfil(&mut self, id: ResultId, mut outcome: Outcome<P>) -> Option<Waiters> {
        if self.promises.get(id)?.outcome.is_some() {
            return None;
        }
        outcome.contains.retain(|&contained| contained != id && self.keep(contained));
        let promise = self.promises.get_mut(id).expect("it was there");
        promise.outcome = Some(outcome);
        Some(Waiters { clients: std::mem::take(&mut promise.wanted_by), tasks: std::mem::take(&mut promise.needed_by) })
    }

    /// Every result: its value, who holds it.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (ResultId, Option<&P>, Vec<ClientId>)> {
        self.promises.iter().map(|(id, promise)| {
            let value = promise.outcome.as_ref().and_then(|outcome| outcome.value.as_ref().ok());
            (id, value, promise.holders.iter().map(|&(client, _)| client).collect())
        })
    }

    /// What a client holds, in order.
    #[cfg(test)]
    pub(crate) fn holds_of(&self, client: ClientId) -> Vec<ResultId> {
        let holds = |promise: &Promise<P>| promise.holders.iter().any(|(holder, _)| *holder == client);
        let mut held: Vec<_> = self.promises.iter().filter(|(_, promise)| holds(promise)).map(|(id, _)| id).collect();
        held.sort();
        held
    }

    /// Every result with what keeps it by itself: the clients' holds and what the values contain. For the recount.
    #[cfg(test)]
    pub(crate) fn recount(&self) -> FxHashMap<ResultId, (u32, u32)> {
        let mut counts: FxHashMap<ResultId, (u32, u32)> =
            self.promises.iter().map(|(id, promise)| (id, (promise.keepers, 0))).collect();
        let contained = self
            .promises
            .iter()
            .flat_map(|(_, promise)| promise.outcome.iter().flat_map(|o| o.contains.iter().copied()));
        let held =
            self.promises.iter().flat_map(|(id, promise)| promise.holders.iter().map(move |(_, count)| (id, *count)));
        for (id, count) in contained.map(|id| (id, 1)).chain(held) {
            counts.get_mut(&id).expect("what is kept is there").1 += count;
        }
        counts
    }
}
