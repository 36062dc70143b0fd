//! Bearer grants: references that have left the system and keep their object for a while.

use super::event::Now;
use dmrpc_wire::GrantToken;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Each grant is a reference on the object in `slot`, until its time is over or it is revoked.
#[derive(Default)]
pub(crate) struct Grants {
    by_token: HashMap<GrantToken, Granted>,
    by_end: BTreeMap<Now, BTreeSet<[u8; 16]>>,
}

#[derive(Clone, Copy)]
pub(crate) struct Granted {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    until: Now,
}

impl Grants {
    pub(crate) fn len(&self) -> usize {
        self.by_token.len()
    }

    /// Whether the grant is new.
    pub(crate) fn insert(&mut self, token: GrantToken, slot: u32, generation: u32, until: Now) -> bool {
        if self.by_token.contains_key(&token) {
            return false;
        }
        self.by_token.insert(token, Granted { slot, generation, until });
        self.by_end.entry(until).or_default().insert(token.0);
        true
    }

    pub(crate) fn get(&self, token: &GrantToken) -> Option<Granted> {
        self.by_token.get(token).copied()
    }

    pub(crate) fn remove(&mut self, token: &GrantToken) -> Option<Granted> {
        let granted = self.by_token.remove(token)?;
        if let Some(tokens) = self.by_end.get_mut(&granted.until) {
            tokens.remove(&token.0);
            if tokens.is_empty() {
                self.by_end.remove(&granted.until);
            }
        }
        Some(granted)
    }

    /// Removes one grant whose time is over.
    pub(crate) fn pop_ended(&mut self, now: Now) -> Option<Granted> {
        let (&until, tokens) = self.by_end.first_key_value()?;
        if until > now {
            return None;
        }
        let token = *tokens.first().expect("no empty sets are kept");
        self.remove(&GrantToken(token))
    }

    /// The slots of all grants.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> {
        self.by_token.values().map(|granted| granted.slot)
    }
}
