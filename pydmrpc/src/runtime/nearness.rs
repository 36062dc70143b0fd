//! Which processor a thread sleeps on.
//!
//! Where two processes take turns and nothing else runs, waking the other on a processor that idles costs ten times what it costs
//! on one's own (`compare/`: 40 µs and 4). So both sleep bound to one, and run bound to none: whatever user code starts (threads,
//! processes) inherits nothing of it.

use rustix::process::Pid;
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// The processor that this thread runs on.
pub(crate) fn current_cpu() -> u32 {
    sched_getcpu() as u32
}

/// Whether taking turns on one processor is the faster way here and now: found by trying. On an idle virtual machine it is, by a
/// factor; on a busy one, where others want that very processor, it is not.
#[derive(Debug, Default)]
pub(crate) struct Habit {
    turn: u32,
    /// How long a turn takes, in microseconds, apart and together.
    means: [Option<f32>; 2],
}

/// Turns until the other way is tried again, and how many turns that takes, of which the first few don't count.
const PERIOD: u32 = 512;
const TRIAL: u32 = 16;
const UNCOUNTED: u32 = 4;

impl Habit {
    /// Whether to be together for the next turn.
    pub(crate) fn is_together(&mut self) -> bool {
        self.turn = self.turn.wrapping_add(1);
        let faster = matches!(self.means, [Some(apart), Some(together)] if together < apart);
        // The other way for a while; at first both, one after the other.
        if self.turn % PERIOD < TRIAL { !faster } else { faster }
    }

    /// A turn took so long.
    pub(crate) fn took(&mut self, together: bool, micros: f32) {
        let phase = self.turn % PERIOD;
        if phase < UNCOUNTED || (TRIAL..TRIAL + UNCOUNTED).contains(&phase) {
            return;
        }
        let mean = &mut self.means[usize::from(together)];
        // One turn that took long says little.
        *mean = Some(mean.map_or(micros, |mean| mean + (micros.min(4.0 * mean) - mean) / 8.0));
    }
}

/// A thread that sleeps on one processor.
pub(crate) struct Pinned {
    thread: Pid,
    before: CpuSet,
}

impl Pinned {
    /// Binds this thread to a processor, as long as the value lives; `None` if it may not run there.
    pub(crate) fn to(cpu: u32) -> Option<Self> {
        let thread = gettid();
        let before = sched_getaffinity(Some(thread)).ok()?;
        let cpu = cpu as usize;
        if cpu >= CpuSet::MAX_CPU || !before.is_set(cpu) || before.count() == 1 {
            return None;
        }
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(Some(thread), &set).ok()?;
        Some(Self { thread, before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Some(self.thread), &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After the first trials nearly all turns are taken the faster way, also when the other way becomes the faster.
    #[test]
    fn it_takes_the_faster_way() {
        let mut habit = Habit::default();
        for faster in [true, false, true] {
            let mut right = 0;
            for turn in 0..20 * PERIOD {
                let together = habit.is_together();
                habit.took(together, if together == faster { 10.0 } else { 50.0 });
                right += u32::from(turn > 2 * PERIOD && together == faster);
            }
            assert!(right > 17 * PERIOD, "{right}");
        }
    }
}
