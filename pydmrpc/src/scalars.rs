//! The codec of small values: `None`, bools, ints, floats, and small tuples of them with strings and bytes.
//!
//! An item is a tag and what belongs to it, numbers little endian:
//!
//! ```text
//! 0 None   1 False   2 True   3 int: i64   4 float: f64   5 str: u32 length, UTF-8   6 bytes: u32 length, bytes
//! 7 tuple: u8 length, items
//! ```
//!
//! 1. Only values of exactly these types are taken, so that what is read is of the type that was written: a subclass, an int
//!    beyond 64 bits, a longer or deeper tuple is left to pickle.
//! 2. Any bytes are an error or a value; never a panic, and never more memory than the bytes themselves are long.
#![forbid(unsafe_code)]

use crate::layout::Malformed;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyNone, PyString, PyTuple};

/// The deepest nesting of tuples.
const MAX_DEPTH: usize = 4;
/// The longest tuple.
const MAX_ITEMS: usize = 32;
/// The longest string or bytes in a tuple.
const MAX_ITEM_BYTES: usize = 4096;

const NONE: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const FLOAT: u8 = 4;
const STR: u8 = 5;
const BYTES: u8 = 6;
const TUPLE: u8 = 7;

/// Appends `value` to `out` and says so, or leaves `out` as it was.
pub(crate) fn encode(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let taken = encode_item(value, 0, out).is_some();
    if !taken {
        out.truncate(start);
    }
    taken
}

/// As [`encode`], and short strings and bytes as well: for what stands among other things.
pub(crate) fn encode_part(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let taken = encode_item(value, 1, out).is_some();
    if !taken {
        out.truncate(start);
    }
    taken
}

/// Takes what [`encode_part`] wrote off the front of `bytes`.
pub(crate) fn decode_part<'py>(py: Python<'py>, bytes: &mut &[u8]) -> PyResult<Result<Bound<'py, PyAny>, Malformed>> {
    decode_item(py, bytes, 1)
}

fn encode_item(value: &Bound<'_, PyAny>, depth: usize, out: &mut Vec<u8>) -> Option<()> {
    if let Ok(int) = value.cast_exact::<PyInt>() {
        let Ok(int) = int.extract::<i64>() else { return None };
        out.push(INT);
        out.extend_from_slice(&int.to_le_bytes());
    } else if let Ok(float) = value.cast_exact::<PyFloat>() {
        out.push(FLOAT);
        out.extend_from_slice(&float.extract::<f64>().ok()?.to_le_bytes());
    } else if value.is_none() {
        out.push(NONE);
    } else if let Ok(bool) = value.cast_exact::<PyBool>() {
        out.push(if bool.is_true() { TRUE } else { FALSE });
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        if depth == MAX_DEPTH || tuple.len() > MAX_ITEMS {
            return None;
        }
        out.extend_from_slice(&[TUPLE, tuple.len() as u8]);
        for item in tuple.iter_borrowed() {
            encode_item(&item, depth + 1, out)?;
        }
    } else if depth > 0 {
        // Alone, these two are payloads.
        let (tag, bytes) = if let Ok(text) = value.cast_exact::<PyString>() {
            (STR, text.to_str().ok()?.as_bytes())
        } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            (BYTES, bytes.as_bytes())
        } else {
            return None;
        };
        if bytes.len() > MAX_ITEM_BYTES {
            return None;
        }
        out.push(tag);
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    } else {
        return None;
    }
    Some(())
}

/// The value that `bytes` are, wholly.
pub(crate) fn decode<'py>(py: Python<'py>, mut bytes: &[u8]) -> PyResult<Result<Bound<'py, PyAny>, Malformed>> {
    match decode_item(py, &mut bytes, 0)? {
        Ok(_) if !bytes.is_empty() => Ok(Err(Malformed("small value with more behind it"))),
        value => Ok(value),
    }
}

fn decode_item<'py>(
    py: Python<'py>,
    bytes: &mut &[u8],
    depth: usize,
) -> PyResult<Result<Bound<'py, PyAny>, Malformed>> {
    const SHORT: Malformed = Malformed("small value cut short");
    let Some(&[tag]) = bytes.split_off(..1) else { return Ok(Err(SHORT)) };
    let value = match tag {
        NONE => PyNone::get(py).to_owned().into_any(),
        FALSE | TRUE => PyBool::new(py, tag == TRUE).to_owned().into_any(),
        INT | FLOAT => {
            let Some(number) = bytes.split_off(..8) else { return Ok(Err(SHORT)) };
            let number: [u8; 8] = number.try_into().expect("eight bytes");
            if tag == INT {
                i64::from_le_bytes(number).into_pyobject(py)?.into_any()
            } else {
                PyFloat::new(py, f64::from_le_bytes(number)).into_any()
            }
        }
        STR | BYTES => {
            let Some(length) = bytes.split_off(..4) else { return Ok(Err(SHORT)) };
            let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
            let Some(content) = bytes.split_off(..length) else { return Ok(Err(SHORT)) };
            if tag == BYTES {
                PyBytes::new(py, content).into_any()
            } else {
                let Ok(text) = std::str::from_utf8(content) else {
                    return Ok(Err(Malformed("text that is not UTF-8")));
                };
                PyString::new(py, text).into_any()
            }
        }
        TUPLE if depth < MAX_DEPTH => {
            let Some(&[length]) = bytes.split_off(..1) else { return Ok(Err(SHORT)) };
            let mut items = Vec::with_capacity(usize::from(length).min(MAX_ITEMS));
            for _ in 0..length {
                match decode_item(py, bytes, depth + 1)? {
                    Ok(item) => items.push(item),
                    Err(error) => return Ok(Err(error)),
                }
            }
            PyTuple::new(py, items)?.into_any()
        }
        _ => return Ok(Err(Malformed("small value of unknown type"))),
    };
    Ok(Ok(value))
}
