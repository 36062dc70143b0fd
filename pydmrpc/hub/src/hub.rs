//! The events, and what they do.

use crate::actors::{Actor, Actors, Life};
use crate::event::{Action, ActorSpec, CallSpec, Event, Failure, Now, Outcome, TaskSpec, Work};
use crate::history::History;
use crate::id::{ActorId, ClientId, FunctionId, ResultId, TaskId, WorkerId};
use crate::resources::{ONE_CPU, Resources};
use crate::results::Results;
use crate::streams::{STREAM, Streams, TAKEN};
use crate::tasks::{Kind, ShapeKey, Stage, Task, Tasks};
use crate::workers::{Role, Shapes, Workers};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// So many workers in a row that end before they are there, and what waits for one fails.
const MAX_FAILED_STARTS: u32 = 4;

/// What a hub has to give.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// What tasks and actors may occupy together.
    pub total: Resources,
    /// Workers at the same time, those that are blocked included.
    pub max_workers: usize,
    /// Workers that are kept although there is nothing to do.
    pub idle_workers: usize,
    /// Tasks and calls that are not done.
    pub max_tasks: usize,
    /// Calls that the worker of an actor is given at a time; others wait here.
    pub max_assigned: usize,
}

impl HubOptions {
    /// For so many processors.
    pub fn cpus(cpus: u64) -> Self {
        Self {
            total: Resources::cpu(cpus * ONE_CPU),
            max_workers: 1000,
            idle_workers: cpus as usize,
            max_tasks: 10_000_000,
            max_assigned: 10_000,
        }
    }
}

/// How much there is of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Tasks and calls that are not done.
    pub tasks: usize,
    /// Results that somebody keeps, actors' handles included.
    pub results: usize,
    /// Actors, dead ones included whose handles are still about.
    pub actors: usize,
    /// Workers.
    pub workers: usize,
    /// What is free.
    pub available: Resources,
}

/// The tasks, actors, results and workers of Python programs.
pub struct Hub<P> {
    pub(crate) options: HubOptions,
    pub(crate) tasks: Tasks<P>,
    pub(crate) results: Results<P>,
    pub(crate) streams: Streams<P>,
    pub(crate) history: History,
    now: Now,
    pub(crate) actors: Actors<P>,
    pub(crate) workers: Workers,
    pub(crate) shapes: Shapes,
    /// Actors that are ready to be made.
    makers: VecDeque<TaskId>,
    drivers: BTreeSet<ClientId>,
    pub(crate) available: Resources,
    /// What is occupied beyond the total, by what was blocked and went on.
    pub(crate) debt: Resources,
    /// Which queue is served first.
    turn: u32,
    /// Workers in a row that ended before they were there, by environment.
    failed_starts: BTreeMap<u64, u32>,
    /// Something became ready to run, or room to run it.
    restless: bool,
    out: Vec<Action<P>>,
}

impl<P: Clone> Hub<P> {
    /// A hub without anybody.
    pub fn new(options: HubOptions) -> Self {
        Self {
            available: options.total.clone(),
            options,
            tasks: Tasks::new(),
            results: Results::new(),
            streams: Streams::new(),
            history: History::default(),
            now: 0,
            actors: Actors::new(),
            workers: Workers::default(),
            shapes: Shapes::default(),
            makers: VecDeque::new(),
            drivers: BTreeSet::new(),
            debt: Resources::default(),
            turn: 0,
            failed_starts: BTreeMap::new(),
            restless: false,
            out: Vec::new(),
        }
    }

    /// Something happened; what is to be done is appended to `out`, in order.
    pub fn step(&mut self, now: Now, event: Event<P>, out: &mut Vec<Action<P>>) {
        self.now = now;
        // What was to be done between two steps comes first.
        out.append(&mut self.out);
        std::mem::swap(&mut self.out, out);
        // What these say changes nothing about who may run; what they lead to says so itself.
        self.restless |= !matches!(
            event,
            Event::Call { .. }
                | Event::Submit { .. }
                | Event::Finished { .. }
                | Event::Want { .. }
                | Event::Release { .. }
                | Event::Yielded { .. }
        );
        match event {
            Event::DriverUp { client } => {
                self.drivers.insert(client);
            }
            Event::WorkerUp { client, worker } => self.worker_up(client, worker),
            Event::WorkerFailed { worker, why } => self.worker_failed(worker, &why),
            Event::ClientDown { client, why } => self.client_down(client, &why),
            Event::Submit { client, task, want } => self.submit(client, task, want),
            Event::Create { client, actor } => self.create(client, actor),
            Event::Call { client, call, want } => self.call(client, call, want),
            Event::Finished { client, task, outcomes, micros } => self.finished(client, task, outcomes, micros),
            Event::Yielded { client, result, outcome } => self.yielded(client, result, outcome),
            Event::Returned { client, tasks } => self.returned(client, &tasks),
            Event::Blocked { client } => self.blocked(client),
            Event::Unblocked { client } => self.unblocked(client),
            Event::Want { client, result } => self.want(client, result),
            Event::Release { client, results } => {
                for (result, count) in results {
                    self.results.release(client, result, count);
                }
            }
            Event::Cancel { task, force, recursive } => self.cancel(task, force, recursive),
            Event::Kill { actor, restart } => self.kill(actor, restart),
            Event::Exits { client } => self.exits(client),
            Event::Tick => {}
        }
        while let Some(actor) = self.results.pop_abandoned() {
            self.leave_if_unreachable(actor);
        }
        while let Some(task) = self.results.pop_dropped() {
            self.drop_stream(task);
        }
        if std::mem::take(&mut self.restless) {
            self.dispatch();
        }
        std::mem::swap(&mut self.out, out);
    }

