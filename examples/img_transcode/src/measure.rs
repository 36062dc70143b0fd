//! What is measured, and what is made of it.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::Duration;

/// Latencies are told apart to three digits, and those over a minute count as a minute.
const MAX_LATENCY_NS: u64 = 60_000_000_000;

/// How long requests took.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, MAX_LATENCY_NS, 3).expect("bounds and digits are in the histogram's range"))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn add(&mut self, others: &Self) {
        self.0.add(&others.0).expect("all have the same bounds");
    }
}

/// A round: many requests of one kind.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Round {
    /// How many were answered.
    pub(crate) requests: u64,
    /// How long all of them took, in seconds.
    pub(crate) seconds: f64,
    /// How many were answered in a second.
    pub(crate) requests_per_second: f64,
    /// The mean latency in microseconds.
    pub(crate) mean_us: f64,
    /// What half of them were within, in microseconds.
    pub(crate) p50_us: f64,
    /// What 99 of 100 were within, in microseconds.
    pub(crate) p99_us: f64,
}

impl Round {
    pub(crate) fn new(latencies: &Latencies, elapsed: Duration) -> Self {
        let histogram = &latencies.0;
        let us = |ns: f64| ns / 1e3;
        Self {
            requests: histogram.len(),
            seconds: elapsed.as_secs_f64(),
            requests_per_second: histogram.len() as f64 / elapsed.as_secs_f64(),
            mean_us: us(histogram.mean()),
            p50_us: us(histogram.value_at_quantile(0.5) as f64),
            p99_us: us(histogram.value_at_quantile(0.99) as f64),
        }
    }

    /// Each figure's median over several rounds.
    pub(crate) fn median(rounds: &[Self]) -> Option<Self> {
        let first = rounds.first()?;
        let of = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure).collect()).expect("there is one");
        Some(Self {
            requests: first.requests,
            seconds: of(|round| round.seconds),
            requests_per_second: of(|round| round.requests_per_second),
            mean_us: of(|round| round.mean_us),
            p50_us: of(|round| round.p50_us),
            p99_us: of(|round| round.p99_us),
        })
    }
}

/// The middle one, or the mean of the middle two.
pub(crate) fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(figures[middle]),
        _ => Some(f64::midpoint(figures[middle - 1], figures[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn a_round_of_known_latencies() {
        let mut latencies = Latencies::new();
        for us in 1..=100 {
            latencies.record(Duration::from_micros(us));
        }
        latencies.record(Duration::from_secs(600));
        let round = Round::new(&latencies, Duration::from_secs(2));
        assert_eq!((round.requests, round.requests_per_second), (101, 50.5));
        assert!((round.p50_us - 51.0).abs() < 0.1 && (round.p99_us - 100.0).abs() < 0.2, "{round:?}");
        let slower = Round { p50_us: 99.0, ..round };
        assert_eq!(Round::median(&[slower, round, slower]).unwrap().p50_us, 99.0);
    }
}
