//! What the RDMA device does without us: `perftest`'s programs (Debian: perftest), two processes that poll.

use crate::row::Row;
use anyhow::{Context, Result, ensure};
use dmrpc_rdma_sys::{Device, Port, Selection};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Messages there and back, or operations, of one run.
const TIMES: u32 = 1000;
/// As few as suffice: a software device moves some 50 MB/s.
const BULK_TIMES: u32 = 200;
/// Operations under way at a time where bandwidth is measured.
const DEPTH: u32 = 32;
const LIMIT: Duration = Duration::from_secs(60);

/// Rows as ours; none if the programs are not there.
pub(crate) fn run() -> Result<Vec<Row>> {
    if Command::new("ib_read_lat").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        eprintln!("rdma: bare: skipped: there is no ib_read_lat (perftest)");
        return Ok(Vec::new());
    }
    eprintln!("rdma: bare");
    let (device, port) = Device::open(&Selection::default())?;
    let mut rows = Vec::new();
    for (program, what, sizes, ways) in [
        // It says how long one way takes.
        ("ib_send_lat", "bare message", &[64][..], 2.0),
        ("ib_read_lat", "bare read", &[64, 4096], 1.0),
    ] {
        for &size in sizes {
            let columns = pair(program, &device, &port, size, TIMES, &[])?;
            let [_, _, _, _, typical, mean, _, p99, ..] = columns[..] else { anyhow::bail!("{program}: {columns:?}") };
            let per_second = 1e6 / (ways * mean);
            rows.push(Row {
                fabric: "rdma".to_owned(),
                what: what.to_owned(),
                size,
                depth: 1,
                p50_us: ways * typical,
                p99_us: ways * p99,
                per_second,
                bytes_per_second: per_second * size as f64,
            });
        }
    }
    for (program, what) in [("ib_read_bw", "bare read"), ("ib_write_bw", "bare write")] {
        for size in [4096, 64 << 10, 1 << 20] {
            let times = if size > 64 << 10 { 2 * DEPTH } else { BULK_TIMES };
            let columns = pair(program, &device, &port, size, times, &["-t", &DEPTH.to_string()])?;
            let [_, _, _, average, ..] = columns[..] else { anyhow::bail!("{program}: {columns:?}") };
            let bytes_per_second = average * f64::from(1 << 20);
            rows.push(Row {
                fabric: "rdma".to_owned(),
                what: what.to_owned(),
                size,
                depth: DEPTH,
                p50_us: f64::NAN,
                p99_us: f64::NAN,
                per_second: bytes_per_second / size as f64,
                bytes_per_second,
            });
        }
    }
    Ok(rows)
}

/// What a program said that has ended by then, or is killed. It says less than a pipe holds.
fn ended(mut program: Child, deadline: Instant) -> Result<Output> {
    while matches!(program.try_wait(), Ok(None)) {
        if Instant::now() > deadline {
            program.kill()?;
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(program.wait_with_output()?)
}

/// Runs both ends of a program; the figures of the client's one line.
fn pair(program: &str, device: &Device, port: &Port, size: u64, times: u32, more: &[&str]) -> Result<Vec<f64>> {
    let started = || format!("starting {program}");
    let command = || {
        let mut command = Command::new(program);
        command.args(["-F", "-d", device.name(), "-x", &port.gid_index.to_string()]);
        command.args(["-s", &size.to_string(), "-n", &times.to_string()]).args(more);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    };
    let mut server = crate::spawn_pinned(command().stdout(Stdio::null()), 0).with_context(started)?;
    let host = crate::fabrics::rdma_address()?.to_string();
    let deadline = Instant::now() + LIMIT;
    // Until the server listens a client can't connect.
    let outcome = loop {
        let client = crate::spawn_pinned(command().arg(&host).stdout(Stdio::piped()), 1).with_context(started)?;
        let output = ended(client, deadline)?;
        if output.status.success() {
            break Ok(output);
        }
        if Instant::now() > deadline || !matches!(server.try_wait(), Ok(None)) {
            break Err(output.status);
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    // It ends with its client.
    ended(server, if outcome.is_ok() { deadline } else { Instant::now() })?;
    let output = match outcome {
        Ok(output) => output,
        Err(status) => anyhow::bail!("{program} failed: {status}"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let figures = |line: &str| line.split_whitespace().map(|word| word.parse().ok()).collect::<Option<Vec<f64>>>();
    let found = text.lines().rev().filter_map(figures).find(|figures| figures.len() > 3);
    let found = found.with_context(|| format!("{program} said nothing: {text}"))?;
    ensure!(found[0] as u64 == size, "{program} took another size: {found:?}");
    Ok(found)
}
