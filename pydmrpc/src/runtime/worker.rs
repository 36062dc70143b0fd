//! What workers run.
//!
//! The main thread takes what came, calls it, and answers; it attaches to the interpreter once for all that is there. What is to
//! run elsewhere (threads, an event loop) is given a [`Call`] by which it answers later. The event loop of an actor runs on the
//! main thread, and takes what came by [`Calls`] where others sleep.
//!
//! 1. Answers are on their way within a tick, and at once when there is nothing more to run.
//! 2. Whatever a function raises, also in pickling what it returned, is an answer.

use super::away::{Away, LOOP, Run};
use super::client::{Client, To, set_running};
use super::nearness::Pinned;
use super::payload::Payload;
use super::slot::{Slot, Waiter};
use super::{packing, running};
use crate::fork::Native;
use crate::objectref::ObjectRef;
use dmrpc_hub::{Event, Failure, FunctionId, Outcome, ResultId, STREAM, TAKEN, TaskId};
use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;
use rustc_hash::FxHashMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Answers are gathered for no longer than this.
const GATHER: Duration = Duration::from_millis(1);
/// Before a function that took longer than this the last time answers are on their way.
const LONG_MICROS: u32 = 200;
/// A function that took less than that so often is taken to go on like that.
const SHORT_MICROS: u32 = 50;
const SHORT_RUNS: u32 = 16;
/// How often a worker without work looks whether there was a signal.
const SIGNAL_CHECK: Duration = Duration::from_secs(5);

/// The main thread, as the C library knows it; 0 if it runs nothing.
static MAIN: AtomicU64 = AtomicU64::new(0);

/// Interrupts the main thread.
pub(crate) fn interrupt() {
    // Relaxed: the thread is there for as long as the process.
    let main = MAIN.load(Ordering::Relaxed);
    if main != 0 {
        // SAFETY: the main thread of the process lives as long as it.
        unsafe { libc::pthread_kill(main as libc::pthread_t, libc::SIGINT) };
    }
}

/// A function as it is called.
struct Function {
    callable: Py<PyAny>,
    /// It answers later.
    deferred: bool,
    timing: Arc<Timing>,
}

/// How long a function takes. Whoever ran it says so, on whatever thread: nothing else is read on account of these.
#[derive(Default)]
struct Timing {
    /// The last time.
    micros: AtomicU32,
    /// How often in a row it took less than [`SHORT_MICROS`].
    short_runs: AtomicU32,
}

