//! What becomes of a task: from its promise to its value.

use super::{Hub, less};
use crate::event::{Action, Failure, Outcome, TaskSpec, Work};
use crate::id::{ActorId, ClientId, ResultId, TaskId};
use crate::streams::STREAM;
use crate::tasks::{Kind, Stage, Task};

impl<P: Clone> Hub<P> {
    pub(super) fn submit(&mut self, client: ClientId, spec: TaskSpec<P>, want: bool) {
        let TaskSpec { id, parent, work, resources, environment } = spec;
        if self.promise(client, id, &work, want) {
            let shape = self.shapes.key(&resources, environment);
            self.admit(client, id, parent, Kind::Task(shape), work);
        }
    }

    /// Promises the results of a new task. `false` if there can't be one of this name.
    pub(super) fn promise(&mut self, client: ClientId, id: TaskId, work: &Work<P>, want: bool) -> bool {
        if id.client != client || self.tasks.contains(id) || self.actors.contains(ActorId(id)) {
            return false;
        }
        if work.returns == STREAM {
            self.streams.begin(id);
            self.results.mind(id);
        }
        (0..work.promised()).all(|index| self.results.promise(client, id.result(index), want))
    }

    /// A task whose results are promised waits for what it needs.
    pub(super) fn admit(
        &mut self,
        client: ClientId,
        id: TaskId,
        parent: Option<TaskId>,
        kind: Kind,
        mut work: Work<P>,
    ) {
        work.contains.retain(|&result| self.results.keep(result));
        let missing = work.needs.iter().position(|&result| !self.results.keep(result));
        let mut unmet = 0;
        if let Some(missing) = missing {
            // Those before it were kept, and are let go with the task.
            work.needs.truncate(missing);
        } else {
            unmet = work.needs.iter().filter(|&&result| self.results.need(id, result)).count() as u32;
        }
        let retries = work.retries;
        let stage = Stage::Waiting(unmet);
        let task = Task {
            kind,
            work,
            client,
            stage,
            retries,
            cancelled: false,
            refused: false,
            children: Vec::new(),
            done_children: 0,
            parent,
            micros: 0,
        };
        self.tasks.insert(id, task);
        if missing.is_some() {
            self.fail(id, Failure::Lost("an argument is gone: nobody kept it".into()));
        } else if self.tasks.len() > self.options.max_tasks {
            let limit = self.options.max_tasks;
            self.fail(id, Failure::Lost(format!("more than {limit} tasks are not done")));
        } else if unmet == 0 {
            self.ready(id);
        }
    }

    /// All that the task needs is there.
    pub(super) fn ready(&mut self, id: TaskId) {
        let task = self.tasks.get_mut(id).expect("the caller has it");
        task.stage = Stage::Queued;
        let failed = task.work.needs.iter().find_map(|&need| self.results.outcome(need)?.value.as_ref().err());
        if let Some(failure) = failed {
            let failure = failure.clone();
            return self.fail(id, failure);
        }
        match task.kind {
            Kind::Task(shape) => {
                self.restless = true;
                self.shapes.get_mut(shape).ready.push_back(id);
            }
            Kind::Make(_) => {
                self.restless = true;
                self.makers.push_back(id);
            }
            Kind::Call(actor) => {
                let client = task.client;
                self.advance(actor, client, id);
                self.send_line(actor, client);
            }
        }
    }

    /// A task that was assigned goes back to the head of its queue.
    pub(super) fn requeue(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.cancelled {
            return self.fail(id, Failure::Cancelled);
        }
        task.stage = Stage::Queued;
        match task.kind {
            Kind::Task(shape) => {
                self.restless = true;
                self.shapes.get_mut(shape).ready.push_front(id);
            }
            Kind::Make(_) => {
                self.restless = true;
                self.makers.push_front(id);
            }
            Kind::Call(actor) => {
                let client = task.client;
                if let Some(actor) = self.actors.get_mut(actor) {
                    actor.callers.entry(client).or_default().push_front(id);
                }
            }
        }
    }

