//! What a session has lent and the memory node does not know of, in the order in which it was lent.

use crate::object::Object;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// So many entries are never looked through for objects that are gone.
const FEW: usize = 64;

#[derive(Default)]
pub(crate) struct Unannounced {
    lent: VecDeque<Weak<Object>>,
    /// With so many entries, those whose objects are gone are removed: as many come as go, one after the other.
    prune_at: usize,
}

impl Unannounced {
    /// An object was lent for the first time.
    pub(crate) fn add(&mut self, object: &Arc<Object>) {
        if self.lent.len() >= self.prune_at.max(FEW) {
            self.lent.retain(|object| object.strong_count() > 0);
            self.prune_at = 2 * self.lent.len();
        }
        self.lent.push_back(Arc::downgrade(object));
    }

    /// Publishes all of them, the first that was lent first.
    pub(crate) fn announce(&mut self) {
        while let Some(object) = self.lent.pop_front() {
            let Some(object) = object.upgrade() else { continue };
            if let Err(error) = object.publish_in_turn() {
                // The session is over, or so much is waiting to be sent that whoever waits for this will not have it in time.
                tracing::debug!(id = ?object.id(), %error, "an object that was lent can't be published");
            }
        }
    }
}
