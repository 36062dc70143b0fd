//! The way to a hub in another process, and what it sends to a worker.
//!
//! 1. A hub that is gone ends a worker at once, and for a driver everything that it waits for with an error.

use super::client::Client;
use super::output::{Lines, Printed};
use super::payload::Payload;
use super::peer::{self, Inward, Outgoing, PeerError};
use super::slot::Waiter;
use super::turns::Turns;
use dmrpc_fabric::address::Address;
use dmrpc_fabric::listen::connect;
use dmrpc_hub::record::{Record, Who};
use dmrpc_hub::{ActorId, ClientId, Event, Failure, FunctionId, Outcome, ResultId, TaskId};
use dmrpc_objstore::Borrows;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a hub may take to say welcome.
const WELCOME: Duration = Duration::from_secs(10);
/// Records that are read before others have their turn.
const BATCH: usize = 1024;

/// The key of what an actor's event loop listens to.
pub(crate) const LOOP: u64 = 1;
/// Results that are asked for by one record.
const WANTS: usize = 64;

/// Something that a worker is to run.
pub(crate) struct Run {
    pub(crate) task: TaskId,
    pub(crate) actor: Option<ActorId>,
    pub(crate) create: bool,
    pub(crate) function: FunctionId,
    pub(crate) payload: Payload,
    pub(crate) values: Vec<Payload>,
    pub(crate) given: Vec<ResultId>,
    pub(crate) returns: u32,
}

/// What a worker has before it.
#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) runs: VecDeque<Run>,
    pub(crate) functions: FxHashMap<FunctionId, Payload>,
    /// The task that the main thread runs.
    pub(crate) running: Option<TaskId>,
    /// It is to end when it has done what it was given.
    pub(crate) leaves: bool,
    /// Whoever waits for something to run.
    pub(crate) waiter: Option<Arc<Waiter>>,
    /// What the actor's event loop listens to was ready while nobody waited.
    pub(crate) loop_is_ready: bool,
    /// The processor that its caller waits on.
    pub(crate) near: Option<u32>,
    /// The actor that lives here.
    pub(crate) actor: Option<ActorId>,
    /// Tasks that are to be stopped.
    pub(crate) interrupted: Vec<TaskId>,
}

struct Answer {
    waiter: Arc<Waiter>,
    said: Option<(Vec<u8>, Vec<ResultId>)>,
}

/// See the module.
pub(crate) struct Away {
    /// `None` when the session is over.
    outgoing: Mutex<Option<Outgoing>>,
    inward: Mutex<Option<Inward>>,
    ended: AtomicBool,
    pub(crate) inbox: Mutex<Inbox>,
    is_worker: bool,
    questions: Mutex<FxHashMap<u64, Answer>>,
    /// What workers printed that work for this driver.
    pub(crate) printed: Mutex<Lines>,
    next_question: AtomicU64,
    pub(crate) store_url: String,
    pub(crate) about: Vec<u8>,
}

impl Away {
    /// Connects to the hub at a Unix socket; gives what this client is called there.
    pub(crate) fn connect(path: &str, who: Who, turns: &Arc<Turns>) -> Result<(Self, ClientId), PeerError> {
        let deadline = Instant::now() + WELCOME;
        let link = connect(&Address::Unix(path.into()), &peer::options(), deadline)?;
        let wake = turns.clone();
        let (mut outgoing, mut inward) = peer::halves(link, move || wake.nudge());
        outgoing.send(&Record::Hello { who, pid: std::process::id() })?;
        outgoing.flush()?;
        for descriptor in outgoing.descriptors().into_iter().chain(inward.descriptors()) {
            turns
                .add(descriptor, 0)
                .map_err(|error| dmrpc_fabric::link::LinkError::Io { doing: "listening to a link", source: error })?;
        }
        let mut welcome = None;
        while welcome.is_none() {
            let now = Instant::now();
            if now >= deadline {
                return Err(dmrpc_fabric::link::LinkError::Deadline(WELCOME).into());
            }
            inward.receive(1, |record, _| {
                if let Record::Welcome { client, store, about } = record {
                    welcome = Some((*client, (*store).to_owned(), about.to_vec()));
                }
                Ok(())
            })?;
            if welcome.is_none() {
                turns.pause(deadline - now);
            }
        }
        let (client, store_url, about) = welcome.expect("the loop ends with it");
        let away = Self {
            outgoing: Mutex::new(Some(outgoing)),
            inward: Mutex::new(Some(inward)),
            ended: AtomicBool::new(false),
            inbox: Mutex::default(),
            is_worker: matches!(who, Who::Worker(..)),
            questions: Mutex::default(),
            printed: Mutex::default(),
            next_question: AtomicU64::new(0),
            store_url,
            about,
        };
        Ok((away, client))
    }

