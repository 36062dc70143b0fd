//! What is lent and borrowed over one link, as books: no link, lock or clock.
//!
//! 1. Numbers of loans are never used twice on a link.
//! 2. What is lent is kept until its number comes back, once, or the link is gone and the grace period over.
//! 3. A number is given back exactly once, unless the link is gone first.

use std::collections::BTreeMap;

/// What was lent over a link, by `R`, a reference.
#[derive(Debug)]
pub(crate) struct Lent<R> {
    last: u64,
    entries: BTreeMap<u64, R>,
    limit: usize,
}

impl<R> Lent<R> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { last: 0, entries: BTreeMap::new(), limit }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether one more may be lent.
    pub(crate) fn has_room(&self) -> bool {
        self.entries.len() < self.limit
    }

    /// Keeps `reference`, and gives the loan's number, which is never 0.
    pub(crate) fn lend(&mut self, reference: R) -> u64 {
        self.last += 1;
        self.entries.insert(self.last, reference);
        self.last
    }

    /// The reference under this number, if it is lent.
    pub(crate) fn get(&self, number: u64) -> Option<&R> {
        self.entries.get(&number)
    }

    /// The reference under this number, if it is lent. It is to be dropped.
    #[must_use]
    pub(crate) fn returned(&mut self, number: u64) -> Option<R> {
        self.entries.remove(&number)
    }

    /// The link is gone: everything that is lent, to be kept for the grace period.
    #[must_use]
    pub(crate) fn close(&mut self) -> Vec<R> {
        std::mem::take(&mut self.entries).into_values().collect()
    }
}

/// What was borrowed over a link, by `O`, whatever leads to the object.
#[derive(Debug)]
pub(crate) struct Borrowed<O> {
    live: BTreeMap<u64, O>,
    returns: Vec<u64>,
    closed: bool,
}

impl<O> Borrowed<O> {
    pub(crate) fn new() -> Self {
        Self { live: BTreeMap::new(), returns: Vec::new(), closed: false }
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    /// A loan came. Whether its number is new: a peer that uses one twice is out of its mind.
    #[must_use]
    pub(crate) fn borrow(&mut self, number: u64, object: O) -> bool {
        if self.live.contains_key(&number) {
            return false;
        }
        self.live.insert(number, object);
        true
    }

    /// A loan is done with. Whether it is the first to be given back since [`take_returns`](Borrowed::take_returns).
    #[must_use]
    pub(crate) fn done(&mut self, number: u64) -> bool {
        self.live.remove(&number);
        self.give_back(number)
    }

    /// A loan that was never used. As [`done`](Borrowed::done).
    #[must_use]
    pub(crate) fn give_back(&mut self, number: u64) -> bool {
        if self.closed || number == 0 {
            return false;
        }
        self.returns.push(number);
        self.returns.len() == 1
    }

    pub(crate) fn take_returns(&mut self, into: &mut Vec<u64>) {
        into.append(&mut self.returns);
    }

    /// All that is borrowed now.
    pub(crate) fn live(&self) -> impl Iterator<Item = &O> {
        self.live.values()
    }

    /// The link is gone, and there is nobody to give anything back to: all that is borrowed now.
    #[must_use]
    pub(crate) fn close(&mut self) -> Vec<O> {
        self.closed = true;
        self.returns = Vec::new();
        std::mem::take(&mut self.live).into_values().collect()
    }

    /// Whether the link is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
}
