//! A node in a process of its own, and a client that speaks the bare protocol: what the tests of the node stand on.
#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

mod cable;
mod client;
mod mapped;
mod process;

pub(crate) use cable::Switch;
pub(crate) use client::{Client, Terms};
pub(crate) use mapped::Mapped;
pub(crate) use process::NodeProcess;

use std::time::{Duration, Instant};

/// How long anything may take that is sure to happen. Nothing is expected to come near it.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn limit() -> Instant {
    Instant::now() + LIMIT
}

/// Looks until `condition` holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = limit();
    while !condition() {
        assert!(Instant::now() < limit, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `len` bytes that differ from place to place and from seed to seed.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
