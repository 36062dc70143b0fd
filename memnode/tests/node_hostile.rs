//! Clients that are broken, malicious or dead, and the node that goes on.

mod rig;

use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::blocking::{BlockingReceiver, BlockingSender};
use dmrpc_fabric::link::{Body, Incoming, LinkError, Target};
use dmrpc_fabric::listen::connect;
use dmrpc_wire::{Reply, Request, Status};
use rig::{Client, LIMIT, NodeProcess, Terms, limit, pattern};
use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

/// The node still does what it is for, for old clients and new ones.
#[track_caller]
fn check_serves(node: &mut NodeProcess, witness: &mut Client) {
    assert!(node.is_running());
    let bytes = pattern(11, 20_000);
    let id = witness.write(&bytes).expect("an old session works");
    let mut fresh = Client::local(node.unix());
    assert_eq!(fresh.hold(id), Status::Ok);
    assert_eq!(fresh.read(id, 0, 20_000), Ok(bytes));
    fresh.bye();
    witness.send(&Request::Release(&[dmrpc_wire::ReleaseEntry { id, count: 1.into() }]), Body::new());
    witness.sync();
}

fn tcp(node: &NodeProcess) -> TcpStream {
    let stream = TcpStream::connect(node.tcp().to_string().trim_start_matches("tcp://")).expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    stream.set_write_timeout(Some(LIMIT)).expect("a limit");
    stream
}

/// Reads until the node closes the connection.
fn wait_for_end(mut stream: impl std::io::Read) {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the node closes the connection: {error}"),
    }
}

#[test]
fn a_client_that_says_nothing_is_dropped() {
    let mut node = NodeProcess::start(&["--pool", "8MiB", "--handshake", "200ms"]);
    let mut witness = Client::local(node.unix());
    let silent = tcp(&node);
    let half_set_up = UnixStream::connect(node.socket()).expect("a connection");
    half_set_up.set_read_timeout(Some(LIMIT)).expect("a limit");
    let link = connect(node.unix(), &LinkOptions::default(), limit()).expect("a link");
    wait_for_end(silent);
    wait_for_end(half_set_up);
    let mut receiver = BlockingReceiver::new(link.receiver);
    assert!(matches!(receiver.recv(limit()), Err(LinkError::Closed)));
    check_serves(&mut node, &mut witness);
}

#[test]
fn half_a_message_and_then_silence() {
    let mut node =
        NodeProcess::start(&["--pool", "8MiB", "--handshake", "200ms", "--lease", "300ms", "--grace", "50ms"]);
    let mut witness = Client::local(node.unix());
    // Half a hello.
    let mut half = tcp(&node);
    half.write_all(&[1, 0, 0]).expect("sent");
    wait_for_end(half);
    // A whole hello, and half the body of a write: the pages that were to have it come back with the lease.
    let mut writer = Client::remote(node.tcp());
    let id = writer.new_id();
    let spans = [dmrpc_wire::Span { offset: 0.into(), length: (4u64 << 20).into() }];
    let write = dmrpc_wire::Write { id, base: dmrpc_wire::ObjectId::NULL, size: 4 << 20, spans: &spans };
    let mut head = Vec::new();
    Request::Write(write).encode(2, 0, &mut head);
    let never = bytes::Bytes::from(vec![1; 4 << 20]);
    let sender = writer.sender.get_mut();
    sender.try_send(&head, Body::from_iter([never])).expect("taken");
    // Without a flush, or after some of one, the rest stays here.
    let _ = sender.flush();
    rig::wait_until("the end of the session", || witness.stats().leases_expired == 1);
    rig::wait_until("its pages", || witness.stats().live_pages == 0 && witness.stats().sessions == 1);
    check_serves(&mut node, &mut witness);
}

#[test]
fn a_client_that_is_killed_in_the_middle_of_a_write() {
    let mut node = NodeProcess::start(&["--pool", "64MiB", "--grace", "10ms", "--lease", "300ms"]);
    let mut witness = Client::local(node.unix());
    for _ in 0..10 {
        let mut writer = Client::remote(node.tcp());
        let id = writer.new_id();
        let spans = [dmrpc_wire::Span { offset: 0.into(), length: (32u64 << 20).into() }];
        let write = dmrpc_wire::Write { id, base: dmrpc_wire::ObjectId::NULL, size: 32 << 20, spans: &spans };
        let mut head = Vec::new();
        Request::Write(write).encode(2, 0, &mut head);
        let sender = writer.sender.get_mut();
        sender.try_send(&head, Body::from_iter([bytes::Bytes::from(vec![1; 32 << 20])])).expect("taken");
        let _ = sender.flush();
    }
    rig::wait_until("all of them", || witness.stats().sessions == 1);
    let stats = witness.stats();
    assert_eq!((stats.live_pages.get(), stats.unpublished_pages.get(), stats.objects.get()), (0, 0, 0));
    check_serves(&mut node, &mut witness);
}

