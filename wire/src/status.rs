//! How a request ended.

/// How a request ended. The numbers stand on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum Status {
    /// Done.
    Ok = 0,
    /// No such object, segment or grant: never was, or the key is wrong.
    NotFound = 1,
    /// The object was there and is gone: its slot has moved on.
    Stale = 2,
    /// The pool has no room, and none came free in time.
    OutOfMemory = 3,
    /// The session's own share is used up.
    QuotaExceeded = 4,
    /// The node serves as many sessions as it may.
    TooManySessions = 5,
    /// The session was not renewed in time, and is over.
    LeaseExpired = 6,
    /// The request makes no sense; what it asked was not done.
    Malformed = 7,
    /// A range outside the object.
    OutOfRange = 8,
    /// The token is wrong, or the thing is somebody else's.
    Denied = 9,
    /// A protocol version that this node does not speak.
    Unsupported = 10,
    /// Larger than this node takes in one object or message.
    TooLarge = 11,
    /// What it waited for did not come in time.
    DeadlineExceeded = 12,
    /// The session gives back more than it holds.
    NotHeld = 13,
    /// A count is at its limit.
    TooManyReferences = 14,
    /// The node is shutting down.
    ShuttingDown = 15,
    /// A sequence number that is neither the next nor one whose answer is still known.
    OutOfSequence = 16,
}

impl Status {
    /// The status with this number; `None` for numbers of a later version.
    pub fn from_wire(number: u16) -> Option<Self> {
        use Status::*;
        const ALL: [Status; 17] = [
            Ok,
            NotFound,
            Stale,
            OutOfMemory,
            QuotaExceeded,
            TooManySessions,
            LeaseExpired,
            Malformed,
            OutOfRange,
            Denied,
            Unsupported,
            TooLarge,
            DeadlineExceeded,
            NotHeld,
            TooManyReferences,
            ShuttingDown,
            OutOfSequence,
        ];
        ALL.get(usize::from(number)).copied()
    }

    /// The number that stands on the wire.
    pub fn to_wire(self) -> u16 {
        self as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_their_places() {
        for number in 0..=16 {
            assert_eq!(Status::from_wire(number).expect("a known number").to_wire(), number);
        }
        assert_eq!(Status::from_wire(17), None);
    }
}
