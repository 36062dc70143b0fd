//! From the errors of the store to Python exceptions.

use dmrpc_objstore::StoreError;
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

/// An exception of `pydmrpc.exceptions`.
pub(crate) fn named(py: Python<'_>, class: &str, message: impl AsRef<str>) -> PyErr {
    let make = || py.import("pydmrpc.exceptions")?.getattr(class)?.call1((PyString::new(py, message.as_ref()),));
    match make() {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// The error with a note that its traceback shows.
pub(crate) fn with_note(py: Python<'_>, error: PyErr, note: &str) -> PyErr {
    match error.add_note(py, note) {
        Ok(()) => error,
        Err(failed) => failed,
    }
}

/// The exception for an error of the store.
pub(crate) fn of_store(py: Python<'_>, error: &StoreError) -> PyErr {
    let class = match error {
        StoreError::NotFound(_) | StoreError::Stale(_) => "ObjectLostError",
        StoreError::OutOfMemory { .. } => "ObjectStoreFullError",
        StoreError::QuotaExceeded { .. } => "QuotaExceededError",
        StoreError::LeaseExpired
        | StoreError::NodeUnreachable { .. }
        | StoreError::UnknownNode(_)
        | StoreError::ShuttingDown => "NodeUnreachableError",
        StoreError::Deadline { .. } => "GetTimeoutError",
        StoreError::Malformed(_) => "MalformedError",
        StoreError::Denied => "AccessDeniedError",
        StoreError::Forked => return forked(py),
        StoreError::Closed => {
            return named(
                py,
                "RaySystemError",
                "the store that this belongs to was shut down; what it held is gone: make the object anew",
            );
        }
        StoreError::OutOfRange { .. } => return PyIndexError::new_err(error.to_string()),
        StoreError::TooLarge { .. } => {
            let message = format!("{error}; start the memory node with a larger pool, or store the value in parts");
            return named(py, "ObjectStoreFullError", message);
        }
        StoreError::Address { .. } | StoreError::Misaligned { .. } => {
            return PyValueError::new_err(error.to_string());
        }
        _ => "RaySystemError",
    };
    named(py, class, error.to_string())
}

/// The exception for the use, in a forked child, of what its parent made.
pub(crate) fn forked(py: Python<'_>) -> PyErr {
    named(
        py,
        "ForkError",
        "this process was forked after pydmrpc.init(), and the store's threads and session stayed in its parent; start \
         processes with multiprocessing's \"spawn\" method, and hand references over as grants (ref.grant())",
    )
}

/// The exception for an object that holds no Python value.
pub(crate) fn malformed(py: Python<'_>, error: crate::layout::Malformed) -> PyErr {
    named(
        py,
        "MalformedError",
        format!("the object holds no Python value ({}); use ref.view() to see its bytes", error.0),
    )
}
