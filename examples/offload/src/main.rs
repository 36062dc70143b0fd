//! A stream of blocks through two services, by value and by reference.
//!
//! | file | noun |
//! | --- | --- |
//! | `service.rs` | the services, and what goes between them |
//! | `process.rs` | the processes: this program, started once for each |
//! | `stream.rs` | the blocks that are sent, and what comes back |
#![forbid(unsafe_code)]

mod process;
mod service;
mod stream;

use crate::process::Services;
use crate::stream::{Passing, Stream};
use anyhow::Context as _;
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use dmrpc_pages::ByteSize;
use dmrpc_turns::{Load, Order, Turn};
use serde::Deserialize;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Has a stream of blocks compressed and encrypted by two services, by value and by reference.
#[derive(Debug, Parser)]
#[command(name = "offload", version)]
struct Options {
    /// What is sent; this very program if nothing is said
    file: Option<PathBuf>,

    /// Sizes of blocks
    #[arg(long, value_delimiter = ',', default_value = "4KiB,64KiB,256KiB,1MiB")]
    size: Vec<ByteSize>,

    /// Blocks under way at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    concurrency: u32,

    /// How long each of five rounds takes, in seconds
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,

    /// Take turns in a comparison: orders on standard input, answers on standard output.
    #[arg(long, hide = true)]
    turns: bool,

    /// Play one part: how this program starts itself.
    #[arg(long, hide = true, value_name = "JSON")]
    part: Option<String>,
}

/// Rounds by value and by reference, in turns.
const ROUNDS: usize = 5;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if let Some(part) = &options.part {
        return process::play(part);
    }
    let file = match &options.file {
        Some(path) => std::fs::read(path).with_context(|| format!("reading {}", path.display()))?,
        None => stream::own_program()?,
    };
    let services = Services::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if options.turns {
        return take_turns(&services, &runtime, &file);
    }
    let load = Load::InFlight(options.concurrency as usize);
    let time = Duration::try_from_secs_f64(options.seconds)?;
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["block", "blocks travel", "blocks/s", "MB/s", "mean latency", "throughput"]);
    for size in &options.size {
        let block_bytes = usize::try_from(size.bytes()).context("a block that fits memory")?.max(1);
        let stream = runtime.block_on(Stream::open(&services, &file, block_bytes))?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            for passing in [Passing::Value, Passing::Reference] {
                rounds.push((passing, runtime.block_on(round(&stream, passing, load, time))?));
            }
        }
        let median = |passing, figure: fn(&Turn) -> f64| {
            let of = rounds.iter().filter(|(by, _)| *by == passing);
            let mut figures: Vec<f64> = of.map(|(_, turn)| figure(turn)).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let rate = |turn: &Turn| turn.operations as f64 / turn.seconds;
        for (passing, name) in [(Passing::Value, "by value"), (Passing::Reference, "by reference")] {
            let per_second = median(passing, rate);
            table.add_row([
                size.to_string(),
                name.to_owned(),
                format!("{per_second:.0}"),
                format!("{:.0}", per_second * stream.mean_bytes() / 1e6),
                format!("{:.2} ms", median(passing, |turn| turn.mean_us) / 1e3),
                format!("{:.2}x", per_second / median(Passing::Value, rate)),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(
        std::io::stdout(),
        "{} blocks at a time, medians of {ROUNDS} rounds by value and by reference in turns\n\n{table}\n\nChecked: every block is what was sent once it \
         is decrypted and decompressed; each of every round, by its checksum",
        options.concurrency
    )?;
    Ok(())
}

async fn round(stream: &Arc<Stream>, passing: Passing, load: Load, time: Duration) -> anyhow::Result<Turn> {
    let sending = Arc::clone(stream);
    let send = move |n| {
        let stream = Arc::clone(&sending);
        async move { stream.send(n, passing).await }
    };
    Ok(Turn::new(&dmrpc_turns::run(load, time, send).await?, stream.answer()))
}

/// What is done in a turn.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Case {
    size: usize,
    load: Load,
}

fn take_turns(services: &Services, runtime: &tokio::runtime::Runtime, file: &[u8]) -> anyhow::Result<()> {
    let mut open: Option<(usize, Arc<Stream>)> = None;
    dmrpc_turns::take(|Order::<Case> { way, case, time }| {
        let passing = if way == "ref" { Passing::Reference } else { Passing::Value };
        let stream = match &open {
            Some((size, stream)) if *size == case.size => Arc::clone(stream),
            _ => runtime.block_on(Stream::open(services, file, case.size.max(1)))?,
        };
        open = Some((case.size, Arc::clone(&stream)));
        runtime.block_on(round(&stream, passing, case.load, time))
    })
}
