//! From the name of a host to a socket, within a deadline.
//!
//! The resolver of the C library blocks as long as it likes, so that names are looked up on threads of their own: whoever asked
//! goes on at the deadline, and the thread ends when the resolver does. 1. There are at most [`LOOKUPS`] such threads.

use crate::link::LinkError;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

/// The most look-ups at the same time.
const LOOKUPS: usize = 64;

/// How many look-ups there are.
static LOOKING: AtomicUsize = AtomicUsize::new(0);

/// One of the look-ups that there may be.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        // Relaxed: a count that orders nothing else.
        let taken =
            LOOKING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < LOOKUPS).then_some(now + 1));
        taken.ok().map(|_| Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        LOOKING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The addresses of a host, at least one.
///
/// # Errors
///
/// [`LinkError::Deadline`]; [`LinkError::Io`] if there is no such host, or too much is being looked up.
pub(crate) fn look_up(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, LinkError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    resolve(host, deadline, move |host| Ok((host, port).to_socket_addrs()?.collect()))
}

fn resolve(
    host: &str,
    deadline: Instant,
    resolver: impl FnOnce(&str) -> std::io::Result<Vec<SocketAddr>> + Send + 'static,
) -> Result<Vec<SocketAddr>, LinkError> {
    let failed = |error: std::io::Error| LinkError::io("looking up a host", error);
    let started = Instant::now();
    let turn = Turn::take().ok_or_else(|| failed(ErrorKind::ResourceBusy.into()))?;
    let (answer, answered) = mpsc::sync_channel(1);
    let host = host.to_owned();
    let look = move || {
        let found = resolver(&host);
        drop(turn);
        // Nobody may be waiting any more.
        let _ = answer.send(found);
    };
    std::thread::Builder::new().name("dmrpc-lookup".into()).spawn(look).map_err(failed)?;
    match answered.recv_timeout(deadline.saturating_duration_since(started)) {
        Ok(Ok(found)) if found.is_empty() => Err(failed(ErrorKind::NotFound.into())),
        Ok(found) => found.map_err(failed),
        Err(_) => Err(LinkError::Deadline(deadline.saturating_duration_since(started))),
    }
}

/// A socket to the first address of the host that can be connected to. `doing` says what for.
///
/// # Errors
///
/// As [`look_up`]; [`LinkError::Io`] with what the last address said.
pub(crate) fn dial(
    host: &str,
    port: u16,
    deadline: Instant,
    doing: &'static str,
) -> Result<(TcpStream, SocketAddr), LinkError> {
    let started = Instant::now();
    let late = || LinkError::Deadline(deadline.saturating_duration_since(started));
    let mut last = late();
    for address in look_up(host, port, deadline)? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(socket) => return Ok((socket, address)),
            Err(error) if error.kind() == ErrorKind::TimedOut => return Err(late()),
            Err(error) => last = LinkError::io(doing, error),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[test]
    fn addresses_and_names() {
        let deadline = Instant::now() + Duration::from_secs(20);
        assert_eq!(look_up("127.0.0.1", 7, deadline).unwrap(), ["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(look_up("::1", 7, deadline).unwrap(), ["[::1]:7".parse().unwrap()]);
        assert!(look_up("localhost", 7, deadline).unwrap().iter().all(|found| found.ip().is_loopback()));
        let error = resolve("nothing", deadline, |_| Ok(Vec::new())).unwrap_err();
        assert!(matches!(error, LinkError::Io { .. }), "{error}");
    }

    #[test]
    fn a_resolver_that_does_not_answer_is_left_alone_and_there_are_only_so_many() {
        let (end, ended) = mpsc::channel::<()>();
        let ended = std::sync::Arc::new(parking_lot::Mutex::new(ended));
        for _ in 0..LOOKUPS {
            let ended = ended.clone();
            let stuck = move |_: &str| {
                let _ = ended.lock().recv();
                Ok(Vec::new())
            };
            let error = resolve("slow", soon(), stuck).unwrap_err();
            assert!(matches!(error, LinkError::Deadline(_)), "{error}");
        }
        let error = resolve("another", soon(), |_| Ok(Vec::new())).unwrap_err();
        assert!(error.to_string().contains("looking up a host"), "{error}");
        drop(end);
        let until = Instant::now() + Duration::from_secs(20);
        let found = loop {
            match resolve("again", until, |_| Ok(vec!["127.0.0.1:7".parse().unwrap()])) {
                Ok(found) => break found,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::yield_now();
        };
        assert_eq!(found.len(), 1);
    }
}
