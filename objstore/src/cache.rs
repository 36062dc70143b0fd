//! What was read over the network lately. Objects are immutable, so whatever is here is right for ever.
//!
//! 1. The cache's bytes are at most its limit. What was not used for the longest time goes first; views keep what they show.

use crate::buffer::Buffer;
use dmrpc_wire::ObjectId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

pub(crate) struct Cache {
    limit: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: u64,
    clock: u64,
    entries: HashMap<ObjectId, Vec<Entry>>,
    /// Last use to object.
    by_use: BTreeMap<u64, ObjectId>,
}

struct Entry {
    range: Range<u64>,
    buffer: Arc<Buffer>,
    used: u64,
}

impl Cache {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// The bytes of a range, if they are here: in which buffer, and where in it they begin.
    pub(crate) fn get(&self, id: &ObjectId, range: &Range<u64>) -> Option<(Arc<Buffer>, usize)> {
        let State { clock, entries, by_use, .. } = &mut *self.state.lock();
        let covers = |entry: &&mut Entry| entry.range.start <= range.start && range.end <= entry.range.end;
        let entry = entries.get_mut(id)?.iter_mut().find(covers)?;
        by_use.remove(&entry.used);
        *clock += 1;
        entry.used = *clock;
        by_use.insert(entry.used, *id);
        Some((entry.buffer.clone(), (range.start - entry.range.start) as usize))
    }

    /// Keeps bytes, if they are not too many.
    pub(crate) fn insert(&self, id: ObjectId, range: Range<u64>, buffer: &Arc<Buffer>) {
        let len = range.end - range.start;
        if len > self.limit / 2 {
            return;
        }
        let mut state = self.state.lock();
        let same = state.entries.get(&id).map_or(&[][..], |same| same);
        if same.iter().any(|entry| entry.range.start <= range.start && range.end <= entry.range.end) {
            return;
        }
        while state.bytes + len > self.limit {
            state.drop_oldest();
        }
        state.clock += 1;
        let used = state.clock;
        state.bytes += len;
        state.by_use.insert(used, id);
        state.entries.entry(id).or_default().push(Entry { range, buffer: buffer.clone(), used });
    }
}

impl State {
    fn drop_oldest(&mut self) {
        let Some((used, id)) = self.by_use.pop_first() else { return };
        let entries = self.entries.get_mut(&id).expect("what has a use has an entry");
        let at = entries.iter().position(|entry| entry.used == used).expect("as above");
        let entry = entries.swap_remove(at);
        self.bytes -= entry.range.end - entry.range.start;
        if entries.is_empty() {
            self.entries.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dmrpc_wire::{NodeId, SlotLease};

    fn id(slot: u32) -> ObjectId {
        ObjectId::new(NodeId(1), SlotLease::new(slot, 1), [0; 12])
    }

    #[test]
    fn what_was_used_last_stays() {
        let cache = Cache::new(100);
        let ten = Arc::new(Buffer::copy_of(&[7; 10]));
        for slot in 0..10 {
            cache.insert(id(slot), 0..10, &ten);
        }
        assert!(cache.get(&id(0), &(2..5)).is_some_and(|(buffer, at)| buffer[at] == 7 && at == 2));
        cache.insert(id(10), 5..15, &ten);
        assert!(cache.get(&id(1), &(0..1)).is_none(), "the oldest went");
        assert!(cache.get(&id(0), &(0..10)).is_some());
        assert!(cache.get(&id(10), &(0..10)).is_none(), "only a part is there");
        cache.insert(id(11), 0..51, &Arc::new(Buffer::zeroed(51)));
        assert!(cache.get(&id(11), &(0..1)).is_none(), "too large to be kept");
        assert!(cache.state.lock().bytes <= 100);
    }
}
