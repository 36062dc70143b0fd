//! What Python calls: tasks, actors, waiting, and how the runtime starts.

use super::away::Away;
use super::client::{self as here, Client, To};
use super::home::{Home, OWN, Plan};
use super::packing::{self, Packed};
use super::payload::Payload;
use super::peer;
use super::questions::{self, HANDLES, MAX_CENSUS, NAMES};
use super::slot::{Slot, Waiter};
use super::turns::Turns;
use super::zygote::Recipe;
use super::{begin, blocked, client, running};
use crate::errors;
use crate::fork::Native;
use crate::objectref::{ObjectRef, Source};
use crate::reduce;
use crate::wait::Deadline;
use dmrpc_fabric::address::Address;
use dmrpc_fabric::listen::Listener;
use dmrpc_hub::record::Who;
use dmrpc_hub::{
    ActorId, ActorSpec, CallSpec, ClientId, Event, FunctionId, HubOptions, Resources, ResultId, STREAM, TaskId,
    TaskSpec, Work, WorkerId,
};
use parking_lot::Mutex;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySet, PyString, PyTuple};
use rustc_hash::{FxBuildHasher, FxHashSet};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How much longer than the hub itself somebody waits for the hub.
const GRACE: Duration = Duration::from_secs(10);

/// Something that can be run, known to the hub by its name.
struct Definition {
    id: FunctionId,
    definition: Py<PyAny>,
    /// The client that has told its hub, by its serial number; 0 for none.
    told: AtomicU64,
}

impl Definition {
    fn new(id: [u8; 16], definition: Py<PyAny>) -> Self {
        Self { id: FunctionId(u128::from_le_bytes(id) & !(HANDLES | NAMES)), definition, told: AtomicU64::new(0) }
    }

