//! From a Python value to the bytes of an object: first a [`Plan`] of where everything goes, then one copy of each part.
//!
//! 1. Nothing large is copied before the object's memory is there: buffers go from where they are straight into pages.
//! 2. The bytes between the parts are zeros, so that equal values are equal objects.

use crate::foreign::Foreign;
use crate::layout::{ArrayForm, Kind, Layout, MAX_BUFFERS, Order};
use crate::objectref::ObjectRef;
use crate::{errors, numpy, reduce, scalars};
use pyo3::exceptions::{PyAttributeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyMemoryView, PyString};
use smallvec::{SmallVec, smallvec};
use std::sync::atomic::{AtomicBool, Ordering};

/// What is to be copied.
enum Source<'py> {
    Text(Bound<'py, PyString>),
    Buffer(Foreign),
    /// A numpy array that is not contiguous: numpy copies it.
    Strided(Bound<'py, PyAny>),
}

enum Meta<'py> {
    Own(Vec<u8>),
    Pickle(Bound<'py, PyBytes>),
}

/// How a value is to be stored.
pub(crate) struct Plan<'py> {
    /// What it is.
    pub(crate) kind: Kind,
    /// Where its parts go.
    pub(crate) layout: Layout,
    /// The references inside it.
    pub(crate) refs: Vec<Py<ObjectRef>>,
    /// Type and shape, of an array.
    pub(crate) form: Option<ArrayForm>,
    meta: Meta<'py>,
    sources: SmallVec<[Source<'py>; 1]>,
    lengths: SmallVec<[usize; 2]>,
}

impl<'py> Plan<'py> {
    /// The plan for `value`.
    ///
    /// # Errors
    ///
    /// What pickling it raises.
    pub(crate) fn new(value: &Bound<'py, PyAny>) -> PyResult<Self> {
        let mut meta = Vec::new();
        if scalars::encode(value, &mut meta) {
            return Ok(Self::of(Kind::Scalar, Meta::Own(meta), smallvec![], smallvec![], None));
        }
        if let Ok(text) = value.cast_exact::<PyString>()
            && let Ok(content) = text.to_str()
        {
            let (length, source) = (content.len(), Source::Text(text.clone()));
            return Ok(Self::of(Kind::Str, Meta::Own(meta), smallvec![source], smallvec![length], None));
        }
        let kind = if value.is_exact_instance_of::<PyBytes>() {
            Kind::Bytes
        } else if value.is_exact_instance_of::<PyByteArray>() {
            Kind::ByteArray
        } else if value.is_exact_instance_of::<PyMemoryView>() {
            Kind::Memory
        } else {
            return match numpy::form_of(value)? {
                Some(form) => Self::array(value, form),
                None => Self::pickle(value),
            };
        };
        let buffer = Foreign::of(value)?;
        let buffer = buffer.ok_or_else(|| PyValueError::new_err("a memoryview must be contiguous to be stored"))?;
        let form = if kind == Kind::Memory {
            let form = buffer.form().filter(|form| form.order == Order::C || form.shape.len() <= 1);
            Some(form.ok_or_else(|| PyValueError::new_err("a memoryview must be in C order to be stored"))?)
        } else {
            None
        };
        Ok(Self::payload(kind, Source::Buffer(buffer), form))
    }

    fn array(value: &Bound<'py, PyAny>, form: ArrayForm) -> PyResult<Self> {
        let source = match numpy::contiguous(value, &form)? {
            Some(buffer) => Source::Buffer(buffer),
            None => Source::Strided(value.clone()),
        };
        Ok(Self::payload(Kind::Array, source, Some(form)))
    }

    fn payload(kind: Kind, source: Source<'py>, form: Option<ArrayForm>) -> Self {
        let length = match &source {
            Source::Buffer(buffer) => buffer.len(),
            Source::Text(_) | Source::Strided(_) => {
                form.as_ref().and_then(ArrayForm::bytes).expect("the array is in memory, so its size can be counted")
            }
        };
        let mut meta = Vec::new();
        if let Some(form) = &form {
            form.encode(&mut meta);
        }
        Self::of(kind, Meta::Own(meta), smallvec![source], smallvec![length], form)
    }

    fn pickle(value: &Bound<'py, PyAny>) -> PyResult<Self> {
        let (stream, buffers, refs) = pickle(value)?;
        if buffers.len() > MAX_BUFFERS {
            return Err(PyValueError::new_err(format!(
                "{} out-of-band buffers in one value, of {MAX_BUFFERS} that may be: store its parts as values of their own",
                buffers.len()
            )));
        }
        let (mut sources, mut lengths) = (SmallVec::new(), SmallVec::new());
        for buffer in buffers.iter() {
            // The buffer as one run of bytes, whatever it is a buffer of.
            let buffer = Foreign::of(&buffer.call_method0(intern!(value.py(), "raw"))?)?;
            let buffer = buffer.ok_or_else(|| PyValueError::new_err("a pickled buffer is not contiguous"))?;
            lengths.push(buffer.len());
            sources.push(Source::Buffer(buffer));
        }
        let plan = Self::of(Kind::Pickle, Meta::Pickle(stream), sources, lengths, None);
        Ok(Self { refs, ..plan })
    }

    fn of(
        kind: Kind,
        meta: Meta<'py>,
        sources: SmallVec<[Source<'py>; 1]>,
        lengths: SmallVec<[usize; 2]>,
        form: Option<ArrayForm>,
    ) -> Self {
        let layout = Layout::new(kind, meta.bytes().len(), lengths.iter().copied());
        Self { kind, layout, refs: Vec::new(), form, meta, sources, lengths }
    }

    /// Length of the payload; `None` if the value has none.
    pub(crate) fn payload_bytes(&self) -> Option<usize> {
        self.kind.has_payload().then(|| self.lengths[0])
    }

    /// Each part that is a buffer: its address, its place in the object, its length.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        self.sources.iter().zip(&self.layout.buffers).filter_map(|(source, place)| match source {
            Source::Buffer(buffer) => Some((buffer.address(), *place, buffer.len())),
            Source::Text(_) | Source::Strided(_) => None,
        })
    }

    /// Writes the object into `to`, which is as long as the layout says.
    pub(crate) fn write(&self, py: Python<'py>, to: &mut [u8]) -> PyResult<()> {
        let mut end = 0;
        for (index, source) in self.sources.iter().enumerate() {
            self.write_buffer(py, source, index, to, &mut end)?;
        }
        self.write_tail(&mut to[end..]);
        Ok(())
    }

    fn write_buffer(
        &self,
        py: Python<'py>,
        source: &Source<'py>,
        index: usize,
        to: &mut [u8],
        end: &mut usize,
    ) -> PyResult<()> {
        let (start, length) = (self.layout.buffers[index], self.lengths[index]);
        to[*end..start].fill(0);
        *end = start + length;
        let to = &mut to[start..*end];
        match source {
            Source::Text(text) => crate::foreign::copy(py, text.to_str()?.as_bytes(), to),
            Source::Buffer(buffer) => buffer.copy_to(py, to),
            Source::Strided(array) => numpy::copy_strided(array, to)?,
        }
        Ok(())
    }

    /// Where the last buffer ends.
    pub(crate) fn tail_start(&self) -> usize {
        self.layout.buffers.last().zip(self.lengths.last()).map_or(0, |(start, length)| start + length)
    }

    /// Writes what follows the buffers into `tail`, which begins at [`Plan::tail_start`] and ends where the object ends.
    pub(crate) fn write_tail(&self, tail: &mut [u8]) {
        let meta = self.meta.bytes();
        let start = self.layout.meta - self.tail_start();
        tail[..start].fill(0);
        tail[start..start + meta.len()].copy_from_slice(meta);
        let table = self.layout.table - self.tail_start();
        tail[start + meta.len()..table].fill(0);
        self.layout.write_tail(tail, self.kind, meta.len(), &self.lengths);
    }
}

