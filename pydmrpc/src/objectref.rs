//! `ObjectRef`: what `put` and calls give, and `get` takes.
//!
//! 1. A reference keeps what it refers to alive.
//! 2. Two references are equal if they lead to the same bytes and see them as the same, or are to the same result.
//! 3. Making, comparing and dropping a reference waits for nobody. Slicing one to a result waits for the result.

use crate::edit::Edit;
use crate::encode::Plan;
use crate::errors;
use crate::form::Form;
use crate::layout::{ArrayForm, Kind, Layout, Order};
use crate::region::Region;
use crate::runtime::{self, Slot};
use crate::sharing::Pages;
use crate::stored::{Head, Name, PYTHON_VALUE, Stored};
use crate::wait::{Deadline, wait};
use crate::{client, decode, derive, reduce};
use dmrpc_objstore::{AnyRef, Codec, Granted, INLINE_BYTES, ObjectRef as StoreRef, Store};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long the grant in a pickled reference lives.
const PICKLED_GRANT_SECONDS: f64 = 600.0;

/// A reference to a value: to an object in a memory node or a part of one, or to what a task or an actor's call returns. It can be
/// used in any process of the tenant, and keeps the value alive.
///
/// Made by :func:`pydmrpc.put` and by ``remote()``. References are hashable and comparable, awaitable, and can be pickled (then a
/// grant with a time to live goes into the pickle). ``ref[a:b]`` is a reference to a part of an array or of bytes, and copies
/// nothing::
///
///     ref = pydmrpc.put(numpy.arange(1_000_000))
///     pydmrpc.get(ref[10:20])              # only that moves
#[pyclass(frozen, weakref, module = "pydmrpc")]
pub(crate) struct ObjectRef {
    source: Source,
}

/// What a reference is to.
pub(crate) enum Source {
    /// What was stored.
    Stored(Box<Stored>),
    /// What a task or call returns; the object that it is, once it was asked for.
    Promised(Arc<Slot>, OnceLock<Box<Stored>>),
}

impl From<Stored> for ObjectRef {
    fn from(stored: Stored) -> Self {
        Self { source: Source::Stored(Box::new(stored)) }
    }
}

impl From<Arc<Slot>> for ObjectRef {
    fn from(slot: Arc<Slot>) -> Self {
        Self { source: Source::Promised(slot, OnceLock::new()) }
    }
}

impl ObjectRef {
    /// A reference that came from somewhere else.
    pub(crate) fn received(py: Python<'_>, any: AnyRef) -> Self {
        Stored::received(any).listed(py).into()
    }

    /// What it is to.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// What is stored; a result is waited for.
    pub(crate) fn stored(&self, py: Python<'_>) -> PyResult<&Stored> {
        match &self.source {
            Source::Stored(stored) => Ok(stored),
            Source::Promised(slot, stored) => {
                if stored.get().is_none() {
                    let found = runtime::stored(py, slot)?;
                    let _ = stored.set(Box::new(found));
                }
                Ok(stored.get().expect("just set"))
            }
        }
    }

    /// The object that an edit of this one became.
    pub(crate) fn edited(&self, py: Python<'_>, any: AnyRef) -> PyResult<Self> {
        Ok(self.stored(py)?.edited(py, any)?.into())
    }

    /// The pages of the object that this one was made of, if it was made here.
    pub(crate) fn origin(&self, py: Python<'_>) -> PyResult<Option<&Arc<Pages>>> {
        Ok(self.stored(py)?.origin())
    }

    /// The reference of the store; an exception in a forked child, and after a shutdown.
    pub(crate) fn any(&self, py: Python<'_>) -> PyResult<&AnyRef> {
        self.stored(py)?.any(py)
    }

    /// The bytes that a program in another language is given: the payload, or everything.
    pub(crate) fn payload(&self, py: Python<'_>) -> PyResult<AnyRef> {
        self.stored(py)?.payload(py)
    }

    /// The value.
    fn value<'py>(&self, py: Python<'py>, deadline: Deadline, writable: bool) -> PyResult<Bound<'py, PyAny>> {
        match &self.source {
            Source::Stored(stored) => stored.value(py, deadline, writable),
            Source::Promised(slot, _) => runtime::get(py, slot, deadline, writable),
        }
    }
}

#[pymethods]
impl ObjectRef {
    /// What it refers to: "array", "bytes", "bytearray", "str", "memoryview", "scalar" (None, numbers, small tuples), "pickle"
    /// (any other object), or "raw" (bytes that Python knows nothing of).
    #[getter]
    fn kind(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.stored(py)?.kind(py)
    }

