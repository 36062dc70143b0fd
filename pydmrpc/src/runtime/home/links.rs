//! Links to workers and drivers: who is at the other end, what comes, what goes.

use super::census::Asker;
use super::wish::{Wish, wish};
use super::{FIRST_PEER, Home, OWN};
use crate::runtime::client::Client;
use crate::runtime::payload::Payload;
use crate::runtime::peer::{self, Inward, Outgoing, PeerError};
use crate::runtime::questions;
use dmrpc_hub::record::{Record, Who};
use dmrpc_hub::{ClientId, Event, FunctionId, WorkerId};
use rustc_hash::FxHashMap;
use rustix::process::{PidfdFlags, pidfd_open};
use std::sync::Arc;
use std::time::Instant;

/// Records of one client that are read before others have their turn.
const BATCH: usize = 512;

/// A client at the other end of a link.
pub(super) struct Peer {
    pub(super) outgoing: Outgoing,
    pub(super) inward: Option<Inward>,
    pub(super) client: Option<ClientId>,
    pub(super) worker: Option<WorkerId>,
    pub(super) pid: u32,
    /// Where it was told to sleep.
    pub(super) near: Option<u32>,
    pub(super) dirty: bool,
}

impl Home {
    pub(super) fn accept(&mut self, client: &Arc<Client>) {
        // A peer that could not be accepted is its own affair.
        while let Ok(Some(link)) = self.listener.try_accept() {
            let turns = client.turns_of();
            let (outgoing, inward) = peer::halves(link, move || turns.nudge());
            let index = self.peers.iter().position(Option::is_none).unwrap_or(self.peers.len());
            let key = FIRST_PEER + index as u64;
            let descriptors = outgoing.descriptors().into_iter().chain(inward.descriptors());
            let added = descriptors.into_iter().try_for_each(|descriptor| client.turns().add(descriptor, key));
            if added.is_err() {
                continue;
            }
            let peer = Some(Peer {
                outgoing,
                inward: Some(inward),
                client: None,
                worker: None,
                pid: 0,
                near: None,
                dirty: false,
            });
            if index == self.peers.len() {
                self.peers.push(peer);
            } else {
                self.peers[index] = peer;
            }
            while self.receive(client, index) {}
            self.flush_peer(client, index);
        }
    }

    /// Reads what a client sent and does it. Whether there may be more.
    pub(super) fn receive(&mut self, client: &Arc<Client>, index: usize) -> bool {
        let Some(Some(peer)) = self.peers.get_mut(index) else { return false };
        let Some(mut inward) = peer.inward.take() else { return false };
        let (from, outgoing) = (peer.client, &peer.outgoing);
        let mut wishes = Vec::new();
        let received = inward.receive(BATCH, |record, borrows| {
            if let Record::Loans(numbers) = record {
                outgoing.loans.returned(numbers);
                return Ok(());
            }
            wishes.push(wish(from, record, borrows)?);
            Ok(())
        });
        peer.inward = Some(inward);
        for wish in wishes {
            self.grant_wish(client, index, wish);
        }
        match received {
            Ok(more) => more,
            Err(_) => {
                self.unlink(client, index);
                false
            }
        }
    }

    pub(super) fn grant_wish(&mut self, client: &Arc<Client>, index: usize, wish: Wish) {
        let from = self.peers[index].as_ref().and_then(|peer| peer.client);
        match (wish, from) {
            (Wish::Hello(who, pid), None) => self.welcome(client, index, who, pid),
            (Wish::Event(event), Some(_)) => self.step(client, event),
            (Wish::Function(id, definition), Some(_)) => self.define(id, definition),
            (Wish::Want(results), Some(from)) => {
                for result in results {
                    self.step(client, Event::Want { client: from, result });
                }
            }
            (Wish::Hold(results), Some(from)) => {
                for result in results {
                    self.hub.hold(from, result);
                }
            }
            (Wish::Grant(results), Some(_)) => self.grant(client, &results),
            (Wish::Holdings(number, what), Some(from)) => {
                if let Some(held) = questions::held(&what) {
                    let ended = self.censuses.answered(number, from, held);
                    self.end_censuses(client, ended);
                }
            }
            (Wish::Ask(number, what), Some(from)) if let Some(limit) = questions::census(&what) => {
                self.begin_census(client, Asker::Away(from, number), limit);
            }
            (Wish::Ask(number, what), Some(from)) => {
                let (answer, given) = self.answer(client, from, &what);
                self.send_to(client, from, |peer, _| {
                    peer.send(&Record::Answer { number, what: &answer, given: given.into() })
                });
            }
            // Who has not said hello, or says it again, makes no sense.
            _ => {}
        }
    }