/// Sends a head over a fresh link and returns how the node ends it.
fn goodbye_for(node: &NodeProcess, local: bool, heads: &[&[u8]]) -> Status {
    let address = if local { node.unix() } else { node.tcp() };
    let link = connect(address, &LinkOptions::default(), limit()).expect("a link");
    let mut sender = BlockingSender::new(link.sender);
    let mut receiver = BlockingReceiver::new(link.receiver);
    for head in heads {
        // The node may have closed the link already.
        let _ = sender.send(head, Body::new(), limit());
    }
    let mut last = None;
    loop {
        match receiver.recv(limit()) {
            Ok(Incoming::Head { head, body_len }) => {
                let (head, reply) = Reply::decode(head).expect("a node sends what decodes");
                if !matches!(reply, Reply::Welcome(_)) {
                    last = Some(head.status);
                }
                if body_len > 0 {
                    receiver.recv_body(Target::Discard, limit()).expect("the body");
                }
            }
            Ok(_) => unreachable!("bodies are received at once"),
            Err(LinkError::Closed) => return last.expect("the node says why"),
            Err(error) => panic!("the node closes the link: {error}"),
        }
    }
}

fn hello() -> Vec<u8> {
    let mut head = Vec::new();
    let hello = dmrpc_wire::Hello {
        features: 0,
        quota_pages: 0,
        resume_session: 0,
        resume_epoch: 0,
        resume_key: [0; 16],
        token: b"",
        name: "hostile",
    };
    Request::Hello(hello).encode(1, 0, &mut head);
    head
}

#[test]
fn malformed_messages_end_a_link_with_a_reason() {
    let mut node = NodeProcess::start(&["--pool", "8MiB"]);
    let mut witness = Client::local(node.unix());
    let hello = hello();
    let mut stat = Vec::new();
    Request::Stat.encode(1, 0, &mut stat);
    for local in [true, false] {
        // Before a hello.
        for head in [&b"garbage"[..], &[0xff; 1000], &hello[..hello.len() - 1]] {
            assert_eq!(goodbye_for(&node, local, &[head]), Status::Malformed, "{} bytes", head.len());
        }
        assert_eq!(goodbye_for(&node, local, &[&stat]), Status::Denied, "nobody asks before a hello");
        // After one.
        for head in [&b"garbage"[..], &[0xff; 1000], &hello, &stat[..20]] {
            assert_eq!(goodbye_for(&node, local, &[&hello, head]), Status::Malformed, "{} bytes", head.len());
        }
        let mut other_version = hello.clone();
        other_version[28] ^= 0x40;
        goodbye_for(&node, local, &[&other_version]);
    }
    check_serves(&mut node, &mut witness);
    node.wait_for("the end of all of them", |stats| stats.sessions == 2);
}

#[test]
fn oversized_messages() {
    let mut node = NodeProcess::start(&["--pool", "8MiB"]);
    let mut witness = Client::local(node.unix());
    let mut client = Client::remote(node.tcp());
    // More bytes than an object can have: refused, and the body skipped.
    let spans = [dmrpc_wire::Span { offset: 0.into(), length: (16u64 << 20).into() }];
    let id = client.new_id();
    let write = dmrpc_wire::Write { id, base: dmrpc_wire::ObjectId::NULL, size: 16 << 20, spans: &spans };
    let number = client.send(&Request::Write(write), Body::from_iter([bytes::Bytes::from(vec![1; 16 << 20])]));
    assert_eq!(client.answer(number).status(), Status::TooLarge);
    // A body that is not what the spans say.
    let id = client.new_id();
    let write = dmrpc_wire::Write { id, base: dmrpc_wire::ObjectId::NULL, size: 100, spans: &[] };
    let number = client.send(&Request::Write(write), Body::from_iter([bytes::Bytes::from_static(b"too much")]));
    assert_ne!(client.answer(number).status(), Status::Ok);
    // Frames with absurd lengths, straight onto the connection.
    for word in [u32::MAX, 1 << 31, 70_000] {
        let mut stream = tcp(&node);
        let mut bytes = Vec::new();
        (0..16).for_each(|_| bytes.extend_from_slice(&word.to_le_bytes()));
        let _ = stream.write_all(&bytes);
        wait_for_end(stream);
    }
    check_serves(&mut node, &mut witness);
}

