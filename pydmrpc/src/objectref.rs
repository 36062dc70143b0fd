//! `ObjectRef`: what `put` gives and `get` takes.
//!
//! 1. A reference keeps its object alive, and the references inside the value that this process stored.
//! 2. Two references are equal if they lead to the same bytes and see them as the same.
//! 3. Making, slicing, comparing and dropping a reference asks nobody.

use crate::client::SessionNumber;
use crate::decode;
use crate::edit::Edit;
use crate::encode::Plan;
use crate::errors;
use crate::fork::Native;
use crate::form::{self, Form};
use crate::layout::{ArrayForm, Kind, Layout, MAX_FORM_BYTES, Malformed, Order, TAIL_BYTES, Trailer};
use crate::region::Region;
use crate::sharing::Pages;
use crate::wait::{Deadline, wait};
use crate::{client, derive, numpy, reduce};
use dmrpc_objstore::{AnyRef, Codec, Granted, INLINE_BYTES, ObjectRef as StoreRef, Store, StoreError};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The codec of whole Python values: their trailer tells more.
pub(crate) const PYTHON_VALUE: Codec = Codec(16);

/// How long the grant in a pickled reference lives.
const PICKLED_GRANT_SECONDS: f64 = 600.0;

/// A reference to an object in a memory node, or to a part of one: a capability to read it from any process of the tenant, that
/// keeps it alive.
///
/// Made by :func:`pydmrpc.put`. References are hashable and comparable, awaitable, and can be pickled (then a grant with a time
/// to live goes into the pickle). ``ref[a:b]`` is a reference to a part of an array or of bytes, and copies nothing::
///
///     ref = pydmrpc.put(numpy.arange(1_000_000))
///     pydmrpc.get(ref[10:20])              # only that moves
#[pyclass(frozen, weakref, module = "pydmrpc")]
pub(crate) struct ObjectRef {
    any: Native<AnyRef>,
    /// The session that it was made in.
    session: SessionNumber,
    form: Form,
    /// What the trailer of a whole value says, once it was read.
    head: OnceLock<Head>,
    name: Name,
    /// The pages of the object that this one was made of, if it was.
    origin: Option<Arc<Pages>>,
    /// References inside the value.
    #[expect(dead_code, reason = "they are only owned")]
    kept: Vec<Py<ObjectRef>>,
}

/// What tells inline objects, which have no id, apart: whose bytes, and where in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Name {
    process: u64,
    number: u64,
    start: u64,
}

impl Name {
    fn new() -> Self {
        static PROCESS: OnceLock<u64> = OnceLock::new();
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        // The process is part of it, so that a fork goes on with other names.
        let process =
            PROCESS.get_or_init(|| RandomState::new().hash_one(0)).wrapping_add(u64::from(std::process::id()));
        Self { process, number: NUMBER.fetch_add(1, Ordering::Relaxed), start: 0 }
    }
}

/// What a value is.
#[derive(Clone, Debug)]
struct Head {
    kind: Kind,
    payload_bytes: usize,
    form: Option<ArrayForm>,
}

impl Head {
    /// Reads the end of an object, and no more: the rest may be far away.
    async fn read(any: &AnyRef) -> Result<Result<Self, Malformed>, StoreError> {
        let object_bytes = any.byte_len() as usize;
        let mut tail = [0; TAIL_BYTES];
        let tail = &mut tail[..TAIL_BYTES.min(object_bytes)];
        let tail_start = object_bytes - tail.len();
        any.read(tail_start as u64, tail).await?;
        let trailer = match Trailer::read_tail(tail, object_bytes) {
            Ok(trailer) => trailer,
            Err(malformed) => return Ok(Err(malformed)),
        };
        let (kind, payload_bytes) = (trailer.kind, trailer.payload_bytes);
        if !matches!(kind, Kind::Array | Kind::Memory) {
            return Ok(Ok(Self { kind, payload_bytes, form: None }));
        }
        let form = match trailer.meta.start.checked_sub(tail_start) {
            Some(start) => ArrayForm::decode_for(&tail[start..start + trailer.meta.len()], payload_bytes),
            // An honest one is short.
            None if trailer.meta.len() > MAX_FORM_BYTES => Err(Malformed("array form too long")),
            None => {
                let mut meta = vec![0; trailer.meta.len()];
                any.read(trailer.meta.start as u64, &mut meta).await?;
                ArrayForm::decode_for(&meta, payload_bytes)
            }
        };
        Ok(form.map(|form| Self { kind, payload_bytes, form: Some(form) }))
    }
}

impl ObjectRef {
    fn new(any: AnyRef, form: Form) -> Self {
        Self {
            any: Native::new(any),
            session: SessionNumber::current(),
            form,
            head: OnceLock::new(),
            name: Name::new(),
            origin: None,
            kept: Vec::new(),
        }
    }

