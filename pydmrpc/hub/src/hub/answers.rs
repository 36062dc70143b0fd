//! What workers say: values, streams of them, what they give back, that they wait.

use super::{Hub, less};
use crate::event::{Action, Failure, Outcome};
use crate::id::{ClientId, ResultId, TaskId, WorkerId};
use crate::resources::Resources;
use crate::streams::TAKEN;
use crate::tasks::Kind;
use crate::workers::Role;

impl<P: Clone> Hub<P> {
    pub(super) fn finished(&mut self, client: ClientId, id: TaskId, outcomes: Vec<Outcome<P>>, micros: u32) {
        let Some(worker) = self.workers.of(client) else { return };
        let Some(assigned) = self.workers.get_mut(worker).map(|worker| &mut worker.assigned) else { return };
        let Some(place) = assigned.iter().position(|&other| other == id) else { return };
        let was_full = assigned.len() == self.options.max_assigned;
        assigned.remove(place);
        if was_full && let Some(Role::Actor(actor)) = self.workers.get(worker).map(|worker| worker.role) {
            self.send_calls(actor);
        }
        let Some(task) = self.tasks.get_mut(id) else { return };
        if let Kind::Make(actor) = task.kind {
            return self.made(actor, worker, outcomes);
        }
        task.micros = micros;
        if matches!(task.kind, Kind::Task(_)) {
            self.shapes.ran(task.work.function, micros);
        }
        let raised = matches!(&outcomes[..], [Outcome { value: Err(Failure::Raised(_)), .. }]);
        if task.refused && !raised {
            self.fail(id, Failure::Cancelled);
        } else if raised && !task.cancelled && task.work.retry_raised && task.retries > 0 {
            task.retries = less(task.retries);
            self.requeue(id);
            if let Some(Kind::Call(actor)) = self.tasks.get(id).map(|task| task.kind) {
                self.send_calls(actor);
            }
        } else {
            self.complete(id, outcomes);
        }
        self.end_lease_if_done(worker);
    }

    /// One value of a task that runs on.
    pub(super) fn yielded(&mut self, client: ClientId, result: ResultId, outcome: Outcome<P>) {
        let Some(worker) = self.workers.of(client).and_then(|id| self.workers.get(id)) else { return };
        if !worker.assigned.contains(&result.task) || result.index == 0 || result.index >= TAKEN {
            return;
        }
        let Some(stream) = self.streams.get_mut(result.task) else { return };
        // What is tried again makes the first values once more.
        if result.index != stream.made + 1 {
            return;
        }
        stream.made += 1;
        if stream.expected.remove(&result.index) {
            self.fulfil(result, outcome);
        } else if !stream.dropped {
            stream.kept.insert(result.index);
            self.results.keep_new(result);
            self.fulfil(result, outcome);
        }
    }

    /// Somebody asks for a value of a stream, or waits until one is taken.
    pub(super) fn expect(&mut self, client: ClientId, result: ResultId) -> bool {
        let Some(stream) = self.streams.get_mut(result.task) else { return false };
        let index = result.index & !TAKEN;
        if result.index & TAKEN != 0 {
            let taken = stream.taken >= index || stream.dropped || stream.ended.is_some();
            if !self.results.promise(client, result, false) {
                return self.results.hold(client, result);
            }
            if taken {
                self.fulfil(result, Outcome::failed(Failure::NoMoreValues));
            } else {
                stream.awaited.insert(index);
            }
            return true;
        }
        if stream.taken < index {
            stream.taken = index;
            let later = stream.awaited.split_off(&(index + 1));
            for awaited in std::mem::replace(&mut stream.awaited, later) {
                let taken = result.task.result(awaited | TAKEN);
                self.fulfil(taken, Outcome::failed(Failure::NoMoreValues));
            }
        }
        let stream = self.streams.get_mut(result.task).expect("it was there");
        if stream.kept.remove(&index) {
            let held = self.results.hold(client, result);
            self.results.let_go(result, 1);
            return held;
        }
        if !self.results.promise(client, result, false) {
            return self.results.hold(client, result);
        }
        if stream.ended.is_some() || index <= stream.made {
            let end = Outcome::failed(stream.end_at(index));
            self.fulfil(result, end);
        } else {
            stream.expected.insert(index);
        }
        true
    }

