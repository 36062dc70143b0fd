//! A seven-tier image service over actors: client → firewall → three load balancers → dispatcher → transcode workers.
//!
//! | file | noun |
//! | --- | --- |
//! | `options.rs` | the command line |
//! | `photos.rs`, `load.rs` | photographs, and what is sent of them |
//! | `codec.rs`, `tiles.rs`, `watermark.rs` | the work on images |
//! | `header.rs`, `service.rs` | what travels between the tiers |
//! | `tiers/` | every tier but the first |
//! | `client.rs` | the first tier |
//! | `compare.rs`, `tiers/grpc.rs` | with the feature `compare`: turns, and the same tiers as gRPC services |
//! | `launch.rs` | the processes: this program, started once for every tier |
//! | `experiment.rs`, `measure.rs`, `usage.rs`, `report.rs` | what is done, measured and told |
#![forbid(unsafe_code)]

mod client;
mod codec;
#[cfg(feature = "compare")]
mod compare;
mod experiment;
mod header;
mod launch;
mod load;
mod measure;
mod options;
mod photos;
mod report;
mod service;
mod tiers;
mod tiles;
mod usage;
mod watermark;

use crate::experiment::Experiment;
use crate::launch::{LaunchError, Service};
use crate::load::Load;
use crate::options::Options;
use crate::report::Report;
use crate::tiers::spec::Wire;
use anyhow::{Context, ensure};
use clap::Parser;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.tier {
        Some(spec) => tiers::process::play(spec).map(|()| ExitCode::SUCCESS),
        None => play_client(&options),
    };
    done.unwrap_or_else(|error| {
        // Nothing is left to do if standard error is gone.
        writeln!(std::io::stderr(), "img-transcode: {error:#}").ok();
        ExitCode::FAILURE
    })
}

fn play_client(options: &Options) -> anyhow::Result<ExitCode> {
    ensure!(
        options.workers >= options.replicas,
        "--workers: there must be one for each of {} dispatchers",
        options.replicas
    );
    ensure!(!options.systems.is_empty(), "--systems: name one at least");
    #[cfg(feature = "compare")]
    if options.turns {
        compare::take_turns(options)?;
        return Ok(ExitCode::SUCCESS);
    }
    let photos = photos::load(&options.photos.clone().unwrap_or_else(shipped_photos))?;
    let loads = experiment::loads(options, &photos)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(run(options, loads))?;
    let report = match report {
        Ended::Reported(report) => report,
        Ended::Interrupted(code) => return Ok(ExitCode::from(code)),
    };
    std::io::stdout().write_all(report.text().as_bytes())?;
    if let Some(file) = &options.json {
        write_json(&report, file)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How a run ended, if nothing went wrong.
enum Ended {
    Reported(Box<Report>),
    /// The exit code says by which signal.
    Interrupted(u8),
}

async fn run(options: &Options, loads: Vec<Load>) -> anyhow::Result<Ended> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    // What a shell expects of a program that a signal ended.
    let mut ended = pin!(async {
        let kind = tokio::select! {
            _ = interrupts.recv() => SignalKind::interrupt(),
            _ = terminations.recv() => SignalKind::terminate(),
        };
        Ended::Interrupted(128 + u8::try_from(kind.as_raw_value()).unwrap_or_default())
    });
    let mut service = tokio::select! {
        service = Service::start(options, Wire::Actors) => service?,
        ended = &mut ended => return Ok(ended),
    };
    let tiers = service.tiers.clone();
    let outcome = tokio::select! {
        report = async { Experiment::new(options, &tiers).await?.run(loads).await } => {
            report.map(|report| Ended::Reported(Box::new(report)))
        }
        died = service.died() => Err(died.into()),
        ended = &mut ended => Ok(ended),
    };
    let outcome = match outcome {
        // If a process has ended, that is why.
        Err(error) if !error.is::<LaunchError>() => match service.obituary().await {
            Some(died) => Err(error.context(died)),
            None => Err(error),
        },
        other => other,
    };
    service.stop().await;
    outcome
}

/// The photographs that come with the program.
fn shipped_photos() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("photos")
}

fn write_json(report: &Report, file: &Path) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(report)?;
    std::fs::write(file, json + "\n").with_context(|| format!("can't write {}", file.display()))
}
