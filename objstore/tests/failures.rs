//! What failure looks like: a typed error at the caller within its deadline, and every page back.

mod rig;

use dmrpc_memnode::{Node, NodeConfig};
use dmrpc_objstore::{Borrows, Loans, ObjectRef, Store, StoreError, StoreOptions, block_on};
use dmrpc_wire::{Inlined, NodeId, ObjectId, RawExtent, SlotLease, WireRef};
use rig::process::{Player, play_on, role, tell};
use rig::proxy::Proxy;
use rig::{node, pattern, pool, remote, tcp_url, wait_for};
use std::os::unix::process::CommandExt;
use std::time::Duration;

fn options(url: &str) -> StoreOptions {
    let mut options = StoreOptions::new(url);
    options.deadline = Duration::from_secs(5);
    options.memory_wait = Duration::from_millis(50);
    options
}

fn connect(url: &str) -> Result<Store, StoreError> {
    block_on(Store::connect_with(options(url)))
}

// Connecting.

#[test]
fn nobody_there() {
    assert!(matches!(connect("unix:///nowhere/node.sock"), Err(StoreError::NodeUnreachable { .. })));
    assert!(matches!(connect("tcp://127.0.0.1:1"), Err(StoreError::NodeUnreachable { .. })));
    for url in ["", "unix://", "http://x:1", "tcp://x"] {
        assert!(matches!(connect(url), Err(StoreError::Address { .. })), "{url}");
    }
}

#[test]
fn a_server_that_says_nothing_and_one_that_says_nonsense() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = options(&format!("tcp://{}", silent.local_addr().unwrap()));
    options.deadline = Duration::from_millis(200);
    assert!(matches!(block_on(Store::connect_with(options.clone())), Err(StoreError::Deadline { .. })));
    let nonsense = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    options.url = format!("tcp://{}", nonsense.local_addr().unwrap());
    options.deadline = Duration::from_secs(5);
    let talker = std::thread::spawn(move || {
        use std::io::Write;
        nonsense.accept().unwrap().0.write_all(&[0x5a; 4096]).unwrap();
    });
    let error = block_on(Store::connect_with(options)).unwrap_err();
    assert!(matches!(error, StoreError::Malformed(_) | StoreError::NodeUnreachable { .. }), "{error}");
    talker.join().unwrap();
}

#[test]
fn tokens_and_too_many_sessions() {
    let mut config = pool(16 << 20);
    config.tenant_tokens = vec![b"one".to_vec(), b"two".to_vec()];
    config.max_sessions = 2;
    let mut embedded = dmrpc_objstore::EmbeddedOptions::default();
    embedded.node = config;
    embedded.store.token = b"one".to_vec();
    let store = block_on(Store::embedded_with(embedded)).unwrap();
    assert_eq!(connect(store.url()).unwrap_err(), StoreError::Denied);
    let mut other = options(store.url());
    other.token = b"two".to_vec();
    let tenant = block_on(Store::connect_with(other.clone())).unwrap();
    assert_eq!(block_on(Store::connect_with(other.clone())).unwrap_err(), StoreError::TooManySessions);
    // What one tenant has is not there for another, even if its name is known.
    let object = block_on(store.put(pattern(9000, 1))).unwrap();
    let mut message = Vec::new();
    Loans::new(Duration::ZERO).lend(object.as_any(), &mut message).unwrap();
    let (borrowed, _) = Borrows::of(&tenant, || {}).borrow(&message).unwrap();
    let error = block_on(borrowed.get()).unwrap_err();
    assert!(matches!(error, StoreError::NotFound(_) | StoreError::Denied), "{error}");
    other.name = "x".repeat(300);
    assert!(matches!(block_on(Store::connect_with(other)), Err(StoreError::TooLarge { .. })));
}

// Memory.

