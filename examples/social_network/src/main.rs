//! A social network of twelve services over actors, after DeathStarBench's (Gan et al., ASPLOS 2019): users write posts with pictures,
//! and read timelines.
//!
//! | file | noun |
//! | --- | --- |
//! | `call.rs` | what the services say to each other |
//! | `services/` | what each of them does |
//! | `host.rs`, `net.rs` | the actor that a service is to others, and how it reaches them |
//! | `launch.rs` | the processes: this program, started once for every service |
//! | `client.rs`, `graph.rs` | users, and who follows whom |
//! | `grpc.rs`, `compare.rs` | with the feature `compare`: the same over gRPC, and turns |
#![forbid(unsafe_code)]

mod call;
mod client;
#[cfg(feature = "compare")]
mod compare;
mod graph;
#[cfg(feature = "compare")]
mod grpc;
mod host;
mod launch;
mod net;
mod services;

use crate::client::{MIX, Mix, PAGE_POSTS, Passing, Users};
use crate::graph::Graph;
use crate::launch::{Network, Outside, Transport};
use crate::net::Net;
use anyhow::ensure;
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use dmrpc_objstore::Store;
use dmrpc_turns::{Load, Measured};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A social network of twelve services, by value and by reference.
#[derive(Debug, Parser)]
#[command(name = "social-network", version)]
struct Options {
    /// Bytes of the picture of each post
    #[arg(long, default_value_t = 128 << 10, value_parser = clap::value_parser!(u32).range(1..=16 << 20))]
    media_bytes: u32,

    /// Requests under way at a time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    concurrency: u32,

    /// Requests a second, whatever becomes of them, instead of so many at a time
    #[arg(long)]
    rate: Option<f64>,

    /// Rounds by value and by reference, in turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// How long a round takes, in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,

    /// Of a hundred requests: posts, readings of user timelines; the rest are of home timelines
    #[arg(long, value_delimiter = ',', default_values_t = [MIX.compose, MIX.read_user])]
    mix: Vec<u64>,

    /// Friendships, two numbers a line, instead of those that are made
    #[arg(long, value_name = "FILE")]
    graph: Option<PathBuf>,

    /// A Redis server for the services' data, such as redis://127.0.0.1/, instead of databases of their own; needs the feature redis
    #[arg(long, value_name = "URL")]
    database: Option<String>,

    /// Take turns in a comparison: orders on standard input, answers on standard output.
    #[cfg(feature = "compare")]
    #[arg(long, hide = true)]
    turns: bool,

    /// Play one part: how this program starts itself.
    #[arg(long, hide = true, value_name = "JSON")]
    part: Option<String>,
}

/// The memory node's pool: room for the media of all posts that are kept, and as much again under way.
const POOL_BYTES: u64 = 4 << 30;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if let Some(part) = &options.part {
        return host::play(part);
    }
    let outside = Outside { graph: options.graph.clone(), database: options.database.clone() };
    #[cfg(feature = "compare")]
    if options.turns {
        return compare::take_turns(POOL_BYTES, &outside);
    }
    show(&options, &outside)
}

/// The services that users and tests talk to, and the store.
async fn main_net(network: &Network) -> anyhow::Result<(Net, Store)> {
    let (store, system) = host::join(network.store.as_deref().unwrap_or_default(), "users", None).await?;
    Ok((Net::Actors(host::find_all(&system, &network.services).await?), store))
}

fn show(options: &Options, outside: &Outside) -> anyhow::Result<()> {
    let [compose, read_user] = options.mix[..] else { anyhow::bail!("--mix: two numbers, such as 10,30") };
    ensure!(compose.saturating_add(read_user) <= 100, "--mix: more than a hundred of a hundred");
    let mix = Mix { compose, read_user };
    let graph = Arc::new(Graph::open(outside.graph.as_deref())?);
    let network = Network::start(Transport::Actors, POOL_BYTES, outside)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let load = match options.rate {
        Some(rate) => Load::PerSecond(rate),
        None => Load::InFlight(options.concurrency as usize),
    };
    let rounds = runtime.block_on(async {
        let (net, store) = main_net(&network).await?;
        let services = net.clone();
        let net = Arc::new(net);
        let mut rounds = Vec::new();
        for _ in 0..options.rounds {
            for passing in [Passing::Value, Passing::Reference] {
                let users = Users::new(
                    Arc::clone(&net),
                    Some(store.clone()),
                    Arc::clone(&graph),
                    passing,
                    mix,
                    options.media_bytes as usize,
                );
                users.begin(&services).await?;
                users.check().await?;
                let request = move |n| {
                    let users = users.clone();
                    async move { users.request(n).await }
                };
                let time = Duration::try_from_secs_f64(options.seconds)?;
                rounds.push((passing, dmrpc_turns::run(load, time, request).await?));
            }
        }
        anyhow::Ok(rounds)
    })?;
    let mut output = std::io::stdout();
    writeln!(
        output,
        "{} users, {} B a picture, {PAGE_POSTS} posts a page; of 100 requests {} are posts, {} read a user timeline, the rest home timelines\n\
         {load:?}, medians of {} rounds by value and by reference in turns\n\n{}",
        graph.users().end(),
        options.media_bytes,
        mix.compose,
        mix.read_user,
        options.rounds,
        table(&rounds)
    )?;
    writeln!(
        output,
        "\nChecked: every picture that was read, in every round; posts where they have to be; what must be refused"
    )?;
    Ok(())
}

fn table(rounds: &[(Passing, Measured)]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["pictures travel", "requests/s", "mean", "p50", "p99"]);
    for (passing, name) in [(Passing::Value, "by value"), (Passing::Reference, "by reference")] {
        let of: Vec<&Measured> = rounds.iter().filter(|(by, _)| *by == passing).map(|(_, measured)| measured).collect();
        let median = |figure: fn(&Measured) -> f64| {
            let mut figures: Vec<f64> = of.iter().map(|measured| figure(measured)).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let ms = |us: f64| format!("{:.2} ms", us / 1e3);
        table.add_row([
            name.to_owned(),
            format!("{:.0}", median(|of| of.latencies.count() as f64 / of.elapsed.as_secs_f64())),
            ms(median(|of| of.latencies.mean_us())),
            ms(median(|of| of.latencies.quantile_us(0.5))),
            ms(median(|of| of.latencies.quantile_us(0.99))),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
