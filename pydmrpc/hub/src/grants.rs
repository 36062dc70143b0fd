//! Results that are kept for a while though no client holds them: references to them are on their way where the hub sees none of it.
//!
//! 1. There are never more than were allowed: one more ends the oldest.
//! 2. Each ends once, in the order in which they came.

use crate::event::Now;
use crate::id::ResultId;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug)]
pub struct Grants {
    most: usize,
    lasts: Now,
    living: VecDeque<(Now, ResultId)>,
}

impl Grants {
    /// At most so many at a time, each for so long.
    pub fn new(most: usize, lasts: Now) -> Self {
        Self { most, lasts, living: VecDeque::new() }
    }

    /// One more; gives the one that ends on account of that.
    #[must_use = "what ends is to be let go of"]
    pub fn add(&mut self, now: Now, result: ResultId) -> Option<ResultId> {
        self.living.push_back((now + self.lasts, result));
        (self.living.len() > self.most).then(|| self.living.pop_front()).flatten().map(|(_, result)| result)
    }

    /// One whose time is over.
    #[must_use = "what ends is to be let go of"]
    pub fn take_due(&mut self, now: Now) -> Option<ResultId> {
        if self.living.front()?.0 > now {
            return None;
        }
        self.living.pop_front().map(|(_, result)| result)
    }

    /// When the next one ends.
    pub fn next_due(&self) -> Option<Now> {
        self.living.front().map(|&(until, _)| until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClientId, TaskId};

    fn result(number: u32) -> ResultId {
        TaskId { client: ClientId(2), number }.result(0)
    }

    /// Invariants 1 and 2.
    #[test]
    fn one_more_than_there_may_be_ends_the_oldest() {
        let mut grants = Grants::new(3, 100);
        let ended: Vec<_> = (0..6).map(|number| grants.add(u64::from(number), result(number))).collect();
        assert_eq!(ended, [None, None, None, Some(result(0)), Some(result(1)), Some(result(2))]);
    }

    /// Invariant 2.
    #[test]
    fn each_ends_when_its_time_is_over() {
        let mut grants = Grants::new(3, 100);
        assert_eq!(grants.next_due(), None);
        for number in [0, 10] {
            assert_eq!(grants.add(u64::from(number), result(number)), None);
        }
        assert_eq!(grants.next_due(), Some(100));
        assert_eq!(grants.take_due(99), None);
        assert_eq!(grants.take_due(100), Some(result(0)));
        assert_eq!(grants.take_due(100), None);
        assert_eq!(grants.take_due(1000), Some(result(10)));
        assert_eq!(grants.take_due(1000), None);
    }
}