#[test]
fn a_pool_too_small_and_a_full_pool() {
    let store = node(pool(8 << 20));
    let small = connect(store.url()).unwrap();
    let error = block_on(small.put(vec![1; 9 << 20])).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    let mut live = Vec::new();
    let error = loop {
        match block_on(small.put(vec![1; 256 << 10])) {
            Ok(object) => live.push(object),
            Err(error) => break error,
        }
        assert!(live.len() <= 32, "the pool is a hard limit");
    };
    assert!(matches!(error, StoreError::OutOfMemory { .. } | StoreError::QuotaExceeded { .. }), "{error}");
    assert!(live.len() >= 8);
    let far = remote(&store);
    let error = block_on(far.put(vec![1; 6 << 20])).unwrap_err();
    assert!(matches!(error, StoreError::OutOfMemory { .. } | StoreError::QuotaExceeded { .. }), "{error}");
    // Something comes free: it goes on.
    live.truncate(live.len() / 2);
    live.push(block_on(small.put(vec![2; 256 << 10])).expect("there is room again"));
    drop(live);
    wait_for(&store, "all is free", |stats| stats.objects == 0 && stats.live_pages == 0);
}

#[test]
fn who_has_memory_to_spare_gives_it_to_who_has_none() {
    let store = node(pool(64 << 20));
    let [rich, poor] = [(); 2].map(|()| block_on(Store::connect(store.url())).unwrap());
    let objects: Vec<_> = (0..7).map(|seed| block_on(rich.put(pattern(7 << 20, seed))).unwrap()).collect();
    drop(objects);
    wait_for(&store, "all is free", |stats| stats.objects == 0 && stats.live_pages == 0);
    let before = block_on(store.stats()).unwrap();
    assert!(before.free_pages.get() < 10_240, "the rest would do: {before:?}");
    let object = block_on(poor.put(pattern(40 << 20, 9))).expect("the other gives its memory back");
    assert!(*block_on(object.get()).unwrap() == pattern(40 << 20, 9));
    // And it still can put.
    let error = block_on(rich.put(vec![1; 40 << 20])).unwrap_err();
    assert!(matches!(error, StoreError::OutOfMemory { .. }), "{error}");
    drop(object);
    block_on(rich.put(vec![2; 40 << 20])).expect("there is room again");
}

#[test]
fn a_quota() {
    let store = node(pool(64 << 20));
    let mut options = options(store.url());
    options.quota_bytes = 4 << 20;
    let small = block_on(Store::connect_with(options)).unwrap();
    let kept = block_on(small.put(vec![1; 3 << 20])).unwrap();
    let error = block_on(small.put(vec![1; 3 << 20])).unwrap_err();
    assert!(matches!(error, StoreError::QuotaExceeded { .. }), "{error}");
    drop(kept);
    block_on(small.put(vec![1; 3 << 20])).expect("there is room again");
}

// References.

fn forged(id: ObjectId, extents: &[RawExtent]) -> Vec<u8> {
    let mut message = Vec::new();
    let bytes = Inlined::Stored(extents);
    WireRef { id, offset: 0, length: 8192, size: 8192, loan: 7, codec: 0, bytes }.encode(&mut message);
    message
}

#[test]
fn guessed_and_stale_ids() {
    let store = node(pool(16 << 20));
    for other in [connect(store.url()).unwrap(), remote(&store)] {
        let object = block_on(store.put(pattern(8192, 1))).unwrap();
        block_on(object.keep()).unwrap();
        let id = object.id().unwrap();
        let guessed = ObjectId::new(store.node(), SlotLease::new(id.slot(), id.generation()), [9; 12]);
        let never = ObjectId::new(store.node(), SlotLease::new(u32::MAX, 1), [9; 12]);
        for id in [guessed, never] {
            let borrows = Borrows::of(&other, || {});
            let (reference, _) = borrows.borrow(&forged(id, &[])).unwrap();
            let error = block_on(reference.get()).unwrap_err();
            assert!(matches!(error, StoreError::NotFound(_)), "{error}");
            let error = block_on(reference.keep()).unwrap_err();
            assert!(matches!(error, StoreError::Stale(_) | StoreError::NotFound(_)), "{error}");
        }
        drop(object);
        wait_for(&store, "it is gone", |stats| stats.objects == 0);
        let borrows = Borrows::of(&other, || {});
        let (stale, _) = borrows.borrow(&forged(id, &[])).unwrap();
        let error = block_on(stale.get()).unwrap_err();
        assert!(matches!(error, StoreError::Stale(_)), "{error}");
        let elsewhere = ObjectId::new(NodeId(!store.node().0), SlotLease::new(0, 1), [0; 12]);
        let error = borrows.borrow(&forged(elsewhere, &[])).unwrap_err();
        assert_eq!(error, StoreError::UnknownNode(elsewhere.node()));
        let mut returns = Vec::new();
        drop(stale);
        borrows.take_returns(&mut returns);
        assert_eq!(returns, [7, 7], "both loans came back");
    }
}

