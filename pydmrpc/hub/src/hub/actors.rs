//! From the making of an actor to its end, and its calls.

use super::{Hub, less};
use crate::actors::{Actor, Life};
use crate::event::{Action, ActorSpec, CallSpec, Failure, Outcome, Work};
use crate::id::{ActorId, ClientId, TaskId, WorkerId};
use crate::tasks::{Kind, Stage, Task};
use crate::workers::Role;
use std::collections::{BTreeMap, VecDeque};

impl<P: Clone> Hub<P> {
    pub(super) fn create(&mut self, client: ClientId, spec: ActorSpec<P>) {
        let ActorSpec { id, work, resources, environment, name, detached, unordered } = spec;
        if id.0.client != client || self.tasks.contains(id.0) || !self.results.promise(client, id.handle(), false) {
            return;
        }
        let restarts = work.retries;
        let actor = Actor {
            work: work.clone(),
            resources,
            environment,
            name,
            detached,
            unordered,
            life: Life::Coming,
            restarts,
            lives: 0,
            callers: BTreeMap::new(),
            sentence: None,
            unmade: None,
        };
        match self.actors.insert(id, actor) {
            None => {
                // A worker that dies while it makes the actor counts as one that died later.
                let work = Work { retries: 0, returns: 0, ..work };
                self.admit(client, id.0, None, Kind::Make(id), work);
                // Arguments that are gone are not asked for again.
                if let (Some(actor), Some(task)) = (self.actors.get_mut(id), self.tasks.get(id.0)) {
                    actor.work.contains.clone_from(&task.work.contains);
                }
            }
            Some(mut actor) => {
                actor.life = Life::Dead("its name is taken".into());
                actor.name = None;
                actor.work.needs.clear();
                actor.work.contains.clear();
                self.actors.insert(id, actor);
            }
        }
    }

    pub(super) fn call(&mut self, client: ClientId, spec: CallSpec<P>, want: bool) {
        let CallSpec { id, actor, parent, work } = spec;
        if !self.promise(client, id, &work, want) {
            return;
        }
        let failure = match self.actors.get(actor) {
            Some(entry) => entry.failure(actor),
            None => Some(Failure::ActorDied(actor, "it ended, or never was".into())),
        };
        if let Some(failure) = failure {
            for index in 0..work.returns {
                self.fulfil(id.result(index), Outcome::failed(failure.clone()));
            }
            return;
        }
        // In line before it is ready: those behind it wait for it.
        let entry = self.actors.get_mut(actor).expect("it is there");
        entry.callers.entry(client).or_default().push_back(id);
        self.admit(client, id, parent, Kind::Call(actor), work);
        if !self.tasks.contains(id) {
            self.leave_line(actor, client, id);
        }
    }

    /// A call that failed before it was sent does not hold up the others.
    pub(super) fn leave_line(&mut self, actor: ActorId, client: ClientId, call: TaskId) {
        if let Some(calls) = self.actors.get_mut(actor).and_then(|actor| actor.callers.get_mut(&client)) {
            calls.retain(|&other| other != call);
        }
    }

    /// A call is ready: where the order does not matter it goes before all that are not.
    pub(super) fn advance(&mut self, actor: ActorId, client: ClientId, call: TaskId) {
        let Some(actor) = self.actors.get_mut(actor).filter(|actor| actor.unordered) else { return };
        let Some(calls) = actor.callers.get_mut(&client) else { return };
        let is_ready = |call: &TaskId| self.tasks.get(*call).is_none_or(|task| matches!(task.stage, Stage::Queued));
        let Some(place) = calls.iter().rposition(|&other| other == call) else { return };
        if place > 0 && !is_ready(&calls[place - 1]) {
            calls.remove(place);
            calls.insert(calls.partition_point(is_ready), call);
        }
    }

    /// Gives the actor's worker what each caller's line has ready at its head.
    pub(super) fn send_calls(&mut self, id: ActorId) {
        let Some(actor) = self.actors.get(id) else { return };
        match &actor.life {
            Life::Alive(worker) => {
                let worker = *worker;
                let callers: Vec<ClientId> = actor.callers.keys().copied().collect();
                for caller in callers {
                    while self.has_room(worker)
                        && let Some(call) = self.next_call(id, caller)
                    {
                        self.assign(worker, call);
                    }
                }
            }
            Life::Dead(_) => self.fail_calls(id),
            Life::Coming | Life::Making(_) | Life::Leaving(_) => {}
        }
    }

