//! What every program that is compared has: turns that it is given, load that it makes, latencies, and payloads that are the same
//! in every language. `docs/compare.md` says how programs are compared.
//!
//! | file | noun |
//! | --- | --- |
//! | `turns.rs` | turns: orders on standard input, answers on standard output |
//! | `load.rs` | operations under way: so many at a time, or so many a second |
//! | `latencies.rs` | how long they took |
//! | `process.rs` | the other processes of a program |
//! | `payload.rs` | bytes to be sent |
//! | `grpc.rs` | gRPC, with the feature of that name |
#![deny(unsafe_code)]

#[cfg(feature = "grpc")]
pub mod grpc;
mod latencies;
mod load;
pub mod payload;
pub mod process;
mod turns;

pub use latencies::Latencies;
pub use load::{Load, MAX_UNDER_WAY, Measured, run};
pub use turns::{Order, Turn, take};
