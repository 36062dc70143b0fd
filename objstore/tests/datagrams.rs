//! A store over the datagram protocol: objects arrive whole, and edits share what they do not touch.

use dmrpc_memnode::{Node, NodeConfig};
use dmrpc_objstore::{Store, block_on};

#[test]
fn objects_over_udp() {
    let config = NodeConfig { listen: vec!["udp://127.0.0.1:0".parse().unwrap()], ..NodeConfig::default() };
    let node = Node::start(config).unwrap();
    let url = node.addresses()[0].to_string();
    block_on(async {
        let store = Store::connect(&url).await.unwrap();
        for len in [1usize, 5000, 300_000, 5_000_000] {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 31 / 7) as u8).collect();
            let object = store.put(&bytes).await.unwrap();
            assert!(object.get().await.unwrap()[..] == bytes[..], "{len} bytes");
            let mut edit = object.edit().await.unwrap();
            edit.write(0, b"!").unwrap();
            let edited = edit.commit().await.unwrap();
            assert_eq!(edited.get().await.unwrap()[0], b'!');
            assert_eq!(object.get().await.unwrap()[0], bytes[0]);
        }
    });
    node.shutdown();
}
