//! What the bytes of a reference are to Python, and which bytes an index names.
//!
//! 1. A part is one run of bytes: an index that would name several is a `ValueError`, so that a slice never copies.
#![forbid(unsafe_code)]

use crate::layout::{ArrayForm, Kind, Malformed, Order};
use pyo3::exceptions::{PyIndexError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyEllipsis, PySlice, PyTuple};
use smallvec::{SmallVec, smallvec};
use std::ops::Range;

/// What the bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A whole value: the object's trailer says what it is.
    Value,
    /// Bytes that Python knows nothing of: of a Rust actor, say.
    Raw,
    /// A part of bytes, or of a bytearray.
    Bytes(Kind),
    /// A part of an array, or of a memoryview.
    Array(Kind, ArrayForm),
}

const VALUE: u8 = 0;
const RAW: u8 = 1;
const BYTES: u8 = 2;
const BYTEARRAY: u8 = 3;
const ARRAY: u8 = 4;
const MEMORY: u8 = 5;

impl Form {
    /// As bytes, for pickles.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (tag, array) = match self {
            Form::Value => (VALUE, None),
            Form::Raw => (RAW, None),
            Form::Bytes(Kind::ByteArray) => (BYTEARRAY, None),
            Form::Bytes(_) => (BYTES, None),
            Form::Array(Kind::Memory, form) => (MEMORY, Some(form)),
            Form::Array(_, form) => (ARRAY, Some(form)),
        };
        let mut out = vec![tag];
        if let Some(form) = array {
            form.encode(&mut out);
        }
        out
    }

    /// What [`encode`](Form::encode) made; `bytes` is the length of what is referred to.
    pub(crate) fn decode(form: &[u8], bytes: usize) -> Result<Self, Malformed> {
        let (tag, rest) = form.split_first().ok_or(Malformed("form cut short"))?;
        Ok(match (*tag, rest) {
            (VALUE, []) => Form::Value,
            (RAW, []) => Form::Raw,
            (BYTES, []) => Form::Bytes(Kind::Bytes),
            (BYTEARRAY, []) => Form::Bytes(Kind::ByteArray),
            (ARRAY, form) => Form::Array(Kind::Array, ArrayForm::decode_for(form, bytes)?),
            (MEMORY, form) => Form::Array(Kind::Memory, ArrayForm::decode_for(form, bytes)?),
            _ => return Err(Malformed("unknown form")),
        })
    }
}

/// The bytes that `index` names in `len` bytes.
pub(crate) fn select_bytes(index: &Bound<'_, PyAny>, len: usize) -> PyResult<Range<usize>> {
    let slice = index.cast::<PySlice>();
    let slice = slice.map_err(|_| PyTypeError::new_err(format!("bytes are sliced by ref[a:b], not {index}")))?;
    let Range { start, end } = run(slice, len)?;
    Ok(start..end)
}

/// The items from `start` to `end` that a slice names along an axis.
fn run(slice: &Bound<'_, PySlice>, len: usize) -> PyResult<Range<usize>> {
    let indices = slice.indices(isize::try_from(len)?)?;
    if indices.step != 1 && indices.slicelength > 1 {
        return Err(PyValueError::new_err("a slice of a reference is one run of bytes: its step must be 1"));
    }
    let start = if indices.slicelength == 0 { 0 } else { indices.start as usize };
    Ok(start..start + indices.slicelength)
}

