//! Tables of what clients number, in pages of neighbours: what is made together is looked at together, and lies together.
//!
//! A hash table scatters its entries, and a thousand calls under way miss the cache at each step. Here a page of neighbours is one
//! allocation, and only its place is hashed.

use crate::id::{ClientId, ResultId, TaskId};
use rustc_hash::FxHashMap;

/// Entries of a page. An entry that outlives its neighbours keeps their room, so that pages are small.
const PAGE: usize = 32;

struct Page<T> {
    used: usize,
    entries: [Option<T>; PAGE],
}

/// A table by the numbers of tasks.
pub struct ByTask<T> {
    pages: FxHashMap<TaskId, Box<Page<T>>>,
    len: usize,
}

impl<T> Default for ByTask<T> {
    fn default() -> Self {
        Self { pages: FxHashMap::default(), len: 0 }
    }
}

fn place(id: TaskId) -> (TaskId, usize) {
    (TaskId { client: id.client, number: id.number / PAGE as u32 }, id.number as usize % PAGE)
}

impl<T> ByTask<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry of a number.
    pub fn get(&self, id: TaskId) -> Option<&T> {
        let (page, at) = place(id);
        self.pages.get(&page)?.entries[at].as_ref()
    }

    /// The entry of a number, to change.
    pub fn get_mut(&mut self, id: TaskId) -> Option<&mut T> {
        let (page, at) = place(id);
        self.pages.get_mut(&page)?.entries[at].as_mut()
    }

    /// Whether there is one of this number.
    pub fn contains(&self, id: TaskId) -> bool {
        self.get(id).is_some()
    }

    /// Sets the entry of a number; gives what was there.
    pub fn insert(&mut self, id: TaskId, entry: T) -> Option<T> {
        let (page, at) = place(id);
        let page =
            self.pages.entry(page).or_insert_with(|| Box::new(Page { used: 0, entries: [const { None }; PAGE] }));
        let before = page.entries[at].replace(entry);
        if before.is_none() {
            page.used += 1;
            self.len += 1;
        }
        before
    }

    /// Takes the entry of a number.
    pub fn remove(&mut self, id: TaskId) -> Option<T> {
        let (name, at) = place(id);
        let page = self.pages.get_mut(&name)?;
        let entry = page.entries[at].take()?;
        page.used -= 1;
        self.len -= 1;
        if page.used == 0 {
            self.pages.remove(&name);
        }
        Some(entry)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (TaskId, &T)> {
        self.pages.iter().flat_map(|(page, entries)| {
            let entries = entries.entries.iter().enumerate();
            entries.filter_map(|(at, entry)| Some((number(*page, at), entry.as_ref()?)))
        })
    }

    /// All entries, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (TaskId, &mut T)> {
        self.pages.iter_mut().flat_map(|(page, entries)| {
            let page = *page;
            let entries = entries.entries.iter_mut().enumerate();
            entries.filter_map(move |(at, entry)| Some((number(page, at), entry.as_mut()?)))
        })
    }
}

fn number(page: TaskId, at: usize) -> TaskId {
    TaskId { client: ClientId(page.client.0), number: page.number * PAGE as u32 + at as u32 }
}

/// A table by the names of results: most tasks have one.
pub struct ByResult<T> {
    first: ByTask<T>,
    others: FxHashMap<ResultId, T>,
}

impl<T> Default for ByResult<T> {
    fn default() -> Self {
        Self { first: ByTask::default(), others: FxHashMap::default() }
    }
}

impl<T> ByResult<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.first.len() + self.others.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of a result.
    pub fn get(&self, id: ResultId) -> Option<&T> {
        if id.index == 0 { self.first.get(id.task) } else { self.others.get(&id) }
    }

    /// The entry of a result, to change.
    pub fn get_mut(&mut self, id: ResultId) -> Option<&mut T> {
        if id.index == 0 { self.first.get_mut(id.task) } else { self.others.get_mut(&id) }
    }

    /// Sets the entry of a result; gives what was there.
    pub fn insert(&mut self, id: ResultId, entry: T) -> Option<T> {
        if id.index == 0 { self.first.insert(id.task, entry) } else { self.others.insert(id, entry) }
    }

    /// Takes the entry of a result.
    pub fn remove(&mut self, id: ResultId) -> Option<T> {
        if id.index == 0 { self.first.remove(id.task) } else { self.others.remove(&id) }
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (ResultId, &T)> {
        let first = self.first.iter().map(|(task, entry)| (task.result(0), entry));
        first.chain(self.others.iter().map(|(&id, entry)| (id, entry)))
    }

    /// All entries, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ResultId, &mut T)> {
        let first = self.first.iter_mut().map(|(task, entry)| (task.result(0), entry));
        first.chain(self.others.iter_mut().map(|(&id, entry)| (id, entry)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// It does what any map does.
        #[test]
        fn as_a_map(steps in prop::collection::vec((0..3u32, 0..100u32, prop::option::of(any::<u8>())), 0..300)) {
            let (mut table, mut model) = (ByResult::default(), BTreeMap::new());
            for (index, number, entry) in steps {
                let id = TaskId { client: ClientId(number % 2), number }.result(index);
                match entry {
                    Some(entry) => prop_assert_eq!(table.insert(id, entry), model.insert(id, entry)),
                    None => prop_assert_eq!(table.remove(id), model.remove(&id)),
                }
                prop_assert_eq!(table.get(id), model.get(&id));
                prop_assert_eq!(table.len(), model.len());
            }
            let all: BTreeMap<ResultId, u8> = table.iter().map(|(id, entry)| (id, *entry)).collect();
            prop_assert_eq!(all, model);
            prop_assert_eq!(table.iter_mut().count(), table.len());
        }
    }
}
