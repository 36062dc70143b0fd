//! A queue pair, and all that is on its way over it.
//!
//! Both halves of a link and whoever reaches the peer's memory share a channel, under one short lock. Whoever comes by pumps: takes
//! completions, and wakes those whom they concern.

use super::adapter::Adapter;
use super::hello::Hello;
use super::one_sided::{OneSided, Operation};
use super::receiver::RdmaReceiver;
use super::say;
use super::sender::RdmaSender;
use super::slots::{RECEIVE_SLOTS, SEND_SLOTS, SLOT_BYTES, SLOT_HEADER_BYTES, SlotHeader, Slots, WINDOW};
use crate::link::{Interest, Interests, Link, LinkError, Peer};
use crate::options::LinkOptions;
use crate::queue::Queue;
use dmrpc_rdma_sys::raw::*;
use dmrpc_rdma_sys::{CompletionQueue, ProtectionDomain, QueuePair, QueuePairOptions, RdmaError, Timing, status_text};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Work requests that a queue pair holds.
const SENDS: u32 = 256;
/// Of these, kept for credits.
const CREDIT_SENDS: usize = 8;
/// Up to here what is sent is copied when it is posted: the device need not fetch it. More makes work requests larger.
const INLINE_BYTES: u32 = 188;
/// Of so many work requests one completes at the latest.
const SIGNAL_EVERY: u32 = 16;
/// A peer that does not answer is given up after 0.13 s × 7, on hardware up to four times that.
const TIMING: Timing = Timing { timeout: 15, retries: 6 };
/// The most READs that a peer is asked to answer at a time.
const READS: u8 = 16;
/// Completions taken at a time.
const BATCH: usize = 32;
/// Pieces of a message that are put into a slot at a time.
const GATHERED_PIECES: usize = 32;
/// How long a device may take to give back what was posted to a queue pair in error.
const FLUSH: Duration = Duration::from_millis(20);
/// How long what was sent may still be on its way when both halves are gone.
const LINGER: Duration = Duration::from_secs(5);
/// As long as that whoever drops the last half sees to it; then a thread does.
const LINGER_HERE: Duration = Duration::from_millis(1);

/// On the control channel: the sender's half is gone, after so many slots of bytes (u64).
const SENDER_GONE: u8 = b'E';
/// On the control channel: the receiver's half is gone.
const RECEIVER_GONE: u8 = b'R';

/// A queue pair with its queues, slots and control channel.
pub(super) struct Channel {
    // Gone before what it works on.
    pair: QueuePair,
    state: Mutex<State>,
    sends: CompletionQueue,
    receives: CompletionQueue,
    slots: Slots,
    domain: ProtectionDomain,
    adapter: Arc<Adapter>,
    control: TcpStream,
    first_packet: u32,
    options: LinkOptions,
}

/// Why a channel is of no more use.
#[derive(Clone, Copy, Debug)]
enum End {
    Closed,
    Protocol(&'static str),
    Status(ibv_wc_status),
    Device,
}

impl End {
    fn error(self) -> LinkError {
        let io = |text: &'static str| LinkError::Io { doing: "using RDMA", source: std::io::Error::other(text) };
        match self {
            Self::Closed => LinkError::Closed,
            Self::Protocol(what) => LinkError::Protocol(what),
            Self::Status(IBV_WC_WR_FLUSH_ERR | IBV_WC_RETRY_EXC_ERR | IBV_WC_RNR_RETRY_EXC_ERR) => LinkError::Closed,
            Self::Status(status) => io(status_text(status)),
            Self::Device => io("the device took no more work"),
        }
    }
}

/// What a posted work request leaves when it has completed.
enum Flight {
    /// A slot to send from.
    Slot(u32),
    /// Nothing: it was copied, or it is not the last of its operation.
    Nothing,
    /// The end of an operation, whose memory it keeps.
    Operation(Operation),
}

/// An eventfd that one half sleeps on.
pub(super) struct Sleeper {
    bell: Arc<OwnedFd>,
    rung: bool,
    asleep: bool,
}

impl Sleeper {
    fn new() -> Result<Self, LinkError> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| LinkError::io("making an eventfd", error))?;
        Ok(Self { bell: Arc::new(bell), rung: false, asleep: false })
    }

    fn wake(&mut self) {
        if std::mem::take(&mut self.asleep) {
            self.stay_ready();
        }
    }

    /// Rings, whether it sleeps or not.
    fn stay_ready(&mut self) {
        if !std::mem::replace(&mut self.rung, true) {
            // It can only fail when the counter is full, and then it is readable anyhow.
            let _ = rustix::io::write(&*self.bell, &1u64.to_ne_bytes());
        }
    }

    fn silence(&mut self) {
        if std::mem::take(&mut self.rung) {
            let _ = rustix::io::read(&*self.bell, &mut [0u8; 8]);
        }
    }
}

