//! Clients over the network: bytes that the node writes and reads for them.

mod rig;

use dmrpc_fabric::link::Body;
use dmrpc_wire::{Notice, ObjectId, Reply, Request, Status};
use rig::{Client, NodeProcess, Terms, pattern};

#[test]
fn objects_of_many_sizes_come_back_as_they_went() {
    let node = NodeProcess::start(&["--pool", "256MiB"]);
    for address in [node.tcp(), node.unix()] {
        let mut client = Client::remote(address);
        for size in [0, 1, 2, 100, 4095, 4096, 4097, 65_536, 100_001, 1 << 20, (1 << 20) + 1, 5_000_003, 32 << 20] {
            let bytes = pattern(size as u64, size);
            let id = client.write(&bytes).expect("an object");
            assert_eq!(client.read(id, 0, size as u64).as_deref(), Ok(&bytes[..]), "{size} bytes");
            for (offset, len) in [(0, 1), (size / 2, size / 3), (size.saturating_sub(1), 1), (size, 0)] {
                if offset + len <= size {
                    let part = client.read(id, offset as u64, len as u64);
                    assert_eq!(
                        part.as_deref(),
                        Ok(&bytes[offset..offset + len]),
                        "{len} of {size} bytes from {offset}"
                    );
                }
            }
            assert_eq!(client.read(id, size as u64, 1), Err(Status::OutOfRange));
            assert_eq!(client.read(id, u64::MAX, 2), Err(Status::OutOfRange));
        }
        client.bye();
    }
    let stats = node.wait_for("what the clients held", |stats| stats.objects == 0);
    assert_eq!(stats.live_pages, 0);
}

#[test]
fn a_write_over_an_object_shares_the_rest_and_holes_are_zeros() {
    let node = NodeProcess::start(&["--pool", "64MiB"]);
    let mut client = Client::remote(node.tcp());
    let bytes = pattern(1, 100 * 4096);
    let base = client.write(&bytes).expect("an object");
    let (near, far) = (pattern(2, 10), pattern(3, 5000));
    let size = 300 * 4096;
    let edited = client.write_over(base, size, &[(4090, &near), (200 * 4096 + 1, &far)]).expect("an edit");
    let mut expected = bytes.clone();
    expected.resize(size as usize, 0);
    expected[4090..4100].copy_from_slice(&near);
    expected[200 * 4096 + 1..][..5000].copy_from_slice(&far);
    assert_eq!(client.read(edited, 0, size), Ok(expected));
    assert_eq!(client.read(base, 0, bytes.len() as u64), Ok(bytes));
    let stats = client.stats();
    assert_eq!(stats.objects, 2);
    assert_eq!(stats.live_pages, 100 + 2 + 2, "two pages each were touched");

    let nothing = client.write_over(ObjectId::NULL, 10 << 20, &[]).expect("an object without pages");
    assert_eq!(client.read(nothing, 0, 10 << 20), Ok(vec![0; 10 << 20]));
    assert_eq!(client.stats().live_pages, 104);
}

#[test]
fn many_reads_in_flight_are_answered_in_order() {
    let node = NodeProcess::start(&["--pool", "64MiB"]);
    let mut client = Client::remote(node.tcp());
    let bytes = pattern(9, 8 << 20);
    let id = client.write(&bytes).expect("an object");
    let ranges: Vec<(u64, u64)> = (0..64).map(|i| (i * 100_003, 1 + i * 3_001)).collect();
    let numbers: Vec<u64> = (ranges.iter())
        .map(|&(offset, length)| client.send(&Request::Read { id, offset, length }, Body::new()))
        .collect();
    for (number, (offset, length)) in numbers.into_iter().zip(ranges) {
        let answer = client.answer(number);
        assert_eq!(answer.body, bytes[offset as usize..(offset + length) as usize]);
    }
}

/// The loop gives every link its turn, also while gigabytes come over one or go over another.
#[test]
fn large_bodies_keep_nobody_waiting() {
    const PIECES: usize = 8;
    for local in [false, true] {
        let node = NodeProcess::start(&["--pool", "1GiB"]);
        let address = if local { node.unix() } else { node.tcp() };
        let piece = bytes::Bytes::from(pattern(1, 16 << 20));
        let size = (PIECES * piece.len()) as u64;
        let mut witness = Client::remote(node.tcp());
        let mut hog = Client::remote(address);
        let id = hog.new_id();
        std::thread::scope(|scope| {
            let hog = scope.spawn(move || {
                let spans = [dmrpc_wire::Span { offset: 0.into(), length: size.into() }];
                let write = dmrpc_wire::Write { id, base: ObjectId::NULL, size, spans: &spans };
                let number = hog.send(&Request::Write(write), vec![piece; PIECES].into());
                assert_eq!(hog.answer(number).status(), Status::Ok);
                hog
            });
            rig::wait_until("the beginning of the write", || witness.stats().unpublished_pages > 0);
            let meanwhile = (0..).take_while(|_| witness.stats().objects == 0).take(5).count();
            assert_eq!(meanwhile, 5, "answers while the write was on its way");
            let mut hog = hog.join().expect("it has ended");

            let reader = scope.spawn(move || assert_eq!(hog.read(id, 0, size).expect("bytes").len() as u64, size));
            rig::wait_until("the beginning of the read", || witness.stats().bytes_read > 0);
            let meanwhile =
                (0..).take_while(|_| !reader.is_finished() && witness.renew() == Status::Ok).take(5).count();
            assert_eq!(meanwhile, 5, "answers while the read was on its way");
        });
    }
}

