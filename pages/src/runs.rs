//! A set of disjoint runs of pages.
//!
//! 1. Runs neither overlap nor touch: pages that are adjacent are one run.
//! 2. Every run has pages, and its end is at most `u32::MAX`.
//! 3. `pages` is the sum of the runs' pages.

use std::collections::BTreeMap;

/// A set of pages, kept as runs.
///
/// ```
/// use dmrpc_pages::RunSet;
///
/// let mut runs = RunSet::default();
/// runs.insert(0, 4)?;
/// runs.insert(4, 4)?;
/// runs.remove(2, 1)?;
/// assert_eq!(runs.iter().collect::<Vec<_>>(), [(0, 2), (3, 5)]);
/// # Ok::<(), dmrpc_pages::RunSetError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunSet {
    /// First page to count.
    runs: BTreeMap<u32, u32>,
    pages: u64,
}

/// Why a [`RunSet`] refused a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunSetError {
    /// The run has no pages, or its end is past `u32::MAX`.
    #[error("{count} pages from {first} on are no run")]
    NotARun {
        /// The first page of the run.
        first: u32,
        /// How many pages it has.
        count: u32,
    },
    /// Some page of a run to be inserted is in the set.
    #[error("some of the {count} pages from {first} on are in the set already")]
    Overlaps {
        /// The first page of the run.
        first: u32,
        /// How many pages it has.
        count: u32,
    },
    /// Some page of a run to be removed is not in the set.
    #[error("some of the {count} pages from {first} on are not in the set")]
    Missing {
        /// The first page of the run.
        first: u32,
        /// How many pages it has.
        count: u32,
    },
}

impl RunSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether no page is in the set.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many pages are in the set.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether all of the pages `first .. first + count` are in the set; `false` if that is no run.
    pub fn contains(&self, first: u32, count: u32) -> bool {
        end_of(first, count).is_ok_and(|end| self.run_around(first, end).is_some())
    }

    /// The runs as (first page, count), lowest first.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.runs.iter().map(|(&first, &count)| (first, count))
    }

    /// Adds the pages `first .. first + count`.
    ///
    /// # Errors
    /// [`RunSetError`] if that is no run or some page of it is in the set. Nothing is changed then.
    pub fn insert(&mut self, first: u32, count: u32) -> Result<(), RunSetError> {
        let end = end_of(first, count)?;
        // Runs are disjoint: if the last one that begins before `end` does not reach in, no earlier one does.
        if self.runs.range(..end).next_back().is_some_and(|(&other, &pages)| other + pages > first) {
            return Err(RunSetError::Overlaps { first, count });
        }
        let (mut start, mut total) = (first, count);
        if let Some((&before, &pages)) = self.runs.range(..first).next_back()
            && before + pages == first
        {
            (start, total) = (before, pages + total);
        }
        total += self.runs.remove(&end).unwrap_or(0);
        self.runs.insert(start, total);
        self.pages += u64::from(count);
        Ok(())
    }

    /// Takes the pages `first .. first + count` out.
    ///
    /// # Errors
    /// [`RunSetError`] if that is no run or some page of it is not in the set. Nothing is changed then.
    pub fn remove(&mut self, first: u32, count: u32) -> Result<(), RunSetError> {
        let end = end_of(first, count)?;
        let (start, stop) = self.run_around(first, end).ok_or(RunSetError::Missing { first, count })?;
        if start < first {
            self.runs.insert(start, first - start);
        } else {
            self.runs.remove(&start);
        }
        if end < stop {
            self.runs.insert(end, stop - end);
        }
        self.pages -= u64::from(count);
        Ok(())
    }

    /// Takes everything out: the runs as (first page, count), lowest first.
    pub fn take_all(&mut self) -> impl Iterator<Item = (u32, u32)> + use<> {
        std::mem::take(self).runs.into_iter()
    }

    /// The run that has all of `first .. end`, as (first page, end).
    fn run_around(&self, first: u32, end: u32) -> Option<(u32, u32)> {
        let (&start, &pages) = self.runs.range(..=first).next_back()?;
        (end <= start + pages).then_some((start, start + pages))
    }
}

/// The end of a run, if it is one.
fn end_of(first: u32, count: u32) -> Result<u32, RunSetError> {
    first.checked_add(count).filter(|_| count > 0).ok_or(RunSetError::NotARun { first, count })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn check(runs: &RunSet, model: &BTreeSet<u32>) {
        let all: Vec<_> = runs.iter().collect();
        assert!(all.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0), "runs touch: {all:?}");
        let pages: Vec<u32> = all.iter().flat_map(|&(first, count)| first..first + count).collect();
        assert_eq!(pages, model.iter().copied().collect::<Vec<_>>());
        assert_eq!(runs.pages(), model.len() as u64);
        assert_eq!(runs.is_empty(), model.is_empty());
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(
            base in prop_oneof![Just(0), Just(u32::MAX - 40)],
            steps in prop::collection::vec((any::<bool>(), 0..40u32, 0..12u32), 1..80),
        ) {
            let (mut runs, mut model) = (RunSet::new(), BTreeSet::new());
            for (insert, first, count) in steps {
                let first = base + first;
                let pages = || first..first.saturating_add(count);
                let is_run = count > 0 && first.checked_add(count).is_some();
                let all = is_run && pages().all(|page| model.contains(&page));
                prop_assert_eq!(runs.contains(first, count), all);
                let (result, expect) = if insert {
                    let result = runs.insert(first, count);
                    if !is_run {
                        (result, Err(RunSetError::NotARun { first, count }))
                    } else if pages().any(|page| model.contains(&page)) {
                        (result, Err(RunSetError::Overlaps { first, count }))
                    } else {
                        model.extend(pages());
                        (result, Ok(()))
                    }
                } else {
                    let result = runs.remove(first, count);
                    if !is_run {
                        (result, Err(RunSetError::NotARun { first, count }))
                    } else if !all {
                        (result, Err(RunSetError::Missing { first, count }))
                    } else {
                        model.retain(|page| !pages().contains(page));
                        (result, Ok(()))
                    }
                };
                prop_assert_eq!(result, expect);
                check(&runs, &model);
            }
            let all: Vec<_> = runs.iter().collect();
            prop_assert_eq!(runs.take_all().collect::<Vec<_>>(), all);
            check(&runs, &BTreeSet::new());
        }
    }
}
