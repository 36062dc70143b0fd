//! Values on their way: bytes, and references of the store beside them.

use dmrpc_hub::record::Value;
use dmrpc_objstore::{AnyRef, Borrows, Loans, StoreError};
use std::sync::{Arc, LazyLock};

/// A value as it stands in messages and in the hub; clones are the same. What the bytes are: see `packing.rs`.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) stored: Arc<[AnyRef]>,
}

static NONE: LazyLock<Arc<[AnyRef]>> = LazyLock::new(|| Arc::new([]));

impl Payload {
    /// Bytes, and the references beside them.
    pub(crate) fn new(bytes: &[u8], stored: Vec<AnyRef>) -> Self {
        Self { bytes: bytes.into(), stored: if stored.is_empty() { NONE.clone() } else { stored.into() } }
    }

    /// What came over a link.
    ///
    /// # Errors
    ///
    /// If the references are none; those before are given back.
    pub(crate) fn read(value: &Value<'_>, borrows: &Borrows) -> Result<Self, StoreError> {
        let mut stored = Vec::new();
        let mut table = value.table;
        for _ in 0..value.references {
            let (reference, rest) = borrows.borrow(table)?;
            stored.push(reference);
            table = rest;
        }
        Ok(Self::new(value.bytes, stored))
    }

    /// Lends the references: `table` is to be sent with the bytes.
    ///
    /// # Errors
    ///
    /// If one can't be lent; then those before are taken back.
    pub(crate) fn lend(&self, loans: &Loans, table: &mut Vec<u8>) -> Result<(), StoreError> {
        if self.stored.is_empty() {
            return Ok(());
        }
        let mut lent = Vec::new();
        for reference in self.stored.iter() {
            match loans.lend(reference, table) {
                Ok(number) => lent.push(number),
                Err(error) => {
                    loans.returned(&lent);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// The bytes, with the references as they were lent.
    pub(crate) fn value<'a>(&'a self, table: &'a [u8]) -> Value<'a> {
        Value { bytes: &self.bytes, references: self.stored.len() as u32, table }
    }
}
