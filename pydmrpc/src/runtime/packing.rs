//! Arguments and values of tasks, as bytes and back.
//!
//! ```text
//! arguments: | positional: u16 | named: u16 | item… | name: u16 length, UTF-8; item … |
//!
//! item: a small value in the codec of `scalars.rs`, or
//! 16 object: u32 length, an object as `layout.rs` draws it        17 stored: u32 place of that object beside the bytes
//! 18 reference: u32 place, u16 length, form: its value            19 need: u32 which of the values that came with the arguments
//!
//! value: an item, but no 18 and 19, and 16 without a length
//! ```
//!
//! 1. What is small is in the bytes, and numbers, short text and small tuples of them without pickle; what is large is stored.
//! 2. Any bytes are a value or an exception, never a panic.

use super::payload::Payload;
use crate::encode::Plan;
use crate::form::Form;
use crate::layout::Malformed;
use crate::objectref::{self, ObjectRef, Source};
use crate::reduce::{self, Beside};
use crate::stored::{PYTHON_VALUE, Stored};
use crate::wait::{Deadline, wait};
use crate::{decode, errors, scalars};
use dmrpc_hub::ResultId;
use dmrpc_objstore::{AnyRef, INLINE_BYTES, ObjectRef as StoreRef};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use std::cell::RefCell;
use std::sync::Arc;

const OBJECT: u8 = 16;
const STORED: u8 = 17;
const REFERENCE: u8 = 18;
const NEED: u8 = 19;

thread_local! {
    /// Where bytes are put together, so that it need not be allocated for each.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Arguments, ready to be sent.
pub(crate) struct Packed {
    pub(crate) payload: Payload,
    pub(crate) needs: Vec<ResultId>,
    pub(crate) contains: Vec<ResultId>,
}

fn with_scratch<R>(pack: impl FnOnce(&mut Vec<u8>) -> PyResult<R>) -> PyResult<R> {
    // Pickling runs code of the user's, which may come back here.
    let mut scratch = SCRATCH.take();
    scratch.clear();
    let result = pack(&mut scratch);
    SCRATCH.replace(scratch);
    result
}

/// The arguments of a call.
///
/// # Errors
///
/// What pickling raises.
pub(crate) fn arguments(args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Packed> {
    with_scratch(|out| {
        let named = kwargs.map_or(0, |kwargs| kwargs.len());
        let count = |count: usize| {
            u16::try_from(count).map_err(|_| pyo3::exceptions::PyTypeError::new_err("more than 65,535 arguments"))
        };
        out.extend_from_slice(&count(args.len())?.to_le_bytes());
        out.extend_from_slice(&count(named)?.to_le_bytes());
        let mut needs = Vec::new();
        let (packed, beside) = reduce::packing(|| {
            for (index, value) in args.iter_borrowed().enumerate() {
                argument(&value, out, &mut needs).map_err(|error| at(args.py(), error, format_args!("{index}")))?;
            }
            for (name, value) in kwargs.iter().flat_map(|kwargs| kwargs.iter()) {
                let text = name.cast::<PyString>()?.to_str()?;
                out.extend_from_slice(&count(text.len())?.to_le_bytes());
                out.extend_from_slice(text.as_bytes());
                argument(&value, out, &mut needs).map_err(|error| at(args.py(), error, format_args!("{text}")))?;
            }
            PyResult::Ok(())
        });
        packed?;
        let Beside { stored, results, .. } = beside;
        Ok(Packed { payload: Payload::new(out, stored), needs, contains: results })
    })
}

fn at(py: Python<'_>, error: PyErr, argument: std::fmt::Arguments<'_>) -> PyErr {
    errors::with_note(py, error, &format!("in argument {argument} of a remote call"))
}

fn argument(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, needs: &mut Vec<ResultId>) -> PyResult<()> {
    if scalars::encode_part(value, out) {
        return Ok(());
    }
    let py = value.py();
    if let Ok(reference) = value.cast_exact::<ObjectRef>() {
        match reference.get().source() {
            Source::Promised(slot, _) => {
                slot.client().check(py)?;
                out.push(NEED);
                out.extend_from_slice(&(needs.len() as u32).to_le_bytes());
                needs.push(slot.id());
            }
            Source::Stored(stored) => {
                let place = reduce::lend(stored.any(py)?).expect("arguments are packed");
                let form = stored.form().encode();
                out.push(REFERENCE);
                out.extend_from_slice(&(place as u32).to_le_bytes());
                out.extend_from_slice(&(form.len() as u16).to_le_bytes());
                out.extend_from_slice(&form);
            }
        }
        return Ok(());
    }
    let plan = Plan::new(value)?;
    if plan.layout.total > INLINE_BYTES {
        return stored(py, plan, out);
    }
    out.push(OBJECT);
    out.extend_from_slice(&(plan.layout.total as u32).to_le_bytes());
    object(py, &plan, out)
}

fn object<'py>(py: Python<'py>, plan: &Plan<'py>, out: &mut Vec<u8>) -> PyResult<()> {
    let start = out.len();
    out.resize(start + plan.layout.total, 0);
    plan.write(py, &mut out[start..])
}

fn stored<'py>(py: Python<'py>, plan: Plan<'py>, out: &mut Vec<u8>) -> PyResult<()> {
    let stored = objectref::store(plan, py)?;
    let place = reduce::lend(stored.any(py)?).expect("values are packed");
    out.push(STORED);
    out.extend_from_slice(&(place as u32).to_le_bytes());
    Ok(())
}

