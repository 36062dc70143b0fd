//! What a process of the service is told when it is started.

use super::{pick, rules};
use serde::{Deserialize, Serialize};

/// One process of the service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// What it is called.
    pub(crate) name: String,
    /// Where it listens, as a URL; `tcp://127.0.0.1:0` lets the system choose the port.
    pub(crate) listen: String,
    /// How it is talked to.
    pub(crate) wire: Wire,
    /// What it does.
    pub(crate) role: Role,
}

/// How tiers talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Wire {
    /// As actors.
    Actors,
    /// As gRPC services, for comparison: by value only.
    #[cfg(feature = "compare")]
    Grpc,
}

/// What a process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Owns the pages.
    MemoryNode {
        /// The size of the pool in bytes.
        pool_bytes: u64,
        /// The size of a page in bytes.
        page_bytes: u64,
    },
    /// Refuses what should not come in.
    Firewall {
        /// The memory node.
        store: String,
        /// What may come in.
        policy: rules::Policy,
        /// The first balancer.
        next: String,
    },
    /// Chooses one of several.
    Balancer {
        /// The memory node.
        store: String,
        /// How it chooses.
        policy: pick::Policy,
        /// Balancers or dispatchers.
        next: Vec<String>,
        /// What they are.
        next_is: NextIs,
    },
    /// Gives requests to free workers.
    Dispatcher {
        /// The memory node.
        store: String,
        /// The workers.
        workers: Vec<String>,
    },
    /// Does the work.
    Worker {
        /// The memory node.
        store: String,
    },
}

impl Role {
    /// Where the memory node is; empty for the memory node itself.
    pub(crate) fn store(&self) -> &str {
        match self {
            Self::MemoryNode { .. } => "",
            Self::Firewall { store, .. }
            | Self::Balancer { store, .. }
            | Self::Dispatcher { store, .. }
            | Self::Worker { store } => store,
        }
    }
}

/// What a balancer sends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NextIs {
    /// Other balancers.
    Balancers,
    /// Dispatchers. The last balancer is the one that puts watermarks on images.
    Dispatchers,
}