    /// The hub of `client` knows what it is.
    fn tell(&self, py: Python<'_>, client: &Arc<Client>) -> PyResult<()> {
        let serial = client.serial();
        // Relaxed: telling it twice does no harm.
        if self.told.load(Ordering::Relaxed) != serial {
            let bound = self.definition.bind(py);
            // Names are for people; what has none is an environment.
            if let Ok(name) = bound.get_item(1).and_then(|name| name.cast_into::<PyString>().map_err(PyErr::from)) {
                client.define(FunctionId(self.id.0 | NAMES), || definition(&name))?;
            }
            client.define(self.id, || definition(bound))?;
            self.told.store(serial, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A definition as a value that lasts.
fn definition(value: &Bound<'_, PyAny>) -> PyResult<Payload> {
    let (payload, contains, slots) = packing::value(value)?;
    // What a definition refers to is kept for good: nobody knows when it is run for the last time.
    drop(contains);
    for slot in slots {
        super::grant(value.py(), &slot)?;
    }
    Ok(payload)
}

/// Thousandths of processors and accelerators, and of whatever else by name.
fn resources(cpu: u64, gpu: u64, other: BTreeMap<String, u64>) -> Resources {
    Resources { cpu, gpu, other }
}

fn work(packed: Packed, function: FunctionId, returns: u32, retries: u32, retry_raised: bool) -> Work<Payload> {
    let Packed { payload, needs, contains } = packed;
    Work { function, payload, needs, contains, returns, retries, retry_raised }
}

/// What `remote` gives: nothing, a reference, or a list of them.
fn references<'py>(py: Python<'py>, slots: impl ExactSizeIterator<Item = Arc<Slot>>) -> PyResult<Bound<'py, PyAny>> {
    let mut slots = slots;
    match slots.len() {
        0 => Ok(py.None().into_bound(py)),
        1 => Ok(Bound::new(py, ObjectRef::from(slots.next().expect("one")))?.into_any()),
        _ => {
            let references: Vec<_> =
                slots.map(|slot| Bound::new(py, ObjectRef::from(slot))).collect::<PyResult<_>>()?;
            Ok(PyList::new(py, references)?.into_any())
        }
    }
}

/// What is looked at before a call is made.
struct Signature {
    /// So many arguments without a name are right, at least and at most.
    least: usize,
    most: usize,
    /// Raises if other arguments are not.
    check: Py<PyAny>,
}

impl Signature {
    fn check(signature: Option<&Self>, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        match signature {
            Some(Self { least, most, check })
                if kwargs.is_some_and(|kwargs| !kwargs.is_empty()) || !(*least..=*most).contains(&args.len()) =>
            {
                check.bind(args.py()).call(args, kwargs).map(drop)
            }
            _ => Ok(()),
        }
    }
}

fn signature(takes: Option<(usize, usize, Py<PyAny>)>) -> Option<Signature> {
    takes.map(|(least, most, check)| Signature { least, most, check })
}

/// A function with all its options, ready to be called.
#[pyclass(frozen, module = "pydmrpc._core")]
pub(crate) struct Task {
    definition: Definition,
    resources: Resources,
    returns: u32,
    retries: u32,
    retry_raised: bool,
    environment: u64,
    signature: Option<Signature>,
}

#[pymethods]
impl Task {
    #[new]
    #[pyo3(signature = (id, definition, *, returns=1, cpu=1000, gpu=0, other=BTreeMap::new(), retries=3, retry_raised=false, environment=0, takes=None))]
    #[expect(clippy::too_many_arguments, reason = "they are keyword arguments")]
    fn new(
        id: [u8; 16],
        definition: Py<PyAny>,
        returns: u32,
        cpu: u64,
        gpu: u64,
        other: BTreeMap<String, u64>,
        retries: u32,
        retry_raised: bool,
        environment: u64,
        takes: Option<(usize, usize, Py<PyAny>)>,
    ) -> Self {
        let definition = Definition::new(id, definition);
        let (resources, signature) = (resources(cpu, gpu, other), signature(takes));
        Self { definition, resources, returns, retries, retry_raised, environment, signature }
    }

    /// Has it run with these arguments; gives a reference to what it returns, or a list of them, or None.
    #[pyo3(signature = (*args, **kwargs))]
    fn remote<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = args.py();
        Signature::check(self.signature.as_ref(), args, kwargs)?;
        let client = client(py)?;
        client.check(py)?;
        self.definition.tell(py, &client)?;
        let packed = packing::arguments(args, kwargs)?;
        let id = client.next_task();
        let slots = client.promise(id, if self.returns == STREAM { 1 } else { self.returns });
        let task = TaskSpec {
            id,
            parent: here::running(),
            work: work(packed, self.definition.id, self.returns, self.retries, self.retry_raised),
            resources: self.resources.clone(),
            environment: self.environment,
        };
        client.tell(Event::Submit { client: client.id(), task, want: client.wants_all() });
        references(py, slots.into_iter())
    }
}

/// The name of a task or actor for logs.
pub(super) fn hex(id: TaskId) -> String {
    format!("{:08x}{:08x}", id.client.0, id.number)
}

/// A handle of an actor, without what Python knows of its class.
#[pyclass(frozen, module = "pydmrpc._core")]
pub(crate) struct ActorRef {
    slot: Native<Arc<Slot>>,
}

impl ActorRef {
    fn actor(&self, py: Python<'_>) -> PyResult<ActorId> {
        self.slot.client().check(py)?;
        Ok(ActorId(self.slot.id().task))
    }
}

#[pymethods]
impl ActorRef {
    /// The actor's name for logs, in hex.
    fn hex(&self) -> String {
        hex(self.slot.id().task)
    }

