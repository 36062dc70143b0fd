//! What travels to and from actors of any language: MessagePack, and references beside it.
//!
//! Python values are written, and answers read, on the thread that calls, which has the GIL.
//!
//! 1. A reference is the payload alone, so that an actor in Rust gets the bytes of an array and nothing else; a value without a
//!    payload goes whole.
//! 2. Any bytes are an error or a value: never a panic, and never more memory than the bytes ask for by being there.
#![forbid(unsafe_code)]

use crate::errors;
use crate::numpy;
use crate::objectref::{self, ObjectRef};
use dmrpc_objstore::{AnyRef, REF_EXTENSION};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use rmp::Marker;
use rmp::encode::{self as write, ByteBuf};
use std::fmt;

/// The deepest nesting of lists and dicts in a message.
const MAX_DEPTH: usize = 100;

/// A message to be sent.
#[derive(Default)]
pub(crate) struct Outgoing {
    bytes: ByteBuf,
    /// The references that stand in it, by their numbers.
    refs: Vec<AnyRef>,
}

impl Outgoing {
    /// MessagePack, and the references in it.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Vec<AnyRef>) {
        (self.bytes.into_vec(), self.refs)
    }

    /// Appends a Python value.
    ///
    /// # Errors
    ///
    /// `TypeError` for objects that other languages don't know, with the way to it in a note.
    pub(crate) fn write(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.write_part(value, 0)
    }

    fn write_part(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
        let py = value.py();
        let out = &mut self.bytes;
        if depth > MAX_DEPTH {
            return Err(PyValueError::new_err(format!("lists and dicts more than {MAX_DEPTH} deep in a message")));
        }
        if value.is_none() {
            done(write::write_nil(out));
        } else if let Ok(bool) = value.cast::<PyBool>() {
            done(write::write_bool(out, bool.is_true()));
        } else if let Ok(int) = value.cast::<PyInt>() {
            done(match int.extract::<i64>() {
                Ok(int) => write::write_sint(out, int),
                Err(_) => {
                    let int = int.extract::<u64>().map_err(|_| {
                        PyOverflowError::new_err("an int in a message to an actor has at most 64 bits; send it as text")
                    })?;
                    write::write_uint(out, int)
                }
            });
        } else if let Ok(float) = value.cast::<PyFloat>() {
            done(write::write_f64(out, float.value()));
        } else if let Ok(text) = value.cast::<PyString>() {
            let text = text.to_str()?;
            length(text.len())?;
            done(write::write_str(out, text));
        } else if let Ok(bytes) = value.cast::<PyBytes>() {
            length(bytes.as_bytes().len())?;
            done(write::write_bin(out, bytes.as_bytes()));
        } else if let Ok(bytes) = value.cast::<PyByteArray>() {
            length(bytes.len())?;
            done(write::write_bin(out, &bytes.to_vec()));
        } else if let Ok(reference) = value.cast::<ObjectRef>() {
            let payload = reference.get().payload(py)?;
            self.write_ref(payload)?;
        } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
            done(write::write_array_len(out, length(value.len()?)?));
            for (index, item) in value.try_iter()?.enumerate() {
                self.write_part(&item?, depth + 1).map_err(|error| at(py, error, format_args!("[{index}]")))?;
            }
        } else if let Ok(dict) = value.cast::<PyDict>() {
            done(write::write_map_len(out, length(dict.len())?));
            for (key, inner) in dict.iter() {
                let written = self.write_part(&key, depth + 1).and_then(|()| self.write_part(&inner, depth + 1));
                written.map_err(|error| at(py, error, format_args!("[{key:?}]")))?;
            }
        } else if numpy::form_of(value)?.is_some() {
            // An array is stored, and the actor gets a reference to its items.
            let payload = objectref::put(value)?.payload(py)?;
            self.write_ref(payload)?;
        } else if value.hasattr("dtype")? && value.hasattr("item")? {
            // A number of numpy's.
            self.write_part(&value.call_method0("item")?, depth + 1)?;
        } else {
            return Err(PyTypeError::new_err(format!(
                "a {} can't be sent to an actor of another language: send None, numbers, text, bytes, lists, dicts, arrays or \
                 references",
                value.get_type().name()?
            )));
        }
        Ok(())
    }

    fn write_ref(&mut self, reference: AnyRef) -> PyResult<()> {
        let number = length(self.refs.len())?;
        done(write::write_ext_meta(&mut self.bytes, 4, REF_EXTENSION));
        self.bytes.as_mut_vec().extend_from_slice(&number.to_le_bytes());
        self.refs.push(reference);
        Ok(())
    }
}

