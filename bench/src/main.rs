//! `dmrpc-bench`: every layer against the bare machine, in one run, as one table.
//!
//! Whatever is compared takes turns (A B, B A, A B …), each turn long enough to be timed; a figure is the median of the turns and
//! `±` half the distance of their quartiles. Payloads are written bytes. *Warm* is after the machine has settled; *first* is the
//! first time in a session.

mod actors_here;
mod adder;
mod bench;
mod bulk;
mod edits;
mod machine;
mod network;
mod payload;
#[cfg(feature = "peers")]
mod peers;
mod processes;
mod references;
mod report;
mod statistics;

use anyhow::Context as _;
use bench::Bench;
use clap::{Parser, Subcommand};
use dmrpc_pages::ByteSize;
use machine::Machine;
use report::Report;
use statistics::Effort;
use std::path::PathBuf;
use std::time::Duration;

/// Measures DmRPC beside the bare machine.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Also write the figures to this file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Only these sections: refs, bulk, edit, actors, processes, network.
    #[arg(long)]
    only: Vec<String>,
    /// How often each contestant has its turn.
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// How long a turn takes, in milliseconds.
    #[arg(long, default_value_t = 40)]
    turn_ms: u64,
    /// The largest object.
    #[arg(long, default_value = "1GiB")]
    max_object: ByteSize,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What the benchmark starts itself as.
#[derive(Subcommand)]
enum Part {
    /// Answers every ring of the doorbell at its standard input with one at its standard output.
    #[command(hide = true)]
    Doorbell,
    /// Serves an actor at this address until its standard input ends.
    #[command(hide = true)]
    Actor {
        /// Where.
        url: String,
    },
    /// Measures between processes on one core, and prints the rows as JSON.
    #[command(hide = true)]
    OneCore,
}

type Section = (&'static str, fn(&mut Bench) -> anyhow::Result<()>);

const SECTIONS: [Section; 6] = [
    ("refs", references::run),
    ("bulk", bulk::run),
    ("edit", edits::run),
    ("actors", actors_here::run),
    ("processes", processes::run),
    ("network", network::run),
];

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let effort = Effort { rounds: arguments.rounds.max(1), turn: Duration::from_millis(arguments.turn_ms.max(1)) };
    let max_object_bytes = usize::try_from(arguments.max_object.bytes()).context("the largest object")?;
    let mut bench = Bench { effort, max_object_bytes, rows: Vec::new() };
    match arguments.part {
        Some(Part::Doorbell) => return processes::answer_doorbell(),
        Some(Part::Actor { url }) => return processes::serve_actor(&url),
        Some(Part::OneCore) => return processes::run_on_one_core(bench),
        None => {}
    }

    for name in &arguments.only {
        anyhow::ensure!(SECTIONS.iter().any(|(known, _)| known == name), "there is no section {name}");
    }
    let machine = Machine::look();
    eprintln!("{machine}");
    for (name, section) in SECTIONS {
        if arguments.only.is_empty() || arguments.only.iter().any(|only| only == name) {
            eprintln!("measuring: {name}");
            section(&mut bench).with_context(|| format!("measuring {name}"))?;
        }
    }
    print(&machine, &bench);
    if let Some(path) = arguments.json {
        let report = serde_json::to_string_pretty(&Report::new(&machine, &bench.rows))?;
        std::fs::write(&path, report).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
fn print(machine: &Machine, bench: &Bench) {
    println!("{}\n{machine}", report::table(&bench.rows));
    println!(
        "medians of {} turns of {} ms in turn with what they are compared with; ± half the distance of the quartiles",
        bench.effort.rounds,
        bench.effort.turn.as_millis()
    );
}