    /// The value of a result, if it is there.
    pub fn outcome(&self, result: ResultId) -> Option<&Outcome<P>> {
        self.results.outcome(result)
    }

    /// Whether anybody keeps the result.
    pub fn is_kept(&self, result: ResultId) -> bool {
        self.results.is_kept(result)
    }

    /// A client takes one more hold of a result that it can name because somebody gave it the name. `false` if it is gone.
    ///
    /// The next value of a task whose values come one by one is promised by that.
    pub fn hold(&mut self, client: ClientId, result: ResultId) -> bool {
        if result.index != 0 && result.actor().is_none() && self.streams.get_mut(result.task).is_some() {
            return self.expect(client, result);
        }
        self.results.hold(client, result)
    }

    /// A client takes a handle of an actor that lives on although nobody has one. `false` if it does not live.
    pub fn revive(&mut self, client: ClientId, actor: ActorId) -> bool {
        let lives = self.actors.get(actor).is_some_and(|actor| actor.failure().is_none());
        lives && self.results.promise(client, actor.handle(), false)
    }

    /// What there is to give.
    pub fn total(&self) -> &Resources {
        &self.options.total
    }

    /// The living actor of this namespace and name.
    pub fn named(&self, namespace: &str, name: &str) -> Option<ActorId> {
        self.actors.named(namespace, name)
    }

    /// Namespaces and names of all living actors that have one.
    pub fn names(&self) -> impl Iterator<Item = (&(String, String), ActorId)> {
        self.actors.names()
    }

    /// The class of an actor.
    pub fn class(&self, actor: ActorId) -> Option<FunctionId> {
        Some(self.actors.get(actor)?.work.function)
    }

    /// The worker that runs something, if nothing else is to be run or runs.
    pub fn only_runner(&self) -> Option<ClientId> {
        if self.tasks.len() != 1 {
            return None;
        }
        let (_, task) = self.tasks.iter().next()?;
        let Stage::Assigned(worker) = task.stage else { return None };
        self.workers.get(worker)?.client
    }

    /// How much there is of everything.
    pub fn totals(&self) -> Totals {
        Totals {
            tasks: self.tasks.len(),
            results: self.results.len(),
            actors: self.actors.len(),
            workers: self.workers.len(),
            available: self.available.clone(),
        }
    }

    // Clients.

