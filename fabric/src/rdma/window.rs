//! How many slots of bytes each side of a link may send.
#![forbid(unsafe_code)]

use super::slots::WINDOW;

/// Slots that were sent and taken, most of them modulo 2^32.
#[derive(Debug, Default)]
pub(super) struct Window {
    sent_in_all: u64,
    sent: u32,
    peer_taken: u32,
    /// What was taken here, and what the peer was told of that.
    taken: u32,
    told: u32,
}

impl Window {
    /// Whether the peer has a receive for another slot.
    pub(super) fn has_credit(&self) -> bool {
        self.sent.wrapping_sub(self.peer_taken) < WINDOW
    }

    /// Whether the peer may wait for being told what was taken.
    pub(super) fn owes_credit(&self) -> bool {
        self.taken.wrapping_sub(self.told) >= WINDOW / 2
    }

    /// Another slot of bytes is sent.
    pub(super) fn send(&mut self) {
        self.sent = self.sent.wrapping_add(1);
        self.sent_in_all += 1;
    }

    pub(super) fn sent_in_all(&self) -> u64 {
        self.sent_in_all
    }

    /// Another slot of bytes was taken.
    pub(super) fn take(&mut self) {
        self.taken = self.taken.wrapping_add(1);
    }

    /// What the peer is to be told now of what was taken.
    pub(super) fn tell(&mut self) -> u32 {
        self.told = self.taken;
        self.told
    }

    /// The peer says what it has taken. Whether that can be.
    pub(super) fn hear(&mut self, taken: u32) -> bool {
        let can_be = taken.wrapping_sub(self.peer_taken) <= self.sent.wrapping_sub(self.peer_taken);
        if can_be {
            self.peer_taken = taken;
        }
        can_be
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is taken and told when, also where numbers begin again: nobody sends more than there are receives for, and what
        /// was not sent can't have been taken.
        #[test]
        fn nobody_sends_without_a_receive(steps in prop::collection::vec(0..3u8, 1..400), from: u32) {
            let (mut here, mut there) = (Window::default(), Window::default());
            (here.sent, here.peer_taken, there.taken, there.told) = (from, from, from, from);
            let mut unread = 0;
            for step in steps {
                match step {
                    0 if here.has_credit() => { here.send(); unread += 1; }
                    1 if unread > 0 => { there.take(); unread -= 1; }
                    2 if there.owes_credit() => { prop_assert!(here.hear(there.tell())); }
                    _ => {}
                }
                prop_assert!(unread <= WINDOW);
                prop_assert!(!here.hear(here.sent.wrapping_add(1)));
            }
            while here.has_credit() { here.send(); unread += 1; }
            for _ in 0..unread { there.take(); }
            prop_assert!(there.owes_credit() && here.hear(there.tell()) && here.has_credit());
        }
    }
}