impl Timing {
    /// It took so long; gives that in microseconds.
    fn took(&self, time: Duration) -> u32 {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let short = if micros < SHORT_MICROS { self.short_runs.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
        self.micros.store(micros, Ordering::Relaxed);
        self.short_runs.store(short, Ordering::Relaxed);
        micros
    }

    /// Whether it does next to nothing, and so starts no threads or processes either.
    fn is_short(&self) -> bool {
        self.short_runs.load(Ordering::Relaxed) >= SHORT_RUNS
    }

    fn is_long(&self) -> bool {
        self.micros.load(Ordering::Relaxed) > LONG_MICROS
    }
}

struct Worker {
    client: Arc<Client>,
    hooks: Py<PyAny>,
    functions: FxHashMap<FunctionId, Function>,
    /// Where the main thread sleeps. It stays there for what is known to be short; nothing else inherits it.
    pinned: Option<(u32, Pinned)>,
    /// When the first answer was told that was not flushed.
    unflushed: Option<Instant>,
}

fn away(client: &Client) -> PyResult<&Away> {
    match client.hub() {
        To::Away(away) => Ok(away),
        To::Home(_) => Err(PyRuntimeError::new_err("this process is no worker")),
    }
}

/// Runs what the hub sends, until the worker is to end. `hooks` is `pydmrpc._worker.Hooks`.
#[pyfunction]
pub(crate) fn _work(py: Python<'_>, hooks: &Bound<'_, PyAny>) -> PyResult<()> {
    let client = running().ok_or_else(|| PyRuntimeError::new_err("this process is no worker"))?;
    // SAFETY: only asks which thread this is.
    MAIN.store(unsafe { libc::pthread_self() } as u64, Ordering::Relaxed);
    let functions = FxHashMap::default();
    let mut worker =
        Worker { client: client.clone(), hooks: hooks.clone().unbind(), functions, pinned: None, unflushed: None };
    loop {
        match worker.take(true)? {
            Came::Run(run) => {
                worker.run(py, &run);
                if run.create && hooks.call_method0("has_loop")?.is_truthy()? {
                    // From here on its turns are ours.
                    let calls = Calls { worker: Mutex::new(worker) };
                    hooks.call_method1("serve", (calls,))?;
                    break;
                }
            }
            Came::Nothing(waiter, near) => worker.sleep(py, &waiter, near, Instant::now() + SIGNAL_CHECK),
            Came::Ready => {}
            Came::End => break,
        }
    }
    client.flush();
    Ok(())
}

/// What a look at the inbox gives.
enum Came {
    Run(Box<Run>),
    /// Who is told when there is something, and the processor to sleep on.
    Nothing(Arc<Waiter>, Option<u32>),
    /// What the event loop listens to is ready.
    Ready,
    /// The worker is to end.
    End,
}

/// An actor's calls, as its event loop takes them: instead of sleeping in a set of descriptors of its own.
#[pyclass(frozen, module = "pydmrpc._core")]
pub(crate) struct Calls {
    worker: Mutex<Worker>,
}

#[pymethods]
impl Calls {
    /// Also wakes from [`poll`](Self::poll) when this descriptor is readable.
    fn listen(&self, descriptor: i32) -> PyResult<()> {
        let worker = self.worker.lock();
        // SAFETY: it belongs to the selector that calls us, which keeps it open; the set takes no ownership.
        let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
        Ok(worker.client.turns().add(descriptor, LOOP)?)
    }

    /// Hands over all calls that came, if need be after a sleep of so many seconds at most. Whether there were any; None if the
    /// actor is to end.
    #[pyo3(signature = (timeout))]
    fn poll(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<bool>> {
        // The event loop is one thread; whoever else comes has no business here.
        let Some(mut worker) = self.worker.try_lock() else { return Ok(Some(false)) };
        worker.poll(py, timeout)
    }
}

impl Worker {
    /// The next thing to run, if there is one.
    fn take(&mut self, main: bool) -> PyResult<Came> {
        let mut inbox = away(&self.client)?.inbox.lock();
        if let Some(run) = inbox.runs.pop_front() {
            inbox.running = main.then_some(run.task);
            return Ok(Came::Run(Box::new(run)));
        }
        inbox.running = None;
        if inbox.leaves {
            return Ok(Came::End);
        }
        if std::mem::take(&mut inbox.loop_is_ready) {
            return Ok(Came::Ready);
        }
        let waiter = Waiter::thread(1);
        inbox.waiter = Some(waiter.clone());
        Ok(Came::Nothing(waiter, inbox.near))
    }

    /// Sleeps until something came.
    fn sleep(&mut self, py: Python<'_>, waiter: &Arc<Waiter>, near: Option<u32>, until: Instant) {
        self.unflushed = None;
        if self.pinned.as_ref().map(|(cpu, _)| *cpu) != near {
            self.pinned = None;
            self.pinned = near.and_then(|cpu| Some((cpu, Pinned::to(cpu)?)));
        }
        py.detach(|| {
            self.client.flush();
            self.client.turns().wait(&self.client, waiter, until);
            // From now on we are busy: somebody has to see to what comes meanwhile.
            self.client.turns().call_keeper();
        });
        // A signal that is late is for nobody.
        if let Err(error) = py.check_signals() {
            drop(error);
        }
    }

