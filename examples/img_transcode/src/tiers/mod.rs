//! The tiers, and the process that each of them is.
//!
//! | file | noun |
//! | --- | --- |
//! | `firewall.rs`, `balancer.rs`, `dispatcher.rs`, `worker.rs` | the actors |
//! | `rules.rs`, `pick.rs`, `crew.rs` | what they decide by: plain data, tested without any actor |
//! | `tier.rs`, `gauge.rs` | what they have in common: a name, and counters that anybody can read |
//! | `grpc.rs` | the same as gRPC services, to be compared with |
//! | `spec.rs`, `process.rs` | what a process is told, and the process |

pub(crate) mod balancer;
pub(crate) mod crew;
pub(crate) mod dispatcher;
pub(crate) mod firewall;
pub(crate) mod gauge;
#[cfg(feature = "compare")]
pub(crate) mod grpc;
pub(crate) mod pick;
pub(crate) mod process;
pub(crate) mod rules;
pub(crate) mod spec;
pub(crate) mod tier;
pub(crate) mod worker;
