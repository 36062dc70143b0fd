//! What belongs to the process that made it.
//!
//! A fork copies the memory of the store but not its threads, and shares its connection with the parent. So in the child:
//!
//! 1. Nothing of the parent's store is dropped: a release from the child would take away what the parent holds.
//! 2. Whatever needs the parent's store raises [`crate::errors::forked`].

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many forks lie between this process and the first that loaded the module.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Called in the child right after a fork, by Python, while it has one thread.
pub(crate) fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// A value that is dropped only in the process that made it.
pub(crate) struct Native<T> {
    value: ManuallyDrop<T>,
    born: u32,
}

impl<T> Native<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: ManuallyDrop::new(value), born: generation() }
    }

    /// The value, to change.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        &mut self.value
    }

    /// The value.
    pub(crate) fn into_inner(self) -> T {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so its value is taken only here.
        unsafe { ManuallyDrop::take(&mut this.value) }
    }

    /// Whether this is another process than the one that made it.
    pub(crate) fn is_foreign(&self) -> bool {
        self.born != generation()
    }
}

impl<T> Deref for Native<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for Native<T> {
    fn drop(&mut self) {
        if !self.is_foreign() {
            // SAFETY: the value is dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.value) }
        }
    }
}
