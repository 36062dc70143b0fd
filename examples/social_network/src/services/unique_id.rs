//! Unique ids: milliseconds and a counter, so that later posts have larger numbers.

use crate::call::{Answer, Call, Failure, Role};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// Bits of the counter.
const COUNTER_BITS: u32 = 22;

/// Gives numbers out.
#[derive(Default)]
pub(crate) struct UniqueId {
    last: AtomicU64,
}

impl UniqueId {
    pub(crate) fn answer(&self, call: &Call) -> Result<Answer, Failure> {
        match call {
            Call::NextId => Ok(Answer::Id(self.next())),
            Call::Reset => Ok(Answer::Done),
            _ => Err(Failure::NotMine { role: Role::UniqueId }),
        }
    }

    fn next(&self) -> u64 {
        // A clock before 1970 is no reason to fail: numbers grow all the same.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = (since.as_millis() as u64) << COUNTER_BITS;
        let larger = |last: u64| now.max(last + 1);
        // Relaxed: the number itself is all that is told.
        larger(self.last.fetch_update(Relaxed, Relaxed, |last| Some(larger(last))).expect("it is always something"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow() {
        let ids = UniqueId::default();
        let numbers: Vec<u64> = (0..1000).map(|_| ids.next()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b));
    }
}