    /// Size in bytes: of an array's items, of the bytes or the text, else of the stored object.
    #[getter]
    fn nbytes(&self, py: Python<'_>) -> PyResult<u64> {
        self.stored(py)?.nbytes(py)
    }

    /// The shape of an array or memoryview; None for others.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.stored(py)?.shape(py)
    }

    /// The numpy type of an array, the format of a memoryview; None for others.
    #[getter]
    fn dtype<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.stored(py)?.dtype(py)
    }

    /// The memory node that has the object, in hex; None if the bytes are few and travel with the reference.
    #[getter]
    fn node(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.stored(py)?.node())
    }

    /// True: a length of 0 is of what it refers to.
    fn __bool__(&self) -> bool {
        true
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.stored(py)?.length(py)
    }

    /// A reference to a part: nothing is copied.
    ///
    /// Arrays take ints, slices and `...` that name one run of memory; bytes take slices. Steps are 1.
    fn __getitem__(&self, py: Python<'_>, index: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(self.stored(py)?.item(py, index)?.into())
    }

    /// The same bytes, seen as an array of another type and shape; without a type, as plain bytes.
    ///
    /// `dtype` is anything that `numpy.dtype` takes; one axis of `shape` may be -1. Nothing is copied::
    ///
    ///     ref = pydmrpc.put(numpy.zeros(1 << 20, "u1"))
    ///     floats = ref.view("f4", (-1, 256))
    ///     pydmrpc.get(floats[3])
    ///
    /// Raises ValueError if the bytes are no whole number of items.
    #[pyo3(signature = (dtype=None, shape=None))]
    fn view(
        &self,
        py: Python<'_>,
        dtype: Option<&Bound<'_, PyAny>>,
        shape: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        Ok(self.stored(py)?.view(py, dtype, shape)?.into())
    }

    /// A private, writable picture, from which a new object is made that shares every page that was not written::
    ///
    ///     with ref.edit() as e:
    ///         e[10:20] = 0
    ///     new = e.ref
    ///
    /// Arrays and bytes can be edited; TypeError for other values.
    fn edit<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get().stored(py)?;
        let (kind, _, bytes) = this.content(py)?;
        if kind == Some(Kind::Str) {
            return Err(PyTypeError::new_err("a str can't be edited; ref.view() gives its bytes, which can"));
        }
        let edit = wait(py, Deadline::NEVER, this.any(py)?.edit())?;
        let core = Bound::new(py, Edit::new(edit, bytes, slf.clone().unbind()))?;
        py.import("pydmrpc._edit")?.getattr("Edit")?.call1((slf, core))
    }

    /// An array over the bytes as they are, read-only. For edits: what indices lead to.
    fn model<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.stored(py)?.model(py)
    }

    /// Whether `get` need not wait for anybody.
    fn is_ready(&self, py: Python<'_>) -> PyResult<bool> {
        match &self.source {
            Source::Stored(stored) => stored.is_ready(py),
            Source::Promised(slot, _) => Ok(slot.is_ready()),
        }
    }

    /// A `concurrent.futures.Future` of the value, as `get` gives it.
    fn future<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("pydmrpc._futures")?.call_method1("future_of", (slf,))
    }

    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("pydmrpc._futures")?.call_method1("awaited", (slf,))
    }

    /// A text with which anyone of the tenant can take a reference within `ttl` seconds, also when this process is gone by then:
    /// see :func:`pydmrpc.redeem`. It is a secret.
    #[pyo3(signature = (ttl=PICKLED_GRANT_SECONDS))]
    fn grant(&self, py: Python<'_>, ttl: f64) -> PyResult<String> {
        let ttl = Duration::try_from_secs_f64(ttl);
        let ttl = ttl.map_err(|_| PyValueError::new_err("ttl is a number of seconds from 0 on"))?;
        let stored = self.stored(py)?;
        let any = stored.any(py)?;
        let form = hex(&stored.form().encode());
        if any.is_inline() {
            let view = wait(py, Deadline::NEVER, any.get())?;
            return Ok(format!("{INLINE_PREFIX}{form}-{}", hex(view.as_bytes())));
        }
        let granted = wait(py, Deadline::NEVER, any.grant(ttl))?;
        Ok(format!("{STORED_PREFIX}{form}-{granted}"))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let (py, this) = (slf.py(), slf.get());
        reduce::keep(slf);
        let module = py.import("pydmrpc._core")?;
        let stored = match &this.source {
            Source::Promised(slot, _) => {
                reduce::pass_on(py, slot)?;
                let id = slot.id();
                let arguments = (id.task.client.0, id.task.number, id.index).into_pyobject(py)?;
                return Ok((module.getattr("_promised")?, arguments));
            }
            Source::Stored(stored) => stored,
        };
        let any = stored.any(py)?;
        let form = PyBytes::new(py, &stored.form().encode());
        if any.is_inline() {
            let Name { process, number, start } = stored.name();
            let view = wait(py, Deadline::NEVER, any.get())?;
            let arguments = (PyBytes::new(py, view.as_bytes()), form, (process, number, start)).into_pyobject(py)?;
            return Ok((module.getattr("_from_bytes")?, arguments));
        }
        if let Some(place) = reduce::lend(any) {
            return Ok((module.getattr("_lent")?, (place, form).into_pyobject(py)?));
        }
        let ttl = Duration::from_secs_f64(PICKLED_GRANT_SECONDS);
        let granted = wait(py, Deadline::NEVER, any.grant(ttl))?;
        Ok((module.getattr("_from_grant")?, (granted.to_string(), form).into_pyobject(py)?))
    }

    /// The bytes of `hex`.
    fn binary<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.get_type::<PyBytes>().call_method1("fromhex", (self.hex(),))
    }

    /// Whether it is to nothing: none is.
    fn is_nil(&self) -> bool {
        false
    }

    /// A reference to another value of the same task. For tasks whose values come one by one.
    fn _value(&self, py: Python<'_>, index: u32) -> PyResult<Self> {
        match &self.source {
            Source::Promised(slot, _) => {
                slot.client().check(py)?;
                Ok(slot.client().slot(slot.id().task.result(index)).into())
            }
            Source::Stored(_) => Err(PyTypeError::new_err("what was put comes of no task")),
        }
    }

    /// Whether it is what a task or call returns, whose value comes by itself.
    fn _is_promised(&self) -> bool {
        matches!(self.source, Source::Promised(..))
    }

    /// Whether it is known to stand behind the last value of a task.
    fn _is_end(&self) -> bool {
        match &self.source {
            Source::Promised(slot, _) => {
                slot.delivered().is_some_and(|it| matches!(it.outcome.value, Err(dmrpc_hub::Failure::NoMoreValues)))
            }
            Source::Stored(_) => false,
        }
    }

    /// A name for logs, which is no capability: hex digits, different for different objects and parts.
    fn hex(&self) -> String {
        match &self.source {
            Source::Stored(stored) => stored.hex(),
            Source::Promised(slot, _) => {
                let id = slot.id();
                format!("{:08x}{:08x}{:08x}", id.task.client.0, id.task.number, id.index)
            }
        }
    }

    fn __repr__(&self) -> String {
        match &self.source {
            Source::Stored(stored) => stored.text(),
            Source::Promised(..) => format!("ObjectRef({})", self.hex()),
        }
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match &self.source {
            Source::Stored(stored) => stored.hash(&mut hasher),
            Source::Promised(slot, _) => slot.id().hash(&mut hasher),
        }
        hasher.finish()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        let Ok(other) = other.cast::<Self>() else { return false };
        match (&self.source, &other.get().source) {
            (Source::Stored(a), Source::Stored(b)) => a.is_same(b),
            (Source::Promised(a, _), Source::Promised(b, _)) => a.id() == b.id(),
            _ => false,
        }
    }

    /// `ObjectRef[T]` in annotations is `ObjectRef`.
    #[classmethod]
    fn __class_getitem__<'py>(
        class: &Bound<'py, pyo3::types::PyType>,
        _of: &Bound<'py, PyAny>,
    ) -> Bound<'py, pyo3::types::PyType> {
        class.clone()
    }
}

