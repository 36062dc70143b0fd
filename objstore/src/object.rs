//! Objects in a memory node, as this process knows them.

use crate::{AnyRef, Granted, StoreError};
use dmrpc_wire::ObjectId;
use std::time::Duration;

/// An object in a memory node, and this process's claim to it.
pub(crate) struct Object {
    id: ObjectId,
    size: u64,
}

impl Object {
    pub(crate) fn id(&self) -> ObjectId {
        self.id
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) async fn grant(&self, _of: &AnyRef, _time_to_live: Duration) -> Result<Granted, StoreError> {
        Err(StoreError::Closed)
    }

    pub(crate) async fn keep(&self) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
}
