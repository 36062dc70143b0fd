//! A store over RDMA: bytes are read and written by the device alone, and what a dead session could still do is refused.
//!
//! They need a device: `make test-rdma` runs them in a guest that has one.

mod rig;

use dmrpc_memnode::{Node, NodeConfig};
use dmrpc_objstore::{Store, StoreError, StoreOptions, block_on};
use rig::process::{Player, play_on, role, tell};
use rig::{pattern, wait_until};
use std::time::{Duration, Instant};

const POOL_BYTES: u64 = 64 << 20;

fn node(config: NodeConfig) -> (Node, String) {
    let config = NodeConfig { pool_bytes: POOL_BYTES, listen: vec!["rdma://127.0.0.1:0".parse().unwrap()], ..config };
    let node = Node::start(config).unwrap();
    let url = node.addresses()[0].to_string();
    (node, url)
}

/// A store that keeps nothing: what it gets was read just now.
fn without_cache(url: &str) -> Store {
    let mut options = StoreOptions::new(url);
    options.cache_bytes = 0;
    block_on(Store::connect_with(options)).unwrap()
}

#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn objects_come_back_as_they_went() {
    let (node, url) = node(NodeConfig::default());
    let store = without_cache(&url);
    assert!(!store.is_local());
    for len in [1, 2048, 2049, 4096, 4097, 100_000, 1 << 20, (3 << 20) + 17] {
        let bytes = pattern(len, len as u8);
        let object = block_on(store.put(&bytes)).unwrap();
        // A read that is ahead of the commit has to ask.
        block_on(store.flush()).unwrap();
        assert!(block_on(object.get()).unwrap()[..] == bytes[..], "{len} bytes");
        if len > 5000 {
            let part = block_on(object.slice(4000..len as u64 - 1).unwrap().get()).unwrap();
            assert!(part[..] == bytes[4000..len - 1], "a part of {len} bytes");
        }
    }
    let stats = node.stats().unwrap();
    assert_eq!((stats.bytes_read.get(), stats.bytes_written.get()), (0, 0), "no message had a body");
    node.shutdown();
}

#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn edits_share_what_they_do_not_touch() {
    let (node, url) = node(NodeConfig::default());
    let store = without_cache(&url);
    block_on(async {
        let bytes = pattern(1 << 20, 3);
        let before = store.put(&bytes).await.unwrap();
        let mut edit = before.edit().await.unwrap();
        edit.write(5000, b"changed").unwrap();
        edit.resize((1 << 20) + 100_000).unwrap();
        let after = edit.commit().await.unwrap();
        let mut expected = bytes.clone();
        expected[5000..5007].copy_from_slice(b"changed");
        expected.resize((1 << 20) + 100_000, 0);
        assert!(after.get().await.unwrap()[..] == expected[..]);
        assert!(before.get().await.unwrap()[..] == bytes[..]);
    });
    node.shutdown();
}

/// The node's loop does not wake for a read: however many there are, it wakes for its ticks and the session's renewals alone.
#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn the_node_sleeps_while_it_is_read() {
    const READS: u64 = 1000;
    let (node, url) = node(NodeConfig::default());
    let store = without_cache(&url);
    let bytes = pattern(20_000, 5);
    let object = block_on(store.put(&bytes)).unwrap();
    // What has to be asked once is known after the first.
    assert!(block_on(object.get()).unwrap()[..] == bytes[..]);
    block_on(store.flush()).unwrap();
    let before = node.stats().unwrap();
    let started = Instant::now();
    for _ in 0..READS {
        assert!(block_on(object.get()).unwrap()[..] == bytes[..]);
    }
    let after = node.stats().unwrap();
    let ticks = started.elapsed().as_millis() as u64 / 50 + 1;
    let (wakeups, requests) =
        (after.wakeups.get() - before.wakeups.get(), after.requests.get() - before.requests.get());
    eprintln!("{READS} reads in {:?}: {wakeups} wake-ups, {requests} requests, {ticks} ticks", started.elapsed());
    assert_eq!(after.bytes_read, before.bytes_read);
    let renewals = started.elapsed().as_millis() as u64 / (NodeConfig::default().lease.as_millis() as u64 / 3) + 1;
    assert!(requests <= renewals, "{requests} requests where {renewals} renewals are due");
    // A request wakes it, and what is left of its answer; so does each question of ours for figures.
    assert!(wakeups <= ticks + 2 * requests + 2, "{wakeups} wake-ups in {ticks} ticks");
    node.shutdown();
}

/// Pages are used again and again, and what is read is always an object as it was published.
#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn pages_come_back_to_the_arena() {
    let (node, url) = node(NodeConfig::default());
    let store = without_cache(&url);
    // Three times the pool, in objects that a software device moves in a tenth of a second.
    for round in 0..((3 * POOL_BYTES) >> 22) {
        let bytes = pattern(4 << 20, round as u8);
        let object = block_on(store.put(&bytes)).unwrap();
        if round % 8 == 0 {
            assert!(block_on(object.get()).unwrap()[..] == bytes[..], "round {round}");
        }
    }
    wait_until("everything is free", || {
        block_on(store.flush()).unwrap();
        node.stats().unwrap().live_pages == 0
    });
    node.shutdown();
}

