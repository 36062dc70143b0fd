//! Actors within a process, beside the bare channels they are made of.

use crate::bench::Bench;
use crate::report::{Row, Unit};
use crate::statistics::{Contestant, compare};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

/// Messages in a channel or mailbox at most.
const CAPACITY: usize = 1024;

/// What the bare task is sent.
enum Bare {
    Ask(u64, oneshot::Sender<u64>),
    Tell(u64),
}

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let many = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let one = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for (runtime, name) in [(&one, "one thread"), (&many, "a thread per core")] {
        let bare = bare_actor(runtime);
        let [ask, tell] = compare(
            bench.effort,
            [
                Contestant::timed(|n| in_task(runtime, bare_asks(bare.clone(), n))),
                Contestant::timed(|n| in_task(runtime, bare_tells(bare.clone(), n))),
            ],
        );
        bench.rows.push(Row::new("in process, ask", name, Unit::Nanoseconds, ask));
        bench.rows.push(Row::new("in process, tell", name, Unit::Nanoseconds, tell));
    }
    Ok(())
}

/// Runs in a task of the runtime, as actors' callers do, and says how long it took.
fn in_task(runtime: &Runtime, work: impl Future<Output = ()> + Send + 'static) -> Duration {
    runtime.block_on(async {
        let timed = async {
            let start = Instant::now();
            work.await;
            start.elapsed()
        };
        tokio::spawn(timed).await.expect("does not panic")
    })
}

fn bare_actor(runtime: &Runtime) -> mpsc::Sender<Bare> {
    let (sender, mut receiver) = mpsc::channel(CAPACITY);
    runtime.spawn(async move {
        let mut sum = 0u64;
        while let Some(message) = receiver.recv().await {
            match message {
                Bare::Ask(n, reply) => {
                    sum = sum.wrapping_add(n);
                    // Nobody waits any more: nothing to do.
                    let _ = reply.send(sum);
                }
                Bare::Tell(n) => sum = sum.wrapping_add(n),
            }
        }
    });
    sender
}

async fn bare_asks(actor: mpsc::Sender<Bare>, n: u64) {
    for i in 0..n {
        let (reply, answer) = oneshot::channel();
        actor.send(Bare::Ask(i, reply)).await.expect("it runs");
        std::hint::black_box(answer.await.expect("it answers"));
    }
}

async fn bare_tells(actor: mpsc::Sender<Bare>, n: u64) {
    for i in 0..n {
        actor.send(Bare::Tell(i)).await.expect("it runs");
    }
    bare_asks(actor, 1).await;
}