    /// A method with all its options, ready to be called.
    #[pyo3(signature = (id, definition, *, returns=1, retries=0, retry_raised=false, takes=None))]
    fn method(
        &self,
        id: [u8; 16],
        definition: Py<PyAny>,
        returns: u32,
        retries: u32,
        retry_raised: bool,
        takes: Option<(usize, usize, Py<PyAny>)>,
    ) -> Method {
        let slot = Native::new((*self.slot).clone());
        let definition = Definition::new(id, definition);
        Method { slot, definition, returns, retries, retry_raised, signature: signature(takes) }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (u32, u32))> {
        let (py, slot) = (slf.py(), &slf.get().slot);
        reduce::pass_on(py, slot)?;
        let id = slot.id().task;
        Ok((py.import("pydmrpc._core")?.getattr("_actor")?, (id.client.0, id.number)))
    }

    fn __hash__(&self) -> u64 {
        let id = self.slot.id().task;
        u64::from(id.client.0) << 32 | u64::from(id.number)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().slot.id() == self.slot.id())
    }
}

/// What a pickled handle becomes.
#[pyfunction]
pub(crate) fn _actor(py: Python<'_>, client: u32, number: u32) -> PyResult<ActorRef> {
    let actor = ActorId(TaskId { client: ClientId(client), number });
    Ok(ActorRef { slot: Native::new(self::client(py)?.slot(actor.handle())) })
}

/// A method of an actor.
#[pyclass(frozen, module = "pydmrpc._core")]
pub(crate) struct Method {
    slot: Native<Arc<Slot>>,
    definition: Definition,
    returns: u32,
    retries: u32,
    retry_raised: bool,
    signature: Option<Signature>,
}

#[pymethods]
impl Method {
    /// Calls it with these arguments; gives a reference to what it returns, or a list of them, or None.
    #[pyo3(signature = (*args, **kwargs))]
    fn remote<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = args.py();
        Signature::check(self.signature.as_ref(), args, kwargs)?;
        let client = self.slot.client();
        client.check(py)?;
        self.definition.tell(py, client)?;
        let packed = packing::arguments(args, kwargs)?;
        let id = client.next_task();
        let slots = client.promise(id, if self.returns == STREAM { 1 } else { self.returns });
        let call = CallSpec {
            id,
            actor: ActorId(self.slot.id().task),
            parent: here::running(),
            work: work(packed, self.definition.id, self.returns, self.retries, self.retry_raised),
        };
        client.tell(Event::Call { client: client.id(), call, want: client.wants_all() });
        references(py, slots.into_iter())
    }
}

/// Makes an actor. `handles` is what `get_named` gives besides it.
#[pyfunction]
#[pyo3(signature = (id, definition, handles, args, kwargs, *, cpu=0, gpu=0, other=BTreeMap::new(), restarts=0, environment=0, name=None, detached=false, unordered=false))]
#[expect(clippy::too_many_arguments, reason = "they are keyword arguments")]
pub(crate) fn create_actor(
    py: Python<'_>,
    id: [u8; 16],
    definition: Py<PyAny>,
    handles: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
    cpu: u64,
    gpu: u64,
    other: BTreeMap<String, u64>,
    restarts: u32,
    environment: u64,
    name: Option<(String, String)>,
    detached: bool,
    unordered: bool,
) -> PyResult<ActorRef> {
    let client = client(py)?;
    client.check(py)?;
    let class = Definition::new(id, definition);
    class.tell(py, &client)?;
    if name.is_some() {
        client.define(FunctionId(class.id.0 | HANDLES), || self::definition(handles))?;
    }
    let packed = packing::arguments(args, kwargs)?;
    let actor = ActorId(client.next_task());
    let slot = client.handle(actor);
    let spec = ActorSpec {
        id: actor,
        work: work(packed, class.id, 0, restarts, false),
        resources: resources(cpu, gpu, other),
        environment,
        name,
        detached,
        unordered,
    };
    client.tell(Event::Create { client: client.id(), actor: spec });
    Ok(ActorRef { slot: Native::new(slot) })
}

