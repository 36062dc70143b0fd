//! Links within TLS: whom each side takes for whom, and what peers are told that don't speak it or don't keep to it. What every link
//! does they do as well: see `conformance.rs`.

use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::address::Address;
use dmrpc_fabric::blocking::{BlockingReceiver, BlockingSender};
use dmrpc_fabric::link::{Body, Incoming, Link, LinkError};
use dmrpc_fabric::listen::{Listener, connect};
use dmrpc_test_authority::Authority;
use proptest::prelude::*;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const HOST: &str = "127.0.0.1";

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn options() -> LinkOptions {
    LinkOptions::default().max_body_bytes(1 << 20)
}

fn listen(url: &str) -> Listener {
    Listener::bind(&url.parse().unwrap(), &options()).unwrap()
}

/// Where the listener is, without its scheme.
fn place(listener: &Listener) -> String {
    listener.address().to_string().split_once("://").unwrap().1.to_owned()
}

/// What becomes of a connector, and of the acceptor meanwhile: a link, an error, or neither within the time of the test.
fn meet(mut listener: Listener, connector: &str) -> (Result<Link, LinkError>, Result<Link, LinkError>) {
    let address: Address = connector.parse().unwrap();
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| connect(&address, &options(), soon()));
        let accepted = listener.accept(soon());
        (connecting.join().unwrap(), accepted)
    })
}

/// The error of a side that was to get no link.
fn error(side: Result<Link, LinkError>, why: &str) -> LinkError {
    match side {
        Ok(_) => panic!("{why}: a link all the same"),
        Err(error) => error,
    }
}

/// A message there and back.
fn talk((connected, accepted): (Result<Link, LinkError>, Result<Link, LinkError>)) {
    let (connected, accepted) = (connected.unwrap(), accepted.unwrap());
    let (mut to, mut from) = (BlockingSender::new(connected.sender), BlockingReceiver::new(accepted.receiver));
    to.send(b"a message", Body::new(), soon()).unwrap();
    assert!(matches!(from.recv(soon()).unwrap(), Incoming::Head { head: b"a message", body_len: 0 }));
    let (mut to, mut from) = (BlockingSender::new(accepted.sender), BlockingReceiver::new(connected.receiver));
    to.send(b"an answer", Body::new(), soon()).unwrap();
    assert!(matches!(from.recv(soon()).unwrap(), Incoming::Head { head: b"an answer", body_len: 0 }));
}

#[test]
fn who_is_who() {
    let authority = Authority::new();
    let (node, client) = (authority.issue("node", &[HOST, "localhost"]), authority.issue("client", &["a client"]));
    let ca = authority.options();

    // The listener alone shows who it is, by number and by name.
    let listener = listen(&format!("tls://{HOST}:0?{}", node.options()));
    let address = listener.address().to_string();
    assert!(!address.contains('?'), "its files are not for others: {address}");
    talk(meet(listener, &format!("{address}?{ca}")));
    let listener = listen(&format!("tls://{HOST}:0?{}", node.options()));
    let port = place(&listener).rsplit_once(':').unwrap().1.to_owned();
    talk(meet(listener, &format!("tls://localhost:{port}?{ca}")));

    // Both do.
    let listener = listen(&format!("tls://{HOST}:0?{ca}&{}", node.options()));
    let place = place(&listener);
    talk(meet(listener, &format!("tls://{place}?{ca}&{}", client.options())));

    // What options an address has not are those of the link's.
    let mut listener = listen(&format!("tls://{HOST}:0?{ca}&{}", node.options()));
    let address = listener.address();
    let mut known = options();
    known.adopt(&format!("tls://elsewhere:1?{ca}&{}", client.options()).parse().unwrap());
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| connect(&address, &known, soon()));
        let accepted = listener.accept(soon());
        talk((connecting.join().unwrap(), accepted));
    });
}

