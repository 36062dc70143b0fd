//! Drafts: new objects that are filled in place.

use crate::{ObjectRef, StoreError};
use std::ops::{Deref, DerefMut};

/// Memory for a new object, to be filled in place and sealed. Dropped unsealed, it leaves nothing behind.
///
/// What is in it before it is written is unspecified: zeros, or bytes of objects that this session dropped.
pub struct Draft {
    bytes: Vec<u8>,
}

impl Draft {
    /// Makes an object of it, without a copy on the memory node's host.
    ///
    /// # Errors
    ///
    /// As [`Store::put`](crate::Store::put).
    pub async fn seal(self) -> Result<ObjectRef, StoreError> {
        Err(StoreError::Closed)
    }
}

impl Deref for Draft {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Draft {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}
