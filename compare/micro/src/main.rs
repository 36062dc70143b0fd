//! Messages, and reads and writes of a memory node, on each fabric, beside what its device does without us.
//!
//! ```text
//! dmrpc-micro [--fabric shm --fabric memif …] [--json FILE]
//! ```
//!
//! Both ends are processes of their own, each on a core of its own if there are two, and both spin. `docs/fabrics.md` has the
//! table and what it says.
#![allow(clippy::print_stdout, reason = "a program that prints figures")]

mod bare;
mod fabrics;
mod memory;
mod messages;
mod one_sided;
mod perftest;
mod row;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use comfy_table::{CellAlignment, Table};
use fabrics::Fabric;
use row::Row;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The line by which a server says where it is.
const READY: &str = "ready ";
/// What any server lives at most.
const LIFE: Duration = Duration::from_secs(600);

#[derive(Parser)]
#[command(name = "dmrpc-micro", version)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    /// Which fabrics; all that this host has if none is named.
    #[arg(long, value_name = "FABRIC")]
    fabric: Vec<Fabric>,
    /// Where the rows go, as a JSON list.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How long each figure is measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
}

/// What a process does that this program started.
#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    Serve { what: What, address: String },
    #[command(hide = true)]
    Ask { what: What, fabric: Fabric, address: String, seconds: f64 },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    Bare,
    Messages,
    Memory,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.role {
        Some(Role::Serve { what, address }) => {
            pin(0);
            match what {
                What::Messages => messages::serve(&fabrics::parse(&address)?, Instant::now() + LIFE),
                What::Memory => memory::serve(&fabrics::parse(&address)?),
                What::Bare => serve_bare(&address),
            }
        }
        Some(Role::Ask { what, fabric, address, seconds }) => {
            pin(1);
            let (name, turn) = (fabric.to_string(), Duration::from_secs_f64(seconds));
            let rows = match what {
                What::Messages => messages::ask(&name, &fabrics::parse(&address)?, turn)?,
                What::Memory => memory::ask(&name, &fabrics::parse(&address)?, turn)?,
                What::Bare => ask_bare(&name, &address, turn)?,
            };
            println!("{}", serde_json::to_string(&rows)?);
            Ok(())
        }
        None => drive(&cli),
    }
}

fn serve_bare(address: &str) -> Result<()> {
    match address {
        "sockets" => bare::serve_sockets(),
        #[cfg(feature = "dpdk")]
        "bursts" => bare::serve_bursts(),
        other => bail!("no bare {other}"),
    }
}

fn ask_bare(fabric: &str, address: &str, turn: Duration) -> Result<Vec<Row>> {
    match address {
        "memory" => Ok(bare::memcpy(turn)),
        #[cfg(feature = "dpdk")]
        "bare" => bare::ask_bursts(fabric, turn),
        sockets => {
            let _ = fabric;
            bare::ask_sockets(sockets, turn)
        }
    }
}

/// Says where a server is.
fn ready(address: &dyn std::fmt::Display) {
    println!("{READY}{address}");
}

/// The core of an end.
fn core(end: usize) -> usize {
    end.min(std::thread::available_parallelism().map_or(1, usize::from) - 1)
}

/// Keeps this process on the core of its end.
fn pin(end: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core(end));
    // Where it may not, the scheduler decides.
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// Starts a program that is kept on the core of an end: a child is where its parent was.
fn spawn_pinned(command: &mut Command, end: usize) -> std::io::Result<Child> {
    let before = rustix::thread::sched_getaffinity(None);
    pin(end);
    let child = command.spawn();
    if let Ok(before) = before {
        let _ = rustix::thread::sched_setaffinity(None, &before);
    }
    child
}

fn drive(cli: &Cli) -> Result<()> {
    let named = !cli.fabric.is_empty();
    let fabrics: Vec<Fabric> = if named { cli.fabric.clone() } else { Fabric::all().collect() };
    let mut rows = bare::memcpy(Duration::from_secs_f64(cli.seconds / 4.0));
    let mut failed = Vec::new();
    if fabrics.iter().any(|fabric| matches!(fabric, Fabric::Tcp | Fabric::Tls | Fabric::Udp)) {
        let folder = tempfile::tempdir()?;
        rows.extend(pair(Fabric::Tcp, What::Bare, "sockets", folder.path(), cli.seconds)?);
        rows.extend(bare::iperf3(Duration::from_secs_f64(cli.seconds))?);
    }
    for fabric in fabrics {
        if let Some(why) = fabric.missing() {
            ensure!(!named, "{fabric}: {why}");
            eprintln!("{fabric}: skipped: {why}");
            continue;
        }
        let mut failed_with = |error: anyhow::Error| {
            eprintln!("{fabric}: no figure: {error:#}");
            failed.push(fabric.to_string());
        };
        if fabric == Fabric::Rdma {
            perftest::run().map_or_else(&mut failed_with, |more| rows.extend(more));
        }
        let network = fabric.network()?;
        let mut plan = vec![(What::Messages, None), (What::Memory, None)];
        if fabric.is_dpdk() {
            plan.insert(0, (What::Bare, Some("bursts")));
        }
        for (what, address) in plan {
            let folder = tempfile::tempdir()?;
            let address = address.map_or_else(|| fabric.address(folder.path()), str::to_owned);
            pair(fabric, what, &address, folder.path(), cli.seconds)
                .map_or_else(&mut failed_with, |more| rows.extend(more));
        }
        drop(network);
    }
    println!("{}", table(&rows));
    if let Some(path) = &cli.json {
        std::fs::write(path, serde_json::to_string_pretty(&rows)?)?;
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// A child that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // A server ends when its input does; one that does not is ended.
        drop(self.0.stdin.take());
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs both ends, and gives what the one that asks found.
fn pair(fabric: Fabric, what: What, address: &str, folder: &Path, seconds: f64) -> Result<Vec<Row>> {
    let name = match what {
        What::Bare => "bare",
        What::Messages => "messages",
        What::Memory => "memory",
    };
    eprintln!("{fabric}: {name}");
    let options = fabric.options(folder);
    let mut command = fabric.command(0, folder)?;
    command.args(["serve", name, &format!("{address}{options}")]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = Running(command.spawn().context("starting a server")?);
    let mut lines = BufReader::new(server.0.stdout.take().expect("it was asked for")).lines();
    let address = loop {
        let line = lines.next().context("the server ended before it was ready")??;
        if let Some(address) = line.strip_prefix(READY) {
            break format!("{address}{options}");
        }
    };
    let mut command = fabric.command(1, folder)?;
    command.args(["ask", name, &fabric.to_string(), &address, &seconds.to_string()]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("starting a client")?;
    ensure!(output.status.success(), "{name}: the client failed: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let rows = text.lines().last().context("the client said nothing")?;
    std::io::stderr().flush()?;
    Ok(serde_json::from_str(rows)?)
}

fn micros(figure: f64) -> String {
    if figure.is_nan() { "–".to_owned() } else { format!("{figure:.2}") }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["fabric", "what", "size", "depth", "p50 µs", "p99 µs", "a second", "MB/s"]);
    for row in rows {
        table.add_row([
            row.fabric.clone(),
            row.what.clone(),
            dmrpc_pages::ByteSize(row.size).to_string(),
            row.depth.to_string(),
            micros(row.p50_us),
            micros(row.p99_us),
            format!("{:.0}", row.per_second),
            format!("{:.0}", row.bytes_per_second / 1e6),
        ]);
    }
    for column in 2..8 {
        table.column_mut(column).expect("there are eight").set_cell_alignment(CellAlignment::Right);
    }
    table
}
