//! A network that can be cut: a relay between a client and a node's port.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub(crate) struct Proxy {
    pub(crate) url: String,
    state: Arc<State>,
}

struct State {
    streams: Mutex<Vec<TcpStream>>,
    refuse: AtomicBool,
    connections: AtomicUsize,
}

impl Proxy {
    /// In front of `tcp://…`.
    pub(crate) fn new(target: &str) -> Self {
        let target = target.strip_prefix("tcp://").expect("a TCP address").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("tcp://{}", listener.local_addr().expect("it is bound"));
        let state = Arc::new(State {
            streams: Mutex::default(),
            refuse: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.refuse.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(node) = TcpStream::connect(&target) else { continue };
                shared.connections.fetch_add(1, Ordering::SeqCst);
                relay(&client, &node);
                relay(&node, &client);
                shared.streams.lock().unwrap().extend([client, node]);
            }
        });
        Self { url, state }
    }

    /// Cuts all connections; new ones can be made.
    pub(crate) fn cut(&self) {
        for stream in self.state.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets nobody connect any more, or again.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.state.refuse.store(refuse, Ordering::SeqCst);
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

fn relay(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().expect("a descriptor"), to.try_clone().expect("a descriptor"));
    std::thread::spawn(move || {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(len @ 1..) = from.read(&mut bytes) {
            if to.write_all(&bytes[..len]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}
