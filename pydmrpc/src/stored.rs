//! What `put` stored: bytes in a memory node, or with the reference itself, and how Python sees them.
//!
//! 1. It keeps its object alive, and the references inside the value that this process stored.
//! 2. Two are equal if they lead to the same bytes and see them as the same.
//! 3. Making, slicing, comparing and dropping one asks nobody.

use crate::client::SessionNumber;
use crate::decode;
use crate::errors;
use crate::fork::Native;
use crate::form::{self, Form};
use crate::held::Held;
use crate::layout::{ArrayForm, Kind, MAX_FORM_BYTES, Malformed, Order, TAIL_BYTES, Trailer};
use crate::numpy;
use crate::objectref::ObjectRef;
use crate::region::Region;
use crate::sharing::Pages;
use crate::site::Site;
use crate::wait::{Deadline, wait};
use dmrpc_objstore::{AnyRef, Codec, ObjectId, StoreError};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The codec of whole Python values: their trailer tells more.
pub(crate) const PYTHON_VALUE: Codec = Codec(16);

/// An object, or a part of one.
pub(crate) struct Stored {
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
    /// Its entry among what this process holds, if a user's program has it.
    #[expect(dead_code, reason = "it is only owned")]
    held: Option<Native<Held>>,
}

/// What tells an object or a part of one apart, for logs and lists.
#[derive(Clone, Copy)]
pub(crate) enum Identity {
    /// In a memory node.
    Whole(ObjectId),
    /// Bytes of such: start and length.
    Part(ObjectId, u64, u64),
    /// With the reference.
    Inline(Name),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(id) | Self::Part(id, ..) => {
                write!(f, "{:08x}{:08x}{:08x}", id.node().0, id.slot(), id.generation())?;
            }
            Self::Inline(Name { process, number, start }) => write!(f, "{process:016x}{number:016x}{start:016x}")?,
        }
        match self {
            Self::Part(_, start, len) => write!(f, "{start:016x}{len:016x}"),
            _ => Ok(()),
        }
    }
}

/// What tells inline objects, which have no id, apart: whose bytes, and where in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) process: u64,
    pub(crate) number: u64,
    pub(crate) start: u64,
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
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) payload_bytes: usize,
    pub(crate) form: Option<ArrayForm>,
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

impl Stored {
    pub(crate) fn new(any: AnyRef, form: Form) -> Self {
        Self {
            any: Native::new(any),
            session: SessionNumber::current(),
            form,
            head: OnceLock::new(),
            name: Name::new(),
            origin: None,
            kept: Vec::new(),
            held: None,
        }
    }

    /// The same, listed among what this process holds.
    pub(crate) fn listed(self, py: Python<'_>) -> Self {
        let kind = match (&self.form, self.head.get()) {
            (Form::Array(kind, _) | Form::Bytes(kind), _) | (Form::Value, Some(Head { kind, .. })) => kind.name(),
            (Form::Value, None) => "value",
            (Form::Raw, _) => "raw",
        };
        let held = Held::new(self.identity(), self.any.byte_len(), kind, Site::here(py));
        Self { held: Some(Native::new(held)), ..self }
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
        let head = self.head.clone();
        Ok(Self { head, ..edited }.listed(py))
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

    /// What a whole value is, where it came from, and the references inside it.
    pub(crate) fn described(any: AnyRef, head: Head, origin: Option<Arc<Pages>>, kept: Vec<Py<ObjectRef>>) -> Self {
        Self { head: head.into(), origin, kept, ..Self::new(any.with_codec(PYTHON_VALUE), Form::Value) }
    }

    /// The same by another name.
    pub(crate) fn named(self, name: Name) -> Self {
        Self { name, ..self }
    }

    /// What tells it apart, if its bytes travel with it.
    pub(crate) fn name(&self) -> Name {
        self.name
    }

    /// How its bytes are to be seen.
    pub(crate) fn form(&self) -> &Form {
        &self.form
    }

    /// What the value is, from its trailer.
    pub(crate) fn head(&self, py: Python<'_>) -> PyResult<&Head> {
        if let Some(head) = self.head.get() {
            return Ok(head);
        }
        let head = wait(py, Deadline::NEVER, Head::read(self.any(py)?))?;
        let head = head.map_err(|error| errors::malformed(py, error))?;
        Ok(self.head.get_or_init(|| head))
    }

    /// Kind, form and length of the bytes that can be sliced and edited; `TypeError` if the value has none.
    pub(crate) fn content(&self, py: Python<'_>) -> PyResult<(Option<Kind>, Option<&ArrayForm>, usize)> {
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
            held: None,
        }
        .listed(py))
    }

    /// The value.
    pub(crate) fn value<'py>(
        &self,
        py: Python<'py>,
        deadline: Deadline,
        writable: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
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

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let same_bytes = match (self.any.id(), other.any.id()) {
            (Some(_), Some(_)) => self.any.same(&other.any),
            (None, None) => self.name == other.name && self.any.byte_len() == other.any.byte_len(),
            _ => false,
        };
        same_bytes && self.form == other.form
    }
}

