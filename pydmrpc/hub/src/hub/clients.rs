//! Clients and workers that come and go.

use super::{Hub, MAX_FAILED_STARTS};
use crate::event::Failure;
use crate::id::{ActorId, ClientId, WorkerId};
use crate::workers::Role;

impl<P: Clone> Hub<P> {
    pub(super) fn worker_failed(&mut self, id: WorkerId, why: &str) {
        let Some(environment) = self.workers.get(id).map(|worker| worker.environment) else { return };
        self.worker_down(id, why);
        let failed = self.failed_starts.entry(environment).or_default();
        *failed += 1;
        if *failed < MAX_FAILED_STARTS {
            return;
        }
        // There is no worker to be had: what waits for one would wait for ever.
        *failed = 0;
        let why = format!("no worker for it could be started: {why}");
        for key in self.shapes.keys() {
            if self.shapes.get(key).environment == environment && self.shapes.get(key).leased.is_empty() {
                for task in std::mem::take(&mut self.shapes.get_mut(key).ready) {
                    self.fail(task, Failure::WorkerDied(why.clone()));
                }
            }
        }
        let makers: Vec<ActorId> = self.makers.iter().map(|&task| ActorId(task)).collect();
        for actor in makers {
            if self.actors.get(actor).is_some_and(|actor| actor.environment == environment) {
                self.end_coming(actor, &why);
            }
        }
    }

    pub(super) fn worker_up(&mut self, client: ClientId, worker: WorkerId) {
        if let Some(environment) = self.workers.get(worker).map(|worker| worker.environment) {
            self.failed_starts.remove(&environment);
        }
        if self.workers.up(worker, client) {
            self.workers.set_idle(worker);
        }
    }

    pub(super) fn client_down(&mut self, client: ClientId, why: &str) {
        self.drivers.remove(&client);
        self.actors.forget_caller(client);
        if let Some(worker) = self.workers.of(client) {
            self.worker_down(worker, why);
        }
        self.results.forget_client(client);
    }

    pub(super) fn worker_down(&mut self, id: WorkerId, why: &str) {
        let Some(worker) = self.workers.remove(id) else { return };
        if worker.blocked == 0 {
            self.available.give(&worker.occupies, &mut self.debt);
        }
        match worker.role {
            Role::Starting | Role::Idle => {}
            Role::Leased(_) | Role::Ending => {
                if let Role::Leased(shape) = worker.role {
                    self.shapes.get_mut(shape).leased.retain(|&other| other != id);
                }
                // The first was begun, the others were not.
                for (place, &task) in worker.assigned.iter().enumerate().rev() {
                    if place > 0 { self.requeue(task) } else { self.retry(task, why) }
                }
            }
            Role::Actor(actor) => self.actor_down(actor, &worker.assigned, why),
        }
    }
}