/// Work requests that go behind one doorbell.
#[derive(Default)]
struct Chain {
    works: Vec<ibv_send_wr>,
    pieces: Vec<ibv_sge>,
    /// What each leaves.
    flights: Vec<Flight>,
}

// SAFETY: the pointers in it are made and used within one call.
unsafe impl Send for Chain {}

pub(super) struct State {
    chain: Chain,
    free_slots: Vec<u32>,
    /// What is posted and has not completed, oldest first, and the number of the first.
    flights: VecDeque<Flight>,
    first_flight: u64,
    /// Work requests posted since one was to complete.
    unsignaled: u32,
    /// Of the operations among them, how many somebody waits for.
    awaited: usize,
    /// Operations that are not wholly posted, in order.
    operations: VecDeque<Operation>,
    /// Slots of bytes sent: in all, and modulo 2^32; and how many of them the peer has taken, modulo 2^32.
    sent_in_all: u64,
    sent: u32,
    peer_taken: u32,
    /// Slots of bytes that came and are not taken yet, with their length.
    came: VecDeque<(u32, usize)>,
    /// How many came in all.
    arrived: u64,
    /// How many were taken, and what the peer was told of that, modulo 2^32.
    taken: u32,
    told: u32,
    /// What ended, to be told when the lock is free.
    done: Vec<(Operation, Result<(), End>)>,
    end: Option<End>,
    /// The peer sends no more than so many slots of bytes.
    peer_end: Option<u64>,
    /// What came of something on the control channel.
    heard: Vec<u8>,
    /// The peer's receiver is not there any more.
    deaf: bool,
    /// Nor is anything else of it.
    peer_gone: bool,
    receiver: Sleeper,
    sender: Sleeper,
    /// Whether the channels become readable at the next completion, or are.
    armed_sends: bool,
    armed_receives: bool,
}

impl State {
    /// Whether the peer may wait for being told what was taken.
    fn owes_credit(&self) -> bool {
        self.taken.wrapping_sub(self.told) >= WINDOW / 2
    }
}

