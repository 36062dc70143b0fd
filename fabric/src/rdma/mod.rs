//! Links over RDMA, and memory of the peer that is read and written without it. The protocol is drawn in `docs/rdma.md`.
//!
//! | file | noun |
//! | --- | --- |
//! | `adapter.rs` | `Adapter`: the device, port and domains of this process |
//! | `hello.rs` | `Hello`: what each side says first, over TCP |
//! | `acceptor.rs` | `Acceptor`: those who connect, all at once |
//! | `control.rs` | the control channel, and the `Farewells` on it |
//! | `slots.rs`, `window.rs` | `Slots`: registered memory for messages; `Window`: how many of them may be sent |
//! | `channel.rs`, `handle.rs` | `Channel`: the queue pairs of a link, and what is done with them; `Handle`: who has it, and its last moments |
//! | `lane.rs`, `traffic.rs`, `chain.rs` | `Lane`: one of the queue pairs; `Traffic`: what is on its way there; `Chain`: what goes behind one doorbell |
//! | `sleeper.rs`, `end.rs` | `Sleeper`: what a half sleeps on; `End`: why there is no more |
//! | `sender.rs`, `receiver.rs` | the halves |
//! | `one_sided.rs` | [`OneSided`]: reads and writes of the peer's memory |
//! | `heap.rs` | [`Heap`]: registered memory to read into and write from |
//!
//! 1. A slot is sent only when the peer has a receive posted for it: there is no waiting for receivers in the device.
//! 2. What a peer says is checked before it is used: lengths, counts of slots, credits. One that breaks the rules ends the link.
//! 3. Memory that a work request names stays until that has completed, or its queue pair is gone.
//! 4. Nobody sleeps before the completions that are to wake it are asked for, and looked at once more.
//! 5. Whoever polls yields in between: a software device needs the processor to get anywhere.

mod acceptor;
mod adapter;
mod chain;
mod channel;
mod control;
mod end;
mod handle;
mod heap;
mod hello;
mod lane;
mod one_sided;
mod receiver;
mod sender;
mod sleeper;
mod slots;
mod traffic;
mod window;

pub(crate) use acceptor::Acceptor;
pub use dmrpc_rdma_sys::{Access, MemoryRegion};
pub use heap::{Block, Heap};
pub use one_sided::{BULK_BYTES, Ending, OneSided, Registrar, RemoteRun, Step};

use crate::address::AdapterChoice;
use crate::dial::dial;
use crate::link::{Interest, Link, LinkError};
use crate::options::LinkOptions;
use crate::wait::wait;
use adapter::Adapter;
use channel::Channel;
use control::{prepare, say};
use dmrpc_rdma_sys::RdmaError;
use hello::{Greeting, Hello, READY, Status};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

impl From<RdmaError> for LinkError {
    fn from(error: RdmaError) -> Self {
        match error {
            RdmaError::Verb { doing, source } => Self::Io { doing, source },
            other => Self::Io { doing: "using RDMA", source: std::io::Error::other(other) },
        }
    }
}

/// Connects to the first address of the host that can be.
pub(crate) fn connect(
    host: &str,
    port: u16,
    through: &AdapterChoice,
    options: &LinkOptions,
    deadline: Instant,
) -> Result<Link, LinkError> {
    let (control, address) = dial(host, port, deadline, "connecting a control channel")?;
    greet(control, address, through, options, deadline)
}

fn greet(
    control: TcpStream,
    peer: SocketAddr,
    through: &AdapterChoice,
    options: &LinkOptions,
    deadline: Instant,
) -> Result<Link, LinkError> {
    prepare(&control)?;
    let near = control.local_addr().map_err(|error| LinkError::io("preparing a control channel", error))?;
    let adapter = Adapter::near(near.ip(), through, options)?;
    let domain = adapter.own_domain()?;
    let channel = Channel::new(&adapter, &domain, control, options)?;
    let domain_name = options.rdma_domain.as_slice();
    say(channel.control(), &Hello::of(&channel, Status::Accepted, domain_name).encode())?;
    let mut greeting = Greeting::default();
    let theirs = loop {
        match greeting.read(channel.control())? {
            Some(theirs) => break theirs,
            None => wait(&[Interest { fd: channel.control().as_fd(), writable: false }], deadline)?,
        }
    };
    if theirs.status == Status::Refused {
        return Err(LinkError::Refused("the peer knows no domain of that name"));
    }
    channel.connect(&theirs)?;
    say(channel.control(), &[READY])?;
    channel.into_link(peer, None, &theirs)
}
