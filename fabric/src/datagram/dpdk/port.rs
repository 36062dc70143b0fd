//! The port of this process: its queues, and what they share.
//!
//! Each queue is a device with an endpoint of its own, a *lane*, so that as many threads as there are lanes move links side by side.
//! A frame comes to the queue that the device chose for its two addresses and UDP ports (receive-side scaling, or the kernel's
//! fan-out), or to that of the sender's own number (memif, vhost, veth), and a session belongs to the lane that its first datagram
//! came to. Whoever connects tries UDP ports of its own until the answer comes to the lane that asked.
//!
//! 1. A session's datagrams are seen by its lane alone: its name says which one it is, and one that came to another queue is passed
//!    on ([`Port::pass`]), at most [`MAX_PASSED`] waiting.
//! 2. A hello is answered by one lane, whatever queues it comes to ([`Port::claim`]).
//! 3. Nobody uses a queue while the port is started anew ([`Port::hold`]).

use super::device::{DpdkDevice, DpdkFrame, Flow};
use super::options::DpdkOptions;
use crate::datagram::device::Device;
use crate::datagram::endpoint::EndpointOptions;
use crate::datagram::links::Shared;
use crate::link::LinkError;
use dmrpc_dpdk_sys as sys;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString, c_char};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub(super) const ETHERNET_BYTES: usize = 14;
/// The first UDP port of those that links of several lanes speak from: the ones that nobody is registered at (RFC 6335).
pub(super) const FIRST_OWN_UDP_PORT: u16 = 49_152;
const RING_ENTRIES: u16 = 1024;
/// Drivers of rings in shared memory that two processes have between them.
const RING_DRIVERS: [&str; 3] = ["net_memif", "net_vhost", "net_virtio_user"];
/// Buffers of each queue.
const RX_BUFFERS: u32 = 8192;
const TX_BUFFERS: u32 = 4096;
/// The same neighbour is asked for at most so often.
const ARP_INTERVAL: Duration = Duration::from_millis(1);
/// Neighbours that are remembered.
const MAX_NEIGHBOURS: usize = 65_536;
/// A port whose peer was not there is started anew at most so often.
const RESTART_INTERVAL: Duration = Duration::from_millis(20);
/// A port that was started may take so long to find its peer: a memif server of DPDK's does not survive clients that give up
/// in the middle of it.
const LINK_TIME: Duration = Duration::from_secs(2);
/// Datagrams that wait for a lane which they did not come to; more are lost.
const MAX_PASSED: usize = 512;
/// Hellos that are remembered; of more, one that comes again by another queue may make a second session, which ends by its silence.
const MAX_CLAIMS: usize = 65_536;

pub(super) type Mac = [u8; 6];

type Lanes = Arc<[Arc<Shared<DpdkDevice>>]>;

static LANES: Mutex<Option<Lanes>> = Mutex::new(None);

/// The lanes of this process's port. It is started once, and stays; then it speaks at the UDP port of its options, or at `udp_port`.
pub(in crate::datagram) fn lanes(udp_port: u16, options: &EndpointOptions) -> Result<Lanes, LinkError> {
    let mut lanes = LANES.lock();
    if let Some(lanes) = &*lanes {
        return Ok(lanes.clone());
    }
    let port = Arc::new(Port::start(&super::options::get()?, udp_port)?);
    let started: Arc<[_]> = (0..port.lanes())
        .map(|lane| Shared::new(DpdkDevice::new(port.clone(), lane)?, options.clone()))
        .collect::<Result<_, _>>()?;
    Ok(lanes.insert(started).clone())
}

/// What the shim said went wrong last.
pub(super) fn shim_error(doing: &'static str) -> LinkError {
    // SAFETY: the shim gives a string that lives as long as its thread.
    let message = unsafe { CStr::from_ptr(sys::dmrpc_error()) }.to_string_lossy().into_owned();
    LinkError::Io { doing, source: std::io::Error::other(message) }
}

/// Starts EAL, if it does not run.
pub(super) fn start() -> Result<(), LinkError> {
    start_eal(&super::options::get()?.eal)
}

