//! Every invariant of the core, counted from scratch.
//!
//! The numbers that errors begin with are those of `ARCHITECTURE.md`, "The memory node".

use super::core::Core;
use super::event::Access;
use super::sessions::SessionKey;
use super::snapshot::Counted;
use super::transfers::Kind;
use dmrpc_pages::Extent;
use std::collections::{BTreeMap, BTreeSet};

impl Core {
    /// Counts everything from scratch and compares it with what the core keeps. For tests: it takes as long as there are
    /// pages.
    ///
    /// # Errors
    ///
    /// Says which invariant does not hold, and where.
    pub fn recount(&self) -> Result<(), String> {
        let counted = self.snapshots.recount(self.slots.iter().map(|(_, object)| &object.root))?;
        self.recount_pages(&counted)?;
        self.recount_references()?;
        self.recount_sessions()?;
        let pages: u64 = self.slots.iter().map(|(_, object)| u64::from(self.snapshots.pages(&object.root))).sum();
        expect(self.counters.logical_pages == pages, || format!("objects have {pages} pages"))?;
        expect(self.slots.iter().count() == self.slots.objects(), || "objects are miscounted".into())?;
        expect(counted.nodes <= self.config.max_tree_nodes, || "there are more tree nodes than may be".into())?;
        for (slot, object) in self.slots.iter() {
            let pages = self.config.page_size.pages_for(object.size);
            let has = self.snapshots.pages(&object.root);
            expect(pages == Some(has), || format!("3: object {slot} has {} bytes and {has} pages", object.size))?;
            let mut foreign = None;
            self.snapshots.walk(&object.root, 0, has, &mut |extent| {
                let segment = self.segments.get(extent.segment.0);
                if segment.is_some_and(|segment| segment.tenant != object.tenant) {
                    foreign = Some(extent);
                }
                foreign.is_none()
            });
            expect(foreign.is_none(), || format!("5: object {slot} has another tenant's pages: {foreign:?}"))?;
        }
        Ok(())
    }

    /// 1 and 2: each page is one of free, unpublished, live and quarantined, and its count is right.
    fn recount_pages(&self, counted: &Counted) -> Result<(), String> {
        let mut covers: BTreeMap<u32, Vec<Extent>> = BTreeMap::new();
        for extent in counted.covered.iter().filter(|extent| !extent.is_hole()) {
            covers.entry(extent.segment.0).or_default().push(*extent);
        }
        let mut in_flight: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for transfer in self.transfers.iter() {
            if let Kind::Write(write) = &transfer.kind {
                for (_, extent) in &write.patches {
                    let pages = in_flight.entry(extent.segment.0).or_default();
                    for page in extent.first..extent.first + extent.count {
                        expect(pages.insert(page), || {
                            format!("4: page {page} of {} is written twice", extent.segment)
                        })?;
                    }
                }
            }
        }
        let mut committed = 0u64;
        for (index, segment) in self.segments.iter() {
            committed += u64::from(segment.pages);
            let mut counts = vec![0u32; segment.pages as usize];
            for extent in covers.remove(&index).unwrap_or_default() {
                let range = extent.first as usize..extent.end() as usize;
                let covered = counts.get_mut(range).ok_or_else(|| format!("2: {extent} is past its segment"))?;
                covered.iter_mut().for_each(|count| *count += 1);
            }
            let in_flight = in_flight.remove(&index).unwrap_or_default();
            let mut live = 0;
            for ((page, count), kept) in (0u32..).zip(counts).zip(segment.counts.iter()) {
                expect(count == kept, || format!("2: {count} nodes cover page {page} of s{index}, not {kept}"))?;
                live += u32::from(count > 0);
                let written = in_flight.contains(&page);
                expect(count == 0 || !written, || format!("4: page {page} of s{index} is written and in an object"))?;
                if let Some(buddy) = &segment.buddy {
                    let should = segment.stage != super::segments::Stage::Making && count == 0 && !written;
                    expect(buddy.is_free(page) == should, || {
                        format!("1: page {page} of s{index} is free: {}; should be: {should}", buddy.is_free(page))
                    })?;
                }
            }
            expect(live == segment.live, || format!("1: s{index} has {live} live pages, not {}", segment.live))?;
            let usage = segment.usage();
            let sum = usage.free + usage.unpublished + usage.live + usage.quarantined;
            expect(sum == segment.pages, || format!("1: s{index} has {sum} pages, not {}", segment.pages))?;
            expect(segment.buddy.is_some() == (segment.access == Access::Node), || format!("s{index}: whose is it?"))?;
            let alive = |key: &SessionKey| self.sessions.try_get(*key).is_some_and(|session| session.is_live());
            expect(segment.owner.as_ref().is_none_or(alive), || format!("7: s{index} belongs to one who has ended"))?;
        }
        expect(covers.is_empty(), || format!("2: objects have pages of dropped segments: {covers:?}"))?;
        expect(in_flight.is_empty(), || "4: dropped segments are written".into())?;
        expect(committed == u64::from(self.segments.committed()), || format!("1: segments have {committed} pages"))?;
        expect(committed <= u64::from(self.config.pool_pages), || "1: segments are larger than the pool".into())
    }