    fn worker_failed(&mut self, id: WorkerId, why: &str) {
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

    fn worker_up(&mut self, client: ClientId, worker: WorkerId) {
        if let Some(environment) = self.workers.get(worker).map(|worker| worker.environment) {
            self.failed_starts.remove(&environment);
        }
        if self.workers.up(worker, client) {
            self.workers.set_idle(worker);
        }
    }

    fn client_down(&mut self, client: ClientId, why: &str) {
        self.drivers.remove(&client);
        self.actors.forget_caller(client);
        if let Some(worker) = self.workers.of(client) {
            self.worker_down(worker, why);
        }
        self.results.forget_client(client);
    }

    fn worker_down(&mut self, id: WorkerId, why: &str) {
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

    // Tasks.

    fn submit(&mut self, client: ClientId, spec: TaskSpec<P>, want: bool) {
        let TaskSpec { id, parent, work, resources, environment } = spec;
        if self.promise(client, id, &work, want) {
            let shape = self.shapes.key(&resources, environment);
            self.admit(client, id, parent, Kind::Task(shape), work);
        }
    }

    /// Promises the results of a new task. `false` if there can't be one of this name.
    fn promise(&mut self, client: ClientId, id: TaskId, work: &Work<P>, want: bool) -> bool {
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
    fn admit(&mut self, client: ClientId, id: TaskId, parent: Option<TaskId>, kind: Kind, mut work: Work<P>) {
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
    fn ready(&mut self, id: TaskId) {
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
                self.send_line(actor, client);
            }
        }
    }

    /// A task that was assigned goes back to the head of its queue.
    fn requeue(&mut self, id: TaskId) {
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
    fn retry(&mut self, id: TaskId, why: &str) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if !task.cancelled && task.retries > 0 {
            task.retries = less(task.retries);
            self.requeue(id);
        } else {
            self.fail(id, Failure::WorkerDied(why.to_owned()));
        }
    }

    /// The task ends without a value. It must not stand in a queue, or be about to be taken out of it.
    fn fail(&mut self, id: TaskId, failure: Failure<P>) {
        let Some(task) = self.tasks.get(id) else { return };
        let failure = if task.cancelled { Failure::Cancelled } else { failure };
        let kind = task.kind;
        self.complete(id, vec![Outcome::failed(failure)]);
        if let Kind::Make(actor) = kind {
            self.bury(actor, "an argument of its class failed or is gone".into());
        }
    }

    /// The task is done.
    fn complete(&mut self, id: TaskId, outcomes: Vec<Outcome<P>>) {
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

    fn let_go(&mut self, needs: &[ResultId], contains: &[ResultId]) {
        for &result in needs.iter().chain(contains) {
            self.results.let_go(result, 1);
        }
    }

    fn fulfil(&mut self, result: ResultId, outcome: Outcome<P>) {
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

    fn want(&mut self, client: ClientId, result: ResultId) {
        if self.results.outcome(result).is_some() {
            self.deliver(client, result);
        } else if !self.results.want(client, result) {
            let outcome = Outcome::failed(Failure::Lost("nobody kept it".into()));
            self.out.push(Action::Deliver { client, result, outcome });
        }
    }

    fn deliver(&mut self, client: ClientId, result: ResultId) {
        let Some(outcome) = self.results.outcome(result).cloned() else { return };
        for &contained in &outcome.contains {
            self.results.hold(client, contained);
        }
        self.out.push(Action::Deliver { client, result, outcome });
    }

    fn cancel(&mut self, id: TaskId, force: bool, recursive: bool) {
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
                // What an actor did not begin will not be, even if it begins it before it hears of that.
                let place = self.workers.get(worker).and_then(|worker| worker.assigned.iter().position(|&it| it == id));
                if let (Kind::Call(_), Some(1..), Some(task)) = (kind, place, self.tasks.get_mut(id)) {
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

    // What workers say.

    fn finished(&mut self, client: ClientId, id: TaskId, outcomes: Vec<Outcome<P>>, micros: u32) {
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
    fn yielded(&mut self, client: ClientId, result: ResultId, outcome: Outcome<P>) {
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
    fn expect(&mut self, client: ClientId, result: ResultId) -> bool {
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
    fn end_stream(&mut self, id: TaskId, failure: Option<Failure<P>>) {
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
    fn drop_stream(&mut self, id: TaskId) {
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

    fn returned(&mut self, client: ClientId, tasks: &[TaskId]) {
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

    fn blocked(&mut self, client: ClientId) {
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

    fn unblocked(&mut self, client: ClientId) {
        let Some(worker) = self.workers.of(client).and_then(|id| self.workers.get_mut(id)) else { return };
        if worker.blocked == 1 {
            self.available.take(&worker.occupies, &mut self.debt);
        }
        worker.blocked = worker.blocked.saturating_sub(1);
    }

    /// A worker that has nothing to run any more serves its queue on, or others.
    fn end_lease_if_done(&mut self, id: WorkerId) {
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

    fn stop_idle(&mut self, environment: u64) {
        if let Some(worker) = self.workers.take_idle(environment) {
            self.end_worker(worker);
        }
    }

    fn end_worker(&mut self, worker: WorkerId) {
        self.workers.get_mut(worker).expect("it was idle").role = Role::Ending;
        self.out.push(Action::Stop { worker });
    }

    // Actors.

    fn create(&mut self, client: ClientId, spec: ActorSpec<P>) {
        let ActorSpec { id, work, resources, environment, name, detached } = spec;
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

    fn call(&mut self, client: ClientId, spec: CallSpec<P>, want: bool) {
        let CallSpec { id, actor, parent, work } = spec;
        if !self.promise(client, id, &work, want) {
            return;
        }
        let failure = match self.actors.get(actor) {
            Some(actor) => actor.failure(),
            None => Some(Failure::ActorDied("it ended, or never was".into())),
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
    fn leave_line(&mut self, actor: ActorId, client: ClientId, call: TaskId) {
        if let Some(calls) = self.actors.get_mut(actor).and_then(|actor| actor.callers.get_mut(&client)) {
            calls.retain(|&other| other != call);
        }
    }

    /// Gives the actor's worker what each caller's line has ready at its head.
    fn send_calls(&mut self, id: ActorId) {
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
    fn has_room(&self, worker: WorkerId) -> bool {
        self.workers.get(worker).is_some_and(|worker| worker.assigned.len() < self.options.max_assigned)
    }

    /// As [`send_calls`](Self::send_calls) for the line of one caller.
    fn send_line(&mut self, id: ActorId, caller: ClientId) {
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
    fn next_call(&mut self, id: ActorId, caller: ClientId) -> Option<TaskId> {
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
    fn fail_calls(&mut self, id: ActorId) {
        let Some(actor) = self.actors.get_mut(id) else { return };
        let Some(failure) = actor.failure() else { return };
        for call in std::mem::take(&mut actor.callers).into_values().flatten() {
            self.fail(call, failure.clone());
        }
    }

    /// The class has run, on the worker that was to have the actor.
    fn made(&mut self, id: ActorId, worker: WorkerId, outcomes: Vec<Outcome<P>>) {
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
    fn actor_down(&mut self, id: ActorId, assigned: &VecDeque<TaskId>, why: &str) {
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
            self.fail(call, if again { Failure::ActorUnavailable(why) } else { Failure::ActorDied(why) });
        }
    }

    fn make_again(&mut self, id: ActorId) {
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
            parent: None,
            micros: 0,
        };
        self.tasks.insert(id.0, task);
        self.restless = true;
        self.makers.push_back(id.0);
    }

    /// The actor is no more.
    fn bury(&mut self, id: ActorId, why: String) {
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
    fn leave_if_unreachable(&mut self, id: ActorId) {
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
    fn end_coming(&mut self, id: ActorId, why: &str) {
        self.makers.retain(|&other| other != id.0);
        self.complete(id.0, Vec::new());
        self.bury(id, why.into());
    }

    fn kill(&mut self, id: ActorId, restart: bool) {
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
    fn exits(&mut self, client: ClientId) {
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

    // Who runs what.

    /// Gives a task to a worker, behind what it has.
    fn assign(&mut self, id: WorkerId, task_id: TaskId) {
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

    fn dispatch(&mut self) {
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

    fn make_actors(&mut self, wanted: &mut BTreeMap<u64, usize>) {
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
    fn serve(&mut self, key: ShapeKey, wanted: &mut BTreeMap<u64, usize>) {
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
                *wanted.entry(shape.environment).or_default() += self.fitting(key);
            }
            let Some(worker) = self.worker_with_room(key, task) else { return };
            self.shapes.get_mut(key).ready.pop_front();
            self.assign(worker, task);
        }
        self.steal(key);
    }

    /// How many of the queue's tasks would find room besides those that run.
    fn fitting(&self, key: ShapeKey) -> usize {
        let shape = self.shapes.get(key);
        let (mut left, mut debt, mut count) = (self.available.clone(), Resources::default(), 0);
        while count < shape.ready.len() && count < self.options.idle_workers.max(1) && shape.resources.fits(&left) {
            left.take(&shape.resources, &mut debt);
            count += 1;
        }
        count
    }

    /// A worker of the queue's that may be given one more task ahead; the one that has fewest.
    fn worker_with_room(&self, key: ShapeKey, task: TaskId) -> Option<WorkerId> {
        let function = self.tasks.get(task)?.work.function;
        // While others wait for the processor, nobody is served ahead.
        let depth = if self.others_wait(key) { 1 } else { self.shapes.depth(function) };
        let leased = self.shapes.get(key).leased.iter().filter_map(|&id| Some((id, self.workers.get(id)?)));
        leased
            .filter(|(_, worker)| worker.blocked == 0 && !worker.recalled && worker.assigned.len() < depth)
            .min_by_key(|(_, worker)| worker.assigned.len())
            .map(|(id, _)| id)
    }

    fn others_wait(&self, key: ShapeKey) -> bool {
        !self.makers.is_empty()
            || self.shapes.keys().any(|other| other != key && !self.shapes.get(other).ready.is_empty())
    }

    /// A worker idles while another of the same queue has more than it runs: it is asked to give half of that back.
    fn steal(&mut self, key: ShapeKey) {
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

    fn start_workers(&mut self, environment: u64, count: usize) {
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

/// One try less, unless there is no end to them.
fn less(tries: u32) -> u32 {
    if tries == u32::MAX { tries } else { tries.saturating_sub(1) }
}
