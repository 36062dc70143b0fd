//! What the other processes of a system are.

use crate::{chain, cow, grpc_chain, transfer};
use dmrpc_actors::{Actor, ActorRef, System};
use dmrpc_memnode::{Node, NodeConfig};
use dmrpc_objstore::{Store, StoreOptions};
use dmrpc_turns::process::{Process, Stop, ready};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// The name under which the actor of each process is found.
const NAME: &str = "it";

/// How long a process may take to answer what it has when it is to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a process is to be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Owns the pages.
    MemoryNode { listen: Vec<String>, pool_bytes: u64 },
    /// Writes into what it gets.
    Toucher { listen: String, store: String },
    /// Passes on what it gets to the next, if there is one.
    Link { listen: String, store: String, next: Option<String> },
    /// The same over gRPC.
    GrpcLink { next: Option<String> },
    /// Sends and takes bytes, and does nothing else.
    Socket,
}

/// A runtime as every process here has: its work is to pass things on, and a second thread is a second one to wake.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// A process that was started.
pub(crate) fn start(role: &Role) -> anyhow::Result<Process> {
    Ok(Process::start(&["serve", &serde_json::to_string(role)?])?)
}

/// A memory node in a process of its own, and a folder for the sockets of a system.
pub(crate) struct Host {
    // Ends before the folder goes.
    node: Process,
    folder: TempDir,
}

impl Host {
    pub(crate) fn start(pool_bytes: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let listen = vec![socket(folder.path(), "node"), "tcp://127.0.0.1:0".to_owned()];
        let node = start(&Role::MemoryNode { listen, pool_bytes })?;
        Ok(Self { node, folder })
    }

    /// Where the memory node is.
    pub(crate) fn store(&self) -> String {
        self.address_of_node(0)
    }

    /// The same, for clients that are to use the network.
    pub(crate) fn far_store(&self) -> String {
        self.address_of_node(1)
    }

    fn address_of_node(&self, n: usize) -> String {
        self.node.url().split(' ').nth(n).expect("a node says all that it listens at").to_owned()
    }

    /// An address for a process.
    pub(crate) fn address(&self, name: &str) -> String {
        socket(self.folder.path(), name)
    }
}

fn socket(folder: &Path, name: &str) -> String {
    let path: PathBuf = folder.join(name).with_extension("sock");
    format!("unix://{}", path.display())
}

/// A session of a client, and a system of its own.
pub(crate) async fn join(store: &str, name: &str, listen: Option<String>) -> anyhow::Result<(Store, System)> {
    let mut options = StoreOptions::new(store);
    name.clone_into(&mut options.name);
    let store = Store::connect_with(options).await?;
    let mut system = System::builder().name(name).store(store.clone());
    if let Some(listen) = listen {
        system = system.listen(listen);
    }
    Ok((store, system.build().await?))
}

/// The actor of another process.
pub(crate) async fn find<A: Actor>(system: &System, url: &str) -> anyhow::Result<ActorRef<A>> {
    Ok(system.connect(&format!("{url}#{NAME}")).await?)
}

/// Plays a role until standard input ends.
pub(crate) fn serve(role: &str) -> anyhow::Result<()> {
    let stop = Stop::with_input();
    match serde_json::from_str(role)? {
        Role::MemoryNode { listen, pool_bytes } => {
            let listen = listen.iter().map(|address| address.parse()).collect::<Result<Vec<_>, _>>()?;
            let config = NodeConfig { pool_bytes, listen, ..NodeConfig::default() };
            let node = Node::start(config)?;
            let addresses: Vec<String> = node.addresses().iter().map(ToString::to_string).collect();
            ready(&addresses.join(" "))?;
            stop.wait_blocking();
            node.shutdown();
            Ok(())
        }
        Role::Toucher { listen, store } => runtime()?.block_on(async {
            let (_, system) = join(&store, "toucher", Some(listen)).await?;
            offer(&system, cow::Toucher, stop).await
        }),
        Role::Link { listen, store, next } => runtime()?.block_on(async {
            let (_, system) = join(&store, "link", Some(listen)).await?;
            let next = match next {
                Some(url) => Some(find(&system, &url).await?),
                None => None,
            };
            offer(&system, chain::Link { next }, stop).await
        }),
        Role::Socket => transfer::serve_socket(stop),
        Role::GrpcLink { next } => runtime()?.block_on(grpc_chain::serve(next, stop)),
    }
}

async fn offer<A: Actor>(system: &System, actor: A, stop: Stop) -> anyhow::Result<()> {
    system.register(NAME, &system.spawn(actor))?;
    ready(&system.addresses()[0])?;
    stop.wait().await;
    system.shutdown(PATIENCE).await;
    Ok(())
}