impl Meta<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Meta::Own(bytes) => bytes,
            Meta::Pickle(bytes) => bytes.as_bytes(),
        }
    }
}

type Pickled<'py> = (Bound<'py, PyBytes>, Bound<'py, PyList>, Vec<Py<ObjectRef>>);

/// Pickles `value`; its buffers are not copied. Plain pickle first, which is several times as fast; cloudpickle for what that
/// can't do, and for what it would name as a part of `__main__`, which is another module in every process.
fn pickle<'py>(value: &Bound<'py, PyAny>) -> PyResult<Pickled<'py>> {
    static PICKLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static CLOUDPICKLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static PICKLING_ERROR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    register_torch(py)?;
    let plain = PICKLE.import(py, "pickle", "dumps")?;
    let error = match pickle_with(plain, value) {
        Ok(pickled) if !contains(pickled.0.as_bytes(), b"__main__") => return Ok(pickled),
        Ok(_) => None,
        Err(error) => Some(error),
    };
    if let Some(error) = error {
        let pickling_error = PICKLING_ERROR.import(py, "pickle", "PicklingError")?;
        let is_of_pickle = error.is_instance(py, pickling_error)
            || error.is_instance_of::<PyAttributeError>(py)
            || error.is_instance_of::<PyTypeError>(py);
        if !is_of_pickle {
            return Err(error);
        }
    }
    pickle_with(CLOUDPICKLE.import(py, "pydmrpc._pickling", "dumps")?, value).map_err(|error| {
        let place = py.import("pydmrpc._pickling").and_then(|module| module.call_method1("locate", (value,)));
        match place.and_then(|place| place.extract::<Option<String>>()) {
            Ok(Some(place)) => errors::with_note(py, error, &place),
            _ => error,
        }
    })
}

/// Once somebody has imported torch, its tensors are pickled as `_torch.py` says.
fn register_torch(py: Python<'_>) -> PyResult<()> {
    static MODULES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static IS_REGISTERED: AtomicBool = AtomicBool::new(false);
    // Relaxed: done twice it is the same.
    if IS_REGISTERED.load(Ordering::Relaxed) || !MODULES.import(py, "sys", "modules")?.contains(intern!(py, "torch"))? {
        return Ok(());
    }
    let is_registered = py.import("pydmrpc._torch")?.call_method0("register")?.is_truthy()?;
    IS_REGISTERED.store(is_registered, Ordering::Relaxed);
    Ok(())
}

fn pickle_with<'py>(dumps: &Bound<'py, PyAny>, value: &Bound<'py, PyAny>) -> PyResult<Pickled<'py>> {
    let py = value.py();
    let buffers = PyList::empty(py);
    let options = PyDict::new(py);
    options.set_item("protocol", 5)?;
    options.set_item("buffer_callback", buffers.getattr("append")?)?;
    let (stream, refs) = reduce::keeping(|| dumps.call((value,), Some(&options)));
    Ok((stream?.cast_into::<PyBytes>()?, buffers, refs))
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}
