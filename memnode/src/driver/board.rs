//! The board: what is published in each slot, for clients that read pages by themselves (`docs/rdma.md`).
//!
//! 1. An object stands on the board from its commit on, and not when any of its pages may be used again.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

/// Slots on the board. Objects in higher ones are read by asking for them.
const SLOTS: usize = 1 << 20;

/// The generation that is published in each slot, or 0.
pub(crate) struct Board {
    entries: Box<[AtomicU64]>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { entries: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Enters an object, or takes it off.
    pub(crate) fn post(&self, slot: u32, generation: u32) {
        if let Some(entry) = self.entries.get(slot as usize) {
            // Release: pairs with the device's read; pages that were written before are seen by whoever sees the entry.
            entry.store(generation.into(), Ordering::Release);
        }
    }

    /// Where it is.
    pub(crate) fn start(&self) -> *mut u8 {
        self.entries.as_ptr().cast_mut().cast()
    }

    /// How many bytes it has.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.entries)
    }
}
