//! Time for the datagram protocol: nanoseconds that cost few.
//!
//! A message takes about as long as asking the kernel's clock four times, so in between the processor's own counter says how
//! much later it is. It is set by the kernel's clock every [`SYNC_NS`], and used at all only where Linux itself trusts it.
//!
//! 1. Time never runs backwards.

use std::time::Instant;

/// For so long the processor's counter is taken at its word.
const SYNC_NS: u64 = 1_000_000;
/// Until so much time has gone by its rate is not known well enough.
const LEARNING_NS: u64 = 1_000_000;

/// A clock that one thread at a time reads.
pub(super) struct Clock {
    start: Instant,
    counter: Option<Counter>,
    last: u64,
}

/// What the counter of the processor means.
struct Counter {
    first: u64,
    /// When it was last compared with the kernel's clock: what it said, and what time it was.
    set_at: u64,
    set_ns: u64,
    /// Nanoseconds a tick, times 2^32; 0 until it is known.
    rate: u64,
    /// Ticks for which it is taken at its word.
    valid: u64,
}

impl Clock {
    /// A clock that begins at 0.
    pub(super) fn new() -> Self {
        let first = is_steady().then(ticks).flatten();
        let counter = first.map(|first| Counter { first, set_at: first, set_ns: 0, rate: 0, valid: 0 });
        Self { start: Instant::now(), counter, last: 0 }
    }

    /// Nanoseconds since the clock was made.
    #[inline]
    pub(super) fn now(&mut self) -> u64 {
        if let Some(counter) = &self.counter
            && let Some(ticks) = ticks()
        {
            let passed = ticks.wrapping_sub(counter.set_at);
            if passed < counter.valid {
                self.last = self.last.max(counter.set_ns + ((passed * counter.rate) >> 32));
                return self.last;
            }
        }
        self.ask()
    }

    /// The kernel's clock, by which the counter is set.
    #[cold]
    fn ask(&mut self) -> u64 {
        let now = self.start.elapsed().as_nanos() as u64;
        if let Some(counter) = &mut self.counter
            && let Some(ticks) = ticks()
        {
            let passed = ticks.wrapping_sub(counter.first);
            if now >= LEARNING_NS && passed > 0 {
                counter.rate = ((u128::from(now) << 32) / u128::from(passed)) as u64;
                counter.valid = (u128::from(SYNC_NS) * u128::from(passed) / u128::from(now)) as u64;
                (counter.set_at, counter.set_ns) = (ticks, now);
            }
        }
        self.last = self.last.max(now);
        self.last
    }
}

/// The counter of the processor, where there is one that user code reads.
#[inline]
fn ticks() -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 processor has this counter, and Linux lets user code read it unless told not to for a process.
        Some(unsafe { core::arch::x86_64::_rdtsc() })
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// Whether the kernel keeps its own time by the counter: then it runs evenly, and alike on all processors.
fn is_steady() -> bool {
    let source = std::fs::read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    cfg!(target_arch = "x86_64") && source.is_ok_and(|name| name.trim_ascii() == b"tsc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invariant_1_time_never_runs_backwards() {
        let mut clock = Clock::new();
        let begun = Instant::now();
        let mut last = 0;
        while begun.elapsed().as_millis() < 20 {
            let now = clock.now();
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
        // However long this thread was not run: the clock is read between two readings of the kernel's.
        let before = clock.start.elapsed().as_nanos() as u64;
        let now = clock.now();
        let after = clock.start.elapsed().as_nanos() as u64;
        assert!(now + SYNC_NS / 10 >= before && now <= after + SYNC_NS / 10, "{before} {now} {after}");
    }
}