#[test]
fn a_listener_that_is_not_who_it_should_be() {
    let (authority, other) = (Authority::new(), Authority::new());
    for (node, why, names) in [
        (other.issue("node", &[HOST]), "another issuer", "its issuer"),
        (authority.issue("elsewhere", &["10.0.0.1", "node"]), "another host", "not valid for name"),
        (authority.issue_expired("old", &[HOST]), "expired", "expired"),
    ] {
        let listener = listen(&format!("tls://{HOST}:0?{}", node.options()));
        let place = place(&listener);
        let (connected, accepted) = meet(listener, &format!("tls://{place}?{}", authority.options()));
        let connected = error(connected, why);
        assert!(matches!(connected, LinkError::Certificate(_)), "{why}: {connected}");
        assert!(connected.to_string().contains(names), "{why}: {connected}");
        let accepted = error(accepted, why);
        assert!(matches!(accepted, LinkError::Refused(_)), "{why}: {accepted}");
    }
}

/// With mutual TLS; the listener says why before the connector thinks that it has a link.
#[test]
fn a_connector_that_is_not_one_of_those_who_may() {
    let (authority, other) = (Authority::new(), Authority::new());
    let node = authority.issue("node", &[HOST]);
    for (client, why) in [
        (String::new(), "no certificate"),
        (other.issue("client", &["client"]).options(), "another issuer"),
        (authority.issue_expired("old", &["client"]).options(), "expired"),
    ] {
        let listener = listen(&format!("tls://{HOST}:0?{}&{}", authority.options(), node.options()));
        let place = place(&listener);
        let (connected, accepted) = meet(listener, &format!("tls://{place}?{}&{client}", authority.options()));
        let connected = error(connected, why);
        assert!(matches!(connected, LinkError::Refused(_)), "{why}: {connected}");
        let accepted = error(accepted, why);
        assert!(matches!(accepted, LinkError::Certificate(_)), "{why}: {accepted}");
    }
}

#[test]
fn tls_meets_none() {
    let authority = Authority::new();
    let node = authority.issue("node", &[HOST]);
    for (listener, scheme) in
        [(listen(&format!("tls://{HOST}:0?{}", node.options())), "tcp"), (listen(&format!("tcp://{HOST}:0")), "tls")]
    {
        let options = if scheme == "tls" { format!("?{}", authority.options()) } else { String::new() };
        let place = place(&listener);
        let (connected, accepted) = meet(listener, &format!("{scheme}://{place}{options}"));
        for (side, error) in [("connector", error(connected, scheme)), ("acceptor", error(accepted, scheme))] {
            assert!(matches!(error, LinkError::Protocol(_)) && error.to_string().contains("TLS"), "{side}: {error}");
        }
    }
}

/// A listener that says nothing, one byte, or half of a handshake and then nothing.
#[test]
fn a_handshake_that_does_not_end() {
    let authority = Authority::new();
    for said in [&b""[..], &[22], &[22, 3, 3, 0x10, 0, 2, 0, 0, 0xff]] {
        let listener = TcpListener::bind((HOST, 0)).unwrap();
        let url = format!("tls://{}?{}", listener.local_addr().unwrap(), authority.options());
        let connecting = std::thread::spawn(move || {
            connect(&url.parse().unwrap(), &options(), Instant::now() + Duration::from_millis(200))
        });
        let mut socket = listener.accept().unwrap().0;
        socket.write_all(said).unwrap();
        let error = error(connecting.join().unwrap(), "no end");
        assert!(matches!(error, LinkError::Deadline(_)), "{said:?}: {error}");
    }
}

/// Such a connector is dropped when its time is over, and keeps nobody waiting.
#[test]
fn a_connector_that_stalls_keeps_nobody_waiting() {
    let authority = Authority::new();
    let node = authority.issue("node", &[HOST]);
    let mut limited = options();
    limited.setup_timeout = Duration::from_secs(2);
    let url = format!("tls://{HOST}:0?{}", node.options());
    let mut listener = Listener::bind(&url.parse().unwrap(), &limited).unwrap();
    let place = place(&listener);
    let mut stalling: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(&place).unwrap()).collect();
    stalling[0].write_all(&[22, 3, 1]).unwrap();
    let address: Address = format!("tls://{place}?{}", authority.options()).parse().unwrap();
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| connect(&address, &options(), soon()));
        let accepted = listener.accept(soon());
        talk((connecting.join().unwrap(), accepted));
    });
    let until = soon();
    for socket in &mut stalling {
        socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        loop {
            assert!(Instant::now() < until, "they are dropped");
            assert!(listener.try_accept().unwrap().is_none());
            match socket.read(&mut [0; 64]) {
                Ok(0) => break,
                Ok(_) => panic!("nothing is said to one that said nothing"),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(_) => {}
            }
        }
    }
}

