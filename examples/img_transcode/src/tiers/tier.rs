//! What all tiers have: a name, and counters.

use super::gauge::Counters;
use crate::header::Refusal;
use crate::service::{Answer, Request, Stop, now_ns};
use std::fmt::Display;
use std::sync::Arc;

/// A tier's name and counters.
#[derive(Clone)]
pub(crate) struct Tier {
    pub(crate) name: Arc<str>,
    pub(crate) counters: Arc<Counters>,
}

/// A request that a tier has got and not answered yet.
#[derive(Clone, Copy)]
pub(crate) struct Arrived {
    image_bytes: u64,
    /// When, if that is to be told.
    at_ns: Option<u64>,
}

impl Tier {
    /// Takes note of a request.
    pub(crate) fn arrived(&self, request: &Request) -> Arrived {
        Arrived { image_bytes: request.image.bytes_in_message(), at_ns: request.header.trace.then(now_ns) }
    }

    /// Takes note of its answer.
    pub(crate) fn answered(&self, arrived: Arrived, mut answer: Answer) -> Answer {
        let image_bytes = answer.image.as_ref().map_or(0, |image| image.bytes_in_message());
        self.counters.count(arrived.image_bytes + image_bytes);
        if let Some(there_ns) = arrived.at_ns {
            answer.stops.push(Stop { tier: self.name.to_string(), there_ns, back_ns: now_ns() });
        }
        answer
    }
}

/// The refusal of a tier that can't get on.
pub(crate) fn failed<E: Display>(tier: &Tier) -> impl FnOnce(E) -> Refusal {
    let tier = Arc::clone(&tier.name);
    move |why| Refusal::Failed { tier: tier.to_string(), why: why.to_string() }
}
