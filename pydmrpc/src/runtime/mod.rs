//! Tasks and actors: this process as a client of a hub, the hub itself, and what workers do. `docs/python-runtime.md` has the design.
//!
//! | file | noun |
//! | --- | --- |
//! | `client.rs` | this process as a client: what it tells the hub, its results |
//! | `slot.rs`, `completions.rs` | results, and who waits for them: threads, event loops |
//! | `turns.rs`, `nearness.rs` | whose turn it is to read; where one sleeps |
//! | `home.rs`, `zygote.rs`, `output.rs`, `questions.rs`, `tallies.rs` | the hub's shell: links, processes, what they print, what is asked, of it and by it, what is counted |
//! | `away.rs`, `peer.rs` | links, seen from a client; their ends |
//! | `payload.rs`, `packing.rs` | values on their way; arguments and values as bytes |
//! | `calls.rs` | what Python calls |
//! | `worker.rs` | what workers run |
//!
//! 1. No thread but Python's own takes the GIL, and no lock of these is held while waiting for it.
//! 2. Between a call and its link there is no other thread; nor between a link and who waits for it.

mod away;
mod calls;
mod client;
mod completions;
mod home;
mod nearness;
mod output;
mod packing;
mod payload;
mod peer;
mod questions;
mod slot;
mod tallies;
mod turns;
#[expect(unsafe_code, reason = "sends a signal to a thread, listens to a descriptor of Python's")]
mod worker;
mod zygote;

pub(crate) use calls::{
    _actor, _ask, _define, _held, _hub_address, _join, _serve, _take_printed, ActorRef, Method, Task, cancel,
    create_actor, current, get_named, kill, wait,
};
pub(crate) use client::Client;
pub(crate) use completions::Completions;
pub(crate) use slot::Slot;
pub(crate) use worker::{_exits, _interrupted, _own_actor, _take_interrupted, _work, Call, Calls};

use crate::fork::Native;
use crate::stored::Stored;
use crate::wait::Deadline;
use dmrpc_hub::{ClientId, Failure, ResultId, TaskId};
use parking_lot::RwLock;
use payload::Payload;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use slot::Waiter;
use std::cell::Cell;
use std::sync::Arc;

static CLIENT: RwLock<Option<Native<Arc<Client>>>> = RwLock::new(None);

/// The client that runs, if one does.
pub(crate) fn running() -> Option<Arc<Client>> {
    let client = CLIENT.read();
    client.as_ref().filter(|client| !client.is_foreign()).map(|client| (**client).clone())
}

/// The client of this process, started with all defaults if there is none.
pub(crate) fn client(py: Python<'_>) -> PyResult<Arc<Client>> {
    if let Some(client) = running() {
        return Ok(client);
    }
    if CLIENT.read().is_some() {
        return Err(crate::errors::forked(py));
    }
    py.import("pydmrpc._runtime")?.call_method0("start")?;
    running().ok_or_else(|| PyRuntimeError::new_err("pydmrpc was shut down while it was being used"))
}

/// From now on this is the client of this process.
fn begin(client: Arc<Client>) -> PyResult<()> {
    let mut current = CLIENT.write();
    if current.as_ref().is_some_and(|client| !client.is_foreign()) {
        drop(current);
        client.close();
        return Err(PyRuntimeError::new_err("the runtime was started on two threads at once"));
    }
    *current = Some(Native::new(client));
    Ok(())
}

/// Ends the client, and the hub if it is in this process.
pub(crate) fn stop(py: Python<'_>) {
    let client = CLIENT.write().take();
    if let Some(client) = client.filter(|client| !client.is_foreign()) {
        py.detach(|| client.close());
    }
}

/// Where the node of this process's hub is, if the hub is elsewhere.
pub(crate) fn store_url() -> Option<String> {
    match running()?.hub() {
        client::To::Home(_) => None,
        client::To::Away(away) => Some(away.store_url.clone()),
    }
}