#[test]
fn extents_that_lie() {
    let store = node(pool(16 << 20));
    let other = connect(store.url()).unwrap();
    let object = block_on(store.put(pattern(8192, 1))).unwrap();
    block_on(object.keep()).unwrap();
    let id = object.id().unwrap();
    let extent = |segment: u32, first: u32, count: u32| {
        RawExtent::from(dmrpc_pages::Extent::new(dmrpc_pages::SegmentId(segment), first, count))
    };
    for (extent, when_borrowed) in [
        (extent(0, 0, 3), true),
        (extent(0, u32::MAX, 2), true),
        (extent(0, 1 << 20, 2), false),
        (extent(99, 0, 2), false),
    ] {
        let borrows = Borrows::of(&other, || {});
        match borrows.borrow(&forged(id, &[extent])) {
            Err(error) => assert!(when_borrowed && matches!(error, StoreError::Malformed(_)), "{error}"),
            Ok((reference, _)) => {
                assert!(!when_borrowed);
                let error = block_on(reference.get()).unwrap_err();
                assert!(matches!(error, StoreError::Malformed(_) | StoreError::NotFound(_)), "{error}");
            }
        }
    }
}

#[test]
fn loans_that_come_twice_and_returns_of_nothing() {
    let store = node(pool(16 << 20));
    let other = connect(store.url()).unwrap();
    let object = block_on(store.put(pattern(8192, 1))).unwrap();
    let loans = Loans::new(Duration::ZERO);
    let borrows = Borrows::of(&other, || {});
    let mut message = Vec::new();
    let loan = loans.lend(object.as_any(), &mut message).unwrap();
    let (first, _) = borrows.borrow(&message).unwrap();
    assert!(matches!(borrows.borrow(&message), Err(StoreError::Malformed(_))));
    assert_eq!(&*block_on(first.get()).unwrap(), &pattern(8192, 1)[..]);
    drop(first);
    let mut returns = Vec::new();
    borrows.take_returns(&mut returns);
    assert_eq!(returns, [loan], "once");
    loans.returned(&[loan, loan, 0, 99]);
    assert!(loans.is_empty());
    drop(object);
    wait_for(&store, "all is free", |stats| stats.objects == 0);
}

#[test]
fn ends_of_edits() {
    let store = node(pool(16 << 20));
    for store in [store.clone(), remote(&store)] {
        let object = block_on(store.put(pattern(9000, 1))).unwrap();
        let mut edit = block_on(object.edit()).unwrap();
        for (offset, len) in [(9000, 1), (8999, 2), (u64::MAX, 1), (0, 9001)] {
            assert!(matches!(edit.write(offset, &vec![1; len]), Err(StoreError::OutOfRange { .. })));
            assert!(matches!(block_on(edit.read(offset, &mut vec![1; len])), Err(StoreError::OutOfRange { .. })));
        }
        assert!(matches!(edit.resize(u64::MAX), Err(StoreError::TooLarge { .. })));
        edit.write(9000, &[]).unwrap();
        assert!(matches!(block_on(store.create(1 << 40)), Err(StoreError::TooLarge { .. })));
        assert!(matches!(object.slice(1..9001), Err(StoreError::OutOfRange { start: 1, end: 9001, len: 9000 })));
    }
    let inline = ObjectRef::inline(b"abc");
    assert!(matches!(block_on(inline.edit()).unwrap().resize(2 << 20), Err(StoreError::TooLarge { .. })));
    assert!(matches!(block_on(inline.grant(Duration::from_secs(1))), Err(StoreError::Malformed(_))));
}