    /// A task that was begun is tried again, if it may be.
    pub(super) fn retry(&mut self, id: TaskId, why: &str) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if !task.cancelled && task.retries > 0 {
            task.retries = less(task.retries);
            self.requeue(id);
        } else {
            self.fail(id, Failure::WorkerDied(why.to_owned()));
        }
    }

    /// The task ends without a value. It must not stand in a queue, or be about to be taken out of it.
    pub(super) fn fail(&mut self, id: TaskId, failure: Failure<P>) {
        let Some(task) = self.tasks.get(id) else { return };
        let failure = if task.cancelled { Failure::Cancelled } else { failure };
        let kind = task.kind;
        self.complete(id, vec![Outcome::failed(failure)]);
        if let Kind::Make(actor) = kind {
            self.bury(actor, "an argument of its class failed or is gone".into());
        }
    }

    /// The task is done.
    pub(super) fn complete(&mut self, id: TaskId, outcomes: Vec<Outcome<P>>) {
        let Some(task) = self.tasks.remove(id) else { return };
        let failed = outcomes.first().and_then(|outcome| outcome.value.as_ref().err());
        self.history.add(self.now, id, &task, failed);
        let Work { needs, contains, .. } = &task.work;
        let returns = task.work.promised();
        let outcomes = match <[_; 1]>::try_from(outcomes) {
            Ok([failed @ Outcome { value: Err(_), .. }]) => vec![failed; returns as usize],
            Ok(one) => one.into(),
            Err(several) => several,
        };
        let right = outcomes.len() == returns as usize;
        let wrong = || Outcome::failed(Failure::Lost(format!("{returns} values were promised")));
        let failure = outcomes.first().and_then(|outcome| outcome.value.as_ref().err().cloned());
        for index in 0..returns {
            let outcome = if right { outcomes[index as usize].clone() } else { wrong() };
            self.fulfil(id.result(index), outcome);
        }
        if task.work.returns == STREAM {
            self.end_stream(id, failure);
        }
        match task.kind {
            // What makes an actor is kept, to make it again.
            Kind::Make(_) => {}
            Kind::Task(_) | Kind::Call(_) => self.let_go(needs, contains),
        }
        if let Kind::Call(actor) = task.kind {
            self.leave_if_unreachable(actor);
        }
    }

    pub(super) fn let_go(&mut self, needs: &[ResultId], contains: &[ResultId]) {
        for &result in needs.iter().chain(contains) {
            self.results.let_go(result, 1);
        }
    }

    pub(super) fn fulfil(&mut self, result: ResultId, outcome: Outcome<P>) {
        let Some(waiters) = self.results.fulfil(result, outcome) else { return };
        for client in waiters.clients {
            self.deliver(client, result);
        }
        for id in waiters.tasks {
            let Some(task) = self.tasks.get_mut(id) else { continue };
            if let Stage::Waiting(unmet) = &mut task.stage {
                *unmet -= 1;
                if *unmet == 0 {
                    self.ready(id);
                }
            }
        }
    }

    pub(super) fn want(&mut self, client: ClientId, result: ResultId) {
        if self.results.outcome(result).is_some() {
            self.deliver(client, result);
        } else if !self.results.want(client, result) {
            let outcome = Outcome::failed(Failure::Lost("nobody kept it".into()));
            self.out.push(Action::Deliver { client, result, outcome });
        }
    }

    pub(super) fn deliver(&mut self, client: ClientId, result: ResultId) {
        let Some(outcome) = self.results.outcome(result).cloned() else { return };
        for &contained in &outcome.contains {
            self.results.hold(client, contained);
        }
        self.out.push(Action::Deliver { client, result, outcome });
    }

    pub(super) fn cancel(&mut self, id: TaskId, force: bool, recursive: bool) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let children = if recursive { task.children.clone() } else { Vec::new() };
        task.cancelled = true;
        let (kind, stage, client) = (task.kind, task.stage, task.client);
        match (stage, kind) {
            (_, Kind::Make(_)) => {
                // Actors are killed, not cancelled.
                task.cancelled = false;
                return;
            }
            (Stage::Assigned(worker), _) => {
                let Some(Some(client)) = self.workers.get(worker).map(|worker| worker.client) else { return };
                // What an actor's call returns is not waited for any more, whether it has begun and looks or not.
                if let (Kind::Call(_), Some(task)) = (kind, self.tasks.get_mut(id)) {
                    task.refused = true;
                }
                if force && matches!(kind, Kind::Task(_)) {
                    self.out.push(Action::Stop { worker });
                } else {
                    self.out.push(Action::Interrupt { client, task: id });
                }
            }
            (_, Kind::Task(shape)) => {
                self.shapes.get_mut(shape).ready.retain(|&other| other != id);
                self.fail(id, Failure::Cancelled);
            }
            (_, Kind::Call(actor)) => {
                if let Some(calls) = self.actors.get_mut(actor).and_then(|actor| actor.callers.get_mut(&client)) {
                    calls.retain(|&other| other != id);
                }
                self.fail(id, Failure::Cancelled);
                self.send_calls(actor);
            }
        }
        for child in children {
            self.cancel(child, force, recursive);
        }
    }
}
