//! Sessions as [`Link`]s, and the listener that accepts them.
//!
//! Whoever has something to do turns the endpoint: a sender when it flushes, a receiver when it finds nothing; and while all
//! sleep, whoever waits on the device and the timer. That is the listener for the links that it accepted, so it should be
//! kept and asked as long as they live, and either half for a link that was connected. So nobody's message has to pass
//! through another thread. What nobody sees to (the last acknowledgements of a link that is not read any more, what a
//! dropped link has still to send) is left to the endpoint's keeper, a thread that turns it when something has been due for
//! `KEEPER_NS` and else sleeps.
//!
//! Several endpoints at one address are lanes: see [`Device::lane`]. A listener has links of all; it turns the first itself, and a
//! thread, its mover, each other one, so that what comes over it is in its place when the listener's owner hears of it.

use super::clock::Clock;
use super::device::Device;
use super::endpoint::{Endpoint, EndpointOptions, SessionKey, Sleeper, Standing};
use super::{Head, News};
use crate::link::{Body, Incoming, Interest, Interests, Link, LinkError, Peer, Receiver, Sender};
use crate::link::{Target, TrySendError, check_lengths};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How often a device is looked at that can't be waited on, while nobody spins on it.
const POLL_INTERVAL_NS: u64 = 50_000;
/// The same when nothing has come for [`IDLE_NS`].
const IDLE_POLL_INTERVAL_NS: u64 = 500_000;
const IDLE_NS: u64 = 20_000_000;
/// The soonest that a device without room is asked again.
const ROOM_NS: u64 = 10_000;

/// How often a device is looked at without letting others have it meanwhile.
const LOOKS_A_TURN: u32 = 4;

/// For so long after something came a mover looks for more all the time, before it waits.
const MOVER_SPIN_NS: u64 = 100_000;
/// Looks at a lane that found nothing, between two of which others have a chance to get at it.
const MOVER_PAUSES: u32 = 8;
/// The longest that a mover waits without looking whether it is still wanted.
const MOVER_WAIT: Duration = Duration::from_millis(100);

/// The keeper does what others have not done for so long.
const KEEPER_NS: u64 = 5_000_000;
/// What is due later than this is no reason for the keeper to stay awake.
const SOON_NS: u64 = 100_000_000;

/// Says where a device's peer is, for people and for access checks.
pub trait PlaceOfPeer {
    /// The peer.
    fn peer(&self) -> Peer;
}

impl PlaceOfPeer for std::net::SocketAddr {
    fn peer(&self) -> Peer {
        Peer::Remote(*self)
    }
}

/// An eventfd that one half sleeps on.
struct Doorbell {
    fd: Arc<OwnedFd>,
    rung: bool,
    /// What a loop that polls calls the half.
    tag: Option<u64>,
}

impl Doorbell {
    fn new() -> Result<Self, LinkError> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| LinkError::io("making an eventfd", error))?;
        Ok(Self { fd: Arc::new(fd), rung: false, tag: None })
    }

    fn ring(&mut self) {
        if !std::mem::replace(&mut self.rung, true) {
            // It can only fail when the counter is full, and then it is readable anyhow.
            let _ = rustix::io::write(&*self.fd, &1u64.to_ne_bytes());
        }
    }

    fn silence(&mut self) {
        if std::mem::take(&mut self.rung) {
            let _ = rustix::io::read(&*self.fd, &mut [0u8; 8]);
        }
    }
}

struct Doorbells {
    receiver: Doorbell,
    sender: Doorbell,
}

struct Turning<D: Device> {
    endpoint: Endpoint<D>,
    clock: Clock,
    /// Those of a session at its index.
    doorbells: Vec<Option<Doorbells>>,
    /// When the timer goes off.
    armed: u64,
    /// When the endpoint was turned last.
    turned: u64,
    /// When something came last.
    heard: u64,
    /// Whether a look without a budget may rely on the last turn, which found all that there was.
    fresh: bool,
    /// Whether the device was told that somebody waits on it.
    resting: bool,
    /// Whether the listener's owner waits on its descriptors, for all links that it accepted.
    listener_waits: bool,
    /// Whether the listener's owner turns the endpoint all the time, and takes `ready` instead of bells.
    polled: bool,
    /// Whether the endpoint has a mover, and whether it waits.
    moved: bool,
    mover_waits: bool,
    /// Receivers for which there is something, by their tags.
    ready: Vec<u64>,
    /// The keeper, while it sleeps for long.
    asleep: Option<Thread>,
    /// The endpoint itself, which stays for its orphans when everybody else is gone.
    orphanage: Option<Arc<Shared<D>>>,
}

