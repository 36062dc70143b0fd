//! References followed: reference and offset to bytes, at random offsets of objects made of many extents.

use crate::process::{self, Host};
use crate::touch::PAGE_BYTES;
use dmrpc_objstore::{ObjectRef, Store, StoreError, block_on};
use dmrpc_turns::{Order, Turn};
use serde::Deserialize;
use std::time::Instant;

/// Operations between two looks at the clock.
const BATCH: usize = 1000;

/// What is done in a turn.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Case {
    extents: u32,
}

pub(crate) fn take_turns() -> anyhow::Result<()> {
    let mut prepared: Option<Prepared> = None;
    dmrpc_turns::take(|Order::<Case> { case, time, .. }| {
        if prepared.as_ref().is_none_or(|prepared| prepared.extents != case.extents) {
            prepared = None;
            prepared = Some(Prepared::new(case.extents)?);
        }
        let Prepared { object, extents, .. } = prepared.as_ref().expect("made above");
        let mut offsets = Offsets::new(*extents);
        let begun = Instant::now();
        let (mut operations, mut wrong) = (0_u64, 0_u64);
        while begun.elapsed() < time {
            for _ in 0..BATCH {
                let page = offsets.next_page();
                let mut bytes = [0; 4];
                block_on(object.as_any().read(page * PAGE_BYTES as u64, &mut bytes))?;
                wrong += u64::from(u64::from(u32::from_le_bytes(bytes)) != page);
            }
            operations += BATCH as u64;
        }
        let elapsed = begun.elapsed();
        anyhow::ensure!(wrong == 0, "{wrong} offsets led to other bytes");
        Ok(Turn::of_many(operations, elapsed, extents.to_string()))
    })
}

/// An object that is made of so many extents, one page each; each page begins with its number.
struct Prepared {
    object: ObjectRef,
    extents: u32,
    _store: Store,
    _host: Host,
}

impl Prepared {
    fn new(extents: u32) -> anyhow::Result<Self> {
        let bytes = extents as usize * PAGE_BYTES;
        let host = Host::start(bytes as u64 * 2 + (64 << 20))?;
        let runtime = process::runtime()?;
        let (store, _) = runtime.block_on(process::join(&host.store(), "reader", None))?;
        let number = |page: u32| page.to_le_bytes();
        let whole = block_on(store.put_with(bytes, |into| {
            for (page, into) in (0..extents).zip(into.chunks_mut(PAGE_BYTES)) {
                into[..4].copy_from_slice(&number(page));
            }
            Ok::<_, StoreError>(())
        }))?;
        // Every other page is written anew, so that no two neighbours lie side by side.
        let mut edit = block_on(whole.edit())?;
        for page in (1..extents).step_by(2) {
            edit.write(u64::from(page) * PAGE_BYTES as u64, &number(page))?;
        }
        let object = block_on(edit.commit())?;
        let there = block_on(object.as_any().extents())?.len();
        anyhow::ensure!(there == extents as usize, "the object has {there} extents, not {extents}");
        Ok(Self { object, extents, _store: store, _host: host })
    }
}

/// Offsets that no cache foresees.
struct Offsets {
    state: u64,
    pages: u64,
}

impl Offsets {
    fn new(pages: u32) -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15, pages: u64::from(pages) }
    }

    fn next_page(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        ((u128::from(self.state) * u128::from(self.pages)) >> 64) as u64
    }
}
