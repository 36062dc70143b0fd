//! What a session receives: packets in any order in, messages in order out.
//!
//! The window is a ring of slots, one a packet. A fragment of the message whose body has its place already is copied there as
//! it comes in, in order or not; every other is kept in the buffer it came in until its turn.
//!
//! 1. Slots from `next` to `next` + window are in the ring; packets outside it are dropped.
//! 2. All packets before `arrived` came in; the one at `arrived` did not.
//! 3. A payload byte is copied once: from the buffer it came in to the place that the receiver chose.
//! 4. Heads are limited, bodies are limited, and a fragment has just the length that its message gives it.

use super::device::Frame;
use super::packet::{END_OF_MESSAGES, HEADER_BYTES, MAX_SACK_WORDS, MessagePrefix, PREFIX_BYTES};
use super::sequence::Sequence;
use crate::link::{LinkError, MAX_HEAD_BYTES, Part, Target};
use std::ops::Range;
use zerocopy::FromBytes;

/// An acknowledgement is held back for so many packets at most.
const ACK_EVERY_PACKETS: u32 = 16;
/// The same in the middle of a body: no answer that could carry it is about to be sent, and a sender with a small window waits.
const ACK_BODY_PACKETS: u32 = 4;

enum Slot<F> {
    Empty,
    /// A fragment in the buffer it came in.
    Held {
        frame: F,
        fragment: u32,
        len: u16,
    },
    /// A fragment that is where it belongs.
    Done,
}

enum Stage {
    /// Between messages.
    Idle,
    /// There are no more messages.
    Ended,
    /// The head is longer than a fragment, and is gathered.
    Head { first: Sequence, head: usize, body: u64 },
    /// The body waits to be placed.
    Unplaced { first: Sequence, front: usize, body: u64 },
    /// The body comes in.
    Filling { first: Sequence, front: usize, body: u64, target: Target },
}

/// What came.
pub enum News {
    /// Nothing.
    Empty,
    /// A message, whose head is in the [`Head`] that was given. If `body_len` is not 0 the body waits to be placed.
    Head {
        /// Length of the body in bytes.
        body_len: u64,
    },
    /// The body of the last head is in its place, whole.
    Body(Target),
}

/// The head of a message that came: in the buffer it came in, if that was one alone.
pub struct Head<F> {
    frame: Option<(F, Range<usize>)>,
    gathered: Vec<u8>,
}

impl<F> Default for Head<F> {
    fn default() -> Self {
        Self { frame: None, gathered: Vec::new() }
    }
}

impl<F: Frame> Head<F> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.frame {
            Some((frame, range)) => &frame.bytes()[range.clone()],
            None => &self.gathered,
        }
    }
}

pub(crate) struct Inbox<F> {
    payload_bytes: usize,
    max_body_bytes: u64,
    slots: Box<[Slot<F>]>,
    next: Sequence,
    arrived: Sequence,
    /// After the last packet that came in.
    end: Sequence,
    stage: Stage,
    /// What came of a prefix and head that are gathered.
    front: Vec<u8>,
    /// The limit that the peer was told last.
    told: Sequence,
    /// Packets that came in since the last acknowledgement.
    owed: u32,
    newest_at: u64,
    ack_now: bool,
}

impl<F: Frame> Inbox<F> {
    /// An inbox of `window` packets, a power of two.
    pub(crate) fn new(payload_bytes: usize, window: u32, max_body_bytes: u64) -> Self {
        assert!(window.is_power_of_two() && window as usize <= 64 * MAX_SACK_WORDS, "a window of {window} packets");
        Self {
            payload_bytes,
            max_body_bytes,
            slots: (0..window).map(|_| Slot::Empty).collect(),
            next: Sequence::default(),
            arrived: Sequence::default(),
            end: Sequence::default(),
            stage: Stage::Idle,
            front: Vec::new(),
            told: Sequence(window),
            owed: 0,
            newest_at: 0,
            ack_now: false,
        }
    }

    #[inline]
    fn slot(&mut self, sequence: Sequence) -> &mut Slot<F> {
        let mask = self.slots.len() - 1;
        &mut self.slots[sequence.0 as usize & mask]
    }

