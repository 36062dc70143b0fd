//! Drafts: new objects that are filled in place.

use crate::arena::{Allocation, Pieces};
use crate::buffer::Buffer;
use crate::client::Client;
use crate::layout::{Layout, Piece};
use crate::object::{Making, Object};
use crate::session::Undo;
use crate::{AnyRef, Codec, INLINE_BYTES, ObjectRef, StoreError, Subject, far};
use bytes::Bytes;
use dmrpc_fabric::link::Body;
use dmrpc_pages::Extent;
use dmrpc_wire::{ObjectId, Patch, Request, SlotLease, Span, Write};
use smallvec::SmallVec;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Memory for a new object, to be filled in place and sealed. Dropped unsealed, it leaves nothing behind.
///
/// What is in it before it is written is unspecified: zeros, or bytes of objects that this session dropped.
pub struct Draft {
    client: Arc<Client>,
    len: usize,
    memory: Memory,
}

enum Memory {
    /// Pages of the arena, in one piece.
    Pages(NewPages),
    /// Bytes that are to be copied or sent when they are sealed.
    Heap(Buffer),
}

/// Pages and a slot of the arena for an object that is being made; they go back unless it is.
pub(crate) struct NewPages {
    client: Arc<Client>,
    allocation: Option<Allocation>,
}

impl NewPages {
    pub(crate) fn new(client: &Arc<Client>, allocation: Allocation) -> Self {
        Self { client: client.clone(), allocation: Some(allocation) }
    }

    fn allocation(&self) -> &Allocation {
        self.allocation.as_ref().expect("taken only when it is used up")
    }

    /// The name that the object is to have.
    pub(crate) fn id(&self) -> ObjectId {
        self.allocation().id
    }

    /// The pages, in order.
    pub(crate) fn pieces(&self) -> &Pieces {
        &self.allocation().pieces
    }

    /// Somebody else sees to it that they come back.
    pub(crate) fn into_allocation(mut self) -> Allocation {
        self.allocation.take().expect("taken only when it is used up")
    }

    /// Copies bytes into the pages.
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        for (extent, segment) in &self.allocation().pieces {
            let len = (extent.count as usize) << self.client.page_size.shift();
            let (now, later) = rest.split_at(rest.len().min(len));
            let to = segment.start_of(*extent).expect("the arena gives what there is");
            // SAFETY: pages that the arena gave to us alone, in a mapping that `segment` keeps; `now` is no longer than they are.
            unsafe { to.as_ptr().copy_from_nonoverlapping(now.as_ptr(), now.len()) };
            rest = later;
        }
        debug_assert!(rest.is_empty(), "as many pages as it takes");
    }

    /// The first `len` bytes of the pages, if they are in one piece.
    pub(crate) fn bytes(&self, len: usize) -> *mut u8 {
        let (extent, segment) = &self.allocation().pieces[0];
        debug_assert!(len <= (extent.count as usize) << self.client.page_size.shift());
        segment.start_of(*extent).expect("the arena gives what there is").as_ptr()
    }

    /// Whether they can be mapped at other addresses as well.
    pub(crate) fn are_single(&self) -> bool {
        self.allocation().pieces.iter().all(|(_, segment)| segment.has_single_pages())
    }

    /// Makes an object of `len` bytes of them.
    pub(crate) fn into_object(mut self, len: u64) -> Result<Arc<Object>, StoreError> {
        let allocation = self.allocation();
        let mut at = 0;
        let mut pieces: SmallVec<[Piece; 1]> = SmallVec::new();
        let mut patches: SmallVec<[Patch; 1]> = SmallVec::new();
        for (extent, segment) in &allocation.pieces {
            pieces.push(Piece::new(at, *extent, segment)?);
            patches.push(Patch { at: at.into(), extent: (*extent).into() });
            at += extent.count;
        }
        let layout = Layout::new(0, pieces, self.client.page_size);
        let id = allocation.id;
        let client = self.client.clone();
        // The object has the pages from here on.
        self.allocation = None;
        Ok(Object::unpublished(&client, id, len, Making { base: None, patches }, layout))
    }
}

impl NewPages {
    /// The pages; the slot goes back.
    pub(crate) fn into_pieces(mut self) -> Pieces {
        let Allocation { id, pieces } = self.allocation.take().expect("taken only when it is used up");
        self.client.arena.give_back(std::iter::empty(), &[SlotLease::new(id.slot(), id.generation())]);
        pieces
    }

    /// The slot, for an object that is made of other pages.
    pub(crate) fn into_derived(mut self, len: u64, making: Making, layout: Layout) -> Arc<Object> {
        let id = self.allocation.take().expect("taken only when it is used up").id;
        Object::unpublished(&self.client.clone(), id, len, making, layout)
    }
}

impl Drop for NewPages {
    fn drop(&mut self) {
        if let Some(Allocation { id, pieces }) = self.allocation.take() {
            let slot = SlotLease::new(id.slot(), id.generation());
            self.client.arena.give_back(pieces.iter().map(|(extent, _)| *extent), &[slot]);
        }
    }
}

