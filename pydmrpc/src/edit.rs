//! The core of `pydmrpc._edit.Edit`: bytes at offsets.

use crate::errors;
use crate::foreign::Foreign;
use crate::fork::Native;
use crate::objectref::ObjectRef;
use crate::wait::{Deadline, wait};
use dmrpc_objstore::Edit as StoreEdit;
use parking_lot::Mutex;
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// A private, mutable picture of an object's bytes.
#[pyclass(frozen, module = "pydmrpc._core")]
pub(crate) struct Edit {
    /// `None` once it is committed or discarded.
    edit: Mutex<Option<Native<StoreEdit>>>,
    /// How many bytes may be read and written: what follows them tells what they are.
    len: usize,
    source: Py<ObjectRef>,
}

impl Edit {
    pub(crate) fn new(edit: StoreEdit, len: usize, source: Py<ObjectRef>) -> Self {
        Self { edit: Mutex::new(Some(Native::new(edit))), len, source }
    }

    /// Takes the edit out for a moment: whoever finds it gone meanwhile is told that it is over.
    fn with<R>(&self, py: Python<'_>, act: impl FnOnce(&mut StoreEdit) -> PyResult<R>) -> PyResult<R> {
        let mut edit = self.take(py)?;
        let result = act(edit.get_mut());
        *self.edit.lock() = Some(edit);
        result
    }

    fn take(&self, py: Python<'_>) -> PyResult<Native<StoreEdit>> {
        let edit = self.edit.lock().take().ok_or_else(|| {
            PyValueError::new_err("the edit is over, or another thread is using it: ref.edit() makes another")
        })?;
        if edit.is_foreign() { Err(errors::forked(py)) } else { Ok(edit) }
    }

    fn check(&self, offset: usize, length: usize) -> PyResult<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.len => Ok(()),
            _ => {
                Err(PyIndexError::new_err(format!("{length} bytes at {offset} are outside an object of {}", self.len)))
            }
        }
    }
}

#[pymethods]
impl Edit {
    fn read<'py>(&self, py: Python<'py>, offset: usize, length: usize) -> PyResult<Bound<'py, PyBytes>> {
        self.check(offset, length)?;
        self.with(py, |edit| {
            PyBytes::new_with(py, length, |into| wait(py, Deadline::NEVER, edit.read(offset as u64, into)))
        })
    }

    fn write(&self, py: Python<'_>, offset: usize, content: &Bound<'_, PyAny>) -> PyResult<()> {
        let buffer = Foreign::of(content)?.ok_or_else(|| PyValueError::new_err("the bytes must be in one piece"))?;
        self.check(offset, buffer.len())?;
        self.with(py, |edit| {
            let written = buffer.in_pieces(py, |at, piece| edit.write((offset + at) as u64, piece));
            written.map_err(|error| errors::of_store(py, &error))
        })
    }

    fn commit(&self, py: Python<'_>) -> PyResult<ObjectRef> {
        let edit = self.take(py)?;
        let any = wait(py, Deadline::NEVER, edit.into_inner().commit())?.into_any();
        self.source.get().edited(py, any)
    }

    fn discard(&self) {
        self.edit.lock().take();
    }
}
