//! Loans: references in messages between processes.
//!
//! Whoever sends a reference keeps a clone until the receiver says that it is done: the receiver uses the sender's claim,
//! and the memory node hears nothing. Each link between two processes has a [`Loans`] for what this side sends, and a
//! [`Borrows`] for what it receives.

use crate::client::{Client, PROMOTE_AFTER};
use crate::codec::Content;
use crate::layout::Layout;
use crate::ledger::{Borrowed, Lent, MAX_LOANS};
use crate::object::Object;
use crate::reference::Target;
use crate::{AnyRef, Codec, ObjectRef, Store, StoreError, registry};
use dmrpc_pages::Extent;
use dmrpc_wire::{Inlined, MAX_REF_EXTENTS, ObjectId, RawExtent, WireRef};
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::{SmallVec, smallvec};
use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The MessagePack extension type of a reference within a payload: four bytes, little endian, which of the message's
/// references it is. In other formats it is the pair of this number and those bytes.
pub const REF_EXTENSION: i8 = 1;

/// The longest inline bytes that travel with a reference.
const MAX_INLINE: u64 = 1 << 20;

/// What this process has lent over one link. Clones are the same.
#[derive(Clone)]
pub struct Loans {
    shared: Arc<LoansShared>,
    /// Whether what is lent by this clone is good for as long as its lender lives, and no longer.
    until_answered: bool,
}

struct LoansShared {
    grace: Duration,
    book: Mutex<Lent<AnyRef>>,
}

impl Loans {
    /// Nothing lent yet. When the link ends, what is lent is kept for `grace`, so that borrowers can take holds of their
    /// own.
    pub fn new(grace: Duration) -> Self {
        let shared = LoansShared { grace, book: Mutex::new(Lent::new(MAX_LOANS)) };
        Self { shared: Arc::new(shared), until_answered: false }
    }

    /// The same loans, for references in a question whose answer is waited for: if the lender dies meanwhile nobody needs them.
    /// An object that was made here is not published for them, so that a reference which is made for one question, and
    /// dropped with its answer, is no work for the memory node at all. When the answer has come, tell
    /// [`outlived`](Loans::outlived) what is still lent.
    #[must_use]
    pub fn until_answered(&self) -> Self {
        Self { shared: self.shared.clone(), until_answered: true }
    }