    /// See [`Calls::poll`].
    fn poll(&mut self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<bool>> {
        let limit =
            timeout.map_or(SIGNAL_CHECK, |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(SIGNAL_CHECK));
        if limit.is_zero() {
            // Others than calls run now: they may start threads and processes, which are to inherit nothing of where we slept.
            self.pinned = None;
            // What was answered in this turn is sent, and what came is read, without a sleep.
            self.client.flush();
            self.client.look();
        }
        let mut any = false;
        let mut may_sleep = !limit.is_zero();
        loop {
            match self.take(false)? {
                Came::Run(run) => {
                    self.run(py, &run);
                    any = true;
                }
                Came::Nothing(waiter, near) if may_sleep && !any => {
                    may_sleep = false;
                    self.sleep(py, &waiter, near, Instant::now() + limit.min(SIGNAL_CHECK));
                }
                Came::Nothing(..) | Came::Ready => {
                    if !any {
                        self.pinned = None;
                    }
                    return Ok(Some(any));
                }
                Came::End => return Ok(any.then_some(true)),
            }
        }
    }

    fn run(&mut self, py: Python<'_>, run: &Run) {
        let given: Vec<Arc<Slot>> = run.given.iter().map(|&id| self.client.given(id)).collect();
        let (task, returns, function) = (run.task, run.returns, run.function);
        if self.unflushed.is_some_and(|since| since.elapsed() > GATHER)
            || self.unflushed.is_some() && self.functions.get(&function).is_none_or(|known| known.timing.is_long())
        {
            self.unflushed = None;
            self.client.flush();
        }
        if self.pinned.is_some() && self.functions.get(&function).is_none_or(|known| !known.timing.is_short()) {
            self.pinned = None;
        }
        let started = Instant::now();
        let outer = set_running(Some(task));
        let came = self.call(py, run, &given);
        set_running(outer);
        let Some(came) = came.transpose() else { return };
        let time = started.elapsed();
        let micros = self.functions.get(&function).map_or(0, |known| known.timing.took(time));
        let answer = Answer::of(py, self.hooks.bind(py), came, returns);
        answer.tell(&self.client, task, micros);
        self.unflushed.get_or_insert(started);
    }

    /// Calls it. `None` if it answers later.
    fn call<'py>(&mut self, py: Python<'py>, run: &Run, given: &[Arc<Slot>]) -> PyResult<Option<Bound<'py, PyAny>>> {
        let function = self.function(py, run)?;
        let (callable, deferred) = (function.callable.bind(py).clone(), function.deferred);
        let timing = function.timing.clone();
        let (args, kwargs) = packing::unpack_arguments(py, &run.payload, &run.values)?;
        if !deferred {
            return callable.call(args, kwargs.as_ref()).map(Some);
        }
        let call = Call {
            client: Native::new(self.client.clone()),
            hooks: self.hooks.clone_ref(py),
            timing,
            task: run.task,
            returns: run.returns,
            started: Instant::now(),
            given: Mutex::new(Some(Native::new(given.to_vec()))),
        };
        callable.call1((call, args, kwargs)).map(|_| None)
    }

    fn function(&mut self, py: Python<'_>, run: &Run) -> PyResult<&mut Function> {
        use std::collections::hash_map::Entry;
        match self.functions.entry(run.function) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let definition = away(&self.client)?.inbox.lock().functions.get(&run.function).cloned();
                let definition = definition.ok_or_else(|| PyRuntimeError::new_err("nobody said what is to be run"))?;
                let definition = packing::unpack_value(py, &definition, crate::wait::Deadline::NEVER, true)?;
                let resolved =
                    self.hooks.bind(py).call_method1("resolve", (definition, run.create, run.actor.is_some()))?;
                let (callable, deferred): (Py<PyAny>, bool) = resolved.extract()?;
                Ok(entry.insert(Function { callable, deferred, timing: Arc::default() }))
            }
        }
    }
}

/// What came of a call, ready to be sent.
struct Answer {
    outcomes: Vec<Outcome<Payload>>,
    /// What keeps the results in it until it is told.
    slots: Vec<Arc<Slot>>,
}

impl Answer {
    fn of(py: Python<'_>, hooks: &Bound<'_, PyAny>, came: PyResult<Bound<'_, PyAny>>, returns: u32) -> Self {
        came.and_then(|value| Self::values(&value, returns)).unwrap_or_else(|error| Self::failure(py, hooks, &error))
    }

