//! The links of a system, and where it listens.
//!
//! 1. There is one link to an address at a time, however many ask for it at once.
//! 2. A peer that misbehaves or dies costs its own link and nothing else.

use super::peer::{Limits, Peer};
use super::{reader, writer};
use crate::system::Inner;
use crate::{ActorError, System};
use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::address::Address;
use dmrpc_fabric::asynchronous::{AsyncListener, AsyncReceiver, AsyncSender};
use dmrpc_fabric::link::{self, Link, LinkError};
use dmrpc_fabric::listen::{Listener, connect};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

/// The most links that a system accepts; further ones are closed at once.
const MAX_ACCEPTED: usize = 4096;

/// How long a listener rests after it could not accept, for example for want of descriptors.
const REST: Duration = Duration::from_millis(50);

/// The link to an address, while there is one. The lock is held while it is being made.
type Outgoing = Arc<tokio::sync::Mutex<Option<Arc<Peer>>>>;

pub(crate) struct Links {
    limits: Limits,
    /// What addresses that were given here said by their options, for all links of their kind.
    learned: Mutex<LinkOptions>,
    addresses: Mutex<Vec<Arc<str>>>,
    /// What refs carry, if it is not the first address.
    advertise: Option<Arc<str>>,
    listeners: Mutex<Vec<AbortHandle>>,
    outgoing: Mutex<HashMap<Arc<str>, Outgoing>>,
    peers: Mutex<Vec<Arc<Peer>>>,
}

impl Links {
    pub(crate) fn new(limits: Limits, advertise: Option<Arc<str>>) -> Self {
        Self {
            learned: Mutex::new(LinkOptions::default().max_body_bytes(limits.max_message_bytes)),
            limits,
            advertise,
            addresses: Mutex::default(),
            listeners: Mutex::default(),
            outgoing: Mutex::default(),
            peers: Mutex::default(),
        }
    }

    /// Where the system listens.
    pub(crate) fn addresses(&self) -> Vec<Arc<str>> {
        self.addresses.lock().clone()
    }

    /// The address that refs to this system's actors carry, if others can reach it at all.
    pub(crate) fn advertised(&self) -> Option<Arc<str>> {
        self.advertise.clone().or_else(|| self.addresses.lock().first().cloned())
    }

    pub(crate) fn is_own(&self, address: &str) -> bool {
        self.advertise.iter().chain(self.addresses.lock().iter()).any(|own| **own == *address)
    }

    fn options(&self) -> LinkOptions {
        self.learned.lock().clone()
    }

    /// An address that was given here, without its options: those are kept for all links of its kind, and don't travel with refs.
    pub(crate) fn learn(&self, address: &str) -> Arc<str> {
        match address.parse::<Address>() {
            Ok(parsed) => {
                self.learned.lock().adopt(&parsed);
                parsed.without_options().to_string().into()
            }
            // Whoever makes a link to it says what is wrong.
            Err(_) => address.into(),
        }
    }

    pub(crate) fn listen(&self, system: &System, address: &str) -> Result<(), ActorError> {
        let failed = |error: &dyn std::fmt::Display| ActorError::Address {
            address: address.into(),
            why: error.to_string().into(),
        };
        let parsed: Address = address.parse().map_err(|error: LinkError| failed(&error))?;
        self.learned.lock().adopt(&parsed);
        let listener = Listener::bind(&parsed, &self.options()).map_err(|error| failed(&error))?;
        let bound: Arc<str> = listener.address().to_string().into();
        let listener = {
            let _entered = system.runtime().enter();
            AsyncListener::new(listener).map_err(|error| failed(&error))?
        };
        let task = system.runtime().spawn(accept(listener, Arc::clone(&bound), Arc::downgrade(&system.0)));
        self.addresses.lock().push(bound);
        self.listeners.lock().push(task.abort_handle());
        Ok(())
    }

    pub(crate) fn stop_listening(&self) {
        for listener in self.listeners.lock().drain(..) {
            listener.abort();
        }
    }

