//! Turns: one line of JSON for each, asked on standard input and answered on standard output, until the input ends.
//!
//! 1. A turn begins with a check whose time does not count; its answer goes to whoever compares systems.
//! 2. A turn of 0 seconds is the check alone.

use crate::load::Measured;
use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, Write as _};
use std::time::Duration;

/// What is asked.
#[derive(Clone, Debug, Deserialize)]
pub struct Order<C> {
    /// Which of the ways that the program has to do it.
    pub way: String,
    /// What is to be done.
    pub case: C,
    /// For how long.
    #[serde(rename = "seconds", deserialize_with = "duration")]
    pub time: Duration,
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Turn {
    /// How much was done.
    pub operations: u64,
    /// In how long.
    pub seconds: f64,
    /// The mean latency in microseconds.
    pub mean_us: f64,
    /// What half were within.
    pub p50_us: f64,
    /// What nine of ten were within.
    pub p90_us: f64,
    /// What 99 of 100 were within.
    pub p99_us: f64,
    /// What 999 of 1,000 were within.
    pub p999_us: f64,
    /// Operations that were begun and given up, because more than [`MAX_UNDER_WAY`](crate::MAX_UNDER_WAY) were under way.
    pub given_up: u64,
    /// What was computed, the same for every system.
    pub answer: String,
}

impl Turn {
    /// Of operations that were timed one by one.
    pub fn new(measured: &Measured, answer: String) -> Self {
        let Measured { latencies, elapsed, given_up } = measured;
        Self {
            operations: latencies.count(),
            seconds: elapsed.as_secs_f64(),
            mean_us: latencies.mean_us(),
            p50_us: latencies.quantile_us(0.5),
            p90_us: latencies.quantile_us(0.9),
            p99_us: latencies.quantile_us(0.99),
            p999_us: latencies.quantile_us(0.999),
            given_up: *given_up,
            answer,
        }
    }

    /// Of operations too short to be timed one by one.
    pub fn of_many(operations: u64, elapsed: Duration, answer: String) -> Self {
        let mean_us = elapsed.as_secs_f64() * 1e6 / operations.max(1) as f64;
        let seconds = elapsed.as_secs_f64();
        let all = mean_us;
        Self { operations, seconds, mean_us, p50_us: all, p90_us: all, p99_us: all, p999_us: all, given_up: 0, answer }
    }
}

/// Takes turns until standard input ends.
///
/// # Errors
///
/// An order that can't be read, and what `turn` says.
pub fn take<C: DeserializeOwned>(mut turn: impl FnMut(Order<C>) -> anyhow::Result<Turn>) -> anyhow::Result<()> {
    for line in std::io::stdin().lock().lines() {
        let turn = turn(serde_json::from_str(&line?).context("an order that can't be read")?)?;
        let mut output = std::io::stdout();
        writeln!(output, "{}", serde_json::to_string(&turn)?)?;
        output.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read() {
        let order: Order<u32> = serde_json::from_str(r#"{"way": "ref", "case": 7, "seconds": 0.25}"#).unwrap();
        assert_eq!((order.way.as_str(), order.case, order.time), ("ref", 7, Duration::from_millis(250)));
        assert!(serde_json::from_str::<Order<u32>>(r#"{"way": "ref", "case": 7, "seconds": -1}"#).is_err());
    }
}