impl Stored {
    /// What it refers to: "array", "bytes", "bytearray", "str", "memoryview", "scalar" (None, numbers, small tuples), "pickle"
    /// (any other object), or "raw" (bytes that Python knows nothing of).
    pub(crate) fn kind(&self, py: Python<'_>) -> PyResult<&'static str> {
        let kind = match &self.form {
            Form::Raw => return Ok("raw"),
            Form::Bytes(kind) | Form::Array(kind, _) => *kind,
            Form::Value => self.head(py)?.kind,
        };
        Ok(kind.name())
    }

    /// Size in bytes: of an array's items, of the bytes or the text, else of the stored object.
    pub(crate) fn nbytes(&self, py: Python<'_>) -> PyResult<u64> {
        if self.form == Form::Value && self.head(py)?.kind.has_payload() {
            return Ok(self.head(py)?.payload_bytes as u64);
        }
        Ok(self.any.byte_len())
    }

    /// The shape of an array or memoryview; None for others.
    pub(crate) fn shape<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.array_form(py)?.map(|(_, form)| PyTuple::new(py, &form.shape)).transpose()
    }

    /// The numpy type of an array, the format of a memoryview; None for others.
    pub(crate) fn dtype<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.array_form(py)? {
            None => Ok(None),
            Some((Kind::Array, form)) => numpy::dtype(py, &form.dtype).map(Some),
            Some((_, form)) => Ok(Some(PyString::new(py, &form.dtype).into_any())),
        }
    }

    /// The memory node that has the object, in hex; None if the bytes are few and travel with the reference.
    pub(crate) fn node(&self) -> Option<String> {
        self.any.node().map(|node| format!("{:08x}", node.0))
    }

    pub(crate) fn length(&self, py: Python<'_>) -> PyResult<usize> {
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
    pub(crate) fn item(&self, py: Python<'_>, index: &Bound<'_, PyAny>) -> PyResult<Self> {
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
    pub(crate) fn view(
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

    /// An array over the bytes as they are, read-only. For edits: what indices lead to.
    pub(crate) fn model<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let view = wait(py, Deadline::NEVER, self.any(py)?.get())?;
        match self.array_form(py)? {
            Some((kind, form)) => decode::array(py, &Region::open(view, false), kind, form),
            None => Err(PyTypeError::new_err("not an array")),
        }
    }

    /// Whether `get` need not wait for anybody.
    pub(crate) fn is_ready(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.any(py)?.try_get().is_some())
    }

    /// A name for logs, which is no capability: hex digits, different for different objects and parts.
    pub(crate) fn hex(&self) -> String {
        self.identity().to_string()
    }

    fn identity(&self) -> Identity {
        match self.any.id() {
            Some(id) if self.form == Form::Value => Identity::Whole(id),
            Some(id) => Identity::Part(id, self.name.start, self.any.byte_len()),
            None => Identity::Inline(self.name),
        }
    }

    pub(crate) fn text(&self) -> String {
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

    pub(crate) fn hash(&self, hasher: &mut impl Hasher) {
        match self.any.id() {
            Some(id) => id.hash(hasher),
            None => self.name.hash(hasher),
        }
        self.any.byte_len().hash(hasher);
    }
}

impl Stored {
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
