//! Asking an actor in another process, beside two processes that only wake each other.

use crate::actors_here::in_task;
use crate::adder::Adder;
use crate::bench::Bench;
use crate::report::{Row, Unit};
use crate::statistics::{Contestant, compare};
use anyhow::Context as _;
use dmrpc_actors::{ActorRef, System};
use rustix::event::{EventfdFlags, eventfd};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::hint::black_box;
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// Asks under way at a time, where there are several.
const BURST: u64 = 64;

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
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
pub(crate) fn run_on_one_core(mut bench: Bench) -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(0);
    sched_setaffinity(None, &cores).context("binding to a core")?;
    measure(&mut bench, "across processes, both on one core")?;
    println!("{}", serde_json::to_string(&bench.rows)?);
    Ok(())
}

fn measure(bench: &mut Bench, group: &str) -> anyhow::Result<()> {
    for (scheme, what) in [("unix", "shared memory"), ("tcp", "TCP")] {
        let there = ActorProcess::start(scheme)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let system = runtime.block_on(System::builder().name("bench").build())?;
        let actor = runtime.block_on(system.connect::<Adder>(&format!("{}#adder", there.url)))?;
        let doorbell = Doorbell::start()?;
        let [ask, burst, again] = compare(
            bench.effort,
            [
                Contestant::timed(|n| in_task(&runtime, asks(actor.clone(), n))),
                Contestant::timed(|n| in_task(&runtime, burst(actor.clone(), n))),
                Contestant::repeated(|| doorbell.round_trip()),
            ],
        );
        bench.rows.push(
            Row::new(group, format!("ask, {what}"), Unit::Nanoseconds, ask).beside("eventfd there and back", again),
        );
        bench.rows.push(
            Row::new(group, format!("ask, {what}, {BURST} at a time"), Unit::PerSecond, burst.map(|ns| 1e9 / ns))
                .beside("eventfd there and back", again.map(|ns| 1e9 / ns)),
        );
        runtime.block_on(system.shutdown(Duration::from_secs(1)));
    }
    Ok(())
}

async fn asks(actor: ActorRef<Adder>, n: u64) {
    for i in 0..n {
        black_box(actor.add(i).await.expect("it answers"));
    }
}

/// Keeps so many asks under way.
async fn burst(actor: ActorRef<Adder>, n: u64) {
    let mut tasks = JoinSet::new();
    for part in 0..BURST {
        let n = (n + part) / BURST;
        tasks.spawn(asks(actor.clone(), n));
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("does not panic");
    }
}

/// A process that serves an actor.
struct ActorProcess {
    url: String,
    child: Child,
    dir: tempfile::TempDir,
}

impl ActorProcess {
    fn start(scheme: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let url = match scheme {
            "unix" => format!("unix://{}", dir.path().join("adder.sock").display()),
            _ => "tcp://127.0.0.1:0".to_owned(),
        };
        let mut child = Command::new(std::env::current_exe()?)
            .args(["actor", &url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).context("the address of the actor's process")?;
        Ok(Self { url: line.trim().to_owned(), child, dir })
    }
}

impl Drop for ActorProcess {
    fn drop(&mut self) {
        // Its standard input ends, and so does it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        let _ = &self.dir;
    }
}

/// Serves an actor until standard input ends; says where.
#[expect(clippy::print_stdout, reason = "read by the process that started this one")]
pub(crate) fn serve_actor(url: &str) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let system = runtime.block_on(System::builder().name("adder").listen(url).build())?;
    let adder = {
        let _within = runtime.enter();
        system.spawn(Adder::new())
    };
    system.register("adder", &adder)?;
    println!("{}", system.addresses().first().context("it listens")?);
    let (end, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Ends with whoever started us.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = end.send(());
    });
    runtime.block_on(async {
        let _ = ended.await;
        system.shutdown(Duration::from_secs(1)).await;
    });
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
pub(crate) fn answer_doorbell() -> anyhow::Result<()> {
    let (bell, back) = (std::io::stdin(), std::io::stdout());
    loop {
        hear(&bell)?;
        ring(&back)?;
    }
}