/// The first byte that `index` names in an array, and the form of what it names.
pub(crate) fn select_items(index: &Bound<'_, PyAny>, form: &ArrayForm) -> PyResult<(usize, ArrayForm)> {
    let keys: SmallVec<[Bound<'_, PyAny>; 4]> = match index.cast::<PyTuple>() {
        Ok(tuple) => tuple.iter().collect(),
        Err(_) => smallvec![index.clone()],
    };
    let is_ellipsis = |key: &Bound<'_, PyAny>| key.is_instance_of::<PyEllipsis>();
    let named = keys.iter().filter(|key| !is_ellipsis(key)).count();
    if named > form.shape.len() || keys.len() - named > 1 {
        return Err(PyIndexError::new_err(format!("{index} has too many parts for {} axes", form.shape.len())));
    }
    if form.order == Order::F && form.shape.len() > 1 {
        return Err(PyValueError::new_err(
            "an array in Fortran order can't be sliced by reference: store it in C order",
        ));
    }
    let mut strides: SmallVec<[usize; 4]> = smallvec![form.item_bytes; form.shape.len()];
    for axis in (1..form.shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(form.shape[axis]);
    }
    let mut picked = ArrayForm { shape: SmallVec::new(), ..form.clone() };
    let (mut offset, mut axis, mut rows) = (0, 0, 1_usize);
    for key in &keys {
        if is_ellipsis(key) {
            let skipped = form.shape.len() - named;
            picked.shape.extend_from_slice(&form.shape[axis..axis + skipped]);
            rows = rows.saturating_mul(form.shape[axis..axis + skipped].iter().product());
            axis += skipped;
            continue;
        }
        let len = form.shape[axis];
        let range = match key.cast::<PySlice>() {
            Ok(slice) => {
                let range = run(slice, len)?;
                picked.shape.push(range.len());
                range
            }
            Err(_) => {
                let at = key.extract::<isize>().map_err(|_| {
                    PyTypeError::new_err(format!("a reference is indexed by ints, slices and ..., not by {key}"))
                })?;
                let from_start = if at < 0 { at + isize::try_from(len)? } else { at };
                let from_start = usize::try_from(from_start).ok().filter(|at| *at < len);
                let at =
                    from_start.ok_or_else(|| PyIndexError::new_err(format!("{at} is outside an axis of {len}")))?;
                at..at + 1
            }
        };
        if rows > 1 && range.len() != len {
            return Err(PyValueError::new_err(
                "a slice of a reference is one run of bytes: only its first axis of more than one may be cut",
            ));
        }
        rows = rows.saturating_mul(range.len());
        offset += range.start * strides[axis];
        axis += 1;
    }
    picked.shape.extend_from_slice(&form.shape[axis..]);
    Ok((offset, picked))
}

/// The shape that a view of `bytes` bytes has: one axis, or as asked for, where one axis may be -1.
pub(crate) fn shape_of(
    shape: Option<&Bound<'_, PyAny>>,
    bytes: u64,
    item_bytes: usize,
) -> PyResult<SmallVec<[usize; 4]>> {
    let does_not_fit =
        |shape: &str| PyValueError::new_err(format!("{bytes} bytes are no {shape} items of {item_bytes} bytes"));
    let item = item_bytes.max(1) as u64;
    let Some(shape) = shape else {
        return if bytes.is_multiple_of(item) {
            Ok(smallvec![(bytes / item) as usize])
        } else {
            Err(does_not_fit("whole"))
        };
    };
    let axes: SmallVec<[isize; 4]> = match shape.extract::<isize>() {
        Ok(axis) => smallvec![axis],
        Err(_) => shape.extract::<Vec<isize>>()?.into(),
    };
    let mut known = item;
    for axis in axes.iter().filter(|axis| **axis != -1) {
        let axis = u64::try_from(*axis).map_err(|_| does_not_fit(&shape.to_string()))?;
        known = known.checked_mul(axis).ok_or_else(|| does_not_fit(&shape.to_string()))?;
    }
    let unknown = axes.iter().filter(|axis| **axis == -1).count();
    let rest = match unknown {
        0 if known == bytes => 0,
        1 if known != 0 && bytes.is_multiple_of(known) => bytes / known,
        _ => return Err(does_not_fit(&shape.to_string())),
    };
    Ok(axes.iter().map(|axis| usize::try_from(*axis).unwrap_or(rest as usize)).collect())
}
