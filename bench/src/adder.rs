//! The actor that is measured: it adds up what it is sent.

use dmrpc_actors::actor;

/// Adds up.
pub(crate) struct Adder {
    sum: u64,
}

impl Adder {
    /// Of nothing yet.
    pub(crate) fn new() -> Self {
        Self { sum: 0 }
    }
}

#[actor]
impl Adder {
    /// Adds, and gives the sum.
    #[message(id = 1)]
    fn add(&mut self, n: u64) -> u64 {
        self.sum = self.sum.wrapping_add(n);
        self.sum
    }

    /// Adds.
    #[message(id = 2)]
    fn note(&mut self, n: u64) {
        self.sum = self.sum.wrapping_add(n);
    }
}
