//! Values that were promised: who waits for them, and who keeps them.
//!
//! Invariant 1 of the crate in numbers: `keepers` of a result is the sum of the clients' holds, the tasks that need or contain it,
//! and the values that contain it. At zero the result goes, and with it what its value contains. Values that contain each other, as two
//! tasks can make them that return each other's references, are kept for ever, as everywhere where references are counted.

use crate::event::Outcome;
use crate::id::{ActorId, ClientId, ResultId, TaskId};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

struct Promise<P> {
    /// `None` until the value is there.
    outcome: Option<Outcome<P>>,
    keepers: u32,
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
    promises: FxHashMap<ResultId, Promise<P>>,
    holds: FxHashMap<ClientId, FxHashMap<ResultId, u32>>,
    /// Actors whose last handle went.
    abandoned: Vec<ActorId>,
}

impl<P: Clone> Results<P> {
    pub(crate) fn new() -> Self {
        Self { promises: FxHashMap::default(), holds: FxHashMap::default(), abandoned: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.promises.len()
    }

    /// A client made a task and holds its result. `false` if there was such a one before.
    pub(crate) fn promise(&mut self, client: ClientId, id: ResultId) -> bool {
        if self.promises.contains_key(&id) {
            return false;
        }
        let promise = Promise { outcome: None, keepers: 0, wanted_by: SmallVec::new(), needed_by: SmallVec::new() };
        self.promises.insert(id, promise);
        self.hold(client, id);
        true
    }

    /// One more hold of a client's. `false` if the result is gone, or never was.
    pub(crate) fn hold(&mut self, client: ClientId, id: ResultId) -> bool {
        if !self.keep(id) {
            return false;
        }
        *self.holds.entry(client).or_default().entry(id).or_default() += 1;
        true
    }

    /// So many fewer holds of a client's; more than it has are ignored.
    pub(crate) fn release(&mut self, client: ClientId, id: ResultId, count: u32) {
        let Some(holds) = self.holds.get_mut(&client) else { return };
        let Some(held) = holds.get_mut(&id) else { return };
        let count = count.min(*held);
        *held -= count;
        if *held == 0 {
            holds.remove(&id);
        }
        self.let_go(id, count);
    }

    /// A client is gone, and all that it held.
    pub(crate) fn forget_client(&mut self, client: ClientId) {
        for (id, count) in self.holds.remove(&client).unwrap_or_default() {
            self.let_go(id, count);
        }
    }

    /// One more keeper. `false` if the result is gone.
    pub(crate) fn keep(&mut self, id: ResultId) -> bool {
        match self.promises.get_mut(&id) {
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
            let Some(promise) = self.promises.get_mut(&id) else { continue };
            promise.keepers = promise.keepers.saturating_sub(count);
            if promise.keepers > 0 {
                continue;
            }
            let promise = self.promises.remove(&id).expect("it was there");
            self.abandoned.extend(id.actor());
            gone.extend(promise.outcome.iter().flat_map(|outcome| outcome.contains.iter().map(|&id| (id, 1))));
        }
    }

    /// An actor whose last handle went.
    pub(crate) fn pop_abandoned(&mut self) -> Option<ActorId> {
        self.abandoned.pop()
    }

    /// The value, if it is there.
    pub(crate) fn outcome(&self, id: ResultId) -> Option<&Outcome<P>> {
        self.promises.get(&id)?.outcome.as_ref()
    }

    /// Whether anybody keeps the result.
    pub(crate) fn is_kept(&self, id: ResultId) -> bool {
        self.promises.contains_key(&id)
    }

    /// A client is to be given the result once it is there. `false` if there is no such result.
    pub(crate) fn want(&mut self, client: ClientId, id: ResultId) -> bool {
        let Some(promise) = self.promises.get_mut(&id) else { return false };
        if !promise.wanted_by.contains(&client) {
            promise.wanted_by.push(client);
        }
        true
    }

    /// A task waits for the result. `false` if the value is there.
    pub(crate) fn need(&mut self, task: TaskId, id: ResultId) -> bool {
        match self.promises.get_mut(&id) {
            Some(promise) if promise.outcome.is_none() => {
                promise.needed_by.push(task);
                true
            }
            _ => false,
        }
    }

    /// The value is there. What it contains is kept with it.
    pub(crate) fn fulfil(&mut self, id: ResultId, mut outcome: Outcome<P>) -> Option<Waiters> {
        if self.promises.get(&id)?.outcome.is_some() {
            return None;
        }
        outcome.contains.retain(|&contained| contained != id && self.keep(contained));
        let promise = self.promises.get_mut(&id).expect("it was there");
        promise.outcome = Some(outcome);
        Some(Waiters { clients: std::mem::take(&mut promise.wanted_by), tasks: std::mem::take(&mut promise.needed_by) })
    }

    /// What a client holds, in order.
    #[cfg(test)]
    pub(crate) fn holds_of(&self, client: ClientId) -> Vec<ResultId> {
        let mut held: Vec<_> = self.holds.get(&client).into_iter().flat_map(|holds| holds.keys().copied()).collect();
        held.sort();
        held
    }

    /// Every result with what keeps it by itself: the clients' holds and what the values contain. For the recount.
    #[cfg(test)]
    pub(crate) fn recount(&self) -> FxHashMap<ResultId, (u32, u32)> {
        let mut counts: FxHashMap<ResultId, (u32, u32)> =
            self.promises.iter().map(|(&id, promise)| (id, (promise.keepers, 0))).collect();
        let contained = self.promises.values().flat_map(|promise| promise.outcome.iter().flat_map(|o| &o.contains));
        let held = self.holds.values().flatten();
        for (id, count) in contained.map(|id| (id, 1)).chain(held.map(|(id, &count)| (id, count))) {
            counts.get_mut(id).expect("what is kept is there").1 += count;
        }
        counts
    }
}
