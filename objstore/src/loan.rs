//! Loans: references in messages between processes.
//!
//! Whoever sends a reference keeps a clone until the receiver says that it is done: the receiver uses the sender's claim,
//! and the memory node hears nothing. Each link between two processes has a [`Loans`] for what this side sends, and a
//! [`Borrows`] for what it receives.

use crate::codec::Content;
use crate::reference::Target;
use crate::{AnyRef, Codec, ObjectRef, StoreError};
use dmrpc_wire::{Inlined, ObjectId, WireRef};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

/// The MessagePack extension type of a reference within a payload: four bytes, little endian, which of the message's
/// references it is. In other formats it is the pair of this number and those bytes.
pub const REF_EXTENSION: i8 = 1;

/// What this process has lent over one link. Clones are the same.
#[derive(Clone)]
pub struct Loans {
    shared: Arc<Duration>,
}

impl Loans {
    /// Nothing lent yet. When the link ends, what is lent is kept for `grace`, so that borrowers can take holds of their
    /// own.
    pub fn new(grace: Duration) -> Self {
        Self { shared: Arc::new(grace) }
    }

    /// Appends the reference to `out` as a [`WireRef`], and keeps a clone until [`returned`](Loans::returned) has the number
    /// that comes back; 0 if there is nothing to return. The object is published before.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`] when too much is lent already, and what can go wrong with a request. Nothing is lent then.
    pub fn lend(&self, reference: &AnyRef, out: &mut Vec<u8>) -> Result<u64, StoreError> {
        match &reference.target {
            Target::Inline(bytes) => {
                let bytes = &bytes.bytes()[reference.offset as usize..(reference.offset + reference.length) as usize];
                WireRef {
                    id: ObjectId::NULL,
                    offset: 0,
                    length: reference.length,
                    size: reference.length,
                    loan: 0,
                    codec: reference.codec.0,
                    bytes: Inlined::Bytes(bytes),
                }
                .encode(out);
                Ok(0)
            }
            Target::Stored(_) => Err(StoreError::Closed),
        }
    }

    /// The receiver is done with these loans, or they never reached it. Numbers that are not lent are passed over.
    pub fn returned(&self, loans: &[u64]) {
        let _ = loans;
    }

    /// Number of references that are lent now.
    pub fn len(&self) -> usize {
        0
    }

    /// Whether nothing is lent now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The link is gone. What is lent is kept for the grace period, then let go.
    pub fn close(&self) {
        let _ = &self.shared;
    }
}

/// What this process has borrowed over one link. Clones are the same.
#[derive(Clone)]
pub struct Borrows {
    shared: Arc<dyn Fn() + Send + Sync>,
}

impl Borrows {
    /// Nothing borrowed yet. `wake` is called, on any thread, when there is something for
    /// [`take_returns`](Borrows::take_returns); it must not block.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { shared: Arc::new(wake) }
    }

    /// Takes one reference off the front of `bytes`; returns it and what follows. Nobody is asked and nothing waits.
    ///
    /// # Errors
    ///
    /// [`StoreError::Malformed`], and [`StoreError::UnknownNode`] if no store of this process is connected to the object's
    /// node; then the loan is given back.
    pub fn borrow<'a>(&self, bytes: &'a [u8]) -> Result<(AnyRef, &'a [u8]), StoreError> {
        let (wire, rest) = WireRef::decode(bytes)?;
        match wire.bytes {
            Inlined::Bytes(bytes) => {
                let whole = AnyRef::inline(bytes, Codec(wire.codec));
                Ok((AnyRef { offset: wire.offset, length: wire.length, ..whole }, rest))
            }
            Inlined::Stored(_) => Err(StoreError::UnknownNode(wire.id.node())),
        }
    }

    /// Appends the loans to give back since the last time.
    pub fn take_returns(&self, into: &mut Vec<u64>) {
        let _ = into;
    }

    /// Number of references that are borrowed now.
    pub fn len(&self) -> usize {
        0
    }

    /// Whether nothing is borrowed now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The link is gone: every reference that is still borrowed takes a hold of its own, at once.
    pub fn close(&self) {
        let _ = &self.shared;
    }
}

/// The references of a message to be sent. Unless [`sent`](Lending::sent), they are taken back.
pub struct Lending {
    loans: Loans,
    numbers: Vec<u64>,
    table: Vec<u8>,
    count: u32,
}