/// A value, and the results that it contains.
///
/// # Errors
///
/// What pickling raises.
pub(crate) fn value(value: &Bound<'_, PyAny>) -> PyResult<(Payload, Vec<ResultId>, Vec<Arc<super::Slot>>)> {
    let py = value.py();
    with_scratch(|out| {
        if scalars::encode_part(value, out) {
            return Ok((Payload::new(out, Vec::new()), Vec::new(), Vec::new()));
        }
        let (packed, beside) = reduce::packing(|| {
            let plan = Plan::new(value)?;
            if plan.layout.total > INLINE_BYTES {
                return stored(py, plan, out);
            }
            out.push(OBJECT);
            object(py, &plan, out)
        });
        packed?;
        Ok((Payload::new(out, beside.stored), beside.results, beside.slots))
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, py: Python<'_>, count: usize) -> PyResult<&'a [u8]> {
        self.0.split_off(..count).ok_or_else(|| errors::malformed(py, Malformed("cut short")))
    }

    fn u16(&mut self, py: Python<'_>) -> PyResult<usize> {
        Ok(u16::from_le_bytes(self.take(py, 2)?.try_into().expect("two bytes")).into())
    }

    fn u32(&mut self, py: Python<'_>) -> PyResult<usize> {
        Ok(u32::from_le_bytes(self.take(py, 4)?.try_into().expect("four bytes")) as usize)
    }
}

fn beside<'a>(py: Python<'_>, payload: &'a Payload, place: usize) -> PyResult<&'a AnyRef> {
    payload.stored.get(place).ok_or_else(|| errors::malformed(py, Malformed("a reference that is not there")))
}

/// The arguments that were packed; `values` are those that they need.
pub(crate) fn unpack_arguments<'py>(
    py: Python<'py>,
    payload: &Payload,
    values: &[Payload],
) -> PyResult<(Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>)> {
    let mut reader = Reader(&payload.bytes);
    let (positional, named) = (reader.u16(py)?, reader.u16(py)?);
    let mut args = smallvec::SmallVec::<[Bound<'py, PyAny>; 4]>::new();
    for _ in 0..positional {
        args.push(unpack_argument(py, &mut reader, payload, values)?);
    }
    let kwargs = if named > 0 { Some(PyDict::new(py)) } else { None };
    for _ in 0..named {
        let length = reader.u16(py)?;
        let name = std::str::from_utf8(reader.take(py, length)?);
        let name = name.map_err(|_| errors::malformed(py, Malformed("a name that is not UTF-8")))?;
        let value = unpack_argument(py, &mut reader, payload, values)?;
        kwargs.as_ref().expect("there are some").set_item(name, value)?;
    }
    Ok((PyTuple::new(py, args)?, kwargs))
}

fn unpack_argument<'py>(
    py: Python<'py>,
    reader: &mut Reader<'_>,
    payload: &Payload,
    values: &[Payload],
) -> PyResult<Bound<'py, PyAny>> {
    match reader.0.first() {
        Some(&OBJECT) => {
            reader.take(py, 1)?;
            let length = reader.u32(py)?;
            unpack_object(py, reader.take(py, length)?, payload, true)
        }
        Some(&STORED) => {
            reader.take(py, 1)?;
            let place = reader.u32(py)?;
            unpack_stored(py, beside(py, payload, place)?, payload, Deadline::NEVER, true)
        }
        Some(&REFERENCE) => {
            reader.take(py, 1)?;
            let (place, length) = (reader.u32(py)?, reader.u16(py)?);
            let any = beside(py, payload, place)?.clone();
            let form = Form::decode(reader.take(py, length)?, any.byte_len() as usize);
            let form = form.map_err(|error| errors::malformed(py, error))?;
            Stored::new(any, form).value(py, Deadline::NEVER, true)
        }
        Some(&NEED) => {
            reader.take(py, 1)?;
            let index = reader.u32(py)?;
            let value = values.get(index);
            let value = value.ok_or_else(|| errors::malformed(py, Malformed("a value that is not there")))?;
            unpack_value(py, value, Deadline::NEVER, true)
        }
        _ => scalars::decode_part(py, &mut reader.0)?.map_err(|error| errors::malformed(py, error)),
    }
}

