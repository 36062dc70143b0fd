//! One page of an object written anew, by the size of the object: what it costs is the page, not the object.

use crate::bench::{Bench, Host};
use crate::payload;
use crate::report::{Row, Unit};
use crate::statistics::{Contestant, compare, singly};
use dmrpc_objstore::{ObjectRef, Store, block_on};
use std::time::Instant;

const SIZES: [usize; 5] = [4 << 10, 64 << 10, 1 << 20, 64 << 20, 1 << 30];

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let sizes: Vec<usize> = SIZES.into_iter().filter(|&size| size <= bench.max_object_bytes).collect();
    let host = Host::start(2 * sizes.iter().sum::<usize>() as u64 + (512 << 20))?;
    let store = host.connect()?;
    let page = payload::bytes(store.page_size());
    for size in sizes {
        let bytes = payload::bytes(size);
        let object = block_on(store.put(&bytes))?;
        let middle = size as u64 / 2 / page.len() as u64 * page.len() as u64;
        let [whole, part] = compare(
            bench.effort,
            [
                Contestant::timed(|n| edits(&store, &object, n, middle, &page)),
                Contestant::timed(|n| edits(&store, &object, n, middle + 100, &page[..100])),
            ],
        );
        let mut copy = vec![1; size];
        let copied = singly(bench.effort.rounds, || {
            let start = Instant::now();
            payload::copy(&mut copy, &bytes);
            start.elapsed()
        });
        bench.rows.push(
            Row::new("edit one page", format!("whole page of {}", payload::size(size)), Unit::Nanoseconds, whole)
                .beside("memcpy of all", copied),
        );
        bench.rows.push(
            Row::new("edit one page", format!("100 bytes of {}", payload::size(size)), Unit::Nanoseconds, part)
                .beside("memcpy of all", copied),
        );
    }
    Ok(())
}

/// Edits, each committed and let go; then waits until the node has caught up, so that its share is counted.
fn edits(store: &Store, object: &ObjectRef, n: u64, offset: u64, bytes: &[u8]) -> std::time::Duration {
    let start = Instant::now();
    for _ in 0..n {
        let mut edit = block_on(object.edit()).expect("it is there");
        edit.write(offset, bytes).expect("within");
        block_on(edit.commit()).expect("there is room");
    }
    block_on(store.flush()).expect("the node is there");
    start.elapsed()
}
