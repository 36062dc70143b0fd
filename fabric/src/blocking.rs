//! Halves of a link for threads that block.
//!
//! ```
//! use dmrpc_fabric::blocking::{BlockingReceiver, BlockingSender};
//! use dmrpc_fabric::link::{Body, Incoming};
//! use std::time::{Duration, Instant};
//!
//! let (here, there) = dmrpc_fabric::inproc::pair(&Default::default())?;
//! let deadline = Instant::now() + Duration::from_secs(10);
//! BlockingSender::new(here.sender).send(b"hello", Body::new(), deadline)?;
//! let mut receiver = BlockingReceiver::new(there.receiver);
//! assert!(matches!(receiver.recv(deadline)?, Incoming::Head { head: b"hello", body_len: 0 }));
//! # Ok::<(), dmrpc_fabric::link::LinkError>(())
//! ```
#![forbid(unsafe_code)]

use crate::link::{Body, Incoming, LinkError, Receiver, Sender, Target, TrySendError};
use crate::wait::{Edges, wait};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a receiver burns processor time before it goes to sleep. Zero, the default: not at all.
///
/// Worth it where each side has a core of its own and the answer comes within a few microseconds: waking a thread costs
/// more than that. Only shared-memory links spin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spin(pub Duration);

/// A [`Sender`] that waits for room.
pub struct BlockingSender {
    inner: Box<dyn Sender>,
}

impl BlockingSender {
    /// Around a half of a link.
    pub fn new(inner: Box<dyn Sender>) -> Self {
        Self { inner }
    }

    /// Sends a message and waits until it is out of this half's hands. To gather many, see [`get_mut`](Self::get_mut).
    ///
    /// # Errors
    ///
    /// [`LinkError::Deadline`] if it is not by then. It was not taken, or it leaves whole with the next
    /// [`flush`](Self::flush): the link goes on.
    pub fn send(&mut self, head: &[u8], body: Body, deadline: Instant) -> Result<(), LinkError> {
        let mut body = body;
        loop {
            match self.inner.try_send(head, body) {
                Ok(()) => return self.flush(deadline),
                Err(TrySendError::Full(back)) => body = back,
                Err(TrySendError::Link(error)) => return Err(error),
            }
            if !self.inner.flush()? {
                wait(&self.inner.interests(), deadline)?;
            }
        }
    }

    /// Waits until everything that was taken is out of this half's hands.
    ///
    /// # Errors
    ///
    /// [`LinkError::Deadline`] if it is not by then.
    pub fn flush(&mut self, deadline: Instant) -> Result<(), LinkError> {
        while !self.inner.flush()? {
            wait(&self.inner.interests(), deadline)?;
        }
        Ok(())
    }

    /// As [`Sender::pass_fd`].
    ///
    /// # Errors
    ///
    /// As [`Sender::pass_fd`].
    pub fn pass_fd(&mut self, tag: u32, fd: BorrowedFd<'_>) -> Result<(), LinkError> {
        self.inner.pass_fd(tag, fd)
    }

    /// The half itself, for messages to be gathered with [`Sender::try_send`].
    pub fn get_mut(&mut self) -> &mut dyn Sender {
        &mut *self.inner
    }

    /// The half itself, for good.
    pub fn into_inner(self) -> Box<dyn Sender> {
        self.inner
    }
}

/// A [`Receiver`] that waits for something to come.
pub struct BlockingReceiver {
    inner: Box<dyn Receiver>,
    spin: Spin,
    /// What is waited on, from the first time on.
    edges: Option<Edges>,
}

/// What came, without a borrow.
enum Came {
    Head(u64),
    Body(Target),
}

impl BlockingReceiver {
    /// Around a half of a link.
    pub fn new(inner: Box<dyn Receiver>) -> Self {
        Self { inner, spin: Spin::default(), edges: None }
    }

    /// The same, burning processor time before it sleeps.
    #[must_use]
    pub fn with_spin(mut self, spin: Spin) -> Self {
        self.spin = spin;
        self
    }

    /// The next thing that came; never [`Incoming::Empty`].
    ///
    /// # Errors
    ///
    /// [`LinkError::Deadline`] if nothing comes by then; others as [`Receiver::recv`].
    ///
    /// # Panics
    ///
    /// If a body waits to be placed.
    pub fn recv(&mut self, deadline: Instant) -> Result<Incoming<'_>, LinkError> {
        Ok(match self.wait(deadline)? {
            Came::Head(body_len) => Incoming::Head { head: self.inner.head(), body_len },
            Came::Body(target) => Incoming::Body(target),
        })
    }

    fn wait(&mut self, deadline: Instant) -> Result<Came, LinkError> {
        loop {
            if self.spin.0 > Duration::ZERO {
                self.inner.spin(self.spin.0.min(deadline.saturating_duration_since(Instant::now())));
            }
            match self.inner.recv()? {
                Incoming::Head { body_len, .. } => return Ok(Came::Head(body_len)),
                Incoming::Body(target) => return Ok(Came::Body(target)),
                Incoming::Empty => {}
            }
            match &mut self.edges {
                Some(edges) => edges.wait(deadline)?,
                None => {
                    self.edges = Some(Edges::of(&self.inner.interests())?);
                    self.inner.edge_triggered(true);
                }
            }
        }
    }

    /// The next thing that came, or [`Incoming::Empty`].
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv`].
    pub fn try_recv(&mut self) -> Result<Incoming<'_>, LinkError> {
        self.inner.recv()
    }

    /// As [`Receiver::place`].
    ///
    /// # Panics
    ///
    /// As [`Receiver::place`].
    pub fn place(&mut self, target: Target) {
        self.inner.place(target);
    }

    /// Places the body of the last head and waits for it.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv); after [`LinkError::Deadline`] the body may still come.
    ///
    /// # Panics
    ///
    /// As [`Receiver::place`].
    pub fn recv_body(&mut self, target: Target, deadline: Instant) -> Result<Target, LinkError> {
        self.inner.place(target);
        match self.wait(deadline)? {
            Came::Body(target) => Ok(target),
            Came::Head(_) => unreachable!("a body that was placed comes before the next head"),
        }
    }

    /// As [`Receiver::take_fd`].
    pub fn take_fd(&mut self, tag: u32) -> Option<OwnedFd> {
        self.inner.take_fd(tag)
    }

    /// The half itself.
    pub fn get_mut(&mut self) -> &mut dyn Receiver {
        &mut *self.inner
    }

    /// The half itself, for good.
    pub fn into_inner(mut self) -> Box<dyn Receiver> {
        self.inner.edge_triggered(false);
        self.inner
    }
}
