//! All sessions over one device: who is spoken to, whose datagram this is, and whose turn it is.
//!
//! Driven by [`Endpoint::poll`], from whatever thread waits. Sessions are opened by a hello, repeated until the welcome comes:
//!
//! ```text
//! client   Hello(index, token, payload, window, attempt) ─▶   node     makes the session, once for each attempt
//!          ◀─ Welcome(index, token, payload, window, attempt)
//!          Data … ─▶
//! ```
//!
//! 1. A datagram touches a session only if it bears the index and the token that this end gave it.
//! 2. A hello that comes again does not make a second session.
//! 3. Sessions are limited; a place is free again when its session is over and its handle was dropped.
//! 4. A session that is not known here is answered by a reset, so that a peer need not wait for its silence to run out.
//! 5. With several lanes each session belongs to one: the first eight bits of its index say which.

use super::device::{Device, Frame};
use super::packet::{
    FEATURE_CHECKSUM, Greeting, HEADER_BYTES, Header, Kind, MAX_SACK_WORDS, PREFIX_BYTES, SessionName,
};
use super::sequence::Sequence;
use super::session::{End, Session, Terms};
use crate::link::LinkError;
use slab::Slab;
use std::collections::{BTreeSet, HashMap, VecDeque};
use zerocopy::{FromBytes, IntoBytes};

/// Datagrams taken from the device in one go, so that acknowledgements and answers are not held up by a flood.
const RECEIVE_BATCH: usize = 64;
/// Datagrams of one session in one go, so that no session starves the others.
const TRANSMIT_BATCH: usize = 64;
/// The first repetition of a hello; the later ones at twice the interval before.
const HELLO_AGAIN_NS: u64 = 2_000_000;
/// The longest interval between hellos.
const MAX_HELLO_AGAIN_NS: u64 = 200_000_000;
/// Of a session's index, the bits that are its place; those above are its lane.
const PLACE_BITS: u32 = 24;

/// What an endpoint allows.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    /// Packets that each session has room for; a power of two, at most 1024.
    pub window_packets: u32,
    /// Sessions at the same time, at most 2^24.
    pub max_sessions: usize,
    /// The largest body, in bytes.
    pub max_body_bytes: u64,
    /// Bytes that a session keeps to be sent or acknowledged, beyond which it takes no more.
    pub max_queued_bytes: u64,
    /// A peer that stays silent for so long is dead.
    pub silence_ns: u64,
    /// A peer that says nothing is asked after so long whether it is there.
    pub keep_alive_ns: u64,
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self {
            window_packets: 256,
            max_sessions: 4096,
            max_body_bytes: 1 << 40,
            max_queued_bytes: 8 << 20,
            silence_ns: 5_000_000_000,
            keep_alive_ns: 1_000_000_000,
        }
    }
}

/// A session's place in its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(u32);

impl SessionKey {
    /// Its place among the sessions that there are at a time.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

enum State<F> {
    /// Hellos are under way.
    Asking {
        attempt: u64,
        again_at: u64,
        interval: u64,
        hello: bool,
    },
    Open(Box<Session<F>>),
    /// Refused, or over before it began.
    Refused,
}

struct Entry<D: Device> {
    place: D::Place,
    token: u32,
    /// The hello that made it, where the peer asked.
    attempt: Option<u64>,
    /// Whether the answer to our hello came to another lane.
    strayed: bool,
    state: State<D::Frame>,
    /// Nobody here speaks over the session any more.
    abandoned: bool,
    /// Whether it stands in `busy`.
    busy: bool,
    /// The time that it stands at in `timers`; `u64::MAX` if it does not.
    due: u64,
    /// Which halves sleep until there is something for them.
    receiver_sleeps: bool,
    sender_sleeps: bool,
}

/// Who is to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleeper {
    /// Whoever waits for what comes.
    Receiver,
    /// Whoever waits until more can be sent.
    Sender,
}

impl<D: Device> Entry<D> {
    /// Whether that half sleeps.
    fn flag(&mut self, sleeper: Sleeper) -> &mut bool {
        match sleeper {
            Sleeper::Receiver => &mut self.receiver_sleeps,
            Sleeper::Sender => &mut self.sender_sleeps,
        }
    }

