//! References that are lent for a question: the node hears of them when somebody needs it to, or never. Numbers are those of
//! the invariants in `object.rs`.

mod rig;

use dmrpc_objstore::{AnyRef, Borrows, Loans, ObjectRef, Store, StoreError, block_on};
use rig::{node, pattern, pool, wait_for, wait_until};
use std::time::Duration;

/// What one store lends another, as two processes would.
struct Way {
    loans: Loans,
    borrows: Borrows,
}

impl Way {
    fn to(other: &Store) -> Self {
        Self { loans: Loans::new(Duration::from_secs(5)), borrows: Borrows::of(other, || {}) }
    }

    /// Lends for a question: what the other one has then, and the loan.
    fn ask(&self, object: &ObjectRef) -> (AnyRef, u64) {
        let mut message = Vec::new();
        let loan = self.loans.until_answered().lend(object.as_any(), &mut message).expect("the node is there");
        (self.borrows.borrow(&message).expect("well formed").0, loan)
    }

    fn returns(&self) {
        let mut returns = Vec::new();
        self.borrows.take_returns(&mut returns);
        self.loans.returned(&returns);
    }
}

fn stores(host: &Store) -> (Store, Store) {
    let connect = || block_on(Store::connect(host.url())).expect("the node is there");
    (connect(), connect())
}

/// Invariant 2: a reference for one question is no work for the node, however many there are.
#[test]
fn what_comes_back_is_never_published() {
    let host = node(pool(16 << 20));
    let (asker, answerer) = stores(&host);
    let way = Way::to(&answerer);
    let before = block_on(host.stats()).unwrap();
    for round in 0..500u32 {
        let bytes = pattern(100_000, round as u8);
        let object = block_on(asker.put(&bytes)).expect("what came back makes room");
        let (borrowed, loan) = way.ask(&object);
        let view = block_on(borrowed.get()).expect("it is lent");
        assert!(view.is_zero_copy() && *view == *bytes);
        drop((view, borrowed));
        way.returns();
        way.loans.outlived(&[loan]).expect("nothing is left of it");
    }
    let after = block_on(host.stats()).unwrap();
    assert_eq!((after.commits, after.objects, after.holds), (before.commits, 0.into(), 0.into()));
    // The segment is asked for once, and memory now and then.
    let requests = after.requests.get() - before.requests.get();
    assert!(requests < 50, "{requests} requests for 500 questions");
}

/// Invariant 2: who wants a hold, or makes something of it, gets it; also when it is changed by then.
#[test]
fn what_is_wanted_is_published() {
    let host = node(pool(64 << 20));
    let (asker, answerer) = stores(&host);
    let way = Way::to(&answerer);
    let bytes = pattern(100_000, 1);
    let object = block_on(asker.put(&bytes)).unwrap();
    let (borrowed, _) = way.ask(&object);
    block_on(borrowed.keep()).expect("its maker is told that somebody waits");
    way.returns();
    assert!(way.loans.is_empty(), "whoever has a hold needs no loan");
    drop(object);
    wait_for(&host, "its maker lets go", |stats| stats.holds == 1);
    assert_eq!(*block_on(borrowed.get()).unwrap(), *bytes);
    drop(borrowed);

    // An edit of what was lent, lent back, and granted by who had it first.
    let back = Way::to(&asker);
    let object = block_on(asker.put(&bytes)).unwrap();
    let (borrowed, _) = way.ask(&object);
    let mut edit = block_on(borrowed.cast::<[u8]>().unwrap().edit()).unwrap();
    edit.write(5_000, b"changed").unwrap();
    let edited = block_on(edit.commit()).unwrap();
    let (edited_there, _) = back.ask(&edited);
    let edited_there: ObjectRef = edited_there.cast().unwrap();
    assert_eq!(block_on(edited_there.get()).unwrap()[5_000..5_007], *b"changed");
    let granted = block_on(edited_there.grant(Duration::from_secs(60))).expect("both are published for that");
    drop(edited_there);
    back.returns();
    drop(edited);
    // The loan of what was edited comes back when the hold on it is there.
    wait_until("the original comes back", || {
        way.returns();
        way.loans.is_empty()
    });
    drop(object);
    let redeemed: ObjectRef = block_on(host.redeem(&granted)).unwrap().cast().unwrap();
    let view = block_on(redeemed.get()).unwrap();
    assert!(view[5_000..5_007] == *b"changed" && view[5_007..] == bytes[5_007..] && view[..5_000] == bytes[..5_000]);
    drop((view, redeemed));
    block_on(host.revoke(&granted)).unwrap();
    wait_for(&host, "all is free", |stats| stats.objects == 0 && stats.live_pages == 0);
}