    /// Sends, unless the session is over.
    fn with(&self, send: impl FnOnce(&mut Outgoing) -> Result<(), PeerError>) {
        let sent = self.outgoing.lock().as_mut().map_or(Ok(()), send);
        if sent.is_err() {
            self.fail();
        }
    }

    fn send(&self, record: &Record<'_>) {
        self.with(|outgoing| outgoing.send(record));
    }

    /// Sends what an event says.
    pub(crate) fn tell(&self, event: &Event<Payload>) {
        if let Some(outgoing) = &mut *self.outgoing.lock() {
            self.tell_with(outgoing, event);
        }
    }

    fn tell_with(&self, outgoing: &mut Outgoing, event: &Event<Payload>) {
        let loans = outgoing.loans.clone();
        let mut table = Vec::new();
        let work = |work, table| peer::wanted(work, &loans, table);
        let sent = match event {
            Event::Submit { task, .. } => work(&task.work, &mut table).map_err(PeerError::from).and_then(|work| {
                outgoing.send(&Record::Submit {
                    task: task.id,
                    parent: task.parent,
                    work,
                    resources: task.resources.clone(),
                    environment: task.environment,
                })
            }),
            Event::Create { actor, .. } => work(&actor.work, &mut table).map_err(PeerError::from).and_then(|work| {
                outgoing.send(&Record::Create {
                    actor: actor.id,
                    work,
                    resources: actor.resources.clone(),
                    environment: actor.environment,
                    name: actor.name.clone(),
                    detached: actor.detached,
                    unordered: actor.unordered,
                })
            }),
            Event::Call { call, .. } => work(&call.work, &mut table).map_err(PeerError::from).and_then(|work| {
                outgoing.send(&Record::Call { task: call.id, actor: call.actor, parent: call.parent, work })
            }),
            Event::Finished { task, outcomes, micros, .. } => {
                let mut tables = vec![Vec::new(); outcomes.len()];
                let came: Result<_, _> = outcomes
                    .iter()
                    .zip(&mut tables)
                    .map(|(outcome, table)| peer::came(outcome, &loans, table))
                    .collect();
                came.map_err(PeerError::from)
                    .and_then(|outcomes| outgoing.send(&Record::Finished { task: *task, outcomes, micros: *micros }))
            }
            Event::Yielded { result, outcome, .. } => peer::came(outcome, &loans, &mut table)
                .map_err(PeerError::from)
                .and_then(|outcome| outgoing.send(&Record::Yielded { result: *result, outcome })),
            Event::Returned { tasks, .. } => outgoing.send(&Record::Returned(tasks.iter().copied().collect())),
            Event::Blocked { .. } => outgoing.send(&Record::Blocked),
            Event::Unblocked { .. } => outgoing.send(&Record::Unblocked),
            Event::Release { results, .. } => outgoing.send(&Record::Release(results.iter().copied().collect())),
            Event::Cancel { task, force, recursive } => {
                outgoing.send(&Record::Cancel { task: *task, force: *force, recursive: *recursive })
            }
            Event::Kill { actor, restart } => outgoing.send(&Record::Kill { actor: *actor, restart: *restart }),
            Event::Exits { .. } => outgoing.send(&Record::Exits),
            Event::DriverUp { .. }
            | Event::WorkerUp { .. }
            | Event::WorkerFailed { .. }
            | Event::ClientDown { .. }
            | Event::Want { .. }
            | Event::Tick => Ok(()),
        };
        if sent.is_err() {
            self.fail();
        }
    }