    /// Wakes the sleepers for whom there is something.
    #[inline]
    fn wake(&mut self, key: SessionKey, awake: &mut Vec<(SessionKey, Sleeper)>) {
        if !self.receiver_sleeps && !self.sender_sleeps {
            return;
        }
        let (news, room) = match &self.state {
            State::Open(session) => (session.has_news(), session.end().is_some() || session.has_room()),
            State::Asking { .. } => (false, false),
            State::Refused => (true, true),
        };
        if news && std::mem::take(&mut self.receiver_sleeps) {
            awake.push((key, Sleeper::Receiver));
        }
        if room && std::mem::take(&mut self.sender_sleeps) {
            awake.push((key, Sleeper::Sender));
        }
    }
}

/// All sessions over one device.
pub struct Endpoint<D: Device> {
    device: D,
    options: EndpointOptions,
    random: Box<dyn FnMut() -> u64 + Send>,
    listening: bool,
    sessions: Slab<Entry<D>>,
    /// Sessions by the hello that made them.
    greeted: HashMap<(D::Place, u64), SessionKey>,
    accepted: VecDeque<SessionKey>,
    /// Sessions that may have something to send.
    busy: VecDeque<SessionKey>,
    /// Each session at most once, at the time when it is due or earlier.
    timers: BTreeSet<(u64, SessionKey)>,
    /// The first time in `timers` or an earlier one, so that a turn need not look into them.
    soonest: u64,
    awake: Vec<(SessionKey, Sleeper)>,
    /// Halves that sleep, or are in `awake`.
    sleeping: usize,
    arrivals: Vec<(D::Place, D::Frame)>,
}

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The peer has not answered yet.
    Asking,
    /// Messages can be sent.
    Open,
    /// Nobody listens there, or the session is over.
    Over,
}

impl<D: Device> Endpoint<D> {
    /// An endpoint without sessions; `random` must not be predictable by peers.
    pub fn new(device: D, options: EndpointOptions, random: Box<dyn FnMut() -> u64 + Send>) -> Self {
        assert!(options.window_packets.is_power_of_two() && options.window_packets as usize <= 64 * MAX_SACK_WORDS);
        Self {
            device,
            options,
            random,
            listening: false,
            sessions: Slab::new(),
            greeted: HashMap::new(),
            accepted: VecDeque::new(),
            busy: VecDeque::new(),
            timers: BTreeSet::new(),
            soonest: u64::MAX,
            awake: Vec::new(),
            sleeping: 0,
            arrivals: Vec::with_capacity(RECEIVE_BATCH),
        }
    }

    /// Lets peers open sessions.
    pub fn listen(&mut self) {
        self.listening = true;
    }

