//! Refs to actors in messages.
//!
//! A ref travels as the address of its actor's system and its name there. Of a system that does not listen it travels as "at
//! the sender's", which is good for as long as the link is.

use super::attach;
use super::route::{Place, Route, fnv1a};
use crate::{Actor, ActorRef, Recipient, System, recipient};
use dmrpc_fabric::address::Address;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

const OUTSIDE: &str = "a ref to an actor can only be serialized within a message between actors";

#[derive(Serialize, Deserialize)]
enum Passed {
    /// At the system with this address.
    At { address: String, name: String },
    /// In the system that sent this.
    Mine { name: String },
    /// In the system that receives this.
    Yours { name: String },
}

/// An address that a peer gave: what links here go through, who this side is and whom it trusts is not for a peer to say.
fn without_options(address: String) -> String {
    match address.parse::<Address>() {
        Ok(parsed) => parsed.without_options().to_string(),
        // Whoever makes a link to it says what is wrong.
        Err(_) => address,
    }
}

impl<A: Actor> Serialize for ActorRef<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;
        let peer = attach::peer().ok_or_else(|| S::Error::custom(OUTSIDE))?;
        let passed = match &self.recipient().0 {
            recipient::Place::Local(sending) => {
                let system = peer.system.upgrade().map(System).ok_or_else(|| S::Error::custom("the system is gone"))?;
                let name = system.0.name_of(sending.mailbox().id).to_string();
                match system.0.links.advertised() {
                    Some(address) => Passed::At { address: address.to_string(), name },
                    None => Passed::Mine { name },
                }
            }
            recipient::Place::Remote(route) => {
                let name = route.name().to_string();
                match route.place() {
                    Place::Address(address) => Passed::At { address: address.to_string(), name },
                    Place::Link(link) if Arc::ptr_eq(link, &peer) => Passed::Yours { name },
                    Place::Link(link) => match link.url.get() {
                        Some(Some(address)) => Passed::At { address: address.to_string(), name },
                        _ => return Err(S::Error::custom("a ref to an actor whose system does not listen")),
                    },
                }
            }
        };
        passed.serialize(serializer)
    }
}

impl<'de, A: Actor> Deserialize<'de> for ActorRef<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let passed = Passed::deserialize(deserializer)?;
        let peer = attach::peer().ok_or_else(|| D::Error::custom(OUTSIDE))?;
        let system = peer.system.upgrade().map(System).ok_or_else(|| D::Error::custom("the system is gone"))?;
        let remote = |system: System, place, name: String| {
            ActorRef::new(Recipient::remote(Route::new(system, place, name.into(), fnv1a(A::TYPE))))
        };
        match passed {
            Passed::At { address, name } if system.0.links.is_own(&address) => {
                system.find(&name).map_err(D::Error::custom)
            }
            Passed::At { address, name } => Ok(remote(system, Place::Address(without_options(address).into()), name)),
            Passed::Mine { name } => Ok(remote(system, Place::Link(peer), name)),
            Passed::Yours { name } => system.find(&name).map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_says_where_and_no_more() {
        for (given, kept) in [
            ("tls://there:1?ca=/tmp/theirs.pem&cert=/etc/ours.pem&key=/etc/ours.key", "tls://there:1"),
            ("rdma://[::1]:7?device=rxe0", "rdma://[::1]:7"),
            ("unix:///run/a?b.sock", "unix:///run/a?b.sock"),
            ("nowhere", "nowhere"),
        ] {
            assert_eq!(without_options(given.to_owned()), kept);
        }
    }
}
