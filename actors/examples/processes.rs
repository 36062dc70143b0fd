//! How fast an actor of another process answers, by value and by reference, beside a bare link of the same kind.
//!
//! `cargo run --release -p dmrpc-actors --example processes [seconds each]`

#![allow(clippy::print_stdout)]

use bytes::Bytes;
use dmrpc_actors::{ActorRef, System, actor};
use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::asynchronous::{AsyncListener, AsyncReceiver, AsyncSender};
use dmrpc_fabric::link::{Body, Incoming, Link};
use dmrpc_fabric::listen::{Listener, connect};
use dmrpc_objstore::{ObjectRef, Store};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

struct Server;

#[actor]
impl Server {
    #[message]
    fn add(&mut self, n: u64) -> u64 {
        n + 1
    }

    #[message]
    fn by_value(&mut self, bytes: Bytes) -> u64 {
        u64::from(bytes[0])
    }

    #[message]
    async fn by_ref(&mut self, object: ObjectRef) -> u64 {
        u64::from(object.get().await.expect("it is there")[0])
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, serve, address, bare, store] = &arguments[..]
        && serve == "serve"
    {
        return serve_until_killed(address, bare, store).await;
    }
    let seconds: f64 = arguments.get(1).map_or(1.0, |text| text.parse().expect("a number of seconds"));
    let each = Duration::from_secs_f64(seconds);
    let store = Store::embedded().await.expect("a node starts");
    let directory = std::env::temp_dir().join(format!("dmrpc-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("a directory");
    for kind in ["unix", "tcp"] {
        let (address, bare) = if kind == "unix" {
            let at = |name: &str| format!("unix://{}/{name}", directory.display());
            (at("actors"), at("bare"))
        } else {
            ("tcp://127.0.0.1:39471".to_owned(), "tcp://127.0.0.1:39472".to_owned())
        };
        let mut server = Command::new(std::env::current_exe().expect("this program"))
            .args(["serve", &address, &bare, store.url()])
            .stdin(Stdio::null())
            .spawn()
            .expect("this program runs");
        measure(kind, &address, &bare, &store, each).await;
        let _ = server.kill();
        let _ = server.wait();
    }
    let _ = std::fs::remove_dir_all(directory);
}

async fn serve_until_killed(address: &str, bare: &str, store: &str) {
    let store = Store::connect(store).await.expect("the node is there");
    let system = System::builder().store(store).listen(address).build().await.expect("listens");
    system.register("server", &system.spawn(Server)).expect("free");
    let bare = Listener::bind(&bare.parse().expect("an address"), &LinkOptions::default()).expect("listens");
    let mut listener = AsyncListener::new(bare).expect("within a runtime");
    loop {
        let Link { sender, receiver, .. } = listener.accept().await.expect("accepts");
        let mut sender = AsyncSender::new(sender).expect("within a runtime");
        let mut receiver = AsyncReceiver::new(receiver).expect("within a runtime");
        tokio::spawn(async move {
            while let Ok(Incoming::Head { head, .. }) = receiver.recv().await {
                let head = head.to_vec();
                if sender.send(&head, Body::new()).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn report(kind: &str, what: &str, calls: u64, took: Duration) {
    let each = took.as_secs_f64() * 1e6 / calls as f64;
    println!("{kind:<5} {what:<34} {each:>9.2} us each {:>10.0}/s", calls as f64 / took.as_secs_f64());
}

async fn measure(kind: &str, address: &str, bare: &str, store: &Store, each: Duration) {
    let system = System::builder().store(store.clone()).build().await.expect("no address");
    let begun = Instant::now();
    let actor: ActorRef<Server> = loop {
        match system.connect(&format!("{address}#server")).await {
            Ok(actor) => break actor,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(10), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    // On a worker, as code of a server is.
    let (kind, bare, store) = (kind.to_owned(), bare.to_owned(), store.clone());
    let measured = async move {
        let link = connect(&bare.parse().expect("an address"), &LinkOptions::default(), Instant::now() + each * 10);
        let Link { sender, receiver, .. } = link.expect("it listens");
        let mut sender = AsyncSender::new(sender).expect("within a runtime");
        let mut receiver = AsyncReceiver::new(receiver).expect("within a runtime");
        let (mut calls, begun) = (0, Instant::now());
        while begun.elapsed() < each {
            sender.send(&[0; 40], Body::new()).await.expect("sent");
            receiver.recv().await.expect("answered");
            calls += 1;
        }
        report(&kind, "bare link, one by one", calls, begun.elapsed());

        let (mut calls, begun) = (0, Instant::now());
        while begun.elapsed() < each {
            actor.add(1).await.expect("answered");
            calls += 1;
        }
        report(&kind, "ask, one by one", calls, begun.elapsed());

        for tasks in [8, 64] {
            let begun = Instant::now();
            let tasks: Vec<_> = (0..tasks)
                .map(|_| {
                    let actor = actor.clone();
                    tokio::spawn(async move {
                        let mut calls = 0;
                        while begun.elapsed() < each {
                            actor.add(1).await.expect("answered");
                            calls += 1;
                        }
                        calls
                    })
                })
                .collect();
            let what = format!("ask, from {} tasks", tasks.len());
            let mut calls = 0;
            for task in tasks {
                calls += task.await.expect("no panic");
            }
            report(&kind, &what, calls, begun.elapsed());
        }

        let (mut calls, begun) = (0, Instant::now());
        while begun.elapsed() < each {
            for _ in 0..1000 {
                actor.tell_add(1).await.expect("sent");
            }
            calls += 1000;
        }
        actor.add(1).await.expect("answered");
        report(&kind, "tell", calls, begun.elapsed());

        for len in [32 << 10, 1 << 20] {
            let bytes = Bytes::from(vec![7; len]);
            let (mut calls, begun) = (0, Instant::now());
            while begun.elapsed() < each {
                actor.by_value(bytes.clone()).await.expect("answered");
                calls += 1;
            }
            report(&kind, &format!("ask with {} KiB by value", len >> 10), calls, begun.elapsed());
            let (mut calls, begun) = (0, Instant::now());
            while begun.elapsed() < each {
                let object = store.put(&bytes).await.expect("there is room");
                actor.by_ref(object).await.expect("answered");
                calls += 1;
            }
            report(&kind, &format!("put and ask with {} KiB by ref", len >> 10), calls, begun.elapsed());
        }
    };
    tokio::spawn(measured).await.expect("no panic");
    system.shutdown(Duration::from_secs(1)).await;
}
