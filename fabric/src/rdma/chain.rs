//! Work requests that go behind one doorbell.

use super::lane::Lane;
use super::one_sided::Operation;
use dmrpc_rdma_sys::raw::*;
use std::collections::VecDeque;
use std::ptr;

/// Of so many work requests one completes at the latest.
const SIGNAL_EVERY: u32 = 16;

/// What a posted work request leaves when it has completed.
pub(super) enum Flight {
    /// A slot to send from.
    Slot(u32),
    /// Nothing: it was copied, or it is not the last of its operation.
    Nothing,
    /// The end of an operation, whose memory it keeps.
    Operation(Operation),
}

impl Flight {
    fn is_awaited(&self) -> bool {
        matches!(self, Self::Operation(operation) if operation.is_awaited())
    }
}

#[derive(Default)]
pub(super) struct Chain {
    works: Vec<ibv_send_wr>,
    pieces: Vec<ibv_sge>,
    /// What each leaves.
    flights: Vec<Flight>,
    /// Work requests posted since one was to complete.
    unsignaled: u32,
}

// SAFETY: the pointers in it are made and used within one call.
unsafe impl Send for Chain {}

impl Chain {
    pub(super) fn len(&self) -> usize {
        self.works.len()
    }

    pub(super) fn add(&mut self, work: ibv_send_wr, piece: ibv_sge, flight: Flight) {
        self.works.push(work);
        self.pieces.push(piece);
        self.flights.push(flight);
    }

    /// Numbers the work requests from `first` on, has those complete that are waited for, and links each to the next. The first of
    /// them, good until the chain is touched again; `None` if there are none.
    pub(super) fn link_up(&mut self, lane: Lane, first: u64) -> Option<*mut ibv_send_wr> {
        let count = self.works.len();
        for index in 0..count {
            let next = self.works.as_mut_ptr().wrapping_add(index + 1);
            let work = &mut self.works[index];
            work.wr_id = lane.work_id(first + index as u64);
            work.sg_list = &mut self.pieces[index];
            work.num_sge = 1;
            work.next = if index + 1 < count { next } else { ptr::null_mut() };
            self.unsignaled += 1;
            if self.flights[index].is_awaited() || index + 1 == count || self.unsignaled >= SIGNAL_EVERY {
                work.send_flags |= IBV_SEND_SIGNALED;
                self.unsignaled = 0;
            }
        }
        (count > 0).then_some(self.works.as_mut_ptr())
    }

    /// The work requests are posted: what they leave is at the end of `flying` now.
    pub(super) fn let_go(&mut self, flying: &mut VecDeque<Flight>) {
        self.works.clear();
        self.pieces.clear();
        flying.extend(self.flights.drain(..));
    }
}