/// Invariant 2: what is still in use when the answer is there does not depend on the asker any more.
#[test]
fn what_outlives_its_question_is_published() {
    let host = node(pool(64 << 20));
    let (asker, answerer) = stores(&host);
    let way = Way::to(&answerer);
    let bytes = pattern(100_000, 2);
    let object = block_on(asker.put(&bytes)).unwrap();
    let (borrowed, loan) = way.ask(&object);
    assert_eq!(block_on(host.stats()).unwrap().objects, 0);
    way.loans.outlived(&[loan]).expect("the node is there");
    wait_for(&host, "it is published", |stats| stats.objects == 1 && stats.holds == 1);
    drop(borrowed);
    way.returns();
    drop(object);
    wait_for(&host, "all is free", |stats| stats.objects == 0 && stats.live_pages == 0);
}

/// Invariant 3: each wants a hold on what the other has lent it, at once, and nobody waits for the other's turn.
#[test]
fn two_that_want_each_others_both_get_it() {
    let host = node(pool(64 << 20));
    let (a, b) = stores(&host);
    let (there, back) = (Way::to(&b), Way::to(&a));
    for round in 0..200u32 {
        let [of_a, of_b] = [&a, &b].map(|store| block_on(store.put(pattern(10_000, round as u8))).unwrap());
        let ((at_b, _), (at_a, _)) = (there.ask(&of_a), back.ask(&of_b));
        std::thread::scope(|scope| {
            let one = scope.spawn(|| block_on(at_b.keep()));
            let other = scope.spawn(|| block_on(at_a.keep()));
            // If they waited for each other both would be refused after a while.
            assert_eq!((one.join().unwrap(), other.join().unwrap()), (Ok(()), Ok(())), "round {round}");
        });
        there.returns();
        back.returns();
    }
    assert!(there.loans.is_empty() && back.loans.is_empty());
    wait_for(&host, "all is free", |stats| stats.objects == 0 && stats.holds == 0);
}

/// Invariant 2: it dies with its lender, says so, and shows what it was as long as somebody looks.
#[test]
fn what_is_lent_by_who_is_gone_is_stale() {
    let host = node(pool(64 << 20));
    let (asker, answerer) = stores(&host);
    let way = Way::to(&answerer);
    let bytes = pattern(100_000, 3);
    let object = block_on(asker.put(&bytes)).unwrap();
    let (borrowed, loan) = way.ask(&object);
    let view = block_on(borrowed.get()).unwrap();
    // As if its process had ended: nothing is left of the session.
    way.loans.returned(&[loan]);
    drop((object, asker));
    wait_for(&host, "its session is over", |stats| stats.sessions == 2);
    let kept = block_on(borrowed.keep());
    assert!(matches!(kept, Err(StoreError::Stale(_))), "{kept:?}");
    assert_eq!(*view, *bytes);
    drop((view, borrowed));
    wait_for(&host, "all is free", |stats| stats.objects == 0 && stats.live_pages == 0);
}

/// With a pool in a file the pages of a session that is gone are soon another's: everything is published that leaves.
#[test]
fn in_a_file_everything_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pool");
    std::fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
    let mut config = pool(64 << 20);
    config.pool_file = Some(path);
    let host = node(config);
    let (asker, answerer) = stores(&host);
    let object = block_on(asker.put(pattern(100_000, 4))).unwrap();
    let way = Way::to(&answerer);
    let (borrowed, _) = way.ask(&object);
    wait_for(&host, "it is published", |stats| stats.objects == 1);
    drop(borrowed);
}
