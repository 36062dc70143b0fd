//! Bulk over TCP on the loopback, beside a socket that does nothing else.
//!
//! Both sides send from memory that is there already and receive into memory that was received into before: the socket into
//! one buffer, a get into what the store keeps of earlier ones. What is not the program's own, a put has to copy first.

use crate::bench::{Bench, Host};
use crate::payload;
use crate::report::{Row, Target, Unit};
use crate::statistics::{Contestant, compare};
use anyhow::Context as _;
use bytes::Bytes;
use dmrpc_objstore::{ObjectRef, Store, StoreError, StoreOptions, block_on};
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

const SIZES: [usize; 3] = [64 << 10, 1 << 20, 64 << 20];
/// From this size on a read is to be as quick as the socket is.
const FULL_SPEED_BYTES: usize = 1 << 20;
/// How quick that is.
const SHARE: f64 = 0.9;

pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let host = Host::start(1 << 30)?;
    let mut options = StoreOptions::new(host.network_url());
    options.cache_bytes = 0;
    let store = block_on(Store::connect_with(options))?;

    for size in SIZES {
        let bytes = payload::bytes(size);
        let owned = Bytes::from(bytes.clone());
        let object = block_on(store.put(&bytes))?;
        block_on(object.keep())?;
        let mut reader = Echo::start(size)?;
        let mut writer = Echo::start(size)?;
        let mut into = vec![1; size];
        let put = |object: Result<ObjectRef, StoreError>| {
            let object = object.expect("there is room");
            block_on(object.keep()).expect("it is there");
            block_on(store.flush()).expect("the node is there");
        };
        let [get, read, put_owned, put_borrowed, write] = compare(
            bench.effort,
            [
                Contestant::repeated(|| {
                    let view = block_on(object.get()).expect("it is there");
                    black_box(view[size - 1]);
                }),
                Contestant::repeated(|| reader.fetch(&mut into)),
                Contestant::repeated(|| put(block_on(store.put_bytes(owned.clone())))),
                Contestant::repeated(|| put(block_on(store.put(&bytes)))),
                Contestant::repeated(|| writer.store(&bytes)),
            ],
        );
        let speed = |ns: f64| size as f64 / ns * 1e9;
        let mut rows = [
            Row::new(
                "TCP, one at a time",
                format!("get of {}", payload::size(size)),
                Unit::BytesPerSecond,
                get.map(speed),
            )
            .beside("plain socket", read.map(speed)),
            Row::new(
                "TCP, one at a time",
                format!("put of {}", payload::size(size)),
                Unit::BytesPerSecond,
                put_owned.map(speed),
            )
            .beside("plain socket", write.map(speed)),
        ];
        let borrowed = Row::new(
            "TCP, one at a time",
            format!("put of {}, copied first", payload::size(size)),
            Unit::BytesPerSecond,
            put_borrowed.map(speed),
        )
        .beside("plain socket", write.map(speed));
        if size >= FULL_SPEED_BYTES {
            rows = rows.map(|row| row.target(Target::ShareOf(SHARE)));
        }
        bench.rows.extend(rows);
        bench.rows.push(borrowed);
    }
    Ok(())
}

/// A thread at the other end of a connection: for `b"r"` it sends a payload, for `b"w"` it takes one and says so.
struct Echo {
    stream: TcpStream,
}

impl Echo {
    fn start(size: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listening on the loopback")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        let (mut peer, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        peer.set_nodelay(true)?;
        std::thread::spawn(move || {
            let mut bytes = payload::bytes(size);
            let mut ask = [0];
            // Ends with the connection.
            while peer.read_exact(&mut ask).is_ok() {
                let done = match &ask {
                    b"r" => peer.write_all(&bytes),
                    _ => peer.read_exact(&mut bytes).and_then(|()| peer.write_all(b"k")),
                };
                if done.is_err() {
                    break;
                }
            }
        });
        Ok(Self { stream })
    }

    fn fetch(&mut self, into: &mut [u8]) {
        self.stream.write_all(b"r").expect("the thread is there");
        self.stream.read_exact(into).expect("the thread is there");
        black_box(into);
    }

    fn store(&mut self, bytes: &[u8]) {
        self.stream.write_all(b"w").expect("the thread is there");
        self.stream.write_all(bytes).expect("the thread is there");
        self.stream.read_exact(&mut [0]).expect("the thread is there");
    }
}
