//! Every count taken again from scratch, for tests.

use crate::hub::Hub;
use crate::id::{ClientId, ResultId};
use crate::tasks::Stage;

impl<P: Clone> Hub<P> {
    /// What a client holds.
    pub(crate) fn holds_of(&self, client: ClientId) -> Vec<ResultId> {
        self.results.holds_of(client)
    }

    /// What is not done, for a failed test to show.
    pub(crate) fn describe(&self) -> String {
        let tasks: Vec<_> = self.tasks.iter().map(|(id, task)| (id, task.kind, task.stage, task.cancelled)).collect();
        let workers: Vec<_> =
            self.workers.iter().map(|(id, w)| (id, w.client, w.role, w.environment, &w.assigned, w.blocked)).collect();
        let actors: Vec<_> = self.actors.all().map(|(_, actor)| (&actor.life, &actor.callers)).collect();
        format!("tasks {tasks:?}\nworkers {workers:?}\nactors {actors:?}\navailable {:?}", self.available)
    }

    /// Panics if a count is not what it should be.
    pub(crate) fn recount(&self) {
        let mut counts = self.results.recount();
        let mut keep = |id: &ResultId| counts.get_mut(id).expect("what is kept is there").1 += 1;
        for (id, task) in self.tasks.iter() {
            // What makes an actor is kept by the actor.
            if !matches!(task.kind, crate::tasks::Kind::Make(_)) {
                task.work.needs.iter().chain(&task.work.contains).for_each(&mut keep);
            }
            if let Stage::Assigned(worker) = task.stage {
                let worker = self.workers.get(worker).expect("a task is assigned to a worker that is there");
                assert!(worker.assigned.contains(&id));
            }
        }
        for (_, actor) in self.actors.all() {
            actor.work.needs.iter().chain(&actor.work.contains).for_each(&mut keep);
        }
        for (id, stream) in self.streams.iter() {
            for &index in &stream.kept {
                counts.get_mut(&id.result(index)).expect("what a stream keeps is there").1 += 1;
            }
        }
        for (id, (said, counted)) in counts {
            assert_eq!(said, counted, "keepers of {id:?}");
            assert!(said > 0, "{id:?} is kept by nobody");
        }
        let (mut cpu, mut assigned) = (self.available.cpu, 0);
        for (_, worker) in self.workers.iter() {
            assigned += worker.assigned.len();
            if worker.blocked == 0 {
                cpu += worker.occupies.cpu;
            }
        }
        assert_eq!(cpu, self.options.total.cpu + self.debt.cpu, "processors");
        let staged = self.tasks.iter().filter(|(_, task)| matches!(task.stage, Stage::Assigned(_))).count();
        assert_eq!(assigned, staged, "tasks that workers have");
    }
}