/// What grants of a reference begin with, as text: the form follows, then the bytes or the store's grant.
const INLINE_PREFIX: &str = "pydmrpc1-bytes-";
const STORED_PREFIX: &str = "pydmrpc1-";

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some((digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?) as u8)).collect()
}

/// Takes a reference by a grant: a text that `ref.grant()` gave, or a grant of a Rust program.
#[pyfunction]
pub(crate) fn redeem(py: Python<'_>, text: &str) -> PyResult<ObjectRef> {
    let no_grant = || errors::named(py, "MalformedError", "this text is no grant");
    if let Some(rest) = text.strip_prefix(INLINE_PREFIX) {
        let (form, bytes) = rest.split_once('-').ok_or_else(no_grant)?;
        let (form, bytes) = (from_hex(form).ok_or_else(no_grant)?, from_hex(bytes).ok_or_else(no_grant)?);
        return Ok(inline(py, &bytes, &form)?.listed(py).into());
    }
    if let Some(rest) = text.strip_prefix(STORED_PREFIX) {
        let (form, grant) = rest.split_once('-').ok_or_else(no_grant)?;
        return _from_grant(py, grant, &from_hex(form).ok_or_else(no_grant)?);
    }
    Ok(ObjectRef::received(py, redeem_any(py, text)?))
}