    fn values(value: &Bound<'_, PyAny>, returns: u32) -> PyResult<Self> {
        let mut answer = Self { outcomes: Vec::new(), slots: Vec::new() };
        match returns {
            0 => {}
            1 | STREAM => answer.push(value)?,
            _ => {
                let Ok(count) = value.len() else {
                    let message =
                        format!("num_returns={returns}, but the function returned one value, {}", value.get_type());
                    return Err(PyTypeError::new_err(message));
                };
                if count != returns as usize {
                    let message = format!("num_returns={returns}, but the function returned {count} values");
                    return Err(PyValueError::new_err(message));
                }
                for value in value.try_iter()? {
                    answer.push(&value?)?;
                }
            }
        }
        Ok(answer)
    }

    fn push(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let (payload, contains, slots) = packing::value(value)?;
        self.outcomes.push(Outcome { value: Ok(payload), contains });
        self.slots.extend(slots);
        Ok(())
    }

    /// Values, and in place of those that are missing an exception.
    fn each(hooks: &Bound<'_, PyAny>, values: &Bound<'_, PyList>, error: Option<PyErr>, returns: u32) -> Self {
        let mut answer = Self { outcomes: Vec::new(), slots: Vec::new() };
        let mut error = error;
        for value in values.iter().take(returns as usize) {
            if let Err(raised) = answer.push(&value) {
                error = Some(raised);
                break;
            }
        }
        let missing = returns as usize - answer.outcomes.len();
        if missing > 0 {
            let short = || PyValueError::new_err(format!("num_returns={returns}, but it gave {} values", values.len()));
            let mut failed = Self::failure(hooks.py(), hooks, &error.unwrap_or_else(short));
            answer.outcomes.resize(returns as usize, failed.outcomes.remove(0));
            answer.slots.extend(failed.slots);
        }
        answer
    }

    /// An exception.
    fn failure(py: Python<'_>, hooks: &Bound<'_, PyAny>, error: &PyErr) -> Self {
        let pack = |error: &PyErr| -> PyResult<_> {
            let raised = error.value(py);
            raised.setattr("__traceback__", error.traceback(py))?;
            packing::value(&hooks.call_method1("failure", (raised,))?)
        };
        match pack(error).or_else(|second| pack(&second)) {
            Ok((payload, contains, slots)) => {
                Self { outcomes: vec![Outcome { value: Err(Failure::Raised(payload)), contains }], slots }
            }
            Err(third) => {
                let why = format!("its exception could not be sent: {third}");
                Self { outcomes: vec![Outcome::failed(Failure::Lost(why))], slots: Vec::new() }
            }
        }
    }

    fn tell(self, client: &Arc<Client>, task: TaskId, micros: u32) {
        let Self { outcomes, slots } = self;
        client.tell(Event::Finished { client: client.id(), task, outcomes, micros });
        drop(slots);
    }
}

/// A call that is answered later, on any thread: by `finish` or `fail`, once.
#[pyclass(frozen, module = "pydmrpc._core")]
pub(crate) struct Call {
    client: Native<Arc<Client>>,
    hooks: Py<PyAny>,
    timing: Arc<Timing>,
    task: TaskId,
    returns: u32,
    started: Instant,
    /// Results that came with the arguments; `None` when it was answered.
    given: Mutex<Option<Native<Vec<Arc<Slot>>>>>,
}

#[pymethods]
impl Call {
    /// The task: which client's, and which of that.
    #[getter]
    fn task(&self) -> (u32, u32) {
        (self.task.client.0, self.task.number)
    }

    /// How many values it returns.
    #[getter]
    fn returns(&self) -> u32 {
        self.returns
    }

    /// Whether its values are to come one by one.
    #[getter]
    fn is_stream(&self) -> bool {
        self.returns == STREAM
    }

    /// A reference that is ready when somebody has asked for its `index`-th value, or nobody will.
    fn taken(&self, index: u32) -> ObjectRef {
        self.client.slot(self.task.result(index | TAKEN)).into()
    }

    /// This thread runs the call from now on: what it calls is made by it. Gives what it ran before, for `leave`.
    fn enter(&self) -> Option<(u32, u32)> {
        set_running(Some(self.task)).map(|task| (task.client.0, task.number))
    }

    /// This thread runs what it ran before.
    #[staticmethod]
    #[pyo3(signature = (before))]
    fn leave(before: Option<(u32, u32)>) {
        set_running(before.map(|(client, number)| TaskId { client: dmrpc_hub::ClientId(client), number }));
    }

