//! How long operations took.

use hdrhistogram::Histogram;
use std::time::Duration;

/// Latencies are told apart to three digits, and those over a minute count as a minute.
const MAX_LATENCY_NS: u64 = 60_000_000_000;

/// Latencies, to three digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, MAX_LATENCY_NS, 3).expect("bounds and digits are in the histogram's range"))
    }

    /// One more.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Those of others.
    pub fn add(&mut self, others: &Self) {
        self.0.add(&others.0).expect("all have the same bounds");
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Their mean in microseconds; 0 of none.
    pub fn mean_us(&self) -> f64 {
        self.0.mean() / 1e3
    }

    /// What this share of them is within, in microseconds; 0 of none.
    pub fn quantile_us(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e3
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_known_latencies() {
        let mut latencies = Latencies::new();
        (1..=100).for_each(|us| latencies.record(Duration::from_micros(us)));
        let mut more = Latencies::new();
        more.record(Duration::from_secs(600));
        latencies.add(&more);
        assert_eq!(latencies.count(), 101);
        assert!((latencies.quantile_us(0.5) - 51.0).abs() < 0.1);
        assert!((latencies.quantile_us(1.0) - 60e6).abs() < 60e3);
    }
}