/// An endpoint that several links share.
pub(super) struct Shared<D: Device> {
    turning: Mutex<Turning<D>>,
    timer: OwnedFd,
    /// The descriptors of device and timer, again: these can be lent without the lock.
    fds: Vec<OwnedFd>,
    /// Whether the device can be waited on.
    has_fds: bool,
}

impl<D: Device> Turning<D> {
    /// Moves everything on.
    #[inline]
    fn turn(&mut self) -> Result<(), LinkError> {
        let now = self.clock.now();
        self.turned = now;
        if self.resting {
            self.resting = false;
            self.endpoint.rest(false);
        }
        if self.endpoint.poll(now)? {
            self.heard = now;
        }
        self.fresh = true;
        if self.endpoint.has_awake() {
            self.wake();
        }
        Ok(())
    }

    /// Whether something is due before long.
    fn is_busy(&self, now: u64) -> bool {
        self.endpoint.next_timeout() < now + SOON_NS
    }

    fn wake(&mut self) {
        for (key, sleeper) in self.endpoint.take_awake() {
            if let Some(Some(doorbells)) = self.doorbells.get_mut(key.index()) {
                let doorbell = match sleeper {
                    Sleeper::Receiver => &mut doorbells.receiver,
                    Sleeper::Sender => &mut doorbells.sender,
                };
                match doorbell.tag {
                    Some(tag) if self.polled => self.ready.push(tag),
                    _ => doorbell.ring(),
                }
            }
        }
    }

    fn doorbells(&mut self, key: SessionKey) -> Option<&mut Doorbells> {
        self.doorbells.get_mut(key.index())?.as_mut()
    }
}

