//! Results that came, as a list with a descriptor, for event loops.

use super::slot::{Slot, Waiter};
use crate::fork::Native;
use crate::objectref::{ObjectRef, Source};
use parking_lot::Mutex;
use pyo3::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

/// Numbers of what happened, and a descriptor that is readable while there are any.
pub(crate) struct List {
    bell: OwnedFd,
    tokens: Mutex<Vec<u64>>,
}

impl List {
    /// One thing more happened. Called by whoever read it, without the GIL.
    pub(crate) fn push(&self, token: u64) {
        let mut tokens = self.tokens.lock();
        tokens.push(token);
        if tokens.len() == 1 {
            let _ = rustix::io::write(self.bell.as_fd(), &1_u64.to_ne_bytes());
        }
    }

    fn take(&self) -> Vec<u64> {
        let mut tokens = self.tokens.lock();
        let mut count = [0; 8];
        let _ = rustix::io::read(self.bell.as_fd(), &mut count);
        std::mem::take(&mut *tokens)
    }
}

/// What an event loop listens to: numbers of the results that are there.
#[pyclass(frozen, module = "pydmrpc._core")]
pub(crate) struct Completions {
    list: Native<Arc<List>>,
}

impl Completions {
    pub(crate) fn list(&self) -> &Arc<List> {
        &self.list
    }
}

#[pymethods]
impl Completions {
    #[new]
    fn new() -> PyResult<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(std::io::Error::from)?;
        Ok(Self { list: Native::new(Arc::new(List { bell, tokens: Mutex::default() })) })
    }

    /// The descriptor, readable while there is something to take.
    fn fileno(&self) -> i32 {
        self.list.bell.as_raw_fd()
    }

    /// Has `token` put into the list when the value of `reference` is there. False if it is there already, or need not be waited for.
    fn watch(&self, py: Python<'_>, reference: &Bound<'_, ObjectRef>, token: u64) -> PyResult<bool> {
        let Source::Promised(slot, _) = reference.get().source() else { return Ok(false) };
        let slot: &Arc<Slot> = slot;
        slot.client().check(py)?;
        let waiter = Waiter::list((*self.list).clone(), token);
        if !slot.watch(&waiter) {
            return Ok(false);
        }
        slot.client().want([slot]);
        slot.client().flush();
        slot.client().turns().call_keeper();
        Ok(true)
    }

    /// Nobody waits for `reference` under this number any more.
    fn forget(&self, reference: &Bound<'_, ObjectRef>, token: u64) {
        if let Source::Promised(slot, _) = reference.get().source() {
            slot.forget(&self.list, token);
        }
    }

    /// Puts a number into the list, to wake whoever listens.
    fn add(&self, token: u64) {
        self.list.push(token);
    }

    /// The numbers of what happened since this was last called.
    fn take(&self) -> Vec<u64> {
        self.list.take()
    }
}
