//! References within pickles.
//!
//! 1. A reference in a pickle is text that works anywhere within its time to live: a grant, or the bytes themselves if they
//!    are few.
//! 2. A value that is stored keeps the references inside it alive for as long as this process has a reference to it.

use crate::objectref::ObjectRef;
use pyo3::prelude::*;
use std::cell::RefCell;

thread_local! {
    /// References that the pickle in the making has met, while there is one.
    static KEPT: RefCell<Option<Vec<Py<ObjectRef>>>> = const { RefCell::new(None) };
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