/// The result of writing to a vector.
fn done<T, E: fmt::Debug>(result: Result<T, E>) -> T {
    result.expect("a vector takes everything")
}

fn length(length: usize) -> PyResult<u32> {
    u32::try_from(length).map_err(|_| {
        PyOverflowError::new_err("a part of a message has at most 2^32 bytes or items; store it and send the reference")
    })
}

/// The error, with the way to where it was.
fn at(py: Python<'_>, error: PyErr, place: fmt::Arguments<'_>) -> PyErr {
    errors::with_note(py, error, &format!("in the argument, at {place}"))
}

/// The Python value that `bytes` are, wholly, with the references that came beside them.
pub(crate) fn read<'py>(py: Python<'py>, bytes: &[u8], refs: &[AnyRef]) -> PyResult<Bound<'py, PyAny>> {
    let mut reader = Reader { bytes, refs };
    let value = reader.value(py, 0)?;
    if reader.bytes.is_empty() { Ok(value) } else { Err(malformed(py, "longer than its value")) }
}

fn malformed(py: Python<'_>, why: &str) -> PyErr {
    errors::named(py, "MalformedError", format!("an answer that is no MessagePack: {why}"))
}

struct Reader<'a> {
    bytes: &'a [u8],
    refs: &'a [AnyRef],
}

impl<'a> Reader<'a> {
    fn take(&mut self, py: Python<'_>, count: usize) -> PyResult<&'a [u8]> {
        self.bytes.split_off(..count).ok_or_else(|| malformed(py, "cut short"))
    }

    fn array<const N: usize>(&mut self, py: Python<'_>) -> PyResult<[u8; N]> {
        Ok(self.take(py, N)?.try_into().expect("as many as were taken"))
    }

    /// A big-endian number of `N` bytes.
    fn number<const N: usize>(&mut self, py: Python<'_>) -> PyResult<u64> {
        let mut wide = [0; 8];
        wide[8 - N..].copy_from_slice(&self.array::<N>(py)?);
        Ok(u64::from_be_bytes(wide))
    }

    fn length<const N: usize>(&mut self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.number::<N>(py)? as usize)
    }

