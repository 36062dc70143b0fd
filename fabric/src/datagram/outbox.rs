//! What a session sends: messages, cut into fragments, kept until they are acknowledged.
//!
//! A message is a stream of bytes: prefix, head, body. Fragment i carries the bytes from i × payload on, in a packet of its own
//! whose number it keeps when it is sent again. Nothing is copied but head and prefix: a fragment sent again is cut anew
//! out of the message's own memory.
//!
//! 1. Packets from `oldest` to `next` are under way or acknowledged out of order; those before are acknowledged, those after were
//!    never sent.
//! 2. A body is let go when the last fragment of its message is acknowledged, and not before.
//! 3. `under_way` counts the packets in state [`State::UnderWay`], `lost` lists those in state [`State::Lost`].

use super::packet::{END_OF_MESSAGES, MessagePrefix, PREFIX_BYTES};
use super::sequence::Sequence;
use crate::link::Body;
use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::VecDeque;
use zerocopy::IntoBytes;

/// A packet that so many packets sent after it have overtaken is lost.
const REORDERING_PACKETS: u64 = 3;
/// Vectors of messages that are gone, kept for the next ones' prefix and head, and how long they may be.
const MAX_SPARE_FRONTS: usize = 64;
const MAX_SPARE_FRONT_BYTES: usize = 1024;

struct Message {
    first: Sequence,
    fragments: u32,
    /// Prefix and head.
    front: Vec<u8>,
    body: Body,
    stream_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    UnderWay,
    Acknowledged,
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    sent_at: u64,
    /// How many packets the session had sent before this one, sent again or not.
    order: u64,
    state: State,
    again: bool,
}

/// Part of a fragment.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// Bytes to be copied.
    Copied(&'a [u8]),
    /// Bytes `start .. end` of memory that may be sent from where it is: a clone keeps it.
    Lent(&'a Bytes, usize, usize),
}

impl<'a> Piece<'a> {
    /// The bytes.
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Piece::Copied(bytes) => bytes,
            Piece::Lent(bytes, start, end) => &bytes[*start..*end],
        }
    }
}

/// The pieces of one fragment.
pub type Pieces<'a> = SmallVec<[Piece<'a>; 3]>;

/// What an acknowledgement brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// Packets acknowledged for the first time.
    pub(crate) packets: u32,
    /// Since the newest of them was sent, if it was sent only once.
    pub(crate) round_trip: Option<u64>,
    /// Packets that are now known to be lost.
    pub(crate) lost: u32,
}

pub(crate) struct Outbox {
    payload_bytes: usize,
    messages: VecDeque<Message>,
    /// Of messages that are gone.
    spare_fronts: Vec<Vec<u8>>,
    /// The message of the packet `next`.
    cursor: usize,
    oldest: Sequence,
    flights: VecDeque<Flight>,
    next: Sequence,
    end: Sequence,
    under_way: u32,
    lost: VecDeque<Sequence>,
    sent_packets: u64,
    newest_acknowledged: u64,
    queued_bytes: u64,
    max_queued_bytes: u64,
    /// Size of the message that there was no room for last, until one is taken.
    refused_bytes: Option<u64>,
}

impl Outbox {
    pub(crate) fn new(payload_bytes: usize, max_queued_bytes: u64) -> Self {
        assert!(payload_bytes > PREFIX_BYTES, "checked when the session was agreed on");
        Self {
            payload_bytes,
            messages: VecDeque::new(),
            spare_fronts: Vec::new(),
            cursor: 0,
            oldest: Sequence::default(),
            flights: VecDeque::new(),
            next: Sequence::default(),
            end: Sequence::default(),
            under_way: 0,
            lost: VecDeque::new(),
            sent_packets: 0,
            newest_acknowledged: 0,
            queued_bytes: 0,
            max_queued_bytes,
            refused_bytes: None,
        }
    }

    /// Takes a message in; gives the body back if too much waits already. A message is taken whenever none waits.
    pub(crate) fn push(&mut self, head: &[u8], body: Body) -> Result<(), Body> {
        let body_bytes: u64 = body.iter().map(|piece| piece.len() as u64).sum();
        let stream_bytes = (PREFIX_BYTES + head.len()) as u64 + body_bytes;
        let fits = stream_bytes <= self.payload_bytes as u64;
        let fragments = if fits { 1 } else { stream_bytes.div_ceil(self.payload_bytes as u64) };
        let ahead = self.end.distance_from(self.oldest) as u64;
        // Packet numbers of a session lie within 2^31 of each other.
        let numbers_suffice = ahead + fragments < 1 << 30;
        if !(self.messages.is_empty() || self.queued_bytes + stream_bytes <= self.max_queued_bytes && numbers_suffice) {
            self.refused_bytes = Some(stream_bytes);
            return Err(body);
        }
        self.refused_bytes = None;
        let mut front = self.spare_fronts.pop().unwrap_or_default();
        front.reserve(PREFIX_BYTES + head.len());
        let prefix = MessagePrefix { head: (head.len() as u32).into(), body: body_bytes.into() };
        front.extend_from_slice(prefix.as_bytes());
        front.extend_from_slice(head);
        let fragments = u32::try_from(fragments).expect("the session limits bodies to what packet numbers reach");
        self.append(Message { first: self.end, fragments, front, body, stream_bytes });
        Ok(())
    }

