//! Reads and writes whose bytes are on their way between a link and pages.
//!
//! 1. While bytes are on their way a read keeps its object, and a write its base and its own pages, which are in no object.
//! 2. A write makes its object when all of its bytes are there, or not at all; then it is as if it had never come.

use super::core::Core;
use super::event::{Action, Actions, LinkId, Region, Ticket};
use super::requests::Stop;
use super::sessions::SessionKey;
use dmrpc_pages::Extent;
use dmrpc_wire::{ObjectId, Reply, RequestHead, Status, Write};
use std::collections::BTreeMap;

/// The most reads and writes of one session whose bytes are on their way. Further ones are refused.
pub(crate) const MAX_TRANSFERS_PER_SESSION: usize = 1024;

/// A body may take as long as if it came at this speed, and a lease longer: until it has come no renewal can, as nothing else
/// is read from its link.
const SLOWEST_BYTES_PER_MS: u64 = 1_000;

/// A write that has its pages.
pub(crate) struct PendingWrite {
    pub(crate) head: RequestHead,
    pub(crate) id: ObjectId,
    /// The slot of the base, on which this has a reference.
    pub(crate) base: Option<u32>,
    pub(crate) size: u64,
    /// Where in the object the new pages go, in order.
    pub(crate) patches: Vec<(u32, Extent)>,
    pub(crate) length: u64,
}

pub(crate) enum Kind {
    /// Of the object in this slot, on which this has a reference.
    Read {
        slot: u32,
        length: u64,
    },
    Write(PendingWrite),
}

pub(crate) struct Transfer {
    pub(crate) link: LinkId,
    pub(crate) session: SessionKey,
    pub(crate) kind: Kind,
}

#[derive(Default)]
pub(crate) struct Transfers {
    table: BTreeMap<u64, Transfer>,
    last: u64,
}

impl Transfers {
    fn insert(&mut self, transfer: Transfer) -> Ticket {
        let ticket = self.ticket();
        self.table.insert(ticket.0, transfer);
        ticket
    }

    /// One that was never given before.
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.last += 1;
        Ticket(self.last)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Transfer> {
        self.table.values()
    }
}

impl Core {
    /// Sends bytes of the object in `slot`, which lie within it.
    pub(super) fn send_pages(
        &mut self,
        key: SessionKey,
        head: RequestHead,
        link: LinkId,
        slot: u32,
        range: (u64, u64),
        out: &mut Actions,
    ) -> Result<(), Status> {
        let (offset, length) = range;
        let session = self.sessions.get_mut(key);
        if session.transfers >= MAX_TRANSFERS_PER_SESSION {
            return Err(Status::TooManyReferences);
        }
        let applied = session.applied;
        if length == 0 {
            self.reply(key, head, Status::Ok, &Reply::Data, out);
            return Ok(());
        }
        session.transfers += 1;
        let size = self.config.page_size;
        let first = (offset >> size.shift()) as u32;
        let skip = (offset & (size.bytes() - 1)) as u32;
        let pages = size.pages_for(u64::from(skip) + length).expect("it lies within an object");
        let start = out.extents.len();
        let object = self.slots.object(slot);
        object.references += 1;
        self.snapshots.walk(&object.root, first, pages, &mut |extent| {
            match out.extents[start..].last_mut() {
                Some(last) if last.joins(extent) => last.count += extent.count,
                _ => out.extents.push(extent),
            }
            true
        });
        let ticket = self.transfers.insert(Transfer { link, session: key, kind: Kind::Read { slot, length } });
        let bytes = out.head(|bytes| Reply::Data.encode(Status::Ok, head.sequence, applied, bytes));
        let extents = start..out.extents.len();
        out.list.push(Action::SendPages { link, head: bytes, ticket, extents, skip, length });
        Ok(())
    }

    pub(super) fn sent(&mut self, ticket: Ticket) {
        let Some(Transfer { kind: Kind::Read { .. }, .. }) = self.transfers.table.get(&ticket.0) else { return };
        let transfer = self.transfers.table.remove(&ticket.0).expect("it was just looked at");
        self.end_transfer(transfer, true);
    }

