//! Which stores this process has, by node: how a borrowed reference finds its own.

use crate::client::Client;
use dmrpc_wire::NodeId;
use parking_lot::RwLock;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

static CLIENTS: RwLock<BTreeMap<NodeId, Vec<Weak<Client>>>> = RwLock::new(BTreeMap::new());

/// Adds a client. Of several to one node those on its host come first, and older ones before younger ones.
pub(crate) fn add(client: &Arc<Client>) {
    let mut clients = CLIENTS.write();
    let same = clients.entry(client.node).or_default();
    same.retain(|other| other.strong_count() > 0);
    let is_local = |other: &Weak<Client>| other.upgrade().is_some_and(|other| other.local);
    let at = if client.local { same.iter().take_while(|other| is_local(other)).count() } else { same.len() };
    same.insert(at, Arc::downgrade(client));
}

/// Clears away clients of a node that are gone.
pub(crate) fn forget(node: NodeId) {
    let mut clients = CLIENTS.write();
    if let Some(same) = clients.get_mut(&node) {
        same.retain(|other| other.strong_count() > 0);
        if same.is_empty() {
            clients.remove(&node);
        }
    }
}

/// The client of a node, if there is one whose session is not over.
pub(crate) fn find(node: NodeId) -> Option<Arc<Client>> {
    let clients = CLIENTS.read();
    let same = clients.get(&node)?;
    let mut alive = same.iter().filter_map(Weak::upgrade);
    let first = alive.next()?;
    if same.len() == 1 || !first.has_ended() {
        return Some(first);
    }
    Some(alive.find(|client| !client.has_ended()).unwrap_or(first))
}

/// All clients of a node.
pub(crate) fn all(node: NodeId) -> SmallVec<[Arc<Client>; 1]> {
    CLIENTS.read().get(&node).into_iter().flatten().filter_map(Weak::upgrade).collect()
}
