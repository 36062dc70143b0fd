//! Whether who waits and what runs had better be on one processor.

use super::Home;
use crate::runtime::client::Client;
use crate::runtime::nearness::current_cpu;
use dmrpc_hub::record::Record;
use std::sync::Arc;

/// So often in a row one thing runs alone before its worker is told to be near who waits for it.
const TURNS_TAKEN: u32 = 4;

impl Home {
    /// Somebody is about to sleep until something is there. If what runs is one thing for one worker, again and again, both had
    /// better be on one processor.
    pub(crate) fn near(&mut self, client: &Arc<Client>) -> Option<u32> {
        let alone = self.hub.only_runner().and_then(|runner| self.by_client.get(&runner).copied());
        let Some(index) = alone else {
            self.scatter(client);
            return None;
        };
        self.turns_taken += 1;
        if self.turns_taken < TURNS_TAKEN {
            return None;
        }
        if !self.habit.is_together() {
            self.part(client);
            return None;
        }
        let cpu = current_cpu();
        let peer = self.peers[index].as_mut()?;
        if peer.near != Some(cpu) {
            peer.near = Some(cpu);
            let to = peer.client?;
            if self.near.is_some_and(|other| other != index) {
                self.scatter(client);
            }
            self.near = Some(index);
            self.send_to(client, to, |peer, _| peer.send(&Record::Near { cpu: Some(cpu) }));
        }
        Some(cpu)
    }

    /// Things run side by side, or nobody waits: each where there is room.
    pub(crate) fn scatter(&mut self, client: &Arc<Client>) {
        self.turns_taken = 0;
        self.part(client);
    }

    /// How long somebody slept, in microseconds, and whether where we said.
    pub(crate) fn took(&mut self, together: bool, micros: f32) {
        if self.turns_taken >= TURNS_TAKEN {
            self.habit.took(together, micros);
        }
    }

    pub(super) fn part(&mut self, client: &Arc<Client>) {
        let Some(index) = self.near.take() else { return };
        let Some(Some(peer)) = self.peers.get_mut(index) else { return };
        peer.near = None;
        if let Some(to) = peer.client {
            self.send_to(client, to, |peer, _| peer.send(&Record::Near { cpu: None }));
        }
    }
}
