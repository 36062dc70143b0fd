//! Which of a link's queue pairs work goes through.
#![forbid(unsafe_code)]

/// Work of one lane is done in order, work of different ones in any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// For messages, and operations that are to be done in their order.
    Messages = 0,
    /// For operations that take so long that no message is to wait for them.
    Bulk = 1,
}

impl Lane {
    pub(super) const ALL: [Self; 2] = [Self::Messages, Self::Bulk];

    /// The number by which the device knows a piece of work of this lane.
    pub(super) fn work_id(self, number: u64) -> u64 {
        number << 1 | self as u64
    }

    /// The lane and number of a piece of work.
    pub(super) fn of_work(id: u64) -> (Self, u64) {
        (if id & 1 == 0 { Self::Messages } else { Self::Bulk }, id >> 1)
    }
}
