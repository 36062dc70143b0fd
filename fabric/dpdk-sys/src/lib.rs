//! What the datagram protocol needs of DPDK, through a C shim that is compiled against the headers installed.
//!
//! All struct layouts and inline functions of DPDK stay on the C side (`shim/`), so one source serves every version from 22.11
//! on; a burst of packets costs one call in each direction. The crates of this kind on crates.io are from 2018 or under
//! licences that would bind their users. Without the feature `dpdk` this crate is empty.
#![cfg(feature = "dpdk")]

use std::ffi::{c_char, c_int, c_void};

/// What a port is.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PortInfo {
    /// The driver's name, ended by a zero.
    pub driver: [c_char; 64],
    /// The port's Ethernet address.
    pub mac: [u8; 6],
    /// Whether a frame may be sent in several pieces.
    pub multi_segment: u8,
    /// The memory that is near it; negative if unknown.
    pub numa_node: i32,
    /// Queues each way: as many as were asked for, or as the driver has.
    pub queues: u16,
}

/// How a port is to be used.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PortOptions {
    /// Entries of the receive ring.
    pub rx_descriptors: u16,
    /// Entries of the transmit ring.
    pub tx_descriptors: u16,
    /// The longest frame, Ethernet header included.
    pub frame_bytes: u32,
    /// Buffers for frames that come in, for each queue.
    pub rx_buffers: u32,
    /// Buffers for frames that are sent, for each queue.
    pub tx_buffers: u32,
    /// Queues each way.
    pub queues: u16,
}

/// A frame that came in. Its memory is valid until it is given to [`dmrpc_frame_free`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RxFrame {
    /// DPDK's own description of it.
    pub mbuf: *mut c_void,
    /// Its first byte.
    pub start: *const u8,
    /// Its length.
    pub len: u32,
}

/// What keeps a piece of memory: a value of the caller's, which C only moves.
pub type Owner = [u64; 4];

/// A frame to be sent: a buffer of DPDK's, and how many bytes were written to it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TxFrame {
    /// DPDK's own description of it.
    pub mbuf: *mut c_void,
    /// Its first byte. There is room for the longest frame of the port.
    pub start: *mut u8,
    /// Bytes that were written to it.
    pub len: u32,
}

/// A started port.
#[repr(C)]
pub struct Port {
    _opaque: [u8; 0],
}

/// One receive queue of a port and one transmit queue, for one thread at a time.
#[repr(C)]
pub struct Queue {
    _opaque: [u8; 0],
}

/// Takes an owner of lent memory over and lets it go. May be called on any thread that sends or stops the port.
pub type Release = unsafe extern "C" fn(owner: *mut Owner);

// SAFETY: the declarations below are those of `shim/shim.h`, and the structs above have its layouts.
unsafe extern "C" {
    /// Starts EAL, once a process. 0, or -1 with [`dmrpc_error`].
    pub fn dmrpc_eal_init(argc: c_int, argv: *mut *mut c_char) -> c_int;
    /// What went wrong last on this thread.
    pub fn dmrpc_error() -> *const c_char;
    /// The version whose headers the shim was built with, as `22.11`.
    pub fn dmrpc_version_built() -> *const c_char;
    /// The version that is loaded, as `DPDK 22.11.3`.
    pub fn dmrpc_version_running() -> *const c_char;
    /// Makes the thread known to EAL, so that it has buffers at hand in each pool; -1 if there are too many. Everything works without.
    pub fn dmrpc_thread_attach() -> c_int;
    /// Takes that back, before the thread ends.
    pub fn dmrpc_thread_detach();
    /// How many ports there are.
    pub fn dmrpc_port_count() -> u16;
    /// Starts a port; null with [`dmrpc_error`].
    pub fn dmrpc_port_start(port: u16, options: *const PortOptions, info: *mut PortInfo) -> *mut Port;
    /// Starts a port anew whose peer was not there or went away; 0 if it worked. Nobody may use its queues meanwhile.
    pub fn dmrpc_port_restart(port: *mut Port) -> c_int;
    /// Whether the port was started: one whose peer has to be there first may not have been.
    pub fn dmrpc_port_is_started(port: *mut Port) -> c_int;
    /// Whether the port has a link.
    pub fn dmrpc_port_is_up(port: *mut Port) -> c_int;
    /// Stops a port. Frames that came in through it stay valid.
    pub fn dmrpc_port_stop(port: *mut Port);
    /// A queue of a port, one of those that its info counts.
    pub fn dmrpc_port_queue(port: *mut Port, queue: u16) -> *mut Queue;
    /// Takes in at most `most` frames.
    pub fn dmrpc_rx_burst(queue: *mut Queue, frames: *mut RxFrame, most: u32) -> u32;
    /// What becomes readable when a frame comes in after [`dmrpc_rx_interrupt`]; -1 if the driver can't be waited on.
    pub fn dmrpc_rx_fd(queue: *mut Queue) -> c_int;
    /// Turns on or off that the queue's descriptor becomes readable when a frame comes in; 0 if it worked.
    pub fn dmrpc_rx_interrupt(queue: *mut Queue, on: c_int) -> c_int;
    /// How many receive buffers are free.
    pub fn dmrpc_rx_buffers_free(queue: *mut Queue) -> u32;
    /// Gives a frame's buffer back. Safe to call on any thread.
    pub fn dmrpc_frame_free(mbuf: *mut c_void);
    /// Takes empty buffers for frames to be sent: as many as there are, which is said. They are given back by
    /// [`dmrpc_tx_burst`] or [`dmrpc_frame_free`].
    pub fn dmrpc_tx_alloc(queue: *mut Queue, frames: *mut TxFrame, count: u32) -> u32;
    /// Appends a copy of bytes to a frame behind what was lent to it. 0 if there was a buffer.
    pub fn dmrpc_tx_append(queue: *mut Queue, mbuf: *mut c_void, start: *const u8, len: u32) -> c_int;
    /// Appends memory of DPDK's to a frame behind what was written to its buffer, to be sent from where it is until its owner is
    /// released. Takes the owner in any case. 0 if there was a buffer.
    pub fn dmrpc_tx_lend(
        queue: *mut Queue,
        mbuf: *mut c_void,
        start: *const u8,
        len: u32,
        owner: *const Owner,
        release: Release,
    ) -> c_int;
    /// Sends frames, as many as there was [room](dmrpc_tx_burst) for last. What the driver does not take waits for the next
    /// call. Returns for how many more frames there is room.
    pub fn dmrpc_tx_burst(queue: *mut Queue, frames: *const TxFrame, count: u32) -> u32;
    /// Lets the driver look which frames it has sent, so that their owners are released although nothing more is sent.
    pub fn dmrpc_tx_reap(queue: *mut Queue);
    /// Reserves memory of DPDK's own, for ever; null with [`dmrpc_error`].
    pub fn dmrpc_memory_reserve(name: *const c_char, bytes: u64, numa_node: i32) -> *mut c_void;
    /// The descriptor of the one file that such memory lies in, in one piece, and where; -1 if there are more.
    pub fn dmrpc_memory_file(start: *const c_void, bytes: u64, offset: *mut u64) -> c_int;
}