fn start_eal(arguments: &[String]) -> Result<(), LinkError> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let result = STARTED.get_or_init(|| {
        // SAFETY: both give strings that live for ever.
        let (built, running) =
            unsafe { (CStr::from_ptr(sys::dmrpc_version_built()), CStr::from_ptr(sys::dmrpc_version_running())) };
        let (built, running) = (built.to_string_lossy(), running.to_string_lossy());
        if !running.contains(&*built) {
            return Err(format!("built for DPDK {built} and run with {running}: build again"));
        }
        let mut arguments: Vec<*mut c_char> = std::iter::once("dmrpc")
            .chain(arguments.iter().map(String::as_str))
            // EAL keeps pointers into its arguments.
            .map(|argument| CString::new(argument).map(CString::into_raw))
            .collect::<Result<_, _>>()
            .map_err(|_| "an EAL argument with a NUL".to_owned())?;
        let count = arguments.len() as i32;
        arguments.push(std::ptr::null_mut());
        // SAFETY: `count` strings and a null; EAL may reorder them and keep them, so the array is leaked with them.
        let result = unsafe { sys::dmrpc_eal_init(count, arguments.leak().as_mut_ptr()) };
        if result == 0 { Ok(()) } else { Err(shim_error("starting DPDK").to_string()) }
    });
    result.clone().map_err(|why| LinkError::Io { doing: "starting DPDK", source: std::io::Error::other(why) })
}

struct Known {
    mac: Option<Mac>,
    asked: Option<Instant>,
}

/// What is known of a neighbour.
pub(super) enum Neighbour {
    /// Its Ethernet address.
    Known(Mac),
    /// Nothing; and whether it is time to ask for it.
    Unknown {
        /// Whether it is.
        ask: bool,
    },
}

/// Whether a port whose peer has to be there first has found it.
struct LinkState {
    up: bool,
    restarted: Instant,
}

/// What came over a lane of this process's port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames that its queue brought.
    pub received: u64,
    /// Of them, datagrams of other lanes' sessions: the device does not spread frames as it was expected to.
    pub passed_on: u64,
}

/// What came over each lane; nothing if this process has no port yet.
pub fn traffic() -> Vec<Traffic> {
    let lanes = LANES.lock();
    let lanes = lanes.iter().flat_map(|lanes| lanes.iter());
    lanes.map(|lane| lane.with_device(|device| device.port().traffic(device.lane()))).collect()
}

/// What other lanes see of a lane: datagrams of its own that came to them. On cache lines of its own.
#[repr(align(128))]
struct Passed {
    waiting: Mutex<VecDeque<(Flow, DpdkFrame)>>,
    /// How many there are, so that a look at none costs no lock.
    count: AtomicUsize,
    /// Wakes a lane that waits on it; rung and silenced under the lock.
    bell: OwnedFd,
    received: AtomicU64,
    passed_on: AtomicU64,
}

impl Passed {
    fn new() -> Result<Self, LinkError> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| LinkError::io("making an eventfd", error))?;
        Ok(Self {
            waiting: Mutex::new(VecDeque::new()),
            count: AtomicUsize::new(0),
            bell,
            received: AtomicU64::new(0),
            passed_on: AtomicU64::new(0),
        })
    }

    #[cold]
    fn take(&self, mut take: impl FnMut(Flow, DpdkFrame)) {
        let mut waiting = {
            let mut waiting = self.waiting.lock();
            self.count.store(0, Ordering::Relaxed);
            let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
            std::mem::take(&mut *waiting)
        };
        waiting.drain(..).for_each(|(flow, frame)| take(flow, frame));
    }
}

/// A started port.
pub struct Port {
    raw: *mut sys::Port,
    info: sys::PortInfo,
    address: SocketAddrV4,
    mtu: usize,
    /// Whether it is one end of rings in shared memory.
    ring: bool,
    /// Whether the driver is a client of memif, whose peer must be there for it to start.
    connects: bool,
    link: Mutex<LinkState>,
    /// Held to start the port anew; by those who use a queue only where that is ever done and another lane may be the one that does it.
    in_use: RwLock<()>,
    neighbours: Mutex<HashMap<Ipv4Addr, Known>>,
    /// How often a neighbour was found to have another Ethernet address.
    moves: AtomicU32,
    passed: Box<[Passed]>,
    claims: Mutex<HashMap<(Flow, u64), u8>>,
    /// Links that were made, by which lanes and UDP ports take turns.
    links: AtomicUsize,
}

// SAFETY: the shim's port is changed by `dmrpc_port_restart` alone, which `in_use` keeps apart from all who use its queues, or which
// is called by the one who does.
unsafe impl Send for Port {}
// SAFETY: as above.
unsafe impl Sync for Port {}

