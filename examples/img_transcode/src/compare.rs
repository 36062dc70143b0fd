//! Turns in a comparison: the service by value, by reference, and as gRPC services, all of it up at once.

use crate::client::{Client, Extras};
use crate::header::{Kind, Work};
use crate::launch::{Service, Tiers};
use crate::load::Item;
use crate::options::{Options, Passing};
use crate::service::{Image, Request};
use crate::tiers::gauge::Counters;
use crate::tiers::grpc;
use crate::tiers::spec::Wire;
use crate::tiers::tier::Tier;
use anyhow::Context as _;
use dmrpc_actors::System;
use dmrpc_objstore::{Store, StoreOptions};
use dmrpc_turns::{Load, Order, Turn, payload};
use serde::Deserialize;
use std::sync::Arc;

/// What is done in a turn: bytes of this size are moved through all tiers, and summed at the end.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Case {
    size: usize,
    load: Load,
}

/// Takes turns until standard input ends.
pub(crate) fn take_turns(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (actors, services) = runtime.block_on(async {
        anyhow::Ok((Service::start(options, Wire::Actors).await?, Service::start(options, Wire::Grpc).await?))
    })?;
    let (client, far) = runtime.block_on(async {
        let far = dmrpc_turns::grpc::Client::connect(&services.tiers.chain[0].url).await?;
        anyhow::Ok((connect(&actors.tiers).await?, far))
    })?;
    let tier = Tier { name: "client".into(), counters: Arc::<Counters>::default() };
    let turns = dmrpc_turns::take(|Order::<Case> { way, case, time }| {
        let bytes = bytes::Bytes::from(payload::bytes(case.size));
        let sum = crc32fast::hash(&bytes);
        let item = Arc::new(Item {
            name: case.size.to_string(),
            kind: Kind::Opaque,
            bytes,
            sum,
            width: 0,
            height: 0,
            mark: None,
            expected: sum,
        });
        let passing = match way.as_str() {
            "value" => Some(Passing::Value),
            "ref" => Some(Passing::Reference),
            "grpc" => None,
            other => anyhow::bail!("there is no way {other}"),
        };
        let (client, far, tier) = (client.clone(), far.clone(), tier.clone());
        let operation = move |n: u64| {
            let (client, far, tier, item) = (client.clone(), far.clone(), tier.clone(), Arc::clone(&item));
            async move {
                // Clients are many: each has a rate of its own at the firewall.
                let lane = (n % 256) as u32;
                match passing {
                    Some(passing) => {
                        client.send(lane, &item, Work::Checksum, passing, Extras::default()).await?;
                    }
                    None => {
                        let header = client.header(lane, &item, Work::Checksum, Extras::default());
                        let request = Request { header, image: Image::Value(item.bytes.clone()) };
                        let answer = grpc::serve(&far, request, &tier).await?;
                        anyhow::ensure!(answer.sum == item.sum, "the worker saw other bytes");
                    }
                }
                Ok(())
            }
        };
        runtime.block_on(async {
            operation(0).await?;
            let measured = dmrpc_turns::run(case.load, time, operation).await?;
            Ok(Turn::new(&measured, format!("{sum:08x}")))
        })
    });
    drop(client);
    runtime.block_on(async {
        actors.stop().await;
        services.stop().await;
    });
    turns
}

async fn connect(tiers: &Tiers) -> anyhow::Result<Client> {
    let node = tiers.node.as_ref().context("there is no memory node")?;
    let mut store = StoreOptions::new(&node.url);
    store.name = "client".into();
    let store = Store::connect_with(store).await.context("the memory node can't be reached")?;
    let system = System::builder().name("client").store(store.clone()).build().await?;
    let firewall = system.connect(&format!("{}#{}", tiers.chain[0].url, crate::tiers::process::NAME)).await?;
    Ok(Client::new(firewall, store))
}
