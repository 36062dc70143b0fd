//! The object store client: references to immutable bytes in a memory node, and views, edits and drafts of them.
//!
//! [`Store::put`] copies bytes into pages that were leased beforehand and gives an [`ObjectRef`]; [`ObjectRef::get`] gives a
//! [`View`], which on the memory node's host is those very pages. References go from process to process as loans
//! ([`Loans`], [`Borrows`]), of which the memory node hears nothing.
//!
//! No runtime is needed: futures are woken by the store's own thread, and mostly need not wait at all. On a plain thread use
//! [`block_on`].

mod arena;
mod buffer;
mod cache;
mod claim;
mod client;
mod codec;
mod dirty;
mod draft;
mod edit;
mod error;
mod far;
mod fork;
mod grant;
mod inline;
mod io;
mod layout;
mod ledger;
mod loan;
mod mosaic;
mod object;
mod overlay;
mod private;
mod reference;
mod region;
mod registry;
mod segment;
mod session;
#[cfg(test)]
mod simulation;
mod spans;
mod store;
mod unannounced;
mod view;
mod wait;
mod workspace;

pub use client::CacheLines;
pub use codec::{Codec, Content, Encoded, Pod};
pub use dmrpc_wire::{NodeId, ObjectId, Stats};
pub use draft::Draft;
pub use edit::Edit;
pub use error::{StoreError, Subject};
pub use grant::Granted;
pub use loan::{Borrows, Lending, LoanNumbers, Loans, REF_EXTENSION, with_borrower, with_lender};
pub use private::PrivateView;
pub use reference::{AnyRef, ObjectRef};
pub use store::{EmbeddedOptions, INLINE_BYTES, Store, StoreOptions};
pub use view::{Chunks, View};
pub use wait::block_on;
pub use workspace::Workspace;
