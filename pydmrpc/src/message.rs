//! What travels in messages to and from actors of any language: values as MessagePack has them, and references.
//!
//! Python values become a [`Value`] on the thread that calls, which has the GIL; it is serialized, and replies are deserialized,
//! wherever the actor runtime likes, without the GIL.
//!
//! 1. A [`Value`] has nothing of Python in it.
//! 2. A reference is the payload alone, so that an actor in Rust gets the bytes of an array and nothing else; a value without a
//!    payload goes whole.

use crate::errors;
use crate::numpy;
use crate::objectref::{self, ObjectRef};
use dmrpc_objstore::AnyRef;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use std::fmt;

/// The deepest nesting of lists and dicts in a message.
const MAX_DEPTH: usize = 100;

/// A value in a message.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// `None`.
    Nil,
    /// A bool.
    Bool(bool),
    /// An int below 0.
    Negative(i64),
    /// An int from 0 on.
    Natural(u64),
    /// A float.
    Float(f64),
    /// A string.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Value>),
    /// A dict, in its order.
    Map(Vec<(Value, Value)>),
    /// A reference.
    Ref(AnyRef),
}

impl Value {
    /// The value of a Python object.
    ///
    /// # Errors
    ///
    /// `TypeError` for objects that other languages don't know, with the way to it.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::of_part(object, 0)
    }

    fn of_part(object: &Bound<'_, PyAny>, depth: usize) -> PyResult<Self> {
        if depth > MAX_DEPTH {
            return Err(PyValueError::new_err(format!("lists and dicts more than {MAX_DEPTH} deep in a message")));
        }
        let py = object.py();
        if object.is_none() {
            Ok(Value::Nil)
        } else if let Ok(bool) = object.cast::<PyBool>() {
            Ok(Value::Bool(bool.is_true()))
        } else if let Ok(int) = object.cast::<PyInt>() {
            match int.extract::<i64>() {
                Ok(int) => Ok(u64::try_from(int).map_or(Value::Negative(int), Value::Natural)),
                Err(_) => int.extract().map(Value::Natural).map_err(|_| {
                    PyOverflowError::new_err("an int in a message to an actor has at most 64 bits; send it as text")
                }),
            }
        } else if let Ok(float) = object.cast::<PyFloat>() {
            Ok(Value::Float(float.value()))
        } else if let Ok(text) = object.cast::<PyString>() {
            Ok(Value::Text(text.to_str()?.to_owned()))
        } else if let Ok(bytes) = object.cast::<PyBytes>() {
            Ok(Value::Bytes(bytes.as_bytes().to_vec()))
        } else if let Ok(bytes) = object.cast::<PyByteArray>() {
            Ok(Value::Bytes(bytes.to_vec()))
        } else if let Ok(reference) = object.cast::<ObjectRef>() {
            reference.get().payload(py).map(Value::Ref)
        } else if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() {
            let items = object.try_iter()?.enumerate().map(|(index, item)| {
                Self::of_part(&item?, depth + 1).map_err(|error| at(py, error, format_args!("[{index}]")))
            });
            items.collect::<PyResult<_>>().map(Value::List)
        } else if let Ok(dict) = object.cast::<PyDict>() {
            let items = dict.iter().map(|(key, value)| {
                let pair = (Self::of_part(&key, depth + 1), Self::of_part(&value, depth + 1));
                match pair {
                    (Ok(key), Ok(value)) => Ok((key, value)),
                    (Err(error), _) | (_, Err(error)) => Err(at(py, error, format_args!("[{key:?}]"))),
                }
            });
            items.collect::<PyResult<_>>().map(Value::Map)
        } else if numpy::form_of(object)?.is_some() {
            // An array is stored, and the actor gets a reference to its items.
            objectref::put(object)?.payload(py).map(Value::Ref)
        } else if object.hasattr("__float__")? && object.hasattr("dtype")? {
            // A number of numpy's.
            Self::of_part(&object.call_method0("item")?, depth + 1)
        } else {
            Err(PyTypeError::new_err(format!(
                "a {} can't be sent to an actor of another language: send None, numbers, text, bytes, lists, dicts, arrays or \
                 references",
                object.get_type().name()?
            )))
        }
    }

    /// The Python object of it.
    pub(crate) fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Ok(match self {
            Value::Nil => py.None().into_bound(py),
            Value::Bool(bool) => PyBool::new(py, bool).to_owned().into_any(),
            Value::Negative(int) => int.into_pyobject(py)?.into_any(),
            Value::Natural(int) => int.into_pyobject(py)?.into_any(),
            Value::Float(float) => PyFloat::new(py, float).into_any(),
            Value::Text(text) => PyString::new(py, &text).into_any(),
            Value::Bytes(bytes) => PyBytes::new(py, &bytes).into_any(),
            Value::List(items) => {
                let list = PyList::empty(py);
                for item in items {
                    list.append(item.into_python(py)?)?;
                }
                list.into_any()
            }
            Value::Map(items) => {
                let dict = PyDict::new(py);
                for (key, value) in items {
                    // Lists are no keys in Python; tuples are.
                    let key = match key {
                        Value::List(_) => key.into_python(py)?.cast_into::<PyList>()?.to_tuple().into_any(),
                        key => key.into_python(py)?,
                    };
                    dict.set_item(key, value.into_python(py)?)?;
                }
                dict.into_any()
            }
            Value::Ref(any) => Bound::new(py, ObjectRef::received(any))?.into_any(),
        })
    }
}

/// The error with the way to where it was added.
fn at(py: Python<'_>, error: PyErr, place: fmt::Arguments<'_>) -> PyErr {
    errors::with_note(py, error, &format!("in the argument, at {place}"))
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Nil => serializer.serialize_unit(),
            Value::Bool(bool) => serializer.serialize_bool(*bool),
            Value::Negative(int) => serializer.serialize_i64(*int),
            Value::Natural(int) => serializer.serialize_u64(*int),
            Value::Float(float) => serializer.serialize_f64(*float),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Value::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Value::Map(items) => {
                let mut map = serializer.serialize_map(Some(items.len()))?;
                items.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
            Value::Ref(any) => any.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Value, E> {
        Ok(Value::Bool(bool))
    }

    fn visit_i64<E>(self, int: i64) -> Result<Value, E> {
        Ok(u64::try_from(int).map_or(Value::Negative(int), Value::Natural))
    }

    fn visit_u64<E>(self, int: u64) -> Result<Value, E> {
        Ok(Value::Natural(int))
    }

    fn visit_f64<E>(self, float: f64) -> Result<Value, E> {
        Ok(Value::Float(float))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(bytes.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = items.next_entry()? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        AnyRef::deserialize(Extension(deserializer)).map(Value::Ref)
    }
}

/// The inside of a MessagePack extension, for who asks for the extension.
struct Extension<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Extension<D> {
    type Error = D::Error;

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_newtype_struct(self.0)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(de::Error::custom("an extension that is no reference"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}
