//! What the hot path costs, against a bare memcpy in the same run: `cargo run --release -p dmrpc-objstore --example hot_path`.
#![expect(clippy::print_stdout, reason = "it prints its table")]

use dmrpc_objstore::{Borrows, EmbeddedOptions, Loans, ObjectRef, Store, block_on};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Objects alive at a time: so the copies do not stay in the cache.
const WORKING_SET: usize = 64 << 20;

fn main() {
    let mut options = EmbeddedOptions::default();
    options.node.pool_bytes = 2 << 30;
    let store = block_on(Store::embedded_with(options)).expect("a node starts");
    println!("{:>10} {:>14} {:>14} {:>8} {:>12} {:>12}", "bytes", "memcpy", "put", "ratio", "get", "slice");
    for shift in [12, 13, 15, 16, 18, 20, 22, 24] {
        sizes(&store, 1usize << shift);
    }
    edits(&store);
    lending(&store);
}

/// Nanoseconds for one of `count` calls, the median of several rounds.
fn each(count: usize, mut call: impl FnMut(usize)) -> f64 {
    let mut rounds: Vec<f64> = (0..7)
        .map(|_| {
            let start = Instant::now();
            (0..count).for_each(&mut call);
            start.elapsed().as_nanos() as f64 / count as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn sizes(store: &Store, len: usize) {
    let source = vec![7u8; len];
    let slots = (WORKING_SET / len).clamp(2, 1000);
    let mut targets = vec![vec![1u8; len]; slots];
    let count = (256 << 20) / len.max(16 << 10);
    let copy = each(count, |i| black_box(&mut targets[i % slots]).copy_from_slice(black_box(&source)));
    let mut live: Vec<Option<ObjectRef>> = vec![None; slots];
    let put = each(count, |i| {
        live[i % slots] = None;
        live[i % slots] = Some(block_on(store.put(black_box(&source))).expect("there is room"));
    });
    let object = live[0].clone().expect("put above");
    let get = each(100_000, |_| drop(black_box(block_on(object.get()).expect("it is here"))));
    let slice = each(100_000, |_| drop(black_box(object.slice(1..2000).expect("within"))));
    println!("{len:>10} {copy:>11.0} ns {put:>11.0} ns {:>7.0}% {get:>9.1} ns {slice:>9.1} ns", 100.0 * copy / put);
}

fn edits(store: &Store) {
    println!("\n{:>10} {:>24}", "bytes", "edit one page + commit");
    for shift in [15, 20, 24, 28] {
        let object =
            block_on(store.put_with::<dmrpc_objstore::StoreError>(1 << shift, |_| Ok(()))).expect("there is room");
        let time = each(10_000, |i| {
            let mut edit = block_on(object.edit()).expect("it is here");
            edit.write((i as u64 % 7) * 4096, &[1; 4096]).expect("within");
            drop(black_box(block_on(edit.commit()).expect("there is room")));
        });
        println!("{:>10} {time:>21.0} ns", 1usize << shift);
    }
}

fn lending(store: &Store) {
    let other = block_on(Store::connect(store.url())).expect("the node is there");
    let (loans, borrows) = (Loans::new(Duration::from_secs(1)), Borrows::of(&other, || {}));
    let source = vec![7u8; 32 << 10];
    let (mut message, mut returns) = (Vec::new(), Vec::new());
    let time = each(20_000, |_| {
        let object = block_on(store.put(&source)).expect("there is room");
        message.clear();
        loans.lend(object.as_any(), &mut message).expect("the node is there");
        let (borrowed, _) = borrows.borrow(&message).expect("well formed");
        black_box(block_on(borrowed.get()).expect("it is there")[0]);
        drop(borrowed);
        borrows.take_returns(&mut returns);
        loans.returned(&returns);
        returns.clear();
    });
    println!("\n32 KiB: put, lend, borrow, get, give back, drop: {time:.0} ns");
}