    /// Whether an actor's worker may be given one more call.
    pub(super) fn has_room(&self, worker: WorkerId) -> bool {
        self.workers.get(worker).is_some_and(|worker| worker.assigned.len() < self.options.max_assigned)
    }

    /// As [`send_calls`](Self::send_calls) for the line of one caller.
    pub(super) fn send_line(&mut self, id: ActorId, caller: ClientId) {
        let Some(actor) = self.actors.get(id) else { return };
        match &actor.life {
            Life::Alive(worker) => {
                let worker = *worker;
                while self.has_room(worker)
                    && let Some(call) = self.next_call(id, caller)
                {
                    self.assign(worker, call);
                }
            }
            Life::Dead(_) => self.fail_calls(id),
            Life::Coming | Life::Making(_) | Life::Leaving(_) => {}
        }
    }

    /// Takes a call out of the line, if the first is ready.
    pub(super) fn next_call(&mut self, id: ActorId, caller: ClientId) -> Option<TaskId> {
        let calls = self.actors.get_mut(id)?.callers.get_mut(&caller)?;
        while let Some(&call) = calls.front() {
            match self.tasks.get(call).map(|task| task.stage) {
                // It failed in line.
                None => drop(calls.pop_front()),
                Some(Stage::Queued) => return calls.pop_front(),
                Some(_) => return None,
            }
        }
        // An empty line stays: the caller will call again.
        None
    }

    /// All calls of a dead actor's fail.
    pub(super) fn fail_calls(&mut self, id: ActorId) {
        let Some(actor) = self.actors.get_mut(id) else { return };
        let Some(failure) = actor.failure(id) else { return };
        for call in std::mem::take(&mut actor.callers).into_values().flatten() {
            self.fail(call, failure.clone());
        }
    }

    /// The class has run, on the worker that was to have the actor.
    pub(super) fn made(&mut self, id: ActorId, worker: WorkerId, outcomes: Vec<Outcome<P>>) {
        self.complete(id.0, Vec::new());
        let failure = outcomes.into_iter().find_map(|outcome| outcome.value.err());
        let Some(actor) = self.actors.get_mut(id) else { return };
        match failure {
            None => {
                actor.life = Life::Alive(worker);
                self.send_calls(id);
                self.leave_if_unreachable(id);
            }
            Some(failure) => {
                if let Failure::Raised(raised) = failure {
                    actor.unmade = Some(raised);
                }
                self.out.push(Action::Stop { worker });
                self.bury(id, "its class raised when it was made".into());
            }
        }
    }

    /// The actor's worker is gone, with what it had to run.
    pub(super) fn actor_down(&mut self, id: ActorId, assigned: &VecDeque<TaskId>, why: &str) {
        let Some(actor) = self.actors.get_mut(id) else { return };
        if matches!(actor.life, Life::Dead(_)) {
            return;
        }
        let needed = actor.detached || self.results.is_kept(id.handle()) || actor.has_calls() || !assigned.is_empty();
        let again = actor.sentence.is_none() && actor.restarts > 0 && needed;
        let why = actor.sentence.clone().unwrap_or_else(|| why.to_owned());
        actor.life = Life::Coming;
        // Whoever hears of a failure may be the last who knew the actor: they hear of it when it is settled what becomes of it.
        let (mut repeated, mut failed) = (Vec::new(), Vec::new());
        for &call in assigned {
            let Some(task) = self.tasks.get_mut(call) else { continue };
            if matches!(task.kind, Kind::Make(_)) {
                self.complete(call, Vec::new());
            } else if again && task.retries > 0 && !task.cancelled {
                task.retries = less(task.retries);
                repeated.push(call);
            } else {
                failed.push(call);
            }
        }
        for call in repeated.into_iter().rev() {
            self.requeue(call);
        }
        if again {
            self.make_again(id);
        } else {
            self.bury(id, why.clone());
        }
        for call in failed {
            let why = why.clone();
            self.fail(call, if again { Failure::ActorUnavailable(id, why) } else { Failure::ActorDied(id, why) });
        }
    }

