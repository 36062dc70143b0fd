//! A process of the service: takes its role, says that it is ready, and ends when its standard input does.

use super::balancer::{Balancer, Next};
use super::crew::Crew;
use super::dispatcher::{Dispatcher, MAX_WAITING, PLACES};
use super::firewall::Firewall;
use super::gauge::{self, Counters, Gauge};
use super::pick::Picker;
use super::rules::Rules;
use super::spec::{NextIs, Role, Spec, Wire};
use super::tier::Tier;
use super::worker::Worker;
use crate::launch::READY;
use anyhow::Context;
use dmrpc_actors::{Actor, ActorRef, System};
use dmrpc_memnode::{Node, NodeConfig};
use dmrpc_objstore::{Store, StoreOptions};
use dmrpc_pages::PageSize;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

/// The name under which each tier is found.
pub(crate) const NAME: &str = "tier";

/// How long a tier may take to answer what it has when it is to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Plays the role that `spec` (in JSON) says, until standard input ends.
pub(crate) fn play(spec: &str) -> anyhow::Result<()> {
    let spec: Spec = serde_json::from_str(spec).context("the specification of a tier is malformed")?;
    let stop = input_ended();
    let Spec { name, listen, wire, role } = spec;
    if let Role::MemoryNode { pool_bytes, page_bytes } = role {
        return play_node(&listen, pool_bytes, page_bytes, stop);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match wire {
        Wire::Actors => runtime.block_on(play_tier(name, listen, role, stop)),
        #[cfg(feature = "compare")]
        Wire::Grpc => runtime.block_on(super::grpc::play(name, role, stop)),
    }
}

fn play_node(listen: &str, pool_bytes: u64, page_bytes: u64, stop: oneshot::Receiver<()>) -> anyhow::Result<()> {
    let config = NodeConfig {
        pool_bytes,
        page_size: PageSize::new(page_bytes)?,
        listen: vec![listen.parse()?],
        ..NodeConfig::default()
    };
    let node = Node::start(config)?;
    let address = node.addresses().first().context("the memory node listens nowhere")?;
    ready(&address.to_string())?;
    // Either way it is over.
    stop.blocking_recv().ok();
    node.shutdown();
    Ok(())
}

async fn play_tier(name: String, listen: String, role: Role, stop: oneshot::Receiver<()>) -> anyhow::Result<()> {
    let mut options = StoreOptions::new(role.store());
    options.name.clone_from(&name);
    let store = Store::connect_with(options).await.context("the memory node can't be reached")?;
    let system = System::builder().name(name.clone()).store(store.clone()).listen(listen).build().await?;
    let counters = Arc::<Counters>::default();
    let tier = Tier { name: name.into(), counters: Arc::clone(&counters) };
    system.register(gauge::NAME, &system.spawn(Gauge(counters)))?;
    match role {
        Role::MemoryNode { .. } => unreachable!("no actor plays that"),
        Role::Firewall { policy, next, .. } => {
            let next = find(&system, &next).await?;
            offer(&system, Firewall { tier, rules: Rules::new(policy), next })?;
        }
        Role::Balancer { policy, next, next_is, .. } => {
            let picker = Arc::new(Mutex::new(Picker::new(policy, next.len())));
            let next = match next_is {
                NextIs::Balancers => Next::Balancers(find_all(&system, &next).await?),
                NextIs::Dispatchers => Next::Dispatchers(find_all(&system, &next).await?),
            };
            offer(&system, Balancer { tier, picker, next })?;
        }
        Role::Dispatcher { workers, .. } => {
            let crew = Crew::new(workers.len(), PLACES, MAX_WAITING);
            let workers = find_all(&system, &workers).await?.into();
            offer(&system, Dispatcher { tier, crew, workers })?;
        }
        Role::Worker { .. } => offer(&system, Worker { tier, store: store.clone() })?,
    }
    ready(&system.addresses()[0])?;
    // Either way it is over.
    stop.await.ok();
    system.shutdown(PATIENCE).await;
    store.close();
    Ok(())
}

fn offer<A: Actor>(system: &System, actor: A) -> anyhow::Result<()> {
    Ok(system.register(NAME, &system.spawn(actor))?)
}

async fn find<A: Actor>(system: &System, url: &str) -> anyhow::Result<ActorRef<A>> {
    system.connect(&format!("{url}#{NAME}")).await.with_context(|| format!("the next tier at {url} can't be reached"))
}

async fn find_all<A: Actor>(system: &System, urls: &[String]) -> anyhow::Result<Vec<ActorRef<A>>> {
    let mut found = Vec::with_capacity(urls.len());
    for url in urls {
        found.push(find(system, url).await?);
    }
    Ok(found)
}

pub(super) fn ready(url: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "{READY}{url}")?;
    output.flush()
}

/// Told when standard input ends: whoever started this process wants it to end, or is no more.
fn input_ended() -> oneshot::Receiver<()> {
    let (ended, told) = oneshot::channel();
    std::thread::spawn(move || {
        // An error is an end as well.
        std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).ok();
        // Nobody waits for it if this process ends by itself.
        ended.send(()).ok();
    });
    told
}