    /// A reference that came from somewhere else.
    pub(crate) fn received(any: AnyRef) -> Self {
        let form = if any.codec() == PYTHON_VALUE { Form::Value } else { Form::Raw };
        Self::new(any, form)
    }

    /// The object that an edit of this one became.
    pub(crate) fn edited(&self, py: Python<'_>, any: AnyRef) -> PyResult<Self> {
        let edited = Self::new(any.with_codec(self.any.codec()), self.form.clone());
        let edited = Self { origin: Some(Arc::new(Pages::of(py, &self.any)?)), ..edited };
        match self.head.get() {
            Some(head) => Ok(Self { head: head.clone().into(), ..edited }),
            None => Ok(edited),
        }
    }

    /// The pages of the object that this one was made of, if it was made here.
    pub(crate) fn origin(&self) -> Option<&Arc<Pages>> {
        self.origin.as_ref()
    }

    /// The reference of the store; an exception in a forked child, and after a shutdown.
    pub(crate) fn any(&self, py: Python<'_>) -> PyResult<&AnyRef> {
        if self.any.is_foreign() {
            return Err(errors::forked(py));
        }
        if self.session != SessionNumber::current() && !self.any.is_inline() {
            return Err(errors::of_store(py, &StoreError::Closed));
        }
        Ok(&self.any)
    }

    /// What the value is, from its trailer.
    fn head(&self, py: Python<'_>) -> PyResult<&Head> {
        if let Some(head) = self.head.get() {
            return Ok(head);
        }
        let head = wait(py, Deadline::NEVER, Head::read(self.any(py)?))?;
        let head = head.map_err(|error| errors::malformed(py, error))?;
        Ok(self.head.get_or_init(|| head))
    }

    /// Kind, form and length of the bytes that can be sliced and edited; `TypeError` if the value has none.
    fn content(&self, py: Python<'_>) -> PyResult<(Option<Kind>, Option<&ArrayForm>, usize)> {
        let bytes = self.any.byte_len() as usize;
        match &self.form {
            Form::Raw => Ok((None, None, bytes)),
            Form::Bytes(kind) => Ok((Some(*kind), None, bytes)),
            Form::Array(kind, form) => Ok((Some(*kind), Some(form), bytes)),
            Form::Value => {
                let head = self.head(py)?;
                if head.kind.has_payload() {
                    return Ok((Some(head.kind), head.form.as_ref(), head.payload_bytes));
                }
                Err(PyTypeError::new_err(
                    "the value is neither an array nor bytes, so it has no parts and can't be edited: get() it whole",
                ))
            }
        }
    }

    /// The bytes that a program in another language is given: the payload, or everything.
    pub(crate) fn payload(&self, py: Python<'_>) -> PyResult<AnyRef> {
        let any = self.any(py)?;
        if self.form == Form::Value && !self.head(py)?.kind.has_payload() {
            return Ok(any.clone());
        }
        let (_, _, bytes) = self.content(py)?;
        self.part(py, 0..bytes)
    }

    fn part(&self, py: Python<'_>, range: Range<usize>) -> PyResult<AnyRef> {
        let part = self.any(py)?.slice(range.start as u64..range.end as u64);
        Ok(part.map_err(|error| errors::of_store(py, &error))?.with_codec(Codec::RAW))
    }

    /// A reference to a part.
    fn sliced(&self, py: Python<'_>, range: Range<usize>, form: Form) -> PyResult<Self> {
        let name = Name { start: self.name.start + range.start as u64, ..self.name };
        Ok(Self {
            any: Native::new(self.part(py, range)?),
            session: self.session,
            form,
            head: OnceLock::new(),
            name,
            origin: None,
            kept: Vec::new(),
        })
    }

    /// The value.
    fn value<'py>(&self, py: Python<'py>, deadline: Deadline, writable: bool) -> PyResult<Bound<'py, PyAny>> {
        let view = wait(py, deadline, self.any(py)?.get())?;
        match &self.form {
            Form::Value => decode::value(py, view, writable),
            Form::Bytes(kind) => decode::bytes(py, view.as_bytes(), *kind),
            Form::Array(kind, form) => decode::array(py, &Region::open(view, writable), *kind, form),
            Form::Raw => {
                let region = Region::open(view, writable);
                let len = region.len();
                crate::page_buffer::PageBuffer::memoryview(py, &region, 0..len)
            }
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let same_bytes = match (self.any.id(), other.any.id()) {
            (Some(_), Some(_)) => self.any.same(&other.any),
            (None, None) => self.name == other.name && self.any.byte_len() == other.any.byte_len(),
            _ => false,
        };
        same_bytes && self.form == other.form
    }
}

