//! Load: operations under way, so many at a time or so many a second.
//!
//! 1. At a rate, an operation's latency counts from when it was to begin, not from when it did: a system that stalls delays all
//!    that would have come meanwhile, and that shows (no *coordinated omission*, as Gil Tene calls it).
//! 2. At a rate, no more than [`MAX_UNDER_WAY`] operations are under way; those that would be more are counted, not begun.

use crate::latencies::Latencies;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use serde::Deserialize;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

/// The most operations under way at a rate: with so many the system is behind for good.
pub const MAX_UNDER_WAY: usize = 2048;

/// How operations follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// So many at a time: the next begins when one is done.
    InFlight(usize),
    /// So many a second, whatever becomes of them, at equal distances.
    PerSecond(f64),
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// How long each operation took.
    pub latencies: Latencies,
    /// How long all of it took.
    pub elapsed: Duration,
    /// Operations that were not begun.
    pub given_up: u64,
}

/// Repeats an operation for a time; `operation` is given numbers from 0 on. Within a runtime with I/O.
///
/// # Errors
///
/// The first that an operation says.
pub async fn run<F>(
    load: Load,
    time: Duration,
    operation: impl Fn(u64) -> F + Clone + Send + 'static,
) -> anyhow::Result<Measured>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    if time.is_zero() {
        return Ok(Measured { latencies: Latencies::new(), elapsed: time, given_up: 0 });
    }
    match load {
        Load::InFlight(lanes) => in_lanes(lanes.max(1) as u64, time, operation).await,
        Load::PerSecond(rate) => at_rate(rate, time, operation).await,
    }
}

async fn in_lanes<F>(
    lanes: u64,
    time: Duration,
    operation: impl Fn(u64) -> F + Clone + Send + 'static,
) -> anyhow::Result<Measured>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for lane in 0..lanes {
        let operation = operation.clone();
        running.spawn(async move {
            let mut latencies = Latencies::new();
            let mut before = Instant::now();
            for n in (lane..).step_by(usize::try_from(lanes).expect("it was one")) {
                operation(n).await?;
                let now = Instant::now();
                latencies.record(now - before);
                if now - begun >= time {
                    break;
                }
                before = now;
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Latencies::new();
    while let Some(lane) = running.join_next().await {
        latencies.add(&lane??);
    }
    Ok(Measured { latencies, elapsed: begun.elapsed(), given_up: 0 })
}

async fn at_rate<F>(
    rate: f64,
    time: Duration,
    operation: impl Fn(u64) -> F + Clone + Send + 'static,
) -> anyhow::Result<Measured>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    anyhow::ensure!(rate.is_finite() && rate > 0.0, "a rate of {rate} operations a second");
    let clock = Clock::new()?;
    let mut running = JoinSet::new();
    let (mut latencies, mut given_up) = (Latencies::new(), 0);
    let begun = Instant::now();
    let total = (time.as_secs_f64() * rate).ceil().max(1.0) as u64;
    for n in 0..total {
        let due = begun + Duration::from_secs_f64(n as f64 / rate);
        let now = Instant::now();
        if now < due {
            clock.wait(due - now).await?;
        }
        while let Some(done) = running.try_join_next() {
            latencies.record(done??);
        }
        if running.len() >= MAX_UNDER_WAY {
            given_up += 1;
            continue;
        }
        let operation = operation.clone();
        running.spawn(async move {
            operation(n).await?;
            anyhow::Ok(due.elapsed())
        });
    }
    while let Some(done) = running.join_next().await {
        latencies.record(done??);
    }
    Ok(Measured { latencies, elapsed: begun.elapsed(), given_up })
}

/// The kernel's timer: the runtime's own counts in milliseconds.
struct Clock(AsyncFd<OwnedFd>);

impl Clock {
    fn new() -> std::io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: the descriptor is the timer's own, and nobody gets at it in here before it is deregistered.
        #[expect(unsafe_code, reason = "the runtime has no safe way to wait for a descriptor")]
        let registered = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
        Ok(Self(registered?))
    }

    async fn wait(&self, time: Duration) -> std::io::Result<()> {
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A time of 0 would disarm it.
        let time = time.max(Duration::from_nanos(1));
        let value =
            Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: none, it_value: value })?;
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?));
            match read {
                Ok(read) => return read.map(drop),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use tokio::sync::Semaphore;

    #[tokio::test(flavor = "current_thread")]
    async fn invariant_1_a_stall_is_seen_by_all_that_come_meanwhile() {
        // The first operation is held up until the tenth has come, and all wait for the first.
        let gate = Arc::new(Semaphore::new(0));
        let operation = move |n| {
            let gate = Arc::clone(&gate);
            async move {
                if n == 9 {
                    gate.add_permits(1);
                }
                let _open = gate.acquire().await?;
                Ok(())
            }
        };
        let measured = run(Load::PerSecond(100.0), Duration::from_millis(100), operation).await.unwrap();
        assert_eq!((measured.latencies.count(), measured.given_up), (10, 0));
        // Nine distances of 10 ms lie between the first and the tenth.
        assert!(measured.latencies.quantile_us(1.0) >= 89_000.0, "{}", measured.latencies.quantile_us(1.0));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn invariant_2_what_is_too_much_is_given_up() {
        let gate = Arc::new(Semaphore::new(0));
        let opener = Arc::clone(&gate);
        let begun = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&begun);
        let operation = move |_| {
            let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
            async move {
                begun.fetch_add(1, Relaxed);
                let _open = gate.acquire().await?;
                Ok(())
            }
        };
        let total = MAX_UNDER_WAY as f64 + 100.0;
        let running = tokio::spawn(run(Load::PerSecond(total * 100.0), Duration::from_millis(10), operation));
        // All that are to begin have begun before the first can end.
        while count.load(Relaxed) < MAX_UNDER_WAY as u64 {
            tokio::task::yield_now().await;
        }
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        opener.add_permits(1);
        let measured = running.await.unwrap().unwrap();
        assert_eq!(measured.latencies.count() + measured.given_up, total as u64);
        assert!(measured.latencies.count() >= MAX_UNDER_WAY as u64);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn so_many_at_a_time() {
        let under_way = Arc::new(AtomicU64::new(0));
        let most = Arc::new(AtomicU64::new(0));
        let (now, seen) = (Arc::clone(&under_way), Arc::clone(&most));
        let operation = move |_| {
            let (now, seen) = (Arc::clone(&now), Arc::clone(&seen));
            async move {
                seen.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Relaxed);
                Ok(())
            }
        };
        let measured = run(Load::InFlight(3), Duration::from_millis(5), operation).await.unwrap();
        assert!(measured.latencies.count() > 3);
        assert_eq!((most.load(Relaxed), under_way.load(Relaxed)), (3, 0));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_error_ends_it() {
        let failing = |n| async move {
            tokio::task::yield_now().await;
            if n == 5 { Err(anyhow::anyhow!("the fifth")) } else { Ok(()) }
        };
        for load in [Load::InFlight(2), Load::PerSecond(1000.0)] {
            let error = run(load, Duration::from_secs(60), failing).await.unwrap_err();
            assert_eq!(error.to_string(), "the fifth");
        }
    }
}