/// The actor of this name, and what its handles are; None if there is none.
#[pyfunction]
pub(crate) fn get_named<'py>(
    py: Python<'py>,
    namespace: &str,
    name: &str,
) -> PyResult<Option<(ActorRef, Bound<'py, PyAny>)>> {
    let client = client(py)?;
    let question = serde_json::json!({"named": [namespace, name]}).to_string();
    let (answer, given) = ask(py, &client, question.as_bytes())?;
    let Some(slot) = given.into_iter().next() else { return Ok(None) };
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
    let handles: Option<Vec<u8>> = answer.get("handles").and_then(|bytes| serde_json::from_value(bytes.clone()).ok());
    let handles = handles.map(|bytes| Payload::new(&bytes, Vec::new()));
    let handles =
        handles.ok_or_else(|| errors::named(py, "RaySystemError", "the hub does not know the actor's class"))?;
    let handles = packing::unpack_value(py, &handles, Deadline::NEVER, true)?;
    Ok(Some((ActorRef { slot: Native::new(slot) }, handles)))
}

/// Asks the hub; gives its answer, and slots of the results that came with that.
fn ask(py: Python<'_>, client: &Arc<Client>, what: &[u8]) -> PyResult<(Vec<u8>, Vec<Arc<Slot>>)> {
    client.check(py)?;
    let (answer, given) = match client.hub() {
        To::Home(home) => home.lock().answer(client, OWN, what),
        To::Away(away) => ask_away(py, client, away, what, Deadline::NEVER)?,
    };
    Ok((answer, given.into_iter().map(|id| client.given(id)).collect()))
}

fn ask_away(
    py: Python<'_>,
    client: &Arc<Client>,
    away: &Away,
    what: &[u8],
    deadline: Deadline,
) -> PyResult<(Vec<u8>, Vec<ResultId>)> {
    let waiter = Waiter::thread(1);
    let number = away.ask(what, &waiter);
    let waited = client.wait(py, &waiter, deadline);
    let said = away.answer(number);
    waited?;
    said.ok_or_else(|| errors::named(py, "RaySystemError", "the process with the hub is gone, or does not answer"))
}

/// What each process has references to, as JSON: those that do not answer within so many milliseconds are in it by name only.
#[pyfunction]
pub(crate) fn _held(py: Python<'_>, limit_ms: u64) -> PyResult<String> {
    let client = client(py)?;
    client.check(py)?;
    let limit = Duration::from_millis(limit_ms).min(MAX_CENSUS);
    // The hub says when the time is over; this is for one that is stopped.
    let deadline = Deadline::after_seconds(Some((limit + GRACE).as_secs_f64()))?;
    match client.hub() {
        To::Home(home) => {
            let waiter = Waiter::thread(1);
            let answers = home.lock().take_census(&client, &waiter, limit);
            client.wait(py, &waiter, deadline)?;
            Ok(answers.get().map_or_else(|| "[]".to_owned(), ToString::to_string))
        }
        To::Away(away) => {
            let (answer, _) = ask_away(py, &client, away, questions::ask_census(limit).as_bytes(), deadline)?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        }
    }
}

/// Tells the hub what something is that is known by a name alone, as environments are.
#[pyfunction]
pub(crate) fn _define(py: Python<'_>, id: [u8; 16], definition: Py<PyAny>) -> PyResult<()> {
    Definition::new(id, definition).tell(py, &client(py)?)
}

