//! What is registered with a device, for whom, and when that ends.
//!
//! 1. A segment is registered for reading once in each domain, when somebody first asks, and until it is dropped.
//! 2. What is registered for writing is one link's, and ends with it: first its queue pair goes into error, then this, then
//!    the core hears that the link is gone.
//! 3. Registering and deregistering are the segment maker's: pinning pages takes long.

use super::board::Board;
use super::segment::Segment;
use crate::core::{LinkId, Ticket};
use dmrpc_fabric::link::{LinkError, Part};
use dmrpc_fabric::rdma::{Access, MemoryRegion, Registrar};
use dmrpc_pages::ByteSize;
use dmrpc_wire::RegionInfo;
use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Registering more than that takes some tenth of a second, and is told of.
const LONG_BYTES: usize = 256 << 20;

/// Memory that is to be registered.
pub(crate) struct Registration {
    /// For whom.
    pub(crate) link: LinkId,
    pub(crate) ticket: Ticket,
    /// `None` for the board.
    pub(crate) segment: Option<u32>,
    pub(crate) domain: usize,
    pub(crate) write: bool,
    part: Part,
    owner: Arc<dyn Any + Send + Sync>,
    registrar: Registrar,
}

impl Registration {
    pub(crate) fn of_segment(
        (link, ticket): (LinkId, Ticket),
        (number, segment): (u32, &Arc<Segment>),
        write: bool,
        (domain, registrar): (usize, Registrar),
    ) -> Self {
        let len = segment.bytes();
        let part = Part { start: segment.at(0, len as u64), len };
        Self { link, ticket, segment: Some(number), domain, write, part, owner: segment.clone(), registrar }
    }

    pub(crate) fn of_board(
        (link, ticket): (LinkId, Ticket),
        board: &Arc<Board>,
        (domain, registrar): (usize, Registrar),
    ) -> Self {
        let part = Part { start: board.start(), len: board.bytes() };
        Self { link, ticket, segment: None, domain, write: false, part, owner: board.clone(), registrar }
    }

    /// Registers it.
    pub(crate) fn carry_out(&self) -> Result<MemoryRegion, LinkError> {
        let access = if self.write { Access::RemoteWrite } else { Access::RemoteRead };
        let size = ByteSize(self.part.len as u64);
        let is_long = self.part.len >= LONG_BYTES;
        if is_long {
            tracing::info!(segment = self.segment, %size, "registering memory with the device");
        }
        let started = Instant::now();
        // SAFETY: the owner is a segment, whose bytes nobody makes references to, or the board, which is of atomics and is
        // registered for reading alone; either is mapped as long as it lives.
        let region = unsafe { self.registrar.register(self.part.start, self.part.len, access, self.owner.clone()) }?;
        if is_long {
            tracing::info!(segment = self.segment, %size, took = ?started.elapsed(), "registered");
        } else {
            tracing::debug!(segment = self.segment, %size, took = ?started.elapsed(), "registered");
        }
        Ok(region)
    }
}

/// What is registered.
#[derive(Default)]
pub(crate) struct Registry {
    reading: HashMap<(Option<u32>, usize), Vec<MemoryRegion>>,
    writing: HashMap<LinkId, Vec<(u32, MemoryRegion)>>,
}

impl Registry {
    /// Where a segment, or the board, can be read in a domain, if it can already.
    pub(crate) fn find(&self, segment: Option<u32>, domain: usize) -> Option<RegionInfo> {
        self.reading.get(&(segment, domain))?.first().map(info)
    }

    /// Keeps what was registered.
    pub(crate) fn keep(&mut self, registration: &Registration, region: MemoryRegion) {
        match registration.segment {
            Some(segment) if registration.write => {
                self.writing.entry(registration.link).or_default().push((segment, region));
            }
            segment => self.reading.entry((segment, registration.domain)).or_default().push(region),
        }
    }

    /// Everything of a segment that is dropped.
    pub(crate) fn take_segment(&mut self, segment: u32) -> Vec<MemoryRegion> {
        if self.reading.is_empty() && self.writing.is_empty() {
            return Vec::new();
        }
        let reading = self.reading.extract_if(|(of, _), _| *of == Some(segment)).flat_map(|(_, regions)| regions);
        let mut taken: Vec<_> = reading.collect();
        for regions in self.writing.values_mut() {
            taken.extend(regions.extract_if(.., |(of, _)| *of == segment).map(|(_, region)| region));
        }
        taken
    }

    /// Everything that is one link's.
    pub(crate) fn take_link(&mut self, link: LinkId) -> Vec<MemoryRegion> {
        let regions = self.writing.remove(&link).unwrap_or_default();
        regions.into_iter().map(|(_, region)| region).collect()
    }
}

/// What to tell of a region.
pub(crate) fn info(region: &MemoryRegion) -> RegionInfo {
    RegionInfo { address: region.start() as u64, bytes: region.len() as u64, key: region.remote_key() }
}
