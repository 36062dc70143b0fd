//! The links of a system, and where it listens.

use super::peer::{Limits, Peer};
use crate::{ActorError, System};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub(crate) struct Links {
    limits: Limits,
    addresses: Mutex<Vec<Arc<str>>>,
}

impl Links {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, addresses: Mutex::default() }
    }

    pub(crate) fn addresses(&self) -> Vec<Arc<str>> {
        self.addresses.lock().clone()
    }

    pub(crate) fn is_own(&self, address: &str) -> bool {
        self.addresses.lock().iter().any(|own| **own == *address)
    }

    pub(crate) fn listen(&self, _system: &System, address: &str) -> Result<(), ActorError> {
        let _ = &self.limits;
        Err(ActorError::Address { address: address.into(), why: "not yet".into() })
    }

    pub(crate) fn stop_listening(&self) {}

    pub(crate) async fn link_to(&self, _: &System, address: &Arc<str>, _: Instant) -> Result<Arc<Peer>, ActorError> {
        Err(ActorError::Unreachable { address: Arc::clone(address), why: "not yet".into() })
    }

    pub(crate) async fn close(&self, _: Duration) {}
}
