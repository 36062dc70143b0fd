//! The processes: a memory node and the two services, this program started again.

use crate::service::{Compressor, Encryptor};
use dmrpc_actors::{Actor, ActorRef, System};
use dmrpc_memnode::{Node, NodeConfig};
use dmrpc_objstore::{Store, StoreOptions};
use dmrpc_turns::process::{Process, Stop, ready};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tempfile::TempDir;

const NAME: &str = "service";

/// The memory node's pool.
const POOL_BYTES: u64 = 1 << 30;

/// How long a process may take to answer what it has when it is to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a process is to be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Part {
    MemoryNode { listen: String },
    Encryptor { listen: String, store: String },
    Compressor { listen: String, store: String, encryptor: String },
}

/// The services, as long as they run.
pub(crate) struct Services {
    compressor: Process,
    _encryptor: Process,
    node: Process,
    _folder: TempDir,
}

impl Services {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("offload-").tempdir()?;
        let listen = |name: &str| format!("unix://{}", folder.path().join(format!("{name}.sock")).display());
        let node = start(&Part::MemoryNode { listen: listen("node") })?;
        let store = || node.url().to_owned();
        let encryptor = start(&Part::Encryptor { listen: listen("encryptor"), store: store() })?;
        let compressor = start(&Part::Compressor {
            listen: listen("compressor"),
            store: store(),
            encryptor: encryptor.url().to_owned(),
        })?;
        Ok(Self { compressor, _encryptor: encryptor, node, _folder: folder })
    }

    /// A session of the client's, and the first service.
    pub(crate) async fn connect(&self) -> anyhow::Result<(Store, System, ActorRef<Compressor>)> {
        let (store, system) = join(self.node.url(), "client", None).await?;
        let compressor = system.connect(&format!("{}#{NAME}", self.compressor.url())).await?;
        Ok((store, system, compressor))
    }
}

fn start(part: &Part) -> anyhow::Result<Process> {
    Ok(Process::start(&["--part", &serde_json::to_string(part)?])?)
}

async fn join(store: &str, name: &str, listen: Option<String>) -> anyhow::Result<(Store, System)> {
    let mut options = StoreOptions::new(store);
    name.clone_into(&mut options.name);
    let store = Store::connect_with(options).await?;
    let mut system = System::builder().name(name).store(store.clone());
    if let Some(listen) = listen {
        system = system.listen(listen);
    }
    Ok((store, system.build().await?))
}

/// Plays a part until standard input ends.
pub(crate) fn play(part: &str) -> anyhow::Result<()> {
    let stop = Stop::with_input();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match serde_json::from_str(part)? {
        Part::MemoryNode { listen } => {
            let config = NodeConfig { pool_bytes: POOL_BYTES, listen: vec![listen.parse()?], ..NodeConfig::default() };
            let node = Node::start(config)?;
            ready(&node.addresses()[0].to_string())?;
            stop.wait_blocking();
            node.shutdown();
            Ok(())
        }
        Part::Encryptor { listen, store } => runtime.block_on(async {
            let (store, system) = join(&store, "encryptor", Some(listen)).await?;
            offer(&system, Encryptor::new(store), stop).await
        }),
        Part::Compressor { listen, store, encryptor } => runtime.block_on(async {
            let (store, system) = join(&store, "compressor", Some(listen)).await?;
            let encryptor = system.connect(&format!("{encryptor}#{NAME}")).await?;
            offer(&system, Compressor { store, encryptor }, stop).await
        }),
    }
}

async fn offer<A: Actor>(system: &System, actor: A, stop: Stop) -> anyhow::Result<()> {
    system.register(NAME, &system.spawn(actor))?;
    ready(&system.addresses()[0])?;
    stop.wait().await;
    system.shutdown(PATIENCE).await;
    Ok(())
}
