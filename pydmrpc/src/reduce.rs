//! References within pickles.
//!
//! 1. A reference in the pickle of a task's arguments or value travels beside it: it is lent, or counted by the hub.
//! 2. A reference in any other pickle is text that works anywhere within its time to live: a grant, or the bytes themselves if
//!    they are few.
//! 3. A value that is stored keeps the references inside it alive for as long as this process has a reference to it.

use crate::objectref::ObjectRef;
use crate::runtime::{self, Slot};
use dmrpc_hub::ResultId;
use dmrpc_objstore::AnyRef;
use pyo3::prelude::*;
use std::cell::RefCell;
use std::sync::Arc;

/// References that travel beside a value.
#[derive(Default)]
pub(crate) struct Beside {
    /// Of the store, by their places.
    pub(crate) stored: Vec<AnyRef>,
    /// To results; each as often as it stands there.
    pub(crate) results: Vec<ResultId>,
    /// What keeps those results until they are counted by the hub.
    pub(crate) slots: Vec<Arc<Slot>>,
}

thread_local! {
    /// References that the pickle in the making has met, while there is one.
    static KEPT: RefCell<Option<Vec<Py<ObjectRef>>>> = const { RefCell::new(None) };
    /// References that travel beside what is being packed, while something is.
    static PACKED: RefCell<Option<Beside>> = const { RefCell::new(None) };
    /// References that came beside what is being unpacked.
    static CAME: RefCell<Arc<[AnyRef]>> = RefCell::new(Arc::new([]));
}

/// Runs `pickle`; gives what it gives, and the references that it met.
pub(crate) fn keeping<R>(pickle: impl FnOnce() -> R) -> (R, Vec<Py<ObjectRef>>) {
    let outer = KEPT.replace(Some(Vec::new()));
    let result = pickle();
    (result, KEPT.replace(outer).unwrap_or_default())
}

/// The pickle in the making, if there is one, keeps the reference.
pub(crate) fn keep(reference: &Bound<'_, ObjectRef>) {
    KEPT.with_borrow_mut(|kept| {
        if let Some(kept) = kept {
            kept.push(reference.clone().unbind());
        }
    });
}

/// Runs `pack`, within which references are lent; gives what it gives, and the references.
pub(crate) fn packing<R>(pack: impl FnOnce() -> R) -> (R, Beside) {
    let outer = PACKED.replace(Some(Beside::default()));
    let result = pack();
    (result, PACKED.replace(outer).unwrap_or_default())
}

/// The reference travels beside what is being packed, if something is: gives its place.
pub(crate) fn lend(reference: &AnyRef) -> Option<usize> {
    PACKED.with_borrow_mut(|packed| {
        let stored = &mut packed.as_mut()?.stored;
        stored.push(reference.clone());
        Some(stored.len() - 1)
    })
}

/// A reference to a result, or the handle of an actor, goes into a pickle.
pub(crate) fn pass_on(py: Python<'_>, slot: &Arc<Slot>) -> PyResult<()> {
    let beside = PACKED.with_borrow_mut(|packed| {
        let Some(packed) = packed else { return false };
        packed.results.push(slot.id());
        packed.slots.push(slot.clone());
        true
    });
    if beside { Ok(()) } else { runtime::grant(py, slot) }
}

/// Runs `unpack`, within which the references that came beside are there.
pub(crate) fn unpacking<R>(came: &Arc<[AnyRef]>, unpack: impl FnOnce() -> R) -> R {
    if came.is_empty() {
        return unpack();
    }
    let outer = CAME.replace(came.clone());
    let result = unpack();
    CAME.replace(outer);
    result
}

/// The reference at a place beside what is being unpacked.
pub(crate) fn borrowed(place: usize) -> Option<AnyRef> {
    CAME.with_borrow(|came| came.get(place).cloned())
}
