//! The queue pairs of a link, and all that is on its way over them.
//!
//! Both halves of a link and whoever reaches the peer's memory share a channel, under one short lock. Whoever comes by pumps: takes
//! completions, and wakes those whom they concern.
//!
//! A channel has two lanes, each a queue pair of its own: one for messages and what has to be done in their order, and one for
//! large operations, so that no message waits behind those.

use super::adapter::Adapter;
use super::chain::Flight;
use super::control::{Farewells, say_receiver_gone, say_sender_gone};
use super::end::End;
use super::handle::Handle;
use super::hello::Hello;
use super::lane::Lane;
use super::one_sided::{OneSided, Operation};
use super::receiver::RdmaReceiver;
use super::sender::RdmaSender;
use super::sleeper::Sleeper;
use super::slots::{RECEIVE_SLOTS, SEND_SLOTS, SLOT_BYTES, SLOT_HEADER_BYTES, SlotHeader, Slots};
use super::traffic::Traffic;
use super::window::Window;
use crate::link::{Interest, Interests, Link, LinkError, Peer};
use crate::options::LinkOptions;
use crate::queue::Queue;
use dmrpc_rdma_sys::raw::*;
use dmrpc_rdma_sys::{CompletionQueue, ProtectionDomain, QueuePair, QueuePairOptions, RdmaError, Timing};
use parking_lot::Mutex;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Work requests that the queue pair for messages holds.
const SENDS: u32 = 256;
/// Work requests that the one for large operations holds.
const BULK_SENDS: u32 = 64;
/// Of these, kept for credits.
const CREDIT_SENDS: usize = 8;
/// Up to here what is sent is copied when it is posted: the device need not fetch it. More makes work requests larger.
const INLINE_BYTES: u32 = 188;
/// A peer that does not answer is given up after 0.13 s × 7, on hardware up to four times that.
const TIMING: Timing = Timing { timeout: 15, retries: 6 };
/// The most READs that a peer is asked to answer at a time.
const READS: u8 = 16;
/// Completions taken at a time.
const BATCH: usize = 32;
/// Pieces of a message that are put into a slot at a time.
const GATHERED_PIECES: usize = 32;
/// Of so many looks in vain at what came, one is at the control channel as well.
const LOOKS_A_LISTENING: u32 = 256;
/// How long a device may take to give back what was posted to a queue pair in error.
const FLUSH: Duration = Duration::from_millis(20);
/// Queue pairs with their queues, slots and control channel.
pub(super) struct Channel {
    // Gone before what they work on.
    pairs: [QueuePair; 2],
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

pub(super) struct State {
    lanes: [Traffic; 2],
    free_slots: Vec<u32>,
    /// Of the operations that are posted, how many somebody waits for.
    awaited: usize,
    window: Window,
    /// Slots of bytes that came and are not taken yet, with their length.
    came: VecDeque<(u32, usize)>,
    /// How many came in all.
    arrived: u64,
    /// Looks in vain since the control channel was heard.
    looks: u32,
    /// What ended, to be told when the lock is free.
    done: Vec<(Operation, Result<(), End>)>,
    end: Option<End>,
    farewells: Farewells,
    receiver: Sleeper,
    sender: Sleeper,
    /// Whether the channels become readable at the next completion, or are.
    armed_sends: bool,
    armed_receives: bool,
}

impl State {
    fn lane(&mut self, lane: Lane) -> &mut Traffic {
        &mut self.lanes[lane as usize]
    }

