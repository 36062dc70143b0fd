//! The object store against a node in a process of its own.

mod rig;

use dmrpc_objstore::{ObjectRef, Store, StoreError, StoreOptions, block_on};
use rig::{NodeProcess, pattern};
use rustix::process::Signal;
use std::time::Duration;

fn connect(url: &str) -> Store {
    let mut options = StoreOptions::new(url);
    options.deadline = Duration::from_secs(30);
    block_on(Store::connect_with(options)).expect("a session")
}

#[test]
fn an_object_goes_from_this_host_over_the_network_and_back_and_leaves_nothing() {
    let node = NodeProcess::start(&["--pool", "64MiB", "--grace", "20ms"]);
    let here = connect(&node.unix().to_string());
    let there = connect(&node.tcp().to_string());
    assert_eq!(here.node(), there.node());
    assert!(here.is_local() && !there.is_local());
    let bytes = pattern(1, 3_000_000);
    let object = block_on(here.put(&bytes)).expect("there is room");
    let text = block_on(object.grant(Duration::from_secs(60))).expect("a grant").to_string();

    let redeemed = block_on(there.redeem(&text.parse().expect("a grant"))).expect("it is granted");
    let redeemed: ObjectRef = redeemed.cast().expect("bytes");
    assert_eq!(&*block_on(redeemed.get()).expect("its bytes"), &bytes[..]);
    let mut edit = block_on(redeemed.edit()).expect("an edit");
    edit.write(1_000_000, b"changed over the network").expect("within it");
    let edited = block_on(edit.commit()).expect("there is room");
    let text = block_on(edited.grant(Duration::from_secs(60))).expect("a grant").to_string();

    let back: ObjectRef =
        block_on(here.redeem(&text.parse().expect("a grant"))).expect("granted").cast().expect("bytes");
    let mut expected = bytes.clone();
    expected[1_000_000..][..24].copy_from_slice(b"changed over the network");
    assert_eq!(&*block_on(back.get()).expect("its bytes"), &expected[..]);
    assert_eq!(&*block_on(object.get()).expect("its bytes"), &bytes[..], "the original is as it was");

    drop((object, redeemed, edited, back));
    here.close();
    there.close();
    drop((here, there));
    node.wait_for("the end of both sessions", |stats| stats.sessions == 1);
    // The grants are left: they outlive those who made them.
    let stats = node.stats();
    assert_eq!((stats.grants.get(), stats.objects.get()), (2, 2));
    assert!(node.end(Signal::TERM).success);
}

#[test]
fn a_store_whose_node_is_killed_says_so() {
    let node = NodeProcess::start(&["--pool", "64MiB"]);
    for url in [node.unix().to_string(), node.tcp().to_string()] {
        drop(connect(&url));
    }
    let stores = [connect(&node.unix().to_string()), connect(&node.tcp().to_string())];
    let objects: Vec<ObjectRef> =
        stores.iter().map(|store| block_on(store.put(pattern(1, 100_000))).expect("there is room")).collect();
    node.end(Signal::KILL);
    for (store, object) in stores.iter().zip(&objects) {
        let error = block_on(store.stats()).map(drop).expect_err("nobody is there");
        assert!(matches!(error, StoreError::NodeUnreachable { .. }), "{error}");
        let error = block_on(object.grant(Duration::from_secs(1))).map(drop).expect_err("nobody is there");
        assert!(matches!(error, StoreError::NodeUnreachable { .. }), "{error}");
    }
}