impl<D: Device> Shared<D> {
    pub(super) fn new(device: D, options: EndpointOptions) -> Result<Arc<Self>, LinkError> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
            .map_err(|error| LinkError::io("making a timer", error))?;
        let interests = device.interests();
        let has_fds = !interests.is_empty();
        let fds = again(interests.iter().map(|interest| interest.fd).chain([timer.as_fd()]))?;
        drop(interests);
        let endpoint = Endpoint::new(device, options, Box::new(random));
        let shared = Arc::new(Self {
            turning: Mutex::new(Turning {
                endpoint,
                clock: Clock::new(),
                doorbells: Vec::new(),
                armed: u64::MAX,
                turned: 0,
                heard: 0,
                fresh: false,
                resting: false,
                listener_waits: false,
                polled: false,
                moved: false,
                mover_waits: false,
                ready: Vec::new(),
                asleep: None,
                orphanage: None,
            }),
            timer,
            fds,
            has_fds,
        });
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("dmrpc-datagram".into())
            .spawn(move || keep(&weak))
            .map_err(|error| LinkError::io("starting a thread", error))?;
        Ok(shared)
    }

    /// Looks at the device.
    pub(super) fn with_device<R>(&self, look: impl FnOnce(&D) -> R) -> R {
        look(self.turning.lock().endpoint.device())
    }

    /// Sees to it that whoever sleeps is woken when the endpoint must be turned next, and the keeper if nobody else is there.
    #[inline]
    fn arm(&self, turning: &mut Turning<D>, now: u64) -> Result<(), LinkError> {
        if turning.polled && !turning.moved {
            return Ok(());
        }
        if turning.asleep.is_some() && turning.is_busy(now) {
            turning.asleep.take().expect("it was there").unpark();
        }
        if turning.moved {
            // While it looks all the time, nobody needs the timer but to hear of what it found.
            if !(turning.mover_waits || turning.listener_waits && turning.endpoint.has_accepted()) {
                return Ok(());
            }
        } else if turning.endpoint.sleeping() == 0 && !turning.listener_waits {
            return Ok(());
        }
        self.arm_timer(turning, now)
    }

    fn arm_timer(&self, turning: &mut Turning<D>, now: u64) -> Result<(), LinkError> {
        if self.has_fds && !turning.resting && turning.endpoint.rest(true) {
            turning.endpoint.poll(now)?;
            turning.wake();
            turning.resting = true;
        }
        // Times are put off lazily: most that have come mean nothing any more.
        if turning.endpoint.next_timeout() <= now {
            turning.endpoint.expire(now);
            turning.endpoint.transmit(now)?;
        }
        let mut due = match turning.endpoint.next_timeout() {
            0 => now + ROOM_NS,
            // Somebody other than the listener took a hello in.
            _ if turning.listener_waits && turning.endpoint.has_accepted() => now,
            due => due,
        };
        if !self.has_fds {
            let idle = now.saturating_sub(turning.heard) > IDLE_NS;
            due = due.min(now + if idle { IDLE_POLL_INTERVAL_NS } else { POLL_INTERVAL_NS });
        }
        if due < turning.armed || turning.armed <= now {
            turning.armed = due;
            let wait = if due == u64::MAX { 0 } else { due.saturating_sub(now).max(1) };
            let value = Timespec { tv_sec: (wait / 1_000_000_000) as i64, tv_nsec: (wait % 1_000_000_000) as i64 };
            let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)
                .map_err(|error| LinkError::io("setting a timer", error))?;
        }
        Ok(())
    }

    /// Turns after something that can't fail; what is wrong with the device others will be told.
    fn settle(self: &Arc<Self>, turning: &mut Turning<D>) {
        if turning.turn().is_ok() && self.arm(turning, turning.turned).is_ok() && turning.endpoint.has_orphans() {
            turning.orphanage = Some(self.clone());
            // The keeper is alone with them from now on.
            if let Some(keeper) = turning.asleep.take() {
                keeper.unpark();
            }
        }
    }

    /// What to wait on until the endpoint must be turned.
    fn interests(&self) -> Interests<'_> {
        self.fds.iter().map(|fd| Interest { fd: fd.as_fd(), writable: false }).collect()
    }

    /// Turns once and waits until it is time for the next turn, for at most `limit`.
    fn turn_and_wait(&self, limit: Duration) -> Result<(), LinkError> {
        {
            let turning = &mut *self.turning.lock();
            turning.turn()?;
            let now = turning.clock.now();
            self.arm_timer(turning, now)?;
        }
        self.wait(limit)
    }

    fn wait(&self, limit: Duration) -> Result<(), LinkError> {
        let interests = self.interests();
        let mut fds: Vec<PollFd<'_>> =
            interests.iter().map(|interest| PollFd::from_borrowed_fd(interest.fd, PollFlags::IN)).collect();
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(LinkError::io("waiting for datagrams", error)),
        }
    }

    fn link(self: &Arc<Self>, key: SessionKey, turns: bool) -> Result<Link, LinkError>
    where
        D::Place: PlaceOfPeer,
    {
        let doorbells = Doorbells { receiver: Doorbell::new()?, sender: Doorbell::new()? };
        let moves = || if turns { again(self.fds.iter().map(|fd| fd.as_fd())) } else { Ok(Vec::new()) };
        let receiver_waits = Waits { doorbell: doorbells.receiver.fd.clone(), moves: moves()? };
        let sender_waits = Waits { doorbell: doorbells.sender.fd.clone(), moves: moves()? };
        let turning = &mut *self.turning.lock();
        if turning.doorbells.len() <= key.index() {
            turning.doorbells.resize_with(key.index() + 1, || None);
        }
        turning.doorbells[key.index()] = Some(doorbells);
        let peer = turning.endpoint.place(key).peer();
        let handle = Arc::new(Handle { shared: self.clone(), key });
        Ok(Link {
            sender: Box::new(DatagramSender { handle: handle.clone(), waits: sender_waits }),
            receiver: Box::new(DatagramReceiver { handle, waits: receiver_waits, head: Head::default() }),
            peer,
        })
    }
}