    fn value<'py>(&mut self, py: Python<'py>, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        if depth > MAX_DEPTH {
            return Err(malformed(py, "nested too deeply"));
        }
        let marker = Marker::from_u8(self.array::<1>(py)?[0]);
        let natural = |number: u64| Ok(number.into_pyobject(py)?.into_any());
        let signed = |number: i64| Ok(number.into_pyobject(py)?.into_any());
        match marker {
            Marker::Null => Ok(py.None().into_bound(py)),
            Marker::True => Ok(PyBool::new(py, true).to_owned().into_any()),
            Marker::False => Ok(PyBool::new(py, false).to_owned().into_any()),
            Marker::FixPos(number) => natural(number.into()),
            Marker::FixNeg(number) => signed(number.into()),
            Marker::U8 => natural(self.number::<1>(py)?),
            Marker::U16 => natural(self.number::<2>(py)?),
            Marker::U32 => natural(self.number::<4>(py)?),
            Marker::U64 => natural(self.number::<8>(py)?),
            Marker::I8 => signed(i8::from_be_bytes(self.array(py)?).into()),
            Marker::I16 => signed(i16::from_be_bytes(self.array(py)?).into()),
            Marker::I32 => signed(i32::from_be_bytes(self.array(py)?).into()),
            Marker::I64 => signed(i64::from_be_bytes(self.array(py)?)),
            Marker::F32 => Ok(PyFloat::new(py, f32::from_be_bytes(self.array(py)?).into()).into_any()),
            Marker::F64 => Ok(PyFloat::new(py, f64::from_be_bytes(self.array(py)?)).into_any()),
            Marker::FixStr(length) => self.text(py, length.into()),
            Marker::Str8 => self.length::<1>(py).and_then(|length| self.text(py, length)),
            Marker::Str16 => self.length::<2>(py).and_then(|length| self.text(py, length)),
            Marker::Str32 => self.length::<4>(py).and_then(|length| self.text(py, length)),
            Marker::Bin8 => self.length::<1>(py).and_then(|length| self.binary(py, length)),
            Marker::Bin16 => self.length::<2>(py).and_then(|length| self.binary(py, length)),
            Marker::Bin32 => self.length::<4>(py).and_then(|length| self.binary(py, length)),
            Marker::FixArray(length) => self.list(py, length.into(), depth),
            Marker::Array16 => self.length::<2>(py).and_then(|length| self.list(py, length, depth)),
            Marker::Array32 => self.length::<4>(py).and_then(|length| self.list(py, length, depth)),
            Marker::FixMap(length) => self.map(py, length.into(), depth),
            Marker::Map16 => self.length::<2>(py).and_then(|length| self.map(py, length, depth)),
            Marker::Map32 => self.length::<4>(py).and_then(|length| self.map(py, length, depth)),
            Marker::FixExt4 => self.reference(py),
            _ => Err(malformed(py, "an extension that is no reference")),
        }
    }

    fn text<'py>(&mut self, py: Python<'py>, length: usize) -> PyResult<Bound<'py, PyAny>> {
        let text = std::str::from_utf8(self.take(py, length)?).map_err(|_| malformed(py, "text that is not UTF-8"))?;
        Ok(PyString::new(py, text).into_any())
    }

    fn binary<'py>(&mut self, py: Python<'py>, length: usize) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyBytes::new(py, self.take(py, length)?).into_any())
    }

    fn list<'py>(&mut self, py: Python<'py>, length: usize, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        let list = PyList::empty(py);
        for _ in 0..length {
            list.append(self.value(py, depth + 1)?)?;
        }
        Ok(list.into_any())
    }

    fn map<'py>(&mut self, py: Python<'py>, length: usize, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        let map = PyDict::new(py);
        for _ in 0..length {
            // A list is no key in Python, a tuple is.
            let key = match self.value(py, depth + 1)?.cast_into::<PyList>() {
                Ok(list) => list.to_tuple().into_any(),
                Err(other) => other.into_inner(),
            };
            map.set_item(key, self.value(py, depth + 1)?)?;
        }
        Ok(map.into_any())
    }

    fn reference<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let kind = i8::from_be_bytes(self.array(py)?);
        let number = u32::from_le_bytes(self.array(py)?);
        let reference = self.refs.get(number as usize).filter(|_| kind == REF_EXTENSION);
        let reference = reference.ok_or_else(|| malformed(py, "a reference that did not come along"))?;
        Ok(Bound::new(py, ObjectRef::received(py, reference.clone()))?.into_any())
    }
}

/// Writes and reads back without an actor, references as their numbers. For tests.
#[pyfunction]
pub(crate) fn _message<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let mut outgoing = Outgoing::default();
    outgoing.write(value)?;
    let (bytes, refs) = outgoing.into_parts();
    read(value.py(), &bytes, &refs)
}

/// Reads any bytes as an answer without references. For tests.
#[pyfunction]
pub(crate) fn _read_message<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    read(py, bytes, &[])
}