impl Channel {
    pub(super) fn new(
        adapter: &Arc<Adapter>,
        domain: &ProtectionDomain,
        control: TcpStream,
        options: &LinkOptions,
    ) -> Result<Self, LinkError> {
        let device = &adapter.device;
        let sends = CompletionQueue::new(device, SENDS + 1)?;
        let receives = CompletionQueue::new(device, RECEIVE_SLOTS + 1)?;
        let sizes = QueuePairOptions { sends: SENDS, receives: RECEIVE_SLOTS, inline_bytes: INLINE_BYTES };
        let pair = QueuePair::new(domain, (&sends, &receives), None, sizes)?;
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|_| LinkError::io("drawing random bytes", Errno::AGAIN))?;
        let state = State {
            chain: Chain::default(),
            free_slots: (RECEIVE_SLOTS..RECEIVE_SLOTS + SEND_SLOTS).collect(),
            flights: VecDeque::new(),
            first_flight: 0,
            unsignaled: 0,
            awaited: 0,
            operations: VecDeque::new(),
            sent_in_all: 0,
            sent: 0,
            peer_taken: 0,
            came: VecDeque::new(),
            arrived: 0,
            taken: 0,
            told: 0,
            done: Vec::new(),
            end: None,
            peer_end: None,
            heard: Vec::new(),
            deaf: false,
            peer_gone: false,
            receiver: Sleeper::new()?,
            sender: Sleeper::new()?,
            armed_sends: false,
            armed_receives: false,
        };
        Ok(Self {
            pair,
            state: Mutex::new(state),
            sends,
            receives,
            slots: Slots::new(domain)?,
            domain: domain.clone(),
            adapter: adapter.clone(),
            control,
            first_packet: u32::from_le_bytes(random) & 0xff_ffff,
            options: options.clone(),
        })
    }

    pub(super) fn adapter(&self) -> &Arc<Adapter> {
        &self.adapter
    }

    pub(super) fn domain(&self) -> &ProtectionDomain {
        &self.domain
    }

    pub(super) fn control(&self) -> &TcpStream {
        &self.control
    }

    pub(super) fn number(&self) -> u32 {
        self.pair.number()
    }

    pub(super) fn first_packet(&self) -> u32 {
        self.first_packet
    }

    pub(super) fn max_body_bytes(&self) -> u64 {
        self.options.max_body_bytes
    }

    /// Connects the queue pair to the peer's. Receives are posted first: whatever comes finds one.
    pub(super) fn connect(&self, theirs: &Hello) -> Result<(), LinkError> {
        let (port, limits) = (&self.adapter.port, self.adapter.device.limits());
        let peer = dmrpc_rdma_sys::Peer {
            gid: theirs.gid,
            number: theirs.number,
            first_packet: theirs.first_packet,
            mtu: theirs.mtu.min(port.mtu),
            reads_answered: limits.max_reads_answered.min(READS),
            reads_asked: theirs.reads.min(limits.max_reads_asked).min(READS),
        };
        self.pair.connect(port, self.first_packet, &peer, TIMING, |_| {
            (0..RECEIVE_SLOTS).try_for_each(|slot| self.post_receive(slot))
        })?;
        Ok(())
    }

    /// The link over a channel that is connected at both ends. `domain`: which of the acceptor's it is in.
    pub(super) fn into_link(self, peer: SocketAddr, domain: Option<usize>, theirs: &Hello) -> Result<Link, LinkError> {
        let max_body_bytes = self.options.max_body_bytes.min(theirs.body_limit);
        let handle = Arc::new(Handle(Some(self)));
        let channel = handle.channel();
        let interests = |of: fn(&State) -> &Sleeper| -> Result<[OwnedFd; 4], LinkError> {
            let again = |fd: std::os::fd::BorrowedFd<'_>| {
                fd.try_clone_to_owned().map_err(|error| LinkError::io("duplicating a descriptor", error))
            };
            Ok([
                again(of(&channel.state.lock()).bell.as_fd())?,
                again(channel.receives.channel().as_fd())?,
                again(channel.sends.channel().as_fd())?,
                again(channel.control.as_fd())?,
            ])
        };
        let sender =
            RdmaSender::new(handle.clone(), interests(|state| &state.sender)?, max_body_bytes, &channel.options);
        let waits = interests(|state| &state.receiver)?;
        let one_sided = OneSided::new(handle.clone(), domain);
        let receiver = RdmaReceiver::new(handle.clone(), waits, one_sided, &channel.options);
        Ok(Link { sender: Box::new(sender), receiver: Box::new(receiver), peer: Peer::Remote(peer) })
    }

    fn post_receive(&self, slot: u32) -> Result<(), RdmaError> {
        let mut piece = self.slots.piece(slot, SLOT_BYTES);
        let mut work = ibv_recv_wr { wr_id: slot.into(), next: ptr::null_mut(), sg_list: &mut piece, num_sge: 1 };
        // SAFETY: slots live as long as the pair, and nobody looks at this one before it has completed.
        unsafe { self.pair.post_receive(&mut work) }
    }

    /// Does something under the lock, then tells of what ended, without it.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        let result = act(&mut state);
        let done = std::mem::take(&mut state.done);
        drop(state);
        for (operation, outcome) in done {
            operation.finish(outcome.map_err(End::error));
        }
        result
    }

    // Completions.

    /// Takes completions, does what follows from them, and wakes those whom they concern.
    pub(super) fn pump(&self, state: &mut State) {
        let mut completions = [ibv_wc::default(); BATCH];
        loop {
            let Ok(count) = self.receives.poll(&mut completions) else { return self.end(state, End::Device) };
            for completion in &completions[..count] {
                self.received(state, completion);
            }
            if count < BATCH {
                break;
            }
        }
        loop {
            let Ok(count) = self.sends.poll(&mut completions) else { return self.end(state, End::Device) };
            for completion in &completions[..count] {
                self.completed(state, completion);
            }
            if count < BATCH {
                break;
            }
        }
        if !state.operations.is_empty() {
            self.post_operations(state);
            self.ring_doorbell(state);
        }
        self.give_credit(state);
        if !state.came.is_empty() {
            state.receiver.wake();
        }
        if state.sender.asleep && self.may_send(state) {
            state.sender.wake();
        }
    }

    fn received(&self, state: &mut State, completion: &ibv_wc) {
        let slot = completion.wr_id as u32;
        if completion.status != IBV_WC_SUCCESS {
            return self.end(state, End::Status(completion.status));
        }
        let len = completion.byte_len as usize;
        let Some(len) = len.checked_sub(SLOT_HEADER_BYTES) else {
            return self.end(state, End::Protocol("a slot without a header"));
        };
        // SAFETY: the slot has completed, and is longer than that; the copy is what is looked at.
        let header = unsafe { self.slots.at(slot).cast::<[u8; SLOT_HEADER_BYTES]>().read() };
        let header = match SlotHeader::decode(header) {
            Ok(header) => header,
            Err(LinkError::Protocol(what)) => return self.end(state, End::Protocol(what)),
            Err(_) => return self.end(state, End::Closed),
        };
        if header.taken.wrapping_sub(state.peer_taken) > state.sent.wrapping_sub(state.peer_taken) {
            return self.end(state, End::Protocol("a credit for what was not sent"));
        }
        state.peer_taken = header.taken;
        if header.has_bytes {
            state.arrived += 1;
            state.came.push_back((slot, len));
        } else if self.post_receive(slot).is_err() {
            self.end(state, End::Device);
        }
    }

    fn completed(&self, state: &mut State, completion: &ibv_wc) {
        // Work is done in order: what was posted before and did not ask to be told of is done as well.
        while state.first_flight <= completion.wr_id {
            let Some(flight) = state.flights.pop_front() else { break };
            let is_it = state.first_flight == completion.wr_id;
            state.first_flight += 1;
            match flight {
                Flight::Slot(slot) => state.free_slots.push(slot),
                Flight::Nothing => {}
                Flight::Operation(operation) => {
                    state.awaited -= usize::from(operation.is_awaited());
                    let outcome = match completion.status {
                        IBV_WC_SUCCESS => Ok(()),
                        _ if !is_it => Ok(()),
                        IBV_WC_WR_FLUSH_ERR => Err(state.end.unwrap_or(End::Closed)),
                        status => Err(End::Status(status)),
                    };
                    state.done.push((operation, outcome));
                }
            }
        }
        if completion.status != IBV_WC_SUCCESS {
            self.end(state, End::Status(completion.status));
        }
    }

    /// The channel is of no more use.
    fn end(&self, state: &mut State, end: End) {
        if state.end.is_none() {
            state.end = Some(end);
            if !matches!(end, End::Status(_)) {
                // One that failed by itself is in error already.
                let _ = self.pair.fail();
            }
            let left = std::mem::take(&mut state.operations);
            state.done.extend(left.into_iter().map(|operation| (operation, Err(end))));
        }
        state.receiver.wake();
        state.sender.wake();
    }

    /// Fences the peer: its requests are refused from now on. What was on its way ends.
    pub(super) fn fail(&self) {
        let started = Instant::now();
        self.with(|state| {
            self.end(state, End::Closed);
            let _ = self.pair.fail();
        });
        // The device gives everything back at once, in its own thread if it is software.
        while !self.with(|state| {
            self.pump(state);
            state.flights.is_empty()
        }) && started.elapsed() < FLUSH
        {
            std::thread::yield_now();
        }
    }

    // The control channel.

    /// Hears what was said on the control channel. Whether there was anything.
    fn listen(&self, state: &mut State) -> bool {
        let mut news = false;
        while !state.peer_gone {
            let mut buffer = [0; 32];
            match recv(&self.control, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((_, count @ 1..)) => state.heard.extend_from_slice(&buffer[..count]),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Ok((_, 0)) | Err(_) => state.peer_gone = true,
            }
            news = true;
            loop {
                match *state.heard {
                    [SENDER_GONE, a, b, c, d, e, f, g, h, ..] => {
                        state.peer_end = Some(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
                        state.heard.drain(..9);
                    }
                    [RECEIVER_GONE, ..] => {
                        state.deaf = true;
                        state.heard.drain(..1);
                    }
                    [] | [SENDER_GONE, ..] => break,
                    _ => {
                        self.end(state, End::Protocol("something else on a control channel"));
                        return true;
                    }
                }
            }
        }
        if news {
            state.receiver.wake();
            state.sender.wake();
        }
        news
    }

    // Sending.

    fn may_send(&self, state: &State) -> bool {
        let may_not = state.end.is_some() || state.deaf || state.peer_gone;
        may_not || (self.has_credit(state) && !state.free_slots.is_empty() && self.room(state) > 0)
    }

    fn has_credit(&self, state: &State) -> bool {
        state.sent.wrapping_sub(state.peer_taken) < WINDOW
    }

    /// How many work requests may be posted, or added to those that will be, besides credits.
    fn room(&self, state: &State) -> usize {
        let used = state.flights.len() + state.chain.works.len();
        self.pair.sends().saturating_sub(CREDIT_SENDS + used)
    }

    /// Sends what there is in `queue`, and what operations wait, as far as it goes; `turn_bytes` at most. Whether that is all.
    pub(super) fn send(&self, queue: &mut Queue, turn_bytes: u64) -> Result<bool, LinkError> {
        self.with(|state| {
            state.sender.asleep = false;
            state.sender.silence();
            let mut turn = turn_bytes;
            let mut pumped = false;
            loop {
                self.check_sending(state)?;
                self.post_operations(state);
                // What was written before a message has to be in its place before it.
                let stopped = state.operations.iter().any(Operation::is_write);
                while !queue.is_empty() && turn > 0 && !stopped && self.has_credit(state) && self.room(state) > 0 {
                    let Some(slot) = state.free_slots.pop() else { break };
                    turn = turn.saturating_sub(self.fill(state, slot, queue) as u64);
                }
                self.ring_doorbell(state);
                if queue.is_empty() && !state.operations.iter().any(Operation::is_write) {
                    return Ok(true);
                }
                if turn == 0 {
                    state.sender.stay_ready();
                    return Ok(false);
                }
                if !std::mem::replace(&mut pumped, true) || self.may_send(state) && !stopped {
                    self.pump(state);
                    self.listen(state);
                    continue;
                }
                state.sender.asleep = true;
                self.arm(state);
                // Somebody may have become ready meanwhile.
                if state.sender.asleep {
                    return Ok(false);
                }
            }
        })
    }

    fn check_sending(&self, state: &State) -> Result<(), LinkError> {
        match state.end {
            Some(end) => Err(end.error()),
            None if state.deaf || state.peer_gone => Err(LinkError::Closed),
            None => Ok(()),
        }
    }

    /// Whether anything can be sent, without looking for news.
    pub(super) fn alive(&self) -> Result<(), LinkError> {
        self.with(|state| self.check_sending(state))
    }

    /// Fills a slot and adds it to the chain. How many bytes of the queue it took.
    fn fill(&self, state: &mut State, slot: u32, queue: &mut Queue) -> usize {
        let start = self.slots.at(slot);
        let mut len = SLOT_HEADER_BYTES;
        while len < SLOT_BYTES && !queue.is_empty() {
            let mut pieces = [IoSlice::new(&[]); GATHERED_PIECES];
            let count = queue.gather(&mut pieces);
            let mut copied = 0;
            for piece in &pieces[..count] {
                let part = piece.len().min(SLOT_BYTES - len);
                // SAFETY: a slot that is free is ours, and has room for so much.
                unsafe { start.add(len).copy_from_nonoverlapping(piece.as_ptr(), part) };
                len += part;
                copied += part;
            }
            queue.advance(copied);
        }
        state.sent = state.sent.wrapping_add(1);
        state.sent_in_all += 1;
        state.told = state.taken;
        let header = SlotHeader { taken: state.taken, has_bytes: true }.encode();
        // SAFETY: as above.
        unsafe { start.cast::<[u8; SLOT_HEADER_BYTES]>().write(header) };
        self.add_slot(state, slot, len);
        len - SLOT_HEADER_BYTES
    }

    fn add_slot(&self, state: &mut State, slot: u32, len: usize) {
        let mut work = ibv_send_wr::new(IBV_WR_SEND, 0);
        work.send_flags = 0;
        if len <= self.pair.inline_bytes() {
            work.send_flags = IBV_SEND_INLINE;
        }
        state.chain.works.push(work);
        state.chain.pieces.push(self.slots.piece(slot, len));
        state.chain.flights.push(Flight::Slot(slot));
    }

    /// Tells the peer what was taken, if it may be waiting for that.
    fn give_credit(&self, state: &mut State) {
        if !state.owes_credit() || state.end.is_some() {
            return;
        }
        // Without a slot, when one has come back.
        let Some(slot) = state.free_slots.pop() else { return };
        state.told = state.taken;
        let header = SlotHeader { taken: state.taken, has_bytes: false }.encode();
        // SAFETY: a slot that is free is ours.
        unsafe { self.slots.at(slot).cast::<[u8; SLOT_HEADER_BYTES]>().write(header) };
        self.add_slot(state, slot, SLOT_HEADER_BYTES);
        self.ring_doorbell(state);
    }

    // Operations.

    /// Adds an operation. It is posted at once, or with what is sent next.
    pub(super) fn operate(&self, operation: Operation, now: bool) {
        self.with(|state| {
            if let Some(end) = state.end {
                state.done.push((operation, Err(end)));
                return;
            }
            state.operations.push_back(operation);
            if now {
                self.post_operations(state);
                self.ring_doorbell(state);
                if state.receiver.asleep {
                    // It is to see the end of it.
                    self.arm(state);
                }
            }
        });
    }

    /// Takes completions; whether `done` says that this was enough.
    pub(super) fn look(&self, done: impl Fn() -> bool) -> bool {
        self.with(|state| self.pump(state));
        done()
    }

    fn post_operations(&self, state: &mut State) {
        while let Some(operation) = state.operations.front_mut() {
            let used = state.flights.len() + state.chain.works.len();
            if self.pair.sends().saturating_sub(CREDIT_SENDS + used) == 0 {
                return;
            }
            let (work, piece, is_last) = operation.next_work(self.adapter.port.max_message_bytes);
            state.chain.works.push(work);
            state.chain.pieces.push(piece);
            if is_last {
                let operation = state.operations.pop_front().expect("looked at");
                state.awaited += usize::from(operation.is_awaited());
                state.chain.flights.push(Flight::Operation(operation));
            } else {
                state.chain.flights.push(Flight::Nothing);
            }
        }
    }

    /// Posts the chain.
    fn ring_doorbell(&self, state: &mut State) {
        let count = state.chain.works.len();
        if count == 0 {
            return;
        }
        let State { chain: Chain { works, pieces, flights }, .. } = state;
        for index in 0..count {
            let next = works.as_mut_ptr().wrapping_add(index + 1);
            let work = &mut works[index];
            work.wr_id = state.first_flight + (state.flights.len() + index) as u64;
            work.sg_list = &mut pieces[index];
            work.num_sge = 1;
            work.next = if index + 1 < count { next } else { ptr::null_mut() };
            state.unsignaled += 1;
            let is_awaited = matches!(&flights[index], Flight::Operation(operation) if operation.is_awaited());
            if is_awaited || index + 1 == count || state.unsignaled >= SIGNAL_EVERY {
                work.send_flags |= IBV_SEND_SIGNALED;
                state.unsignaled = 0;
            }
        }
        // SAFETY: chain and pieces stand still during the call; slots live as long as the pair, and operations keep their memory
        // until they have completed (invariant 3).
        let posted = unsafe { self.pair.post_send(works.as_mut_ptr()) };
        works.clear();
        pieces.clear();
        state.flights.extend(flights.drain(..));
        if posted.is_err() {
            self.end(state, End::Device);
        }
    }

    // Receiving.

    /// Gives the slot back that was read, and takes the next one: where it is, and how many bytes are in it. `None`: the
    /// receiver sleeps.
    pub(super) fn take(&self, read: Option<u32>) -> Result<Option<(u32, usize)>, LinkError> {
        self.with(|state| {
            state.receiver.asleep = false;
            state.receiver.silence();
            if let Some(slot) = read {
                state.taken = state.taken.wrapping_add(1);
                if state.end.is_none() && self.post_receive(slot).is_err() {
                    self.end(state, End::Device);
                }
                self.give_credit(state);
            }
            for attempt in 0.. {
                if state.came.is_empty() {
                    self.pump(state);
                }
                if let Some((slot, len)) = state.came.pop_front() {
                    return Ok(Some((slot, len)));
                }
                if state.peer_end == Some(state.arrived) {
                    return Err(LinkError::Closed);
                }
                match state.end {
                    Some(end) => return Err(end.error()),
                    None if state.peer_gone && attempt > 0 => return Err(LinkError::Closed),
                    None => {}
                }
                if self.listen(state) || state.peer_gone {
                    // What it sent before is there by now.
                    continue;
                }
                state.receiver.asleep = true;
                self.arm(state);
                if state.receiver.asleep {
                    return Ok(None);
                }
            }
            unreachable!("it returns")
        })
    }

    /// The bytes of a slot that came. Nobody else looks at it before it is given back.
    pub(super) fn slot(&self, slot: u32, len: usize) -> &[u8] {
        // SAFETY: it has completed, with a header and so many bytes, and is posted again only when it is given back.
        unsafe { std::slice::from_raw_parts(self.slots.at(slot).add(SLOT_HEADER_BYTES), len) }
    }

    /// Whether the receiver has something to say, as far as can be told without sleeping.
    pub(super) fn has_come(&self) -> bool {
        self.with(|state| {
            self.pump(state);
            !state.came.is_empty() || state.end.is_some() || state.peer_end == Some(state.arrived)
        })
    }

    // Sleeping.

    /// Takes the events that were asked for. Whoever does has to arm again for all who sleep, and to look at what came.
    fn take_events(&self, state: &mut State) {
        if state.armed_receives && self.receives.take_events() {
            state.armed_receives = false;
        }
        if state.armed_sends && self.sends.take_events() {
            state.armed_sends = false;
        }
    }

    /// Sees to it that whoever sleeps is woken (invariant 4).
    fn arm(&self, state: &mut State) {
        // What was asked for before may have been given, to one who was awake by then.
        self.take_events(state);
        loop {
            let waits_for_sends = state.awaited + state.operations.len() > 0 || state.owes_credit();
            let for_sends = state.sender.asleep || (state.receiver.asleep && waits_for_sends);
            let for_receives = state.sender.asleep || state.receiver.asleep;
            let mut armed = Ok(());
            if for_receives && !state.armed_receives {
                armed = armed.and_then(|()| self.receives.arm());
                state.armed_receives = true;
            } else if for_sends && !state.armed_sends {
                armed = armed.and_then(|()| self.sends.arm());
                state.armed_sends = true;
            } else {
                return;
            }
            if armed.is_err() {
                return self.end(state, End::Device);
            }
            // What came before.
            self.pump(state);
        }
    }

    /// Has the receiver's descriptors be ready, though it may not have been woken.
    pub(super) fn keep_receiver_ready(&self) {
        self.with(|state| state.receiver.stay_ready());
    }

    // The end.

    /// The half that sends is gone: the peer is told after how many slots.
    pub(super) fn sender_gone(&self) {
        let sent = self.with(|state| state.sent_in_all);
        let mut message = [SENDER_GONE; 9];
        message[1..].copy_from_slice(&sent.to_le_bytes());
        // A peer that is gone need not know.
        let _ = say(&self.control, &message);
    }

    /// The half that receives is gone.
    pub(super) fn receiver_gone(&self) {
        let _ = say(&self.control, &[RECEIVER_GONE]);
    }

    /// Whether nothing is on its way any more.
    fn is_idle(&self) -> bool {
        self.with(|state| {
            self.pump(state);
            state.end.is_some() || (state.flights.is_empty() && state.operations.is_empty())
        })
    }
}

/// A channel that whoever uses it last leaves to end in its own time.
pub(super) struct Handle(Option<Channel>);

impl Handle {
    pub(super) fn channel(&self) -> &Channel {
        self.0.as_ref().expect("taken when it is dropped")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let channel = self.0.take().expect("dropped once");
        let started = Instant::now();
        while !channel.is_idle() {
            if started.elapsed() > LINGER_HERE {
                let linger = move || {
                    while !channel.is_idle() && started.elapsed() < LINGER {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                };
                // Without a thread what is on its way may be lost, as it is when a process ends.
                let _ = std::thread::Builder::new().name("dmrpc-rdma-end".into()).spawn(linger);
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// What a half waits on: descriptors of its own.
pub(super) fn interests(fds: &[OwnedFd]) -> Interests<'_> {
    fds.iter().map(|fd| Interest { fd: fd.as_fd(), writable: false }).collect()
}
