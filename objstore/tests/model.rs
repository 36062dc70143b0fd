//! Objects against flat arrays: put, slice, edit, private views, lending and dropping in any order, on the node's host and
//! over TCP; and at the end every page is back.

mod rig;

use dmrpc_memnode::{Hugepages, NodeConfig};
use dmrpc_objstore::{Borrows, Loans, ObjectRef, Store, block_on};
use proptest::prelude::*;
use rig::{node, pattern, pool, remote, wait_for};

#[derive(Clone, Debug)]
enum Step {
    Put {
        len: usize,
        seed: u8,
    },
    Slice {
        of: usize,
        from: u16,
        to: u16,
    },
    Edit {
        of: usize,
        changes: Vec<Change>,
    },
    Private {
        of: usize,
        writes: Vec<(u16, u16, u8)>,
    },
    /// The reference goes to another session and comes back as an edit of it.
    Lend {
        of: usize,
        changes: Vec<Change>,
        keep: bool,
    },
    Publish {
        of: usize,
    },
    Drop {
        of: usize,
    },
}

#[derive(Clone, Debug)]
enum Change {
    /// Places are parts of 65,536 of the length.
    Write {
        at: u16,
        len: u16,
        byte: u8,
    },
    Resize {
        len: u32,
    },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<u16>(), prop_oneof![1..100u16, 1..20_000u16], any::<u8>())
            .prop_map(|(at, len, byte)| Change::Write { at, len, byte }),
        1 => prop_oneof![0..200_000u32, 250_000..500_000u32, Just(4096), Just(8192), 2040..2060u32].prop_map(|len| Change::Resize { len }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let changes = || prop::collection::vec(change(), 0..5);
    let of = || 0..16usize;
    prop_oneof![
        2 => (prop_oneof![0..3000usize, 0..200_000usize, 0..600_000usize, Just(16384)], any::<u8>())
            .prop_map(|(len, seed)| Step::Put { len, seed }),
        1 => (of(), any::<u16>(), any::<u16>()).prop_map(|(of, from, to)| Step::Slice { of, from, to }),
        3 => (of(), changes()).prop_map(|(of, changes)| Step::Edit { of, changes }),
        1 => (of(), prop::collection::vec((any::<u16>(), 1..6000u16, any::<u8>()), 0..4))
            .prop_map(|(of, writes)| Step::Private { of, writes }),
        2 => (of(), changes(), any::<bool>()).prop_map(|(of, changes, keep)| Step::Lend { of, changes, keep }),
        1 => of().prop_map(|of| Step::Publish { of }),
        2 => of().prop_map(|of| Step::Drop { of }),
    ]
}

fn place(part: u16, len: usize) -> usize {
    (part as usize * (len + 1)) >> 16
}

async fn edit(object: &ObjectRef, model: &mut Vec<u8>, changes: &[Change]) -> ObjectRef {
    let mut edit = object.edit().await.expect("it is there");
    for change in changes {
        match *change {
            Change::Write { at, len, byte } => {
                let at = place(at, model.len());
                let end = (at + len as usize).min(model.len());
                let bytes: Vec<u8> = (at..end).map(|i| byte ^ i as u8).collect();
                edit.write(at as u64, &bytes).expect("within");
                model[at..end].copy_from_slice(&bytes);
            }
            Change::Resize { len } => {
                edit.resize(len.into()).expect("not too large");
                model.resize(len as usize, 0);
            }
        }
        let mut seen = vec![9; model.len()];
        edit.read(0, &mut seen).await.expect("it is there");
        assert!(seen == *model, "the edit reads as it will be");
    }
    edit.commit().await.expect("there is room")
}

async fn check(object: &ObjectRef, model: &[u8]) {
    let view = object.get().await.expect("it is there");
    assert_eq!(view.len(), model.len());
    assert!(*view == *model, "bytes differ first at {:?}", view.iter().zip(model).position(|(a, b)| a != b));
    let (from, to) = (model.len() / 3, model.len() / 2);
    let mut part = vec![0; to - from];
    object.as_any().read(from as u64, &mut part).await.expect("it is there");
    assert_eq!(part, model[from..to]);
    let chunks = object.as_any().chunks().await.expect("it is there");
    assert!(chunks.iter().flatten().eq(model));
}

