//! Which of several servers gets a request. Pure.
//!
//! 1. With [`Policy::ClientHash`] a client always gets the same server.
//! 2. With [`Policy::RoundRobin`] no server gets two more than another.
//! 3. With [`Policy::LeastOutstanding`] none gets a request while another has fewer to answer.

use crate::header::Header;
use serde::{Deserialize, Serialize};

/// How a balancer chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Policy {
    /// By the client's address.
    ClientHash,
    /// One after the other.
    RoundRobin,
    /// Whoever has least to answer.
    LeastOutstanding,
}

/// A policy at work on a number of servers.
#[derive(Debug)]
pub(crate) struct Picker {
    policy: Policy,
    /// Requests that each server has to answer.
    outstanding: Vec<u32>,
    turn: usize,
}

impl Picker {
    /// For that many servers, at least one.
    pub(crate) fn new(policy: Policy, servers: usize) -> Self {
        assert!(servers > 0, "a balancer needs somebody to send to");
        Self { policy, outstanding: vec![0; servers], turn: 0 }
    }

    /// The server for a request, which counts as outstanding until [`done`](Self::done).
    pub(crate) fn pick(&mut self, header: &Header) -> usize {
        let servers = self.outstanding.len();
        let picked = match self.policy {
            Policy::ClientHash => crc32fast::hash(&header.client.octets()) as usize % servers,
            Policy::RoundRobin => self.turn,
            // Starts where it stopped, so that idle servers take turns.
            Policy::LeastOutstanding => (0..servers)
                .map(|step| (self.turn + step) % servers)
                .min_by_key(|&server| self.outstanding[server])
                .expect("there is one"),
        };
        self.turn = (picked + 1) % servers;
        self.outstanding[picked] += 1;
        picked
    }

    /// A server has answered.
    pub(crate) fn done(&mut self, server: usize) {
        self.outstanding[server] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::{Kind, Work};
    use std::net::Ipv4Addr;

    fn from(client: u8) -> Header {
        Header {
            request: 0,
            client: Ipv4Addr::new(10, 0, 0, client),
            kind: Kind::Opaque,
            bytes: 0,
            width: 0,
            height: 0,
            work: Work::Checksum,
            mark: None,
            audit: None,
            trace: false,
        }
    }

    #[test]
    fn invariant_1_a_client_keeps_its_server() {
        let mut picker = Picker::new(Policy::ClientHash, 3);
        let first: Vec<usize> = (0..100).map(|client| picker.pick(&from(client))).collect();
        let second: Vec<usize> = (0..100).map(|client| picker.pick(&from(client))).collect();
        assert_eq!(first, second);
        assert!((0..3).all(|server| first.contains(&server)), "nobody is left out");
    }

    #[test]
    fn invariant_2_turns() {
        let mut picker = Picker::new(Policy::RoundRobin, 3);
        assert_eq!([0; 7].map(|_| picker.pick(&from(1))), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn invariant_3_the_idlest() {
        let mut picker = Picker::new(Policy::LeastOutstanding, 3);
        assert_eq!([0; 4].map(|_| picker.pick(&from(1))), [0, 1, 2, 0]);
        picker.done(1);
        assert_eq!(picker.pick(&from(1)), 1);
        picker.done(2);
        picker.done(0);
        picker.done(0);
        assert_eq!(picker.pick(&from(1)), 2, "2 and 0 are idle, and 2 comes next");
    }
}
