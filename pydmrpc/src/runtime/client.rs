//! This process as a client of a hub: its own, or one at the other end of a link.
//!
//! 1. What a process tells the hub arrives in the order in which it was told.
//! 2. Nothing here takes the GIL.

use super::away::{Away, LOOP};
use super::home::{Home, OWN};
use super::payload::Payload;
use super::slot::{Delivered, Slot, Waiter};
use super::turns::{Turns, Woken};
use crate::errors;
use crate::fork::Native;
use crate::wait::Deadline;
use dmrpc_hub::{ActorId, ByResult, ClientId, Event, FunctionId, Outcome, ResultId, TaskId};
use parking_lot::Mutex;
use pyo3::prelude::*;
use rustc_hash::FxHashSet;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often a waiting thread looks whether Python got a signal.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);
/// Results that are let go of one by one are told together, so many at a time.
const RELEASES: usize = 64;

thread_local! {
    /// The task that this thread runs.
    static RUNNING: Cell<Option<TaskId>> = const { Cell::new(None) };
}

/// The task that this thread runs, if it runs one.
pub(crate) fn running() -> Option<TaskId> {
    RUNNING.get()
}

/// Says which task this thread runs; gives which it ran.
pub(crate) fn set_running(task: Option<TaskId>) -> Option<TaskId> {
    RUNNING.replace(task)
}

/// See the module.
pub(crate) struct Client {
    home: Native<()>,
    /// Tells it from those before and after it in this process.
    serial: u64,
    id: ClientId,
    turns: Arc<Turns>,
    hub: To,
    slots: Mutex<ByResult<Weak<Slot>>>,
    /// Results whose slots went while the hub was busy.
    went: Mutex<Vec<(ResultId, u32)>>,
    defined: Mutex<FxHashSet<FunctionId>>,
    next: AtomicU32,
    closed: AtomicBool,
}

/// Where the hub is.
pub(crate) enum To {
    /// In this process.
    Home(Box<Mutex<Home>>),
    /// At the other end of a link.
    Away(Box<Away>),
}