fn redeem_any(py: Python<'_>, text: &str) -> PyResult<AnyRef> {
    let granted: Granted = text.parse().map_err(|error| errors::of_store(py, &error))?;
    let store = match Store::of_node(granted.node()) {
        Some(store) => store,
        // A process that has no store yet joins the node that the grant is of.
        None if client::current(py)?.is_none() && !granted.url().is_empty() => {
            py.import("pydmrpc")?.call_method1("init", (granted.url(),))?;
            client::store(py)?
        }
        None => client::store(py)?,
    };
    wait(py, Deadline::NEVER, store.redeem(&granted))
}

fn inline(py: Python<'_>, bytes: &[u8], form: &[u8]) -> PyResult<Stored> {
    let form = Form::decode(form, bytes.len()).map_err(|error| errors::malformed(py, error))?;
    let codec = if form == Form::Value { PYTHON_VALUE } else { Codec::RAW };
    let reference = Stored::new(StoreRef::inline(bytes).into_any().with_codec(codec), form);
    if *reference.form() == Form::Value {
        // The bytes are at hand, so they are looked at at once.
        reference.head(py)?;
    }
    Ok(reference)
}

/// What a pickled reference to few bytes becomes.
#[pyfunction]
pub(crate) fn _from_bytes(py: Python<'_>, bytes: &[u8], form: &[u8], name: (u64, u64, u64)) -> PyResult<ObjectRef> {
    let (process, number, start) = name;
    Ok(inline(py, bytes, form)?.named(Name { process, number, start }).listed(py).into())
}

/// What a pickled reference becomes.
#[pyfunction]
pub(crate) fn _from_grant(py: Python<'_>, grant: &str, form: &[u8]) -> PyResult<ObjectRef> {
    let any = redeem_any(py, grant)?;
    let form = Form::decode(form, any.byte_len() as usize).map_err(|error| errors::malformed(py, error))?;
    Ok(Stored::new(any, form).listed(py).into())
}

/// What a reference in the arguments or the value of a task becomes: the `place`-th of those that came with it.
#[pyfunction]
pub(crate) fn _lent(py: Python<'_>, place: usize, form: &[u8]) -> PyResult<ObjectRef> {
    let any = reduce::borrowed(place).ok_or_else(|| {
        errors::named(py, "MalformedError", "a pickle of a task's arguments or value, read outside of it")
    })?;
    let form = Form::decode(form, any.byte_len() as usize).map_err(|error| errors::malformed(py, error))?;
    Ok(Stored::new(any, form).listed(py).into())
}

/// What a pickled reference to a result becomes.
#[pyfunction]
pub(crate) fn _promised(py: Python<'_>, client: u32, number: u32, index: u32) -> PyResult<ObjectRef> {
    Ok(runtime::slot(py, client, number, index)?.into())
}

/// Stores a value. See `pydmrpc.put`.
#[pyfunction]
pub(crate) fn put(value: &Bound<'_, PyAny>) -> PyResult<ObjectRef> {
    let py = value.py();
    if value.is_instance_of::<ObjectRef>() {
        let message = "an ObjectRef is stored already; put([ref]) stores a list with the reference in it";
        return Err(PyTypeError::new_err(message));
    }
    Ok(store(Plan::new(value)?, py)?.listed(py).into())
}

