//! Tiers two to four: choose who is next. The last of them puts the watermark on images that are to have one.

use super::dispatcher::Dispatcher;
use super::pick::Picker;
use super::tier::{Tier, failed};
use crate::header::{Mark, Refusal};
use crate::service::{Answer, Image, Request};
use crate::watermark;
use bytes::BytesMut;
use dmrpc_actors::{ActorError, ActorRef, Context, actor};
use dmrpc_objstore::StoreError;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// A balancer.
pub(crate) struct Balancer {
    pub(crate) tier: Tier,
    pub(crate) picker: Arc<Mutex<Picker>>,
    pub(crate) next: Next,
}

/// Whom a balancer chooses from.
pub(crate) enum Next {
    /// The next level.
    Balancers(Vec<ActorRef<Balancer>>),
    /// The dispatchers: this is the last level.
    Dispatchers(Vec<ActorRef<Dispatcher>>),
}

/// The one that was chosen.
enum Chosen {
    Balancer(ActorRef<Balancer>),
    Dispatcher(ActorRef<Dispatcher>),
}

#[actor]
impl Balancer {
    /// Hands a request on to one of the next level.
    #[message(detached)]
    pub(crate) fn serve(
        &mut self,
        request: Request,
        context: &mut Context<Self>,
    ) -> impl Future<Output = Result<Answer, Refusal>> {
        let arrived = self.tier.arrived(&request);
        let turn = Turn::new(&self.picker, &request);
        let next = self.next.choose(turn.server);
        let (tier, deadline) = (self.tier.clone(), context.deadline());
        async move {
            let answer = next.serve(request, deadline, &tier).await?;
            drop(turn);
            Ok(tier.answered(arrived, answer))
        }
    }
}

impl Next {
    fn choose(&self, server: usize) -> Chosen {
        match self {
            Self::Balancers(balancers) => Chosen::Balancer(balancers[server].clone()),
            Self::Dispatchers(dispatchers) => Chosen::Dispatcher(dispatchers[server].clone()),
        }
    }
}

impl Chosen {
    async fn serve(self, mut request: Request, deadline: Option<Instant>, tier: &Tier) -> Result<Answer, Refusal> {
        let served: Result<_, ActorError> = match self {
            Self::Balancer(next) => next.serve(request).until(deadline).await,
            Self::Dispatcher(next) => {
                if let Some(mark) = request.header.mark {
                    request.image = marked(request.image, mark, tier).await?;
                }
                next.serve(request).until(deadline).await
            }
        };
        served.map_err(failed(tier))?
    }
}

/// The image with the watermark on it. By reference that is a new object which shares every page but one with the old.
pub(super) async fn marked(image: Image, mark: Mark, tier: &Tier) -> Result<Image, Refusal> {
    let len = image.len();
    let inside = mark.offset.checked_add(mark.bytes() as u64).is_some_and(|end| end <= len);
    if !inside {
        return Err(Refusal::MarkOutside { offset: mark.offset, bytes: len });
    }
    Ok(match image {
        Image::Value(bytes) => {
            // In place, if nobody else in this process has the bytes.
            let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&*shared));
            watermark::stamp(&mut bytes, mark);
            Image::Value(bytes.freeze())
        }
        Image::Reference(original) => {
            let marking = async {
                let mut edit = original.edit().await?;
                edit.write(mark.offset, &watermark::tile(mark))?;
                edit.commit().await
            };
            Image::Reference(marking.await.map_err(|error: StoreError| failed(tier)(error))?)
        }
    })
}

/// A request that counts as outstanding at a server of the next level until this is dropped.
pub(super) struct Turn {
    picker: Arc<Mutex<Picker>>,
    pub(super) server: usize,
}

impl Turn {
    pub(super) fn new(picker: &Arc<Mutex<Picker>>, request: &Request) -> Self {
        let server = picker.lock().unwrap_or_else(PoisonError::into_inner).pick(&request.header);
        Self { picker: Arc::clone(picker), server }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.picker.lock().unwrap_or_else(PoisonError::into_inner).done(self.server);
    }
}
