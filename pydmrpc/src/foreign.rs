//! Buffers of other Python objects, read without the GIL.
//!
//! 1. A [`Foreign`] is one run of bytes: contiguous, in C or Fortran order.
//! 2. A copy of [`DETACH_MIN_BYTES`] or more runs without the GIL. That another thread may write the buffer meanwhile is the
//!    caller's affair, as with numpy: the bytes that arrive are then some mixture, and no memory but the buffer's is read.

use crate::layout::{ArrayForm, Order};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::prelude::*;

/// Copies from this size on let go of the GIL: below it, taking it back costs more than the copy.
pub(crate) const DETACH_MIN_BYTES: usize = 64 * 1024;

/// A contiguous buffer that a Python object exports; the object can't move or free it while this lives.
pub(crate) struct Foreign(PyUntypedBuffer);

impl Foreign {
    /// The buffer of `object`; `None` if it is not contiguous.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let buffer = PyUntypedBuffer::get(object)?;
        Ok((buffer.is_c_contiguous() || buffer.is_fortran_contiguous()).then_some(Self(buffer)))
    }

    /// Its address.
    pub(crate) fn address(&self) -> usize {
        self.0.buf_ptr().addr()
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len_bytes()
    }

    /// Its type, as a format of the `struct` module, and shape.
    pub(crate) fn form(&self) -> Option<ArrayForm> {
        Some(ArrayForm {
            dtype: self.0.format().to_str().ok()?.into(),
            item_bytes: self.0.item_size(),
            shape: self.0.shape().iter().copied().collect(),
            order: if self.0.is_c_contiguous() { Order::C } else { Order::F },
        })
    }

    /// Copies it to `to`, which has its length.
    pub(crate) fn copy_to(&self, py: Python<'_>, to: &mut [u8]) {
        assert_eq!(to.len(), self.len(), "the layout was made of these lengths");
        let from = self.address();
        let mut copy = move || {
            // SAFETY: the buffer stays where it is, and readable, for as long as `self` lives, which is borrowed until this
            // returns; `to` is a separate allocation that Rust owns.
            unsafe {
                std::ptr::copy_nonoverlapping(std::ptr::with_exposed_provenance::<u8>(from), to.as_mut_ptr(), to.len());
            }
        };
        if self.len() < DETACH_MIN_BYTES { copy() } else { py.detach(copy) }
    }

    /// Gives the bytes to `take`, without the GIL, in pieces with their offsets.
    pub(crate) fn in_pieces<E: Send>(
        &self,
        py: Python<'_>,
        mut take: impl FnMut(usize, &[u8]) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        let (from, len) = (self.address(), self.len());
        py.detach(|| {
            // SAFETY: as in `copy_to`.
            unsafe { in_pieces(from, len, &mut take) }
        })
    }
}

/// Pieces of this size fit the nearest cache.
const PIECE_BYTES: usize = 16 * 1024;

/// Gives the `len` bytes at `address` to `take`, copied piece by piece, so that nobody has a reference to what Python may write.
///
/// # Safety
///
/// They must be readable until this returns.
pub(crate) unsafe fn in_pieces<E>(
    address: usize,
    len: usize,
    mut take: impl FnMut(usize, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut piece = [0; PIECE_BYTES];
    for at in (0..len).step_by(PIECE_BYTES) {
        let piece = &mut piece[..PIECE_BYTES.min(len - at)];
        let from = std::ptr::with_exposed_provenance::<u8>(address + at);
        // SAFETY: the caller answers for the bytes; `piece` is on this stack.
        unsafe { std::ptr::copy_nonoverlapping(from, piece.as_mut_ptr(), piece.len()) }
        take(at, piece)?;
    }
    Ok(())
}

/// Copies `from` to `to`, without the GIL if that takes a while.
pub(crate) fn copy(py: Python<'_>, from: &[u8], to: &mut [u8]) {
    if from.len() < DETACH_MIN_BYTES { to.copy_from_slice(from) } else { py.detach(|| to.copy_from_slice(from)) }
}
