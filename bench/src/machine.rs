//! The machine that was measured: a figure without one means little.

use serde::Serialize;
use std::fs;

/// What a reader has to know of the machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// The processor, as it calls itself.
    pub(crate) cpu: String,
    /// Processors that this process may use.
    pub(crate) cores: usize,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// Memory in bytes.
    pub(crate) memory_bytes: u64,
    /// Whether a hypervisor is under it.
    pub(crate) virtual_machine: bool,
    /// What transparent huge pages of shared memory are set to.
    pub(crate) shared_huge_pages: String,
    /// Processes that wanted to run, over the last minute, when the run began.
    pub(crate) load: String,
    /// Share of the time, all processors together, that nobody but us used, over a moment before the run.
    pub(crate) idle_percent: f64,
}

impl Machine {
    /// This one, now. Takes a fifth of a second, to see what else goes on.
    pub(crate) fn look() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let idle_before = idle();
        std::thread::sleep(std::time::Duration::from_millis(200));
        let idle_after = idle();
        let share = (idle_after.0 - idle_before.0) / (idle_after.1 - idle_before.1).max(1.0);
        Self {
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease"),
            memory_bytes: field(&read("/proc/meminfo"), "MemTotal")
                .and_then(|kib| kib.trim_end_matches(" kB").parse::<u64>().ok())
                .unwrap_or(0)
                * 1024,
            virtual_machine: field(&cpuinfo, "flags").is_some_and(|flags| flags.contains("hypervisor")),
            shared_huge_pages: chosen(&read("/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
            load: read("/proc/loadavg").split(' ').next().unwrap_or("?").to_owned(),
            idle_percent: (share * 100.0).round(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}, {} {}, {:.0} GiB, Linux {}; load {} and {:.0} % idle at the start; huge pages of shared memory: {}",
            self.cpu,
            self.cores,
            if self.virtual_machine { "virtual cores" } else { "cores" },
            self.memory_bytes as f64 / f64::from(1 << 30),
            self.kernel,
            self.load,
            self.idle_percent,
            self.shared_huge_pages,
        )
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The value of the first line `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()))
}

/// The bracketed one of several choices.
fn chosen(choices: &str) -> String {
    let inner = choices.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inner.map_or("unknown", |(choice, _)| choice).to_owned()
}

/// Idle ticks and all ticks of all processors.
fn idle() -> (f64, f64) {
    let stat = read("/proc/stat");
    let ticks: Vec<f64> =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    (ticks.get(3).copied().unwrap_or(0.0), ticks.iter().take(8).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(field("a\t: 1\nmodel name\t: AMD EPYC\n", "model name"), Some("AMD EPYC"));
        assert_eq!(chosen("always within_size [advise] never"), "advise");
    }
}