/// Files and options that are of no use are named, on both sides.
#[test]
fn files_that_are_of_no_use() {
    let authority = Authority::new();
    let (node, other) = (authority.issue("node", &[HOST]), authority.issue("other", &[HOST]));
    let (ca, empty) = (authority.options(), authority.folder().join("empty"));
    std::fs::write(&empty, "nothing\n").unwrap();
    let (empty, cert, key) = (empty.display(), node.cert.display(), node.key.display());
    for (url, names) in [
        (format!("tls://{HOST}:0"), "cert=FILE and key=FILE"),
        (format!("tls://{HOST}:0?{ca}"), "cert=FILE and key=FILE"),
        (format!("tls://{HOST}:0?cert=/none&key={key}"), "/none"),
        (format!("tls://{HOST}:0?cert={empty}&key={key}"), "empty"),
        (format!("tls://{HOST}:0?cert={cert}&key={empty}"), "empty"),
        (format!("tls://{HOST}:0?cert={cert}&key={}", other.key.display()), "node.pem"),
        (format!("tls://{HOST}:0?ca={empty}&{}", node.options()), "empty"),
    ] {
        let error = Listener::bind(&url.parse().unwrap(), &options()).err().expect(&url);
        assert!(matches!(error, LinkError::Credentials { .. } | LinkError::Address { .. }), "{url}: {error}");
        assert!(error.to_string().contains(names), "{url}: {error}");
    }
    let listener = listen(&format!("tls://{HOST}:0?{}", node.options()));
    let place = place(&listener);
    for (options_of, names) in [
        (String::new(), "ca=FILE"),
        ("?ca=/none".to_owned(), "/none"),
        (format!("?{ca}&cert={empty}&key={key}"), "empty"),
    ] {
        let url = format!("tls://{place}{options_of}");
        let error = error(connect(&url.parse().unwrap(), &options(), soon()), &url);
        assert!(error.to_string().contains(names), "{url}: {error}");
    }
}

/// A listener goes on with new files when there are some, and with the old ones while those are broken.
#[test]
fn certificates_are_replaced_while_it_listens() {
    let authority = Authority::new();
    let node = authority.issue("node", &[HOST]);
    let mut listener = listen(&format!("tls://{HOST}:0?{}", node.options()));
    let place = place(&listener);
    let mut is_accepted = |authority: &Authority| {
        let address: Address = format!("tls://{place}?{}", authority.options()).parse().unwrap();
        std::thread::scope(|scope| {
            let connecting = scope.spawn(|| connect(&address, &options(), soon()));
            let _ = listener.accept(soon());
            connecting.join().unwrap().is_ok()
        })
    };
    // The next second, or whatever the file system takes for that.
    let set_time = |later: u64| {
        let time = std::time::SystemTime::now() + Duration::from_secs(later);
        std::fs::File::options().append(true).open(&node.cert).unwrap().set_modified(time).unwrap();
    };
    assert!(is_accepted(&authority));
    std::fs::write(&node.cert, "half of a fi").unwrap();
    set_time(10);
    assert!(is_accepted(&authority), "the old one");
    let other = Authority::new();
    let next = other.issue("node", &[HOST]);
    std::fs::copy(&next.cert, &node.cert).unwrap();
    std::fs::copy(&next.key, &node.key).unwrap();
    set_time(20);
    assert!(is_accepted(&other) && !is_accepted(&authority), "the new one");
}