    /// The link to `address`, made now if there is none.
    pub(crate) async fn link_to(
        &self,
        system: &System,
        address: &Arc<str>,
        deadline: Instant,
    ) -> Result<Arc<Peer>, ActorError> {
        let outgoing = Arc::clone(self.outgoing.lock().entry(Arc::clone(address)).or_default());
        let mut outgoing = outgoing.lock().await;
        if let Some(peer) = outgoing.as_ref().filter(|peer| peer.is_usable()) {
            return Ok(Arc::clone(peer));
        }
        let parsed: Address = address.parse().map_err(|error: LinkError| ActorError::Address {
            address: Arc::clone(address),
            why: error.to_string().into(),
        })?;
        let unreachable = |why: String| ActorError::Unreachable { address: Arc::clone(address), why: why.into() };
        let options = self.options();
        let until = std::time::Instant::now() + deadline.saturating_duration_since(Instant::now());
        let link = system.runtime().spawn_blocking(move || connect(&parsed, &options, until));
        let link = link.await.map_err(|error| unreachable(error.to_string()))?;
        let link = link.map_err(|error| match error {
            LinkError::Deadline(_) => ActorError::Deadline,
            error => unreachable(error.to_string()),
        })?;
        let peer = self.open(system, link, Arc::clone(address)).map_err(|error| unreachable(error.to_string()))?;
        *outgoing = Some(Arc::clone(&peer));
        Ok(peer)
    }

    /// Begins to talk over a link.
    fn open(&self, system: &System, link: Link, address: Arc<str>) -> Result<Arc<Peer>, LinkError> {
        let on_this_host = !matches!(link.peer, link::Peer::Remote(_));
        let (sender, receiver) = {
            let _entered = system.runtime().enter();
            (AsyncSender::new(link.sender)?, AsyncReceiver::new(link.receiver)?)
        };
        let store = system.store();
        let back = Arc::downgrade(&system.0);
        let peer = Peer::new(address, on_this_host, self.limits.clone(), back, store.as_ref(), sender);
        let sent = system.hello().encode(|frame| peer.send_bare(frame));
        debug_assert!(sent.is_ok(), "a new link has not ended");
        {
            let mut peers = self.peers.lock();
            peers.retain(|peer| peer.end().is_none());
            peers.push(Arc::clone(&peer));
        }
        system.runtime().spawn(writer::run(Arc::clone(&peer)));
        system.runtime().spawn(reader::run(receiver, Arc::clone(&peer), Arc::downgrade(&system.0)));
        Ok(peer)
    }

    fn accepted(&self) -> usize {
        let mut peers = self.peers.lock();
        peers.retain(|peer| peer.end().is_none());
        peers.len()
    }

    /// Says goodbye and closes every link, once what is queued is out or patience ends.
    pub(crate) async fn close(&self, patience: Duration) {
        let peers = std::mem::take(&mut *self.peers.lock());
        for peer in &peers {
            peer.say_bye();
        }
        let _ = timeout(patience, async {
            for peer in &peers {
                peer.flushed().await;
            }
        })
        .await;
        for peer in &peers {
            peer.close(&closed(peer.address()));
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.stop_listening();
        for peer in self.peers.lock().drain(..) {
            peer.close(&closed(peer.address()));
        }
    }
}

fn closed(address: &Arc<str>) -> ActorError {
    ActorError::Unreachable { address: Arc::clone(address), why: "the link was closed".into() }
}

async fn accept(mut listener: AsyncListener, address: Arc<str>, system: Weak<Inner>) {
    loop {
        let link = match listener.accept().await {
            Ok(link) => link,
            Err(error) => {
                tracing::warn!(%address, %error, "a link that was not accepted");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let Some(system) = system.upgrade().map(System) else { return };
        let from: Arc<str> = match &link.peer {
            link::Peer::Local { pid, .. } => format!("process {pid} by {address}").into(),
            link::Peer::Remote(from) => format!("tcp://{from}").into(),
            link::Peer::InProcess => format!("this process by {address}").into(),
        };
        let links = &system.0.links;
        if links.accepted() >= MAX_ACCEPTED {
            tracing::warn!(%address, %from, "as many links as may be: this one is closed");
        } else if let Err(error) = links.open(&system, link, Arc::clone(&from)) {
            tracing::warn!(%address, %from, %error, "a link that did not begin");
        }
    }
}
