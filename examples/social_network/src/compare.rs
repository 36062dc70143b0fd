//! Turns in a comparison: the network by value, by reference, and over gRPC.

use crate::client::{MIX, Mix, Passing, Users};
use crate::graph::Graph;
use crate::grpc;
use crate::launch::{Network, Outside, Transport};
use crate::main_net;
use crate::net::Net;
use anyhow::Context as _;
use dmrpc_turns::{Load, Order, Turn};
use serde::Deserialize;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// What is done in a turn.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Case {
    /// Bytes of the media of each post.
    size: usize,
    load: Load,
    /// What of a hundred requests are posts and readings of user timelines.
    mix: Option<(u64, u64)>,
}

/// A network that is up, and what its last turn was about.
struct Up {
    _network: Network,
    users: Option<(Case, Users)>,
    net: Arc<Net>,
    services: Net,
    store: Option<dmrpc_objstore::Store>,
    way: String,
}

/// Takes turns until standard input ends.
pub(crate) fn take_turns(pool_bytes: u64, outside: &Outside) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let graph = Arc::new(Graph::open(outside.graph.as_deref())?);
    let mut ups: Vec<Up> = Vec::new();
    dmrpc_turns::take(|Order::<Case> { way, case, time }| {
        if !ups.iter().any(|up| up.way == way) {
            ups.push(start(&runtime, &way, pool_bytes, outside)?);
        }
        let up = ups.iter_mut().find(|up| up.way == way).context("it was started above")?;
        let mix = case.mix.map_or(MIX, |(compose, read_user)| Mix { compose, read_user });
        if up.users.as_ref().is_none_or(|(of, _)| (of.size, of.mix) != (case.size, case.mix)) {
            let passing = if way == "ref" { Passing::Reference } else { Passing::Value };
            let users = Users::new(Arc::clone(&up.net), up.store.clone(), Arc::clone(&graph), passing, mix, case.size);
            runtime.block_on(users.begin(&up.services))?;
            up.users = Some((case, users));
        }
        let (_, users) = up.users.as_ref().context("they were made above")?;
        let users = users.clone();
        runtime.block_on(async {
            let answer = users.check().await?;
            let operation = move |n| {
                let users = users.clone();
                async move { users.request(n).await }
            };
            let measured = dmrpc_turns::run(case.load, time, operation).await?;
            Ok(Turn::new(&measured, answer))
        })
    })
}

fn start(runtime: &Runtime, way: &str, pool_bytes: u64, outside: &Outside) -> anyhow::Result<Up> {
    let transport = match way {
        "value" | "ref" => Transport::Actors,
        "grpc" => Transport::Grpc,
        other => anyhow::bail!("there is no way {other}"),
    };
    let network = Network::start(transport, pool_bytes, outside)?;
    let (net, services, store) = runtime.block_on(async {
        if transport == Transport::Grpc {
            let clients = grpc::connect_all(&network.services).await?;
            return anyhow::Ok((Net::Grpc(clients.clone()), Net::Grpc(clients), None));
        }
        let (net, store) = main_net(&network).await?;
        Ok((net.clone(), net, Some(store)))
    })?;
    Ok(Up { _network: network, users: None, net: Arc::new(net), services, store, way: way.to_owned() })
}