impl Port {
    /// Starts EAL and its first port.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] with what DPDK says is wrong.
    fn start(options: &DpdkOptions, udp_port: u16) -> Result<Self, LinkError> {
        start_eal(&options.eal)?;
        // SAFETY: EAL runs.
        if unsafe { sys::dmrpc_port_count() } == 0 {
            return Err(LinkError::Unsupported("DPDK without a port: name a device in the EAL arguments"));
        }
        let port_options = sys::PortOptions {
            rx_descriptors: RING_ENTRIES,
            tx_descriptors: RING_ENTRIES,
            frame_bytes: (options.mtu + ETHERNET_BYTES) as u32,
            rx_buffers: RX_BUFFERS,
            tx_buffers: TX_BUFFERS,
            queues: options.queues.into(),
        };
        let mut info = sys::PortInfo { driver: [0; 64], mac: [0; 6], multi_segment: 0, numa_node: -1, queues: 0 };
        // SAFETY: both point to structs of the shim's layout.
        let raw = unsafe { sys::dmrpc_port_start(0, &raw const port_options, &raw mut info) };
        if raw.is_null() {
            return Err(shim_error("starting a DPDK port"));
        }
        let connects =
            options.eal.iter().any(|argument| argument.contains("net_memif") && argument.contains("role=client"));
        let mut port = Self {
            raw,
            info,
            ring: false,
            connects,
            address: SocketAddrV4::new(options.address, options.udp_port.unwrap_or(udp_port)),
            mtu: options.mtu,
            link: Mutex::new(LinkState { up: false, restarted: Instant::now() }),
            in_use: RwLock::new(()),
            neighbours: Mutex::new(HashMap::new()),
            moves: AtomicU32::new(0),
            passed: (0..info.queues).map(|_| Passed::new()).collect::<Result<_, _>>()?,
            claims: Mutex::new(HashMap::new()),
            links: AtomicUsize::new(0),
        };
        let (driver, queues) = (port.driver(), info.queues);
        port.ring = RING_DRIVERS.contains(&&*driver);
        if u16::from(options.queues) > queues {
            tracing::warn!(driver, "{queues} queues, and not {}: the device has no more", options.queues);
        }
        tracing::debug!(driver, queues, address = %port.address, "a port of DPDK's");
        Ok(port)
    }

    /// The driver's name.
    pub fn driver(&self) -> String {
        let bytes: Vec<u8> = self.info.driver.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether the port is one end of rings in shared memory, whose other end is its only peer.
    pub(super) fn is_ring(&self) -> bool {
        self.ring
    }

    /// Where the port listens, and speaks from but for links of several lanes.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> u8 {
        self.info.queues as u8
    }

    /// Whose turn it is to be a new link's lane, and the UDP port that the link may speak from.
    pub(in crate::datagram) fn next_link(&self) -> (usize, u16) {
        let link = self.links.fetch_add(1, Ordering::Relaxed);
        let lanes = usize::from(self.lanes());
        (link % lanes, self.udp_port(link))
    }

    /// Another UDP port for a link.
    pub(in crate::datagram) fn next_udp_port(&self) -> u16 {
        self.udp_port(self.links.fetch_add(usize::from(self.lanes()), Ordering::Relaxed))
    }

    fn udp_port(&self, link: usize) -> u16 {
        if self.lanes() == 1 {
            return self.address.port();
        }
        FIRST_OWN_UDP_PORT + (link % usize::from(u16::MAX - FIRST_OWN_UDP_PORT)) as u16
    }

    pub(super) fn mtu(&self) -> usize {
        self.mtu
    }

    pub(super) fn mac(&self) -> Mac {
        self.info.mac
    }

    /// Whether a frame may be sent in several pieces.
    pub(super) fn sends_pieces(&self) -> bool {
        self.info.multi_segment != 0
    }

    pub(super) fn queue(&self, lane: u8) -> *mut sys::Queue {
        assert!(lane < self.lanes());
        // SAFETY: the port runs and has as many queues.
        unsafe { sys::dmrpc_port_queue(self.raw, lane.into()) }
    }