    /// Makes an object of bytes that wait on `body`.
    pub(super) fn write(
        &mut self,
        key: SessionKey,
        head: RequestHead,
        write: &Write<'_>,
        body: Option<(LinkId, u64)>,
        out: &mut Actions,
    ) -> Result<(), Stop> {
        let page = self.config.page_size;
        let length = check_spans(write)?;
        if length != body.map_or(0, |(_, length)| length) {
            return Err(Status::Malformed.into());
        }
        if write.size > self.config.max_object_bytes || page.pages_for(write.size).is_none() {
            return Err(Status::TooLarge.into());
        }
        let session = self.sessions.get(key);
        let tenant = session.tenant;
        if session.transfers >= MAX_TRANSFERS_PER_SESSION {
            return Err(Status::TooManyReferences.into());
        }
        self.slots.check_empty(&write.id, key)?;
        let base = if write.base.is_null() { None } else { Some(self.find(&write.base, tenant)?) };
        let base_size = base.map_or(0, |slot| self.slots.object(slot).size);

        // The pages of the object that are written, wholly or in part, as runs; and those of them that keep bytes.
        let mut runs: Vec<(u32, u32)> = Vec::new();
        let mut kept: Vec<u32> = Vec::new();
        let mut touch = |first: u64, last: u64| match runs.last_mut() {
            Some((start, count)) if u64::from(*start) + u64::from(*count) >= first => {
                *count = (*count).max((last + 1 - u64::from(*start)) as u32);
            }
            _ => runs.push((first as u32, (last + 1 - first) as u32)),
        };
        let mut keep = |page: u64| {
            if kept.last() != Some(&(page as u32)) {
                kept.push(page as u32);
            }
        };
        // When it grows, what lay behind the end of the base in its last page has to become zeros.
        let mut tail =
            (write.size > base_size && base_size & (page.bytes() - 1) != 0).then(|| base_size >> page.shift());
        for span in write.spans {
            let (start, end) = (span.offset.get(), span.offset.get() + span.length.get());
            let (first, last) = (start >> page.shift(), (end - 1) >> page.shift());
            if let Some(grown) = tail.filter(|&grown| grown <= last) {
                tail = None;
                if grown < first {
                    touch(grown, grown);
                    keep(grown);
                }
            }
            touch(first, last);
            if start & (page.bytes() - 1) != 0 {
                keep(first);
            }
            if end & (page.bytes() - 1) != 0 {
                keep(last);
            }
        }
        if let Some(grown) = tail {
            touch(grown, grown);
            keep(grown);
        }

        let pages: u64 = runs.iter().map(|&(_, count)| u64::from(count)).sum();
        let pages = u32::try_from(pages).map_err(|_| Status::TooLarge)?;
        self.provide(key, pages)?;
        let session = self.sessions.get_mut(key);
        let pieces = self.segments.allocate(key, &session.segments, pages).expect("they are provided");
        session.transfers += 1;
        if let Some(slot) = base {
            self.slots.object(slot).references += 1;
        }
        let patches = lay_out(&runs, pieces);
        self.copy_kept(&kept, &patches, base, base_size, out);
        let pending = PendingWrite { head, id: write.id, base, size: write.size, patches, length };
        let Some((link, _)) = body else {
            self.finish_write(key, pending, out);
            return Ok(());
        };
        let start = out.regions.len();
        for span in write.spans {
            let (offset, length) = (span.offset.get(), span.length.get());
            push_regions(&pending.patches, offset, length, page.shift(), start, &mut out.regions);
        }
        let regions = start..out.regions.len();
        let patience = self.config.lease_ms.saturating_add(length / SLOWEST_BYTES_PER_MS);
        let session = self.sessions.get_mut(key);
        session.lease_until = session.lease_until.max(self.now.saturating_add(patience));
        let ticket = self.transfers.insert(Transfer { link, session: key, kind: Kind::Write(pending) });
        out.list.push(Action::Receive { link, ticket, regions });
        Ok(())
    }

    /// Fills those of the new pages that the write does not fill wholly: from the base, or with zeros.
    fn copy_kept(
        &mut self,
        kept: &[u32],
        patches: &[(u32, Extent)],
        base: Option<u32>,
        base_size: u64,
        out: &mut Actions,
    ) {
        let page_bytes = self.config.page_size.bytes();
        let mut patch = patches.iter();
        let mut current = patch.next();
        for &page in kept {
            while let Some(&(at, extent)) = current
                && page >= at + extent.count
            {
                current = patch.next();
            }
            let &(at, extent) = current.expect("pages that keep bytes are among the written ones");
            let to = Extent::new(extent.segment, extent.first + (page - at), 1);
            let from = match base {
                Some(slot) if u64::from(page) * page_bytes < base_size => {
                    self.snapshots.page(&self.slots.object(slot).root, page)
                }
                _ => Extent::hole(1),
            };
            self.counters.pages_copied += u64::from(!from.is_hole());
            out.list.push(Action::CopyPage { from, to });
            let in_base = base_size.saturating_sub(u64::from(page) * page_bytes);
            if !from.is_hole() && in_base < page_bytes {
                let offset = u64::from(to.first) * page_bytes + in_base;
                let region = Region { segment: to.segment.0, offset, length: page_bytes - in_base };
                out.list.push(Action::ZeroBytes { region });
            }
        }
    }

    pub(super) fn received(&mut self, ticket: Ticket, whole: bool, out: &mut Actions) {
        let Some(Transfer { kind: Kind::Write(_), .. }) = self.transfers.table.get(&ticket.0) else { return };
        let transfer = self.transfers.table.remove(&ticket.0).expect("it was just looked at");
        if !whole || self.sessions.live_mut(transfer.session).is_none() {
            self.end_transfer(transfer, false);
            return;
        }
        let Kind::Write(write) = transfer.kind else { unreachable!("it was just looked at") };
        // Renewals can come again.
        self.sessions.get_mut(transfer.session).lease_until = self.now.saturating_add(self.config.lease_ms);
        self.finish_write(transfer.session, write, out);
    }