    pub(super) fn welcome(&mut self, client: &Arc<Client>, index: usize, who: Who, pid: u32) {
        let id = ClientId(self.next_client);
        if let Who::Worker(worker, secret) = who {
            let process = self.processes.get_mut(&worker);
            let Some(process) = process.filter(|process| process.secret == secret && process.client.is_none()) else {
                return self.unlink(client, index);
            };
            process.client = Some(id);
            process.pid = pid;
            if process.process.is_none() {
                process.process = i32::try_from(pid)
                    .ok()
                    .and_then(rustix::process::Pid::from_raw)
                    .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            }
        }
        self.next_client += 1;
        self.by_client.insert(id, index);
        let peer = self.peers[index].as_mut().expect("it said hello");
        (peer.client, peer.pid) = (Some(id), pid);
        peer.worker = if let Who::Worker(worker, _) = who { Some(worker) } else { None };
        let (store, about) = (self.store_url.clone(), self.about.clone());
        self.send_to(client, id, |peer, _| peer.send(&Record::Welcome { client: id, store: &store, about: &about }));
        match who {
            Who::Driver => {
                self.joined += 1;
                self.step(client, Event::DriverUp { client: id });
            }
            Who::Worker(worker, _) => {
                self.step(client, Event::WorkerUp { client: id, worker });
            }
        }
    }

    /// A link has ended.
    pub(super) fn unlink(&mut self, client: &Arc<Client>, index: usize) {
        let Some(peer) = self.peers[index].take() else { return };
        for descriptor in peer.outgoing.descriptors() {
            client.turns().remove(descriptor);
        }
        for descriptor in peer.inward.iter().flat_map(Inward::descriptors) {
            client.turns().remove(descriptor);
        }
        peer.outgoing.close();
        let Some(gone) = peer.client else { return };
        self.by_client.remove(&gone);
        let ended = self.censuses.gone(gone);
        self.end_censuses(client, ended);
        match peer.worker {
            None => {
                self.joined -= 1;
                self.step(client, Event::ClientDown { client: gone, why: "its link ended".into() });
            }
            Some(worker) => {
                if let Some(process) = self.processes.get_mut(&worker) {
                    process.unlinked = Some(Instant::now());
                }
                self.bury(client, worker);
            }
        }
    }

    /// Moves on what was sent to clients.
    pub(crate) fn flush(&mut self, client: &Arc<Client>) {
        for index in std::mem::take(&mut self.dirty) {
            self.flush_peer(client, index);
        }
    }

    pub(super) fn flush_peer(&mut self, client: &Arc<Client>, index: usize) {
        let Some(Some(peer)) = self.peers.get_mut(index) else { return };
        peer.dirty = false;
        if let Err(error) = peer.outgoing.flush() {
            self.condemn(client, index, &error);
        }
    }

    pub(super) fn send_to(
        &mut self,
        client: &Arc<Client>,
        to: ClientId,
        send: impl FnOnce(&mut Outgoing, &FxHashMap<FunctionId, Payload>) -> Result<(), PeerError>,
    ) {
        let Some(&index) = self.by_client.get(&to) else { return };
        let Some(peer) = &mut self.peers[index] else { return };
        if let Err(error) = send(&mut peer.outgoing, &self.functions) {
            // Its end is told when its descriptor says so; what was not sent is lost with it.
            self.condemn(client, index, &error);
            return;
        }
        if !peer.dirty {
            peer.dirty = true;
            self.dirty.push(index);
        }
    }

    /// A peer of which nothing more is wanted: if it is a worker it is killed, and the rest follows.
    pub(super) fn condemn(&mut self, _client: &Arc<Client>, index: usize, _error: &PeerError) {
        let worker = self.peers[index].as_ref().and_then(|peer| peer.worker);
        if let Some(process) = worker.and_then(|worker| self.processes.get_mut(&worker)) {
            process.doomed = true;
            process.kill();
        }
    }

    /// A client's process, and whether it is a worker.
    pub(crate) fn process_of(&self, client: ClientId) -> Option<(u32, bool)> {
        if client == OWN {
            return Some((std::process::id(), false));
        }
        let peer = self.peers[*self.by_client.get(&client)?].as_ref()?;
        Some((peer.pid, peer.worker.is_some()))
    }

    /// Each driver and its process: ours, and those that joined.
    pub(crate) fn drivers(&self) -> impl Iterator<Item = (ClientId, u32)> {
        let joined = self.peers.iter().flatten().filter(|peer| peer.worker.is_none());
        std::iter::once((OWN, std::process::id())).chain(joined.filter_map(|peer| Some((peer.client?, peer.pid))))
    }
}
