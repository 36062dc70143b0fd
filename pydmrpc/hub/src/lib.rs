//! Who runs what: the tasks, actors, results and workers of Python programs, as a state machine.
//!
//! The hub knows neither Python nor processes nor links. What happened goes into [`Hub::step`] as an [`Event`], what is to be done
//! comes out as [`Action`]s, in order; values are opaque (`P`). `docs/python-runtime.md` says how it is used.
//!
//! | file | noun |
//! | --- | --- |
//! | `id.rs` | names of clients, workers, tasks, actors and results |
//! | `event.rs` | what goes in and comes out |
//! | `resources.rs` | processors and whatever else is counted |
//! | `results.rs` | values that were promised: who waits for them, who holds them |
//! | `streams.rs` | tasks whose values come one by one |
//! | `tasks.rs` | what is to be run: what each task waits for, where it stands |
//! | `actors.rs` | actors: their workers, calls, names and ends |
//! | `workers.rs` | processes that run tasks and actors |
//! | `hub/` | the events, and what they do: to clients, to tasks, with what workers say, to actors; who runs what |
//! | `history.rs` | what there is and was, for people |
//! | `census.rs` | questions that all clients answer |
//! | `grants.rs` | results that are kept for a while, though no client holds them |
//! | `numbered.rs` | tables by numbers that clients give |
//! | `record.rs` | what travels on the links, as bytes |
//!
//! 1. A result is there as long as a client holds it, a task needs it, or a value that is there contains it; then it goes.
//! 2. Every result that a client waits for ends: with a value or with a [`Failure`].
//! 3. A task is begun only when the results that it needs are there, on one worker at a time, and again only as often as its retries
//!    allow; those that were never begun do not count.
//! 4. What runs and is not blocked never needs more than there is, but for tasks that were blocked and go on.
//! 5. Calls of one client to one actor begin in the order in which they were made; where the actor says that order does not matter, in that
//!    in which they are ready.
//! 6. Nothing that a client says makes the hub panic; what makes no sense is ignored or fails its own results.
#![forbid(unsafe_code)]

mod actors;
mod census;
mod event;
mod grants;
mod history;
mod hub;
mod id;
mod numbered;
pub mod record;
#[cfg(test)]
mod recount;
mod resources;
mod results;
#[cfg(test)]
mod simulation;
mod streams;
mod tasks;
mod workers;

pub use census::{Censuses, Ended};
pub use event::{Action, ActorSpec, CallSpec, Event, Failure, Now, Outcome, TaskSpec, Work};
pub use grants::Grants;
pub use history::{ActorRow, TaskRow};
pub use hub::{Hub, HubOptions, Totals};
pub use id::{ActorId, ClientId, FunctionId, ResultId, TaskId, WorkerId};
pub use numbered::{ByResult, ByTask};
pub use resources::{ONE_CPU, Resources};
pub use streams::{STREAM, TAKEN};