    /// It returned. If there are `more` answers to come the hub need not hear of this one before them: see `flush`.
    #[pyo3(signature = (value, more=false))]
    fn finish(&self, py: Python<'_>, value: Bound<'_, PyAny>, more: bool) {
        self.answer(py, Ok(value), more);
    }

    /// It gave these values, and an exception in place of those that are missing.
    fn finish_each(&self, values: &Bound<'_, PyList>, error: Option<Bound<'_, PyAny>>) {
        let py = values.py();
        let Some(given) = self.given.lock().take() else { return };
        let micros = self.timing.took(self.started.elapsed());
        let hooks = self.hooks.bind(py);
        let answer = Answer::each(hooks, values, error.map(PyErr::from_value), self.returns);
        answer.tell(&self.client, self.task, micros);
        self.client.flush();
        drop(given);
    }

    /// What was answered is on its way. Without this it is within a millisecond.
    fn flush(&self) {
        self.client.flush();
    }

    /// It raised.
    fn fail(&self, py: Python<'_>, error: Bound<'_, PyAny>) {
        self.answer(py, Err(PyErr::from_value(error)), false);
    }

    /// It was cancelled.
    fn cancelled(&self) {
        if self.given.lock().take().is_some() {
            let outcomes = vec![Outcome::failed(Failure::Cancelled)];
            self.client.tell(Event::Finished { client: self.client.id(), task: self.task, outcomes, micros: 0 });
            self.client.flush();
        }
    }

    /// One of its values is there, and it runs on. Exceptions in pickling are raised.
    fn yields(&self, index: u32, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let (payload, contains, slots) = packing::value(value)?;
        let result: ResultId = self.task.result(index);
        let outcome = Outcome { value: Ok(payload), contains };
        self.client.tell(Event::Yielded { client: self.client.id(), result, outcome });
        self.client.flush();
        drop(slots);
        Ok(())
    }
}

impl Call {
    fn answer(&self, py: Python<'_>, came: PyResult<Bound<'_, PyAny>>, more: bool) {
        let Some(given) = self.given.lock().take() else { return };
        let micros = self.timing.took(self.started.elapsed());
        Answer::of(py, self.hooks.bind(py), came, self.returns).tell(&self.client, self.task, micros);
        if more {
            self.client.turns().begin_ticks();
        } else {
            self.client.flush();
        }
        drop(given);
    }
}

/// Whether what the main thread runs was to be stopped; asking takes note of it. For the handler of the interrupt.
#[pyfunction]
pub(crate) fn _interrupted() -> bool {
    let Some(client) = running() else { return false };
    let To::Away(away) = client.hub() else { return false };
    let mut inbox = away.inbox.lock();
    let Some(task) = inbox.running else { return false };
    let before = inbox.interrupted.len();
    inbox.interrupted.retain(|other| *other != task);
    inbox.interrupted.len() < before
}

/// The actor that lives in this worker, or is being made: which client's, and which of that.
#[pyfunction]
pub(crate) fn _own_actor() -> Option<(u32, u32)> {
    let client = running()?;
    let To::Away(away) = client.hub() else { return None };
    let actor = away.inbox.lock().actor?;
    Some((actor.0.client.0, actor.0.number))
}

/// Tasks that were to be stopped and that the main thread does not run; asking takes note of them.
#[pyfunction]
pub(crate) fn _take_interrupted() -> Vec<(u32, u32)> {
    let Some(client) = running() else { return Vec::new() };
    let To::Away(away) = client.hub() else { return Vec::new() };
    let interrupted = std::mem::take(&mut away.inbox.lock().interrupted);
    interrupted.into_iter().map(|task| (task.client.0, task.number)).collect()
}

/// This worker, or its actor, wants to end when it has done what it was given.
#[pyfunction]
pub(crate) fn _exits() -> PyResult<()> {
    let client = running().ok_or_else(|| PyRuntimeError::new_err("this process is no worker"))?;
    away(&client)?.inbox.lock().leaves = true;
    client.tell(Event::Exits { client: client.id() });
    client.flush();
    Ok(())
}
