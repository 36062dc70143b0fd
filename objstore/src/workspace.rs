//! Workspaces: new objects whose memory stays in use after they are made.
//!
//! Whoever fills a [`Draft`](crate::Draft) gives its memory up when it is sealed. A workspace keeps its address: sealed, it is a private
//! picture of the object. So an array can be allocated in the store, filled, made an object without a copy, and then be
//! written again, seen by nobody else.
//!
//! 1. The address of the bytes never changes, from [`Workspace::open`] to the end of the [`PrivateView`].
//! 2. Nobody can write to the pages of the object once it is sealed: from then on the address shows private copies.

use crate::buffer::Buffer;
use crate::client::Client;
use crate::draft::{self, NewPages};
use crate::layout::Layout;
use crate::mosaic::Mosaic;
use crate::private::PrivateView;
use crate::reference::Target;
use crate::{AnyRef, Codec, INLINE_BYTES, StoreError, View};
use rustix::mm::{Advice, MremapFlags, madvise, mremap};
use std::sync::Arc;

/// Memory for a new object, at an address that stays. Dropped unsealed, it leaves nothing behind.
pub struct Workspace {
    client: Arc<Client>,
    len: usize,
    memory: Memory,
}

enum Memory {
    /// The pages of the arena at an address of their own. The second mapping goes before the pages do.
    Alias(Mosaic, NewPages),
    /// Bytes that are copied or sent when they are sealed: they are few, or the node is elsewhere, or its pages can't be
    /// mapped twice.
    Heap(Buffer),
}

impl Workspace {
    pub(crate) async fn open(client: &Arc<Client>, len: usize) -> Result<Self, StoreError> {
        draft::check_len(client, len as u64)?;
        let memory = if len > INLINE_BYTES && client.local {
            let count = client.page_size.pages_for(len as u64).expect("not too large");
            let pages = NewPages::new(client, client.allocate(count, true).await?);
            match alias(&pages, (count as usize) << client.page_size.shift()) {
                Some(mosaic) => Memory::Alias(mosaic, pages),
                None => Memory::Heap(Buffer::zeroed(len)),
            }
        } else {
            Memory::Heap(Buffer::zeroed(len))
        };
        Ok(Self { client: client.clone(), len, memory })
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the bytes are: valid for reads and writes as long as the workspace, and then the view that it becomes, lives.
    /// What is there before it is written is unspecified.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        match &mut self.memory {
            Memory::Alias(mosaic, _) => mosaic.start(),
            Memory::Heap(buffer) => buffer.as_mut_ptr(),
        }
    }

    /// Makes an object of it, without a copy on the memory node's host, and a private picture of that at the same address. Who
    /// writes there while this runs changes the one or the other.
    ///
    /// # Errors
    ///
    /// As [`Store::put`](crate::Store::put). The memory is gone then.
    pub async fn seal(self, codec: Codec) -> Result<PrivateView, StoreError> {
        let Self { client, len, memory } = self;
        match memory {
            Memory::Alias(mosaic, pages) => {
                let object = pages.into_object(len as u64)?;
                let range = 0..len as u64;
                let layout = object.layout(&range).expect("a new object knows where it is");
                let pieces: Vec<_> = layout.cut(Layout::pages_of(&range, layout.page_size())).collect();
                let mosaic = mosaic.replace(&pieces, layout.page_size())?;
                let view = View::open(&AnyRef::stored(object, codec)).await?;
                Ok(PrivateView::in_mosaic(mosaic, view))
            }
            Memory::Heap(buffer) => {
                let any = crate::store::put_any(&client, &buffer, codec).await?;
                let view = View::open(&any).await?;
                debug_assert!(matches!(any.target, Target::Inline(_)) || len > INLINE_BYTES);
                Ok(PrivateView::in_buffer(buffer, view))
            }
        }
    }
}

/// The pages once more, at an address of their own.
fn alias(pages: &NewPages, len: usize) -> Option<Mosaic> {
    if !pages.are_single() {
        return None;
    }
    let start = pages.bytes(len);
    // SAFETY: with an old size of 0 the pages of a shared mapping are mapped once more, at an address of the kernel's choice;
    // the first mapping stays as it is.
    let alias = unsafe { mremap(start.cast(), 0, len, MremapFlags::MAYMOVE) }.ok()?;
    // All at once: a fault for each page would take as long as a copy. Where the kernel does not know this, they come one
    // by one.
    // SAFETY: the mapping that was just made; nothing in it changes.
    let _ = unsafe { madvise(alias, len, Advice::LinuxPopulateWrite) };
    Some(Mosaic::adopt(alias.cast(), len))
}