impl Lending {
    /// The references, one [`WireRef`] after the other, as [`with_borrower`] wants them.
    pub fn table(&self) -> &[u8] {
        &self.table
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The message is on its way: the loans stand until they are returned. Gives their numbers.
    pub fn sent(mut self) -> Vec<u64> {
        std::mem::take(&mut self.numbers)
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        self.loans.returned(&self.numbers);
    }
}

thread_local! {
    static LENDER: RefCell<Option<Lending>> = const { RefCell::new(None) };
    static BORROWER: RefCell<Option<Vec<AnyRef>>> = const { RefCell::new(None) };
}

/// Runs `serialize` so that within it an [`ObjectRef`] serializes to a number, and is lent. Not to be nested.
///
/// ```
/// use dmrpc_objstore::{Borrows, Loans, ObjectRef, block_on, with_borrower, with_lender};
/// use std::time::Duration;
///
/// let photo = ObjectRef::inline(b"pixels");
/// let (payload, lending) = with_lender(&Loans::new(Duration::from_secs(1)), || postcard::to_stdvec(&photo));
/// let (payload, table) = (payload?, lending.table().to_vec());
/// lending.sent();
///
/// let borrows = Borrows::new(|| {});
/// let received: ObjectRef = with_borrower(&borrows, &table, || postcard::from_bytes(&payload))??;
/// assert_eq!(&block_on(received.get())?[..], b"pixels");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn with_lender<R>(loans: &Loans, serialize: impl FnOnce() -> R) -> (R, Lending) {
    let lending = Lending { loans: loans.clone(), numbers: Vec::new(), table: Vec::new(), count: 0 };
    let before = LENDER.replace(Some(lending));
    debug_assert!(before.is_none(), "lending scopes are not nested");
    let result = serialize();
    (result, LENDER.take().expect("set above"))
}

/// Runs `deserialize` so that within it numbers become the references of `table` again. Those that are not used are given
/// back.
///
/// # Errors
///
/// As [`Borrows::borrow`], for any of the table; `deserialize` is not run then.
pub fn with_borrower<R>(borrows: &Borrows, table: &[u8], deserialize: impl FnOnce() -> R) -> Result<R, StoreError> {
    let mut references = Vec::new();
    let mut rest = table;
    while !rest.is_empty() {
        let (reference, after) = borrows.borrow(rest)?;
        references.push(reference);
        rest = after;
    }
    let before = BORROWER.replace(Some(references));
    debug_assert!(before.is_none(), "borrowing scopes are not nested");
    let result = deserialize();
    BORROWER.take();
    Ok(result)
}

const OUTSIDE: &str = "a reference can only be serialized within a message between actors; to let it leave the system, make a \
                       grant with ObjectRef::grant()";

impl Serialize for AnyRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;
        let index = LENDER.with_borrow_mut(|lender| {
            let lending = lender.as_mut().ok_or_else(|| S::Error::custom(OUTSIDE))?;
            let loan = lending.loans.lend(self, &mut lending.table).map_err(S::Error::custom)?;
            if loan != 0 {
                lending.numbers.push(loan);
            }
            lending.count += 1;
            Ok(lending.count - 1)
        })?;
        serializer.serialize_newtype_struct(EXTENSION, &(REF_EXTENSION, IndexBytes(index.to_le_bytes())))
    }
}

impl<'de> Deserialize<'de> for AnyRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let Extension(index) = Extension::deserialize(deserializer)?;
        BORROWER.with_borrow(|borrower| {
            let references = borrower.as_ref().ok_or_else(|| D::Error::custom(OUTSIDE))?;
            references
                .get(index as usize)
                .cloned()
                .ok_or_else(|| D::Error::custom("a reference that did not come along"))
        })
    }
}

impl<T: Content + ?Sized> Serialize for ObjectRef<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_any().serialize(serializer)
    }
}

impl<'de, T: Content + ?Sized> Deserialize<'de> for ObjectRef<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let any = AnyRef::deserialize(deserializer)?;
        if any.codec() != T::CODEC {
            return Err(D::Error::custom(format_args!(
                "a reference to {}, whose codec is {}, not {}",
                std::any::type_name::<T>(),
                T::CODEC.0,
                any.codec().0
            )));
        }
        any.cast().map_err(D::Error::custom)
    }
}

/// What rmp-serde calls a MessagePack extension; to other formats it is a pair.
const EXTENSION: &str = "_ExtStruct";

struct IndexBytes([u8; 4]);

impl Serialize for IndexBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for IndexBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = IndexBytes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("four bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<IndexBytes, E> {
                bytes.try_into().map(IndexBytes).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

struct Extension(u32);

impl<'de> Deserialize<'de> for Extension {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Extension;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a reference")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Extension, D::Error> {
                let (kind, IndexBytes(index)) = <(i8, IndexBytes)>::deserialize(deserializer)?;
                if kind != REF_EXTENSION {
                    return Err(serde::de::Error::custom("an extension that is no reference"));
                }
                Ok(Extension(u32::from_le_bytes(index)))
            }
        }
        deserializer.deserialize_newtype_struct(EXTENSION, Visitor)
    }
}