#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn tenants_do_not_reach_each_other() {
    let tokens = vec![b"one".to_vec(), b"two".to_vec()];
    let (node, url) = node(NodeConfig { tenant_tokens: tokens, ..NodeConfig::default() });
    let store = |token: &[u8]| {
        let mut options = StoreOptions::new(&url);
        options.token = token.to_vec();
        options.cache_bytes = 0;
        block_on(Store::connect_with(options))
    };
    assert!(store(b"three").is_err(), "nobody's token");
    let (one, two) = (store(b"one").unwrap(), store(b"two").unwrap());
    let bytes = pattern(50_000, 9);
    let object = block_on(one.put(&bytes)).unwrap();
    let granted = block_on(object.as_any().grant(Duration::from_secs(60))).unwrap();
    assert!(block_on(two.redeem(&granted)).is_err());
    let other = store(b"one").unwrap();
    let redeemed = block_on(other.redeem(&granted)).unwrap();
    assert!(block_on(redeemed.get()).unwrap()[..] == bytes[..]);
    node.shutdown();
}

/// With the node in another machine, where somebody started one.
#[test]
#[ignore = "needs two hosts with RDMA devices: make test-rdma-two"]
fn a_node_on_another_host() {
    let url = std::env::var("DMRPC_TEST_URL").expect("DMRPC_TEST_URL says where the node is");
    let store = without_cache(&url);
    for len in [4096, 100_000, 8 << 20] {
        let bytes = pattern(len, 11);
        let object = block_on(store.put(&bytes)).unwrap();
        block_on(store.flush()).unwrap();
        assert!(block_on(object.get()).unwrap()[..] == bytes[..], "{len} bytes");
    }
    let stats = block_on(store.stats()).unwrap();
    assert_eq!((stats.bytes_read.get(), stats.bytes_written.get()), (0, 0), "no message had a body");
}

/// The other process of the tests below.
#[test]
#[ignore = "a role in other tests"]
fn the_other_store() {
    let Some((role, url)) = role() else { return };
    let store = without_cache(&url);
    let bytes = pattern(1 << 20, 1);
    let object = block_on(store.put(&bytes)).unwrap();
    let granted = block_on(object.as_any().grant(Duration::from_secs(600))).unwrap();
    block_on(store.flush()).unwrap();
    tell(&granted.to_string());
    if role == "is killed" {
        play_on();
    }
    // It is stopped here, for longer than its lease, and goes on.
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let (read, written) = (block_on(object.get()).map(drop), block_on(store.put(&bytes)).map(drop));
    tell(&format!("{:?} {:?}", read.map_err(kind), written.map_err(kind)));
    play_on();
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn kind(error: StoreError) -> &'static str {
    match error {
        StoreError::LeaseExpired => "lease expired",
        StoreError::NodeUnreachable { .. } => "unreachable",
        _ => "something else",
    }
}

/// What a process that was killed had written and granted is still there; what it had leased is free.
#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn a_killed_client_leaves_what_it_granted() {
    let (node, url) = node(NodeConfig::default());
    let mut player = Player::start("the_other_store", "is killed", &url);
    let granted = player.told().parse().unwrap();
    let store = without_cache(&url);
    player.kill();
    wait_until("its session is over", || node.stats().unwrap().sessions == 1);
    let object = block_on(store.redeem(&granted)).unwrap();
    assert!(block_on(object.get()).unwrap()[..] == pattern(1 << 20, 1)[..]);
    wait_until("what it had leased is free", || {
        let stats = node.stats().unwrap();
        stats.quarantined_pages == 0 && stats.live_pages == 256
    });
    node.shutdown();
}

/// A put that is given up while its bytes are written gives its pages back when they are not written any more, and not before.
#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn a_put_that_is_given_up_gives_its_pages_back() {
    let (node, url) = node(NodeConfig::default());
    let store = without_cache(&url);
    let (given_up, kept) = (pattern(16 << 20, 1), pattern(16 << 20, 2));
    // So that there is memory, and the first step of the next is to write.
    drop(block_on(store.put(&kept)).unwrap());
    for _ in 0..8 {
        // More than the pool holds, if none came back.
        let mut put = Box::pin(store.put(&given_up));
        assert!(put.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending());
        drop(put);
    }
    let object = block_on(store.put(&kept)).unwrap();
    block_on(store.flush()).unwrap();
    assert!(block_on(object.get()).unwrap()[..] == kept[..], "nothing else is written there");
    node.shutdown();
}

/// A client that is paused beyond its lease is fenced: its pages are other's, and it reads and writes nothing any more.
#[test]
#[ignore = "needs an RDMA device: make test-rdma"]
fn a_paused_client_wakes_fenced() {
    // An emulated machine on a busy host may not get to a renewal for seconds.
    let lease = Duration::from_secs(6);
    let (node, url) = node(NodeConfig { lease, ..NodeConfig::default() });
    let mut player = Player::start("the_other_store", "is paused", &url);
    let _granted = player.told();
    player.stop(true);
    wait_until("its session is over", || node.stats().unwrap().leases_expired == 1);
    wait_until("its pages are free", || {
        let stats = node.stats().unwrap();
        stats.quarantined_pages == 0 && stats.unpublished_pages == 0
    });
    // Others use the memory.
    let store = without_cache(&url);
    let bytes = pattern(4 << 20, 7);
    let object = block_on(store.put(&bytes)).unwrap();
    player.stop(false);
    player.say("go on");
    let told = player.told();
    assert!(told.matches("Err(").count() == 2 && !told.contains("something else"), "{told}");
    assert!(block_on(object.get()).unwrap()[..] == bytes[..], "nobody wrote over it");
    node.shutdown();
}
