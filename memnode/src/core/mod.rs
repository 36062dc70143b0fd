//! The memory node as a state machine: no socket, clock, thread, randomness or memory mapping of its own.
//!
//! A driver feeds [`Event`]s to [`Core::step`] and carries out the [`Action`]s that come back, in order. After a batch of
//! events it calls [`Core::settle`], which sends what was gathered and sweeps up behind dropped objects. The same core runs
//! under the sockets of the real node and under the seeded simulation in `tests/`.

mod config;
#[expect(clippy::module_inception, reason = "the core of the core")]
mod core;
mod counts;
mod event;
mod grants;
mod memory;
mod recount;
mod requests;
mod segments;
mod sessions;
mod slots;
mod snapshot;
mod transfers;
mod waiting;

pub use self::core::Core;
pub use config::CoreConfig;
pub use event::{Access, Action, Actions, Event, LinkId, Now, Region, Ticket};