#[test]
fn a_grant_ends() {
    let store = node(pool(16 << 20));
    let object = block_on(store.put(pattern(9000, 1))).unwrap();
    let granted = block_on(object.grant(Duration::from_millis(1))).unwrap();
    wait_for(&store, "its time is over", |stats| stats.grants == 0);
    assert!(matches!(block_on(store.redeem(&granted)), Err(StoreError::NotFound(_) | StoreError::Stale(_))));
    let elsewhere = node(pool(16 << 20));
    assert_eq!(block_on(elsewhere.redeem(&granted)).unwrap_err(), StoreError::UnknownNode(store.node()));
}

#[test]
fn a_closed_store() {
    let host = node(pool(16 << 20));
    for store in [connect(host.url()).unwrap(), remote(&host)] {
        let object = block_on(store.put(pattern(9000, 1))).unwrap();
        let view = block_on(object.get()).unwrap();
        store.close();
        assert_eq!(block_on(store.put(pattern(9000, 1))).unwrap_err(), StoreError::Closed);
        assert_eq!(block_on(store.stats()).unwrap_err(), StoreError::Closed);
        let error = Loans::new(Duration::ZERO).lend(object.as_any(), &mut Vec::new()).unwrap_err();
        assert!(matches!(error, StoreError::Closed), "{error}");
        assert_eq!(&*view, &pattern(9000, 1)[..], "a view stays as it is");
    }
    wait_for(&host, "only the host's own session is left", |stats| stats.sessions == 1 && stats.objects == 0);
}

#[test]
fn a_fork_is_told_so() {
    let store = node(pool(16 << 20));
    let object = block_on(store.put(pattern(9000, 1))).unwrap();
    let view = block_on(object.get()).unwrap();
    let (in_fork, fork_object) = (store.clone(), object.clone());
    let mut command = std::process::Command::new("true");
    let play = move || {
        let refused = matches!(block_on(in_fork.put(pattern(9000, 1))), Err(StoreError::Forked));
        let flushed = matches!(block_on(in_fork.flush()), Err(StoreError::Forked));
        let lent = Loans::new(Duration::ZERO).lend(fork_object.as_any(), &mut Vec::new());
        let readable = view.iter().eq(&pattern(9000, 1));
        if refused && flushed && lent == Err(StoreError::Forked) && readable {
            Ok(())
        } else {
            Err(std::io::Error::other("the fork could use the store"))
        }
    };
    // SAFETY: of what runs in the fork only allocation may find a lock taken, by a thread of this test's program that is not
    // there; glibc's allocator is safe after a fork.
    unsafe { command.pre_exec(play) };
    assert!(command.status().expect("the fork agrees").success());
    block_on(store.flush()).expect("the parent's session goes on");
    drop(command);
    drop(object);
}

// Processes that die.

#[test]
#[ignore = "played by other tests"]
fn player() {
    let Some((role, argument)) = role() else { return };
    match &role[..] {
        "client" => {
            let store = connect(&argument).unwrap();
            let published: Vec<_> = (0..20).map(|i| block_on(store.put(pattern(50_000, i))).unwrap()).collect();
            published.iter().for_each(|object| block_on(object.keep()).unwrap());
            let _unpublished: Vec<_> = (0..20).map(|i| block_on(store.put(pattern(50_000, i))).unwrap()).collect();
            let mut draft = block_on(store.create(100_000)).unwrap();
            draft.fill(1);
            let mut edit = block_on(published[0].edit()).unwrap();
            edit.write(5, &[1; 10_000]).unwrap();
            block_on(store.flush()).unwrap();
            tell("ready");
            play_on();
        }
        "lender" => {
            let store = connect(&argument).unwrap();
            let object = block_on(store.put(pattern(300_000, 9))).unwrap();
            let mut message = Vec::new();
            Loans::new(Duration::ZERO).lend(object.slice(100..250_000).unwrap().as_any(), &mut message).unwrap();
            let hex: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
            tell(&hex);
            play_on();
        }
        "node" => {
            let path = std::env::temp_dir().join(format!("dmrpc-player-{}.sock", std::process::id()));
            let listen =
                vec![format!("unix://{}", path.display()).parse().unwrap(), "tcp://127.0.0.1:0".parse().unwrap()];
            let node = Node::start(NodeConfig { listen, ..pool(32 << 20) }).unwrap();
            node.addresses().iter().for_each(|address| tell(&address.to_string()));
            play_on();
        }
        other => panic!("no role {other}"),
    }
}

