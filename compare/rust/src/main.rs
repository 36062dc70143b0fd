//! `dmrpc-compare`: the Rust systems of the comparisons. `compare/run.py` starts it once for each system of each part, and gives it
//! turns; the parts and how they are compared are in `docs/compare.md`.
//!
//! | file | noun |
//! | --- | --- |
//! | `process.rs` | other processes of a system: this program, started again |
//! | `touch.rs`, `cow.rs` | an object that a worker elsewhere writes into |
//! | `chain.rs`, `grpc_chain.rs` | an object through a chain of processes |
//! | `create_ref.rs`, `translate.rs` | references made, and followed |
//! | `transfer.rs` | bytes read and written |
#![forbid(unsafe_code)]

mod chain;
mod cow;
mod create_ref;
mod grpc_chain;
mod process;
mod touch;
mod transfer;
mod translate;

use clap::{Parser, Subcommand};

/// Takes turns in a comparison.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

/// How an object travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passing {
    /// As a reference.
    Ref,
    /// In the message.
    Value,
}

impl std::str::FromStr for Passing {
    type Err = anyhow::Error;

    fn from_str(way: &str) -> anyhow::Result<Self> {
        match way {
            "ref" => Ok(Self::Ref),
            "value" => Ok(Self::Value),
            other => anyhow::bail!("there is no way {other} to pass an object on"),
        }
    }
}

/// What is compared.
#[derive(Subcommand)]
enum Part {
    /// An object is made, passed to a worker in another process, and written there.
    Cow,
    /// An object goes through a chain of processes, the last of which reads it.
    Chain,
    /// The same over gRPC.
    GrpcChain,
    /// References are made and dropped.
    CreateRef,
    /// References are followed to bytes.
    Translate,
    /// Bytes are read and written.
    Transfer,
    /// Another process of a system; started by the one that measures.
    #[command(hide = true)]
    Serve {
        /// What it is to be, in JSON.
        role: String,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().part {
        Part::Cow => cow::take_turns(),
        Part::Chain => chain::take_turns(),
        Part::GrpcChain => grpc_chain::take_turns(),
        Part::CreateRef => create_ref::take_turns(),
        Part::Translate => translate::take_turns(),
        Part::Transfer => transfer::take_turns(),
        Part::Serve { role } => process::serve(&role),
    }
}
