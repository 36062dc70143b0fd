//! Halves of a link, and listeners, for tokio tasks.
//!
//! 1. A future of this module that is dropped loses nothing: what came is there for the next call, what was taken leaves
//!    with the next flush.
//! 2. A receiver sleeps on nothing but the wake-up that it asked for: it looks for that first and asks anew after.

use crate::link::{Body, Incoming, Interests, Link, LinkError, Receiver, Sender, Target, TrySendError};
use crate::listen::Listener;
use smallvec::SmallVec;
use std::future::poll_fn;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, RuntimeFlavor};

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

/// How long a receiver that finds nothing looks again before it sleeps: long enough for a peer that slept to be woken on another
/// processor and to answer, so that both are awake from then on; sleeping and being woken costs each side half of it
/// (`compare/run.py cow`, one at a time).
const VIGIL: Duration = Duration::from_micros(50);

/// With so many vigils in vain more than others, there is only one in 2^so many waits.
const MAX_VAIN: u32 = 10;

/// Whether a receiver that finds nothing stays awake for a while.
///
/// Two processes that ask and answer in turns, each on a processor of its own, are so much faster if neither sleeps in between;
/// where they share one, or the answer takes longer, it is in vain, and then it is tried ever more rarely. Other tasks of the
/// thread have their turn meanwhile: whoever keeps a vigil goes to the end of their queue. Where a runtime has several threads
/// that queue would wake others of them, so there is none.
struct Vigil {
    /// How many more were in vain than not; `None` where there is none to be kept.
    vain: Option<u32>,
    /// Waits before the next.
    rest: u32,
    since: Option<Instant>,
}

impl Vigil {
    fn over(receiver: &dyn Receiver) -> Self {
        let alone = Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread);
        Self { vain: (alone && receiver.looks_for_free()).then_some(0), rest: 0, since: None }
    }

    /// Whether the next look at the link may find nothing without that being the end of it.
    fn is_on(&self) -> bool {
        self.vain.is_some() && self.rest == 0
    }

    /// Nothing is there. Whether to look again.
    fn goes_on(&mut self, now: Instant) -> bool {
        let Some(vain) = &mut self.vain else { return false };
        if now - *self.since.get_or_insert(now) < VIGIL {
            return true;
        }
        self.since = None;
        *vain = (*vain + 1).min(MAX_VAIN);
        self.rest = 1 << *vain;
        false
    }

    /// Something came. It takes as many vigils that were not in vain to be back where it was before others were.
    fn ends(&mut self) {
        if self.since.take().is_some()
            && let Some(vain) = &mut self.vain
        {
            *vain = vain.saturating_sub(1);
            self.rest = if *vain > 0 { 1 << *vain } else { 0 };
        }
    }

    /// The receiver goes to sleep.
    fn sleeps(&mut self) {
        self.rest = self.rest.saturating_sub(1);
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
        poll_fn(|context| self.poll_flush(context)).await
    }

    /// Drives [`flush`](Self::flush) by hand.
    ///
    /// # Errors
    ///
    /// As [`Sender::flush`].
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        while !self.inner.flush()? {
            ready!(self.watched.poll(context))?;
        }
        Poll::Ready(Ok(()))
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
    vigil: Vigil,
    /// Whether `inner` has asked for a wake-up, and nobody looked since.
    asleep: bool,
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
        Ok(Self { watched, vigil: Vigil::over(&*inner), inner, asleep: false })
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

    fn poll_came(&mut self, context: &mut Context<'_>) -> Poll<Result<Came, LinkError>> {
        loop {
            if self.asleep {
                ready!(self.watched.poll(context))?;
                self.asleep = false;
            }
            let awake = self.vigil.is_on();
            let came = match if awake { self.inner.recv_awake()? } else { self.inner.recv()? } {
                Incoming::Head { body_len, .. } => Came::Head(body_len),
                Incoming::Body(target) => Came::Body(target),
                Incoming::Empty if awake => {
                    if self.vigil.goes_on(Instant::now()) {
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    continue;
                }
                Incoming::Empty => {
                    self.vigil.sleeps();
                    self.asleep = true;
                    continue;
                }
            };
            self.vigil.ends();
            return Poll::Ready(Ok(came));
        }
    }

    /// The next thing that came, or [`Incoming::Empty`]. Does not register the task to be woken.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv`].
    pub fn try_recv(&mut self) -> Result<Incoming<'_>, LinkError> {
        self.asleep = false;
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
        self.asleep = false;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// How many waits there are until the next vigil.
    fn waits(vigil: &mut Vigil) -> u32 {
        let mut waits = 0;
        while !vigil.is_on() {
            vigil.sleeps();
            waits += 1;
        }
        waits
    }

    #[test]
    fn vigils_in_vain_become_rare_and_others_make_up_for_them() {
        let mut vigil = Vigil { vain: Some(0), rest: 0, since: None };
        let now = Instant::now();
        let in_vain = |vigil: &mut Vigil| {
            assert!(vigil.goes_on(now) && vigil.goes_on(now + VIGIL / 2));
            assert!(!vigil.goes_on(now + VIGIL));
        };
        for expected in [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024] {
            in_vain(&mut vigil);
            assert_eq!(waits(&mut vigil), expected);
        }
        for expected in [512, 256, 128, 64, 32, 16, 8, 4, 2, 0, 0] {
            assert!(vigil.goes_on(now));
            vigil.ends();
            assert_eq!(waits(&mut vigil), expected);
        }
        // What is there at once says nothing.
        vigil.ends();
        assert!(vigil.is_on());
        in_vain(&mut vigil);
        vigil.ends();
        assert_eq!(waits(&mut vigil), 2);
    }
}