/// What goes over a wire between two ends, which the test may spoil.
fn wire(
    deadline: Instant,
    spoil: impl Fn(usize, &mut [u8]) + Send + Sync + 'static,
) -> (Result<Link, LinkError>, Result<Link, LinkError>) {
    let authority = Authority::new();
    let node = authority.issue("node", &[HOST]);
    let mut listener = listen(&format!("tls://{HOST}:0?{}", node.options()));
    let between = TcpListener::bind((HOST, 0)).unwrap();
    let url = format!("tls://{}?{}", between.local_addr().unwrap(), authority.options());
    let connecting = std::thread::spawn(move || connect(&url.parse().unwrap(), &options(), deadline));
    let near = between.accept().unwrap().0;
    let far = TcpStream::connect(place(&listener)).unwrap();
    let spoil = std::sync::Arc::new(spoil);
    for (mut from, mut to, spoil) in [
        (near.try_clone().unwrap(), far.try_clone().unwrap(), Some(spoil)),
        (far.try_clone().unwrap(), near.try_clone().unwrap(), None),
    ] {
        std::thread::spawn(move || {
            let mut at = 0;
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if let Some(spoil) = &spoil {
                    spoil(at, &mut buffer[..count]);
                }
                at += count;
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    let accepted = listener.accept(deadline);
    (connecting.join().unwrap(), accepted)
}

/// Of what came whole before nothing is lost; then both ends know.
#[test]
fn a_record_that_is_tampered_with() {
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_sent = sent.clone();
    let (connected, accepted) = wire(soon(), move |_, bytes| {
        if is_sent.load(std::sync::atomic::Ordering::SeqCst)
            && let Some(last) = bytes.last_mut()
        {
            *last ^= 1;
        }
    });
    let (connected, accepted) = (connected.unwrap(), accepted.unwrap());
    let mut to = BlockingSender::new(connected.sender);
    let mut from = BlockingReceiver::new(accepted.receiver);
    to.send(b"first", Body::new(), soon()).unwrap();
    assert!(matches!(from.recv(soon()).unwrap(), Incoming::Head { head: b"first", .. }));
    sent.store(true, std::sync::atomic::Ordering::SeqCst);
    to.send(b"second", Body::new(), soon()).unwrap();
    let error = from.recv(soon()).err().expect("it is not what was sent");
    assert!(matches!(error, LinkError::Protocol(_)), "{error}");
    let mut back = BlockingReceiver::new(connected.receiver);
    let error = back.recv(soon()).err().expect("the link is over");
    assert!(matches!(error, LinkError::Closed | LinkError::Protocol(_)), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever becomes of the connector's side of the handshake: both ends end, and the listener goes on.
    #[test]
    fn a_handshake_that_is_spoiled_anywhere(at in 0..1200usize, by in 1..=255u8) {
        // One that makes records longer has both wait for the rest.
        let (connected, accepted) = wire(Instant::now() + Duration::from_millis(300), move |from, bytes| {
            if (from..from + bytes.len()).contains(&at) {
                bytes[at - from] ^= by;
            }
        });
        for (side, end) in [("connector", connected), ("acceptor", accepted)] {
            if let Err(error) = end {
                let is_known = matches!(
                    error,
                    LinkError::Protocol(_) | LinkError::Refused(_) | LinkError::Certificate(_) | LinkError::Closed
                        | LinkError::Deadline(_)
                );
                prop_assert!(is_known, "{}: {}", side, error);
            }
        }
    }

    /// Garbage in place of a handshake.
    #[test]
    fn garbage_is_survived(bytes in prop::collection::vec(any::<u8>(), 1..400), begins_well: bool) {
        let authority = Authority::new();
        let node = authority.issue("node", &[HOST]);
        let mut listener = listen(&format!("tls://{HOST}:0?{}", node.options()));
        let mut socket = TcpStream::connect(place(&listener)).unwrap();
        let mut bytes = bytes;
        if begins_well {
            let len = bytes.len().min(200) as u8;
            bytes.splice(0..0, [22, 3, 1, 0, len, 1]);
        }
        socket.write_all(&bytes).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let until = soon();
        let mut answer = [0; 64];
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        loop {
            match listener.try_accept() {
                Ok(link) => prop_assert!(link.is_none()),
                Err(error) => prop_assert!(matches!(error, LinkError::Protocol(_) | LinkError::Refused(_)), "{}", error),
            }
            prop_assert!(Instant::now() < until, "it is dropped");
            match socket.read(&mut answer) {
                Ok(0) => break,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                _ => {}
            }
        }
    }
}
