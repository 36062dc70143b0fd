//! Tasks whose values come one by one, as many as they like.
//!
//! Result 0 of such a task is there at its end; its values are results 1, 2, …. Whoever iterates takes hold of them one after another,
//! of those that are there and of the next one, which is promised by that. What was made and not taken is kept here until the last
//! reference to result 0 is gone. After the last value comes the failure, if the task failed, and then [`Failure::NoMoreValues`].

use crate::event::Failure;
use crate::id::TaskId;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// [`Work::returns`](crate::Work::returns) of a task whose values come one by one.
pub const STREAM: u32 = u32::MAX;

/// With this bit an index stands for no value, but for its being taken: who makes values waits for that so as not to run far ahead.
pub const TAKEN: u32 = 1 << 31;

/// The values of a task, as far as they are known.
pub(crate) struct Stream<P> {
    /// The last value that was made.
    pub(crate) made: u32,
    /// The last value that was asked for.
    pub(crate) taken: u32,
    /// Values that were made and nobody has asked for: the stream keeps them.
    pub(crate) kept: BTreeSet<u32>,
    /// Values that were asked for and are not made.
    pub(crate) expected: BTreeSet<u32>,
    /// Values that somebody waits for to be taken.
    pub(crate) awaited: BTreeSet<u32>,
    /// Nobody has a reference to result 0 any more.
    pub(crate) dropped: bool,
    /// The task is done, and failed for this reason.
    pub(crate) ended: Option<Option<Failure<P>>>,
}

impl<P> Stream<P> {
    fn new() -> Self {
        Self {
            made: 0,
            taken: 0,
            kept: BTreeSet::new(),
            expected: BTreeSet::new(),
            awaited: BTreeSet::new(),
            dropped: false,
            ended: None,
        }
    }

    /// What a value is that was asked for and will never be made.
    pub(crate) fn end_at(&self, index: u32) -> Failure<P>
    where
        P: Clone,
    {
        match &self.ended {
            Some(Some(failure)) if index == self.made + 1 => failure.clone(),
            _ => Failure::NoMoreValues,
        }
    }
}

/// All of them, by their tasks.
pub(crate) struct Streams<P>(FxHashMap<TaskId, Stream<P>>);

impl<P> Streams<P> {
    pub(crate) fn new() -> Self {
        Self(FxHashMap::default())
    }

    pub(crate) fn begin(&mut self, task: TaskId) {
        self.0.insert(task, Stream::new());
    }

    pub(crate) fn get_mut(&mut self, task: TaskId) -> Option<&mut Stream<P>> {
        self.0.get_mut(&task)
    }

    pub(crate) fn remove(&mut self, task: TaskId) {
        self.0.remove(&task);
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TaskId, &Stream<P>)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use crate::*;

    const DRIVER: ClientId = ClientId(1);
    const WORKER: ClientId = ClientId(2);
    const TASK: TaskId = TaskId { client: DRIVER, number: 1 };

    struct World {
        hub: Hub<u64>,
        delivered: Vec<(u32, Result<u64, Failure<u64>>)>,
    }

    impl World {
        /// A task that yields has begun.
        fn new(retries: u32) -> Self {
            let mut world = Self { hub: Hub::new(HubOptions::cpus(1)), delivered: Vec::new() };
            world.step(Event::DriverUp { client: DRIVER });
            let work = Work {
                function: FunctionId(7),
                payload: 0,
                needs: Vec::new(),
                contains: Vec::new(),
                returns: STREAM,
                retries,
                retry_raised: false,
            };
            let task = TaskSpec { id: TASK, parent: None, work, resources: Resources::cpu(1000), environment: 0 };
            world.step(Event::Submit { client: DRIVER, task, want: false });
            world.step(Event::WorkerUp { client: WORKER, worker: WorkerId(1) });
            world
        }