fn unpack_object<'py>(py: Python<'py>, bytes: &[u8], payload: &Payload, writable: bool) -> PyResult<Bound<'py, PyAny>> {
    let view = wait(py, Deadline::NEVER, StoreRef::inline(bytes).into_any().get())?;
    reduce::unpacking(&payload.stored, || decode::value(py, view, writable))
}

fn unpack_stored<'py>(
    py: Python<'py>,
    any: &AnyRef,
    payload: &Payload,
    deadline: Deadline,
    writable: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let view = wait(py, deadline, any.get())?;
    reduce::unpacking(&payload.stored, || decode::value(py, view, writable))
}

/// The value that was packed.
pub(crate) fn unpack_value<'py>(
    py: Python<'py>,
    payload: &Payload,
    deadline: Deadline,
    writable: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let mut reader = Reader(&payload.bytes);
    match reader.0.first() {
        Some(&OBJECT) => unpack_object(py, &reader.0[1..], payload, writable),
        Some(&STORED) => {
            reader.take(py, 1)?;
            let place = reader.u32(py)?;
            unpack_stored(py, beside(py, payload, place)?, payload, deadline, writable)
        }
        _ => scalars::decode_part(py, &mut reader.0)?.map_err(|error| errors::malformed(py, error)),
    }
}

/// The object that a value is, for references to parts of it.
pub(crate) fn as_stored(py: Python<'_>, payload: &Payload) -> PyResult<Stored> {
    let mut reader = Reader(&payload.bytes);
    match reader.0.first() {
        Some(&OBJECT) => Ok(Stored::received(StoreRef::inline(&reader.0[1..]).into_any().with_codec(PYTHON_VALUE))),
        Some(&STORED) => {
            reader.take(py, 1)?;
            let place = reader.u32(py)?;
            Ok(Stored::received(beside(py, payload, place)?.clone()))
        }
        _ => objectref::store(Plan::new(&unpack_value(py, payload, Deadline::NEVER, true)?)?, py),
    }
}
