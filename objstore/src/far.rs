//! Memory of a node that is reached over RDMA: read and written without the node's having a part in it (`docs/rdma.md`).
//!
//! 1. What is read counts if the session holds the object, which the node is known to have: then its pages are nothing else's, and the
//!    link ends before they are. Otherwise it counts only if the object stood on the board before and after it was read, and if it did
//!    not the node is asked.
//! 2. The bytes of an object are posted before its commit, to the same queue pair; those of a large one are in their place before
//!    that is sent. Pages that a device may still write to are not given back.
//! 3. A key is used only for what is known to be registered: an object that this session does not hold itself has to be on the
//!    board before its pages are read at all. A key that ended would end the link.

use crate::arena::{Allocation, Arena};
use crate::buffer::Buffer;
use crate::client::Client;
use crate::draft::NewPages;
use crate::layout::Layout;
use crate::object::Object;
use crate::session::{Answer, Undo};
use crate::{StoreError, Subject};
use dmrpc_fabric::link::{Body, LinkError};
use dmrpc_fabric::rdma::{BULK_BYTES, Block, Heap, OneSided, RemoteRun, Step};
use dmrpc_pages::Extent;
use dmrpc_wire::{Commit, ObjectId, Patch, RegionInfo, Request, SlotLease};
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Size of an entry on the board, in bytes.
const ENTRY_BYTES: usize = 8;

/// The other end of a link over RDMA.
pub(crate) struct Far {
    one_sided: OneSided,
    heap: Arc<Heap>,
    /// Where segments can be read; `None` is the board.
    regions: RwLock<HashMap<Option<u32>, RegionInfo>>,
    /// Pages and slots of objects that were given up while they were written, and are written no more.
    given_up: Arc<Mutex<Vec<Allocation>>>,
}

/// Pages that are being written, for whoever waits for that; given up if nobody does.
struct Written {
    pages: Option<Allocation>,
    given_up: Arc<Mutex<Vec<Allocation>>>,
}

impl Drop for Written {
    fn drop(&mut self) {
        // In a thread that may have any lock but this one: what else is to be done, others do.
        self.given_up.lock().extend(self.pages.take());
    }
}

impl Far {
    pub(crate) fn new(one_sided: OneSided) -> Result<Self, LinkError> {
        Ok(Self { heap: one_sided.heap()?, one_sided, regions: RwLock::default(), given_up: Arc::default() })
    }

    /// A buffer that can be read into and written from; one in the heap if no memory can be registered.
    pub(crate) fn buffer(&self, len: usize) -> Buffer {
        match self.heap.block(len) {
            Ok(block) => Buffer::registered(block, len),
            Err(error) => {
                tracing::warn!("bytes are sent as messages: {error}");
                Buffer::zeroed(len)
            }
        }
    }

    /// Gives back what can be used again of objects that were given up.
    pub(crate) fn give_back(&self, arena: &Arena) {
        for Allocation { id, pieces } in std::mem::take(&mut *self.given_up.lock()) {
            let slot = SlotLease::new(id.slot(), id.generation());
            arena.give_back(pieces.iter().map(|(extent, _)| *extent), &[slot]);
        }
    }

    /// Nothing is done over the link any more.
    pub(crate) fn end(&self) {
        self.one_sided.fence();
    }
}

/// `len` bytes of a region from `offset` on, if it has them.
pub(crate) fn run(region: &RegionInfo, offset: u64, len: u64) -> Option<RemoteRun> {
    let end = offset.checked_add(len)?;
    (end <= region.bytes).then(|| RemoteRun { address: region.address + offset, key: region.key })
}

impl Client {
    /// Where a segment, or the board, can be read.
    async fn region(&self, far: &Far, segment: Option<u32>) -> Result<RegionInfo, StoreError> {
        if let Some(region) = far.regions.read().get(&segment) {
            return Ok(*region);
        }
        let request = Request::Region { segment, write: false };
        let about = segment.map(Subject::Segment);
        match self.ask("asking where memory is registered", about, &request, Body::new(), Undo::Nothing).await? {
            Answer::Region(region) => {
                far.regions.write().insert(segment, region);
                Ok(region)
            }
            _ => Err(StoreError::Malformed("an answer to another request")),
        }
    }
}

