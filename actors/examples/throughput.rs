//! How fast actors of one process are, beside a bare tokio channel with a oneshot for the answer, in one run.
//!
//! `cargo run --release -p dmrpc-actors --example throughput [messages]`

#![allow(clippy::print_stdout)]

use dmrpc_actors::{MailboxOptions, System, actor};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

struct Counter(u64);

#[actor]
impl Counter {
    #[message]
    async fn add(&mut self, n: u64) -> u64 {
        self.0 += n;
        self.0
    }
}

enum Bare {
    Add(u64, Option<oneshot::Sender<u64>>),
}

fn bare(capacity: usize) -> mpsc::Sender<Bare> {
    let (sender, mut receiver) = mpsc::channel(capacity);
    tokio::spawn(async move {
        let mut sum = 0;
        while let Some(Bare::Add(n, reply)) = receiver.recv().await {
            sum += n;
            if let Some(reply) = reply {
                let _ = reply.send(sum);
            }
        }
    });
    sender
}

async fn bare_ask(to: &mpsc::Sender<Bare>) {
    let (sender, receiver) = oneshot::channel();
    to.send(Bare::Add(1, Some(sender))).await.ok().expect("lives");
    receiver.await.expect("answers");
}

fn report(what: &str, threads: usize, messages: u64, took: Duration) {
    let each = took.as_nanos() as f64 / messages as f64;
    println!("{what:<34} {threads} threads {each:>9.0} ns each {:>12.0}/s", 1e9 / each);
}

fn main() {
    let messages: u64 = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().expect("a number"));
    for threads in [1, 2] {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().expect("starts");
        // On a worker, as code of a server is.
        runtime.block_on(async move { tokio::spawn(measure(threads, messages)).await.expect("no panic") });
    }
}

const CAPACITY: usize = 1024;

async fn measure(threads: usize, messages: u64) {
    let system = System::builder().build().await.expect("no address");
    for _ in 0..2 {
        let mut options = MailboxOptions::default();
        options.capacity = CAPACITY;
        let actor = system.spawn_with(Counter(0), options);
        let channel = bare(CAPACITY);

        let begun = Instant::now();
        for _ in 0..messages {
            channel.send(Bare::Add(1, None)).await.ok().expect("lives");
        }
        bare_ask(&channel).await;
        report("tell, bare channel", threads, messages, begun.elapsed());
        let begun = Instant::now();
        for _ in 0..messages {
            actor.tell_add(1).await.expect("lives");
        }
        actor.add(1).await.expect("lives");
        report("tell, actor", threads, messages, begun.elapsed());

        let asks = messages / 4;
        let begun = Instant::now();
        for _ in 0..asks {
            bare_ask(&channel).await;
        }
        report("ask one by one, bare channel", threads, asks, begun.elapsed());
        let begun = Instant::now();
        for _ in 0..asks {
            tokio::time::timeout(Duration::from_secs(30), bare_ask(&channel)).await.expect("in time");
        }
        report("the same with a tokio timeout", threads, asks, begun.elapsed());
        let begun = Instant::now();
        for _ in 0..asks {
            actor.add(1).await.expect("lives");
        }
        report("ask one by one, actor (deadline)", threads, asks, begun.elapsed());

        const TASKS: u64 = 64;
        let begun = Instant::now();
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let channel = channel.clone();
                tokio::spawn(async move {
                    for _ in 0..messages / TASKS {
                        bare_ask(&channel).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        report("ask from 64 tasks, bare channel", threads, messages, begun.elapsed());
        let begun = Instant::now();
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let actor = actor.clone();
                tokio::spawn(async move {
                    for _ in 0..messages / TASKS {
                        actor.add(1).await.expect("lives");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        report("ask from 64 tasks, actor (deadline)", threads, messages, begun.elapsed());
    }
}