        fn step(&mut self, event: Event<u64>) {
            let mut actions = Vec::new();
            self.hub.step(0, event, &mut actions);
            for action in actions {
                if let Action::Deliver { result, outcome, .. } = action {
                    self.delivered.push((result.index, outcome.value));
                }
            }
            self.hub.recount();
        }

        fn yields(&mut self, index: u32) {
            let outcome = Outcome { value: Ok(u64::from(index) * 10), contains: Vec::new() };
            self.step(Event::Yielded { client: WORKER, result: TASK.result(index), outcome });
        }

        fn asks(&mut self, index: u32) {
            assert!(self.hub.hold(DRIVER, TASK.result(index)));
            self.step(Event::Want { client: DRIVER, result: TASK.result(index) });
        }

        fn ends(&mut self, value: Result<u64, Failure<u64>>) {
            let outcomes = vec![Outcome { value, contains: Vec::new() }];
            self.step(Event::Finished { client: WORKER, task: TASK, outcomes, micros: 1 });
        }

        fn release(&mut self, index: u32) {
            self.step(Event::Release { client: DRIVER, results: vec![(TASK.result(index), 1)] });
        }

        fn taken(&mut self) -> Vec<(u32, Result<u64, Failure<u64>>)> {
            std::mem::take(&mut self.delivered)
        }
    }

    #[test]
    fn values_come_before_and_after_they_are_asked_for() {
        let mut world = World::new(0);
        world.asks(1);
        assert_eq!(world.taken(), []);
        world.yields(1);
        assert_eq!(world.taken(), [(1, Ok(10))]);
        world.yields(2);
        world.asks(2);
        world.asks(3);
        assert_eq!(world.taken(), [(2, Ok(20))]);
        world.ends(Ok(0));
        world.asks(4);
        assert_eq!(world.taken(), [(3, Err(Failure::NoMoreValues)), (4, Err(Failure::NoMoreValues))]);
        for index in 0..=4 {
            world.release(index);
        }
        assert_eq!(world.hub.totals().results, 0);
    }

    #[test]
    fn a_failure_is_the_last_value() {
        let mut world = World::new(0);
        world.yields(1);
        world.ends(Err(Failure::Raised(5)));
        (1..4).for_each(|index| world.asks(index));
        let end = Err(Failure::NoMoreValues);
        assert_eq!(world.taken(), [(1, Ok(10)), (2, Err(Failure::Raised(5))), (3, end)]);
    }

    #[test]
    fn what_nobody_takes_goes_with_the_first_result() {
        let mut world = World::new(0);
        (1..4).for_each(|index| world.yields(index));
        world.asks(1);
        world.release(0);
        assert_eq!(world.hub.totals().results, 1);
        world.yields(4);
        world.release(1);
        world.ends(Ok(0));
        assert_eq!(world.hub.totals().results, 0);
    }

    #[test]
    fn who_makes_values_can_wait_until_they_are_taken() {
        let mut world = World::new(0);
        world.yields(1);
        assert!(world.hub.hold(WORKER, TASK.result(1 | TAKEN)));
        world.step(Event::Want { client: WORKER, result: TASK.result(1 | TAKEN) });
        assert_eq!(world.taken(), []);
        world.asks(1);
        assert_eq!(world.taken(), [(1 | TAKEN, Err(Failure::NoMoreValues)), (1, Ok(10))]);
    }

    #[test]
    fn a_task_that_is_tried_again_makes_no_value_twice() {
        let mut world = World::new(1);
        world.yields(1);
        world.yields(2);
        world.step(Event::ClientDown { client: WORKER, why: String::new() });
        world.step(Event::WorkerUp { client: ClientId(3), worker: WorkerId(2) });
        for index in 1..4 {
            let outcome = Outcome { value: Ok(u64::from(index) * 100), contains: Vec::new() };
            world.step(Event::Yielded { client: ClientId(3), result: TASK.result(index), outcome });
        }
        (1..4).for_each(|index| world.asks(index));
        assert_eq!(world.taken(), [(1, Ok(10)), (2, Ok(20)), (3, Ok(300))]);
    }
}
