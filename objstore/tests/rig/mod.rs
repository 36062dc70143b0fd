//! What tests of the store share: nodes, patterns, waiting.
#![allow(dead_code, reason = "each test uses some of it")]

use dmrpc_fabric::address::Address;
use dmrpc_memnode::NodeConfig;
use dmrpc_objstore::{EmbeddedOptions, Stats, Store, StoreOptions, block_on};
use std::time::{Duration, Instant};

/// Long enough for anything that is to happen at all.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A node in this process that listens at a port as well, and a store on its host.
pub fn node(config: NodeConfig) -> Store {
    let mut options = EmbeddedOptions::default();
    let tcp: Address = "tcp://127.0.0.1:0".parse().expect("an address");
    options.node = NodeConfig { listen: vec![tcp], ..config };
    block_on(Store::embedded_with(options)).expect("a node starts")
}

pub fn pool(pool_bytes: u64) -> NodeConfig {
    NodeConfig { pool_bytes, ..NodeConfig::default() }
}

/// Where the node of `store` listens for others on its network.
pub fn tcp_url(store: &Store) -> String {
    store.embedded_urls().into_iter().find(|url| url.starts_with("tcp:")).expect("it listens at a port")
}

pub fn remote(store: &Store) -> Store {
    block_on(Store::connect_with(StoreOptions::new(tcp_url(store)))).expect("the node is there")
}

pub fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8).wrapping_add(seed)).collect()
}

/// Waits until the node's figures are as wanted.
#[track_caller]
pub fn wait_for(store: &Store, what: &str, wanted: impl Fn(&Stats) -> bool) {
    let until = Instant::now() + PATIENCE;
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

/// Waits until something is so.
#[track_caller]
pub fn wait_until(what: &str, wanted: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !wanted() {
        assert!(Instant::now() < until, "{what}");
        std::thread::yield_now();
    }
}
