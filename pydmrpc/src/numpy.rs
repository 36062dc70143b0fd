//! numpy arrays, without a dependency on numpy: if the program has not imported it, no value is an array.

use crate::foreign::Foreign;
use crate::layout::{ArrayForm, Order};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyMemoryView, PyTuple, PyType};
use pyo3::{ffi, intern};

/// Kinds of numpy types whose items are their bytes: bools, ints, floats, complex, fixed strings, times.
const PLAIN_KINDS: &str = "biufcSUmM";

/// `numpy.ndarray`, if numpy is imported.
fn ndarray(py: Python<'_>) -> PyResult<Option<&Bound<'_, PyType>>> {
    static NDARRAY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    if let Some(ndarray) = NDARRAY.get(py) {
        return Ok(Some(ndarray.bind(py)));
    }
    static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let modules = MODULES.import(py, "sys", "modules")?;
    // Half imported, numpy has no ndarray yet.
    let Some(numpy) = modules.get_item("numpy")? else { return Ok(None) };
    let Some(class) = numpy.getattr_opt("ndarray")? else { return Ok(None) };
    let class = class.cast_into::<PyType>()?.unbind();
    Ok(Some(NDARRAY.get_or_init(py, || class).bind(py)))
}

/// Type and shape of `value` if it is an array (and not of a subclass) of items without references. An array that is not
/// contiguous is described as the copy that it will be.
pub(crate) fn form_of(value: &Bound<'_, PyAny>) -> PyResult<Option<ArrayForm>> {
    let py = value.py();
    let Some(ndarray) = ndarray(py)? else { return Ok(None) };
    if !value.get_type().is(ndarray) {
        return Ok(None);
    }
    let dtype = value.getattr(intern!(py, "dtype"))?;
    let kind = dtype.getattr(intern!(py, "kind"))?;
    if !PLAIN_KINDS.contains(kind.extract::<&str>()?) {
        return Ok(None);
    }
    let shape = value.getattr(intern!(py, "shape"))?.cast_into::<PyTuple>()?;
    let flags = value.getattr(intern!(py, "flags"))?;
    let is = |flag| flags.getattr(flag)?.extract::<bool>();
    let fortran = !is(intern!(py, "c_contiguous"))? && is(intern!(py, "f_contiguous"))?;
    Ok(Some(ArrayForm {
        dtype: dtype.getattr(intern!(py, "str"))?.extract::<&str>()?.into(),
        item_bytes: dtype.getattr(intern!(py, "itemsize"))?.extract()?,
        shape: shape.iter().map(|axis| axis.extract()).collect::<PyResult<_>>()?,
        order: if fortran { Order::F } else { Order::C },
    }))
}

/// The bytes of an array of that form; `None` if they are not in one piece.
pub(crate) fn contiguous(array: &Bound<'_, PyAny>, form: &ArrayForm) -> PyResult<Option<Foreign>> {
    let py = array.py();
    // A buffer has an axis at least; a single item has the same bytes with one.
    let with_axis = if form.shape.is_empty() { Some(array.call_method1(intern!(py, "reshape"), (1,))?) } else { None };
    let array = with_axis.as_ref().unwrap_or(array);
    if !form.dtype.contains(['m', 'M']) {
        return Foreign::of(array);
    }
    // numpy exports no buffers of times; their integers have the same bytes.
    Foreign::of(&array.call_method1(intern!(py, "view"), (intern!(py, "i8"),))?)
}

/// Copies `array` in C order to `to`, which is as long as its items.
pub(crate) fn copy_strided(array: &Bound<'_, PyAny>, to: &mut [u8]) -> PyResult<()> {
    let py = array.py();
    let len = ffi::Py_ssize_t::try_from(to.len())?;
    // SAFETY: `to` is valid for writes of `len` bytes. The memoryview is released below, before `to` ends: it raises if anyone
    // still has a buffer of it, and nobody but this function ever had the view or the array made from it.
    let view = unsafe {
        let view = ffi::PyMemoryView_FromMemory(to.as_mut_ptr().cast(), len, ffi::PyBUF_WRITE);
        Bound::from_owned_ptr_or_err(py, view)?.cast_into_unchecked::<PyMemoryView>()
    };
    let numpy = py.import(intern!(py, "numpy"))?;
    let (shape, dtype) = (array.getattr(intern!(py, "shape"))?, array.getattr(intern!(py, "dtype"))?);
    let copied = numpy
        .getattr(intern!(py, "ndarray"))?
        .call1((shape, dtype, &view))
        .and_then(|target| numpy.call_method1(intern!(py, "copyto"), (target, array)));
    view.call_method0(intern!(py, "release"))?;
    copied.map(drop)
}

/// An array of that form over `buffer`.
pub(crate) fn array<'py>(buffer: &Bound<'py, PyAny>, form: &ArrayForm) -> PyResult<Bound<'py, PyAny>> {
    static NDARRAY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = buffer.py();
    let dtype = dtype(py, &form.dtype)?;
    if dtype.getattr(intern!(py, "itemsize"))?.extract::<usize>()? != form.item_bytes {
        return Err(PyValueError::new_err(format!("{} is no type of {} bytes", form.dtype, form.item_bytes)));
    }
    let shape = PyTuple::new(py, &form.shape)?;
    let strides = py.None();
    let order = match form.order {
        Order::C => intern!(py, "C"),
        Order::F => intern!(py, "F"),
    };
    NDARRAY.import(py, "numpy", "ndarray")?.call1((shape, dtype, buffer, 0, strides, order))
}

/// `numpy.dtype(name)`, remembered. Types with references in them are refused: bytes are no references.
pub(crate) fn dtype<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static DTYPE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static KNOWN: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    /// Types that are remembered; there are a few dozen, unless somebody makes strings of every length.
    const MAX_KNOWN: usize = 256;
    let known = KNOWN.get_or_init(py, || PyDict::new(py).unbind()).bind(py);
    if let Some(dtype) = known.get_item(name)? {
        return Ok(dtype);
    }
    let dtype = DTYPE.import(py, "numpy", "dtype")?.call1((name,))?;
    if dtype.getattr(intern!(py, "hasobject"))?.extract::<bool>()? {
        return Err(PyValueError::new_err(format!("{name} has references in it, which can't be stored as bytes")));
    }
    if known.len() < MAX_KNOWN {
        known.set_item(name, &dtype)?;
    }
    Ok(dtype)
}
