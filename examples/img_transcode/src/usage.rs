//! What a process has used so far, as the kernel counts it in `/proc`.

use serde::Serialize;
use std::fs;
use std::path::Path;

/// Processor time and waits of all threads of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    /// Time on a processor, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// How often a thread waited for something and had to be woken.
    pub(crate) waits: u64,
}

impl Usage {
    /// Of the threads that a process has now; `None` where the kernel doesn't say.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let mut sum = Self::default();
        for thread in threads {
            // A thread may end while this looks at it.
            if let Some(usage) = thread.ok().and_then(|thread| Self::of_thread(&thread.path())) {
                sum.cpu_ns += usage.cpu_ns;
                sum.waits += usage.waits;
            }
        }
        Some(sum)
    }

    fn of_thread(folder: &Path) -> Option<Self> {
        let schedstat = fs::read_to_string(folder.join("schedstat")).ok()?;
        let status = fs::read_to_string(folder.join("status")).ok()?;
        Some(Self { cpu_ns: first_number(&schedstat)?, waits: waits(&status)? })
    }

    /// What was used since an earlier look.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns), waits: self.waits.saturating_sub(earlier.waits) }
    }
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { cpu_ns: self.cpu_ns + other.cpu_ns, waits: self.waits + other.waits }
    }
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

fn waits(status: &str) -> Option<u64> {
    status.lines().find_map(|line| first_number(line.strip_prefix("voluntary_ctxt_switches:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kernel_writes_it() {
        assert_eq!(first_number("123456 789 12\n"), Some(123_456));
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t42\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(waits(status), Some(42));
        assert_eq!((waits("Name:\tx\n"), first_number("")), (None, None));
    }

    #[test]
    fn work_shows() {
        let before = Usage::of(std::process::id()).unwrap();
        let mut sum = 0_u64;
        let worked = loop {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
            let used = Usage::of(std::process::id()).unwrap().since(before);
            if used.cpu_ns > 1_000_000 {
                break used;
            }
        };
        assert!(worked.cpu_ns > 0);
        assert_eq!(Usage::of(u32::MAX), None);
    }
}