#[test]
fn a_client_is_killed_with_references_and_unpublished_pages() {
    let mut config = pool(64 << 20);
    config.lease = Duration::from_secs(1);
    let host = node(config);
    for url in [host.url().to_owned(), tcp_url(&host)] {
        let mut client = Player::start("player", "client", &url);
        assert_eq!(client.told(), "ready");
        wait_for(&host, "its objects are there", |stats| stats.objects >= 20 && stats.sessions == 2);
        client.kill();
        // On this host its end is seen at once; over a network the lease has to pass.
        wait_for(&host, "everything it had is free", |stats| {
            stats.sessions == 1 && stats.objects == 0 && stats.live_pages == 0 && stats.holds == 0
        });
    }
}

#[test]
fn a_lender_is_killed_while_its_object_is_viewed() {
    let host = node(pool(64 << 20));
    let reader = connect(host.url()).unwrap();
    let mut lender = Player::start("player", "lender", host.url());
    let hex = lender.told();
    let message: Vec<u8> = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
    let borrows = Borrows::of(&reader, || {});
    let (borrowed, _) = borrows.borrow(&message).unwrap();
    let view = block_on(borrowed.get()).unwrap();
    let expected = &pattern(300_000, 9)[100..250_000];
    assert!(*view == *expected);
    lender.kill();
    // The link to it is seen to be gone: what is borrowed becomes a hold.
    borrows.close();
    block_on(borrowed.keep()).expect("within the grace period");
    wait_for(&host, "the lender's session is gone", |stats| stats.sessions == 2 && stats.holds == 1);
    assert!(*view == *expected, "the view is as it was");
    assert!(*block_on(borrowed.slice(1000..200_000).unwrap().get()).unwrap() == expected[1000..200_000]);
    drop((borrowed, view));
    wait_for(&host, "everything is free", |stats| stats.objects == 0 && stats.live_pages == 0);
}