#[test]
fn too_many_sessions_and_too_many_links() {
    let mut node =
        NodeProcess::start(&["--pool", "8MiB", "--max-sessions", "3", "--max-links", "6", "--handshake", "30s"]);
    let mut witness = Client::local(node.unix());
    let second = Client::remote(node.tcp());
    let third = Client::local(node.unix());
    for address in [node.unix(), node.tcp()] {
        assert_eq!(Client::open(address, &Terms::default()).map(drop), Err(Status::TooManySessions));
    }
    // Links that only stand there count too, and are turned away with a reason.
    let idle: Vec<_> =
        (0..3).map(|_| connect(node.unix(), &LinkOptions::default(), limit()).expect("a link")).collect();
    rig::wait_until("a full house", || {
        Client::open(node.unix(), &Terms::default()).map(drop) == Err(Status::TooManySessions)
    });
    drop(idle);
    second.bye();
    third.bye();
    rig::wait_until("room again", || Client::open(node.unix(), &Terms::default()).map(Client::bye).is_ok());
    check_serves(&mut node, &mut witness);
}

#[test]
fn a_node_without_descriptors_serves_those_it_has_and_lets_others_in_when_it_can() {
    let mut node = NodeProcess::start_with_descriptors(64, &["--pool", "8MiB"]);
    let mut witness = Client::local(node.unix());
    let mut clients: Vec<Client> = Vec::new();
    // Each takes several; at the end some take all.
    let crowd: Vec<_> =
        (0..64).map(|_| UnixStream::connect(node.socket()).expect("the kernel keeps it waiting")).collect();
    rig::wait_until("the end of its descriptors", || node.log().contains("nobody can be let in"));
    let bytes = pattern(1, 10_000);
    let id = witness.write(&bytes).expect("an object");
    assert_eq!(witness.read(id, 0, 10_000), Ok(bytes));
    drop(crowd);
    clients.push(Client::remote(node.unix()));
    clients.push(Client::remote(node.tcp()));
    clients.into_iter().for_each(Client::bye);
    check_serves(&mut node, &mut witness);
}

/// What a client sent before it went counts, also if the node finds out while it sends something.
#[test]
fn what_was_sent_before_the_end_is_heard() {
    let node = NodeProcess::start(&["--pool", "64MiB", "--grace", "60s"]);
    let mut witness = Client::local(node.unix());
    for round in 0..50 {
        let mut writer = Client::local(node.unix());
        let (info, mut arena) = writer.lease(64, 64).expect("a lease");
        let bytes = pattern(round, 4096);
        // Objects that come free, which the node has something to say about, and one that stays.
        for page in 0..32 {
            let id = writer.commit(info.segment, page, 1, 4096);
            let release = [dmrpc_wire::ReleaseEntry { id, count: 1.into() }];
            writer.send(&Request::Release(&release), Body::new());
        }
        arena.write(40 * 4096, &bytes);
        let id = writer.commit(info.segment, 40, 1, 4096);
        drop(writer);
        assert_eq!(witness.hold(id), Status::Ok, "round {round}");
        assert_eq!(witness.read(id, 0, 4096), Ok(bytes));
    }
}

#[test]
fn a_client_that_does_not_listen_harms_nobody() {
    let mut node = NodeProcess::start(&["--pool", "32MiB", "--stall", "300ms", "--grace", "10ms"]);
    let mut witness = Client::local(node.unix());
    let mut deaf = Client::remote(node.tcp());
    let id = deaf.write(&pattern(1, 8 << 20)).expect("an object");
    let mut head = Vec::new();
    Request::Read { id, offset: 0, length: 8 << 20 }.encode(1, 0, &mut head);
    // Gigabytes of answers that it never takes. The node stops reading from it long before it has all of these.
    let deadline = limit();
    let mut asked = 0u64;
    let error = loop {
        match deaf.sender.get_mut().try_send(&head, Body::new()) {
            Ok(()) => asked += 1,
            Err(dmrpc_fabric::link::TrySendError::Full(_)) => {}
            Err(dmrpc_fabric::link::TrySendError::Link(error)) => break error,
        }
        match deaf.sender.get_mut().flush() {
            Ok(true) => {}
            Ok(false) => std::thread::sleep(std::time::Duration::from_millis(1)),
            Err(error) => break error,
        }
        if asked.is_multiple_of(64) {
            check_serves(&mut node, &mut witness);
        }
        assert!(std::time::Instant::now() < deadline, "it is never cut off");
    };
    assert!(matches!(error, LinkError::Closed | LinkError::Io { .. }), "{error}");
    check_serves(&mut node, &mut witness);
    drop(deaf);
}

