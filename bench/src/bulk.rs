//! Bulk on one host: bytes into pages and out of them, beside a memcpy that touches as much memory.

use crate::bench::{Bench, Host};
use crate::payload;
use crate::report::{Row, Target, Unit};
use crate::statistics::{Contestant, compare, singly};
use dmrpc_objstore::{ObjectRef, block_on};
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Instant;

const SIZES: [usize; 5] = [4 << 10, 64 << 10, 1 << 20, 16 << 20, 256 << 20];
/// Everything that takes part touches so much memory at least: more than caches hold.
const WORKING_SET: usize = 128 << 20;
/// From this size on `put` is to be as quick as memory is.
const FULL_SPEED_BYTES: usize = 64 << 10;
/// How quick that is, beside memcpy.
const SHARE: f64 = 0.9;

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let largest = bench.max_object_bytes.min(SIZES[SIZES.len() - 1]);
    let working_set = WORKING_SET.max(2 * largest);
    let host = Host::start(4 * working_set as u64)?;
    let store = host.connect()?;
    let source = payload::bytes(working_set);
    let mut target = payload::bytes(working_set + largest);

    for size in SIZES.into_iter().filter(|&size| size <= largest) {
        let window = (WORKING_SET / size).max(2);
        let from = |i: usize| &source[i % window * size..][..size];
        let (mut put_at, mut copy_at) = (0, 0);
        let mut live: VecDeque<ObjectRef> = VecDeque::new();
        let [put, copy] = compare(
            bench.effort,
            [
                Contestant::repeated(|| {
                    if live.len() == window {
                        live.pop_front();
                    }
                    live.push_back(block_on(store.put(from(put_at))).expect("there is room"));
                    put_at += 1;
                }),
                Contestant::repeated(|| {
                    payload::copy(&mut target[copy_at % (window + 1) * size..][..size], from(copy_at));
                    copy_at += 1;
                }),
            ],
        );
        let speed = |ns: f64| size as f64 / ns * 1e9;
        let mut row = Row::new("put, warm", payload::size(size), Unit::BytesPerSecond, put.map(speed))
            .beside("memcpy", copy.map(speed));
        if size >= FULL_SPEED_BYTES {
            row = row.target(Target::ShareOf(SHARE));
        }
        bench.rows.push(row);

        // And out again: the views are the pages, so that reading them is reading memory.
        let views: Vec<_> = live.iter().map(|object| block_on(object.get())).collect::<Result<_, _>>()?;
        let mut scratch = vec![0; size];
        let mut scratch_too = vec![0; size];
        let (mut read_at, mut copy_at) = (0, 0);
        let [read, copy] = compare(
            bench.effort,
            [
                Contestant::repeated(|| {
                    payload::copy(&mut scratch, &views[read_at % views.len()]);
                    read_at += 1;
                }),
                Contestant::repeated(|| {
                    payload::copy(&mut scratch_too, from(copy_at));
                    copy_at += 1;
                }),
            ],
        );
        bench.rows.push(
            Row::new("read through a view, warm", payload::size(size), Unit::BytesPerSecond, read.map(speed))
                .beside("memcpy", copy.map(speed)),
        );
    }
    first_put(bench, &host, &source)
}

/// The first `put` of a session waits for memory: the node makes a segment. Beside it memcpy into pages that nobody has touched.
fn first_put(bench: &mut Bench, host: &Host, source: &[u8]) -> anyhow::Result<()> {
    for size in [64 << 10, 16 << 20] {
        let from = &source[..size];
        let mut stores = Vec::new();
        for _ in 0..bench.effort.rounds {
            stores.push(host.connect()?);
        }
        let put = singly(bench.effort.rounds, || {
            let store = stores.pop().expect("one each");
            let start = Instant::now();
            black_box(block_on(store.put(from)).expect("there is room"));
            start.elapsed()
        });
        let copy = singly(bench.effort.rounds, || {
            let start = Instant::now();
            let mut fresh = Vec::with_capacity(size);
            fresh.extend_from_slice(from);
            black_box(&fresh);
            start.elapsed()
        });
        bench.rows.push(
            Row::new("put, first of a session", payload::size(size), Unit::Nanoseconds, put)
                .beside("memcpy to fresh pages", copy),
        );
    }
    Ok(())
}