    /// The first packet that there is no room for.
    #[inline]
    pub(crate) fn limit(&self) -> Sequence {
        self.next.after(self.slots.len() as u32)
    }

    /// Takes in a packet; `len` bytes of payload follow the header in `frame`.
    #[inline]
    pub(crate) fn packet(
        &mut self,
        now: u64,
        sequence: Sequence,
        fragment: u32,
        len: usize,
        frame: F,
    ) -> Result<(), LinkError> {
        if sequence.place_in(self.next, self.slots.len()).is_none() || !matches!(self.slot(sequence), Slot::Empty) {
            // It was sent again although it had come: the peer does not know what we have.
            self.ack_now = true;
            return Ok(());
        }
        let in_order = sequence == self.arrived;
        let placed = match &self.stage {
            Stage::Filling { first, front, body, target } => {
                let fragments = fragments(*front, *body, self.payload_bytes);
                match sequence.place_in(*first, fragments as usize) {
                    Some(place) => {
                        let payload = payload(&frame, len);
                        check_fragment(place as u32, fragment, payload, *front, *body, self.payload_bytes)?;
                        copy_fragment(fragment, payload, *front, self.payload_bytes, target);
                        true
                    }
                    None => false,
                }
            }
            _ => false,
        };
        *self.slot(sequence) = if placed { Slot::Done } else { Slot::Held { frame, fragment, len: len as u16 } };
        if !sequence.is_before(self.end) {
            self.end = sequence.after(1);
        }
        while self.arrived.is_before(self.end) && !matches!(self.slot(self.arrived), Slot::Empty) {
            self.arrived = self.arrived.after(1);
        }
        if placed {
            self.pass_filled();
        }
        self.owed += 1;
        self.newest_at = now;
        let every = if placed { ACK_BODY_PACKETS } else { ACK_EVERY_PACKETS };
        self.ack_now |= !in_order || self.owed >= every;
        Ok(())
    }

    /// The peer asked what has arrived.
    pub(crate) fn probed(&mut self) {
        self.ack_now = true;
    }

    /// Whether the peer should hear at once what came in, or how much room there is now.
    #[inline]
    pub(crate) fn must_acknowledge(&self) -> bool {
        // A window half of which was freed since the peer heard of it may be all that holds the peer up.
        self.ack_now || self.limit().distance_from(self.told) >= self.slots.len() as i32 / 2
    }

    /// Whether the peer is yet to hear of something that came in.
    pub(crate) fn owes_acknowledgement(&self) -> bool {
        self.owed > 0
    }

    /// What a datagram to the peer says in passing: arrived, limit, and how long the newest packet has been here.
    #[inline]
    pub(crate) fn acknowledge(&mut self, now: u64) -> (Sequence, Sequence, u32) {
        // With gaps the peer is owed the whole truth, which only an `Ack` can tell.
        if self.arrived == self.end {
            self.ack_now = false;
            self.owed = 0;
        }
        self.told = self.limit();
        let delay = u32::try_from(now.saturating_sub(self.newest_at)).unwrap_or(u32::MAX);
        (self.arrived, self.told, delay)
    }

    /// As [`acknowledge`](Inbox::acknowledge), and which packets after the first gap came in: bit i of the words stands for the
    /// packet `arrived` + 1 + i.
    pub(crate) fn acknowledge_all(&mut self, now: u64, words: &mut Vec<u64>) -> (Sequence, Sequence, u32) {
        words.clear();
        let beyond = self.end.distance_from(self.arrived).max(1) as u32 - 1;
        words.resize(beyond.div_ceil(64) as usize, 0);
        for bit in 0..beyond {
            let sequence = self.arrived.after(bit + 1);
            if !matches!(self.slot(sequence), Slot::Empty) {
                words[bit as usize / 64] |= 1 << (bit % 64);
            }
        }
        self.ack_now = false;
        self.owed = 0;
        self.acknowledge(now)
    }