    /// Whether all that the peer sends has come.
    fn has_all(&self) -> bool {
        self.farewells.peer_end == Some(self.arrived)
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
        let sends = CompletionQueue::new(device, SENDS + BULK_SENDS + 1)?;
        let receives = CompletionQueue::new(device, RECEIVE_SLOTS + 1)?;
        let sizes = QueuePairOptions { sends: SENDS, receives: RECEIVE_SLOTS, inline_bytes: INLINE_BYTES };
        let messages = QueuePair::new(domain, (&sends, &receives), sizes)?;
        // Nothing is sent to it: what it is for names its own memory.
        let sizes = QueuePairOptions { sends: BULK_SENDS, receives: 1, inline_bytes: 0 };
        let bulk = QueuePair::new(domain, (&sends, &receives), sizes)?;
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|_| LinkError::io("drawing random bytes", Errno::AGAIN))?;
        let state = State {
            lanes: Default::default(),
            free_slots: (RECEIVE_SLOTS..RECEIVE_SLOTS + SEND_SLOTS).collect(),
            awaited: 0,
            window: Window::default(),
            came: VecDeque::new(),
            arrived: 0,
            looks: 0,
            done: Vec::new(),
            end: None,
            farewells: Farewells::default(),
            receiver: Sleeper::new()?,
            sender: Sleeper::new()?,
            armed_sends: false,
            armed_receives: false,
        };
        Ok(Self {
            pairs: [messages, bulk],
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

    /// The number of the queue pair of a lane.
    pub(super) fn number(&self, lane: Lane) -> u32 {
        self.pair(lane).number()
    }

    fn pair(&self, lane: Lane) -> &QueuePair {
        &self.pairs[lane as usize]
    }

    pub(super) fn first_packet(&self) -> u32 {
        self.first_packet
    }

    pub(super) fn max_body_bytes(&self) -> u64 {
        self.options.max_body_bytes
    }

    /// Connects the queue pairs to the peer's. Receives are posted first: whatever comes finds one.
    pub(super) fn connect(&self, theirs: &Hello) -> Result<(), LinkError> {
        let (port, limits) = (&self.adapter.port, self.adapter.device.limits());
        let peer = |number| dmrpc_rdma_sys::Peer {
            gid: theirs.gid,
            number,
            first_packet: theirs.first_packet,
            mtu: theirs.mtu.min(port.mtu),
            reads_answered: limits.max_reads_answered.min(READS),
            reads_asked: theirs.reads.min(limits.max_reads_asked).min(READS),
        };
        let bulk = self.pair(Lane::Bulk);
        bulk.connect(port, self.first_packet, &peer(theirs.bulk_number), TIMING, |_| Ok(()))?;
        let messages = self.pair(Lane::Messages);
        messages.connect(port, self.first_packet, &peer(theirs.number), TIMING, |_| {
            (0..RECEIVE_SLOTS).try_for_each(|slot| self.post_receive(slot))
        })?;
        Ok(())
    }

    /// The link over a channel that is connected at both ends. `domain`: which of the acceptor's it is in.
    pub(super) fn into_link(self, peer: SocketAddr, domain: Option<usize>, theirs: &Hello) -> Result<Link, LinkError> {
        let max_body_bytes = self.options.max_body_bytes.min(theirs.body_limit);
        let handle = Arc::new(Handle::new(self));
        let channel = handle.channel();
        let interests = |of: fn(&State) -> &Sleeper| -> Result<[OwnedFd; 4], LinkError> {
            let again = |fd: std::os::fd::BorrowedFd<'_>| {
                fd.try_clone_to_owned().map_err(|error| LinkError::io("duplicating a descriptor", error))
            };
            Ok([
                again(of(&channel.state.lock()).as_fd())?,
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
        unsafe { self.pair(Lane::Messages).post_receive(&mut work) }
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
        for lane in Lane::ALL {
            if state.lane(lane).waiting() > 0 {
                self.post_operations(state, lane);
                self.ring_doorbell(state, lane);
            }
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
        if !state.window.hear(header.taken) {
            return self.end(state, End::Protocol("a credit for what was not sent"));
        }
        if header.has_bytes {
            state.arrived += 1;
            state.came.push_back((slot, len));
        } else if self.post_receive(slot).is_err() {
            self.end(state, End::Device);
        }
    }

    fn completed(&self, state: &mut State, completion: &ibv_wc) {
        let (lane, number) = Lane::of_work(completion.wr_id);
        while let Some((flight, is_it)) = state.lane(lane).land(number) {
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
            self.refuse();
            for lane in Lane::ALL {
                let left = state.lane(lane).take_operations();
                state.done.extend(left.into_iter().map(|operation| (operation, Err(end))));
            }
        }
        state.receiver.wake();
        state.sender.wake();
    }

    /// Has the device do nothing more over the queue pairs, for either side.
    fn refuse(&self) {
        for pair in &self.pairs {
            // One that failed by itself is in error already.
            let _ = pair.fail();
        }
    }

    /// Fences the peer: its requests are refused from now on. What was on its way ends.
    pub(super) fn fail(&self) {
        let started = Instant::now();
        self.with(|state| {
            self.end(state, End::Closed);
            self.refuse();
        });
        // The device gives everything back at once, in its own thread if it is software.
        while !self.with(|state| {
            self.pump(state);
            state.lanes.iter().all(Traffic::has_landed)
        }) && started.elapsed() < FLUSH
        {
            std::thread::yield_now();
        }
    }

    // The control channel.

    /// Hears what was said on the control channel. Whether there was anything.
    fn listen(&self, state: &mut State) -> bool {
        let news = match state.farewells.hear(&self.control) {
            Ok(news) => news,
            Err(what) => {
                self.end(state, End::Protocol(what));
                return true;
            }
        };
        if news {
            state.receiver.wake();
            state.sender.wake();
        }
        news
    }

    // Sending.

    fn may_send(&self, state: &State) -> bool {
        let may_not = state.end.is_some() || state.farewells.deaf || state.farewells.peer_gone;
        may_not || (state.window.has_credit() && !state.free_slots.is_empty() && self.room(state) > 0)
    }

    /// How many work requests may be posted with messages, or added to those that will be, besides credits.
    fn room(&self, state: &State) -> usize {
        self.room_of(Lane::Messages, &state.lanes[Lane::Messages as usize])
    }

    fn room_of(&self, lane: Lane, traffic: &Traffic) -> usize {
        let kept = if lane == Lane::Messages { CREDIT_SENDS } else { 0 };
        self.pair(lane).sends().saturating_sub(kept + traffic.used())
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
                self.post_operations(state, Lane::Messages);
                // What was written before a message has to be in its place before it.
                let stopped = state.lane(Lane::Messages).has_writes();
                while !queue.is_empty() && turn > 0 && !stopped && state.window.has_credit() && self.room(state) > 0 {
                    let Some(slot) = state.free_slots.pop() else { break };
                    turn = turn.saturating_sub(self.fill(state, slot, queue) as u64);
                }
                self.ring_doorbell(state, Lane::Messages);
                if queue.is_empty() && !state.lane(Lane::Messages).has_writes() {
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
            None if state.farewells.deaf || state.farewells.peer_gone => Err(LinkError::Closed),
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
        state.window.send();
        let header = SlotHeader { taken: state.window.tell(), has_bytes: true }.encode();
        // SAFETY: as above.
        unsafe { start.cast::<[u8; SLOT_HEADER_BYTES]>().write(header) };
        self.add_slot(state, slot, len);
        len - SLOT_HEADER_BYTES
    }

    fn add_slot(&self, state: &mut State, slot: u32, len: usize) {
        let mut work = ibv_send_wr::new(IBV_WR_SEND, 0);
        work.send_flags = 0;
        if len <= self.pair(Lane::Messages).inline_bytes() {
            work.send_flags = IBV_SEND_INLINE;
        }
        let piece = self.slots.piece(slot, len);
        state.lane(Lane::Messages).add_slot(work, piece, slot);
    }

    /// Tells the peer what was taken, if it may be waiting for that.
    fn give_credit(&self, state: &mut State) {
        if !state.window.owes_credit() || state.end.is_some() {
            return;
        }
        // Without a slot, when one has come back.
        let Some(slot) = state.free_slots.pop() else { return };
        let header = SlotHeader { taken: state.window.tell(), has_bytes: false }.encode();
        // SAFETY: a slot that is free is ours.
        unsafe { self.slots.at(slot).cast::<[u8; SLOT_HEADER_BYTES]>().write(header) };
        self.add_slot(state, slot, SLOT_HEADER_BYTES);
        self.ring_doorbell(state, Lane::Messages);
    }

    // Operations.

    /// Adds an operation. It is posted at once, or with what is sent next.
    pub(super) fn operate(&self, operation: Operation, lane: Lane, now: bool) {
        self.with(|state| {
            if let Some(end) = state.end {
                state.done.push((operation, Err(end)));
                return;
            }
            state.lane(lane).add_operation(operation);
            if now {
                self.post_operations(state, lane);
                self.ring_doorbell(state, lane);
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

    fn post_operations(&self, state: &mut State, lane: Lane) {
        let room = self.room_of(lane, state.lane(lane));
        let awaited = state.lane(lane).chain_operations(room, self.adapter.port.max_message_bytes);
        state.awaited += awaited;
    }

    /// Posts the chain of a lane.
    fn ring_doorbell(&self, state: &mut State, lane: Lane) {
        let traffic = state.lane(lane);
        let Some(first) = traffic.link_up(lane) else { return };
        // SAFETY: the chain stands still during the call; slots live as long as the pair, and operations keep their memory until
        // they have completed (invariant 3).
        let posted = unsafe { self.pair(lane).post_send(first) };
        traffic.posted();
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
                state.window.take();
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
                if state.has_all() {
                    return Err(LinkError::Closed);
                }
                match state.end {
                    Some(end) => return Err(end.error()),
                    None if state.farewells.peer_gone && attempt > 0 => return Err(LinkError::Closed),
                    None => {}
                }
                if self.listen(state) || state.farewells.peer_gone {
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

    /// Whether the receiver has something to say besides what is in the slot that it reads. The control channel, which costs a
    /// system call, is heard at one look of many.
    pub(super) fn has_come(&self) -> bool {
        self.with(|state| {
            // Whoever looks need not be woken.
            state.receiver.asleep = false;
            self.pump(state);
            let has_come = |state: &State| {
                !state.came.is_empty() || state.end.is_some() || state.farewells.peer_gone || state.has_all()
            };
            if has_come(state) {
                return true;
            }
            state.looks = (state.looks + 1) % LOOKS_A_LISTENING;
            state.looks == 0 && self.listen(state) && has_come(state)
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
            let waiting = state.lanes.iter().map(Traffic::waiting).sum::<usize>();
            let waits_for_sends = state.awaited + waiting > 0 || state.window.owes_credit();
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
        let sent = self.with(|state| state.window.sent_in_all());
        say_sender_gone(&self.control, sent);
    }

    /// The half that receives is gone.
    pub(super) fn receiver_gone(&self) {
        say_receiver_gone(&self.control);
    }

    /// Whether nothing is on its way any more.
    pub(super) fn is_idle(&self) -> bool {
        self.with(|state| {
            self.pump(state);
            state.end.is_some() || state.lanes.iter().all(Traffic::is_idle)
        })
    }
}

/// What a half waits on: descriptors of its own.
pub(super) fn interests(fds: &[OwnedFd]) -> Interests<'_> {
    fds.iter().map(|fd| Interest { fd: fd.as_fd(), writable: false }).collect()
}
