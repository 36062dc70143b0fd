//! Reads and writes of a memory node's pages by the device alone, as `Store` does them, on the caller's own thread, which spins.

use crate::memory::{Client, LIMIT, Outcome};
use crate::row::{Row, Sample};
use anyhow::{Context, Result, ensure};
use dmrpc_fabric::link::LinkError;
use dmrpc_fabric::rdma::{Block, Ending, Heap, OneSided, RemoteRun, Step};
use dmrpc_pages::{Extent, SegmentId};
use dmrpc_wire::{Commit, ObjectId, Patch, RegionInfo, Reply, Request};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

const SIZES: [u64; 5] = [64, 4 << 10, 64 << 10, 1 << 20, 16 << 20];
/// Operations under way at a time, for those of at most [`SMALL_BYTES`].
const DEPTHS: [u32; 3] = [1, 8, 32];
const SMALL_BYTES: u64 = 64 << 10;
/// Operations in a measurement, at least: a software device moves some 50 MB/s.
const LEAST: u64 = 5;
const PAGE_BYTES: u64 = 4096;
/// The segment that all of it is in.
const SEGMENT_BYTES: u64 = 64 << 20;

/// The session's memory at the node, and how it is reached.
struct Memory {
    client: Client,
    one_sided: OneSided,
    heap: Arc<Heap>,
    segment: u32,
    reading: RegionInfo,
    writing: RegionInfo,
}

/// Reads, writes and puts, and takes the time.
pub(crate) fn ask(client: Client, one_sided: OneSided, turn: Duration) -> Result<Vec<Row>> {
    let mut memory = Memory::lease(client, one_sided)?;
    let mut rows = Vec::new();
    let (object, source) = memory.fill()?;
    for what in ["read", "write"] {
        for size in SIZES {
            for depth in DEPTHS {
                if depth > 1 && size > SMALL_BYTES {
                    continue;
                }
                let outcome = match what {
                    "read" => memory.reads(&source, size, depth, turn)?,
                    _ => memory.writes(&source, size, depth, turn)?,
                };
                rows.push(outcome.row("rdma", what, size));
            }
        }
        if what == "read" {
            // Its pages are written to from here on.
            memory.client.release(object)?;
            memory.client.wait_for_freed(SEGMENT_BYTES / PAGE_BYTES)?;
        }
    }
    for size in SIZES {
        rows.push(memory.puts(&source, size, turn)?.row("rdma", "put", size));
    }
    Ok(rows)
}

/// Waits for the end of an operation by looking for it.
fn spin<T>(ending: Ending<T>) -> Result<T, LinkError> {
    let mut ending = pin!(ending);
    let mut context = TaskContext::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(ended) = ending.as_mut().poll(&mut context) {
            return ended;
        }
        std::thread::yield_now();
    }
}

impl Memory {
    fn lease(mut client: Client, one_sided: OneSided) -> Result<Self> {
        let segment = client.lease((SEGMENT_BYTES / PAGE_BYTES) as u32)?;
        client.send(&Request::Mapped { segment }, dmrpc_fabric::link::Body::new())?;
        let mut region = |write| {
            client.send(&Request::Region { segment: Some(segment), write }, dmrpc_fabric::link::Body::new())?;
            let mut found = None;
            client.receive(None, |reply| {
                if let Reply::Region(region) = reply {
                    found = Some(region);
                }
            })?;
            found.context("the node registers nothing")
        };
        let (writing, reading) = (region(true)?, region(false)?);
        ensure!(writing.bytes >= SEGMENT_BYTES && reading.bytes >= SEGMENT_BYTES, "a segment smaller than asked for");
        let heap = one_sided.heap()?;
        Ok(Self { client, one_sided, heap, segment, reading, writing })
    }

    fn step(&self, region: RegionInfo, offset: u64, len: u64) -> Vec<Step> {
        let remote = RemoteRun { address: region.address + offset, key: region.key };
        vec![Step { at: 0, len: len as usize, remote, fenced: false }]
    }