    /// Sends a release, unless somebody is just sending: then it is put aside.
    pub(crate) fn tell_if_free(&self, event: Event<Payload>, aside: &Mutex<Vec<(ResultId, u32)>>) {
        match self.outgoing.try_lock() {
            Some(mut outgoing) => {
                if let Some(outgoing) = &mut *outgoing {
                    self.tell_with(outgoing, &event);
                }
            }
            None => {
                if let Event::Release { results, .. } = event {
                    aside.lock().extend(results);
                }
            }
        }
    }

    pub(crate) fn define(&self, id: FunctionId, definition: &Payload) {
        self.with(|outgoing| outgoing.send_function(id, || Some(definition.clone())));
    }

    /// Tells which results are waited for.
    pub(crate) fn want(&self, results: impl Iterator<Item = ResultId>) {
        let results: SmallVec<[ResultId; 4]> = results.collect();
        for some in results.chunks(WANTS) {
            self.send(&Record::Want(some.iter().copied().collect()));
        }
    }

    pub(crate) fn hold(&self, result: ResultId) {
        self.send(&Record::Hold([result].into_iter().collect()));
    }

    pub(crate) fn grant(&self, result: ResultId) {
        self.send(&Record::Grant([result].into_iter().collect()));
    }

    /// Moves on what was sent.
    pub(crate) fn flush(&self) {
        self.with(|outgoing| outgoing.flush().map(drop));
    }

    /// Asks the hub something; `waiter` is told when it has answered.
    pub(crate) fn ask(&self, what: &[u8], waiter: &Arc<Waiter>) -> u64 {
        // Relaxed: a number of its own for each.
        let number = self.next_question.fetch_add(1, Ordering::Relaxed);
        self.questions.lock().insert(number, Answer { waiter: waiter.clone(), said: None });
        self.send(&Record::Ask { number, what });
        number
    }

    /// What the hub said.
    pub(crate) fn answer(&self, number: u64) -> Option<(Vec<u8>, Vec<ResultId>)> {
        self.questions.lock().remove(&number)?.said
    }

    /// The hub is gone, or will be.
    fn fail(&self) {
        if self.is_worker {
            // Nobody hears of what it does any more. What it has printed is printed; user code is not asked.
            super::exit();
        }
        self.ended.store(true, Ordering::SeqCst);
    }

    /// What the event loop listens to is ready.
    pub(crate) fn wake_loop(&self, client: &Arc<Client>) {
        let mut inbox = self.inbox.lock();
        match inbox.waiter.take() {
            Some(waiter) => waiter.one_less(client),
            None => inbox.loop_is_ready = true,
        }
    }