    /// Appends the reference to `out` as a [`WireRef`], and keeps a clone until [`returned`](Loans::returned) has the number
    /// that comes back; 0 if there is nothing to return. The object is published before, unless these loans are
    /// [`until_answered`](Loans::until_answered).
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`] when too much is lent already, and what can go wrong with a request. Nothing is lent then.
    pub fn lend(&self, reference: &AnyRef, out: &mut Vec<u8>) -> Result<u64, StoreError> {
        let AnyRef { target, offset, length, codec } = reference;
        let (&offset, &length, codec) = (offset, length, codec.0);
        match target {
            Target::Inline(_) if length > MAX_INLINE => {
                Err(StoreError::TooLarge { what: "inline object", len: length, limit: MAX_INLINE })
            }
            Target::Inline(bytes) => {
                let bytes = Inlined::Bytes(&bytes.bytes()[offset as usize..(offset + length) as usize]);
                WireRef { id: ObjectId::NULL, offset: 0, length, size: length, loan: 0, codec, bytes }.encode(out);
                Ok(0)
            }
            Target::Stored(object) => {
                let extents = extents_of(object, &reference.range());
                // Who gets no extents has to ask the node for them.
                if self.until_answered && !extents.is_empty() {
                    object.lend()?;
                } else {
                    object.publish()?;
                }
                let loan = {
                    let mut book = self.shared.book.lock();
                    if !book.has_room() {
                        let (len, limit) = (book.len() as u64, MAX_LOANS as u64);
                        return Err(StoreError::TooLarge { what: "number of loans", len, limit });
                    }
                    book.lend(reference.clone())
                };
                let bytes = Inlined::Stored(&extents);
                WireRef { id: object.id(), offset, length, size: object.size(), loan, codec, bytes }.encode(out);
                Ok(loan)
            }
        }
    }

    /// The receiver is done with these loans, or they never reached it. Numbers that are not lent are passed over.
    pub fn returned(&self, loans: &[u64]) {
        let mut book = self.shared.book.lock();
        let returned: SmallVec<[AnyRef; 4]> = loans.iter().filter_map(|number| book.returned(*number)).collect();
        drop(book);
        // Not under the lock: the last reference may be among them.
        drop(returned);
    }

    /// The question is answered for which these were lent: what was not returned is published.
    ///
    /// # Errors
    ///
    /// What can go wrong with a request.
    pub fn outlived(&self, loans: &[u64]) -> Result<(), StoreError> {
        let lent: SmallVec<[AnyRef; 1]> = {
            let book = self.shared.book.lock();
            loans.iter().filter_map(|number| book.get(*number)).cloned().collect()
        };
        for reference in &lent {
            if let Target::Stored(object) = &reference.target {
                object.publish()?;
            }
        }
        Ok(())
    }

    /// Number of references that are lent now.
    pub fn len(&self) -> usize {
        self.shared.book.lock().len()
    }

    /// Whether nothing is lent now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The link is gone. What is lent is kept for the grace period, then let go. So it is when the last clone is dropped.
    pub fn close(&self) {
        let lent = self.shared.book.lock().close();
        linger(lent, self.shared.grace);
    }
}

impl Drop for LoansShared {
    fn drop(&mut self) {
        linger(self.book.get_mut().close(), self.grace);
    }
}

/// Has the stores keep references for a while.
fn linger(lent: Vec<AnyRef>, grace: Duration) {
    let until = Instant::now() + grace;
    let mut by_client: Vec<(Arc<Client>, Vec<AnyRef>)> = Vec::new();
    for reference in lent {
        let Target::Stored(object) = &reference.target else { continue };
        match by_client.iter_mut().find(|(client, _)| Arc::ptr_eq(client, &object.client)) {
            Some((_, same)) => same.push(reference),
            None => by_client.push((object.client.clone(), vec![reference])),
        }
    }
    for (client, references) in by_client {
        client.linger(until, references);
    }
}

/// The extents that cover a range, if they are known and few.
fn extents_of(object: &Object, range: &std::ops::Range<u64>) -> SmallVec<[RawExtent; MAX_REF_EXTENTS]> {
    let pages = Layout::pages_of(range, object.client.page_size);
    let extents: SmallVec<[RawExtent; MAX_REF_EXTENTS]> = match object.layout(range) {
        Some(layout) => layout.extents(pages).take(MAX_REF_EXTENTS + 1).map(RawExtent::from).collect(),
        // Passed on by who has not looked at it: as it came.
        None => object.hinted(pages),
    };
    if extents.len() > MAX_REF_EXTENTS { SmallVec::new() } else { extents }
}

/// A loan that is to be given back.
pub(crate) struct Loan {
    from: Arc<BorrowsShared>,
    number: u64,
}

impl Loan {
    pub(crate) fn give_back(self) {
        let wake = self.from.book.lock().done(self.number);
        if wake {
            (self.from.wake)();
        }
    }
}

/// What this process has borrowed over one link. Clones are the same.
#[derive(Clone)]
pub struct Borrows {
    shared: Arc<BorrowsShared>,
}

pub(crate) struct BorrowsShared {
    book: Mutex<Borrowed<Weak<Object>>>,
    wake: Box<dyn Fn() + Send + Sync>,
    /// Whose references of its node are; else it is looked up.
    client: Option<Arc<Client>>,
}

/// All books of this process, for what is borrowed for long.
static BOOKS: Mutex<Vec<Weak<BorrowsShared>>> = Mutex::new(Vec::new());

/// What was borrowed of a client's node before the last call and still is: its claims say that a hold is wanted. And whether
/// there is more.
pub(crate) fn old_borrows(client: &Client) -> (Vec<Arc<Object>>, bool) {
    let books: Vec<Arc<BorrowsShared>> = {
        let mut books = BOOKS.lock();
        books.retain(|book| book.strong_count() > 0);
        books.iter().filter_map(Weak::upgrade).collect()
    };
    let (mut old, mut young) = (Vec::new(), false);
    for book in books {
        let live: Vec<Arc<Object>> = book.book.lock().live().filter_map(Weak::upgrade).collect();
        for object in live.into_iter().filter(|object| std::ptr::eq(&*object.client, client)) {
            match object.age() {
                Some(true) => old.push(object),
                Some(false) => {}
                None => young = true,
            }
        }
    }
    (old, young)
}

impl Borrows {
    /// Nothing borrowed yet. `wake` is called, on any thread, when there is something for
    /// [`take_returns`](Borrows::take_returns); it must not block.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self::with(None, Box::new(wake))
    }

    /// As [`new`](Borrows::new), for a process with several stores for one node (of several tenants, say): references of that
    /// node are this store's.
    pub fn of(store: &Store, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self::with(Some(store.client().clone()), Box::new(wake))
    }

    fn with(client: Option<Arc<Client>>, wake: Box<dyn Fn() + Send + Sync>) -> Self {
        let shared = Arc::new(BorrowsShared { book: Mutex::new(Borrowed::new()), wake, client });
        BOOKS.lock().push(Arc::downgrade(&shared));
        Self { shared }
    }

    /// Takes one reference off the front of `bytes`; returns it and what follows. Nobody is asked and nothing waits.
    ///
    /// # Errors
    ///
    /// [`StoreError::Malformed`], and [`StoreError::UnknownNode`] if no store of this process is connected to the object's
    /// node; then the loan is given back.
    pub fn borrow<'a>(&self, bytes: &'a [u8]) -> Result<(AnyRef, &'a [u8]), StoreError> {
        let (wire, rest) = WireRef::decode(bytes)?;
        let codec = Codec(wire.codec);
        let extents = match wire.bytes {
            Inlined::Bytes(bytes) => {
                let whole = AnyRef::inline(bytes, codec);
                return Ok((AnyRef { offset: wire.offset, length: wire.length, ..whole }, rest));
            }
            Inlined::Stored(extents) => extents,
        };
        let object = self.object(&wire, extents)?;
        let reference = AnyRef { target: Target::Stored(object), offset: wire.offset, length: wire.length, codec };
        Ok((reference, rest))
    }

    fn object(&self, wire: &WireRef<'_>, extents: &[RawExtent]) -> Result<Arc<Object>, StoreError> {
        let node = wire.id.node();
        let clients = match &self.shared.client {
            Some(client) if client.node == node => smallvec![client.clone()],
            _ => registry::all(node),
        };
        // Something that this process has a hold on needs no loan.
        for client in &clients {
            let known = client.known.get(&wire.id).and_then(|known| known.upgrade());
            if let Some(known) = known.filter(|known| known.size() == wire.size && known.check_claim().is_ok()) {
                self.give_back(wire.loan);
                return Ok(known);
            }
        }
        let Some(client) = clients.iter().find(|client| !client.has_ended()).or(clients.first()).cloned() else {
            self.give_back(wire.loan);
            return Err(StoreError::UnknownNode(node));
        };
        let hint = match hint(wire, extents, &client) {
            Ok(hint) => hint,
            Err(error) => {
                self.give_back(wire.loan);
                return Err(error);
            }
        };
        let loan = (wire.loan != 0).then(|| Loan { from: self.shared.clone(), number: wire.loan });
        let object = Object::borrowed(&client, wire.id, wire.size, loan, hint);
        if wire.loan == 0 {
            return Err(StoreError::Malformed("a reference that is not lent"));
        }
        let (new, closed) = {
            let mut book = self.shared.book.lock();
            (book.borrow(wire.loan, Arc::downgrade(&object)), book.is_closed())
        };
        if !new {
            // The number stays the first's: this one must not give it back.
            object.disown();
            return Err(StoreError::Malformed("a loan that was lent before"));
        }
        if closed && object.lender_lost() {
            client.adopt(std::slice::from_ref(&object));
        }
        if !client.borrowed.swap(true, Ordering::Relaxed) {
            client.session.lock().wake_by(Instant::now() + PROMOTE_AFTER);
        }
        Ok(object)
    }

    fn give_back(&self, number: u64) {
        let wake = self.shared.book.lock().give_back(number);
        if wake {
            (self.shared.wake)();
        }
    }

    /// Appends the loans to give back since the last time.
    pub fn take_returns(&self, into: &mut Vec<u64>) {
        self.shared.book.lock().take_returns(into);
    }

    /// Number of references that are borrowed now.
    pub fn len(&self) -> usize {
        self.shared.book.lock().len()
    }

    /// Whether nothing is borrowed now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The link is gone: every reference that is still borrowed takes a hold of its own, at once.
    pub fn close(&self) {
        let live = self.shared.book.lock().close();
        let mut by_client: Vec<(Arc<Client>, Vec<Arc<Object>>)> = Vec::new();
        for object in live.iter().filter_map(Weak::upgrade).filter(|object| object.lender_lost()) {
            match by_client.iter_mut().find(|(client, _)| Arc::ptr_eq(client, &object.client)) {
                Some((_, same)) => same.push(object),
                None => by_client.push((object.client.clone(), vec![object])),
            }
        }
        for (client, objects) in by_client {
            client.adopt(&objects);
        }
    }
}

/// The extents that came with a reference, and the page that they begin with; none if they don't cover what is referred to.
fn hint(
    wire: &WireRef<'_>,
    extents: &[RawExtent],
    client: &Client,
) -> Result<(u32, SmallVec<[Extent; 1]>), StoreError> {
    if client.page_size.pages_for(wire.size).is_none() {
        return Err(StoreError::Malformed("a reference to an object of too many pages"));
    }
    if extents.is_empty() {
        return Ok((0, SmallVec::new()));
    }
    let pages = Layout::pages_of(&(wire.offset..wire.offset + wire.length), client.page_size);
    let extents: SmallVec<[Extent; 1]> = extents.iter().map(|extent| Extent::from(*extent)).collect();
    let count: u64 = extents.iter().map(|extent| u64::from(extent.count)).sum();
    if extents.iter().any(|extent| !extent.is_valid()) || count != u64::from(pages.end - pages.start) {
        return Err(StoreError::Malformed("a reference whose extents are not its pages"));
    }
    Ok((pages.start, extents))
}

/// Numbers of the loans of a message, which are mostly few.
pub type LoanNumbers = SmallVec<[u64; 2]>;

/// Bytes of a reference to an object in one piece, and of another's beginning: what a message's table mostly takes.
const TABLE_BYTES: usize = 128;

/// The references of a message to be sent. Unless [`sent`](Lending::sent), they are taken back.
pub struct Lending {
    loans: Loans,
    numbers: LoanNumbers,
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

    /// Under which numbers they are lent.
    pub fn numbers(&self) -> &[u64] {
        &self.numbers
    }

    /// The message is on its way: the loans stand until they are returned.
    pub fn sent(mut self) {
        self.numbers.clear();
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        self.loans.returned(&self.numbers);
    }
}

thread_local! {
    static LENDER: RefCell<Option<Lending>> = const { RefCell::new(None) };
    static BORROWER: RefCell<Option<SmallVec<[AnyRef; 2]>>> = const { RefCell::new(None) };
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
    let lending = Lending { loans: loans.clone(), numbers: LoanNumbers::new(), table: Vec::new(), count: 0 };
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
    let mut references = SmallVec::new();
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
            if lending.count == 0 {
                lending.table.reserve(TABLE_BYTES);
            }
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
