//! Halves of a link, and listeners, for tokio tasks.
//!
//! 1. A future of this module that is dropped loses nothing: what came is there for the next call, what was taken leaves
//!    with the next flush.

use crate::link::{Body, Incoming, Interests, Link, LinkError, Receiver, Sender, Target, TrySendError};
use crate::listen::Listener;
use smallvec::SmallVec;
use std::future::poll_fn;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The number of a descriptor that a half owns. Registered before that is dropped, as it stands before it.
struct Borrowed(RawFd);

impl AsRawFd for Borrowed {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

/// The descriptors of a half, watched by the runtime.
struct Watched(SmallVec<[(AsyncFd<Borrowed>, bool); 2]>);

impl Watched {
    /// # Safety
    ///
    /// The half whose interests these are outlives this value.
    unsafe fn new(interests: &Interests<'_>) -> Result<Self, LinkError> {
        let watch = |interest: &crate::link::Interest<'_>| {
            let ready = if interest.writable { Interest::WRITABLE } else { Interest::READABLE };
            // SAFETY: the half owns the descriptor for its life and never replaces it; the caller answers for the life.
            let fd = unsafe { AsyncFd::register_with_interest(Borrowed(interest.fd.as_raw_fd()), ready) };
            fd.map(|fd| (fd, interest.writable)).map_err(std::io::Error::from)
        };
        let watched = interests.iter().map(watch).collect::<Result<_, _>>();
        Ok(Self(watched.map_err(|error| LinkError::io("registering a link with the runtime", error))?))
    }

    /// Ready when a descriptor was since it last was here. What was ready has to be looked at after, not before.
    fn poll(&self, context: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let mut ready = false;
        for (fd, writable) in &self.0 {
            let polled = if *writable { fd.poll_write_ready(context) } else { fd.poll_read_ready(context) };
            if let Poll::Ready(guard) = polled {
                guard.map_err(|error| LinkError::io("waiting for a link", error))?.clear_ready();
                ready = true;
            }
        }
        if ready { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    async fn ready(&self) -> Result<(), LinkError> {
        poll_fn(|context| self.poll(context)).await
    }
}

/// A [`Sender`] that waits for room.
pub struct AsyncSender {
    /// Before `inner`, whose descriptors it watches, so that it is dropped first.
    watched: Watched,
    inner: Box<dyn Sender>,
}

impl AsyncSender {
    /// Around a half of a link. Within a tokio runtime with I/O enabled.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] if the descriptors can't be registered.
    pub fn new(inner: Box<dyn Sender>) -> Result<Self, LinkError> {
        // SAFETY: `inner` is dropped after what watches it, and `into_inner` moves it without dropping it.
        let watched = unsafe { Watched::new(&inner.interests()) }?;
        Ok(Self { watched, inner })
    }

    /// Sends a message and waits until it is out of this half's hands. To gather many, see [`get_mut`](Self::get_mut).
    ///
    /// If the future is dropped the message was not taken, or it leaves whole with the next [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// As [`Sender::try_send`].
    pub async fn send(&mut self, head: &[u8], body: Body) -> Result<(), LinkError> {
        let mut body = body;
        loop {
            match self.inner.try_send(head, body) {
                Ok(()) => return self.flush().await,
                Err(TrySendError::Full(back)) => body = back,
                Err(TrySendError::Link(error)) => return Err(error),
            }
            if !self.inner.flush()? {
                self.watched.ready().await?;
            }
        }
    }

    /// Waits until everything that was taken is out of this half's hands.
    ///
    /// # Errors
    ///
    /// As [`Sender::flush`].
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        while !self.inner.flush()? {
            self.watched.ready().await?;
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
pub struct AsyncReceiver {
    /// Before `inner`, whose descriptors it watches, so that it is dropped first.
    watched: Watched,
    inner: Box<dyn Receiver>,
}

/// What came, without a borrow.
enum Came {
    Head(u64),
    Body(Target),
}

impl AsyncReceiver {
    /// Around a half of a link. Within a tokio runtime with I/O enabled.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] if the descriptors can't be registered.
    pub fn new(mut inner: Box<dyn Receiver>) -> Result<Self, LinkError> {
        // SAFETY: `inner` is dropped after what watches it, and `into_inner` moves it without dropping it.
        let watched = unsafe { Watched::new(&inner.interests()) }?;
        // The runtime waits on edges.
        inner.edge_triggered(true);
        Ok(Self { watched, inner })
    }

    /// The next thing that came; never [`Incoming::Empty`].
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv`].
    ///
    /// # Panics
    ///
    /// If a body waits to be placed.
    pub async fn recv(&mut self) -> Result<Incoming<'_>, LinkError> {
        Ok(match self.came().await? {
            Came::Head(body_len) => Incoming::Head { head: self.inner.head(), body_len },
            Came::Body(target) => Incoming::Body(target),
        })
    }

    async fn came(&mut self) -> Result<Came, LinkError> {
        poll_fn(|context| self.poll_came(context)).await
    }

    /// Drives [`recv`](Self::recv) by hand: whether there is something for [`try_recv`](Self::try_recv) is not known before.
    fn poll_came(&mut self, context: &mut Context<'_>) -> Poll<Result<Came, LinkError>> {
        loop {
            match self.inner.recv()? {
                Incoming::Head { body_len, .. } => return Poll::Ready(Ok(Came::Head(body_len))),
                Incoming::Body(target) => return Poll::Ready(Ok(Came::Body(target))),
                Incoming::Empty => std::task::ready!(self.watched.poll(context))?,
            }
        }
    }

    /// The next thing that came, or [`Incoming::Empty`]. Does not register the task to be woken.
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

/// A [`Listener`] that waits for somebody to connect.
pub struct AsyncListener {
    /// Before `inner`, whose descriptor it watches, so that it is dropped first.
    watched: Watched,
    inner: Listener,
}

impl AsyncListener {
    /// Around a listener. Within a tokio runtime with I/O enabled.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`] if the descriptor can't be registered.
    pub fn new(inner: Listener) -> Result<Self, LinkError> {
        let watched = {
            let interests: Interests<'_> =
                std::iter::once(crate::link::Interest { fd: inner.as_fd(), writable: false }).collect();
            // SAFETY: `inner` keeps its descriptor for its life, and is dropped after what watches it.
            unsafe { Watched::new(&interests) }?
        };
        Ok(Self { watched, inner })
    }

    /// The next link.
    ///
    /// # Errors
    ///
    /// As [`Listener::try_accept`].
    pub async fn accept(&mut self) -> Result<Link, LinkError> {
        loop {
            if let Some(link) = self.inner.try_accept()? {
                return Ok(link);
            }
            self.watched.ready().await?;
        }
    }

    /// The listener itself.
    pub fn get_ref(&self) -> &Listener {
        &self.inner
    }
}