/// What a node that is killed leaves behind.
struct SocketFile(std::path::PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_node_is_killed_under_its_clients() {
    let mut node = Player::start("player", "node", "");
    let urls = [node.told(), node.told()];
    let _file = SocketFile(urls[0].trim_start_matches("unix://").into());
    let stores: Vec<Store> = urls
        .iter()
        .map(|url| {
            let mut options = options(url);
            options.deadline = Duration::from_secs(2);
            block_on(Store::connect_with(options)).unwrap()
        })
        .collect();
    let objects: Vec<_> = stores.iter().map(|store| block_on(store.put(pattern(100_000, 3))).unwrap()).collect();
    let views: Vec<_> = objects.iter().map(|object| block_on(object.get()).unwrap()).collect();
    objects.iter().for_each(|object| block_on(object.keep()).unwrap());
    node.kill();
    for (store, object) in stores.iter().zip(&objects) {
        let error = block_on(store.flush()).unwrap_err();
        assert!(matches!(error, StoreError::NodeUnreachable { .. } | StoreError::Deadline { .. }), "{error}");
        let error = block_on(object.grant(Duration::from_secs(1))).unwrap_err();
        assert!(matches!(error, StoreError::NodeUnreachable { .. } | StoreError::Deadline { .. }), "{error}");
    }
    for view in views {
        assert!(*view == *pattern(100_000, 3), "a view stays as it is");
    }
}

#[test]
fn the_node_stands_still() {
    let mut node = Player::start("player", "node", "");
    let urls = [node.told(), node.told()];
    let _file = SocketFile(urls[0].trim_start_matches("unix://").into());
    let stores: Vec<Store> = urls
        .iter()
        .map(|url| {
            let mut options = options(url);
            options.deadline = Duration::from_millis(300);
            block_on(Store::connect_with(options)).unwrap()
        })
        .collect();
    let objects: Vec<_> = stores.iter().map(|store| block_on(store.put(pattern(100_000, 3))).unwrap()).collect();
    objects.iter().for_each(|object| block_on(object.keep()).unwrap());
    node.stop(true);
    rig::wait_until("it stands still", || block_on(stores[0].flush()).is_err());
    for (store, object) in stores.iter().zip(&objects) {
        let late = |error: StoreError| assert!(matches!(error, StoreError::Deadline { .. }), "{error}");
        late(block_on(store.flush()).unwrap_err());
        late(block_on(store.stats()).map(drop).unwrap_err());
        late(block_on(object.grant(Duration::from_secs(1))).map(drop).unwrap_err());
        late(block_on(store.put(vec![1; 16 << 20])).map(drop).unwrap_err());
    }
    node.stop(false);
    for (store, object) in stores.iter().zip(objects) {
        rig::wait_until("it goes on", || block_on(store.flush()).is_ok());
        assert!(*block_on(object.get()).unwrap() == *pattern(100_000, 3));
        drop(object);
        // What was answered too late is undone, but for the grants, which end by themselves.
        wait_for(store, "no hold is left over", |stats| stats.holds <= 1);
    }
    wait_for(&stores[0], "everything is free", |stats| stats.grants == 0 && stats.objects == 0);
}

// Networks that break.

#[test]
fn a_session_goes_on_over_a_new_connection() {
    let host = node(pool(64 << 20));
    let proxy = Proxy::new(&tcp_url(&host));
    let store = connect(&proxy.url).unwrap();
    let mut live = Vec::new();
    std::thread::scope(|scope| {
        for round in 0..60u8 {
            if round % 4 == 0 {
                // Cut while requests are on their way, at one point or another.
                scope.spawn(|| proxy.cut());
            }
            let bytes = pattern(30_000 + usize::from(round), round);
            let object = block_on(store.put(&bytes)).expect("the session goes on");
            let mut edit = block_on(object.edit()).expect("the session goes on");
            edit.write(7, b"changed").unwrap();
            let edited = block_on(edit.commit()).expect("the session goes on");
            let view = block_on(edited.get()).expect("the session goes on");
            assert!(view[..7] == bytes[..7] && view[7..14] == *b"changed" && view[14..] == bytes[14..]);
            live.push((object, bytes));
            if live.len() > 20 {
                live.remove(0);
            }
        }
    });
    assert!(proxy.connections() > 1, "it was cut");
    // Every request was applied once: holds are as many as there are objects.
    wait_for(&host, "only what is live is there", |stats| {
        stats.objects == live.len() as u64 && stats.holds == live.len() as u64
    });
    for (object, bytes) in &live {
        assert!(*block_on(object.get()).unwrap() == **bytes);
    }
    drop(live);
    wait_for(&host, "everything is free", |stats| stats.objects == 0 && stats.live_pages == 0);
}

#[test]
fn a_lease_passes_while_the_network_is_gone() {
    let mut config = pool(32 << 20);
    config.lease = Duration::from_millis(300);
    config.grace = Duration::from_millis(50);
    let host = node(config);
    let proxy = Proxy::new(&tcp_url(&host));
    let store = connect(&proxy.url).unwrap();
    let object = block_on(store.put(pattern(30_000, 1))).unwrap();
    proxy.refuse(true);
    proxy.cut();
    wait_for(&host, "the node has ended the session", |stats| stats.sessions == 1 && stats.objects == 0);
    proxy.refuse(false);
    let error = block_on(store.flush()).unwrap_err();
    assert!(matches!(error, StoreError::LeaseExpired | StoreError::NodeUnreachable { .. }), "{error}");
    let error = block_on(object.slice(1..20_000).unwrap().edit()).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::LeaseExpired | StoreError::NodeUnreachable { .. }), "{error}");
}
