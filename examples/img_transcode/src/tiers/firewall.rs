//! The first tier: refuses what should not come in, by its header alone.

use super::balancer::Balancer;
use super::rules::Rules;
use super::tier::{Tier, failed};
use crate::header::Refusal;
use crate::service::{Answer, Image, Request};
use dmrpc_actors::{ActorRef, Context, actor};
use std::time::Instant;

/// The firewall.
pub(crate) struct Firewall {
    pub(crate) tier: Tier,
    pub(crate) rules: Rules,
    pub(crate) next: ActorRef<Balancer>,
}

#[actor]
impl Firewall {
    /// Serves a request, if it may come in.
    #[message(detached)]
    pub(crate) fn serve(
        &mut self,
        request: Request,
        context: &mut Context<Self>,
    ) -> impl Future<Output = Result<Answer, Refusal>> {
        let arrived = self.tier.arrived(&request);
        let admitted = self.rules.admit(&request.header, request.image.len(), Instant::now());
        let audit = request.header.audit.map(|sum| (request.image.clone(), sum));
        let (tier, next, deadline) = (self.tier.clone(), self.next.clone(), context.deadline());
        async move {
            admitted?;
            let mut answer = next.serve(request).until(deadline).await.map_err(failed(&tier))??;
            if let Some((held, sum)) = audit {
                answer.held_intact = Some(is_intact(&held, sum).await.map_err(failed(&tier))?);
            }
            Ok(tier.answered(arrived, answer))
        }
    }
}

/// Whether an image that was held on to is still what it was.
async fn is_intact(held: &Image, sum: u32) -> Result<bool, dmrpc_objstore::StoreError> {
    Ok(crc32fast::hash(&held.read().await?) == sum)
}