/// The process ends here and now.
fn exit() -> ! {
    loop {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// The slot of a result by its name.
pub(crate) fn slot(py: Python<'_>, client: u32, number: u32, index: u32) -> PyResult<Arc<Slot>> {
    let id = ResultId { task: TaskId { client: ClientId(client), number }, index };
    Ok(self::client(py)?.slot(id))
}

/// A reference to a result goes where the hub does not see it.
pub(crate) fn grant(py: Python<'_>, slot: &Arc<Slot>) -> PyResult<()> {
    slot.client().check(py)?;
    slot.client().grant(slot.id());
    Ok(())
}

/// Waits until the value is there.
fn wait_for(py: Python<'_>, slot: &Arc<Slot>, deadline: Deadline) -> PyResult<()> {
    if slot.is_ready() {
        return Ok(());
    }
    let client = slot.client();
    client.check(py)?;
    let waiter = Waiter::thread(1);
    if !slot.watch(&waiter) {
        return Ok(());
    }
    client.want([slot]);
    calls::settle(py, client, deadline)?;
    let done = blocked(client, || client.wait(py, &waiter, deadline));
    if matches!(done, Ok(true)) {
        return Ok(());
    }
    slot.unwatch(&waiter);
    done?;
    Err(deadline.passed(py))
}

/// Waits until the values of all are there, or the first of them that is a failure.
///
/// The hub hears at once of all that is waited for, and once that somebody waits: what comes one by one would else be asked for
/// one by one, a way there and back for each.
pub(crate) fn gather(py: Python<'_>, slots: &[&Arc<Slot>], deadline: Deadline) -> PyResult<()> {
    let Some(first) = slots.iter().find(|slot| !slot.is_ready()) else { return Ok(()) };
    let client = first.client().clone();
    client.check(py)?;
    // Of another session: whoever asks for its value hears so.
    client.want(slots.iter().copied().filter(|slot| Arc::ptr_eq(slot.client(), &client)));
    blocked(&client, || {
        for slot in slots {
            if !Arc::ptr_eq(slot.client(), &client) {
                return Ok(());
            }
            wait_for(py, slot, deadline)?;
            if slot.delivered().is_some_and(|delivered| delivered.outcome.value.is_err()) {
                return Ok(());
            }
        }
        Ok(())
    })
}

/// Runs `wait`, while the hub knows that the task of this thread waits.
fn blocked<R>(client: &Arc<Client>, wait: impl FnOnce() -> R) -> R {
    thread_local! {
        static BLOCKED: Cell<bool> = const { Cell::new(false) };
    }
    if client::running().is_none() || matches!(client.hub(), client::To::Home(_)) || BLOCKED.replace(true) {
        return wait();
    }
    client.tell(dmrpc_hub::Event::Blocked { client: client.id() });
    let result = wait();
    BLOCKED.set(false);
    client.tell(dmrpc_hub::Event::Unblocked { client: client.id() });
    result
}

/// The value of a result.
pub(crate) fn get<'py>(
    py: Python<'py>,
    slot: &Arc<Slot>,
    deadline: Deadline,
    writable: bool,
) -> PyResult<Bound<'py, PyAny>> {
    match &payload_of(py, slot, deadline)? {
        Ok(payload) => packing::unpack_value(py, payload, deadline, writable),
        Err(failure) => Err(exception(py, failure)),
    }
}

fn payload_of<'s>(
    py: Python<'_>,
    slot: &'s Arc<Slot>,
    deadline: Deadline,
) -> PyResult<&'s Result<Payload, Failure<Payload>>> {
    slot.client().check(py)?;
    wait_for(py, slot, deadline)?;
    Ok(&slot.delivered().expect("it was waited for").outcome.value)
}

/// The object that a result is.
pub(crate) fn stored(py: Python<'_>, slot: &Arc<Slot>) -> PyResult<Stored> {
    match payload_of(py, slot, Deadline::NEVER)? {
        Ok(payload) => packing::as_stored(py, payload),
        Err(failure) => Err(exception(py, failure)),
    }
}

/// The exception for a failure, as `_task_error.py` makes it.
fn exception(py: Python<'_>, failure: &Failure<Payload>) -> PyErr {
    let make = || {
        let none = || py.None().into_bound(py);
        let value = |payload: &Payload| packing::unpack_value(py, payload, Deadline::NEVER, true);
        let (kind, value, why) = match failure {
            Failure::Raised(payload) => ("raised", value(payload)?, ""),
            Failure::Cancelled => ("cancelled", none(), ""),
            Failure::WorkerDied(why) => ("worker_died", none(), why.as_str()),
            Failure::ActorDied(_, why) => ("actor_died", none(), why.as_str()),
            Failure::ActorNotMade(_, payload) => ("actor_not_made", value(payload)?, ""),
            Failure::ActorUnavailable(_, why) => ("actor_unavailable", none(), why.as_str()),
            Failure::NoMoreValues => ("no_more_values", none(), ""),
            Failure::Infeasible(why) => ("infeasible", none(), why.as_str()),
            Failure::Lost(why) => ("lost", none(), why.as_str()),
        };
        let exception = py.import("pydmrpc._task_error")?.call_method1("exception", (kind, value, why))?;
        if let Failure::ActorDied(actor, _) | Failure::ActorNotMade(actor, _) | Failure::ActorUnavailable(actor, _) =
            failure
        {
            exception.setattr("actor_id", calls::hex(actor.0))?;
        }
        Ok(exception)
    };
    match make() {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}
