//! Which stores this process has, by node: how a borrowed reference finds its own.

use crate::client::Client;
use dmrpc_wire::NodeId;
use parking_lot::RwLock;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

static CLIENTS: RwLock<BTreeMap<NodeId, Vec<Entry>>> = RwLock::new(BTreeMap::new());

struct Entry {
    client: Weak<Client>,
    local: bool,
}

/// Adds a client. Of several to one node those on its host come first, and older ones before younger ones.
pub(crate) fn add(client: &Arc<Client>) {
    let mut clients = CLIENTS.write();
    let same = clients.entry(client.node).or_default();
    same.retain(|other| other.client.strong_count() > 0);
    let at = if client.local { same.iter().take_while(|other| other.local).count() } else { same.len() };
    same.insert(at, Entry { client: Arc::downgrade(client), local: client.local });
}

/// Clears away clients of a node that are gone.
pub(crate) fn forget(node: NodeId) {
    let mut clients = CLIENTS.write();
    if let Some(same) = clients.get_mut(&node) {
        same.retain(|other| other.client.strong_count() > 0);
        if same.is_empty() {
            clients.remove(&node);
        }
    }
}

/// All clients of a node. They are not to be dropped under the lock, which the last drop of one takes.
pub(crate) fn all(node: NodeId) -> SmallVec<[Arc<Client>; 1]> {
    CLIENTS.read().get(&node).into_iter().flatten().filter_map(|entry| entry.client.upgrade()).collect()
}

/// The client of a node, if there is one; rather one whose session is not over.
pub(crate) fn find(node: NodeId) -> Option<Arc<Client>> {
    let clients = all(node);
    clients.iter().find(|client| !client.has_ended()).or(clients.first()).cloned()
}