    /// Lets no more peers open sessions; those that nobody accepted are over.
    pub fn stop_listening(&mut self) {
        self.listening = false;
        while let Some(key) = self.accepted.pop_front() {
            self.abandon(key);
        }
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// As [`Device::rest`].
    pub fn rest(&mut self, asleep: bool) -> bool {
        self.device.rest(asleep)
    }

    /// Bytes of payload in a full datagram of this end.
    fn payload_bytes(&self) -> usize {
        (self.device.datagram_bytes() - HEADER_BYTES).min(usize::from(u16::MAX))
    }

    fn insert(&mut self, place: D::Place, attempt: Option<u64>, state: State<D::Frame>) -> Option<SessionKey> {
        if self.sessions.len() >= self.options.max_sessions.min(1 << PLACE_BITS) {
            return None;
        }
        let token = (self.random)() as u32;
        let entry = Entry {
            place,
            token,
            attempt,
            strayed: false,
            state,
            abandoned: false,
            busy: false,
            due: u64::MAX,
            receiver_sleeps: false,
            sender_sleeps: false,
        };
        let key = SessionKey(u32::try_from(self.sessions.insert(entry)).expect("sessions are limited"));
        Some(key)
    }

    /// Opens a session with the endpoint at `place`. It is open once [`standing`](Endpoint::standing) says so.
    ///
    /// # Errors
    ///
    /// [`LinkError::TooLarge`] with too many sessions.
    pub fn connect(&mut self, now: u64, place: D::Place) -> Result<SessionKey, LinkError> {
        let attempt = (self.random)();
        let asking = State::Asking { attempt, again_at: now, interval: HELLO_AGAIN_NS, hello: true };
        let limit = self.options.max_sessions as u64;
        let key = self.insert(place, None, asking).ok_or(LinkError::TooLarge {
            what: "number of sessions",
            len: limit + 1,
            limit,
        })?;
        self.stir(key);
        Ok(key)
    }

    /// How the peer is to call a session.
    fn name(&self, key: SessionKey) -> SessionName {
        let index = u32::from(self.device.lane()) << PLACE_BITS | key.0;
        SessionName { index, token: self.sessions[key.0 as usize].token }
    }

    /// The next session that a peer opened.
    pub fn accept(&mut self) -> Option<SessionKey> {
        self.accepted.pop_front()
    }

    /// Whether [`accept`](Endpoint::accept) would give one.
    pub fn has_accepted(&self) -> bool {
        !self.accepted.is_empty()
    }

    /// Where the peer of a session is.
    pub fn place(&self, key: SessionKey) -> &D::Place {
        &self.sessions[key.0 as usize].place
    }

    /// Whether what a peer sends to a session that was opened here comes to another lane, and is passed on from there.
    pub fn strays(&self, key: SessionKey) -> bool {
        self.sessions[key.0 as usize].strayed
    }

    /// How a session stands.
    #[inline]
    pub fn standing(&self, key: SessionKey) -> Standing {
        match &self.sessions[key.0 as usize].state {
            State::Asking { .. } => Standing::Asking,
            State::Open(session) if session.end().is_none() => Standing::Open,
            State::Open(_) | State::Refused => Standing::Over,
        }
    }

    /// Whether there is something to be received, if only an error.
    #[inline]
    pub fn has_news(&self, key: SessionKey) -> bool {
        match &self.sessions[key.0 as usize].state {
            State::Open(session) => session.has_news(),
            State::Asking { .. } | State::Refused => true,
        }
    }

    /// An open session. Whoever gave it something to send says so to [`stir`](Endpoint::stir).
    ///
    /// # Errors
    ///
    /// [`LinkError::Closed`] if it never opened.
    #[inline]
    pub fn session(&mut self, key: SessionKey) -> Result<&mut Session<D::Frame>, LinkError> {
        match &mut self.sessions[key.0 as usize].state {
            State::Open(session) => Ok(session),
            State::Asking { .. } | State::Refused => Err(LinkError::Closed),
        }
    }

    /// Nobody speaks over the session any more: what it still has to send is sent, then it goes.
    pub fn abandon(&mut self, key: SessionKey) {
        self.stir(key);
        let entry = &mut self.sessions[key.0 as usize];
        entry.abandoned = true;
        match &mut entry.state {
            State::Open(session) => session.stop_reading(),
            state => *state = State::Refused,
        }
    }

    /// Somebody goes to sleep until there is something for that half. `false` if there is now.
    pub fn sleep(&mut self, key: SessionKey, sleeper: Sleeper) -> bool {
        let entry = &mut self.sessions[key.0 as usize];
        self.sleeping += usize::from(!std::mem::replace(entry.flag(sleeper), true));
        let before = self.awake.len();
        entry.wake(key, &mut self.awake);
        let goes = !self.awake[before..].iter().any(|(_, woken)| *woken == sleeper);
        if !goes {
            self.awake.retain(|&woken| woken != (key, sleeper));
            self.sleeping -= 1;
        }
        goes
    }

    /// That half does not sleep, whatever it said before.
    #[inline]
    pub fn rise(&mut self, key: SessionKey, sleeper: Sleeper) {
        if std::mem::take(self.sessions[key.0 as usize].flag(sleeper)) {
            self.sleeping -= 1;
        }
    }

    /// How many halves sleep.
    #[inline]
    pub fn sleeping(&self) -> usize {
        self.sleeping
    }

    /// Whether [`take_awake`](Endpoint::take_awake) would name somebody.
    #[inline]
    pub fn has_awake(&self) -> bool {
        !self.awake.is_empty()
    }

    /// Who is to be woken.
    #[inline]
    pub fn take_awake(&mut self) -> impl Iterator<Item = (SessionKey, Sleeper)> {
        self.sleeping -= self.awake.len();
        self.awake.drain(..)
    }

    /// Whether there are sessions that neither a link nor a listener moves.
    pub fn has_orphans(&self) -> bool {
        self.sessions.iter().any(|(_, entry)| entry.abandoned || entry.attempt.is_some() && !self.listening)
    }

    /// The session may have something to send, with the next [`transmit`](Endpoint::transmit) or [`poll`](Endpoint::poll).
    #[inline]
    pub fn stir(&mut self, key: SessionKey) {
        let entry = &mut self.sessions[key.0 as usize];
        if !entry.busy {
            entry.busy = true;
            self.busy.push_back(key);
        }
    }

    /// Takes in what arrived, does what is due, sends what there is to send. Whether anything arrived.
    ///
    /// # Errors
    ///
    /// [`LinkError`] when the device is of no more use.
    pub fn poll(&mut self, now: u64) -> Result<bool, LinkError> {
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let received = self.device.receive(RECEIVE_BATCH, |place, frame| arrivals.push((place, frame)));
        let any = !arrivals.is_empty();
        if any {
            for (place, frame) in arrivals.drain(..) {
                self.datagram(now, &place, frame);
            }
        }
        self.arrivals = arrivals;
        received?;
        if now >= self.soonest {
            self.expire(now);
        }
        self.transmit(now)?;
        Ok(any)
    }

    #[inline]
    fn datagram(&mut self, now: u64, place: &D::Place, frame: D::Frame) {
        let Some((header, payload)) = Header::decode(frame.bytes(), false) else { return };
        let lane = (header.to.index >> PLACE_BITS) as u8;
        let elsewhere = lane != self.device.lane() && lane < self.device.lanes();
        match header.kind {
            Kind::Hello => return self.greet(now, place, frame),
            Kind::Reset => {
                // Of a hello the name is ours.
                if !self.reset(place, header.to) && elsewhere && !frame.strayed() {
                    self.device.pass(lane, place.clone(), frame);
                }
                return;
            }
            _ if elsewhere => {
                if !frame.strayed() {
                    self.device.pass(lane, place.clone(), frame);
                }
                return;
            }
            _ => {}
        }
        let key = SessionKey(header.to.index & ((1 << PLACE_BITS) - 1));
        let known = self.sessions.get_mut(key.0 as usize).filter(|entry| entry.token == header.to.token);
        let Some(entry) = known else {
            // A goodbye for a session that is gone needs no answer.
            if header.kind != Kind::Bye {
                self.send_bare(place, Kind::Reset, header.to, &[]);
            }
            return;
        };
        if header.kind == Kind::Welcome {
            entry.strayed |= frame.strayed();
            return self.welcome(now, key, payload);
        }
        let State::Open(session) = &mut entry.state else { return };
        if session.terms().checksum && Header::decode(frame.bytes(), true).is_none() {
            return;
        }
        if entry.place != *place {
            return;
        }
        let payload = payload.len();
        // An error is the session's end, which its handle will be told.
        let _ = session.datagram(now, &header, payload, frame);
        let (wants_turn, due) = (!session.is_quiet(now) && session.wants_turn(now), session.next_timeout());
        entry.wake(key, &mut self.awake);
        if wants_turn {
            self.stir(key);
        } else if due < entry.due {
            self.arm(key);
        }
    }

    fn greeting(&self, name: SessionName, attempt: u64) -> Greeting {
        Greeting {
            index: name.index.into(),
            token: name.token.into(),
            payload_bytes: (self.payload_bytes() as u16).into(),
            features: if self.device.needs_checksum() { FEATURE_CHECKSUM } else { 0 }.into(),
            window: self.options.window_packets.into(),
            attempt: attempt.into(),
        }
    }

    /// The terms with a peer who sent this greeting; `None` if it makes no sense.
    fn terms(&self, greeting: &Greeting) -> Option<Terms> {
        let payload_bytes = usize::from(greeting.payload_bytes.get()).min(self.payload_bytes());
        let peer_window = greeting.window.get();
        if payload_bytes <= PREFIX_BYTES || !(1..=64 * MAX_SACK_WORDS as u32).contains(&peer_window) {
            return None;
        }
        Some(Terms {
            payload_bytes,
            window: self.options.window_packets,
            peer_window,
            contended: self.device.is_contended(),
            checksum: self.device.needs_checksum() || greeting.features.get() & FEATURE_CHECKSUM != 0,
            // Packet numbers of a message lie within 2^30.
            max_body_bytes: self.options.max_body_bytes.min((payload_bytes as u64) << 29),
            max_queued_bytes: self.options.max_queued_bytes,
            silence_ns: self.options.silence_ns,
            keep_alive_ns: self.options.keep_alive_ns,
        })
    }

    fn greet(&mut self, now: u64, place: &D::Place, frame: D::Frame) {
        let Some((_, payload)) = Header::decode(frame.bytes(), false) else { return };
        let Ok(greeting) = Greeting::read_from_bytes(payload) else { return };
        let peer = SessionName { index: greeting.index.get(), token: greeting.token.get() };
        let attempt = greeting.attempt.get();
        let key = match self.greeted.get(&(place.clone(), attempt)) {
            Some(&key) => key,
            None => {
                let Some(terms) = self.terms(&greeting) else { return };
                if !self.listening {
                    return self.send_bare(place, Kind::Reset, peer, &[]);
                }
                let lane = self.device.claim(place, attempt);
                if lane != self.device.lane() {
                    if !frame.strayed() {
                        self.device.pass(lane, place.clone(), frame);
                    }
                    return;
                }
                let session = State::Open(Box::new(Session::new(now, peer, terms)));
                let Some(key) = self.insert(place.clone(), Some(attempt), session) else {
                    self.device.disclaim(place, attempt);
                    return self.send_bare(place, Kind::Reset, peer, &[]);
                };
                self.greeted.insert((place.clone(), attempt), key);
                self.accepted.push_back(key);
                self.stir(key);
                key
            }
        };
        let name = self.name(key);
        let welcome = self.greeting(name, attempt);
        self.send_bare(place, Kind::Welcome, peer, welcome.as_bytes());
    }

    fn welcome(&mut self, now: u64, key: SessionKey, payload: &[u8]) {
        let Ok(greeting) = Greeting::read_from_bytes(payload) else { return };
        let State::Asking { attempt, .. } = self.sessions[key.0 as usize].state else { return };
        if greeting.attempt.get() != attempt {
            return;
        }
        let peer = SessionName { index: greeting.index.get(), token: greeting.token.get() };
        let state = match self.terms(&greeting) {
            Some(terms) => State::Open(Box::new(Session::new(now, peer, terms))),
            None => State::Refused,
        };
        let entry = &mut self.sessions[key.0 as usize];
        entry.state = state;
        entry.wake(key, &mut self.awake);
        self.stir(key);
    }

    /// The peer at `place` knows no session `name`. Whether there is one here.
    fn reset(&mut self, place: &D::Place, name: SessionName) -> bool {
        let lane = u32::from(self.device.lane()) << PLACE_BITS;
        let found = self.sessions.iter_mut().find_map(|(index, entry)| {
            let is_it = match &entry.state {
                State::Open(session) => session.to() == name,
                // A hello was refused: the name is ours.
                State::Asking { .. } => (name.index, name.token) == (lane | index as u32, entry.token),
                State::Refused => false,
            };
            (is_it && entry.place == *place).then_some(SessionKey(index as u32))
        });
        let Some(key) = found else { return false };
        let entry = &mut self.sessions[key.0 as usize];
        match &mut entry.state {
            State::Open(session) => session.abort(End::Theirs),
            state => *state = State::Refused,
        }
        entry.wake(key, &mut self.awake);
        self.stir(key);
        true
    }

    fn send_bare(&mut self, place: &D::Place, kind: Kind, to: SessionName, payload: &[u8]) {
        if self.device.room() == 0 {
            return;
        }
        let none = Sequence::default();
        let header = Header { kind, to, sequence: none, ack: none, limit: none, fragment: 0, ack_delay_ns: 0 };
        let mut pieces = std::iter::once(payload);
        let header = header.encode(payload.len(), Some(&mut pieces));
        self.device.send(place, &header, &[super::Piece::Copied(payload)]);
    }

    /// Sends what the busy sessions have to send, as far as the device has room.
    ///
    /// # Errors
    ///
    /// [`LinkError`] when the device is of no more use.
    #[inline]
    pub fn transmit(&mut self, now: u64) -> Result<(), LinkError> {
        let mut sessions = self.busy.len();
        while sessions > 0 && self.device.room() > 0 {
            sessions -= 1;
            let key = self.busy.pop_front().expect("it was counted");
            self.transmit_session(now, key);
        }
        self.device.flush()
    }

    #[inline]
    fn transmit_session(&mut self, now: u64, key: SessionKey) {
        let entry = &mut self.sessions[key.0 as usize];
        entry.busy = false;
        match &mut entry.state {
            State::Open(session) => {
                let mut batch = TRANSMIT_BATCH.min(self.device.room());
                while batch > 0 {
                    let Some(transmit) = session.transmit(now) else { break };
                    self.device.send(&entry.place, &transmit.header, &transmit.pieces);
                    drop(transmit);
                    batch -= 1;
                    if session.is_quiet(now) {
                        break;
                    }
                }
                if batch == 0 {
                    return self.stir(key);
                }
                if session.end().is_some() && entry.abandoned {
                    return self.remove(key);
                }
                entry.wake(key, &mut self.awake);
            }
            State::Asking { attempt, hello, .. } => {
                if std::mem::take(hello) {
                    let attempt = *attempt;
                    let place = entry.place.clone();
                    let name = self.name(key);
                    let greeting = self.greeting(name, attempt);
                    self.send_bare(&place, Kind::Hello, SessionName { index: 0, token: 0 }, greeting.as_bytes());
                }
            }
            State::Refused if entry.abandoned => return self.remove(key),
            State::Refused => {}
        }
        self.arm(key);
    }

    fn remove(&mut self, key: SessionKey) {
        let entry = self.sessions.remove(key.0 as usize);
        self.sleeping -= usize::from(entry.receiver_sleeps) + usize::from(entry.sender_sleeps);
        self.timers.remove(&(entry.due, key));
        if let Some(attempt) = entry.attempt {
            self.device.disclaim(&entry.place, attempt);
            self.greeted.remove(&(entry.place, attempt));
        }
    }

    /// Puts the session's next time among the others, unless an earlier one of its own stands there: as there does after most
    /// packets, because a time that is put off stays until it comes.
    #[inline]
    fn arm(&mut self, key: SessionKey) {
        let entry = &mut self.sessions[key.0 as usize];
        let due = match &entry.state {
            State::Open(session) => session.next_timeout(),
            State::Asking { again_at, .. } => *again_at,
            State::Refused => u64::MAX,
        };
        if due < entry.due {
            self.arm_at(key, due);
        }
    }

    #[cold]
    fn arm_at(&mut self, key: SessionKey, due: u64) {
        let entry = &mut self.sessions[key.0 as usize];
        if entry.due != u64::MAX {
            self.timers.remove(&(entry.due, key));
        }
        entry.due = due;
        self.timers.insert((due, key));
        self.soonest = self.soonest.min(due);
    }

    /// When to call [`poll`](Endpoint::poll) at the latest; `u64::MAX` if nothing is due ever.
    #[inline]
    pub fn next_timeout(&self) -> u64 {
        // A device without room makes some soon.
        if self.busy.is_empty() { self.soonest } else { 0 }
    }

    /// Has sessions do what is due; what they have to send then goes out with the next [`transmit`](Endpoint::transmit).
    pub fn expire(&mut self, now: u64) {
        if now < self.soonest {
            return;
        }
        while let Some(&(due, key)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            let entry = &mut self.sessions[key.0 as usize];
            entry.due = u64::MAX;
            match &mut entry.state {
                State::Open(session) => {
                    if session.next_timeout() <= now {
                        session.timeout(now);
                    }
                }
                State::Asking { again_at, interval, hello, .. } if *again_at <= now => {
                    *hello = true;
                    *again_at = now + *interval;
                    *interval = (*interval * 2).min(MAX_HELLO_AGAIN_NS);
                }
                State::Asking { .. } | State::Refused => {}
            }
            self.stir(key);
        }
        self.soonest = self.timers.first().map_or(u64::MAX, |(due, _)| *due);
    }
}
