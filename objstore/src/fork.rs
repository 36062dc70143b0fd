//! Knowing that this process is a fork of the one that connected, without a system call.
//!
//! A page that the kernel wipes in forks: a plain load says where we are.

use crate::StoreError;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, Ordering};

static CANARY: LazyLock<Option<&'static AtomicU8>> = LazyLock::new(|| {
    let len = rustix::param::page_size();
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let page = unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::PRIVATE) }.ok()?;
    // SAFETY: the whole of our own mapping, which has nothing in it yet.
    unsafe { madvise(page, len, Advice::LinuxWipeOnFork) }.ok()?;
    // SAFETY: zeroed memory of ours, aligned, and never unmapped.
    let canary = unsafe { &*page.cast::<AtomicU8>() };
    canary.store(1, Ordering::Relaxed);
    Some(canary)
});

/// Starts the watch. To be called in the process that connects, before it does.
pub(crate) fn watch() {
    LazyLock::force(&CANARY);
}

/// Whether this is a fork of the process that called [`watch`].
pub(crate) fn is_fork() -> bool {
    // Relaxed: a fork sees what its parent stored, or zeros.
    CANARY.is_some_and(|canary| canary.load(Ordering::Relaxed) == 0)
}

/// # Errors
///
/// [`StoreError::Forked`].
pub(crate) fn check() -> Result<(), StoreError> {
    if is_fork() { Err(StoreError::Forked) } else { Ok(()) }
}
