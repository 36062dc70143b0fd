//! Cache lines of memory that several hosts map and no hardware keeps the same for all of them.
//!
//! A writer writes its lines back before it says that they are there; a reader drops its own after it was told, before it looks.
//! Both are instructions that a process may use without privileges, also on lines that it has mapped for reading alone. They
//! work on whole lines: only what is at least a line apart may be written by two hosts at a time. Pages are.
//!
//! | | written back | dropped | order |
//! | --- | --- | --- | --- |
//! | x86-64 | `clwb`, else `clflushopt`, else `clflush` | `clflushopt`, else `clflush` | `sfence`; `mfence` |
//! | AArch64 | `dc cvac` | `dc civac` | `dsb sy` |
//!
//! Dropping writes back what this host changed: nothing of it is lost.

/// Whether this processor has what it takes.
pub fn is_supported() -> bool {
    cfg!(any(target_arch = "x86_64", target_arch = "aarch64"))
}

/// Writes what this host has changed of `len` bytes back to memory. When it returns, whoever reads them there finds them.
/// How many lines that were; 0 if this processor [can't](is_supported).
///
/// # Safety
///
/// The bytes are mapped for reading.
pub unsafe fn write_back(start: *const u8, len: usize) -> usize {
    // SAFETY: the caller's.
    unsafe { machine::write_back(start, len) }
}

/// Drops what this host has cached of `len` bytes: later reads find what is in memory. How many lines that were; 0 if this
/// processor [can't](is_supported).
///
/// # Safety
///
/// The bytes are mapped for reading.
pub unsafe fn drop_lines(start: *const u8, len: usize) -> usize {
    // SAFETY: the caller's.
    unsafe { machine::drop_lines(start, len) }
}

/// The addresses of the lines that some bytes lie in.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn lines(start: *const u8, len: usize, line: usize) -> impl Iterator<Item = usize> {
    let first = start.addr() & !(line - 1);
    let end = if len == 0 { first } else { start.addr() + len };
    (first..end).step_by(line)
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use super::lines;
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count, _mm_mfence, _mm_sfence};
    use std::sync::LazyLock;

    struct Processor {
        line: usize,
        /// Has `clflushopt`, which is not ordered with itself.
        unordered: bool,
        /// Has `clwb`, which keeps the line.
        keeps: bool,
    }

    static PROCESSOR: LazyLock<Processor> = LazyLock::new(|| {
        let line = ((__cpuid(1).ebx >> 8) & 0xff) as usize * 8;
        let features = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
        // A hypervisor may hide the size: all of this architecture have lines of 64 bytes.
        let line = if line.is_power_of_two() { line } else { 64 };
        Processor { line, unordered: features & 1 << 23 != 0, keeps: features & 1 << 24 != 0 }
    });

    /// # Safety
    ///
    /// The line is mapped.
    unsafe fn flush(processor: &Processor, line: usize) {
        if processor.unordered {
            // SAFETY: the processor has it, and the line is mapped.
            unsafe { asm!("clflushopt [{}]", in(reg) line, options(nostack, preserves_flags)) };
        } else {
            // SAFETY: as above; all of this architecture have it.
            unsafe { asm!("clflush [{}]", in(reg) line, options(nostack, preserves_flags)) };
        }
    }

    pub(super) unsafe fn write_back(start: *const u8, len: usize) -> usize {
        let processor = &*PROCESSOR;
        let mut count = 0;
        for line in lines(start, len, processor.line) {
            if processor.keeps {
                // SAFETY: the processor has it, and the line is mapped.
                unsafe { asm!("clwb [{}]", in(reg) line, options(nostack, preserves_flags)) };
            } else {
                // SAFETY: the line is mapped.
                unsafe { flush(processor, line) };
            }
            count += 1;
        }
        // Ahead of the store that publishes.
        // SAFETY: all of this architecture have it.
        unsafe { _mm_sfence() };
        count
    }

    pub(super) unsafe fn drop_lines(start: *const u8, len: usize) -> usize {
        let processor = &*PROCESSOR;
        let mut count = 0;
        // Nothing is dropped before the news was read.
        // SAFETY: all of this architecture have it.
        unsafe { _mm_mfence() };
        for line in lines(start, len, processor.line) {
            // SAFETY: the line is mapped.
            unsafe { flush(processor, line) };
            count += 1;
        }
        // No load is served by a line that is still to go.
        // SAFETY: all of this architecture have it.
        unsafe { _mm_mfence() };
        count
    }
}

#[cfg(target_arch = "aarch64")]
mod machine {
    use super::lines;
    use std::arch::asm;

    /// The smallest line of all data caches.
    fn line() -> usize {
        let kinds: u64;
        // SAFETY: reads a register, which Linux lets every process do.
        unsafe { asm!("mrs {}, ctr_el0", out(reg) kinds, options(nomem, nostack, preserves_flags)) };
        4 << ((kinds >> 16) & 0xf)
    }

    fn barrier() {
        // SAFETY: waits, and changes nothing.
        unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
    }

    pub(super) unsafe fn write_back(start: *const u8, len: usize) -> usize {
        let mut count = 0;
        barrier();
        for line in lines(start, len, line()) {
            // SAFETY: the line is mapped, and Linux lets every process do it.
            unsafe { asm!("dc cvac, {}", in(reg) line, options(nostack, preserves_flags)) };
            count += 1;
        }
        barrier();
        count
    }

    pub(super) unsafe fn drop_lines(start: *const u8, len: usize) -> usize {
        let mut count = 0;
        barrier();
        for line in lines(start, len, line()) {
            // SAFETY: as above.
            unsafe { asm!("dc civac, {}", in(reg) line, options(nostack, preserves_flags)) };
            count += 1;
        }
        barrier();
        count
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod machine {
    pub(super) unsafe fn write_back(_: *const u8, _: usize) -> usize {
        0
    }

    pub(super) unsafe fn drop_lines(_: *const u8, _: usize) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_if_one_byte_of_it_is_meant() {
        let count = |start: usize, len| lines(std::ptr::without_provenance(start), len, 64).count();
        assert_eq!(count(4096, 0), 0);
        assert_eq!(count(4100, 0), 0);
        assert_eq!(count(4096, 1), 1);
        assert_eq!(count(4096, 64), 1);
        assert_eq!(count(4096, 65), 2);
        assert_eq!(count(4159, 2), 2);
        assert_eq!(count(4096, 4096), 64);
    }

    #[test]
    fn bytes_stay_what_they_are() {
        let bytes: Vec<u8> = (0..100_000).map(|index| (index % 251) as u8).collect();
        // SAFETY: bytes of ours.
        let (written, dropped) =
            unsafe { (write_back(bytes.as_ptr(), bytes.len()), drop_lines(bytes.as_ptr(), bytes.len())) };
        assert_eq!(written, dropped);
        assert_eq!(written > 0, is_supported());
        assert!(bytes.iter().enumerate().all(|(index, &byte)| byte == (index % 251) as u8));
    }
}