/// The same descriptors again.
fn again<'a>(fds: impl Iterator<Item = BorrowedFd<'a>>) -> Result<Vec<OwnedFd>, LinkError> {
    fds.map(|fd| fd.try_clone_to_owned())
        .collect::<Result<_, _>>()
        .map_err(|error| LinkError::io("duplicating a descriptor", error))
}

/// 64 bits that no peer can foresee.
fn random() -> u64 {
    let mut bytes = [0u8; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(8), "the kernel gives a few random bytes at any time");
    u64::from_ne_bytes(bytes)
}

/// Turns an endpoint that nobody else turns, as long as there is one, or sessions that have something left to send.
fn keep<D: Device>(weak: &Weak<Shared<D>>) {
    loop {
        // Dropped without the lock, and perhaps the last that knew the endpoint.
        let mut nobody_left = None;
        let Some(shared) = weak.upgrade() else { return };
        let (wait, alone);
        {
            let turning = &mut *shared.turning.lock();
            let now = turning.clock.now();
            let due = now.saturating_sub(turning.turned) >= KEEPER_NS;
            // A device that is of no more use is for its links to find out.
            let works = !due || turning.turn().is_ok() && shared.arm(turning, now).is_ok();
            alone = works && turning.endpoint.has_orphans();
            if !alone {
                nobody_left = turning.orphanage.take();
            }
            // While others turn it, it does not fall asleep: to be woken for each message would cost more than to look.
            if works && (!due || turning.is_busy(now)) {
                wait = KEEPER_NS;
            } else {
                wait = turning.endpoint.next_timeout().saturating_sub(now);
                turning.asleep = Some(std::thread::current());
            }
        }
        drop(nobody_left);
        if alone {
            // Nobody else may be listening to the device.
            let _ = shared.turn_and_wait(Duration::from_nanos(wait.clamp(KEEPER_NS, 1_000_000_000)));
            continue;
        }
        drop(shared);
        std::thread::park_timeout(Duration::from_nanos(wait.clamp(KEEPER_NS, 1_000_000_000)));
    }
}

/// Turns a lane, as long as there is somebody who listens.
fn move_lane<D: Device>(weak: &Weak<Shared<D>>) {
    loop {
        let Some(shared) = weak.upgrade() else { return };
        let waits = {
            let turning = &mut *shared.turning.lock();
            turning.mover_waits = false;
            if !turning.moved {
                return;
            }
            // A device that is of no more use is for its links to find out.
            let Ok(()) = turning.turn() else { return };
            let waits = turning.turned.saturating_sub(turning.heard) > MOVER_SPIN_NS;
            turning.mover_waits = waits;
            let now = turning.turned;
            let armed = if waits { shared.arm_timer(turning, now) } else { shared.arm(turning, now) };
            if armed.is_err() {
                return;
            }
            waits
        };
        if waits {
            let _ = shared.wait(MOVER_WAIT);
        } else {
            (0..MOVER_PAUSES).for_each(|_| std::hint::spin_loop());
        }
    }
}

/// A session that a link stands for, until both halves are gone.
struct Handle<D: Device> {
    shared: Arc<Shared<D>>,
    key: SessionKey,
}

/// What one half waits on. Descriptors of its own, so that all halves of all links fit into one epoll set.
struct Waits {
    doorbell: Arc<OwnedFd>,
    /// Device and timer, where the half turns the endpoint.
    moves: Vec<OwnedFd>,
}

impl Waits {
    fn interests(&self) -> Interests<'_> {
        let fds = self.moves.iter().map(AsFd::as_fd).chain([self.doorbell.as_fd()]);
        fds.map(|fd| Interest { fd, writable: false }).collect()
    }
}

impl<D: Device> Drop for Handle<D> {
    fn drop(&mut self) {
        let turning = &mut *self.shared.turning.lock();
        turning.doorbells[self.key.index()] = None;
        turning.endpoint.abandon(self.key);
        self.shared.settle(turning);
    }
}

struct DatagramSender<D: Device> {
    handle: Arc<Handle<D>>,
    waits: Waits,
}

