//! Asking an actor in another process, beside two processes that only wake each other.

use crate::bench::Bench;
use crate::report::{Row, Unit};
use crate::statistics::{Contestant, compare};
use anyhow::Context as _;
use rustix::event::{EventfdFlags, eventfd};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    measure(bench, "across processes, free")?;
    let output = Command::new(std::env::current_exe()?)
        .args(["--rounds", &bench.effort.rounds.to_string(), "--turn-ms", &bench.effort.turn.as_millis().to_string()])
        .arg("one-core")
        .stderr(Stdio::inherit())
        .output()?;
    anyhow::ensure!(output.status.success(), "the part on one core ended with {}", output.status);
    let rows: Vec<Row> = serde_json::from_slice(&output.stdout).context("rows of the part on one core")?;
    bench.rows.extend(rows);
    Ok(())
}

/// As a process of its own, so that all its threads and children are bound to the core.
#[expect(clippy::print_stdout, reason = "read by the process that started this one")]
pub fn run_on_one_core(mut bench: Bench) -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(0);
    sched_setaffinity(None, &cores).context("binding to a core")?;
    measure(&mut bench, "across processes, both on one core")?;
    println!("{}", serde_json::to_string(&bench.rows)?);
    Ok(())
}

fn measure(bench: &mut Bench, group: &str) -> anyhow::Result<()> {
    let doorbell = Doorbell::start()?;
    let [bare] = compare(bench.effort, [Contestant::repeated(|| doorbell.round_trip())]);
    bench.rows.push(Row::new(group, "ask", Unit::Nanoseconds, bare));
    Ok(())
}

/// A process that answers a doorbell.
struct Doorbell {
    there: OwnedFd,
    back: OwnedFd,
    child: Child,
}

impl Doorbell {
    fn start() -> anyhow::Result<Self> {
        let there = eventfd(0, EventfdFlags::CLOEXEC)?;
        let back = eventfd(0, EventfdFlags::CLOEXEC)?;
        let child = Command::new(std::env::current_exe()?)
            .arg("doorbell")
            .stdin(there.try_clone()?)
            .stdout(back.try_clone()?)
            .spawn()?;
        Ok(Self { there, back, child })
    }

    fn round_trip(&self) {
        ring(&self.there).expect("a doorbell");
        hear(&self.back).expect("a doorbell");
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        // It waits for a ring that never comes; if it has ended by itself there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ring(bell: impl AsFd) -> rustix::io::Result<()> {
    rustix::io::write(bell, &1u64.to_ne_bytes()).map(drop)
}

fn hear(bell: impl AsFd) -> rustix::io::Result<()> {
    rustix::io::read(bell, &mut [0u8; 8]).map(drop)
}

/// The other side.
pub fn answer_doorbell() -> anyhow::Result<()> {
    let (bell, back) = (std::io::stdin(), std::io::stdout());
    loop {
        hear(&bell)?;
        ring(&back)?;
    }
}

/// Serves an actor until standard input ends.
pub fn serve_actor(url: &str) -> anyhow::Result<()> {
    anyhow::bail!("nothing to serve at {url}")
}
