//! How long a round trip takes (RFC 6298), in nanoseconds, and how long to wait before suspecting a loss.

/// What is assumed before the first measurement.
const INITIAL_NS: u64 = 1_000_000;
/// A suspicion is never quicker than this: a peer that was just descheduled has lost nothing.
const MIN_PROBE_NS: u64 = 100_000;
/// Nor slower than this.
const MAX_PROBE_NS: u64 = 1_000_000_000;

/// The estimate of a session.
#[derive(Clone, Debug)]
pub(crate) struct Rtt {
    smoothed: u64,
    variation: u64,
    least: u64,
    measured: bool,
}

impl Default for Rtt {
    fn default() -> Self {
        Self { smoothed: INITIAL_NS, variation: INITIAL_NS / 2, least: u64::MAX, measured: false }
    }
}

impl Rtt {
    /// Takes a measurement in: from sending to acknowledgement, and how long the peer held that back.
    pub(crate) fn measure(&mut self, round_trip: u64, ack_delay: u64) -> u64 {
        self.least = self.least.min(round_trip);
        // A peer that claims to have waited longer than the whole trip is not believed.
        let sample = match round_trip.checked_sub(ack_delay) {
            Some(net) if net >= self.least.min(round_trip) / 2 => net,
            _ => round_trip,
        };
        self.least = self.least.min(sample).max(1);
        if self.measured {
            self.variation = (3 * self.variation + self.smoothed.abs_diff(sample)) / 4;
            self.smoothed = (7 * self.smoothed + sample) / 8;
        } else {
            (self.smoothed, self.variation, self.measured) = (sample, sample / 2, true);
        }
        sample
    }

    /// The smoothed round trip.
    pub(crate) fn smoothed(&self) -> u64 {
        self.smoothed
    }

    /// The shortest round trip ever seen; the smoothed one before there was any.
    pub(crate) fn least(&self) -> u64 {
        if self.measured { self.least } else { self.smoothed }
    }

    /// How long to wait for an acknowledgement after `doubts` times in vain.
    pub(crate) fn probe_after(&self, doubts: u32, max_ack_delay: u64) -> u64 {
        let once = (self.smoothed + 4 * self.variation + max_ack_delay).max(MIN_PROBE_NS);
        once.saturating_mul(1 << doubts.min(20)).min(MAX_PROBE_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settles_on_what_it_sees() {
        let mut rtt = Rtt::default();
        for _ in 0..100 {
            rtt.measure(50_000, 10_000);
        }
        assert!((39_000..=41_000).contains(&rtt.smoothed()), "{rtt:?}");
        assert_eq!(rtt.least(), 40_000);
        assert_eq!(rtt.probe_after(1, 0), 2 * rtt.probe_after(0, 0));
        assert_eq!(rtt.probe_after(u32::MAX, 0), MAX_PROBE_NS);
    }

    #[test]
    fn an_ack_delay_longer_than_the_trip_is_not_believed() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.measure(50_000, 60_000), 50_000);
    }
}