    /// Whoever uses a queue holds this.
    #[inline]
    pub(super) fn hold(&self) -> Option<RwLockReadGuard<'_, ()>> {
        (self.connects && self.info.queues > 1).then(|| self.in_use.read())
    }

    /// A virtual device's peer may come late, or go and come again. Called by one who holds no queue.
    pub(super) fn see_to_link(&self) {
        if !self.connects {
            return;
        }
        // Another lane sees to it.
        let Some(mut link) = self.link.try_lock() else { return };
        if link.restarted.elapsed() < RESTART_INTERVAL {
            return;
        }
        // SAFETY: the port is there.
        let (up, started) =
            unsafe { (sys::dmrpc_port_is_up(self.raw) != 0, sys::dmrpc_port_is_started(self.raw) != 0) };
        let lost = std::mem::replace(&mut link.up, up) && !up;
        if up || started && !lost && link.restarted.elapsed() < LINK_TIME {
            return;
        }
        let _alone = self.in_use.write();
        // SAFETY: as above, and nobody uses its queues.
        unsafe { sys::dmrpc_port_restart(self.raw) };
        link.restarted = Instant::now();
    }

    /// Where an address is on the Ethernet.
    pub(super) fn learn(&self, address: Ipv4Addr, mac: Mac) {
        let mut neighbours = self.neighbours.lock();
        if neighbours.len() < MAX_NEIGHBOURS || neighbours.contains_key(&address) {
            let before = neighbours.insert(address, Known { mac: Some(mac), asked: None });
            if before.and_then(|known| known.mac).is_some_and(|before| before != mac) {
                // Whoever reads an old count sends a frame or two more to the old place.
                self.moves.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn moves(&self) -> u32 {
        self.moves.load(Ordering::Relaxed)
    }

    pub(super) fn neighbour(&self, address: Ipv4Addr) -> Neighbour {
        let mut neighbours = self.neighbours.lock();
        if let Some(Known { mac: Some(mac), .. }) = neighbours.get(&address) {
            return Neighbour::Known(*mac);
        }
        if neighbours.len() >= MAX_NEIGHBOURS {
            neighbours.retain(|_, neighbour| neighbour.mac.is_some());
        }
        let now = Instant::now();
        let neighbour = neighbours.entry(address).or_insert(Known { mac: None, asked: None });
        let ask = neighbour.asked.is_none_or(|asked| now - asked >= ARP_INTERVAL);
        if ask {
            neighbour.asked = Some(now);
        }
        Neighbour::Unknown { ask }
    }

    fn traffic(&self, lane: u8) -> Traffic {
        let lane = &self.passed[usize::from(lane)];
        let (received, passed_on) = (&lane.received, &lane.passed_on);
        Traffic { received: received.load(Ordering::Relaxed), passed_on: passed_on.load(Ordering::Relaxed) }
    }

    /// Frames came to a lane; it alone says so.
    pub(super) fn count(&self, lane: u8, frames: u64) {
        let received = &self.passed[usize::from(lane)].received;
        received.store(received.load(Ordering::Relaxed) + frames, Ordering::Relaxed);
    }

    /// Gives a datagram that came to lane `from` to the lane whose it is.
    pub(super) fn pass(&self, from: u8, lane: u8, flow: Flow, frame: DpdkFrame) {
        self.passed[usize::from(from)].passed_on.fetch_add(1, Ordering::Relaxed);
        let Some(passed) = self.passed.get(usize::from(lane)) else { return };
        let mut waiting = passed.waiting.lock();
        if waiting.len() < MAX_PASSED {
            waiting.push_back((flow, frame));
            passed.count.store(waiting.len(), Ordering::Relaxed);
            // It can only fail when the counter is full, and then it is readable anyhow.
            let _ = rustix::io::write(&passed.bell, &1u64.to_ne_bytes());
        }
    }

    /// Becomes readable when something is passed to a lane.
    pub(super) fn bell(&self, lane: u8) -> &OwnedFd {
        &self.passed[usize::from(lane)].bell
    }

    /// Takes what other lanes passed to this one.
    #[inline]
    pub(super) fn passed(&self, lane: u8, take: impl FnMut(Flow, DpdkFrame)) {
        let passed = &self.passed[usize::from(lane)];
        // One that is missed now is seen at the next look.
        if passed.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        passed.take(take);
    }

    /// The lane that answers a hello: `lane`, unless another did already.
    pub(super) fn claim(&self, flow: &Flow, attempt: u64, lane: u8) -> u8 {
        if self.info.queues == 1 {
            return lane;
        }
        let mut claims = self.claims.lock();
        if claims.len() >= MAX_CLAIMS {
            return claims.get(&(*flow, attempt)).copied().unwrap_or(lane);
        }
        *claims.entry((*flow, attempt)).or_insert(lane)
    }

    /// The session is over that a hello made.
    pub(super) fn disclaim(&self, flow: &Flow, attempt: u64) {
        if self.info.queues > 1 {
            self.claims.lock().remove(&(*flow, attempt));
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // SAFETY: the port runs, and its queues are gone.
        unsafe { sys::dmrpc_port_stop(self.raw) };
    }
}