    /// An object of all the pages, whose bytes are known, and those.
    fn fill(&mut self) -> Result<(ObjectId, Arc<Block>)> {
        let mut block = self.heap.block(SEGMENT_BYTES as usize)?;
        block.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at % 251) as u8);
        let source = Arc::new(block);
        spin(self.one_sided.write(source.clone(), self.step(self.writing, 0, SEGMENT_BYTES), ()))?;
        let object = self.commit(0, SEGMENT_BYTES)?;
        Ok((object, source))
    }

    /// Publishes pages as an object, and waits until the node has done so.
    fn commit(&mut self, offset: u64, size: u64) -> Result<ObjectId> {
        let id = self.client.new_id()?;
        let first = (offset / PAGE_BYTES) as u32;
        let extent = Extent::new(SegmentId(self.segment), first, size.div_ceil(PAGE_BYTES) as u32);
        let patches = [Patch { at: 0.into(), extent: extent.into() }];
        let commit = Commit { id, base: ObjectId::NULL, size, patches: &patches };
        self.client.gather(&Request::Commit(commit))?;
        // A request for nothing: it is answered behind the commit.
        self.client.send(&Request::Hold(&[]), dmrpc_fabric::link::Body::new())?;
        self.client.receive(None, |_| ())?;
        Ok(id)
    }

    /// Reads from place to place, `depth` at a time.
    fn reads(&mut self, source: &Block, size: u64, depth: u32, turn: Duration) -> Result<Outcome> {
        let places = (SEGMENT_BYTES / size).min(1024);
        let (mut sample, mut flying) = (Sample::new(), VecDeque::new());
        let mut blocks = (0..depth).map(|_| self.heap.block(size as usize)).collect::<Result<Vec<_>, _>>()?;
        let (start, mut round) = (Instant::now(), 0u64);
        let (mut now, mut more) = (start, true);
        while more || !flying.is_empty() {
            while more && let Some(block) = blocks.pop() {
                let offset = round % places * size;
                round += 1;
                let ending = self.one_sided.read(block, self.step(self.reading, offset, size));
                flying.push_back((now, offset as usize, ending));
            }
            let (since, offset, ending) = flying.pop_front().context("nothing is under way")?;
            let block = spin(ending)?;
            now = Instant::now();
            sample.add(now - since);
            // All bytes of the first round, some of each later one.
            let wanted = &source[offset..][..size as usize];
            let sound = if round <= u64::from(depth) { block[..] == *wanted } else { block[..8] == wanted[..8] };
            ensure!(sound && block.last() == wanted.last(), "{size} bytes from {offset} came damaged");
            blocks.push(block);
            more = now - start < turn || sample.count() < LEAST && now - start < LIMIT;
        }
        Ok(Outcome { sample, depth, took: now - start })
    }

    /// Writes from place to place, `depth` at a time.
    fn writes(&mut self, source: &Arc<Block>, size: u64, depth: u32, turn: Duration) -> Result<Outcome> {
        let places = (SEGMENT_BYTES / size).min(1024);
        let (mut sample, mut flying) = (Sample::new(), VecDeque::new());
        let (start, mut round) = (Instant::now(), 0u64);
        let (mut now, mut more) = (start, true);
        while more || !flying.is_empty() {
            while more && flying.len() < depth as usize {
                let offset = round % places * size;
                round += 1;
                flying
                    .push_back((now, self.one_sided.write(source.clone(), self.step(self.writing, offset, size), ())));
            }
            let (since, ending) = flying.pop_front().context("nothing is under way")?;
            spin(ending)?;
            now = Instant::now();
            sample.add(now - since);
            more = now - start < turn || sample.count() < LEAST && now - start < LIMIT;
        }
        Ok(Outcome { sample, depth, took: now - start })
    }

    /// Writes and publishes behind one doorbell, until the node says that it has the object; and lets it go.
    fn puts(&mut self, source: &Arc<Block>, size: u64, turn: Duration) -> Result<Outcome> {
        let (pages, places) = (size.div_ceil(PAGE_BYTES), SEGMENT_BYTES / size.max(PAGE_BYTES));
        let (mut sample, mut spent, mut round) = (Sample::new(), Duration::ZERO, 0);
        let start = Instant::now();
        while start.elapsed() < turn || sample.count() < LEAST && start.elapsed() < LIMIT {
            if round >= places {
                // The pages that are to be used again.
                self.client.wait_for_freed(pages)?;
            }
            let offset = round % places * pages * PAGE_BYTES;
            round += 1;
            let begun = Instant::now();
            let steps = self.step(self.writing, offset, size);
            self.one_sided.write_behind(source.clone(), steps);
            let object = self.commit(offset, size)?;
            let took = begun.elapsed();
            spent += took;
            sample.add(took);
            self.client.release(object)?;
        }
        // So that the next size begins with nothing in use.
        self.client.wait_for_freed(round.min(places) * pages)?;
        Ok(Outcome { sample, depth: 1, took: spent })
    }
}