/// Bytes of an object. `None` if the node has to be asked for them.
pub(crate) async fn read(object: &Object, range: &Range<u64>) -> Result<Option<Arc<Buffer>>, StoreError> {
    let client = &object.client;
    let Some(far) = &client.far else { return Ok(None) };
    let len = (range.end - range.start) as usize;
    if len == 0 {
        return Ok(None);
    }
    if object.is_fixed() {
        let Ok(mut block) = far.heap.block(len) else { return Ok(None) };
        let steps = steps(object, far, range, &mut block).await?;
        if steps.is_empty() {
            return Ok(Some(Arc::new(Buffer::registered(block, len))));
        }
        // If the link is gone whoever asks the node is told why.
        return Ok(far.one_sided.read(block, steps).await.ok().map(|block| Arc::new(Buffer::registered(block, len))));
    }

    let id = object.id();
    let board = client.region(far, None).await?;
    let Some(entry) = run(&board, u64::from(id.slot()) * ENTRY_BYTES as u64, ENTRY_BYTES as u64) else {
        return Ok(None);
    };
    let entry_at = |at, fenced| Step { at, len: ENTRY_BYTES, remote: entry, fenced };
    // Behind the bytes there is place for two entries.
    let tail = len.next_multiple_of(ENTRY_BYTES);
    let Ok(mut block) = far.heap.block(tail + 2 * ENTRY_BYTES) else { return Ok(None) };
    if !object.is_held() {
        block = match far.one_sided.read(block, vec![entry_at(tail, false)]).await {
            Ok(block) if entry_in(&block, tail) == id.generation().into() => block,
            _ => return Ok(None),
        };
    }
    let mut all = vec![entry_at(tail, false)];
    all.extend(steps(object, far, range, &mut block).await?);
    all.push(entry_at(tail + ENTRY_BYTES, true));
    match far.one_sided.read(block, all).await {
        Ok(block) => {
            let generation = u64::from(id.generation());
            let was_there = [tail, tail + ENTRY_BYTES].iter().all(|&at| entry_in(&block, at) == generation);
            Ok(was_there.then(|| Arc::new(Buffer::registered(block, len))))
        }
        // As above.
        Err(_) => Ok(None),
    }
}

/// What has to be read for bytes of an object. Holes are filled here.
async fn steps(object: &Object, far: &Far, range: &Range<u64>, block: &mut Block) -> Result<Vec<Step>, StoreError> {
    let (client, len) = (&object.client, (range.end - range.start) as usize);
    let mut steps = Vec::new();
    let shift = client.page_size.shift();
    let pages = Layout::pages_of(range, client.page_size);
    let mut skip = range.start - (u64::from(pages.start) << shift);
    let mut at = 0;
    for extent in object.extents(pages).await? {
        let piece = ((u64::from(extent.count) << shift) - skip).min((len - at) as u64);
        if extent.is_hole() {
            block[at..at + piece as usize].fill(0);
        } else {
            let region = client.region(far, Some(extent.segment.0)).await?;
            let remote = run(&region, (u64::from(extent.first) << shift) + skip, piece)
                .ok_or(StoreError::Malformed("an extent outside its segment"))?;
            steps.push(Step { at, len: piece as usize, remote, fenced: false });
        }
        at += piece as usize;
        skip = 0;
    }
    if at != len {
        return Err(StoreError::Malformed("extents that are too few"));
    }
    Ok(steps)
}

fn entry_in(block: &Block, at: usize) -> u64 {
    u64::from_ne_bytes(block[at..at + ENTRY_BYTES].try_into().expect("eight bytes"))
}

