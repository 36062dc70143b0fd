//! The way to an actor of another system.

use super::codec::Codec;
use super::frame::{Frame, Kind};
use super::peer::{Answer, Peer};
use crate::{Actor, ActorError, Exit, Message, System};
use parking_lot::Mutex;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A call that goes over a link: the link costs more than the box.
pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, ActorError>> + Send>>;

/// Where an actor is, and the link to it if there is one just now.
pub(crate) struct Route {
    system: System,
    place: Place,
    name: Arc<str>,
    type_hash: u32,
    current: Mutex<Option<Joined>>,
    /// Whether the actor was found before.
    met: AtomicBool,
}

/// Where the actor's system is.
#[derive(Clone)]
pub(crate) enum Place {
    /// At this address, link or no link.
    Address(Arc<str>),
    /// At the other end of this link, and gone with it.
    Link(Arc<Peer>),
}

/// A link, and the actor's number there.
#[derive(Clone)]
pub(crate) struct Joined {
    pub(crate) peer: Arc<Peer>,
    pub(crate) actor: u32,
}

/// The 32-bit FNV-1a hash: of methods and types on the wire. See <http://www.isthe.com/chongo/tech/comp/fnv/>.
pub(crate) const fn fnv1a(text: &str) -> u32 {
    let bytes = text.as_bytes();
    let mut hash = 0x811c_9dc5_u32;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Address(address) => write!(f, "{address}#{}", self.name),
            Place::Link(peer) => write!(f, "{}#{} by its link", peer.address(), self.name),
        }
    }
}

impl Route {
    pub(crate) fn new(system: System, place: Place, name: Arc<str>, type_hash: u32) -> Arc<Self> {
        Arc::new(Self { system, place, name, type_hash, current: Mutex::new(None), met: AtomicBool::new(false) })
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The link that is there, if it is.
    fn joined(&self) -> Option<Joined> {
        let usable = |joined: &&Joined| joined.peer.is_usable() && !joined.peer.is_gone(joined.actor);
        self.current.lock().as_ref().filter(usable).cloned()
    }

    /// The link to the actor, made anew if need be; and the actor of that name, if the one that had it has ended.
    pub(crate) async fn join(&self, deadline: Instant) -> Result<Joined, ActorError> {
        if let Some(joined) = self.joined() {
            return Ok(joined);
        }
        let peer = match &self.place {
            Place::Link(peer) => Arc::clone(peer),
            Place::Address(address) => self.system.link_to(address, deadline).await?,
        };
        let actor = match look_up(&peer, &self.name, self.type_hash).await {
            Err(ActorError::UnknownActor(_)) if self.met.load(Ordering::Relaxed) => return Err(ActorError::Stopped),
            found => found?,
        };
        self.met.store(true, Ordering::Relaxed);
        let joined = Joined { peer, actor };
        *self.current.lock() = Some(joined.clone());
        Ok(joined)
    }

    fn deadline(&self, given: Option<Instant>) -> Instant {
        given.unwrap_or_else(|| Instant::now() + self.system.ask_timeout())
    }

    pub(crate) fn ask<A: Actor, M: Message<A>>(
        self: &Arc<Self>,
        message: M,
        deadline: Option<Instant>,
    ) -> Boxed<M::Reply> {
        let route = Arc::clone(self);
        self.system.on_runtime(async move {
            let deadline = route.deadline(deadline);
            let deadlines = Arc::clone(route.system.deadlines());
            let call = async move {
                let Joined { peer, actor } = route.join(deadline).await?;
                peer.has_room().await;
                let frame = Frame {
                    target: actor,
                    message: M::ID,
                    timeout_ms: remaining_ms(deadline),
                    ..Frame::new(Kind::Ask)
                };
                ask_over(
                    &peer,
                    frame,
                    Codec::Postcard,
                    move |output| message.encode(output),
                    |answer: Answer<'_>| M::decode_reply(answer.arguments),
                )
                .await
            };
            deadlines.within(deadline, call).await
        })
    }

    pub(crate) fn tell<A: Actor, M: Message<A>>(self: &Arc<Self>, message: M, deadline: Option<Instant>) -> Boxed<()> {
        let route = Arc::clone(self);
        self.system.on_runtime(async move {
            let deadline = route.deadline(deadline);
            let deadlines = Arc::clone(route.system.deadlines());
            let send = async move {
                let Joined { peer, actor } = route.join(deadline).await?;
                peer.has_room().await;
                let frame = Frame { target: actor, message: M::ID, ..Frame::new(Kind::Tell) };
                peer.send(frame, Codec::Postcard, move |output| message.encode(output))
            };
            deadlines.within(deadline, send).await
        })
    }

    pub(crate) fn tell_now<A: Actor, M: Message<A>>(&self, message: &M) -> Result<(), ActorError> {
        let Some(Joined { peer, actor }) = self.joined() else { return Err(ActorError::MailboxFull) };
        if peer.is_full() {
            return Err(ActorError::MailboxFull);
        }
        let frame = Frame { target: actor, message: M::ID, ..Frame::new(Kind::Tell) };
        peer.send(frame, Codec::Postcard, |output| message.encode(output))
    }
}

impl Route {
    /// The end of the actor that has the name now.
    pub(crate) async fn ended(self: Arc<Self>) -> Exit {
        let deadline = self.deadline(None);
        let (joining, deadlines) = (Arc::clone(&self), Arc::clone(self.system.deadlines()));
        let watching = async move {
            let Joined { peer, actor } = deadlines.within(deadline, joining.join(deadline)).await?;
            // Without a deadline: an actor may live long, and the link tells if its system does not.
            let frame = Frame { target: actor, ..Frame::new(Kind::Watch) };
            ask_over(&peer, frame, Codec::Postcard, |_| Ok(()), |answer| Exit::decode(answer.arguments)).await
        };
        match self.system.on_runtime(watching).await {
            Ok(exit) => exit,
            Err(ActorError::Stopped | ActorError::UnknownActor(_)) => Exit::Gone,
            Err(error) => Exit::Unreachable(error.to_string().into()),
        }
    }
}

/// What is left until `deadline`, for the other end, whose clock is another; at least a millisecond, as 0 is none.
pub(crate) fn remaining_ms(deadline: Instant) -> u32 {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    u32::try_from(left.as_millis()).unwrap_or(u32::MAX)
}

/// Sends a request and waits for its answer, for as long as the link lasts.
pub(crate) async fn ask_over<R: Send + 'static>(
    peer: &Arc<Peer>,
    frame: Frame<'_>,
    codec: Codec,
    write: impl FnOnce(&mut super::codec::Output<'_>) -> Result<(), ActorError>,
    read: impl FnOnce(Answer<'_>) -> Result<R, ActorError> + Send + 'static,
) -> Result<R, ActorError> {
    let (sender, receiver) = oneshot::channel();
    let completion = Box::new(move |outcome: Result<Answer<'_>, ActorError>| {
        // Whoever waited may be gone.
        let _ = sender.send(outcome.and_then(read));
    });
    let withdrawal = peer.request(frame, codec, write, completion)?;
    let answer = receiver.await.unwrap_or(Err(ActorError::Stopped));
    withdrawal.answered();
    answer
}

/// Asks for the number of an actor.
pub(crate) async fn look_up(peer: &Arc<Peer>, name: &str, type_hash: u32) -> Result<u32, ActorError> {
    let frame = Frame { message: type_hash, name, ..Frame::new(Kind::Lookup) };
    ask_over(peer, frame, Codec::Postcard, |_| Ok(()), |answer| Ok(answer.actor)).await
}