/// Stores what `plan` describes.
pub(crate) fn store<'py>(plan: Plan<'py>, py: Python<'py>) -> PyResult<Stored> {
    let store = client::store(py)?;
    let derived = match derive::seal(py, &plan)? {
        Some(any) => Some((any, None)),
        None => derive::derive(py, &plan)?.map(|(any, origin)| (any, Some(origin))),
    };
    let origin = derived.as_ref().and_then(|(_, origin)| origin.clone());
    let any = match derived {
        Some((any, _)) => any,
        None if plan.layout.total <= INLINE_BYTES => {
            let mut bytes = [0; INLINE_BYTES];
            let bytes = &mut bytes[..plan.layout.total];
            plan.write(py, bytes)?;
            wait(py, Deadline::NEVER, store.put_any(bytes, PYTHON_VALUE))?
        }
        None => {
            let mut draft = wait(py, Deadline::NEVER, store.create(plan.layout.total))?;
            plan.write(py, &mut draft)?;
            wait(py, Deadline::NEVER, draft.seal())?.into_any()
        }
    };
    let head = Head { kind: plan.kind, payload_bytes: plan.payload_bytes().unwrap_or(0), form: plan.form };
    Ok(Stored::described(any, head, origin, plan.refs))
}

/// An array of numpy's in memory of the store. See `pydmrpc.empty`.
#[pyfunction]
pub(crate) fn allocate<'py>(
    py: Python<'py>,
    dtype: &str,
    item_bytes: usize,
    shape: Vec<usize>,
) -> PyResult<Bound<'py, PyAny>> {
    let form = ArrayForm { dtype: dtype.into(), item_bytes, shape: shape.into(), order: Order::C };
    let bytes = form.bytes().ok_or_else(|| PyValueError::new_err("an array of more bytes than there are addresses"))?;
    let mut meta = Vec::new();
    form.encode(&mut meta);
    let layout = Layout::new(Kind::Array, meta.len(), [bytes]);
    let workspace = wait(py, Deadline::NEVER, client::store(py)?.workspace(layout.total))?;
    decode::array(py, &Region::draft(workspace), Kind::Array, &form)
}

/// The value of a reference, or a list of the values of several; waits until they are there.
///
/// Arrays are the pages of the store themselves, of whatever size, and can be written: the kernel copies the pages that are, and
/// nobody else sees it. `writable=False` is Ray's way. Raises GetTimeoutError if it takes longer than `timeout` seconds;
/// RayTaskError if the task raised, which is an instance of what was raised, too; RayActorError if the actor is gone;
/// WorkerCrashedError if the task's process ended; ObjectLostError if the object is not there any more.
///
/// Example: `pydmrpc.get([f.remote(i) for i in range(4)])`.
#[pyfunction]
#[pyo3(signature = (refs, *, timeout=None, writable=true))]
pub(crate) fn get<'py>(refs: &Bound<'py, PyAny>, timeout: Option<f64>, writable: bool) -> PyResult<Bound<'py, PyAny>> {
    let py = refs.py();
    let deadline = Deadline::after_seconds(timeout)?;
    if let Ok(reference) = refs.cast::<ObjectRef>() {
        return reference.get().value(py, deadline, writable);
    }
    let wrong = |what: &Bound<'_, PyAny>| {
        PyValueError::new_err(format!("get takes an ObjectRef or a list of them, not {}", what.get_type()))
    };
    if !(refs.is_instance_of::<PyList>() || refs.is_instance_of::<PyTuple>()) {
        return Err(wrong(refs));
    }
    let mut references = Vec::with_capacity(refs.len()?);
    for reference in refs.try_iter()? {
        references.push(reference?.cast_into::<ObjectRef>().map_err(|error| {
            let kind = error.into_inner().get_type();
            PyTypeError::new_err(format!("get takes a list of ObjectRefs, but {kind} is among them"))
        })?);
    }
    let promised: Vec<_> = references
        .iter()
        .filter_map(|reference| match &reference.get().source {
            Source::Promised(slot, _) => Some(slot),
            Source::Stored(_) => None,
        })
        .collect();
    runtime::gather(py, &promised, deadline)?;
    let values = PyList::empty(py);
    for reference in &references {
        values.append(reference.get().value(py, deadline, writable)?)?;
    }
    Ok(values.into_any())
}

/// Encodes and decodes without a store. For tests of the layout.
#[pyfunction]
pub(crate) fn _encode<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = value.py();
    let plan = Plan::new(value)?;
    PyBytes::new_with(py, plan.layout.total, |to| plan.write(py, to))
}

/// What [`_encode`] made, or an exception for any other bytes.
#[pyfunction]
pub(crate) fn _decode<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let view = wait(py, Deadline::NEVER, StoreRef::inline(bytes).into_any().get())?;
    decode::value(py, view, true)
}
