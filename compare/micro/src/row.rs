//! One figure of the table.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What was measured, in the units of its names. The JSON output is a list of these.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The fabric, as on the command line.
    pub(crate) fabric: String,
    /// What was done: `message`, `read` or `write`; with `bare` before it, what the device does without us; `iperf3`, a stream.
    pub(crate) what: String,
    /// Bytes of payload.
    pub(crate) size: u64,
    /// How many were under way at a time.
    pub(crate) depth: u32,
    /// Of ten, five took no longer. Not a number where another program measured, which does not say.
    pub(crate) p50_us: f64,
    /// Of a hundred, ninety-nine took no longer; as above.
    pub(crate) p99_us: f64,
    /// How many a second.
    pub(crate) per_second: f64,
    /// Payload a second.
    pub(crate) bytes_per_second: f64,
}

/// Takes the time of many operations.
pub(crate) struct Sample {
    times: Histogram<u64>,
}

impl Sample {
    pub(crate) fn new() -> Self {
        Self { times: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds make sense") }
    }

    pub(crate) fn add(&mut self, took: Duration) {
        self.times.saturating_record(took.as_nanos() as u64);
    }

    pub(crate) fn count(&self) -> u64 {
        self.times.len()
    }

    /// The figures of operations of `size` bytes that took `all` together.
    pub(crate) fn row(&self, fabric: &str, what: &str, size: u64, depth: u32, all: Duration) -> Row {
        let per_second = self.count() as f64 / all.as_secs_f64().max(1e-9);
        Row {
            fabric: fabric.to_owned(),
            what: what.to_owned(),
            size,
            depth,
            p50_us: self.times.value_at_quantile(0.5) as f64 / 1e3,
            p99_us: self.times.value_at_quantile(0.99) as f64 / 1e3,
            per_second,
            bytes_per_second: per_second * size as f64,
        }
    }
}