#[pymethods]
impl ObjectRef {
    /// What it refers to: "array", "bytes", "bytearray", "str", "memoryview", "scalar" (None, numbers, small tuples), "pickle"
    /// (any other object), or "raw" (bytes that Python knows nothing of).
    #[getter]
    fn kind(&self, py: Python<'_>) -> PyResult<&'static str> {
        let kind = match &self.form {
            Form::Raw => return Ok("raw"),
            Form::Bytes(kind) | Form::Array(kind, _) => *kind,
            Form::Value => self.head(py)?.kind,
        };
        Ok(match kind {
            Kind::Scalar => "scalar",
            Kind::Str => "str",
            Kind::Bytes => "bytes",
            Kind::ByteArray => "bytearray",
            Kind::Array => "array",
            Kind::Memory => "memoryview",
            Kind::Pickle => "pickle",
        })
    }

    /// Size in bytes: of an array's items, of the bytes or the text, else of the stored object.
    #[getter]
    fn nbytes(&self, py: Python<'_>) -> PyResult<u64> {
        if self.form == Form::Value && self.head(py)?.kind.has_payload() {
            return Ok(self.head(py)?.payload_bytes as u64);
        }
        Ok(self.any.byte_len())
    }

    /// The shape of an array or memoryview; None for others.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.array_form(py)?.map(|(_, form)| PyTuple::new(py, &form.shape)).transpose()
    }

    /// The numpy type of an array, the format of a memoryview; None for others.
    #[getter]
    fn dtype<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.array_form(py)? {
            None => Ok(None),
            Some((Kind::Array, form)) => numpy::dtype(py, &form.dtype).map(Some),
            Some((_, form)) => Ok(Some(PyString::new(py, &form.dtype).into_any())),
        }
    }

    /// The memory node that has the object, in hex; None if the bytes are few and travel with the reference.
    #[getter]
    fn node(&self) -> Option<String> {
        self.any.node().map(|node| format!("{:08x}", node.0))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        let (_, form, bytes) = self.content(py)?;
        match form {
            None => Ok(bytes),
            Some(form) => {
                form.shape.first().copied().ok_or_else(|| PyTypeError::new_err("an array without axes has no len()"))
            }
        }
    }

    /// A reference to a part: nothing is copied.
    ///
    /// Arrays take ints, slices and `...` that name one run of memory; bytes take slices. Steps are 1.
    fn __getitem__(&self, py: Python<'_>, index: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (kind, form, bytes) = self.content(py)?;
        match (kind, form) {
            (Some(kind), Some(form)) => {
                let (start, picked) = form::select_items(index, form)?;
                let end = start + picked.bytes().expect("a part is no larger than the whole");
                self.sliced(py, start..end, Form::Array(kind, picked))
            }
            (Some(Kind::Str), _) => {
                let message =
                    "a str is stored as UTF-8, where characters have no fixed place: ref.view() gives its bytes";
                Err(PyTypeError::new_err(message))
            }
            (Some(kind), None) => self.sliced(py, form::select_bytes(index, bytes)?, Form::Bytes(kind)),
            (None, _) => self.sliced(py, form::select_bytes(index, bytes)?, Form::Raw),
        }
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
        let (_, _, bytes) = self.content(py)?;
        let Some(dtype) = dtype else {
            if shape.is_some() {
                return Err(PyValueError::new_err("a shape needs a dtype"));
            }
            return self.sliced(py, 0..bytes, Form::Raw);
        };
        let dtype = py.import("numpy")?.call_method1("dtype", (dtype,))?;
        let name: String = dtype.getattr(intern!(py, "str"))?.extract()?;
        numpy::dtype(py, &name)?;
        let item_bytes = dtype.getattr(intern!(py, "itemsize"))?.extract()?;
        let shape = form::shape_of(shape, bytes as u64, item_bytes)?;
        let form = ArrayForm { dtype: name.into(), item_bytes, shape, order: Order::C };
        self.sliced(py, 0..bytes, Form::Array(Kind::Array, form))
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
        let this = slf.get();
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
        let view = wait(py, Deadline::NEVER, self.any(py)?.get())?;
        match self.array_form(py)? {
            Some((kind, form)) => decode::array(py, &Region::open(view, false), kind, form),
            None => Err(PyTypeError::new_err("not an array")),
        }
    }

    /// Whether `get` need not wait for anybody.
    fn is_ready(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.any(py)?.try_get().is_some())
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
        let any = self.any(py)?;
        let form = hex(&self.form.encode());
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
        let any = this.any(py)?;
        let name = (this.name.process, this.name.number, this.name.start);
        let form = PyBytes::new(py, &this.form.encode());
        let module = py.import("pydmrpc._core")?;
        if any.is_inline() {
            let view = wait(py, Deadline::NEVER, any.get())?;
            let arguments = (PyBytes::new(py, view.as_bytes()), form, name).into_pyobject(py)?;
            return Ok((module.getattr("_from_bytes")?, arguments));
        }
        let ttl = Duration::from_secs_f64(PICKLED_GRANT_SECONDS);
        let granted = wait(py, Deadline::NEVER, any.grant(ttl))?;
        Ok((module.getattr("_from_grant")?, (granted.to_string(), form).into_pyobject(py)?))
    }

    /// A name for logs, which is no capability: hex digits, different for different objects and parts.
    fn hex(&self) -> String {
        match self.any.id() {
            Some(id) => {
                let (start, len) = (self.name.start, self.any.byte_len());
                let id = format!("{:08x}{:08x}{:08x}", id.node().0, id.slot(), id.generation());
                if self.form == Form::Value { id } else { format!("{id}{start:016x}{len:016x}") }
            }
            None => format!("{:016x}{:016x}{:016x}", self.name.process, self.name.number, self.name.start),
        }
    }

    fn __repr__(&self) -> String {
        let what = match (&self.form, self.head.get()) {
            (Form::Array(_, form), _) | (Form::Value, Some(Head { form: Some(form), .. })) => {
                format!(" {} {:?}", form.dtype, form.shape)
            }
            (Form::Value, Some(head)) if head.kind.has_payload() => {
                format!(" {:?} of {}", head.kind, head.payload_bytes)
            }
            _ => format!(" of {} bytes", self.any.byte_len()),
        };
        format!("ObjectRef({}{what})", self.hex())
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self.any.id() {
            Some(id) => id.hash(&mut hasher),
            None => self.name.hash(&mut hasher),
        }
        self.any.byte_len().hash(&mut hasher);
        hasher.finish()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| self.is_same(other.get()))
    }
}

