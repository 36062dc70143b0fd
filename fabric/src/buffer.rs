//! A destination in the heap.

use crate::link::{Destination, Part, Target};
use std::any::Any;

/// Memory of its own for a body.
///
/// ```
/// use dmrpc_fabric::buffer::Buffer;
/// use dmrpc_fabric::link::Target;
///
/// let target: Target = Buffer::zeroed(3).into();
/// assert_eq!(Buffer::from_target(target).unwrap().into_vec(), [0, 0, 0]);
/// ```
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    part: [Part; 1],
}

impl Buffer {
    /// Of `len` bytes, all 0.
    pub fn zeroed(len: usize) -> Self {
        vec![0; len].into()
    }

    /// What is in it.
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }

    /// The buffer that was given as a target; `None` if it was something else.
    pub fn from_target(target: Target) -> Option<Self> {
        match target {
            Target::Memory(destination) => destination.into_any().downcast().ok().map(|buffer| *buffer),
            Target::Discard => None,
        }
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(mut bytes: Vec<u8>) -> Self {
        let part = [Part { start: bytes.as_mut_ptr(), len: bytes.len() }];
        Self { bytes, part }
    }
}

impl From<Buffer> for Target {
    fn from(buffer: Buffer) -> Self {
        Self::Memory(Box::new(buffer))
    }
}

// SAFETY: the bytes of a vector stay where they are when the vector moves, and it is reached only through `into_vec`, which
// consumes the value.
unsafe impl Destination for Buffer {
    fn parts(&self) -> &[Part] {
        &self.part
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
