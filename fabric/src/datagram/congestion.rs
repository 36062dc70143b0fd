//! How many packets may be under way: delay-based control after Swift (Kumar et al., SIGCOMM 2020).
//!
//! The window grows while round trips stay near the shortest one seen and shrinks in proportion to how far they are above,
//! at most once a round trip. While the fabric is idle the window stands at its limit and a measurement costs two
//! comparisons, the common case that eRPC (Kalia et al., NSDI 2019) bypasses. Over a ring that two ends have for themselves delay
//! is no sign of congestion: there the window stands at its limit unless packets are lost.

/// Packets under way in a session's first round trip.
const INITIAL_PACKETS: f32 = 64.0;
/// Never fewer.
const MIN_PACKETS: f32 = 2.0;
/// Queueing that is put up with in queues that others share.
const TOLERATED_QUEUE_NS: u64 = 100_000;
/// Packets added each round trip once the window has been cut.
const ADDITIVE_PACKETS: f32 = 4.0;
/// How sharply the window answers to delay.
const BETA: f32 = 0.8;
/// The most that is cut at once.
const MAX_CUT: f32 = 0.5;

/// The window of a session.
#[derive(Clone, Debug)]
pub(crate) struct Congestion {
    packets: f32,
    /// The same in whole packets.
    whole_packets: u32,
    limit: f32,
    /// Queueing that is put up with, over the shortest round trip.
    tolerated_ns: u64,
    slow_start: bool,
    cut_at: u64,
}

impl Congestion {
    /// A window of at most `limit` packets, over a fabric that is [contended](super::device::Device::is_contended) or not.
    pub(crate) fn new(limit: u32, contended: bool) -> Self {
        let limit = (limit as f32).max(MIN_PACKETS);
        let packets = if contended { INITIAL_PACKETS.min(limit) } else { limit };
        let tolerated_ns = if contended { TOLERATED_QUEUE_NS } else { u64::MAX };
        Self { packets, whole_packets: packets as u32, limit, tolerated_ns, slow_start: true, cut_at: 0 }
    }

    /// How many packets may be under way.
    #[inline]
    pub(crate) fn packets(&self) -> u32 {
        self.whole_packets
    }

    fn set(&mut self, packets: f32) {
        (self.packets, self.whole_packets) = (packets, packets as u32);
    }

    /// `count` packets were acknowledged, the newest after `round_trip`.
    pub(crate) fn acknowledged(&mut self, now: u64, count: u32, round_trip: u64, least: u64) {
        let target = (least + least / 2).saturating_add(self.tolerated_ns);
        if round_trip <= target {
            if self.packets < self.limit {
                let gain = if self.slow_start { count as f32 } else { ADDITIVE_PACKETS * count as f32 / self.packets };
                self.set((self.packets + gain).min(self.limit));
            }
            return;
        }
        let over = (round_trip - target) as f32 / round_trip as f32;
        self.cut(now, (BETA * over).min(MAX_CUT), round_trip);
    }

    /// Packets were lost.
    pub(crate) fn lost(&mut self, now: u64, round_trip: u64) {
        self.cut(now, MAX_CUT, round_trip);
    }

    /// Nothing came back for so long that all that was under way is given up.
    pub(crate) fn collapsed(&mut self, now: u64) {
        self.set(MIN_PACKETS);
        self.cut_at = now;
        self.slow_start = true;
    }

    fn cut(&mut self, now: u64, part: f32, round_trip: u64) {
        self.slow_start = false;
        if now.saturating_sub(self.cut_at) >= round_trip {
            self.set((self.packets * (1.0 - part)).max(MIN_PACKETS));
            self.cut_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_on_an_idle_fabric_and_shrinks_once_a_round_trip() {
        let mut window = Congestion::new(256, true);
        for _ in 0..8 {
            window.acknowledged(1_000_000, 64, 20_000, 20_000);
        }
        assert_eq!(window.packets(), 256);
        for _ in 0..10 {
            window.lost(2_000_000, 20_000);
        }
        assert_eq!(window.packets(), 128, "ten losses within a round trip are one event");
        window.acknowledged(3_000_000, 64, 1_000_000, 20_000);
        let cut = window.packets();
        assert!((64..128).contains(&cut));
        window.acknowledged(5_000_000, cut, 20_000, 20_000);
        assert!(window.packets() > cut && window.packets() < cut + 8, "grows slowly after a cut");
        window.collapsed(6_000_000);
        assert_eq!(window.packets(), 2);
    }

    #[test]
    fn a_ring_of_ones_own_is_filled_whatever_the_delay() {
        let mut window = Congestion::new(256, false);
        window.acknowledged(1_000_000, 64, 50_000_000, 1_000);
        assert_eq!(window.packets(), 256);
        window.lost(60_000_000, 20_000);
        assert_eq!(window.packets(), 128, "what is lost there is lost for want of buffers");
    }
}