    /// Reads what came.
    pub(crate) fn look(&self, client: &Arc<Client>) {
        let Some(mut guard) = self.inward.try_lock() else { return };
        let Some(inward) = &mut *guard else { return };
        loop {
            match inward.receive(BATCH, |record, borrows| self.take(client, record, borrows)) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    self.fail();
                    drop(guard);
                    return self.lose(client);
                }
            }
        }
    }

    fn take(&self, client: &Arc<Client>, record: &Record<'_>, borrows: &Borrows) -> Result<(), PeerError> {
        match record {
            Record::Run { task, actor, create, function, payload, values, given, returns } => {
                self.connect_store(payload.references + values.iter().map(|value| value.references).sum::<u32>())?;
                let run = Run {
                    task: *task,
                    actor: *actor,
                    create: *create,
                    function: *function,
                    payload: Payload::read(payload, borrows)?,
                    values: values.iter().map(|value| Payload::read(value, borrows)).collect::<Result<_, _>>()?,
                    given: given.to_vec(),
                    returns: *returns,
                };
                let mut inbox = self.inbox.lock();
                inbox.actor = run.actor;
                inbox.runs.push_back(run);
                if let Some(waiter) = inbox.waiter.take() {
                    waiter.one_less(client);
                }
            }
            Record::Function { id, definition } => {
                self.connect_store(definition.references)?;
                let definition = Payload::read(definition, borrows)?;
                self.inbox.lock().functions.insert(*id, definition);
            }
            Record::Deliver { result, outcome } => {
                self.connect_store(references(outcome))?;
                client.deliver(*result, peer::outcome(outcome, borrows)?);
            }
            Record::Recall { most } => {
                let tasks = {
                    let mut inbox = self.inbox.lock();
                    let keep = inbox.runs.len().saturating_sub(*most as usize);
                    let recalled = inbox.runs.split_off(keep);
                    recalled.into_iter().map(|run| run.task).collect()
                };
                self.tell(&Event::Returned { client: client.id(), tasks });
                self.flush();
            }
            Record::Interrupt { task } => {
                let mut inbox = self.inbox.lock();
                let place = inbox.runs.iter().position(|run| run.task == *task);
                match place {
                    Some(place) => {
                        inbox.runs.remove(place);
                        drop(inbox);
                        let outcomes = vec![Outcome::failed(Failure::Cancelled)];
                        self.tell(&Event::Finished { client: client.id(), task: *task, outcomes, micros: 0 });
                        self.flush();
                    }
                    None => {
                        inbox.interrupted.push(*task);
                        // A main thread that waits for work sees to it at once.
                        if let Some(waiter) = inbox.waiter.take() {
                            waiter.one_less(client);
                        }
                        drop(inbox);
                        super::worker::interrupt();
                    }
                }
            }
            Record::Near { cpu } => self.inbox.lock().near = *cpu,
            Record::Printed { pid, is_error, line } => {
                let line = (*line).to_owned();
                self.printed.lock().push(Printed { pid: *pid, is_error: *is_error, line });
            }
            Record::Exit => {
                let mut inbox = self.inbox.lock();
                inbox.leaves = true;
                if let Some(waiter) = inbox.waiter.take() {
                    waiter.one_less(client);
                }
            }
            Record::Answer { number, what, given } => {
                let given = given.to_vec();
                let mut questions = self.questions.lock();
                if let Some(answer) = questions.get_mut(number) {
                    answer.said = Some((what.to_vec(), given));
                    answer.waiter.one_less(client);
                } else {
                    drop(questions);
                    self.tell(&Event::Release {
                        client: client.id(),
                        results: given.iter().map(|&id| (id, 1)).collect(),
                    });
                }
            }
            Record::Census { number } => {
                let what = crate::held::list().to_string();
                self.send(&Record::Holdings { number: *number, what: what.as_bytes() });
                self.flush();
            }
            Record::Loans(numbers) => {
                if let Some(outgoing) = &*self.outgoing.lock() {
                    outgoing.loans.returned(numbers);
                }
            }
            _ => return Err(dmrpc_hub::record::Malformed("not from a hub").into()),
        }
        Ok(())
    }

    /// References can be taken by a process only that has a store.
    fn connect_store(&self, references: u32) -> Result<(), PeerError> {
        if references > 0 {
            crate::client::connect_quietly(&self.store_url)?;
        }
        Ok(())
    }

    /// The hub is gone: everything that is waited for ends.
    fn lose(&self, client: &Arc<Client>) {
        let lost = || Failure::Lost("the process that had it, the one with the hub, is gone".into());
        for slot in client.living() {
            if !slot.is_ready() {
                client.deliver(slot.id(), Outcome::failed(lost()));
            }
        }
        for answer in self.questions.lock().values() {
            answer.waiter.one_less(client);
        }
        self.close();
    }

    /// Whether the hub is gone.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// The session is over, and the link ends.
    pub(crate) fn close(&self) {
        if let Some(mut outgoing) = self.outgoing.lock().take() {
            // What was told is told: releases, at the least.
            let _ = outgoing.flush();
            outgoing.close();
        }
        drop(self.inward.lock().take());
    }
}

/// How many references of the store an outcome has.
fn references(came: &dmrpc_hub::record::Came<'_>) -> u32 {
    use dmrpc_hub::record::Failed;
    match &came.value {
        Ok(value) | Err(Failed::Raised(value) | Failed::ActorNotMade(_, value)) => value.references,
        Err(_) => 0,
    }
}