#[test]
fn tenants_do_not_read_each_other() {
    let node =
        NodeProcess::start(&["--pool", "64MiB", "--tenant-token", "red", "--tenant-token", "blue", "--grace", "10ms"]);
    let open = |token: &'static [u8], local| Client::open(node.unix(), &Terms { token, local, quota_pages: 0 });
    for token in [&b""[..], b"re", b"redd", b"green"] {
        assert_eq!(open(token, true).map(drop), Err(Status::Denied));
    }
    let mut red = open(b"red", true).expect("a session");
    let mut blue = open(b"blue", true).expect("a session");
    let (info, mut arena) = red.lease(16, 4).expect("a lease");
    arena.write(0, b"a secret");
    let id = red.commit(info.segment, 0, 1, 8);
    red.sync();
    assert_eq!(blue.hold(id), Status::NotFound);
    assert_eq!(blue.resolve(id).map(drop), Err(Status::NotFound));
    assert_eq!(blue.read(id, 0, 8), Err(Status::NotFound));
    assert_ne!(blue.segment(info.segment).map(drop), Ok(()));
    let mut friend = open(b"red", false).expect("a session");
    assert_eq!(friend.hold(id), Status::Ok);
    assert_eq!(friend.read(id, 0, 8).as_deref(), Ok(&b"a secret"[..]));

    // What one tenant wrote over the network is not in the pages that another gets.
    let mut writer = open(b"red", false).expect("a session");
    writer.write(&vec![0xaa; 32 << 20]).expect("half of the pool");
    writer.bye();
    node_is_idle(&node, b"red");
    let mut reader = open(b"blue", true).expect("a session");
    for _ in 0..6 {
        let (info, arena) = reader.lease(2048, 1).expect("a lease");
        assert!(arena.read(0, info.pages as usize * 4096).iter().all(|&byte| byte == 0));
    }
}

fn node_is_idle(node: &NodeProcess, token: &[u8]) {
    rig::wait_until("the end of the writer", || node.try_stats(token).expect("a session").live_pages == 1);
}

#[test]
fn a_paused_client_loses_its_lease_and_what_it_held() {
    let node = NodeProcess::start(&["--pool", "16MiB", "--lease", "400ms", "--grace", "100ms"]);
    let mut paused = Client::remote(node.tcp());
    assert_eq!((paused.welcome.lease_ms, paused.welcome.grace_ms), (400, 100));
    let mut busy = Client::remote(node.tcp());
    let id = paused.write(&pattern(1, 50_000)).expect("an object");
    assert_eq!(busy.hold(id), Status::Ok);
    let other = paused.write(&pattern(2, 50_000)).expect("an object");

    // One renews its lease, the other does not.
    let started = std::time::Instant::now();
    loop {
        assert_eq!(busy.renew(), Status::Ok);
        if busy.stats().sessions == 1 {
            break;
        }
        assert!(started.elapsed() < rig::LIMIT, "the paused session never ends");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(busy.stats().leases_expired, 1);
    assert_eq!(busy.read(id, 0, 50_000), Ok(pattern(1, 50_000)), "what another holds is still there");
    assert_ne!(busy.hold(other), Status::Ok);
    let goodbye = paused.next().expect("it hears of it");
    assert!(matches!(goodbye.reply(), Reply::Notice(Notice::Goodbye)));
    assert_eq!(goodbye.status(), Status::LeaseExpired);
    paused.next().map(drop).expect_err("and its link is closed");
}

#[test]
fn a_client_on_this_host_keeps_its_session_without_renewals() {
    let node = NodeProcess::start(&["--pool", "16MiB", "--lease", "50ms", "--grace", "10ms"]);
    let mut client = Client::local(node.unix());
    let (info, _arena) = client.lease(16, 4).expect("a lease");
    let id = client.commit(info.segment, 0, 4, 4 * 4096);
    // Many sessions end for want of a renewal before this one would have had to.
    for expired in 1..=5u64 {
        let _idle = Client::remote(node.tcp());
        rig::wait_until("an expired lease", || client.stats().leases_expired >= expired);
    }
    assert_eq!(client.resolve(id).map(|(size, _)| size), Ok(4 * 4096));
}