impl<D: Device> Sender for DatagramSender<D> {
    fn try_send(&mut self, head: &[u8], body: Body) -> Result<(), TrySendError> {
        let turning = &mut *self.handle.shared.turning.lock();
        let session = turning.endpoint.session(self.handle.key)?;
        if session.end().is_some() {
            return Err(LinkError::Closed.into());
        }
        check_lengths(head, &body, || session.terms().max_body_bytes)?;
        session.push(head, body).map_err(TrySendError::Full)?;
        turning.endpoint.stir(self.handle.key);
        Ok(())
    }

    fn flush(&mut self) -> Result<bool, LinkError> {
        let (shared, key) = (&self.handle.shared, self.handle.key);
        let turning = &mut *shared.turning.lock();
        let now = turning.clock.now();
        turning.endpoint.transmit(now)?;
        let session = turning.endpoint.session(key)?;
        if session.end().is_some() {
            return Err(LinkError::Closed);
        }
        if !session.has_room() {
            turning.turn()?;
            if turning.endpoint.sleep(key, Sleeper::Sender) {
                shared.arm(turning, now)?;
                return Ok(false);
            }
        }
        // It does not wait for room, or no longer.
        turning.endpoint.rise(key, Sleeper::Sender);
        if let Some(doorbells) = turning.doorbells(key) {
            doorbells.sender.silence();
        }
        shared.arm(turning, now)?;
        Ok(true)
    }

    fn tag(&mut self, tag: u64) {
        let turning = &mut *self.handle.shared.turning.lock();
        if let Some(doorbells) = turning.doorbells(self.handle.key) {
            doorbells.sender.tag = Some(tag);
        }
    }

    fn interests(&self) -> Interests<'_> {
        self.waits.interests()
    }
}

impl<D: Device> Drop for DatagramSender<D> {
    fn drop(&mut self) {
        let turning = &mut *self.handle.shared.turning.lock();
        if let Ok(session) = turning.endpoint.session(self.handle.key) {
            session.finish();
            turning.endpoint.stir(self.handle.key);
        }
        self.handle.shared.settle(turning);
    }
}

struct DatagramReceiver<D: Device> {
    handle: Arc<Handle<D>>,
    waits: Waits,
    head: Head<D::Frame>,
}

impl<D: Device> Receiver for DatagramReceiver<D> {
    fn recv(&mut self) -> Result<Incoming<'_>, LinkError> {
        let shared = &self.handle.shared;
        let key = self.handle.key;
        let mut turned = false;
        let turning = &mut *shared.turning.lock();
        loop {
            let session = turning.endpoint.session(key)?;
            let news = session.recv(&mut self.head)?;
            // The peer may wait for the room that was made.
            if session.must_acknowledge() {
                turning.endpoint.stir(key);
                let now = turning.clock.now();
                turning.endpoint.transmit(now)?;
            }
            match news {
                News::Head { body_len } => return Ok(Incoming::Head { head: self.head.bytes(), body_len }),
                News::Body(target) => return Ok(Incoming::Body(target)),
                // A loop that polls has just looked.
                News::Empty if !turned && !turning.polled => {
                    turned = true;
                    turning.turn()?;
                }
                News::Empty => {
                    if let Some(doorbells) = turning.doorbells(key) {
                        doorbells.receiver.silence();
                    }
                    if turning.endpoint.sleep(key, Sleeper::Receiver) {
                        // Times before the last turn are as good as now, and nothing can have been asked for after it.
                        let now = if turning.polled { turning.turned } else { turning.clock.now() };
                        shared.arm(turning, now)?;
                        return Ok(Incoming::Empty);
                    }
                }
            }
        }
    }

    fn head(&self) -> &[u8] {
        self.head.bytes()
    }

    fn spin(&mut self, budget: Duration) -> bool {
        let (shared, key) = (&self.handle.shared, self.handle.key);
        // A look at a device without the kernel takes no longer than to take turns.
        let looks = if shared.has_fds { 1 } else { LOOKS_A_TURN };
        let mut end = None;
        loop {
            let turning = &mut *shared.turning.lock();
            turning.endpoint.rise(key, Sleeper::Receiver);
            for _ in 0..looks {
                // What went wrong will be said by `recv`.
                if turning.endpoint.has_news(key) {
                    return true;
                }
                if budget.is_zero() && std::mem::take(&mut turning.fresh) {
                    return false;
                }
                let failed = turning.turn().is_err();
                let now = turning.turned;
                let news = failed || turning.endpoint.has_news(key);
                if news || now >= *end.get_or_insert(now.saturating_add(budget.as_nanos() as u64)) {
                    // Others may sleep meanwhile.
                    return shared.arm(turning, now).is_err() || news;
                }
            }
        }
    }

    fn tag(&mut self, tag: u64) {
        let turning = &mut *self.handle.shared.turning.lock();
        if let Some(doorbells) = turning.doorbells(self.handle.key) {
            doorbells.receiver.tag = Some(tag);
        }
    }

    fn place(&mut self, target: Target) {
        let turning = &mut *self.handle.shared.turning.lock();
        if let Ok(session) = turning.endpoint.session(self.handle.key) {
            session.place(target);
            turning.endpoint.stir(self.handle.key);
        }
    }

    fn interests(&self) -> Interests<'_> {
        self.waits.interests()
    }
}

