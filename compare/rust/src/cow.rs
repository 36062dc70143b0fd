//! Copy on write: an object is made, passed to a worker in another process, which writes into some of its pages and answers.

use crate::Passing;
use crate::process::{self, Host, Role};
use crate::touch::{PAGE_BYTES, Touch};
use bytes::{Bytes, BytesMut};
use dmrpc_actors::{ActorRef, actor};
use dmrpc_objstore::{ObjectRef, Store};
use dmrpc_turns::{Load, Order, Turn, payload};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The memory node's pool.
const POOL_BYTES: u64 = 3 << 30;

/// The worker.
pub(crate) struct Toucher;

/// An object on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Object {
    Value(#[serde(with = "dmrpc_actors::attached")] Bytes),
    Reference(ObjectRef),
}

/// What the worker answers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Touched {
    /// The sum of the first bytes of the pages that were written.
    sum: u64,
    /// The checksum of all of it, if that was asked for.
    checksum: Option<u32>,
}

#[actor]
impl Toucher {
    /// Writes into the object, as its own version of it.
    #[message]
    async fn touch(&mut self, object: Object, touch: Touch, check: bool) -> Result<Touched, String> {
        let look = |bytes: &[u8]| Touched { sum: touch.answer(bytes), checksum: check.then(|| crc32fast::hash(bytes)) };
        match object {
            Object::Value(bytes) => {
                // In place: nobody else in this process has the bytes.
                let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&*shared));
                touch.stamp(&mut bytes);
                Ok(look(&bytes))
            }
            Object::Reference(object) if touch.pages == 0 => {
                Ok(look(&object.get().await.map_err(|error| error.to_string())?))
            }
            Object::Reference(object) => {
                let written = async {
                    let mut edit = object.edit().await?;
                    for (offset, bytes) in touch.writes() {
                        edit.write(offset as u64, &bytes)?;
                    }
                    edit.commit().await?.as_any().clone().cast::<[u8]>()
                };
                let written = written.await.map_err(|error| error.to_string())?;
                if check {
                    return Ok(look(&written.get().await.map_err(|error| error.to_string())?));
                }
                let mut sum = 0;
                for page in 0..touch.pages as usize {
                    let mut first = [0];
                    let at = (page * PAGE_BYTES) as u64;
                    written.as_any().read(at, &mut first).await.map_err(|error| error.to_string())?;
                    sum += u64::from(first[0]);
                }
                Ok(Touched { sum, checksum: None })
            }
        }
    }
}

/// What is done in a turn.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Case {
    size: usize,
    touch: Touch,
    load: Load,
}

/// The process that makes objects.
#[derive(Clone)]
struct Maker {
    store: Store,
    worker: ActorRef<Toucher>,
}

impl Maker {
    async fn make(&self, by: Passing, bytes: &Bytes) -> anyhow::Result<Object> {
        Ok(match by {
            Passing::Value => Object::Value(bytes.clone()),
            Passing::Ref => Object::Reference(self.store.put(bytes).await?),
        })
    }

    async fn ask(&self, object: Object, touch: Touch, check: bool) -> anyhow::Result<Touched> {
        self.worker.touch(object, touch, check).await?.map_err(anyhow::Error::msg)
    }

    /// The checksum that the worker sees, once it is certain that the original is as it was.
    async fn check(&self, by: Passing, bytes: &Bytes, touch: Touch) -> anyhow::Result<String> {
        let object = self.make(by, bytes).await?;
        let touched = self.ask(object.clone(), touch, true).await?;
        let unchanged = match object {
            Object::Value(original) => original == *bytes,
            Object::Reference(original) => original.get().await?[..] == **bytes,
        };
        anyhow::ensure!(unchanged, "the worker changed the original");
        Ok(format!("{:08x}", touched.checksum.unwrap_or_default()))
    }
}

pub(crate) fn take_turns() -> anyhow::Result<()> {
    let host = Host::start(POOL_BYTES)?;
    let worker = process::start(&Role::Toucher { listen: host.address("worker"), store: host.store() })?;
    let runtime = process::runtime()?;
    let maker = runtime.block_on(async {
        let (store, system) = process::join(&host.store(), "maker", None).await?;
        anyhow::Ok((Maker { store, worker: process::find(&system, worker.url()).await? }, system))
    });
    let (maker, _system) = maker?;
    dmrpc_turns::take(|Order::<Case> { way, case, time }| {
        let by: Passing = way.parse()?;
        let bytes = Bytes::from(payload::bytes(case.size));
        let mut written = bytes.to_vec();
        case.touch.stamp(&mut written);
        let expected = case.touch.answer(&written);
        runtime.block_on(async {
            let answer = maker.check(by, &bytes, case.touch).await?;
            let (maker, bytes) = (Arc::new(maker.clone()), bytes.clone());
            let operation = move |_| {
                let (maker, bytes) = (Arc::clone(&maker), bytes.clone());
                async move {
                    let object = maker.make(by, &bytes).await?;
                    let touched = maker.ask(object, case.touch, false).await?;
                    anyhow::ensure!(touched.sum == expected, "the worker did not write what it had to");
                    Ok(())
                }
            };
            let measured = dmrpc_turns::run(case.load, time, operation).await?;
            Ok(Turn::new(&measured, answer))
        })
    })
}
