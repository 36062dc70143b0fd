//! One session: both directions of one link, as a state machine without socket or clock.
//!
//! Datagrams and the time go in by [`Session::datagram`] and [`Session::timeout`]; what is to be sent comes out of
//! [`Session::transmit`], and when to come back without news from [`Session::next_timeout`].
//!
//! 1. Every wait ends: what is unacknowledged is probed, a peer that stays silent for the limit is dead.
//! 2. An acknowledgement is held back for [`ACK_DELAY_NS`] at most.
//! 3. At most `Congestion::packets` packets are under way, and none beyond the peer's limit.

use super::congestion::Congestion;
use super::device::Frame;
use super::inbox::{Head, Inbox, News};
use super::outbox::{Outbox, Piece, Pieces};
use super::packet::{HEADER_BYTES, Header, Kind, SessionName};
use super::rtt::Rtt;
use super::sequence::Sequence;
use crate::link::{Body, LinkError, Target};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

/// The longest that an acknowledgement is held back, in nanoseconds.
pub const ACK_DELAY_NS: u64 = 25_000;
/// No time at all.
const NEVER: u64 = u64::MAX;
/// After so many suspicions in a row all that is under way is given up at once.
const PATIENCE: u32 = 2;

/// The terms of a session, as both ends agreed on them.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Bytes of payload in a full datagram.
    pub payload_bytes: usize,
    /// Packets that this end has room for; a power of two.
    pub window: u32,
    /// Packets that the peer has room for.
    pub peer_window: u32,
    /// Whether the fabric is [contended](super::device::Device::is_contended).
    pub contended: bool,
    /// Whether datagrams bear checksums.
    pub checksum: bool,
    /// The largest body, in bytes.
    pub max_body_bytes: u64,
    /// Bytes of messages that wait to be sent or acknowledged, beyond which no more are taken.
    pub max_queued_bytes: u64,
    /// A peer that owes an answer and stays silent for so long is dead.
    pub silence_ns: u64,
    /// A peer that says nothing is asked after so long whether it is there.
    pub keep_alive_ns: u64,
}

/// A datagram to be sent.
pub struct Transmit<'a> {
    /// Its header.
    pub header: [u8; HEADER_BYTES],
    /// Its payload.
    pub pieces: Pieces<'a>,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// This end closed it.
    Ours,
    /// The peer said goodbye, or does not know the session any more.
    Theirs,
    /// The peer fell silent.
    Silence,
}

/// One session.
pub struct Session<F> {
    to: SessionName,
    terms: Terms,
    outbox: Outbox,
    inbox: Inbox<F>,
    rtt: Rtt,
    congestion: Congestion,
    peer_limit: Sequence,
    /// When something last came from the peer.
    heard_at: u64,
    /// When the peer was last asked whether it is there, for want of anything else to say.
    asked_at: u64,
    /// How often in a row something was suspected to be lost, with nothing heard in between.
    doubts: u32,
    /// When to ask for an acknowledgement, or [`NEVER`].
    probe_at: u64,
    /// When what came must be acknowledged, or [`NEVER`].
    acknowledge_at: u64,
    /// A packet may go out beyond the congestion window, to find out.
    force: bool,
    /// A probe is to be sent.
    probe: bool,
    /// This end has no more messages.
    finished: bool,
    /// This end reads no more messages.
    unread: bool,
    end: Option<End>,
    /// A goodbye is to be sent.
    farewell: bool,
    words: Vec<u64>,
    sacks: Vec<U64>,
}

impl<F: Frame> Session<F> {
    /// A session with the peer that knows it as `to`.
    pub fn new(now: u64, to: SessionName, terms: Terms) -> Self {
        Self {
            to,
            outbox: Outbox::new(terms.payload_bytes, terms.max_queued_bytes),
            inbox: Inbox::new(terms.payload_bytes, terms.window, terms.max_body_bytes),
            rtt: Rtt::default(),
            congestion: Congestion::new(terms.peer_window, terms.contended),
            peer_limit: Sequence(terms.peer_window),
            terms,
            heard_at: now,
            asked_at: now,
            doubts: 0,
            probe_at: NEVER,
            acknowledge_at: NEVER,
            force: false,
            probe: false,
            finished: false,
            unread: false,
            end: None,
            farewell: false,
            words: Vec::new(),
            sacks: Vec::new(),
        }
    }

    /// How the peer calls the session.
    pub fn to(&self) -> SessionName {
        self.to
    }

    /// What both ends agreed on.
    #[inline]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Whether all that was taken was sent, and as much again would be taken now.
    #[inline]
    pub fn has_room(&self) -> bool {
        !self.outbox.wants_to_send() && self.outbox.has_room()
    }

    /// The smoothed round trip, in nanoseconds.
    pub fn round_trip_ns(&self) -> u64 {
        self.rtt.smoothed()
    }

    /// Why the session is over, if it is.
    #[inline]
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// Takes a message to be sent.
    ///
    /// # Errors
    ///
    /// The body, if too much waits already.
    pub fn push(&mut self, head: &[u8], body: Body) -> Result<(), Body> {
        self.outbox.push(head, body)
    }