/// `store` does the steps, `other` is whom it lends to.
async fn run(store: &Store, other: &Store, steps: Vec<Step>) {
    let mut live: Vec<(ObjectRef, Vec<u8>)> = Vec::new();
    let there = (Loans::new(rig::PATIENCE), Borrows::of(other, || {}));
    let back = (Loans::new(rig::PATIENCE), Borrows::of(store, || {}));
    let pick = |live: &[(ObjectRef, Vec<u8>)], of: usize| live.get(of % live.len().max(1)).cloned();
    for step in steps {
        match step {
            Step::Put { len, seed } => {
                let bytes = pattern(len, seed);
                live.push((store.put(&bytes).await.expect("there is room"), bytes));
            }
            Step::Slice { of, from, to } => {
                let Some((object, bytes)) = pick(&live, of) else { continue };
                let (a, b) = (place(from, bytes.len()), place(to, bytes.len()));
                let (from, to) = (a.min(b), a.max(b));
                let slice = object.slice(from as u64..to as u64).expect("within");
                live.push((slice, bytes[from..to].to_vec()));
            }
            Step::Edit { of, changes } => {
                let Some((object, mut bytes)) = pick(&live, of) else { continue };
                let edited = edit(&object, &mut bytes, &changes).await;
                live.push((edited, bytes));
            }
            Step::Private { of, writes } => {
                let Some((object, mut bytes)) = pick(&live, of) else { continue };
                let mut private = object.get().await.expect("it is there").into_private();
                for (at, len, byte) in writes {
                    let at = place(at, bytes.len());
                    let end = (at + len as usize).min(bytes.len());
                    private[at..end].fill(byte);
                    bytes[at..end].fill(byte);
                }
                assert!(*private == *bytes);
                live.push((private.commit().await.expect("there is room"), bytes));
            }
            Step::Lend { of, changes, keep } => {
                let Some((object, mut bytes)) = pick(&live, of) else { continue };
                let mut message = Vec::new();
                there.0.lend(object.as_any(), &mut message).expect("the node is there");
                drop(object);
                let (borrowed, _) = there.1.borrow(&message).expect("well formed");
                let borrowed: ObjectRef = borrowed.cast().expect("bytes");
                check(&borrowed, &bytes).await;
                if keep {
                    borrowed.keep().await.expect("it is there");
                }
                let edited = edit(&borrowed, &mut bytes, &changes).await;
                drop(borrowed);
                message.clear();
                back.0.lend(edited.as_any(), &mut message).expect("the node is there");
                drop(edited);
                let (returned, _) = back.1.borrow(&message).expect("well formed");
                live.push((returned.cast().expect("bytes"), bytes));
            }
            Step::Publish { of } => {
                let Some((object, _)) = pick(&live, of) else { continue };
                object.keep().await.expect("the node is there");
            }
            Step::Drop { of } => {
                if !live.is_empty() {
                    live.swap_remove(of % live.len());
                }
            }
        }
        if let Some((object, bytes)) = live.last() {
            check(object, bytes).await;
        }
        pass_returns(&there);
        pass_returns(&back);
    }
    for (object, bytes) in &live {
        check(object, bytes).await;
    }
    drop(live);
    // A loan that becomes a hold comes back when that is confirmed.
    rig::wait_until("all loans are back", || {
        pass_returns(&there);
        pass_returns(&back);
        there.0.is_empty() && back.0.is_empty()
    });
}

fn pass_returns((loans, borrows): &(Loans, Borrows)) {
    let mut returns = Vec::new();
    borrows.take_returns(&mut returns);
    loans.returned(&returns);
}

fn check_steps(steps: Vec<Step>, store: &Store, other: &Store, node: &Store) {
    let before = block_on(node.stats()).expect("the node is there").failures;
    block_on(run(store, other, steps));
    block_on(store.flush()).expect("the node is there");
    block_on(other.flush()).expect("the node is there");
    wait_for(node, "everything is free", |stats| {
        stats.objects == 0 && stats.holds == 0 && stats.live_pages == 0 && stats.tree_nodes == 0
    });
    let stats = block_on(node.stats()).expect("the node is there");
    assert_eq!(stats.failures, before, "nothing was refused: {stats:?}");
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn on_the_nodes_host() {
    let store = node(pool(64 << 20));
    let other = block_on(Store::connect(store.url())).unwrap();
    proptest!(config(200), |(steps in prop::collection::vec(step(), 1..25))| {
        check_steps(steps, &store, &other, &store);
    });
}

#[test]
fn in_huge_pages_that_were_set_aside() {
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    if !free.is_ok_and(|free| free.trim().parse().is_ok_and(|free: u64| free >= 32)) {
        eprintln!("skipped: this host has not set 32 huge pages aside (sysctl vm.nr_hugepages=32)");
        return;
    }
    let store = node(NodeConfig { hugepages: Hugepages::Require, ..pool(64 << 20) });
    let other = block_on(Store::connect(store.url())).unwrap();
    proptest!(config(200), |(steps in prop::collection::vec(step(), 1..25))| {
        check_steps(steps, &store, &other, &store);
    });
}

#[test]
fn over_tcp() {
    let host = node(pool(64 << 20));
    let (store, other) = (remote(&host), remote(&host));
    proptest!(config(100), |(steps in prop::collection::vec(step(), 1..20))| {
        check_steps(steps, &store, &other, &host);
    });
}

#[test]
fn from_the_host_to_tcp_and_back() {
    let host = node(pool(64 << 20));
    let far = remote(&host);
    proptest!(config(60), |(steps in prop::collection::vec(step(), 1..20))| {
        check_steps(steps.clone(), &host, &far, &host);
        check_steps(steps, &far, &host, &host);
    });
}
