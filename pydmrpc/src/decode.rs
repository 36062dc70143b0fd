//! From the bytes of an object to a Python value.
//!
//! 1. Arrays and out-of-band buffers are not copied: they lie in the object's pages, or in a private picture of them.
//! 2. Bytes that are no value are a `MalformedError`.

use crate::errors;
use crate::foreign;
use crate::layout::{ArrayForm, Kind, Malformed, Trailer};
use crate::numpy;
use crate::page_buffer::PageBuffer;
use crate::region::Region;
use crate::scalars;
use dmrpc_objstore::View;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyString};
use std::sync::Arc;

/// The value in the whole object that `view` shows.
pub(crate) fn value(py: Python<'_>, view: View, writable: bool) -> PyResult<Bound<'_, PyAny>> {
    let malformed = |error| errors::malformed(py, error);
    let object = view.as_bytes();
    let trailer = Trailer::read(object).map_err(malformed)?;
    let meta = &object[trailer.meta.clone()];
    let payload = &object[..trailer.payload_bytes];
    match trailer.kind {
        Kind::Scalar => scalars::decode(py, meta)?.map_err(malformed),
        Kind::Str => match std::str::from_utf8(payload) {
            Ok(text) => Ok(PyString::new(py, text).into_any()),
            Err(_) => Err(malformed(Malformed("text that is not UTF-8"))),
        },
        Kind::Bytes | Kind::ByteArray => bytes(py, payload, trailer.kind),
        Kind::Array | Kind::Memory => {
            let form = ArrayForm::decode_for(meta, trailer.payload_bytes).map_err(malformed)?;
            array(py, &Region::open(view, writable), trailer.kind, &form)
        }
        Kind::Pickle => unpickle(py, view, &trailer, writable),
    }
}

/// A copy of `content`, as `bytes` or `bytearray`.
pub(crate) fn bytes<'py>(py: Python<'py>, content: &[u8], kind: Kind) -> PyResult<Bound<'py, PyAny>> {
    let fill = |to: &mut [u8]| {
        foreign::copy(py, content, to);
        Ok(())
    };
    Ok(if kind == Kind::ByteArray {
        PyByteArray::new_with(py, content.len(), fill)?.into_any()
    } else {
        PyBytes::new_with(py, content.len(), fill)?.into_any()
    })
}

/// An array, or a memoryview, of that form over the first bytes of `region`.
pub(crate) fn array<'py>(
    py: Python<'py>,
    region: &Arc<Region>,
    kind: Kind,
    form: &ArrayForm,
) -> PyResult<Bound<'py, PyAny>> {
    let bytes = form.bytes().filter(|bytes| *bytes <= region.len());
    let bytes = bytes.ok_or_else(|| errors::malformed(py, Malformed("array that is longer than its object")))?;
    if kind == Kind::Array {
        return numpy::array(&PageBuffer::over(py, region, 0..bytes)?, form);
    }
    let view = PageBuffer::memoryview(py, region, 0..bytes)?;
    if &*form.dtype == "B" && form.shape.len() == 1 {
        return Ok(view);
    }
    view.call_method1("cast", (&*form.dtype, PyList::new(py, &form.shape)?))
}

fn unpickle<'py>(py: Python<'py>, view: View, trailer: &Trailer, writable: bool) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let loads = LOADS.import(py, "pickle", "loads")?;
    if trailer.buffers() == 0 {
        let region = Region::open(view, false);
        return loads.call1((PageBuffer::over(py, &region, trailer.meta.clone())?,));
    }
    let ranges = (0..trailer.buffers()).map(|index| trailer.buffer(view.as_bytes(), index));
    let ranges = ranges.collect::<Result<Vec<_>, _>>().map_err(|error| errors::malformed(py, error))?;
    let region = Region::open(view, writable);
    let buffers = PyList::empty(py);
    for range in ranges {
        buffers.append(PageBuffer::memoryview(py, &region, range)?)?;
    }
    let options = PyDict::new(py);
    options.set_item("buffers", buffers)?;
    loads.call((PageBuffer::over(py, &region, trailer.meta.clone())?,), Some(&options))
}