    /// Says after all messages that there are no more.
    pub(crate) fn push_end(&mut self) {
        let prefix = MessagePrefix { head: END_OF_MESSAGES.into(), body: 0.into() };
        let front = prefix.as_bytes().to_vec();
        let stream_bytes = PREFIX_BYTES as u64;
        self.append(Message { first: self.end, fragments: 1, front, body: Body::new(), stream_bytes });
    }

    #[inline]
    fn append(&mut self, message: Message) {
        self.end = self.end.after(message.fragments);
        self.queued_bytes += message.stream_bytes;
        self.messages.push_back(message);
    }

    /// Whether what was refused last would be taken now; without that, whether less than half of what may wait does.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        match self.refused_bytes {
            Some(bytes) => self.messages.is_empty() || self.queued_bytes + bytes <= self.max_queued_bytes,
            None => self.queued_bytes <= self.max_queued_bytes / 2,
        }
    }

    /// Whether all has been sent and acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Packets that were sent and are neither acknowledged nor known to be lost.
    pub(crate) fn under_way(&self) -> u32 {
        self.under_way
    }

    /// Whether something waits to be sent, apart from all limits.
    #[inline]
    pub(crate) fn wants_to_send(&self) -> bool {
        !self.lost.is_empty() || self.next.is_before(self.end)
    }

    /// The packet to be sent next if the peer has room up to `limit` and `window` packets may be under way.
    #[inline]
    pub(crate) fn next_packet(&self, limit: Sequence, window: u32) -> Option<Sequence> {
        if self.under_way >= window {
            return None;
        }
        if let Some(&lost) = self.lost.front() {
            return Some(lost);
        }
        (self.next.is_before(self.end) && self.next.is_before(limit)).then_some(self.next)
    }

    /// Cuts the fragment of packet `sequence`, which [`sent`](Outbox::sent) said to be of the message at `index`: which of its
    /// message it is, its pieces and their length.
    #[inline]
    pub(crate) fn cut(&self, sequence: Sequence, index: usize) -> (u32, Pieces<'_>, usize) {
        let message = &self.messages[index];
        if message.fragments == 1 && message.body.is_empty() {
            let mut pieces = Pieces::new();
            pieces.push(Piece::Copied(&message.front));
            return (0, pieces, message.front.len());
        }
        let fragment = sequence.distance_from(message.first) as u32;
        let mut start = u64::from(fragment) * self.payload_bytes as u64;
        let end = (start + self.payload_bytes as u64).min(message.stream_bytes);
        let len = (end - start) as usize;
        let mut pieces = Pieces::new();
        let front = message.front.len() as u64;
        if start < front {
            pieces.push(Piece::Copied(&message.front[start as usize..end.min(front) as usize]));
            start = front;
        }
        let mut at = front;
        for part in &message.body {
            if start >= end {
                break;
            }
            let part_end = at + part.len() as u64;
            if start < part_end {
                pieces.push(Piece::Lent(part, (start - at) as usize, (end.min(part_end) - at) as usize));
                start = end.min(part_end);
            }
            at = part_end;
        }
        (fragment, pieces, len)
    }

    /// Packet `sequence`, which [`next_packet`](Outbox::next_packet) named, is on its way. Where its message is.
    #[inline]
    pub(crate) fn sent(&mut self, sequence: Sequence, now: u64) -> usize {
        let order = self.sent_packets;
        self.sent_packets += 1;
        self.under_way += 1;
        if sequence == self.next {
            self.flights.push_back(Flight { sent_at: now, order, state: State::UnderWay, again: false });
            self.next = sequence.after(1);
            let index = self.cursor;
            let message = &self.messages[index];
            if self.next == message.first.after(message.fragments) {
                self.cursor += 1;
            }
            index
        } else {
            debug_assert_eq!(self.lost.front(), Some(&sequence));
            self.lost.pop_front();
            let place = sequence.place_in(self.oldest, self.flights.len()).expect("a lost packet was sent");
            self.flights[place] = Flight { sent_at: now, order, state: State::UnderWay, again: true };
            // The message whose packets begin last at or before this one.
            self.messages.partition_point(|message| !sequence.is_before(message.first)) - 1
        }
    }

    /// The peer has all packets before `ack`, and of those after it the ones whose bit is set in `sacks`. `None` if it claims
    /// packets that were never sent.
    #[inline]
    pub(crate) fn acknowledge(
        &mut self,
        now: u64,
        ack: Sequence,
        sacks: impl Iterator<Item = u64>,
    ) -> Option<Acknowledged> {
        if self.next.is_before(ack) {
            return None;
        }
        // Most say nothing new, or acknowledge the one packet that was under way.
        if ack == self.oldest && self.flights.is_empty() {
            return Some(Acknowledged::default());
        }
        let mut result = Acknowledged::default();
        let mut newest: Option<Flight> = None;
        let mut take = |flight: &mut Flight, under_way: &mut u32, lost: &mut VecDeque<Sequence>, sequence| {
            match flight.state {
                State::Acknowledged => return,
                State::UnderWay => *under_way -= 1,
                State::Lost => lost.retain(|&other| other != sequence),
            }
            flight.state = State::Acknowledged;
            result.packets += 1;
            if newest.is_none_or(|newest| newest.order < flight.order) {
                newest = Some(*flight);
            }
        };
        while self.oldest.is_before(ack) {
            let mut flight = self.flights.pop_front().expect("all packets before `next` are there");
            take(&mut flight, &mut self.under_way, &mut self.lost, self.oldest);
            self.oldest = self.oldest.after(1);
        }
        // An acknowledgement that was overtaken by a newer one says nothing new out of order.
        if ack == self.oldest {
            for (word, mut bits) in sacks.enumerate() {
                while bits != 0 {
                    let place = word * 64 + bits.trailing_zeros() as usize + 1;
                    bits &= bits - 1;
                    let flight = self.flights.get_mut(place)?;
                    take(flight, &mut self.under_way, &mut self.lost, ack.after(place as u32));
                }
            }
        }
        if let Some(newest) = newest {
            self.newest_acknowledged = self.newest_acknowledged.max(newest.order);
            result.round_trip = (!newest.again).then(|| now.saturating_sub(newest.sent_at));
        }
        self.let_go();
        if result.packets > 0 && !self.flights.is_empty() {
            result.lost = self.find_lost();
        }
        Some(result)
    }

    /// Drops the messages that are acknowledged whole.
    #[inline]
    fn let_go(&mut self) {
        while let Some(message) = self.messages.front() {
            if self.oldest.is_before(message.first.after(message.fragments)) {
                break;
            }
            self.queued_bytes -= message.stream_bytes;
            if message.front.capacity() <= MAX_SPARE_FRONT_BYTES && self.spare_fronts.len() < MAX_SPARE_FRONTS {
                let mut front =
                    self.messages.front_mut().map(|message| std::mem::take(&mut message.front)).unwrap_or_default();
                front.clear();
                self.spare_fronts.push(front);
            }
            // A body may be what keeps memory of others': it goes last.
            drop(self.messages.pop_front());
            self.cursor -= 1;
        }
    }

    /// Declares lost what was overtaken by too many packets sent after it.
    #[inline]
    fn find_lost(&mut self) -> u32 {
        let before = self.lost.len();
        // Packets are mostly sent in order: one under way that was not overtaken ends the search, unless it was sent again.
        for (place, flight) in self.flights.iter_mut().enumerate() {
            if flight.state != State::UnderWay {
                continue;
            }
            if flight.order + REORDERING_PACKETS <= self.newest_acknowledged {
                flight.state = State::Lost;
                self.under_way -= 1;
                self.lost.push_back(self.oldest.after(place as u32));
            } else if !flight.again {
                break;
            }
        }
        (self.lost.len() - before) as u32
    }

    /// Nothing came back: the oldest packet under way is to be sent again, or with `all` every one.
    pub(crate) fn suspect(&mut self, all: bool) {
        for (place, flight) in self.flights.iter_mut().enumerate() {
            if flight.state == State::UnderWay {
                flight.state = State::Lost;
                self.under_way -= 1;
                self.lost.push_back(self.oldest.after(place as u32));
                if !all {
                    break;
                }
            }
        }
        self.lost.make_contiguous().sort_by_key(|sequence| sequence.distance_from(self.oldest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;

    fn outbox() -> Outbox {
        Outbox::new(100, 10_000)
    }

    fn send_all(outbox: &mut Outbox, now: u64) -> Vec<(u32, Vec<u8>)> {
        let mut sent = Vec::new();
        while let Some(sequence) = outbox.next_packet(Sequence(1000), 1000) {
            let index = outbox.sent(sequence, now);
            let (fragment, pieces, len) = outbox.cut(sequence, index);
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes()).copied().collect();
            assert_eq!(bytes.len(), len);
            drop(pieces);
            sent.push((fragment, bytes));
        }
        sent
    }

    #[test]
    fn fragments_are_the_message_in_order() {
        let mut outbox = outbox();
        let body: Vec<u8> = (0..=255).collect();
        outbox
            .push(b"head", smallvec![Bytes::from(body[..7].to_vec()), Bytes::new(), Bytes::from(body[7..].to_vec())])
            .expect("room");
        outbox.push(b"x", Body::new()).expect("room");
        let sent = send_all(&mut outbox, 0);
        assert_eq!(sent.iter().map(|(fragment, _)| *fragment).collect::<Vec<_>>(), [0, 1, 2, 0]);
        let stream: Vec<u8> = sent[..3].iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        assert_eq!((&stream[12..16], &stream[16..]), (&b"head"[..], &body[..]));
        assert_eq!(sent[3].1, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'x']);
    }

    #[test]
    fn invariant_2_a_body_is_let_go_with_its_last_fragment() {
        struct Owner {
            _alive: std::sync::Arc<()>,
        }
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &[7; 250]
            }
        }
        let alive = std::sync::Arc::new(());
        let mut outbox = outbox();
        outbox.push(b"", smallvec![Bytes::from_owner(Owner { _alive: alive.clone() })]).expect("room");
        assert_eq!(send_all(&mut outbox, 0).len(), 3);
        // The second and third are there, the first is not.
        outbox.acknowledge(5, Sequence(0), [0b11].into_iter()).expect("honest");
        assert_eq!((std::sync::Arc::strong_count(&alive), outbox.under_way()), (2, 1));
        outbox.acknowledge(6, Sequence(3), [].into_iter()).expect("honest");
        assert_eq!((std::sync::Arc::strong_count(&alive), outbox.under_way()), (1, 0));
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_was_overtaken_is_sent_again_once() {
        let mut outbox = outbox();
        for _ in 0..6 {
            outbox.push(b"", Body::new()).expect("room");
        }
        send_all(&mut outbox, 10);
        let result = outbox.acknowledge(30, Sequence(1), [0b11].into_iter()).expect("honest");
        assert_eq!(result, Acknowledged { packets: 3, round_trip: Some(20), lost: 0 });
        let result = outbox.acknowledge(31, Sequence(1), [0b111].into_iter()).expect("honest");
        assert_eq!(result, Acknowledged { packets: 1, round_trip: Some(21), lost: 1 });
        assert_eq!(outbox.next_packet(Sequence(1000), 100), Some(Sequence(1)));
        assert_eq!(send_all(&mut outbox, 40).len(), 1);
        let result = outbox.acknowledge(45, Sequence(5), [].into_iter()).expect("honest");
        assert_eq!(result, Acknowledged { packets: 1, round_trip: None, lost: 0 });
    }

    #[test]
    fn limits_hold() {
        let mut outbox = Outbox::new(100, 50);
        outbox.push(b"", Body::new()).expect("there is room");
        assert!(outbox.has_room());
        assert!(outbox.push(b"large", smallvec![Bytes::from_static(&[0; 500])]).is_err());
        assert!(!outbox.has_room(), "not for what was refused");
        let mut outbox = Outbox::new(100, 50);
        outbox.push(b"first", smallvec![Bytes::from_static(&[0; 500])]).expect("taken since none waits");
        assert!(outbox.push(b"second", Body::new()).is_err());
        assert_eq!(outbox.next_packet(Sequence(0), 10), None, "the peer has no room");
        outbox.sent(Sequence(0), 0);
        assert_eq!(outbox.next_packet(Sequence(5), 1), None, "the window is used up");
        assert_eq!(outbox.acknowledge(0, Sequence(2), [].into_iter()), None, "never sent");
        assert_eq!(outbox.acknowledge(0, Sequence(0), [1].into_iter()), None, "never sent");
    }

    #[test]
    fn after_silence_all_is_sent_again_in_order() {
        let mut outbox = outbox();
        for _ in 0..5 {
            outbox.push(b"", Body::new()).expect("room");
        }
        send_all(&mut outbox, 0);
        outbox.suspect(false);
        assert_eq!((outbox.next_packet(Sequence(9), 9), outbox.under_way()), (Some(Sequence(0)), 4));
        outbox.suspect(true);
        assert_eq!(outbox.under_way(), 0);
        assert_eq!(outbox.lost, (0..5).map(Sequence).collect::<Vec<_>>());
    }
}