    /// The task of a stream is done.
    pub(super) fn end_stream(&mut self, id: TaskId, failure: Option<Failure<P>>) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.ended = Some(failure);
        let mut ends: Vec<(u32, Failure<P>)> = Vec::new();
        for index in std::mem::take(&mut stream.expected) {
            ends.push((index, stream.end_at(index)));
        }
        ends.extend(
            std::mem::take(&mut stream.awaited).into_iter().map(|index| (index | TAKEN, Failure::NoMoreValues)),
        );
        if stream.dropped {
            self.streams.remove(id);
        }
        for (index, failure) in ends {
            self.fulfil(id.result(index), Outcome::failed(failure));
        }
    }

    /// Nobody iterates over a stream any more.
    pub(super) fn drop_stream(&mut self, id: TaskId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.dropped = true;
        let kept = std::mem::take(&mut stream.kept);
        let awaited = std::mem::take(&mut stream.awaited);
        if stream.ended.is_some() {
            self.streams.remove(id);
        }
        for index in kept {
            self.results.let_go(id.result(index), 1);
        }
        for index in awaited {
            self.fulfil(id.result(index | TAKEN), Outcome::failed(Failure::NoMoreValues));
        }
    }

    pub(super) fn returned(&mut self, client: ClientId, tasks: &[TaskId]) {
        let Some(id) = self.workers.of(client) else { return };
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.recalled = false;
        let mut given: Vec<TaskId> = Vec::new();
        worker.assigned.retain(|task| {
            let returned = tasks.contains(task);
            given.extend(returned.then_some(*task));
            !returned
        });
        for task in given.into_iter().rev() {
            self.requeue(task);
        }
        self.end_lease_if_done(id);
    }

    pub(super) fn blocked(&mut self, client: ClientId) {
        let Some(worker) = self.workers.of(client).and_then(|id| self.workers.get_mut(id)) else { return };
        worker.blocked += 1;
        if worker.blocked > 1 {
            return;
        }
        self.available.give(&worker.occupies, &mut self.debt);
        if matches!(worker.role, Role::Leased(_)) && worker.assigned.len() > 1 && !worker.recalled {
            worker.recalled = true;
            self.out.push(Action::Recall { client, most: u32::MAX });
        }
    }

    pub(super) fn unblocked(&mut self, client: ClientId) {
        let Some(worker) = self.workers.of(client).and_then(|id| self.workers.get_mut(id)) else { return };
        if worker.blocked == 1 {
            self.available.take(&worker.occupies, &mut self.debt);
        }
        worker.blocked = worker.blocked.saturating_sub(1);
    }

    /// A worker that has nothing to run any more serves its queue on, or others.
    pub(super) fn end_lease_if_done(&mut self, id: WorkerId) {
        let worker = self.workers.get_mut(id).expect("the caller has it");
        let Role::Leased(shape) = worker.role else { return };
        self.restless = true;
        if !worker.assigned.is_empty() {
            return;
        }
        if worker.blocked == 0 {
            let occupied = std::mem::take(&mut worker.occupies);
            self.available.give(&occupied, &mut self.debt);
        }
        worker.blocked = 0;
        worker.occupies = Resources::default();
        self.shapes.get_mut(shape).leased.retain(|&other| other != id);
        let environment = worker.environment;
        // The turn goes on with the lease, so that no queue keeps a worker from the others for ever.
        self.turn = self.turn.wrapping_add(1);
        self.workers.set_idle(id);
        if self.workers.idle_of(environment) > self.options.idle_workers.max(1)
            && self.shapes.get(shape).ready.is_empty()
        {
            self.stop_idle(environment);
        }
    }

    pub(super) fn stop_idle(&mut self, environment: u64) {
        if let Some(worker) = self.workers.take_idle(environment) {
            self.end_worker(worker);
        }
    }

    pub(super) fn end_worker(&mut self, worker: WorkerId) {
        self.workers.get_mut(worker).expect("it was idle").role = Role::Ending;
        self.out.push(Action::Stop { worker });
    }
}