impl ObjectRef {
    fn array_form(&self, py: Python<'_>) -> PyResult<Option<(Kind, &ArrayForm)>> {
        match &self.form {
            Form::Array(kind, form) => Ok(Some((*kind, form))),
            Form::Value => {
                let head = self.head(py)?;
                Ok(head.form.as_ref().map(|form| (head.kind, form)))
            }
            Form::Raw | Form::Bytes(_) => Ok(None),
        }
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
        return inline(py, &bytes, &form);
    }
    if let Some(rest) = text.strip_prefix(STORED_PREFIX) {
        let (form, grant) = rest.split_once('-').ok_or_else(no_grant)?;
        return _from_grant(py, grant, &from_hex(form).ok_or_else(no_grant)?);
    }
    redeem_any(py, text).map(ObjectRef::received)
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

fn inline(py: Python<'_>, bytes: &[u8], form: &[u8]) -> PyResult<ObjectRef> {
    let form = Form::decode(form, bytes.len()).map_err(|error| errors::malformed(py, error))?;
    let codec = if form == Form::Value { PYTHON_VALUE } else { Codec::RAW };
    let reference = ObjectRef::new(StoreRef::inline(bytes).into_any().with_codec(codec), form);
    if reference.form == Form::Value {
        // The bytes are at hand, so they are looked at at once.
        reference.head(py)?;
    }
    Ok(reference)
}

/// What a pickled reference to few bytes becomes.
#[pyfunction]
pub(crate) fn _from_bytes(py: Python<'_>, bytes: &[u8], form: &[u8], name: (u64, u64, u64)) -> PyResult<ObjectRef> {
    let (process, number, start) = name;
    Ok(ObjectRef { name: Name { process, number, start }, ..inline(py, bytes, form)? })
}

/// What a pickled reference becomes.
#[pyfunction]
pub(crate) fn _from_grant(py: Python<'_>, grant: &str, form: &[u8]) -> PyResult<ObjectRef> {
    let any = redeem_any(py, grant)?;
    let form = Form::decode(form, any.byte_len() as usize).map_err(|error| errors::malformed(py, error))?;
    Ok(ObjectRef::new(any, form))
}

/// Stores a value. See `pydmrpc.put`.
#[pyfunction]
pub(crate) fn put(value: &Bound<'_, PyAny>) -> PyResult<ObjectRef> {
    let py = value.py();
    if value.is_instance_of::<ObjectRef>() {
        let message = "an ObjectRef is stored already; put([ref]) stores a list with the reference in it";
        return Err(PyTypeError::new_err(message));
    }
    let store = client::store(py)?;
    let plan = Plan::new(value)?;
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
    let reference = ObjectRef::new(any.with_codec(PYTHON_VALUE), Form::Value);
    Ok(ObjectRef { head: head.into(), origin, kept: plan.refs, ..reference })
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

/// The value of a reference, or a list of the values of several. See `pydmrpc.get`.
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
    let values = PyList::empty(py);
    for reference in refs.try_iter()? {
        let reference = reference?;
        let reference = reference.cast::<ObjectRef>().map_err(|_| wrong(&reference))?;
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