impl Draft {
    pub(crate) async fn new(client: &Arc<Client>, len: usize) -> Result<Self, StoreError> {
        check_len(client, len as u64)?;
        let memory = if len <= INLINE_BYTES || !client.local {
            Memory::Heap(client.buffer(len))
        } else {
            let pages = client.page_size.pages_for(len as u64).expect("not too large");
            match client.allocate(pages, true).await {
                Ok(allocation) => Memory::Pages(NewPages::new(client, allocation)),
                // There may be room, but not in one piece.
                Err(StoreError::OutOfMemory { .. } | StoreError::QuotaExceeded { .. }) => {
                    Memory::Heap(Buffer::zeroed(len))
                }
                Err(error) => return Err(error),
            }
        };
        Ok(Self { client: client.clone(), len, memory })
    }

    /// Makes an object of it, without a copy on the memory node's host.
    ///
    /// # Errors
    ///
    /// As [`Store::put`](crate::Store::put).
    pub async fn seal(self) -> Result<ObjectRef, StoreError> {
        self.seal_as(Codec::RAW).await.map(ObjectRef::trusted)
    }

    /// As [`seal`](Draft::seal), with a codec of the caller's choice.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn seal_as(self, codec: Codec) -> Result<AnyRef, StoreError> {
        let Self { client, len, memory } = self;
        match memory {
            Memory::Heap(buffer) if len <= INLINE_BYTES => Ok(AnyRef::inline(&buffer, codec)),
            Memory::Pages(pages) => pages.into_object(len as u64).map(|object| AnyRef::stored(object, codec)),
            Memory::Heap(buffer) if client.local => put_pages(&client, &buffer).await.map(|o| AnyRef::stored(o, codec)),
            Memory::Heap(buffer) => put_buffer(&client, Arc::new(buffer)).await.map(|o| AnyRef::stored(o, codec)),
        }
    }
}

impl Deref for Draft {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            // SAFETY: pages that the arena gave to us alone, as many as `len` takes, mapped as long as we have them.
            Memory::Pages(pages) => unsafe { std::slice::from_raw_parts(pages.bytes(self.len), self.len) },
            Memory::Heap(buffer) => buffer,
        }
    }
}

impl DerefMut for Draft {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            // SAFETY: as above; and nobody else writes there.
            Memory::Pages(pages) => unsafe { std::slice::from_raw_parts_mut(pages.bytes(self.len), self.len) },
            Memory::Heap(buffer) => buffer,
        }
    }
}

/// # Errors
///
/// [`StoreError::TooLarge`].
pub(crate) fn check_len(client: &Client, len: u64) -> Result<(), StoreError> {
    let limit = client.max_object_bytes;
    if len > limit || client.page_size.pages_for(len).is_none() {
        return Err(StoreError::TooLarge { what: "object", len, limit });
    }
    Ok(())
}

/// An object with a copy of `bytes`, on the node's host.
pub(crate) async fn put_pages(client: &Arc<Client>, bytes: &[u8]) -> Result<Arc<Object>, StoreError> {
    let pages = client.page_size.pages_for(bytes.len() as u64).expect("checked before");
    let allocation = client.allocate(pages, false).await?;
    let mut pages = NewPages::new(client, allocation);
    pages.fill(bytes);
    pages.into_object(bytes.len() as u64)
}

/// An object with the bytes of a buffer, over the network. They are likely to be read here too: the cache keeps them.
pub(crate) async fn put_buffer(client: &Arc<Client>, buffer: Arc<Buffer>) -> Result<Arc<Object>, StoreError> {
    struct Owner(Arc<Buffer>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let object = match far::put(client, &buffer).await? {
        Some(object) => object,
        None => {
            let bytes = Bytes::from_owner(Owner(buffer.clone()));
            write(client, ObjectId::NULL, bytes.len() as u64, &whole(bytes)).await?
        }
    };
    client.cache.insert(object.id(), 0..object.size(), &buffer);
    Ok(object)
}

pub(crate) fn whole(bytes: Bytes) -> Vec<(u64, Bytes)> {
    vec![(0, bytes)]
}

/// An object made of `base` and spans of bytes over it, over the network.
pub(crate) async fn write(
    client: &Arc<Client>,
    base: ObjectId,
    size: u64,
    spans: &[(u64, Bytes)],
) -> Result<Arc<Object>, StoreError> {
    check_len(client, size)?;
    let id = client.allocate_slot().await?;
    let ranges: Vec<Span> =
        spans.iter().map(|(at, bytes)| Span { offset: (*at).into(), length: (bytes.len() as u64).into() }).collect();
    let body: Body = spans.iter().map(|(_, bytes)| bytes.clone()).filter(|bytes| !bytes.is_empty()).collect();
    let request = Request::Write(Write { id, base, size, spans: &ranges });
    let about = if base.is_null() {
        Subject::Memory(client.page_size.pages_for(size).unwrap_or(u32::MAX))
    } else {
        Subject::Object(base)
    };
    let written = client.ask("writing", Some(about), &request, body, Undo::Release(id)).await;
    match written {
        Ok(_) => Ok(Object::held(client, id, size)),
        Err(error) => {
            // After a refusal the slot is as it was; after a deadline nobody knows, and it stays away.
            if !matches!(error, StoreError::Deadline { .. } | StoreError::Closed | StoreError::Forked) {
                client.arena.give_back(std::iter::empty::<Extent>(), &[SlotLease::new(id.slot(), id.generation())]);
            }
            Err(error)
        }
    }
}
