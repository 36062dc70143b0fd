//! Who runs what: tasks to workers, workers to queues and actors.

use super::Hub;
use crate::actors::Life;
use crate::event::Action;
use crate::id::{TaskId, WorkerId};
use crate::resources::Resources;
use crate::tasks::{Kind, ShapeKey, Stage};
use crate::workers::Role;
use std::collections::{BTreeMap, VecDeque};

impl<P: Clone> Hub<P> {
    /// Gives a task to a worker, behind what it has.
    pub(super) fn assign(&mut self, id: WorkerId, task_id: TaskId) {
        let worker = self.workers.get_mut(id).expect("the caller has it");
        let client = worker.client.expect("only those that are there are given tasks");
        worker.assigned.push_back(task_id);
        let task = self.tasks.get_mut(task_id).expect("the caller has it");
        if !matches!(task.kind, Kind::Call(_)) {
            worker.runs = Some(task.work.function);
        }
        task.stage = Stage::Assigned(id);
        let (actor, create) = match task.kind {
            Kind::Task(_) => (None, false),
            Kind::Make(actor) => (Some(actor), true),
            Kind::Call(actor) => (Some(actor), false),
        };
        let mut values = Vec::with_capacity(task.work.needs.len());
        let mut given = Vec::new();
        for &contained in &task.work.contains {
            self.results.hold(client, contained);
            given.push(contained);
        }
        for &need in &task.work.needs {
            let outcome = self.results.outcome(need).expect("a task that is ready has what it needs").clone();
            for &contained in &outcome.contains {
                self.results.hold(client, contained);
                given.push(contained);
            }
            match outcome.value {
                Ok(value) => values.push(value),
                Err(_) => unreachable!("a task whose need failed was failed when it became ready"),
            }
        }
        let task = self.tasks.get(task_id).expect("as above");
        self.out.push(Action::Run {
            client,
            task: task_id,
            actor,
            create,
            function: task.work.function,
            payload: task.work.payload.clone(),
            values,
            given,
            returns: task.work.returns,
        });
    }

    pub(super) fn dispatch(&mut self) {
        // How many workers more of each environment there would be work for.
        let mut wanted: BTreeMap<u64, usize> = BTreeMap::new();
        self.make_actors(&mut wanted);
        let shapes: Vec<ShapeKey> = self.shapes.keys().collect();
        if !shapes.is_empty() {
            let first = self.turn as usize % shapes.len();
            for &shape in shapes[first..].iter().chain(&shapes[..first]) {
                self.serve(shape, &mut wanted);
            }
        }
        for (environment, count) in wanted {
            self.start_workers(environment, count);
        }
    }

    pub(super) fn make_actors(&mut self, wanted: &mut BTreeMap<u64, usize>) {
        let mut later = VecDeque::new();
        while let Some(task) = self.makers.pop_front() {
            let Some(Kind::Make(id)) = self.tasks.get(task).map(|task| task.kind) else { continue };
            let actor = self.actors.get_mut(id).expect("it is to be made");
            if !actor.resources.fits(&self.available) {
                later.push_back(task);
                continue;
            }
            let Some(worker) = self.workers.take_idle(actor.environment) else {
                *wanted.entry(actor.environment).or_default() += 1;
                later.push_back(task);
                continue;
            };
            actor.life = Life::Making(worker);
            self.available.take(&actor.resources, &mut self.debt);
            let entry = self.workers.get_mut(worker).expect("it was idle");
            (entry.role, entry.occupies) = (Role::Actor(id), actor.resources.clone());
            self.assign(worker, task);
        }
        self.makers = later;
    }

    /// Gives tasks of one queue to workers.
    pub(super) fn serve(&mut self, key: ShapeKey, wanted: &mut BTreeMap<u64, usize>) {
        // Workers more that would have work: the most that there were at a time, not one for each task.
        let mut missing = 0;
        while let Some(&task) = self.shapes.get(key).ready.front() {
            let shape = self.shapes.get(key);
            let fits = shape.resources.fits(&self.available);
            if fits && let Some(worker) = self.workers.take_idle(shape.environment) {
                self.available.take(&shape.resources, &mut self.debt);
                let entry = self.workers.get_mut(worker).expect("it was idle");
                (entry.role, entry.occupies) = (Role::Leased(key), shape.resources.clone());
                let shape = self.shapes.get_mut(key);
                shape.leased.push(worker);
                shape.ready.pop_front();
                self.assign(worker, task);
                continue;
            }
            if fits {
                missing = missing.max(self.fitting(key));
            }
            let Some(worker) = self.worker_with_room(key, task) else { break };
            self.shapes.get_mut(key).ready.pop_front();
            self.assign(worker, task);
        }
        if missing > 0 {
            *wanted.entry(self.shapes.get(key).environment).or_default() += missing;
        }
        if self.shapes.get(key).ready.is_empty() {
            self.steal(key);
        }
    }

