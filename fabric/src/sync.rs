//! Where atomics come from, so that loom can replace them.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Sets a flag that is only ever taken down by a swap. Relaxed: a fence follows.
pub(crate) fn raise(flag: &AtomicU64, value: u64) {
    #[cfg(not(loom))]
    flag.store(value, Ordering::Relaxed);
    // A swap that reads 0 directly follows, in the order of modifications, the one that wrote that 0, and so comes before this
    // store. loom 0.7 does not draw that conclusion and lets the store be overwritten by it; it does for swaps.
    #[cfg(loom)]
    flag.swap(value, Ordering::Relaxed);
}