/// Asks the hub a question: JSON there and back.
#[pyfunction]
pub(crate) fn _ask(py: Python<'_>, question: &str) -> PyResult<String> {
    let client = client(py)?;
    let (answer, _) = ask(py, &client, question.as_bytes())?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Ends an actor. See `pydmrpc.kill`.
#[pyfunction]
pub(crate) fn kill(py: Python<'_>, actor: &Bound<'_, ActorRef>, restart: bool) -> PyResult<()> {
    let actor = actor.get();
    let id = actor.actor(py)?;
    actor.slot.client().tell(Event::Kill { actor: id, restart });
    actor.slot.client().flush();
    Ok(())
}

/// Cancels a task. See `pydmrpc.cancel`.
#[pyfunction]
pub(crate) fn cancel(py: Python<'_>, reference: &Bound<'_, ObjectRef>, force: bool, recursive: bool) -> PyResult<()> {
    let Source::Promised(slot, _) = reference.get().source() else {
        return Err(PyTypeError::new_err(
            "only what a task or an actor's call returns can be cancelled, not what was put",
        ));
    };
    slot.client().check(py)?;
    slot.client().tell(Event::Cancel { task: slot.id().task, force, recursive });
    slot.client().flush();
    Ok(())
}

/// Waits until some of the references have values. See `pydmrpc.wait`.
#[pyfunction]
#[pyo3(signature = (refs, *, num_returns=1, timeout=None))]
pub(crate) fn wait<'py>(
    refs: &Bound<'py, PyList>,
    num_returns: usize,
    timeout: Option<f64>,
) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
    let py = refs.py();
    let deadline = Deadline::after_seconds(timeout)?;
    let wrong = || PyTypeError::new_err("wait takes a list of ObjectRefs");
    let twice = || PyValueError::new_err("Wait requires a list of unique object refs.");
    let references: Vec<Bound<'py, ObjectRef>> = refs
        .iter()
        .map(|reference| reference.cast_into::<ObjectRef>().map_err(|_| wrong()))
        .collect::<PyResult<_>>()?;
    let mut seen = FxHashSet::with_capacity_and_hasher(references.len(), FxBuildHasher);
    let stored = PySet::empty(py)?;
    let mut client: Option<&Arc<Client>> = None;
    for reference in &references {
        let is_new = match reference.get().source() {
            Source::Promised(slot, _) => {
                if client.is_none_or(|client| !Arc::ptr_eq(client, slot.client())) {
                    slot.client().check(py)?;
                    client = Some(slot.client());
                }
                // A result has one slot.
                seen.insert(Arc::as_ptr(slot))
            }
            Source::Stored(_) => {
                stored.add(reference)?;
                true
            }
        };
        if !is_new {
            return Err(twice());
        }
    }
    if seen.len() + stored.len() != references.len() {
        return Err(twice());
    }
    if num_returns == 0 || num_returns > references.len() {
        return Err(PyValueError::new_err("num_returns is at least 1 and at most the number of references"));
    }
    let slot_of = |reference: &Bound<'py, ObjectRef>| match reference.get().source() {
        Source::Promised(slot, _) if !slot.is_ready() => Some(slot.clone()),
        _ => None,
    };
    let ready = references.iter().filter(|reference| is_there(reference)).take(num_returns).count();
    if ready < num_returns {
        // What comes meanwhile is not in it, and counts all the same.
        let pending: Vec<Arc<Slot>> = references.iter().filter_map(slot_of).collect();
        let ready = references.len() - pending.len();
        if ready < num_returns {
            let client = pending[0].client().clone();
            let waiter = Waiter::thread(isize::try_from(num_returns - ready)?);
            let (watched, already): (Vec<&Arc<Slot>>, Vec<&Arc<Slot>>) =
                pending.iter().partition(|slot| slot.watch(&waiter));
            for _ in already {
                waiter.one_less(&client);
            }
            client.want(watched.iter().copied());
            settle(py, &client, deadline)?;
            let waited = blocked(&client, || client.wait(py, &waiter, deadline));
            for slot in watched {
                slot.unwatch(&waiter);
            }
            waited?;
        }
    }
    let mut done = Vec::with_capacity(num_returns);
    let mut rest = Vec::with_capacity(references.len());
    for reference in references {
        if done.len() < num_returns && is_there(&reference) {
            done.push(reference);
        } else {
            rest.push(reference);
        }
    }
    Ok((PyList::new(py, done)?, PyList::new(py, rest)?))
}

/// Whether the value is there, as far as this process knows.
fn is_there(reference: &Bound<'_, ObjectRef>) -> bool {
    match reference.get().source() {
        Source::Promised(slot, _) => slot.is_ready(),
        // What was put is there.
        Source::Stored(_) => true,
    }
}

