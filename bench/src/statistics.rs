//! From measurements to a figure that can be believed: medians, spreads, and contestants that take turns.

use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// How long and how often things are measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// How often each contestant has its turn.
    pub(crate) rounds: usize,
    /// How long one turn takes, about.
    pub(crate) turn: Duration,
}

/// Tries to find how many operations fill a turn, at most.
const CALIBRATIONS: usize = 40;
/// How much more or fewer operations a try may be than the one before.
const MAX_STEP: f64 = 8.0;

/// What came out of all the turns of one contestant, each a mean over many operations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// The middle one.
    pub(crate) median: f64,
    /// A quarter of them are below.
    pub(crate) low: f64,
    /// A quarter of them are above.
    pub(crate) high: f64,
}

impl Summary {
    /// Of some samples.
    ///
    /// # Panics
    ///
    /// Without any.
    pub(crate) fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { median: quantile(&samples, 0.5), low: quantile(&samples, 0.25), high: quantile(&samples, 0.75) }
    }

    /// Half the distance between the quartiles, over the median.
    pub(crate) fn spread(&self) -> f64 {
        (self.high - self.low) / 2.0 / self.median
    }

    /// Each figure by `convert`, which may turn the order round.
    #[must_use]
    pub(crate) fn map(self, convert: impl Fn(f64) -> f64) -> Self {
        let (a, b) = (convert(self.low), convert(self.high));
        Self { median: convert(self.median), low: a.min(b), high: a.max(b) }
    }
}

/// Of sorted samples, between two of them in proportion.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let place = at * (sorted.len() - 1) as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * part
}

/// Someone who does the same thing in another way.
pub(crate) struct Contestant<'a> {
    /// Does it so many times, and says how long that took: what comes before and after is its own affair.
    turn: Box<dyn FnMut(u64) -> Duration + 'a>,
    /// Operations in a turn.
    operations: u64,
}

impl<'a> Contestant<'a> {
    /// Whose turns of `n` operations are timed by themselves.
    pub(crate) fn timed(turn: impl FnMut(u64) -> Duration + 'a) -> Self {
        Self { turn: Box::new(turn), operations: 1 }
    }

    /// Who repeats one operation.
    pub(crate) fn repeated(mut operation: impl FnMut() + 'a) -> Self {
        Self::timed(move |n| {
            let start = Instant::now();
            for _ in 0..n {
                operation();
            }
            start.elapsed()
        })
    }

    /// Finds how many operations fill a turn; warms up on the way. One slow turn, such as the first, decides nothing.
    fn calibrate(&mut self, turn: Duration) {
        for _ in 0..CALIBRATIONS {
            let took = (self.turn)(self.operations);
            if (turn / 2..turn * 2).contains(&took) || self.operations == 1 && took >= turn * 2 && self.slow_twice(turn)
            {
                return;
            }
            let factor = (turn.as_secs_f64() / took.as_secs_f64().max(1e-9)).clamp(1.0 / MAX_STEP, MAX_STEP);
            self.operations = ((self.operations as f64 * factor) as u64).clamp(1, 1 << 30);
        }
    }

    /// Whether one operation is more than a turn, and not by accident.
    fn slow_twice(&mut self, turn: Duration) -> bool {
        (self.turn)(1) >= turn * 2
    }
}

/// Lets contestants take turns, A B then B A then A B, so that whatever drifts on the machine drifts for all. Gives
/// nanoseconds per operation of each.
pub(crate) fn compare<const N: usize>(effort: Effort, mut contestants: [Contestant<'_>; N]) -> [Summary; N] {
    for contestant in &mut contestants {
        contestant.calibrate(effort.turn);
    }
    let mut samples = [const { Vec::new() }; N];
    for round in 0..effort.rounds {
        for step in 0..N {
            let who = if round.is_multiple_of(2) { step } else { N - 1 - step };
            let Contestant { turn, operations } = &mut contestants[who];
            samples[who].push(turn(*operations).as_secs_f64() * 1e9 / *operations as f64);
        }
    }
    samples.map(Summary::of)
}

/// One figure per turn that is not a mean of many operations, such as the first touch of something.
pub(crate) fn singly(times: usize, mut once: impl FnMut() -> Duration) -> Summary {
    Summary::of((0..times).map(|_| once().as_secs_f64() * 1e9).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between() {
        let summary = Summary::of(vec![4.0, 1.0, 3.0, 2.0, 5.0]);
        assert_eq!(summary, Summary { median: 3.0, low: 2.0, high: 4.0 });
        assert!((summary.spread() - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(Summary::of(vec![7.0]), Summary { median: 7.0, low: 7.0, high: 7.0 });
    }

    #[test]
    fn turning_time_into_speed_keeps_order() {
        let speed = Summary { median: 2.0, low: 1.0, high: 4.0 }.map(|ns| 4.0 / ns);
        assert_eq!(speed, Summary { median: 2.0, low: 1.0, high: 4.0 });
    }

    #[test]
    fn one_slow_turn_decides_nothing() {
        let mut turns = 0;
        let mut last = 0;
        let mut contestant = Contestant::timed(|n| {
            (turns, last) = (turns + 1, n);
            Duration::from_micros(if turns == 1 { 1_000_000 } else { n })
        });
        contestant.calibrate(Duration::from_millis(10));
        drop(contestant);
        assert!((5_000..20_000).contains(&last), "{last} operations");
    }

    #[test]
    fn contestants_take_turns() {
        let order = std::cell::RefCell::new(Vec::new());
        let effort = Effort { rounds: 3, turn: Duration::from_micros(1) };
        let note = |who| {
            let order = &order;
            Contestant::timed(move |n| {
                order.borrow_mut().push(who);
                Duration::from_micros(n * if who == 'a' { 1 } else { 3 })
            })
        };
        let [a, b] = compare(effort, [note('a'), note('b')]);
        let order = order.borrow();
        assert_eq!(order[order.len() - 6..], ['a', 'b', 'b', 'a', 'a', 'b']);
        assert!((a.median - 1000.0).abs() < 1.0 && (b.median - 3000.0).abs() < 1.0);
    }
}