impl<D: Device> Drop for DatagramReceiver<D> {
    fn drop(&mut self) {
        let turning = &mut *self.handle.shared.turning.lock();
        if let Ok(session) = turning.endpoint.session(self.handle.key) {
            session.stop_reading();
            turning.endpoint.stir(self.handle.key);
        }
        self.handle.shared.settle(turning);
    }
}

/// Accepts links over one device, or over several lanes of one. It moves the links that it accepted: see the head of this module.
pub struct DatagramListener<D: Device> {
    lanes: Vec<Arc<Shared<D>>>,
    /// The lane that is asked next who wants to come in.
    next: usize,
}

impl<D: Device> DatagramListener<D>
where
    D::Place: PlaceOfPeer,
{
    /// Accepts links over `device`.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] if the system gives no timer.
    pub fn new(device: D, options: EndpointOptions) -> Result<Self, LinkError> {
        Self::on(vec![Shared::new(device, options)?])
    }

    /// Accepts links over endpoints that are there: the lanes of a device. All but the first get movers, as far as this process has
    /// processors.
    pub(super) fn on(lanes: Vec<Arc<Shared<D>>>) -> Result<Self, LinkError> {
        let listener = Self { lanes, next: 0 };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        for (index, lane) in listener.lanes.iter().enumerate() {
            let turning = &mut *lane.turning.lock();
            turning.endpoint.listen();
            if index == 0 || index >= processors || std::mem::replace(&mut turning.moved, true) {
                continue;
            }
            let weak = Arc::downgrade(lane);
            std::thread::Builder::new()
                .name(format!("dmrpc-lane-{index}"))
                .spawn(move || move_lane(&weak))
                .map_err(|error| LinkError::io("starting a thread", error))?;
        }
        Ok(listener)
    }

    /// The next link that a peer opened, if there is one now; moves all accepted links on.
    ///
    /// # Errors
    ///
    /// [`LinkError`] when the device is of no more use.
    pub fn try_accept(&mut self) -> Result<Option<Link>, LinkError> {
        for _ in 0..self.lanes.len() {
            let lane = &self.lanes[self.next];
            self.next = (self.next + 1) % self.lanes.len();
            let key = {
                let turning = &mut *lane.turning.lock();
                if !turning.polled {
                    if !turning.moved {
                        turning.turn()?;
                    }
                    turning.listener_waits = true;
                    let now = turning.clock.now();
                    lane.arm(turning, now)?;
                }
                turning.endpoint.accept()
            };
            if let Some(key) = key {
                return lane.link(key, false).map(Some);
            }
        }
        Ok(None)
    }

    /// Moves all accepted links on, and adds the tags of those for which there is something. Until [`sleep`](Self::sleep) is
    /// called no bell rings for a link with a tag. Whether anything came, if only a part of something; then there may be a link to
    /// accept as well.
    ///
    /// # Errors
    ///
    /// [`LinkError`] when the device is of no more use.
    pub fn poll(&mut self, ready: &mut Vec<u64>) -> Result<bool, LinkError> {
        let mut came = false;
        for lane in &self.lanes {
            let turning = &mut *lane.turning.lock();
            (turning.polled, turning.listener_waits) = (true, false);
            if turning.moved {
                came |= !turning.ready.is_empty();
            } else {
                turning.turn()?;
                came |= turning.heard == turning.turned;
            }
            ready.append(&mut turning.ready);
            came |= turning.endpoint.has_accepted();
        }
        Ok(came)
    }

    /// The caller is about to wait on descriptors instead. `false` if there is something now.
    ///
    /// # Errors
    ///
    /// [`LinkError`] when the device is of no more use.
    pub fn sleep(&mut self) -> Result<bool, LinkError> {
        for lane in &self.lanes {
            let turning = &mut *lane.turning.lock();
            turning.turn()?;
            if !turning.ready.is_empty() || turning.endpoint.has_accepted() {
                return Ok(false);
            }
            (turning.polled, turning.listener_waits) = (false, true);
            let now = turning.turned;
            lane.arm(turning, now)?;
        }
        Ok(true)
    }

    /// The device, or its first lane.
    pub fn with_device<R>(&self, look: impl FnOnce(&D) -> R) -> R {
        self.lanes[0].with_device(look)
    }

    /// What to wait on before asking again.
    pub fn interests(&self) -> Interests<'_> {
        self.lanes.iter().flat_map(|lane| lane.interests()).collect()
    }
}