/// What is asked for only just in time: whoever does not wait is to see what the hub has all the same, wherever the hub is.
pub(super) fn settle(py: Python<'_>, client: &Arc<Client>, deadline: Deadline) -> PyResult<()> {
    if deadline.is_short() && matches!(client.hub(), To::Away(_)) {
        ask(py, client, b"null")?;
    }
    Ok(())
}

/// A task as Python names it: which client's, and which of that.
type TaskName = (u32, u32);

/// What this thread runs: client, task as (client, number), whether there is a hub in this process. For the runtime context.
#[pyfunction]
pub(crate) fn current() -> Option<(u32, Option<TaskName>, bool)> {
    let client = running()?;
    let task = here::running().map(|task| (task.client.0, task.number));
    Some((client.id().0, task, matches!(client.hub(), To::Home(_))))
}

/// Starts a hub in this process.
#[pyfunction]
#[pyo3(signature = (*, python, settings, about, path, store_url, cpu, gpu, other))]
#[expect(clippy::too_many_arguments, reason = "they are keyword arguments")]
pub(crate) fn _serve(
    py: Python<'_>,
    python: String,
    settings: Vec<u8>,
    about: Vec<u8>,
    path: &str,
    store_url: String,
    cpu: u64,
    gpu: u64,
    other: BTreeMap<String, u64>,
) -> PyResult<()> {
    let failed = |error: String| errors::named(py, "RaySystemError", error);
    let mut options = HubOptions::cpus(cpu.div_ceil(1000).max(1));
    options.total = resources(cpu, gpu, other);
    let listener = Listener::bind(&Address::Unix(path.into()), &peer::options());
    let listener = listener.map_err(|error| failed(format!("the hub can't listen at {path}: {error}")))?;
    let recipe = Recipe { python, settings };
    let plan = Plan { options, recipe, listener, address: format!("hub://{path}"), store_url, about };
    let turns = Arc::new(Turns::new()?);
    let home = To::Home(Box::new(Mutex::new(Home::new(plan))));
    let client = Client::start(OWN, turns, home)?;
    let To::Home(home) = client.hub() else { unreachable!("just made") };
    home.lock().open(&client).map_err(|error| failed(format!("no process to fork workers from: {error}")))?;
    begin(client.clone())
}

/// Joins the hub at a Unix socket: as a worker with this name and secret, or as a driver. Gives what the hub tells about itself.
#[pyfunction]
#[pyo3(signature = (path, worker=None))]
pub(crate) fn _join(py: Python<'_>, path: &str, worker: Option<(u32, u64)>) -> PyResult<Vec<u8>> {
    let who = worker.map_or(Who::Driver, |(worker, secret)| Who::Worker(WorkerId(worker), secret));
    let turns = Arc::new(Turns::new()?);
    let joined = py.detach(|| Away::connect(path, who, &turns));
    let (away, id) =
        joined.map_err(|error| errors::named(py, "NodeUnreachableError", format!("no hub at {path}: {error}")))?;
    let about = away.about.clone();
    begin(Client::start(id, turns, To::Away(Box::new(away)))?)?;
    Ok(about)
}

/// Where the hub of this process can be joined; None if it is elsewhere.
#[pyfunction]
pub(crate) fn _hub_address() -> Option<String> {
    match running()?.hub() {
        To::Home(home) => Some(home.lock().address().to_owned()),
        To::Away(_) => None,
    }
}

/// Lines that workers printed since this was last called: process, whether to the standard error output, line.
#[pyfunction]
pub(crate) fn _take_printed(bell: &Bound<'_, super::Completions>) -> Vec<(u32, bool, String)> {
    let Some(client) = running() else { return Vec::new() };
    let printed = match client.hub() {
        To::Home(home) => home.lock().take_printed(bell.get().list()),
        To::Away(away) => away.printed.lock().take(bell.get().list()),
    };
    printed.into_iter().map(|line| (line.pid, line.is_error, line.line)).collect()
}