    /// Whether [`recv`](Inbox::recv) would say more than [`News::Empty`].
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        match &self.stage {
            Stage::Idle | Stage::Head { .. } => self.next != self.arrived,
            Stage::Ended => true,
            Stage::Unplaced { .. } => true,
            Stage::Filling { first, front, body, .. } => {
                self.next == first.after(fragments(*front, *body, self.payload_bytes))
            }
        }
    }

    /// Whether the peer said that there are no more messages.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// Gives the slot at `next` back.
    fn pass(&mut self) {
        *self.slot(self.next) = Slot::Empty;
        self.next = self.next.after(1);
    }

    /// Gives back the slots of fragments that are where they belong, so that a body longer than the window goes on coming while
    /// nobody asks for it.
    fn pass_filled(&mut self) {
        while self.next != self.arrived && matches!(self.slot(self.next), Slot::Done) {
            self.pass();
        }
    }

    /// The next thing that came; its head goes to `head`.
    #[inline]
    pub(crate) fn recv(&mut self, head: &mut Head<F>) -> Result<News, LinkError> {
        match &self.stage {
            Stage::Idle => self.recv_first(head),
            Stage::Ended => Err(LinkError::Closed),
            Stage::Head { .. } => self.recv_head(head),
            Stage::Unplaced { .. } => panic!("a body waits to be placed"),
            Stage::Filling { .. } => self.recv_body(),
        }
    }

    #[inline]
    fn recv_first(&mut self, out: &mut Head<F>) -> Result<News, LinkError> {
        out.frame = None;
        if self.next == self.arrived {
            return Ok(News::Empty);
        }
        let (first, payload_bytes, max_body_bytes) = (self.next, self.payload_bytes, self.max_body_bytes);
        let Slot::Held { frame, fragment, len } = self.slot(first) else {
            unreachable!("only fragments of a message that is being filled are done early")
        };
        let payload = payload(frame, usize::from(*len));
        let Ok((prefix, _)) = MessagePrefix::ref_from_prefix(payload) else {
            return Err(LinkError::Protocol("a first fragment without a prefix"));
        };
        let (head, body) = (prefix.head.get() as usize, prefix.body.get());
        if prefix.head.get() == END_OF_MESSAGES {
            self.pass();
            self.stage = Stage::Ended;
            return Err(LinkError::Closed);
        }
        if head > MAX_HEAD_BYTES || body > max_body_bytes {
            return Err(LinkError::Protocol("a message over the limits"));
        }
        let front = PREFIX_BYTES + head;
        check_fragment(0, *fragment, payload, front, body, payload_bytes)?;
        if front > payload.len() {
            self.front.clear();
            self.stage = Stage::Head { first, head, body };
            return self.recv_head(out);
        }
        if body > 0 {
            out.gathered.clear();
            out.gathered.extend_from_slice(&payload[PREFIX_BYTES..front]);
            self.stage = Stage::Unplaced { first, front, body };
        } else if let Slot::Held { frame, .. } = std::mem::replace(self.slot(first), Slot::Empty) {
            out.frame = Some((frame, HEADER_BYTES + PREFIX_BYTES..HEADER_BYTES + front));
            self.next = first.after(1);
        }
        Ok(News::Head { body_len: body })
    }

    fn recv_head(&mut self, out: &mut Head<F>) -> Result<News, LinkError> {
        let Stage::Head { first, head, body } = self.stage else { unreachable!("the caller looked") };
        let front = PREFIX_BYTES + head;
        while self.next != self.arrived {
            let place = self.next.distance_from(first) as u32;
            let mask = self.slots.len() - 1;
            let Slot::Held { frame, fragment, len } = &self.slots[self.next.0 as usize & mask] else {
                unreachable!("fragments of a head are held")
            };
            let payload = payload(frame, usize::from(*len));
            check_fragment(place, *fragment, payload, front, body, self.payload_bytes)?;
            let missing = front - self.front.len();
            self.front.extend_from_slice(&payload[..payload.len().min(missing)]);
            let whole = self.front.len() == front;
            // The fragment in which the head ends may bring the first bytes of the body, and stays.
            if !(whole && body > 0) {
                self.pass();
            }
            if whole {
                out.frame = None;
                out.gathered.clear();
                out.gathered.extend_from_slice(&self.front[PREFIX_BYTES..]);
                self.stage = if body == 0 { Stage::Idle } else { Stage::Unplaced { first, front, body } };
                return Ok(News::Head { body_len: body });
            }
        }
        Ok(News::Empty)
    }

    fn recv_body(&mut self) -> Result<News, LinkError> {
        let Stage::Filling { first, front, body, .. } = self.stage else { unreachable!("the caller looked") };
        let last = first.after(fragments(front, body, self.payload_bytes));
        if self.next != last {
            return Ok(News::Empty);
        }
        let Stage::Filling { target, .. } = std::mem::replace(&mut self.stage, Stage::Idle) else {
            unreachable!("it was a moment ago")
        };
        Ok(News::Body(target))
    }

    /// Says where the body goes, and moves there what came of it. If that is not what it must be, nothing more comes.
    pub(crate) fn place(&mut self, target: Target) -> Result<(), LinkError> {
        let placed = self.fill(target);
        if placed.is_err() {
            self.stage = Stage::Ended;
        }
        placed
    }

    fn fill(&mut self, target: Target) -> Result<(), LinkError> {
        let Stage::Unplaced { first, front, body } = self.stage else { panic!("no body waits to be placed") };
        if let Target::Memory(destination) = &target {
            let room: u64 = destination.parts().iter().map(|part| part.len as u64).sum();
            assert_eq!(room, body, "the destination has the length of the body");
        }
        let fragments = fragments(front, body, self.payload_bytes);
        let mut sequence = self.next;
        let last = first.after(fragments);
        let mask = self.slots.len() - 1;
        while sequence.is_before(self.end) && sequence.is_before(last) {
            let slot = &mut self.slots[sequence.0 as usize & mask];
            if let Slot::Held { frame, fragment, len } = slot {
                let payload = payload(frame, usize::from(*len));
                let place = sequence.distance_from(first) as u32;
                check_fragment(place, *fragment, payload, front, body, self.payload_bytes)?;
                copy_fragment(place, payload, front, self.payload_bytes, &target);
                *slot = Slot::Done;
            }
            sequence = sequence.after(1);
        }
        self.stage = Stage::Filling { first, front, body, target };
        self.pass_filled();
        Ok(())
    }
}

