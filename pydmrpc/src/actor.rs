//! Calls to actors of other processes, in whatever language they are written.
//!
//! 1. The actor runtime has threads of its own, which never take the GIL: arguments are written and answers read by the thread
//!    that calls.
//! 2. There is a runtime from the first use on, until `shutdown`.

use crate::client;
use crate::errors;
use crate::fork::Native;
use crate::message::{self, Outgoing};
use crate::wait::{Deadline, wait_for};
use dmrpc_actors::{ActorError, DynamicAnswer, DynamicRef, System};
use parking_lot::Mutex;
use pyo3::exceptions::{PyAttributeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Threads of the runtime: they only move bytes between links and callers.
const RUNTIME_THREADS: usize = 1;

/// How long `shutdown` waits for what is on its way.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(1);

struct Actors {
    system: System,
    runtime: Runtime,
}

static ACTORS: Mutex<Option<Native<Actors>>> = Mutex::new(None);

/// The system, started if there is none.
fn system(py: Python<'_>) -> PyResult<System> {
    let store = client::store(py)?;
    if let Some(system) = running() {
        return Ok(system);
    }
    let failed =
        |error: std::io::Error| errors::named(py, "RaySystemError", format!("starting the actor runtime: {error}"));
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(RUNTIME_THREADS).thread_name("pydmrpc-actors").enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let name = format!("python {}", std::process::id());
    let build = System::builder().name(name).store(store).runtime(runtime.handle().clone()).build();
    let system = wait_for(py, Deadline::NEVER, build)?.map_err(|error| of_actor(py, &error))?;
    let mut actors = ACTORS.lock();
    match &*actors {
        // Another thread was faster; this one's has nothing in it.
        Some(other) if !other.is_foreign() => {
            let other = other.system.clone();
            drop(actors);
            runtime.shutdown_background();
            Ok(other)
        }
        _ => {
            *actors = Some(Native::new(Actors { system: system.clone(), runtime }));
            Ok(system)
        }
    }
}

fn running() -> Option<System> {
    let actors = ACTORS.lock();
    actors.as_ref().filter(|actors| !actors.is_foreign()).map(|actors| actors.system.clone())
}

/// Ends the system and its runtime, if there are any.
pub(crate) fn stop(py: Python<'_>) -> PyResult<()> {
    let actors = ACTORS.lock().take();
    let Some(actors) = actors.filter(|actors| !actors.is_foreign()) else { return Ok(()) };
    let Actors { system, runtime } = actors.into_inner();
    py.detach(|| {
        runtime.block_on(system.shutdown(SHUTDOWN_PATIENCE));
        runtime.shutdown_timeout(SHUTDOWN_PATIENCE);
    });
    Ok(())
}

/// An actor of another process.
#[pyclass(frozen, module = "pydmrpc._core")]
pub(crate) struct Actor {
    actor: Native<DynamicRef>,
    address: String,
}

/// Connects to the actor at `address#name`. See `pydmrpc.connect`.
#[pyfunction]
pub(crate) fn connect(py: Python<'_>, address: String, timeout: Option<f64>) -> PyResult<Actor> {
    let deadline = Deadline::after_seconds(timeout)?;
    let system = system(py)?;
    let connected = wait_for(py, deadline, system.connect_dynamic(&address))?;
    let actor = connected.map_err(|error| of_actor(py, &error))?;
    Ok(Actor { actor: Native::new(actor), address })
}

impl Actor {
    fn actor(&self, py: Python<'_>) -> PyResult<&DynamicRef> {
        if self.actor.is_foreign() { Err(errors::forked(py)) } else { Ok(&self.actor) }
    }
}

#[pymethods]
impl Actor {
    /// Where the actor is.
    #[getter]
    fn address(&self) -> &str {
        &self.address
    }

    /// Calls a method and waits for its answer.
    fn call<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        arguments: &Bound<'py, PyTuple>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let actor = self.actor(py)?;
        let (bytes, refs) = written(arguments)?;
        let answer = wait_for(py, Deadline::NEVER, actor.call(method, bytes, refs, seconds(timeout)?))?;
        let DynamicAnswer { value, refs, .. } = answer.map_err(|error| of_actor(py, &error))?;
        message::read(py, &value, &refs)
    }

    /// Sends a message; nobody waits for an answer.
    fn tell<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        arguments: &Bound<'py, PyTuple>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let actor = self.actor(py)?;
        let (bytes, refs) = written(arguments)?;
        let sent = wait_for(py, Deadline::NEVER, actor.tell(method, bytes, refs, seconds(timeout)?))?;
        sent.map_err(|error| of_actor(py, &error))
    }
}

fn written(arguments: &Bound<'_, PyTuple>) -> PyResult<(Vec<u8>, Vec<dmrpc_objstore::AnyRef>)> {
    let mut outgoing = Outgoing::default();
    outgoing.write(arguments)?;
    Ok(outgoing.into_parts())
}

fn seconds(timeout: Option<f64>) -> PyResult<Option<Duration>> {
    let invalid = |seconds| PyValueError::new_err(format!("a timeout is a number of seconds from 0 on, not {seconds}"));
    timeout.map(|seconds| Duration::try_from_secs_f64(seconds).map_err(|_| invalid(seconds))).transpose()
}

/// The exception for an error of the actors.
fn of_actor(py: Python<'_>, error: &ActorError) -> PyErr {
    let class = match error {
        ActorError::MailboxFull => "PendingCallsLimitExceeded",
        ActorError::Deadline => "GetTimeoutError",
        ActorError::Stopped | ActorError::Crashed(_) => "ActorDiedError",
        ActorError::Unreachable { .. } => "ActorUnavailableError",
        ActorError::Malformed(_) => "MalformedError",
        ActorError::UnknownMessage(_) => return PyAttributeError::new_err(error.to_string()),
        ActorError::UnknownActor(_) | ActorError::TooLarge { .. } | ActorError::Address { .. } => {
            return PyValueError::new_err(error.to_string());
        }
        _ => "RaySystemError",
    };
    errors::named(py, class, error.to_string())
}
