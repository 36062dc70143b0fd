//! References: taking one, passing one on, and turning one into bytes, by the size of the object.

use crate::bench::{Bench, Host};
use crate::payload;
use crate::report::{Row, Target, Unit};
use crate::statistics::{Contestant, compare, singly};
use dmrpc_objstore::{ObjectRef, block_on};
use std::hint::black_box;
use std::time::{Duration, Instant};

const SIZES: [usize; 5] = [4 << 10, 64 << 10, 1 << 20, 64 << 20, 1 << 30];
/// Taking a reference, and no more than this.
const TAKE_NS: f64 = 200.0;
/// Bytes of a reference, and no more than this.
const GET_NS: f64 = 2000.0;

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let sizes: Vec<usize> = SIZES.into_iter().filter(|&size| size <= bench.max_object_bytes).collect();
    let pool = 2 * sizes.iter().sum::<usize>() as u64 + (256 << 20);
    let host = Host::start(pool)?;
    let store = host.connect()?;
    let mut objects = Vec::new();
    for &size in &sizes {
        objects.push(block_on(store.put(payload::bytes(size)))?);
    }

    for (size, object) in sizes.iter().zip(&objects) {
        let (start, end) = (*size as u64 / 4, *size as u64 / 2);
        let [slice, clone] = compare(
            bench.effort,
            [
                Contestant::repeated(|| {
                    black_box(object.slice(start..end).expect("within"));
                }),
                Contestant::repeated(|| {
                    black_box(object.clone());
                }),
            ],
        );
        let what = payload::size(*size);
        bench.rows.push(
            Row::new("take and drop a ref", format!("slice of {what}"), Unit::Nanoseconds, slice)
                .target(Target::AtMost(TAKE_NS)),
        );
        bench.rows.push(
            Row::new("take and drop a ref", format!("clone of {what}"), Unit::Nanoseconds, clone)
                .target(Target::AtMost(TAKE_NS)),
        );
    }

    for (size, object) in sizes.iter().zip(&objects) {
        let [get] = compare(bench.effort, [Contestant::repeated(|| first_byte(object))]);
        let row = Row::new("get, warm", payload::size(*size), Unit::Nanoseconds, get);
        bench.rows.push(row.target(Target::AtMost(GET_NS)));
    }

    // Another session reads what it never saw: the node tells where it is, and its segments are mapped.
    for (size, object) in sizes.iter().zip(&objects) {
        let grant = block_on(object.grant(Duration::from_secs(600)))?;
        let mut failure = None;
        let cold = singly(bench.effort.rounds, || match first_get(&host, &grant) {
            Ok(took) => took,
            Err(error) => {
                failure.get_or_insert(error);
                Duration::ZERO
            }
        });
        if let Some(error) = failure {
            return Err(error);
        }
        bench.rows.push(Row::new(
            "get, first of a session (redeem, map, look)",
            payload::size(*size),
            Unit::Nanoseconds,
            cold,
        ));
    }
    Ok(())
}

fn first_byte(object: &ObjectRef) {
    let view = block_on(object.get()).expect("it is there");
    black_box(view[0]);
}

fn first_get(host: &Host, grant: &dmrpc_objstore::Granted) -> anyhow::Result<Duration> {
    let store = host.connect()?;
    let start = Instant::now();
    let object: ObjectRef = block_on(store.redeem(grant))?.cast()?;
    first_byte(&object);
    Ok(start.elapsed())
}
