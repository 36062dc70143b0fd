//! A store on the memory node's host, against a node in this process.

use dmrpc_memnode::NodeConfig;
use dmrpc_objstore::{Borrows, EmbeddedOptions, Loans, ObjectRef, Stats, Store, StoreOptions, block_on};
use std::time::{Duration, Instant};

fn embedded(pool_bytes: u64) -> Store {
    let mut options = EmbeddedOptions::default();
    options.node = NodeConfig { pool_bytes, ..NodeConfig::default() };
    block_on(Store::embedded_with(options)).expect("a node starts")
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8).wrapping_add(seed)).collect()
}

/// Waits until the node's figures are as wanted.
#[track_caller]
fn wait_for(store: &Store, what: &str, wanted: impl Fn(&Stats) -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        block_on(store.flush()).expect("the node is there");
        let stats = block_on(store.stats()).expect("the node is there");
        if wanted(&stats) {
            return;
        }
        assert!(Instant::now() < until, "{what}: {stats:?}");
        std::thread::yield_now();
    }
}

#[test]
fn what_is_put_can_be_got() {
    let store = embedded(64 << 20);
    for len in [0, 1, 2048, 2049, 4096, 4097, 32 << 10, (1 << 20) + 5] {
        let bytes = pattern(len, 1);
        let object = block_on(store.put(&bytes)).expect("there is room");
        assert_eq!(object.len(), len as u64);
        let view = block_on(object.get()).expect("it is here");
        assert_eq!(&*view, &bytes[..]);
        assert!(view.is_zero_copy());
        let half = object.slice(len as u64 / 2..).unwrap();
        assert_eq!(&*half.try_get().expect("no need to wait").unwrap(), &bytes[len / 2..]);
    }
    wait_for(&store, "nothing was published", |stats| stats.objects == 0 && stats.commits == 0);
}

#[test]
fn a_loan_is_read_without_a_hold_and_comes_back() {
    let owner = embedded(64 << 20);
    let other = block_on(Store::connect(owner.url())).unwrap();
    let bytes = pattern(100_000, 2);
    let object = block_on(owner.put(&bytes)).unwrap();
    let loans = Loans::new(Duration::from_secs(1));
    let borrows = Borrows::new(|| {});
    let mut message = Vec::new();
    let loan = loans.lend(object.as_any(), &mut message).unwrap();
    assert!(loan > 0 && loans.len() == 1);
    wait_for(&owner, "it is published", |stats| stats.objects == 1 && stats.holds == 1);
    // The process itself has a hold: the loan comes back at once.
    let (back, rest) = borrows.borrow(&message).unwrap();
    assert!(rest.is_empty());
    let mut returns = Vec::new();
    borrows.take_returns(&mut returns);
    assert_eq!(returns, [loan]);
    assert_eq!(back.id(), object.id());
    loans.returned(&returns);
    assert!(loans.is_empty());

    // As another process would: nothing is asked of the node but the segment.
    let borrows = Borrows::of(&other, || {});
    message.clear();
    let loan = loans.lend(object.slice(5_000..90_000).unwrap().as_any(), &mut message).unwrap();
    let (borrowed, _) = borrows.borrow(&message).unwrap();
    let view = block_on(borrowed.get()).unwrap();
    assert_eq!(&*view, &bytes[5_000..90_000]);
    assert!(view.is_zero_copy() && borrowed.try_get().is_some());
    wait_for(&owner, "no hold was taken", |stats| stats.holds == 1);
    drop(borrowed);
    returns.clear();
    borrows.take_returns(&mut returns);
    assert!(returns.is_empty(), "a view keeps the loan");
    drop(view);
    borrows.take_returns(&mut returns);
    assert_eq!(returns, [loan]);
    loans.returned(&returns);
    drop((object, back));
    wait_for(&other, "all is free", |stats| stats.objects == 0 && stats.live_pages == 0);
}

#[test]
fn pages_of_dropped_objects_are_used_again() {
    let store = embedded(16 << 20);
    let loans = Loans::new(Duration::ZERO);
    for round in 0..200u32 {
        let bytes = pattern(1 << 20, round as u8);
        let object = block_on(store.put(&bytes)).expect("what was dropped makes room");
        if round % 2 == 0 {
            let mut message = Vec::new();
            let loan = loans.lend(object.as_any(), &mut message).unwrap();
            loans.returned(&[loan]);
        }
        assert_eq!(&*block_on(object.get()).unwrap(), &bytes[..]);
    }
    wait_for(&store, "all is free", |stats| stats.objects == 0 && stats.holds == 0);
}

#[test]
fn a_grant_outlives_its_maker() {
    let owner = embedded(64 << 20);
    let url = owner.url().to_owned();
    let bytes = pattern(50_000, 3);
    let maker = block_on(Store::connect(&url)).unwrap();
    let object = block_on(maker.put(&bytes)).unwrap();
    let granted = block_on(object.slice(10..40_000).unwrap().grant(Duration::from_secs(60))).unwrap();
    drop(object);
    maker.close();
    let text = granted.to_string();
    let reader = block_on(Store::connect_with(StoreOptions::new(&url))).unwrap();
    let redeemed = block_on(reader.redeem(&text.parse().unwrap())).unwrap();
    let typed: ObjectRef = redeemed.cast().unwrap();
    assert_eq!(&*block_on(typed.get()).unwrap(), &bytes[10..40_000]);
    block_on(reader.revoke(&granted)).unwrap();
    assert!(block_on(reader.redeem(&granted)).is_err());
    drop(typed);
    wait_for(&reader, "all is free", |stats| stats.objects == 0 && stats.grants == 0);
}