    /// All pages of the write are as they are to be: the object is made.
    fn finish_write(&mut self, key: SessionKey, write: PendingWrite, out: &mut Actions) {
        let PendingWrite { head, id, base, size, patches, length } = write;
        self.sessions.get_mut(key).transfers -= 1;
        self.counters.bytes_written += length;
        let made = self.make_object(key, &id, base, size, patches.iter().copied());
        if let Some(slot) = base {
            self.drop_references(slot, 1);
        }
        match made {
            Ok(()) => self.reply(key, head, Status::Ok, &Reply::Done, out),
            Err(status) => {
                self.unallocate(&patches);
                self.fail(key, head, status, out);
            }
        }
    }

    /// Ends everything that is on its way over a link that is gone.
    pub(super) fn end_transfers(&mut self, link: LinkId) {
        let ended: Vec<u64> =
            self.transfers.table.iter().filter(|(_, t)| t.link == link).map(|(&ticket, _)| ticket).collect();
        for ticket in ended {
            let transfer = self.transfers.table.remove(&ticket).expect("it was just found");
            self.end_transfer(transfer, false);
        }
    }

    /// A read is over, or a write is not to be.
    fn end_transfer(&mut self, transfer: Transfer, whole: bool) {
        if let Some(session) = self.sessions.try_get_mut(transfer.session) {
            session.transfers -= 1;
        }
        match transfer.kind {
            Kind::Read { slot, length } => {
                self.counters.bytes_read += if whole { length } else { 0 };
                self.drop_references(slot, 1);
            }
            Kind::Write(write) => {
                self.unallocate(&write.patches);
                if let Some(slot) = write.base {
                    self.drop_references(slot, 1);
                }
                // It has to come again, and nothing was read from its link after it.
                if let Some(session) = self.sessions.live_mut(transfer.session) {
                    session.lease_until = self.now.saturating_add(self.config.lease_ms);
                    let sequence = write.head.sequence;
                    session.answers.remove(&sequence);
                    if session.accepted == sequence {
                        session.accepted = sequence - 1;
                        session.applied = sequence - 1;
                    }
                }
            }
        }
    }

    fn unallocate(&mut self, patches: &[(u32, Extent)]) {
        let pieces: Vec<Extent> = patches.iter().map(|&(_, extent)| extent).collect();
        self.segments.unallocate(&pieces);
    }
}

/// How many bytes the spans have, if they are what they have to be: ascending, disjoint, not empty, within the object.
fn check_spans(write: &Write<'_>) -> Result<u64, Status> {
    let (mut end, mut total) = (0, 0);
    for span in write.spans {
        let (offset, length) = (span.offset.get(), span.length.get());
        if length == 0 || offset < end {
            return Err(Status::Malformed);
        }
        end = offset.checked_add(length).filter(|&end| end <= write.size).ok_or(Status::OutOfRange)?;
        total += length;
    }
    Ok(total)
}

/// Which allocated pages stand for which pages of the object.
fn lay_out(runs: &[(u32, u32)], pieces: Vec<Extent>) -> Vec<(u32, Extent)> {
    let mut patches = Vec::with_capacity(runs.len() + pieces.len());
    let mut pieces = pieces.into_iter();
    let mut rest: Option<Extent> = None;
    for &(mut at, mut count) in runs {
        while count > 0 {
            let piece = rest.take().or_else(|| pieces.next()).expect("so many pages were allocated");
            let piece = match piece.split_at(count) {
                Some((head, tail)) => {
                    rest = Some(tail);
                    head
                }
                None => piece,
            };
            patches.push((at, piece));
            at += piece.count;
            count -= piece.count;
        }
    }
    patches
}

/// Where `length` bytes from `offset` of the object on are, in pages that were written. The regions of this write begin at
/// `start` of all regions.
fn push_regions(
    patches: &[(u32, Extent)],
    mut offset: u64,
    mut length: u64,
    shift: u32,
    start: usize,
    regions: &mut Vec<Region>,
) {
    let mut next = patches.partition_point(|&(at, extent)| u64::from(at + extent.count) << shift <= offset);
    while length > 0 {
        let (at, extent) = patches[next];
        let into = offset - (u64::from(at) << shift);
        let part = length.min((u64::from(extent.count) << shift) - into);
        let (segment, at) = (extent.segment.0, (u64::from(extent.first) << shift) + into);
        match regions[start..].last_mut() {
            Some(last) if last.segment == segment && last.offset + last.length == at => last.length += part,
            _ => regions.push(Region { segment, offset: at, length: part }),
        }
        offset += part;
        length -= part;
        next += 1;
    }
}