    /// Whether all that was taken has arrived at the peer.
    pub fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Says after all that was taken that there is no more. The session ends when both ends have said so.
    pub fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            self.outbox.push_end();
        }
    }

    /// Nobody reads here any more: the session ends as soon as what was taken has arrived.
    pub fn stop_reading(&mut self) {
        self.unread = true;
    }

    /// Ends the session at once.
    pub(crate) fn abort(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
            self.farewell = end == End::Ours;
        }
    }

    /// Whether [`recv`](Session::recv) would say more than [`News::Empty`].
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.end.is_some() || self.inbox.has_news()
    }

    /// The next thing that came; if it is a head, its bytes go to `head`.
    ///
    /// # Errors
    ///
    /// [`LinkError::Closed`] when the session is over and all that came has been said; [`LinkError::Protocol`] from a peer that
    /// breaks the rules, which ends the session.
    ///
    /// # Panics
    ///
    /// If a body waits to be placed.
    pub fn recv(&mut self, head: &mut Head<F>) -> Result<News, LinkError> {
        if self.end.is_some() && !self.inbox.has_news() {
            return Err(LinkError::Closed);
        }
        let result = self.inbox.recv(head);
        if let Err(LinkError::Protocol(_)) = result {
            self.abort(End::Ours);
        }
        result
    }

    /// Whether the peer should hear at once what came, or how much room there is.
    #[inline]
    pub fn must_acknowledge(&self) -> bool {
        self.end.is_none() && self.inbox.must_acknowledge()
    }

    /// Says where the body goes whose head was just received.
    ///
    /// # Panics
    ///
    /// If no body waits, or the destination has another length.
    pub fn place(&mut self, target: Target) {
        if self.inbox.place(target).is_err() {
            self.abort(End::Ours);
        }
    }

    /// Takes a datagram in, whose header was found to be for this session; `payload` bytes follow it.
    ///
    /// # Errors
    ///
    /// [`LinkError::Protocol`] from a peer that breaks the rules, which ends the session.
    #[inline]
    pub fn datagram(&mut self, now: u64, header: &Header, payload: usize, frame: F) -> Result<(), LinkError> {
        if self.end.is_some() {
            return Ok(());
        }
        let result = self.take(now, header, payload, frame);
        if result.is_err() {
            self.abort(End::Ours);
        }
        result
    }

    #[inline]
    fn take(&mut self, now: u64, header: &Header, payload: usize, frame: F) -> Result<(), LinkError> {
        self.heard_at = now;
        match header.kind {
            Kind::Data => {
                self.acknowledged(now, header, &[])?;
                self.inbox.packet(now, header.sequence, header.fragment, payload, frame)?;
                if self.inbox.owes_acknowledgement() {
                    self.acknowledge_at = self.acknowledge_at.min(now + ACK_DELAY_NS);
                }
            }
            Kind::Ack => {
                let bytes = &frame.bytes()[HEADER_BYTES..HEADER_BYTES + payload];
                let Ok(words) = <[U64]>::ref_from_bytes(bytes) else {
                    return Err(LinkError::Protocol("an acknowledgement of odd length"));
                };
                self.acknowledged(now, header, words)?;
            }
            Kind::Probe => {
                self.acknowledged(now, header, &[])?;
                self.inbox.probed();
            }
            Kind::Bye | Kind::Reset => self.abort(End::Theirs),
            Kind::Hello | Kind::Welcome => {}
        }
        Ok(())
    }

    #[inline]
    fn acknowledged(&mut self, now: u64, header: &Header, sacks: &[U64]) -> Result<(), LinkError> {
        let result = self
            .outbox
            .acknowledge(now, header.ack, sacks.iter().map(|word| word.get()))
            .ok_or(LinkError::Protocol("an acknowledgement of what was never sent"))?;
        if header.limit.distance_from(header.ack) > self.terms.peer_window as i32 {
            return Err(LinkError::Protocol("more room than was agreed on"));
        }
        if self.peer_limit.is_before(header.limit) {
            self.peer_limit = header.limit;
            self.probe_at = NEVER;
        }
        if result.packets > 0 {
            self.doubts = 0;
            self.probe_at = NEVER;
            if let Some(round_trip) = result.round_trip {
                let sample = self.rtt.measure(round_trip, u64::from(header.ack_delay_ns));
                self.congestion.acknowledged(now, result.packets, sample, self.rtt.least());
            }
            if result.lost > 0 {
                self.congestion.lost(now, self.rtt.smoothed());
            }
        }
        self.arm_probe(now);
        Ok(())
    }

    /// Whoever waits for an acknowledgement, or for room at the peer, asks after a while.
    #[inline]
    fn arm_probe(&mut self, now: u64) {
        if self.outbox.under_way() == 0 && !self.outbox.wants_to_send() {
            self.probe_at = NEVER;
        } else if self.probe_at == NEVER {
            self.probe_at = now + self.rtt.probe_after(self.doubts, ACK_DELAY_NS);
        }
    }

    /// Whether both ends have said all that they have to say.
    #[inline]
    fn is_done(&self) -> bool {
        let done = if self.inbox.is_ended() { self.finished } else { self.unread };
        done && self.outbox.is_empty()
    }

    /// Whether [`transmit`](Session::transmit) surely has nothing to send, whatever the windows are: what is the case after most
    /// packets, and quickly found out.
    #[inline]
    pub(crate) fn is_quiet(&self, now: u64) -> bool {
        let closing = self.end.is_some() | self.finished | self.unread | self.probe;
        !closing && now < self.acknowledge_at && !self.outbox.wants_to_send() && !self.inbox.must_acknowledge()
    }

    /// Whether [`transmit`](Session::transmit) would have something to send.
    pub(crate) fn wants_turn(&self, now: u64) -> bool {
        let window = if self.force { u32::MAX } else { self.congestion.packets() };
        self.end.is_some()
            || self.outbox.next_packet(self.peer_limit, window).is_some()
            || self.inbox.must_acknowledge()
            || self.acknowledge_at <= now
            || self.probe
            || self.is_done()
    }

    /// The next datagram to be sent now, if any. What it returns counts as sent.
    #[inline]
    pub fn transmit(&mut self, now: u64) -> Option<Transmit<'_>> {
        if self.end.is_none() && self.is_done() {
            self.abort(End::Ours);
        }
        if self.end.is_some() {
            return if std::mem::take(&mut self.farewell) { Some(self.bare(Kind::Bye, now)) } else { None };
        }
        let window = if self.force { u32::MAX } else { self.congestion.packets() };
        if let Some(sequence) = self.outbox.next_packet(self.peer_limit, window) {
            self.force = false;
            let index = self.outbox.sent(sequence, now);
            self.arm_probe(now);
            let (ack, limit, ack_delay_ns) = self.inbox.acknowledge(now);
            if !self.inbox.owes_acknowledgement() {
                self.acknowledge_at = NEVER;
            }
            let (fragment, pieces, len) = self.outbox.cut(sequence, index);
            let header = Header { kind: Kind::Data, to: self.to, sequence, ack, limit, fragment, ack_delay_ns };
            let mut bytes = pieces.iter().map(|piece| piece.bytes());
            let header = header.encode(len, self.terms.checksum.then_some(&mut bytes as _));
            return Some(Transmit { header, pieces });
        }
        if self.inbox.must_acknowledge() || self.acknowledge_at <= now {
            self.acknowledge_at = NEVER;
            return Some(self.acknowledgement(now));
        }
        if std::mem::take(&mut self.probe) { Some(self.bare(Kind::Probe, now)) } else { None }
    }

    #[cold]
    fn acknowledgement(&mut self, now: u64) -> Transmit<'_> {
        let (ack, limit, ack_delay_ns) = self.inbox.acknowledge_all(now, &mut self.words);
        self.sacks.clear();
        self.sacks.extend(self.words.iter().map(|&word| U64::new(word)));
        let payload = self.sacks.as_bytes();
        let header = Header {
            kind: Kind::Ack,
            to: self.to,
            sequence: Sequence::default(),
            ack,
            limit,
            fragment: 0,
            ack_delay_ns,
        };
        let mut bytes = std::iter::once(payload);
        let header = header.encode(payload.len(), self.terms.checksum.then_some(&mut bytes as _));
        let mut pieces = Pieces::new();
        pieces.push(Piece::Copied(payload));
        Transmit { header, pieces }
    }

    #[cold]
    fn bare(&mut self, kind: Kind, now: u64) -> Transmit<'_> {
        let (ack, limit, ack_delay_ns) = self.inbox.acknowledge(now);
        let header = Header { kind, to: self.to, sequence: Sequence::default(), ack, limit, fragment: 0, ack_delay_ns };
        let mut bytes = std::iter::empty();
        Transmit { header: header.encode(0, self.terms.checksum.then_some(&mut bytes as _)), pieces: Pieces::new() }
    }

    /// When to call [`timeout`](Session::timeout) at the latest; `u64::MAX` for a session that is over.
    #[inline]
    pub fn next_timeout(&self) -> u64 {
        if self.end.is_some() {
            return NEVER;
        }
        let keep_alive = self.heard_at.max(self.asked_at) + self.terms.keep_alive_ns;
        let silence = self.heard_at + self.terms.silence_ns;
        self.acknowledge_at.min(self.probe_at).min(keep_alive).min(silence)
    }

    /// Time went by. What is to be done comes out of [`transmit`](Session::transmit).
    pub fn timeout(&mut self, now: u64) {
        if self.end.is_some() {
            return;
        }
        if now >= self.heard_at + self.terms.silence_ns {
            return self.abort(End::Silence);
        }
        if self.probe_at <= now {
            self.doubts += 1;
            self.probe_at = NEVER;
            if self.outbox.under_way() == 0 {
                self.probe = true;
            } else if self.doubts < PATIENCE {
                self.outbox.suspect(false);
                self.force = true;
            } else {
                self.outbox.suspect(true);
                self.congestion.collapsed(now);
            }
            self.arm_probe(now);
        }
        if now >= self.heard_at.max(self.asked_at) + self.terms.keep_alive_ns {
            self.asked_at = now;
            self.probe = true;
        }
    }
}
