//! Tier five: gives each request to a worker that is free, and has the others wait in line.

use super::crew::Crew;
use super::tier::{Tier, failed};
use super::worker::Worker;
use crate::header::Refusal;
use crate::service::{Answer, Request};
use dmrpc_actors::{ActorRef, Context, actor};
use std::sync::Arc;

/// Requests that a worker has at a time: one that it works on, and one that is there when it is done with that.
pub(crate) const PLACES: usize = 2;

/// The most requests that wait for a worker.
pub(crate) const MAX_WAITING: usize = 1024;

/// The dispatcher.
pub(crate) struct Dispatcher {
    pub(crate) tier: Tier,
    pub(crate) crew: Crew,
    pub(crate) workers: Arc<[ActorRef<Worker>]>,
}

#[actor]
impl Dispatcher {
    /// Has a worker do the work.
    #[message(detached)]
    pub(crate) fn serve(
        &mut self,
        request: Request,
        context: &mut Context<Self>,
    ) -> impl Future<Output = Result<Answer, Refusal>> {
        let arrived = self.tier.arrived(&request);
        let (tier, crew, workers) = (self.tier.clone(), self.crew.clone(), Arc::clone(&self.workers));
        let deadline = context.deadline();
        async move {
            let place = crew.place().await.map_err(|waiting| Refusal::Busy { waiting })?;
            let served = workers[place.worker].serve(request).until(deadline).await;
            drop(place);
            Ok(tier.answered(arrived, served.map_err(failed(&tier))??))
        }
    }
}
