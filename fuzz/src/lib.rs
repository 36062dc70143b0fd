//! A fuzz target for each decoder: what it is given, and what must hold whatever that is.
//!
//! 1. No bytes make a decoder panic.
//! 2. Whatever decodes encodes to the very bytes it came from: a decoder takes nothing that no encoder makes.
//!
//! Each target is a plain function with seeds made by the encoders themselves, so that they never go stale.
//! `tests/seeds.rs` runs every seed, whole, cut short and bent, on any machine; `make test-fuzz` and `make fuzz` let libFuzzer
//! search on from there.
#![forbid(unsafe_code)]

mod actors;
mod address;
mod datagram;
mod frames;
mod grant;
mod records;
mod wire;

/// A decoder under test.
pub struct Target {
    /// What its program is called.
    pub name: &'static str,
    /// Decodes, and checks what must hold.
    pub run: fn(&[u8]),
    /// Inputs worth starting from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target, in the order of their programs in `Cargo.toml`.
pub const TARGETS: &[Target] = &[
    wire::REQUEST,
    wire::REPLY,
    wire::REFERENCE,
    address::ADDRESS,
    frames::TCP,
    frames::SHM,
    datagram::DATAGRAM,
    actors::ACTORS,
    grant::GRANT,
    records::RECORD,
];

/// Runs the target of this name on `data`.
///
/// # Panics
///
/// If there is no such target; or if it found a bug.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("programs are named after their targets");
    (target.run)(data);
}
