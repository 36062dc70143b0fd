//! What is on its way over one queue pair.
#![forbid(unsafe_code)]

use super::chain::{Chain, Flight};
use super::lane::Lane;
use super::one_sided::Operation;
use dmrpc_rdma_sys::raw::*;
use std::collections::VecDeque;

#[derive(Default)]
pub(super) struct Traffic {
    chain: Chain,
    /// What is posted and has not completed, oldest first, and the number of the first.
    flights: VecDeque<Flight>,
    first_flight: u64,
    /// Operations that are not wholly posted, in order.
    operations: VecDeque<Operation>,
}

impl Traffic {
    /// How many work requests are posted, or will be with the next doorbell.
    pub(super) fn used(&self) -> usize {
        self.flights.len() + self.chain.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.operations.is_empty()
    }

    /// Whether the device has given everything back.
    pub(super) fn has_landed(&self) -> bool {
        self.flights.is_empty()
    }

    /// Operations that wait to be posted.
    pub(super) fn waiting(&self) -> usize {
        self.operations.len()
    }

    pub(super) fn has_writes(&self) -> bool {
        self.operations.iter().any(Operation::is_write)
    }

    pub(super) fn add_operation(&mut self, operation: Operation) {
        self.operations.push_back(operation);
    }

    /// Gives up what waits to be posted.
    pub(super) fn take_operations(&mut self) -> VecDeque<Operation> {
        std::mem::take(&mut self.operations)
    }

    pub(super) fn add_slot(&mut self, work: ibv_send_wr, piece: ibv_sge, slot: u32) {
        self.chain.add(work, piece, Flight::Slot(slot));
    }

    /// Adds work of operations to the chain, `room` requests at most. How many operations ended with that for whose end somebody
    /// waits.
    pub(super) fn chain_operations(&mut self, mut room: usize, max_message_bytes: u32) -> usize {
        let mut awaited = 0;
        while room > 0
            && let Some(operation) = self.operations.front_mut()
        {
            room -= 1;
            let (work, piece, is_last) = operation.next_work(max_message_bytes);
            let mut flight = Flight::Nothing;
            if is_last {
                let operation = self.operations.pop_front().expect("looked at");
                awaited += usize::from(operation.is_awaited());
                flight = Flight::Operation(operation);
            }
            self.chain.add(work, piece, flight);
        }
        awaited
    }

    /// The chain, ready to be posted, if there is one: see [`Chain::link_up`].
    pub(super) fn link_up(&mut self, lane: Lane) -> Option<*mut ibv_send_wr> {
        self.chain.link_up(lane, self.first_flight + self.flights.len() as u64)
    }

    /// The chain is posted.
    pub(super) fn posted(&mut self) {
        self.chain.let_go(&mut self.flights);
    }

    /// The next of what is done when the work of this number is, and whether it is that one. Work is done in order: what was posted
    /// before and did not ask to be told of is done as well.
    pub(super) fn land(&mut self, number: u64) -> Option<(Flight, bool)> {
        if self.first_flight > number {
            return None;
        }
        let flight = self.flights.pop_front()?;
        self.first_flight += 1;
        Some((flight, self.first_flight > number))
    }
}