    /// How many of the queue's tasks would find room besides those that run.
    pub(super) fn fitting(&self, key: ShapeKey) -> usize {
        let shape = self.shapes.get(key);
        let (mut left, mut debt, mut count) = (self.available.clone(), Resources::default(), 0);
        while count < shape.ready.len() && count < self.options.idle_workers.max(1) && shape.resources.fits(&left) {
            left.take(&shape.resources, &mut debt);
            count += 1;
        }
        count
    }

    /// A worker of the queue's that may be given one more task ahead; the one that has fewest.
    pub(super) fn worker_with_room(&self, key: ShapeKey, task: TaskId) -> Option<WorkerId> {
        let function = self.tasks.get(task)?.work.function;
        // While others wait for the processor, nobody is served ahead.
        let depth = if self.others_wait(key) { 1 } else { self.shapes.depth(function) };
        let leased = self.shapes.get(key).leased.iter().filter_map(|&id| Some((id, self.workers.get(id)?)));
        leased
            .filter(|(_, worker)| worker.blocked == 0 && !worker.recalled && worker.assigned.len() < depth)
            .min_by_key(|(_, worker)| worker.assigned.len())
            .map(|(id, _)| id)
    }

    pub(super) fn others_wait(&self, key: ShapeKey) -> bool {
        !self.makers.is_empty()
            || self.shapes.keys().any(|other| other != key && !self.shapes.get(other).ready.is_empty())
    }

    /// A worker idles while another of the same queue has more than it runs: it is asked to give half of that back.
    pub(super) fn steal(&mut self, key: ShapeKey) {
        let shape = self.shapes.get(key);
        if self.workers.idle_of(shape.environment) == 0 || !shape.resources.fits(&self.available) {
            return;
        }
        let richest = shape.leased.iter().copied().max_by_key(|&id| self.workers.get(id).map(|w| w.assigned.len()));
        let Some(worker) = richest.and_then(|id| self.workers.get_mut(id)) else { return };
        if let (Some(client), 2.., false) = (worker.client, worker.assigned.len(), worker.recalled) {
            worker.recalled = true;
            let most = (worker.assigned.len() / 2) as u32;
            self.out.push(Action::Recall { client, most });
        }
    }

    pub(super) fn start_workers(&mut self, environment: u64, count: usize) {
        for _ in self.workers.starting_of(environment)..count {
            if self.workers.len() >= self.options.max_workers {
                // One that idles for other needs makes room.
                let Some(other) = self.workers.take_idle_but(environment) else { return };
                self.end_worker(other);
                return;
            }
            let worker = self.workers.start(environment);
            self.out.push(Action::Start { worker, environment });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::*;

    /// However many tasks wait, no more workers are started than there is room for.
    #[test]
    fn as_many_workers_are_started_as_can_work() {
        let (driver, first) = (ClientId(0), ClientId(1));
        let mut hub = Hub::new(HubOptions::cpus(2));
        let mut step = |event| {
            let mut actions = Vec::new();
            hub.step(0, event, &mut actions);
            actions
        };
        let started = |actions: &[Action<()>]| actions.iter().filter(|it| matches!(it, Action::Start { .. })).count();
        let submit = |number| Event::Submit {
            client: driver,
            task: TaskSpec {
                id: TaskId { client: driver, number },
                parent: None,
                work: Work {
                    function: FunctionId(1),
                    payload: (),
                    needs: Vec::new(),
                    contains: Vec::new(),
                    returns: 1,
                    retries: 0,
                    retry_raised: false,
                },
                resources: Resources::cpu(ONE_CPU),
                environment: 0,
            },
            want: false,
        };
        let finish = |number| Event::Finished {
            client: first,
            task: TaskId { client: driver, number },
            outcomes: vec![Outcome { value: Ok(()), contains: Vec::new() }],
            micros: 1,
        };
        step(Event::DriverUp { client: driver });
        let mut count = 0;
        for number in 0..1000 {
            count += started(&step(submit(number)));
        }
        assert_eq!(count, 2, "one for each processor");
        // One is there and is given many ahead, while there is room for the other.
        count += started(&step(Event::WorkerUp { client: first, worker: WorkerId(1) }));
        for number in 0..500 {
            count += started(&step(finish(number)));
        }
        assert_eq!(count, 2, "and not one for each task");
        // The other fails to start: one more.
        count += started(&step(Event::WorkerFailed { worker: WorkerId(2), why: String::new() }));
        count += started(&step(finish(500)));
        assert_eq!(count, 3);
    }
}
