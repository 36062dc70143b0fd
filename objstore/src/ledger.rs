//! What is lent and borrowed over one link, as books: no link, lock or clock.
//!
//! 1. Numbers of loans are never used twice on a link.
//! 2. What is lent is kept until its number comes back, once, or the link is gone and the grace period over.
//! 3. A number is given back exactly once, unless the link is gone first.

use slab::Slab;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Bits of a loan's number that say where in the book it stands; the rest counts loans.
const PLACE_BITS: u32 = 20;

/// The most references that can be lent over a link at a time.
pub(crate) const MAX_LOANS: usize = 1 << PLACE_BITS;

/// What was lent over a link, by `R`, a reference.
#[derive(Debug)]
pub(crate) struct Lent<R> {
    /// How many there ever were.
    count: u64,
    /// Numbers and references; a number's low bits are its place here.
    entries: Slab<(u64, R)>,
    limit: usize,
}

impl<R> Lent<R> {
    /// `limit`: the most that is lent at a time, not more than [`MAX_LOANS`].
    pub(crate) fn new(limit: usize) -> Self {
        Self { count: 0, entries: Slab::new(), limit: limit.min(MAX_LOANS) }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether one more may be lent.
    pub(crate) fn has_room(&self) -> bool {
        self.entries.len() < self.limit
    }

    /// Keeps `reference`, for which there is room, and gives the loan's number, which is never 0.
    pub(crate) fn lend(&mut self, reference: R) -> u64 {
        assert!(self.has_room(), "caller: looks first");
        self.count += 1;
        let entry = self.entries.vacant_entry();
        let number = self.count << PLACE_BITS | entry.key() as u64;
        entry.insert((number, reference));
        number
    }

    fn place(number: u64) -> usize {
        (number & (MAX_LOANS as u64 - 1)) as usize
    }

    /// The reference under this number, if it is lent.
    pub(crate) fn get(&self, number: u64) -> Option<&R> {
        self.entries.get(Self::place(number)).filter(|entry| entry.0 == number).map(|(_, reference)| reference)
    }

    /// The reference under this number, if it is lent. It is to be dropped.
    #[must_use]
    pub(crate) fn returned(&mut self, number: u64) -> Option<R> {
        self.get(number)?;
        Some(self.entries.remove(Self::place(number)).1)
    }

    /// The link is gone: everything that is lent, the first that was lent first, to be kept for the grace period.
    #[must_use]
    pub(crate) fn close(&mut self) -> Vec<R> {
        let mut lent: Vec<(u64, R)> = self.entries.drain().collect();
        lent.sort_unstable_by_key(|(number, _)| *number);
        lent.into_iter().map(|(_, reference)| reference).collect()
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
        match self.live.entry(number) {
            Entry::Vacant(place) => {
                place.insert(object);
                true
            }
            Entry::Occupied(_) => false,
        }
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
