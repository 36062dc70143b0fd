//! References made and dropped: to a range of an object that is there, and to bytes that become an object.

use crate::process::{self, Host};
use dmrpc_objstore::{ObjectRef, block_on};
use dmrpc_turns::{Order, Turn, payload};
use serde::Deserialize;
use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

/// The memory node's pool.
const POOL_BYTES: u64 = 4 << 30;

/// Operations between two looks at the clock, where they are short.
const BATCH: u64 = 1000;

/// What the reference is made of.
#[derive(Clone, Copy, Debug)]
enum Of {
    /// A range of an object.
    Range,
    /// Bytes.
    Bytes,
}

/// What is done in a turn.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Case {
    size: usize,
    /// One put, before anything else has been put in this session.
    #[serde(default)]
    first: bool,
}

pub(crate) fn take_turns() -> anyhow::Result<()> {
    let host = Host::start(POOL_BYTES)?;
    let runtime = process::runtime()?;
    let (store, _system) = runtime.block_on(process::join(&host.store(), "maker", None))?;
    let mut made: HashMap<usize, (Vec<u8>, ObjectRef)> = HashMap::new();
    dmrpc_turns::take(|Order::<Case> { way, case, time }| {
        let of = if way == "range" { Of::Range } else { Of::Bytes };
        if case.first {
            let bytes = payload::bytes(case.size);
            let begun = Instant::now();
            let object = block_on(store.put(&bytes))?;
            let elapsed = begun.elapsed();
            let answer = payload::sum(&block_on(object.get())?);
            return Ok(Turn::of_many(1, elapsed, format!("{answer:016x}")));
        }
        // One size at a time: the largest are as large as the pool.
        made.retain(|&size, _| size == case.size);
        if made.is_empty() {
            let bytes = payload::bytes(case.size);
            // A page more than the range, so that this is no reference to the whole.
            let object = block_on(store.put_with(case.size + 4096, |into| {
                into[4096..].copy_from_slice(&bytes);
                Ok::<_, dmrpc_objstore::StoreError>(())
            }))?;
            made.insert(case.size, (bytes, object));
        }
        let (bytes, object) = &made[&case.size];
        let range = 4096..4096 + case.size as u64;
        let answer = match of {
            Of::Range => payload::sum(&block_on(object.slice(range.clone())?.get())?),
            Of::Bytes => payload::sum(&block_on(block_on(store.put(bytes))?.get())?),
        };
        let begun = Instant::now();
        let mut operations = 0;
        while begun.elapsed() < time {
            match of {
                Of::Range => {
                    for _ in 0..BATCH {
                        black_box(object.slice(black_box(range.clone()))?);
                    }
                    operations += BATCH;
                }
                Of::Bytes => {
                    black_box(block_on(store.put(bytes))?);
                    operations += 1;
                }
            }
        }
        Ok(Turn::of_many(operations, begun.elapsed(), format!("{answer:016x}")))
    })
}