#[test]
fn a_client_on_this_host_that_does_not_listen_keeps_what_it_may_have_mapped() {
    let mut node = NodeProcess::start(&["--pool", "32MiB", "--stall", "200ms", "--grace", "10ms"]);
    let mut witness = Client::local(node.unix());
    let mut deaf = Client::local(node.unix());
    let (info, _arena) = deaf.lease(2048, 4).expect("a lease");
    let id = deaf.commit(info.segment, 0, 2048, 2048 * 4096);
    deaf.sync();
    let mut head = Vec::new();
    Request::Read { id, offset: 0, length: 2048 * 4096 }.encode(1, 0, &mut head);
    rig::wait_until("the cut", || {
        let sender = deaf.sender.get_mut();
        let _ = sender.try_send(&head, Body::new()).is_ok() && sender.flush().is_ok();
        node.log().contains("is cut off")
    });
    // It is told nothing more, but what it holds stays as long as it is there.
    assert_eq!(witness.hold(id), Status::Ok);
    assert_eq!(node.stats().sessions, 3);
    drop(deaf);
    node.wait_for("its end", |stats| stats.sessions == 2);
    check_serves(&mut node, &mut witness);
}

#[test]
fn random_bytes_over_both_transports() {
    let mut node =
        NodeProcess::start(&["--pool", "16MiB", "--handshake", "100ms", "--lease", "500ms", "--grace", "10ms"]);
    let mut witness = Client::local(node.unix());
    let seed = 0x5eed;
    eprintln!("seed {seed:#x}");
    // Raw bytes where frames are expected.
    for round in 0..60u64 {
        let bytes = pattern(seed + round, 1 + (round as usize * 97) % 5000);
        let mut stream = tcp(&node);
        let _ = stream.write_all(&bytes);
        if round % 3 == 0 {
            let _ = stream.shutdown(Shutdown::Write);
            wait_for_end(stream);
        }
        let mut socket = UnixStream::connect(node.socket()).expect("a connection");
        let _ = socket.write_all(&bytes);
    }
    // Whole messages of random bytes, and of requests with a few bytes changed, before and after a hello.
    let mut stat = Vec::new();
    Request::Stat.encode(1, 0, &mut stat);
    for round in 0..400u64 {
        let address = if round % 2 == 0 { node.unix() } else { node.tcp() };
        let link = connect(address, &LinkOptions::default(), limit()).expect("a link");
        let mut sender = BlockingSender::new(link.sender);
        let noise = pattern(seed ^ round, 600);
        if round % 4 > 1 {
            let _ = sender.send(&hello(), Body::new(), limit());
        }
        for message in 0..8 {
            let at = message * 64;
            let mut head = match noise[at] % 3 {
                0 => noise[at..at + 1 + usize::from(noise[at + 1] % 60)].to_vec(),
                1 => hello(),
                _ => {
                    // A known operation with arguments at random.
                    let mut head = vec![0; 24];
                    head[0] = 1 + noise[at + 1] % 17;
                    head[8] = message as u8 + 1;
                    head.extend_from_slice(&noise[at + 8..at + 8 + usize::from(noise[at + 2] % 56)]);
                    head
                }
            };
            if noise[at + 3].is_multiple_of(2) {
                let place = usize::from(noise[at + 4]) % head.len();
                head[place] ^= noise[at + 5];
            }
            let body = if noise[at + 6].is_multiple_of(3) {
                Body::from_iter([noise[..200].to_vec().into()])
            } else {
                Body::new()
            };
            if sender.send(&head, body, limit()).is_err() {
                break;
            }
        }
        drop(sender);
        if round % 100 == 99 {
            check_serves(&mut node, &mut witness);
        }
    }
    check_serves(&mut node, &mut witness);
    node.wait_for("the end of all of them", |stats| stats.sessions == 2 && stats.committed_pages <= stats.pool_pages);
}
