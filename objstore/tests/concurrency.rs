//! Many threads, many sessions, several nodes.

mod rig;

use dmrpc_objstore::{Borrows, Encoded, Loans, ObjectRef, Store, block_on};
use rig::{node, pattern, pool, remote, tcp_url, wait_for};
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
fn many_threads_on_one_store() {
    let host = node(pool(128 << 20));
    for store in [host.clone(), remote(&host)] {
        std::thread::scope(|scope| {
            for thread in 0..8u8 {
                let store = &store;
                scope.spawn(move || {
                    let loans = Loans::new(Duration::from_secs(1));
                    let borrows = Borrows::of(store, || {});
                    for round in 0..60u8 {
                        let bytes = pattern(4000 + 777 * usize::from(round), thread ^ round);
                        let object = block_on(store.put(&bytes)).unwrap();
                        let mut message = Vec::new();
                        loans.lend(object.as_any(), &mut message).unwrap();
                        let (back, _) = borrows.borrow(&message).unwrap();
                        assert!(*block_on(back.get()).unwrap() == *bytes);
                        let mut edit = block_on(object.edit()).unwrap();
                        edit.write(100, &[thread; 50]).unwrap();
                        let edited = block_on(edit.commit()).unwrap();
                        assert_eq!(block_on(edited.get()).unwrap()[100..150], [thread; 50]);
                        let mut returns = Vec::new();
                        borrows.take_returns(&mut returns);
                        loans.returned(&returns);
                        assert!(loans.is_empty());
                    }
                });
            }
        });
        wait_for(&host, "everything is free", |stats| stats.objects == 0 && stats.live_pages == 0);
    }
    assert_eq!(block_on(host.stats()).unwrap().failures, 0);
}

#[test]
fn references_know_their_node() {
    let nodes: Vec<Store> = (0..3).map(|_| node(pool(16 << 20))).collect();
    let objects: BTreeMap<_, _> = nodes
        .iter()
        .zip(1u8..)
        .map(|(node, seed)| (node.node(), (block_on(node.put(pattern(9000, seed))).unwrap(), seed)))
        .collect();
    assert_eq!(objects.len(), 3, "nodes have names of their own");
    let (loans, borrows) = (Loans::new(Duration::ZERO), Borrows::new(|| {}));
    for (node, (object, seed)) in &objects {
        assert_eq!(object.node(), Some(*node));
        assert_eq!(Store::of_node(*node).unwrap().node(), *node);
        let mut message = Vec::new();
        loans.lend(object.as_any(), &mut message).unwrap();
        let (borrowed, _) = borrows.borrow(&message).unwrap();
        assert!(*block_on(borrowed.get()).unwrap() == *pattern(9000, *seed));
    }
    let gone = nodes[0].node();
    drop((objects, nodes, loans, borrows));
    rig::wait_until("stores end with their last user", || Store::of_node(gone).is_none());
}

#[test]
fn typed_values() {
    let host = node(pool(16 << 20));
    for store in [host.clone(), remote(&host)] {
        let numbers: Vec<f32> = (0..10_000).map(|i| i as f32 / 3.0).collect();
        let object = block_on(store.put_slice(&numbers)).unwrap();
        assert_eq!(object.len(), 10_000);
        assert_eq!(&*block_on(object.slice(5_000..).unwrap().get()).unwrap(), &numbers[5_000..]);
        let mut private = block_on(object.get()).unwrap().into_private();
        private[3] = -1.0;
        assert_eq!(private.dirty_pages().unwrap(), 1);
        let changed: ObjectRef<[f32]> = block_on(private.commit()).unwrap();
        assert_eq!(block_on(changed.get()).unwrap()[2..5], [numbers[2], -1.0, numbers[4]]);
        assert_eq!(block_on(object.get()).unwrap()[3], numbers[3]);

        let map: BTreeMap<String, Vec<u32>> = (0..200).map(|i| (format!("key {i}"), (0..i).collect())).collect();
        let value: ObjectRef<Encoded<BTreeMap<String, Vec<u32>>>> = block_on(store.put_value(&map)).unwrap();
        assert_eq!(block_on(value.get()).unwrap().decode().unwrap(), map);
        let wrong = value.into_any().slice(..100).unwrap().cast::<Encoded<BTreeMap<String, Vec<u32>>>>().unwrap();
        assert!(block_on(wrong.get()).unwrap().decode().is_err());
    }
}

#[test]
fn a_large_private_view_is_mapped_and_stores_only_what_was_written() {
    let store = node(pool(64 << 20));
    let bytes = pattern(8 << 20, 4);
    let object = block_on(store.put(&bytes)).unwrap();
    let slice = object.slice(5000..7_000_000).unwrap();
    let mut private = block_on(slice.get()).unwrap().into_private();
    assert_eq!(private.dirty_pages().unwrap(), 0);
    private[0] = 1;
    private[3_000_000..3_000_010].fill(2);
    assert_eq!(private.dirty_pages().unwrap(), 2);
    let other = block_on(slice.get()).unwrap().into_private();
    assert!(*other == bytes[5000..7_000_000], "nobody else sees it");
    assert!(*block_on(object.get()).unwrap() == *bytes);
    drop((private, other));
    let mut private = block_on(object.get()).unwrap().into_private();
    private[4_000_000] ^= 0xff;
    let changed = block_on(private.commit()).unwrap();
    block_on(changed.keep()).unwrap();
    wait_for(&store, "one page more than the base", |stats| stats.live_pages == 2049 && stats.logical_pages == 4096);
    let view = block_on(changed.get()).unwrap();
    assert!(view.is_zero_copy(), "three pieces, side by side");
    assert!(view.iter().zip(&bytes).filter(|(a, b)| a != b).count() == 1);
}

#[test]
fn the_same_objects_from_two_hosts() {
    let host = node(pool(32 << 20));
    let far = remote(&host);
    assert!(!far.is_local() && host.is_local() && tcp_url(&host) == far.url());
    let bytes = pattern(3_000_000, 5);
    let object = block_on(host.put(&bytes)).unwrap();
    let granted = block_on(object.grant(Duration::from_secs(60))).unwrap();
    let there: ObjectRef = block_on(far.redeem(&granted)).unwrap().cast().unwrap();
    assert!(there.try_get().is_none(), "it has to be read first");
    assert!(*block_on(there.get()).unwrap() == *bytes);
    assert!(there.try_get().is_some(), "the cache has it");
    assert!(*block_on(there.slice(10..20).unwrap().get()).unwrap() == bytes[10..20]);
    let read = block_on(host.stats()).unwrap().bytes_read.get();
    assert_eq!(read, 3_000_000, "once");
}
