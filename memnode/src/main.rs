//! The program `dmrpc-memnode`: a memory node and a command line.
//!
//! `serve.rs` runs one until it is told to end, `stat.rs` asks a running one for its figures.
#![forbid(unsafe_code)]

mod serve;
mod stat;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A memory node: a pool of copy-on-write pages that actors pass references to.
///
/// It prints one line when it is ready, and ends on SIGTERM or SIGINT.
#[derive(Parser)]
#[command(name = "dmrpc-memnode", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Args,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the figures of a running node.
    Stat(stat::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var("DMRPC_LOG")
        .from_env_lossy();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let outcome = match cli.command {
        Some(Command::Stat(args)) => stat::run(&args),
        None => serve::run(&cli.serve),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dmrpc-memnode: {}", explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// What happened and why. Some errors name their cause themselves: it is not said twice.
fn explain(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |mut text, cause| {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
        text
    })
}
