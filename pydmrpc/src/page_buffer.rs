//! Memory of the store as a Python buffer (PEP 3118): what an array from `get` has for its base.
//!
//! 1. The memory stays as long as any buffer of it, and so any array over it.
//! 2. A buffer of a region that is not writable is read-only.

use crate::region::Region;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;
use std::ffi::c_int;
use std::ops::Range;
use std::sync::Arc;

/// Memory of the store: arrays and memoryviews over it are made with the buffer protocol.
#[pyclass(frozen, module = "pydmrpc._core")]
pub(crate) struct PageBuffer {
    region: Arc<Region>,
    start: usize,
    len: usize,
}

impl PageBuffer {
    /// A buffer of `range` of the region.
    pub(crate) fn over<'py>(py: Python<'py>, region: &Arc<Region>, range: Range<usize>) -> PyResult<Bound<'py, PyAny>> {
        assert!(range.start <= range.end && range.end <= region.len(), "the range was checked against the object");
        let buffer = Self { region: region.clone(), start: range.start, len: range.len() };
        Ok(Bound::new(py, buffer)?.into_any())
    }

    /// The same as a memoryview.
    pub(crate) fn memoryview<'py>(
        py: Python<'py>,
        region: &Arc<Region>,
        range: Range<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyMemoryView::from(&Self::over(py, region, range)?)?.into_any())
    }
}

#[pymethods]
impl PageBuffer {
    fn __len__(&self) -> usize {
        self.len
    }

    fn __repr__(&self) -> String {
        let kind = if self.region.is_writable() { "writable" } else { "read-only" };
        format!("<{kind} PageBuffer of {} bytes>", self.len)
    }

    /// # Safety
    ///
    /// Called by Python only, with a `view` to fill.
    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let this = slf.get();
        let len = ffi::Py_ssize_t::try_from(this.len)?;
        // SAFETY: `view` is Python's to be filled; the memory is valid for `len` bytes while `slf` lives, which the filled view
        // keeps alive, and writable if it says so.
        let filled = unsafe {
            let read_only = c_int::from(!this.region.is_writable());
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), this.region.at(this.start).cast(), len, read_only, flags)
        };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