impl<D: Device> Drop for DatagramListener<D> {
    fn drop(&mut self) {
        for lane in &self.lanes {
            let turning = &mut *lane.turning.lock();
            (turning.polled, turning.listener_waits, turning.moved) = (false, false, false);
            turning.endpoint.stop_listening();
            lane.settle(turning);
        }
    }
}

/// Opens a link over `device` to the listener at `place`.
///
/// # Errors
///
/// [`LinkError::Closed`] if nobody listens there, [`LinkError::Deadline`] if nobody answers.
pub fn connect<D: Device>(
    device: D,
    options: EndpointOptions,
    place: D::Place,
    deadline: Instant,
) -> Result<Link, LinkError>
where
    D::Place: PlaceOfPeer,
{
    open(&Shared::new(device, options)?, place, deadline).map(|(_, link)| link)
}

/// Opens a link over lanes of one device, by turns: over `first`, from one of the places that `next_place` tells until the answer
/// comes to that lane, and then from the last.
#[cfg(feature = "dpdk")]
pub(super) fn connect_over<D: Device>(
    lanes: &[Arc<Shared<D>>],
    first: usize,
    mut next_place: impl FnMut() -> D::Place,
    deadline: Instant,
) -> Result<Link, LinkError>
where
    D::Place: PlaceOfPeer,
{
    let shared = &lanes[first];
    // A device that spreads by chance leaves less than one link in 3,000 on a lane that its frames don't come to.
    let mut tries = if lanes.len() == 1 { 1 } else { 8 * lanes.len() };
    loop {
        let (key, link) = open(shared, next_place(), deadline)?;
        tries -= 1;
        if tries == 0 || !shared.turning.lock().endpoint.strays(key) {
            return Ok(link);
        }
    }
}

/// As [`connect`], over an endpoint that is there.
fn open<D: Device>(shared: &Arc<Shared<D>>, place: D::Place, deadline: Instant) -> Result<(SessionKey, Link), LinkError>
where
    D::Place: PlaceOfPeer,
{
    let begun = Instant::now();
    let key = {
        let turning = &mut *shared.turning.lock();
        let now = turning.clock.now();
        turning.endpoint.connect(now, place)?
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let standing = shared.turning.lock().endpoint.standing(key);
        match standing {
            Standing::Open => return shared.link(key, true).map(|link| (key, link)),
            Standing::Over => {
                shared.turning.lock().endpoint.abandon(key);
                return Err(LinkError::Closed);
            }
            Standing::Asking if left.is_zero() => {
                shared.turning.lock().endpoint.abandon(key);
                return Err(LinkError::Deadline(begun.elapsed()));
            }
            Standing::Asking => {}
        }
        shared.turn_and_wait(left)?;
    }
}
