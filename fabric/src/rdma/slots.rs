//! Registered memory for messages, in slots of one size: those that are sent, and those that are received into.

use crate::link::LinkError;
use dmrpc_rdma_sys::raw::ibv_sge;
use dmrpc_rdma_sys::{Access, MemoryRegion, ProtectionDomain};
use std::cell::UnsafeCell;
use std::sync::Arc;

/// Size of a slot, with its header. Small messages fit many times over, and larger ones keep a device busy.
pub(super) const SLOT_BYTES: usize = 8 * 1024;
/// Length of a slot's header.
pub(super) const SLOT_HEADER_BYTES: usize = 8;
/// How many slots of bytes a side may have on their way, or with its peer unread: what 100 Gbit/s take in 20 µs.
pub(super) const WINDOW: u32 = 32;
/// Receives that are posted for credits (see `docs/rdma.md`).
const CREDIT_SLOTS: u32 = 3;
/// Slots to receive into.
pub(super) const RECEIVE_SLOTS: u32 = WINDOW + CREDIT_SLOTS;
/// Slots to send from.
pub(super) const SEND_SLOTS: u32 = 24;

/// Bytes, without anything to follow them, of a side's own.
const KIND_DATA: u16 = 0;
/// A credit alone.
const KIND_CREDIT: u16 = 1;

/// What stands in front of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotHeader {
    /// How many slots of bytes its sender has taken out of its receive queue and posted again.
    pub(super) taken: u32,
    pub(super) has_bytes: bool,
}

impl SlotHeader {
    pub(super) fn encode(self) -> [u8; SLOT_HEADER_BYTES] {
        let [a, b, c, d] = self.taken.to_le_bytes();
        let [e, f] = if self.has_bytes { KIND_DATA } else { KIND_CREDIT }.to_le_bytes();
        [a, b, c, d, e, f, 0, 0]
    }

    pub(super) fn decode(bytes: [u8; SLOT_HEADER_BYTES]) -> Result<Self, LinkError> {
        let [a, b, c, d, e, f, g, h] = bytes;
        let has_bytes = match u16::from_le_bytes([e, f]) {
            KIND_DATA => true,
            KIND_CREDIT => false,
            _ => return Err(LinkError::Protocol("a slot of no known kind")),
        };
        if [g, h] != [0; 2] {
            return Err(LinkError::Protocol("a slot whose header makes no sense"));
        }
        Ok(Self { taken: u32::from_le_bytes([a, b, c, d]), has_bytes })
    }
}

/// A page of memory that a device writes too.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; 4096]>);

// SAFETY: it is only ever reached by raw pointers; whoever does answers for it.
unsafe impl Sync for Page {}
// SAFETY: as above.
unsafe impl Send for Page {}

/// The slots of a link.
pub(super) struct Slots {
    region: MemoryRegion,
}

impl Slots {
    pub(super) fn new(domain: &ProtectionDomain) -> Result<Self, LinkError> {
        let bytes = (RECEIVE_SLOTS + SEND_SLOTS) as usize * SLOT_BYTES;
        let pages: Arc<Box<[Page]>> =
            Arc::new((0..bytes / size_of::<Page>()).map(|_| Page(UnsafeCell::new([0; 4096]))).collect());
        let start = pages[0].0.get().cast();
        // SAFETY: the pages are next to each other, live as long as their owner, and nobody makes references to them.
        let region = unsafe { MemoryRegion::new(domain, start, bytes, Access::Local, pages)? };
        Ok(Self { region })
    }

    /// Where a slot begins; those to receive into come first.
    pub(super) fn at(&self, slot: u32) -> *mut u8 {
        debug_assert!(slot < RECEIVE_SLOTS + SEND_SLOTS);
        self.region.start().wrapping_add(slot as usize * SLOT_BYTES)
    }

    /// The first `len` bytes of a slot, as work requests name them.
    pub(super) fn piece(&self, slot: u32, len: usize) -> ibv_sge {
        ibv_sge { addr: self.at(slot) as u64, length: len as u32, lkey: self.region.local_key() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_come_back(taken: u32, has_bytes: bool, bytes: [u8; SLOT_HEADER_BYTES]) {
            let header = SlotHeader { taken, has_bytes };
            prop_assert_eq!(SlotHeader::decode(header.encode()).unwrap(), header);
            if let Ok(header) = SlotHeader::decode(bytes) {
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }
}
