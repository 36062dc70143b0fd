//! Operations under way at a time, and how long each took.

use hdrhistogram::Histogram;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Latencies are told apart to three digits, and those over a minute count as a minute.
const MAX_LATENCY_NS: u64 = 60_000_000_000;

/// How long operations took.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, MAX_LATENCY_NS, 3).expect("bounds and digits are in the histogram's range"))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    fn add(&mut self, others: &Self) {
        self.0.add(&others.0).expect("all have the same bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn mean_us(&self) -> f64 {
        self.0.mean() / 1e3
    }

    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// Repeats an operation for a time, so many at once. Each lane has one operation under way.
pub(crate) async fn repeat<F>(
    seconds: Duration,
    in_flight: usize,
    operation: impl Fn() -> F + Clone + Send + 'static,
) -> anyhow::Result<(Latencies, Duration)>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let mut latencies = Latencies::new();
    let begun = Instant::now();
    if seconds.is_zero() {
        return Ok((latencies, seconds));
    }
    let mut lanes = JoinSet::new();
    for _ in 0..in_flight {
        let operation = operation.clone();
        lanes.spawn(async move {
            let mut latencies = Latencies::new();
            let mut before = Instant::now();
            loop {
                operation().await?;
                let now = Instant::now();
                latencies.record(now - before);
                if now - begun >= seconds {
                    return anyhow::Ok(latencies);
                }
                before = now;
            }
        });
    }
    while let Some(lane) = lanes.join_next().await {
        latencies.add(&lane??);
    }
    Ok((latencies, begun.elapsed()))
}