impl Client {
    /// A client whose keeper runs.
    pub(crate) fn start(id: ClientId, turns: Arc<Turns>, hub: To) -> std::io::Result<Arc<Self>> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let client = Arc::new(Self {
            home: Native::new(()),
            // Relaxed: a number of its own for each.
            serial: SERIAL.fetch_add(1, Ordering::Relaxed) + 1,
            id,
            turns,
            hub,
            slots: Mutex::default(),
            went: Mutex::default(),
            defined: Mutex::default(),
            next: AtomicU32::new(1),
            closed: AtomicBool::new(false),
        });
        let keeper = client.clone();
        std::thread::Builder::new().name("dmrpc-keeper".into()).spawn(move || keeper.turns.keep(&keeper))?;
        Ok(client)
    }

    /// Which client of this process it is, from 1 on.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn id(&self) -> ClientId {
        self.id
    }

    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    pub(crate) fn turns_of(&self) -> Arc<Turns> {
        self.turns.clone()
    }

    pub(crate) fn hub(&self) -> &To {
        &self.hub
    }

    pub(crate) fn is_closed(&self) -> bool {
        // Relaxed: whoever uses it while another thread closes it may come before or after that.
        self.closed.load(Ordering::Relaxed)
    }

    /// An exception in a forked child and after a shutdown.
    pub(crate) fn check(&self, py: Python<'_>) -> PyResult<()> {
        if self.home.is_foreign() {
            return Err(errors::forked(py));
        }
        if self.is_closed() {
            let message = "the session that this belongs to was shut down; what its tasks and actors returned is gone";
            return Err(errors::named(py, "RaySystemError", message));
        }
        if let To::Away(away) = &self.hub
            && away.has_ended()
        {
            let message = "the process with the hub is gone; call shutdown(), and init() to start or join another";
            return Err(errors::named(py, "LocalRayletDiedError", message));
        }
        Ok(())
    }

    /// A number for a task or an actor of this client's.
    pub(crate) fn next_task(&self) -> TaskId {
        // Relaxed: a number of its own for each.
        TaskId { client: self.id, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    // What the hub is told.

    /// Tells the hub, and sees to it that it hears soon.
    pub(crate) fn tell(self: &Arc<Self>, event: Event<Payload>) {
        match &self.hub {
            To::Home(home) => {
                let mut home = home.lock();
                home.step(self, event);
                if !self.turns.acted() {
                    home.flush(self);
                }
            }
            To::Away(away) => {
                away.tell(&event);
                if !self.turns.acted() {
                    away.flush();
                }
            }
        }
    }

    /// Whether the hub gives this client all results of what it begins, without being asked: where that costs no message.
    pub(crate) fn wants_all(&self) -> bool {
        matches!(self.hub, To::Home(_))
    }

    /// Tells the hub which results are waited for here.
    pub(crate) fn want<'s>(self: &Arc<Self>, slots: impl IntoIterator<Item = &'s Arc<Slot>>) {
        let new = slots.into_iter().filter(|slot| !slot.is_ready() && slot.begin_want()).map(|slot| slot.id());
        match &self.hub {
            To::Home(home) => {
                for result in new {
                    home.lock().step(self, Event::Want { client: self.id, result });
                }
            }
            To::Away(away) => away.want(new),
        }
    }

    /// What was told is on its way.
    pub(crate) fn flush(self: &Arc<Self>) {
        match &self.hub {
            To::Home(home) => home.lock().flush(self),
            To::Away(away) => away.flush(),
        }
    }

    /// The hub is to know what a function is.
    pub(crate) fn define(
        self: &Arc<Self>,
        id: FunctionId,
        definition: impl FnOnce() -> PyResult<Payload>,
    ) -> PyResult<()> {
        if self.defined.lock().contains(&id) {
            return Ok(());
        }
        let definition = definition()?;
        match &self.hub {
            To::Home(home) => home.lock().define(id, definition),
            To::Away(away) => away.define(id, &definition),
        }
        self.defined.lock().insert(id);
        Ok(())
    }

    /// A reference to a result goes where the hub does not see it.
    pub(crate) fn grant(self: &Arc<Self>, result: ResultId) {
        match &self.hub {
            To::Home(home) => home.lock().grant(self, &[result]),
            To::Away(away) => {
                away.grant(result);
                away.flush();
            }
        }
    }

    // Results.

    /// Slots for the results of a new task.
    pub(crate) fn promise(self: &Arc<Self>, task: TaskId, returns: u32) -> smallvec::SmallVec<[Arc<Slot>; 1]> {
        let mut slots = self.slots.lock();
        (0..returns).map(|index| self.new_slot(&mut slots, task.result(index), self.wants_all())).collect()
    }

    /// A slot for the handle of a new actor.
    pub(crate) fn handle(self: &Arc<Self>, actor: ActorId) -> Arc<Slot> {
        self.new_slot(&mut self.slots.lock(), actor.handle(), false)
    }

    fn new_slot(self: &Arc<Self>, slots: &mut ByResult<Weak<Slot>>, id: ResultId, wanted: bool) -> Arc<Slot> {
        let slot = Arc::new(Slot::new(self.clone(), id, wanted));
        slots.insert(id, Arc::downgrade(&slot));
        slot
    }

    /// The slot of a result that the hub gave us once more.
    pub(crate) fn given(self: &Arc<Self>, id: ResultId) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(id).and_then(Weak::upgrade) {
            slot.give();
            return slot;
        }
        self.new_slot(&mut slots, id, false)
    }

    /// The slot of a result by its name: of one that we have, or that the hub is asked to give us.
    pub(crate) fn slot(self: &Arc<Self>, id: ResultId) -> Arc<Slot> {
        if let Some(slot) = self.slots.lock().get(id).and_then(Weak::upgrade) {
            return slot;
        }
        // What the hub does not have any more is not counted, and wanting it fails.
        match &self.hub {
            To::Home(home) => drop(home.lock().hub.hold(OWN, id)),
            To::Away(away) => away.hold(id),
        }
        self.given(id)
    }

    /// The last reference of this process to a result is gone.
    pub(crate) fn slot_went(self: &Arc<Self>, id: ResultId, given: u32, slot: &Slot) {
        if self.home.is_foreign() || self.is_closed() {
            return;
        }
        {
            let mut slots = self.slots.lock();
            if slots.get(id).is_some_and(|entry| std::ptr::eq(entry.as_ptr(), slot)) {
                slots.remove(id);
            }
        }
        let mut went = self.went.lock();
        went.push((id, given));
        if went.len() == 1 {
            self.turns.mind();
        }
        if went.len() >= RELEASES {
            let results = std::mem::take(&mut *went);
            drop(went);
            self.release(results);
        }
    }

    fn release(self: &Arc<Self>, results: Vec<(ResultId, u32)>) {
        let event = Event::Release { client: self.id, results };
        match &self.hub {
            // Whoever has the lock releases when they are done: values may go while results are delivered.
            To::Home(home) => match home.try_lock() {
                Some(mut home) => {
                    home.step(self, event);
                    home.flush(self);
                }
                None => {
                    if let Event::Release { results, .. } = event {
                        self.went.lock().extend(results);
                    }
                }
            },
            To::Away(away) => away.tell_if_free(event, &self.went),
        }
    }

    /// Tells the hub what this process does not refer to any more.
    pub(crate) fn release_all(self: &Arc<Self>) {
        let results = std::mem::take(&mut *self.went.lock());
        if !results.is_empty() {
            self.release(results);
        }
    }

    /// A value came.
    pub(crate) fn deliver(self: &Arc<Self>, result: ResultId, outcome: Outcome<Payload>) {
        let contains = outcome.contains.iter().map(|&contained| self.given(contained)).collect();
        let slot = self.slots.lock().get(result).and_then(Weak::upgrade);
        if let Some(slot) = slot {
            slot.deliver(Delivered { outcome, contains });
        }
    }

    /// All slots.
    pub(crate) fn living(&self) -> Vec<Arc<Slot>> {
        self.slots.lock().iter().filter_map(|(_, slot)| slot.upgrade()).collect()
    }

    // Turns.

    /// Sees to descriptors that are ready.
    pub(crate) fn ready(self: &Arc<Self>, keys: impl Iterator<Item = u64>) {
        match &self.hub {
            To::Home(home) => home.lock().ready(self, keys),
            To::Away(away) => {
                let mut keys = keys;
                if keys.any(|key| key == LOOP) {
                    away.wake_loop(self);
                }
                away.look(self);
            }
        }
    }

    /// Looks at everything.
    pub(crate) fn look(self: &Arc<Self>) {
        self.release_all();
        match &self.hub {
            To::Home(home) => home.lock().look(self),
            To::Away(away) => away.look(self),
        }
    }

    /// This thread is about to sleep until what it waits for is there. The processor that it had better sleep on.
    pub(crate) fn near(self: &Arc<Self>) -> Option<u32> {
        match &self.hub {
            To::Home(home) => home.lock().near(self),
            To::Away(_) => None,
        }
    }

    /// How long a sleep took that [`near`](Self::near) was asked about.
    pub(crate) fn took(&self, together: bool, since: Instant) {
        if let To::Home(home) = &self.hub {
            home.lock().took(together, since.elapsed().as_nanos() as f32 / 1000.0);
        }
    }

    /// Nobody has waited for a while.
    pub(crate) fn scatter(self: &Arc<Self>) {
        if let To::Home(home) = &self.hub {
            home.lock().scatter(self);
        }
    }

    /// How long nobody need look, if nothing comes.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match &self.hub {
            To::Home(home) => home.lock().patience(),
            To::Away(_) => None,
        }
    }

    /// Waits until `waiter` is done. `false` if the deadline passed.
    pub(crate) fn wait(self: &Arc<Self>, py: Python<'_>, waiter: &Arc<Waiter>, deadline: Deadline) -> PyResult<bool> {
        loop {
            let until = Instant::now() + SIGNAL_CHECK;
            let limit = deadline.at().map_or(until, |at| at.min(until));
            let woken = py.detach(|| self.turns.wait(self, waiter, limit));
            if woken == Woken::Done {
                return Ok(true);
            }
            py.check_signals()?;
            self.check(py)?;
            if deadline.at().is_some_and(|at| Instant::now() >= at) {
                return Ok(waiter.is_done());
            }
        }
    }

    /// The session ends.
    pub(crate) fn close(self: &Arc<Self>) {
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        match &self.hub {
            To::Home(home) => home.lock().close(self),
            To::Away(away) => away.close(),
        }
        self.turns.end();
    }
}