    pub(super) fn make_again(&mut self, id: ActorId) {
        let actor = self.actors.get_mut(id).expect("it was there");
        actor.restarts = less(actor.restarts);
        actor.lives += 1;
        let work = Work { retries: 0, returns: 0, ..actor.work.clone() };
        let task = Task {
            kind: Kind::Make(id),
            work,
            client: id.0.client,
            stage: Stage::Queued,
            retries: 0,
            cancelled: false,
            refused: false,
            children: Vec::new(),
            done_children: 0,
            parent: None,
            micros: 0,
        };
        self.tasks.insert(id.0, task);
        self.restless = true;
        self.makers.push_back(id.0);
    }

    /// The actor is no more.
    pub(super) fn bury(&mut self, id: ActorId, why: String) {
        let Some(actor) = self.actors.get_mut(id) else { return };
        if matches!(actor.life, Life::Dead(_)) {
            return;
        }
        actor.life = Life::Dead(why);
        let (needs, contains) = (std::mem::take(&mut actor.work.needs), std::mem::take(&mut actor.work.contains));
        self.actors.free_name(id);
        self.fail_calls(id);
        self.let_go(&needs, &contains);
        if !self.results.is_kept(id.handle()) {
            self.actors.remove(id);
        }
    }

    /// An actor that nobody can call any more ends.
    pub(super) fn leave_if_unreachable(&mut self, id: ActorId) {
        if self.results.is_kept(id.handle()) {
            return;
        }
        let Some(actor) = self.actors.get_mut(id) else { return };
        match actor.life {
            Life::Dead(_) => self.actors.remove(id),
            _ if actor.detached || actor.has_calls() => {}
            // What it runs may be tried again, or run on elsewhere than where it reads. When that is done this is asked again.
            Life::Alive(worker) if self.workers.get(worker).is_some_and(|worker| !worker.assigned.is_empty()) => {}
            Life::Alive(worker) => {
                actor.life = Life::Leaving(worker);
                actor.sentence = Some("all its handles are gone".into());
                if let Some(Some(client)) = self.workers.get(worker).map(|worker| worker.client) {
                    self.out.push(Action::Exit { client });
                }
            }
            Life::Coming => self.end_coming(id, "all its handles are gone"),
            // When it is made, or its worker gone, this is asked again.
            Life::Making(_) | Life::Leaving(_) => {}
        }
    }

    /// An actor that no worker has is not made.
    pub(super) fn end_coming(&mut self, id: ActorId, why: &str) {
        self.makers.retain(|&other| other != id.0);
        self.complete(id.0, Vec::new());
        self.bury(id, why.into());
    }

    pub(super) fn kill(&mut self, id: ActorId, restart: bool) {
        let Some(actor) = self.actors.get_mut(id) else { return };
        match actor.worker() {
            Some(worker) => {
                if !restart {
                    actor.sentence = Some("it was killed".into());
                }
                self.out.push(Action::Stop { worker });
            }
            None if !restart && actor.life == Life::Coming => self.end_coming(id, "it was killed"),
            None => {}
        }
    }

    /// A worker wants to end: an actor's for good, another when it has run what it has begun.
    pub(super) fn exits(&mut self, client: ClientId) {
        let Some(id) = self.workers.of(client) else { return };
        let Some(worker) = self.workers.get_mut(id) else { return };
        match worker.role {
            Role::Actor(actor) => {
                if let Some(actor) = self.actors.get_mut(actor) {
                    actor.sentence.get_or_insert_with(|| "it exited".into());
                    actor.life = Life::Leaving(id);
                }
            }
            Role::Leased(shape) => {
                worker.role = Role::Ending;
                if worker.assigned.len() > 1 && !worker.recalled {
                    worker.recalled = true;
                    self.out.push(Action::Recall { client, most: u32::MAX });
                }
                self.shapes.get_mut(shape).leased.retain(|&other| other != id);
            }
            Role::Starting | Role::Idle | Role::Ending => {}
        }
    }
}
