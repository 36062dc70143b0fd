//! The actor that each service is to others, and the process that it lives in.

use crate::call::{Answer, Call, Failure, Role};
#[cfg(feature = "compare")]
use crate::grpc;
use crate::net::Net;
use crate::services::Service;
use anyhow::Context as _;
use dmrpc_actors::{ActorRef, System, actor};
use dmrpc_memnode::{Node, NodeConfig};
use dmrpc_objstore::{Store, StoreOptions};
use dmrpc_turns::process::{Stop, ready};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The name of the actor of each process.
const NAME: &str = "service";

/// How long a process may take to answer what it has when it is to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// A service, as others see it.
pub(crate) struct Host {
    service: Arc<Service>,
    net: Arc<Net>,
}

#[actor]
impl Host {
    /// Does what it is asked, beside whatever else is under way.
    #[message(detached)]
    pub(crate) fn call(&mut self, call: Call) -> impl Future<Output = Result<Answer, Failure>> {
        let (service, net) = (Arc::clone(&self.service), Arc::clone(&self.net));
        async move { service.answer(call, &net).await }
    }
}

/// What a process is to be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Part {
    /// Owns the pages.
    MemoryNode { listen: String, pool_bytes: u64 },
    /// A service.
    Service { role: Role, setup: Setup, wire: Wire },
}

/// What a service is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// A folder for its database.
    pub(crate) folder: PathBuf,
    /// The server that keeps its database instead.
    pub(crate) database: Option<String>,
    /// Edges of the social graph; the services make the same of them.
    pub(crate) graph: Option<PathBuf>,
}

/// How it is talked to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Wire {
    Actors {
        listen: String,
        store: String,
        /// Where the services are that it calls.
        others: HashMap<Role, String>,
    },
    #[cfg(feature = "compare")]
    Grpc { others: HashMap<Role, String> },
}

/// Plays a part until standard input ends.
pub(crate) fn play(part: &str) -> anyhow::Result<()> {
    let stop = Stop::with_input();
    match serde_json::from_str(part)? {
        Part::MemoryNode { listen, pool_bytes } => {
            let config = NodeConfig { pool_bytes, listen: vec![listen.parse()?], ..NodeConfig::default() };
            let node = Node::start(config)?;
            ready(&node.addresses()[0].to_string())?;
            stop.wait_blocking();
            node.shutdown();
            Ok(())
        }
        Part::Service { role, setup, wire } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let service = Arc::new(Service::open(role, &setup).await?);
                let served = serve(role, Arc::clone(&service), wire, stop).await;
                service.close().await;
                served
            })
        }
    }
}

async fn serve(role: Role, service: Arc<Service>, wire: Wire, stop: Stop) -> anyhow::Result<()> {
    match wire {
        Wire::Actors { listen, store, others } => {
            let (_store, system) = join(&store, &format!("{role:?}"), Some(listen)).await?;
            let net = Arc::new(Net::Actors(find_all(&system, &others).await?));
            system.register(NAME, &system.spawn(Host { service, net }))?;
            ready(&system.addresses()[0])?;
            stop.wait().await;
            system.shutdown(PATIENCE).await;
            Ok(())
        }
        #[cfg(feature = "compare")]
        Wire::Grpc { others } => grpc::serve(service, grpc::connect_all(&others).await?, stop.wait()).await,
    }
}

/// A session of a client, and a system of its own.
pub(crate) async fn join(store: &str, name: &str, listen: Option<String>) -> anyhow::Result<(Store, System)> {
    let mut options = StoreOptions::new(store);
    name.clone_into(&mut options.name);
    let store = Store::connect_with(options).await.context("the memory node can't be reached")?;
    let mut system = System::builder().name(name).store(store.clone());
    if let Some(listen) = listen {
        system = system.listen(listen);
    }
    Ok((store, system.build().await?))
}

/// The actors at those addresses.
pub(crate) async fn find_all(
    system: &System,
    urls: &HashMap<Role, String>,
) -> anyhow::Result<HashMap<Role, ActorRef<Host>>> {
    let mut found = HashMap::new();
    for (&role, url) in urls {
        found.insert(role, system.connect(&format!("{url}#{NAME}")).await?);
    }
    Ok(found)
}