    /// 4: an object has as many references as there are holds, grants and transfers of it.
    fn recount_references(&self) -> Result<(), String> {
        let mut references: BTreeMap<u32, u64> = BTreeMap::new();
        let mut holds = 0;
        for (_, session) in self.sessions.iter() {
            for (&slot, &count) in &session.holds {
                expect(count > 0, || format!("4: a hold of nothing on slot {slot}"))?;
                *references.entry(slot).or_default() += u64::from(count);
                holds += u64::from(count);
            }
        }
        for slot in self.grants.slots() {
            *references.entry(slot).or_default() += 1;
        }
        let mut transfers: BTreeMap<SessionKey, usize> = BTreeMap::new();
        for transfer in self.transfers.iter() {
            *transfers.entry(transfer.session).or_default() += 1;
            match &transfer.kind {
                Kind::Read { slot, .. } => *references.entry(*slot).or_default() += 1,
                Kind::Write(write) => {
                    if let Some(slot) = write.base {
                        *references.entry(slot).or_default() += 1;
                    }
                }
            }
        }
        expect(holds == self.counters.holds, || format!("4: there are {holds} holds, not {}", self.counters.holds))?;
        for (slot, object) in self.slots.iter() {
            let found = references.remove(&slot).unwrap_or(0);
            expect(found == object.references, || {
                format!("4: object {slot} has {found} references, not {}", object.references)
            })?;
        }
        expect(references.is_empty(), || format!("4: references to slots without objects: {references:?}"))?;
        for (key, session) in self.sessions.iter() {
            let found = transfers.get(&key).copied().unwrap_or(0);
            expect(found == session.transfers, || format!("4: {key:?} has {found} transfers"))?;
        }
        Ok(())
    }

    /// 6, 7 and 8: what sessions have.
    fn recount_sessions(&self) -> Result<(), String> {
        for (key, session) in self.sessions.iter() {
            let owned: Vec<u32> = self
                .segments
                .iter()
                .filter(|(_, segment)| segment.owner == Some(key))
                .map(|(index, _)| index)
                .collect();
            let mut listed = session.segments.clone();
            listed.sort_unstable();
            expect(owned == listed, || format!("7: {key:?} has segments {owned:?}, not {listed:?}"))?;
            let tenants: BTreeSet<u32> =
                owned.iter().filter_map(|&index| self.segments.get(index)).map(|segment| segment.tenant).collect();
            expect(tenants.iter().all(|&tenant| tenant == session.tenant), || {
                format!("5: {key:?} of tenant {} has segments of tenants {tenants:?}", session.tenant)
            })?;
            let pages: u32 = owned.iter().filter_map(|&index| self.segments.get(index)).map(|s| s.pages).sum();
            expect(pages == session.committed_pages, || format!("8: {key:?} has {pages} pages"))?;
            expect(pages <= session.quota_pages, || format!("8: {key:?} has more than its share"))?;
            let in_use = self.slots.owned_by(key);
            let reserved = if session.is_live() { self.reserved_slots(key) } else { 0 };
            expect(in_use + reserved == session.owned_slots, || {
                format!("7: {key:?} has {in_use} + {reserved} slots, not {}", session.owned_slots)
            })?;
            expect(session.is_live() || in_use == 0, || format!("7: {key:?} has ended and has slots"))?;
            expect(session.accepted >= session.applied, || format!("6: {key:?} applied more than came"))?;
            let waiting = session.queue.len() + usize::from(session.blocked.is_some());
            let behind = session.accepted - session.applied;
            expect(!session.is_live() || behind == waiting as u64, || {
                format!("6: {key:?} took {}, applied {}, and {waiting} wait", session.accepted, session.applied)
            })?;
            expect(session.is_live() || waiting == 0, || format!("7: {key:?} has ended and waits"))?;
            let askers = self.waiters.askers.iter().filter(|(_, asker)| asker.session == key).count();
            expect(askers == session.askers, || format!("7: {key:?} has {askers} questions that wait"))?;
            let bytes: usize = session.answers.values().flatten().map(Vec::len).sum();
            expect(bytes == session.answer_bytes, || format!("6: {key:?} has {bytes} bytes of answers"))?;
        }
        let blocked = self
            .sessions
            .iter()
            .filter(|(_, s)| s.blocked.as_ref().is_some_and(|b| !matches!(b.wait, super::waiting::Wait::Memory(_))));
        let waiting = blocked.count() + self.waiters.askers.len();
        expect(waiting == self.waiters.len(), || format!("{waiting} wait, and {} are to be woken", self.waiters.len()))
    }
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
