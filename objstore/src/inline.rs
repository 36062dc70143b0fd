//! Small objects: bytes that travel with their reference and that no memory node knows of.

use crate::codec::MAX_ALIGNMENT;
use std::sync::Arc;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C, align(64))]
struct Block([u8; 64]);

const _: () = assert!(align_of::<Block>() == MAX_ALIGNMENT);

/// Shared bytes that begin at a multiple of [`MAX_ALIGNMENT`], so that they can be seen as any [`crate::Pod`] type.
#[derive(Clone)]
pub(crate) struct InlineBytes(Arc<[Block]>);

impl InlineBytes {
    /// A copy of `bytes`. The length is kept by whoever refers to it: what is past the end is zeros.
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        let mut blocks: Arc<[Block]> = std::iter::repeat_n(Block::new_zeroed(), bytes.len().div_ceil(64)).collect();
        let unshared = Arc::get_mut(&mut blocks).expect("just made");
        unshared.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        Self(blocks)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether both are one copy.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