/// An object with the bytes of a buffer: written and published behind one doorbell, and not waited for; but a large one is
/// written first, beside what else the session has to say. `None` if the buffer is not registered.
pub(crate) async fn put(client: &Arc<Client>, buffer: &Arc<Buffer>) -> Result<Option<Arc<Object>>, StoreError> {
    let (Some(far), Some(block)) = (&client.far, buffer.block()) else { return Ok(None) };
    let size = buffer.len() as u64;
    let count = client.page_size.pages_for(size).expect("checked before");
    let mut pages = NewPages::new(client, client.allocate(count, false).await?);
    let shift = client.page_size.shift();
    let (mut steps, mut patches, mut extents) = (Vec::new(), SmallVec::<[Patch; 1]>::new(), SmallVec::new());
    let (mut at, mut page) = (0, 0);
    for (extent, segment) in pages.pieces() {
        let len = (u64::from(extent.count) << shift).min(size - at);
        let remote = segment.remote_of(*extent).expect("the arena gives what there is");
        steps.push(Step { at: at as usize, len: len as usize, remote, fenced: false });
        patches.push(Patch { at: page.into(), extent: (*extent).into() });
        extents.push(*extent);
        at += len;
        page += extent.count;
    }
    if buffer.len() > BULK_BYTES {
        let written = Written { pages: Some(pages.into_allocation()), given_up: far.given_up.clone() };
        let mut written = far
            .one_sided
            .write(block.clone(), std::mem::take(&mut steps), written)
            .await
            .map_err(|error| client.end_of_session().unwrap_or_else(|| client.session.unreachable(&error)))?;
        pages = NewPages::new(client, written.pages.take().expect("taken here only"));
    }
    let mut session = client.session.lock();
    // Releases go along: they need no wake-up of their own.
    session.send_releases();
    let id = pages.id();
    let commit = Commit { id, base: ObjectId::NULL, size, patches: &patches };
    if !steps.is_empty() {
        far.one_sided.write_behind(block.clone(), steps);
    }
    let sequence = session.send(&Request::Commit(commit), Body::new())?;
    // The object has the pages from here on.
    let Allocation { .. } = pages.into_allocation();
    let object = Object::put_far(client, id, size, extents);
    session.remember_commit(sequence, &object);
    session.flush();
    drop(session);
    Ok(Some(object))
}

/// The part of an object's extents that covers some of its pages, of which `extents` begin with the first of the object.
pub(crate) fn cut(extents: &[Extent], pages: &Range<u32>) -> SmallVec<[Extent; 4]> {
    let mut at = 0;
    let mut found = SmallVec::new();
    for extent in extents {
        let end = at + extent.count;
        let (from, to) = (pages.start.max(at), pages.end.min(end));
        if from < to {
            let first = if extent.is_hole() { 0 } else { extent.first + (from - at) };
            found.push(Extent::new(extent.segment, first, to - from));
        }
        at = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use dmrpc_pages::SegmentId;

    #[test]
    fn runs_lie_within_their_region() {
        let region = RegionInfo { address: 1000, bytes: 100, key: 7 };
        assert_eq!(run(&region, 90, 10), Some(RemoteRun { address: 1090, key: 7 }));
        assert_eq!(run(&region, 91, 10), None);
        assert_eq!(run(&region, u64::MAX, 10), None);
    }

    #[test]
    fn extents_are_cut_to_pages() {
        let of = |segment, first, count| Extent::new(SegmentId(segment), first, count);
        let extents = [of(1, 10, 4), Extent::hole(2), of(2, 0, 3)];
        assert_eq!(cut(&extents, &(0..9))[..], extents);
        assert_eq!(cut(&extents, &(1..3))[..], [of(1, 11, 2)]);
        assert_eq!(cut(&extents, &(3..7))[..], [of(1, 13, 1), Extent::hole(2), of(2, 0, 1)]);
        assert!(cut(&extents, &(4..4)).is_empty());
    }
}
