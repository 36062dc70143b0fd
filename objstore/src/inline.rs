//! Small objects: bytes that travel with their reference and that no memory node knows of.

use crate::codec::MAX_ALIGNMENT;
use std::sync::Arc;
use zerocopy::{Immutable, IntoBytes};

#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C, align(64))]
struct Block([u8; 64]);

const _: () = assert!(align_of::<Block>() == MAX_ALIGNMENT);

/// Shared bytes that begin at a multiple of [`MAX_ALIGNMENT`], so that they can be seen as any [`crate::Pod`] type.
#[derive(Clone)]
pub(crate) struct InlineBytes(Arc<[Block]>);

impl InlineBytes {
    /// A copy of `bytes`. The length is kept by whoever refers to it: what is past the end is zeros.
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        let block = |chunk: &[u8]| match chunk.try_into() {
            Ok(whole) => Block(whole),
            Err(_) => {
                let mut last = Block([0; 64]);
                last.0[..chunk.len()].copy_from_slice(chunk);
                last
            }
        };
        Self(bytes.chunks(64).map(block).collect())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether both are one copy.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
