//! A store on the memory node's host, against a node in this process.

mod rig;

use dmrpc_objstore::{Borrows, Loans, ObjectRef, Store, StoreOptions, block_on};
use rig::{node, pattern, pool, wait_for};
use std::time::Duration;

#[test]
fn what_is_put_can_be_got() {
    let store = node(pool(64 << 20));
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
    let owner = node(pool(64 << 20));
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
    let store = node(pool(16 << 20));
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
    let owner = node(pool(64 << 20));
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
