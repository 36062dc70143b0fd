//! `dmrpc-python-peer STORE LISTEN`: an actor named `peer` that Python tests exchange references with.
//!
//! Prints one line with its address when it is ready; ends when its standard input does.
#![forbid(unsafe_code)]

use anyhow::Context as _;
use dmrpc_actors::{System, actor};
use dmrpc_objstore::{AnyRef, ObjectRef, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::time::Duration;

struct Peer {
    store: Store,
    kept: Vec<AnyRef>,
}

/// A struct, which is a dict to Python.
#[derive(Serialize, Deserialize)]
struct Summary {
    name: String,
    bytes: u64,
    first: Option<u8>,
}

/// The FNV-1a hash: enough to tell contents apart.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn said<T>(result: Result<T, StoreError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

#[actor]
impl Peer {
    /// The hash of the bytes.
    #[message]
    async fn checksum(&mut self, data: ObjectRef) -> u64 {
        checksum(&said(data.get().await))
    }

    /// The sum of numbers, which are read where they lie.
    #[message]
    async fn sum(&mut self, numbers: ObjectRef<[f64]>) -> f64 {
        said(numbers.get().await).iter().sum()
    }

    /// An object of `len` bytes.
    #[message]
    async fn make(&mut self, len: u64, byte: u8) -> ObjectRef {
        said(self.store.put(vec![byte; len as usize]).await)
    }

    /// Writes into a private picture of the bytes, and gives the hash of that.
    #[message]
    async fn scribble(&mut self, data: ObjectRef, at: u64, byte: u8) -> u64 {
        let mut private = said(data.get().await).into_private();
        private[at as usize] = byte;
        checksum(&private)
    }

    /// A new object with some bytes changed.
    #[message]
    async fn edit(&mut self, data: ObjectRef, at: u64, byte: u8) -> ObjectRef {
        let mut edit = said(data.edit().await);
        said(edit.write(at, &[byte]));
        said(edit.commit().await)
    }

    /// Gives the reference back, whatever it is to.
    #[message]
    async fn echo(&mut self, reference: AnyRef) -> AnyRef {
        reference
    }

    /// Keeps the reference.
    #[message]
    async fn keep(&mut self, reference: AnyRef) -> u64 {
        said(reference.keep().await);
        self.kept.push(reference);
        self.kept.len() as u64
    }

    /// What was kept.
    #[message]
    async fn kept(&mut self) -> Vec<AnyRef> {
        self.kept.clone()
    }

    /// Keeps nothing any more.
    #[message]
    async fn forget(&mut self) {
        self.kept.clear();
    }

    /// Values of several types.
    #[message]
    async fn describe(&mut self, name: String, parts: Vec<ObjectRef>) -> Summary {
        let bytes = parts.iter().map(ObjectRef::byte_len).sum();
        let first = match parts.first() {
            Some(part) => said(part.get().await).first().copied(),
            None => None,
        };
        Summary { name, bytes, first }
    }

    /// Answers after so long.
    #[message]
    async fn sleep(&mut self, milliseconds: u64) {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }

    /// Panics.
    #[message]
    async fn panic(&mut self, why: String) {
        panic!("{why}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let store = arguments.next().context("the store's address is missing")?;
    let listen = arguments.next().context("the address to listen at is missing")?;
    let store = Store::connect(&store).await?;
    let system = System::builder().name("peer").store(store.clone()).listen(listen).build().await?;
    system.register("peer", &system.spawn(Peer { store, kept: Vec::new() }))?;
    let address = system.addresses().first().cloned().context("it listens nowhere")?;
    #[expect(clippy::print_stdout, reason = "that it is ready")]
    {
        println!("{address}#peer");
    }
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    system.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