fn payload<F: Frame>(frame: &F, len: usize) -> &[u8] {
    &frame.bytes()[HEADER_BYTES..HEADER_BYTES + len]
}

fn fragments(front: usize, body: u64, payload_bytes: usize) -> u32 {
    (front as u64 + body).div_ceil(payload_bytes as u64) as u32
}

/// Whether the fragment at `place` of its message says so itself and has the length that it must have.
fn check_fragment(
    place: u32,
    stated: u32,
    payload: &[u8],
    front: usize,
    body: u64,
    payload_bytes: usize,
) -> Result<(), LinkError> {
    let start = u64::from(place) * payload_bytes as u64;
    let expected = (front as u64 + body).saturating_sub(start).min(payload_bytes as u64);
    if stated != place || payload.len() as u64 != expected {
        return Err(LinkError::Protocol("a fragment that does not fit its message"));
    }
    Ok(())
}

/// Copies what a fragment has of the body to its place.
fn copy_fragment(fragment: u32, payload: &[u8], front: usize, payload_bytes: usize, target: &Target) {
    let Target::Memory(destination) = target else { return };
    let start = u64::from(fragment) * payload_bytes as u64;
    let skip = (front as u64).saturating_sub(start).min(payload.len() as u64) as usize;
    let mut source = &payload[skip..];
    let mut at = (start + skip as u64).saturating_sub(front as u64);
    for &Part { start, len } in destination.parts() {
        if source.is_empty() {
            return;
        }
        if at >= len as u64 {
            at -= len as u64;
            continue;
        }
        let count = source.len().min(len - at as usize);
        // SAFETY: the part is valid for writes and ours alone by the contract of `Destination`; `at + count` ≤ `len`.
        unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), start.add(at as usize), count) };
        source = &source[count..];
        at = 0;
    }
    debug_assert!(source.is_empty(), "the destination was found to have the length of the body");
}
