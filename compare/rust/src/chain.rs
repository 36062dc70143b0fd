//! An object through a chain of processes that pass it on; the last one reads all of it.

use crate::Passing;
use crate::cow::Object;
use crate::process::{self, Host, Role};
use bytes::Bytes;
use dmrpc_actors::{ActorRef, Context, actor};
use dmrpc_turns::process::Process;
use dmrpc_turns::{Load, Order, Turn, payload};
use serde::Deserialize;
use std::sync::Arc;

/// The memory node's pool.
const POOL_BYTES: u64 = 2 << 30;

/// Processes in the longest chain.
pub(crate) const LONGEST: u32 = 7;

/// A process of the chain.
pub(crate) struct Link {
    pub(crate) next: Option<ActorRef<Link>>,
}

#[actor]
impl Link {
    /// Has `more` others after this one pass the object on, the last of which sums it up.
    #[message(detached)]
    fn pass(
        &mut self,
        object: Object,
        more: u32,
        context: &mut Context<Self>,
    ) -> impl Future<Output = Result<u64, String>> {
        let (next, deadline) = (self.next.clone(), context.deadline());
        async move {
            match (more, next) {
                (0, _) => match object {
                    Object::Value(bytes) => Ok(payload::sum(&bytes)),
                    Object::Reference(object) => {
                        Ok(payload::sum(&object.get().await.map_err(|error| error.to_string())?))
                    }
                },
                (more, Some(next)) => {
                    next.pass(object, more - 1).until(deadline).await.map_err(|error| error.to_string())?
                }
                (_, None) => Err("the chain is too short".into()),
            }
        }
    }
}

/// What is done in a turn.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) size: usize,
    pub(crate) actors: u32,
    pub(crate) load: Load,
}

pub(crate) fn take_turns() -> anyhow::Result<()> {
    let host = Host::start(POOL_BYTES)?;
    let mut links: Vec<Process> = Vec::new();
    for n in (0..LONGEST).rev() {
        let next = links.last().map(|link| link.url().to_owned());
        let listen = host.address(&format!("link{n}"));
        links.push(process::start(&Role::Link { listen, store: host.store(), next })?);
    }
    let first = links.last().expect("there are some").url().to_owned();
    let runtime = process::runtime()?;
    let joined = runtime.block_on(async {
        let (store, system) = process::join(&host.store(), "maker", None).await?;
        let first: ActorRef<Link> = process::find(&system, &first).await?;
        anyhow::Ok((store, system, first))
    });
    let (store, _system, first) = joined?;
    dmrpc_turns::take(|Order::<Case> { way, case, time }| {
        let by: Passing = way.parse()?;
        let bytes = Bytes::from(payload::bytes(case.size));
        let expected = payload::sum(&bytes);
        let (store, first) = (store.clone(), first.clone());
        let bytes = Arc::new(bytes);
        let operation = move |_| {
            let (store, first, bytes) = (store.clone(), first.clone(), Arc::clone(&bytes));
            async move {
                let object = match by {
                    Passing::Value => Object::Value(Bytes::clone(&bytes)),
                    Passing::Ref => Object::Reference(store.put(&*bytes).await?),
                };
                let sum = first.pass(object, case.actors - 1).await?.map_err(anyhow::Error::msg)?;
                anyhow::ensure!(sum == expected, "the last one saw other bytes");
                Ok(())
            }
        };
        runtime.block_on(async {
            operation(0).await?;
            let measured = dmrpc_turns::run(case.load, time, operation).await?;
            Ok(Turn::new(&measured, format!("{expected:016x}")))
        })
    })
}
