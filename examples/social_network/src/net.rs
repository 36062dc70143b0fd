//! How a service reaches others: as actors, by value or by reference, or over gRPC.

use crate::call::{Answer, Call, Failure, Role};
#[cfg(feature = "compare")]
use crate::grpc;
use crate::host::Host;
use dmrpc_actors::ActorRef;
use std::collections::HashMap;

/// The services that one of them calls.
#[derive(Clone)]
pub(crate) enum Net {
    Actors(HashMap<Role, ActorRef<Host>>),
    #[cfg(feature = "compare")]
    Grpc(HashMap<Role, dmrpc_turns::grpc::Client>),
}

impl Net {
    pub(crate) async fn call(&self, role: Role, call: Call) -> Result<Answer, Failure> {
        let unknown = || Failure::Unreachable { role, why: "it was not told of".into() };
        match self {
            Self::Actors(actors) => {
                let answer = actors.get(&role).ok_or_else(unknown)?.call(call).await;
                answer.map_err(|error| Failure::Unreachable { role, why: error.to_string() })?
            }
            #[cfg(feature = "compare")]
            Self::Grpc(clients) => grpc::call(clients.get(&role).ok_or_else(unknown)?, role, call).await,
        }
    }
}
