//! A node within a process, by its public API.

mod rig;

use dmrpc_fabric::address::Address;
use dmrpc_memnode::{Hugepages, Node, NodeConfig, NodeError};
use dmrpc_wire::{Request, Status};
use rig::{Client, pattern};

fn config(name: &str) -> NodeConfig {
    NodeConfig {
        pool_bytes: 32 << 20,
        hugepages: Hugepages::Never,
        listen: vec![Address::InProcess(name.into())],
        grace: std::time::Duration::from_millis(10),
        ..NodeConfig::default()
    }
}

#[test]
fn clients_of_the_same_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket: Address = format!("unix://{}/node", folder.path().display()).parse().expect("a URL");
    let mut config = config("clients_of_the_same_process");
    config.listen.push(socket.clone());
    let node = Node::start(config).expect("a node");
    assert_eq!(node.addresses().len(), 2);
    let mut writer = Client::local(&node.addresses()[0]);
    assert_eq!(writer.welcome.node, node.id());
    let (info, mut arena) = writer.lease(64, 4).expect("a lease");
    let bytes = pattern(1, 20_000);
    arena.write(0, &bytes);
    let id = writer.commit(info.segment, 0, 5, 20_000);
    for address in node.addresses() {
        let mut reader = Client::local(address);
        assert_eq!(reader.hold(id), Status::Ok);
        assert_eq!(reader.read(id, 0, 20_000).as_deref(), Ok(&bytes[..]));
        let (_, extents) = reader.resolve(id).expect("it is held");
        let (info, fd) = reader.segment(extents[0].segment.0).expect("a segment of the tenant");
        let view = rig::Mapped::read_only(&fd, info.file_offset, 64 * 4096).expect("it can be read");
        assert_eq!(view.read(0, 20_000), bytes);
        reader.bye();
    }
    assert_eq!(node.stats().expect("it runs").objects, 1);
    node.shutdown();
    assert!(!folder.path().join("node").exists());
    assert_eq!(writer.next().expect("it hears of the end").status(), Status::ShuttingDown);
    writer.next().map(drop).expect_err("the link has ended");
}

/// Memory is of the NUMA node that was named, and of no other.
#[test]
#[ignore = "needs two NUMA nodes: make test-rdma"]
fn memory_is_of_the_numa_node_that_was_named() {
    for wanted in [0, 1] {
        let mut config = config(&format!("memory_is_of_numa_node_{wanted}"));
        config.numa_node = Some(wanted);
        let node = Node::start(config).expect("a node");
        let mut writer = Client::local(&node.addresses()[0]);
        let (_info, mut arena) = writer.lease(64, 4).expect("a lease");
        arena.write(0, &pattern(1, 64 * 4096));
        // Of each mapping: how many pages are on which node, as in `N0=64`.
        let maps = std::fs::read_to_string("/proc/self/numa_maps").expect("a kernel that knows NUMA");
        let pages = |node: u32| -> u64 {
            let key = format!("N{node}=");
            let segments = maps.lines().filter(|line| line.contains("dmrpc-segment"));
            segments
                .flat_map(|line| line.split(' ').filter_map(|word| word.strip_prefix(&key)?.parse::<u64>().ok()))
                .sum()
        };
        assert!(pages(wanted) >= 64 && pages(1 - wanted) == 0, "node {wanted}:\n{maps}");
        drop(arena);
        writer.bye();
        node.shutdown();
    }
}

/// Bodies that are handed over within the process end their transfers in the client's thread: the loop hears of it.
#[test]
fn bytes_of_the_same_process() {
    let node = Node::start(config("bytes_of_the_same_process")).expect("a node");
    let address = node.addresses()[0].clone();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let address = &address;
            scope.spawn(move || {
                let mut client = Client::remote(address);
                for round in 0..30 {
                    let bytes = pattern(thread * 1000 + round, 1 + (round as usize * 7919) % 300_000);
                    let id = client.write(&bytes).expect("an object");
                    assert_eq!(client.read(id, 0, bytes.len() as u64).as_deref(), Ok(&bytes[..]));
                    let release = [dmrpc_wire::ReleaseEntry { id, count: 1.into() }];
                    client.send(&Request::Release(&release), Default::default());
                }
                client.bye();
            });
        }
    });
    rig::wait_until("everything", || {
        let stats = node.stats().expect("it runs");
        stats.sessions == 0 && stats.objects == 0 && stats.live_pages == 0
    });
}

#[test]
fn a_node_that_is_dropped_with_clients_in_it_ends() {
    let node = Node::start(config("dropped")).expect("a node");
    let mut client = Client::local(&node.addresses()[0]);
    let (_, mut arena) = client.lease(1024, 4).expect("a lease");
    drop(node);
    // Its memory is the client's as long as it is mapped.
    arena.write(0, b"still there");
    assert_eq!(client.next().expect("it hears of the end").status(), Status::ShuttingDown);
    let again = Node::start(config("dropped")).expect("its address is free again");
    again.shutdown();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |change: fn(&mut NodeConfig)| {
        let mut config = config("refused");
        change(&mut config);
        Node::start(config).map(drop).expect_err("it makes no sense")
    };
    assert!(matches!(refused(|config| config.pool_bytes = 4095), NodeError::PoolTooSmall { .. }));
    assert!(matches!(refused(|config| config.pool_bytes = 1 << 50), NodeError::PoolTooLarge { .. }));
    assert!(matches!(refused(|config| config.tenant_tokens = vec![Vec::new()]), NodeError::Config(_)));
    assert!(matches!(refused(|config| config.numa_node = Some(63)), NodeError::Numa { node: 63, .. }));
    assert!(matches!(refused(|config| config.pool_file = Some("/nowhere/pool".into())), NodeError::PoolFile { .. }));
    let first = Node::start(config("refused")).expect("a node");
    assert!(matches!(refused(|_| {}), NodeError::Listen { .. }));
    first.shutdown();
}
