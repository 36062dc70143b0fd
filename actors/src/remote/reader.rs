//! The task that receives from a link and hands out what came. It never waits for a mailbox.

use super::answer::{RemoteReply, error_from_wire};
use super::codec::{Arguments, Codec, Method};
use super::frame::{BadHead, Data, Frame, Kind};
use super::hello::Hello;
use super::peer::{Answer, Peer};
use super::route::fnv1a;
use super::writer::{CloseOnDrop, link_error};
use crate::system::{Local, WeakSystem};
use crate::{ActorError, Exit, Reply, System};
use bytes::Bytes;
use dmrpc_fabric::asynchronous::AsyncReceiver;
use dmrpc_fabric::buffer::Buffer;
use dmrpc_fabric::link::{Incoming, LinkError, Target};
use dmrpc_objstore::{NodeId, Store, StoreOptions};
use dmrpc_wire::{Inlined, WireRef};
use smallvec::SmallVec;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Messages in a row before other tasks have their turn.
const IN_A_ROW: u32 = 64;

/// How long the connection to a memory node of the peer may take when its first ref comes.
const NODE_DEADLINE: Duration = Duration::from_secs(5);

pub(crate) async fn run(mut receiver: AsyncReceiver, peer: Arc<Peer>, system: WeakSystem) {
    let _close = CloseOnDrop(&peer);
    let mut reader = Reader { peer: &peer, system, hello: None, known: None };
    let ended = tokio::select! {
        biased;
        () = peer.ended() => return,
        ended = reader.read(&mut receiver) => ended,
    };
    let error = match ended {
        End::Link(error) => link_error(&peer, &error),
        End::Head(error) => {
            tracing::warn!(peer = &**peer.address(), %error, "a peer broke the protocol: the link is closed");
            link_error(&peer, &error)
        }
    };
    peer.close(&error);
}

/// Why a link ends.
enum End {
    Link(LinkError),
    Head(BadHead),
}

impl From<LinkError> for End {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<BadHead> for End {
    fn from(error: BadHead) -> Self {
        Self::Head(error)
    }
}

struct Reader<'a> {
    peer: &'a Arc<Peer>,
    system: WeakSystem,
    /// Once it came.
    hello: Option<Hello>,
    /// A memory node that this process is connected to.
    known: Option<NodeId>,
}

impl Reader<'_> {
    async fn read(&mut self, receiver: &mut AsyncReceiver) -> End {
        loop {
            for _ in 0..IN_A_ROW {
                if let Err(end) = self.one(receiver).await {
                    return end;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Receives one message, whole.
    async fn one(&mut self, receiver: &mut AsyncReceiver) -> Result<(), End> {
        let body_len = match receiver.recv().await? {
            Incoming::Head { body_len, .. } => body_len,
            Incoming::Empty | Incoming::Body(_) => return Err(BadHead("a body without a head").into()),
        };
        let mut body = Bytes::new();
        if body_len > 0 {
            // What is not understood is not given memory.
            Frame::decode(receiver.get_mut().head(), body_len)?;
            let len = usize::try_from(body_len).ok().filter(|_| body_len <= self.peer.limits().max_message_bytes);
            let len = len.ok_or(BadHead("a message over the limit"))?;
            receiver.place(Buffer::zeroed(len).into());
            let target = match receiver.recv().await? {
                Incoming::Body(target) => target,
                Incoming::Head { .. } | Incoming::Empty => return Err(BadHead("a head before its body").into()),
            };
            body = placed(target);
        }
        let frame = Frame::decode(receiver.get_mut().head(), body_len)?;
        let (payload, table, attached) = match frame.data {
            Data::Head { payload, table } => (payload, table, 0),
            Data::Body { payload_len, table_len } => {
                let (payload, rest) = body.split_at(payload_len as usize);
                (payload, &rest[..table_len as usize], payload_len as usize + table_len as usize)
            }
        };
        let mut at = attached;
        let attachments: Vec<Bytes> = frame
            .attachments()
            .map(|len| {
                let start = at;
                at += len as usize;
                body.slice(start..at)
            })
            .collect();
        if !table.is_empty() || frame.refs > 0 {
            self.meet_nodes(table, frame.refs).await?;
        }
        self.take(&frame, payload, table, &attachments)
    }

    fn take(&mut self, frame: &Frame<'_>, payload: &[u8], table: &[u8], attachments: &[Bytes]) -> Result<(), End> {
        if self.hello.is_none() {
            let hello = Hello::decode(frame)?;
            let _ = self.peer.url.set(hello.address.as_deref().map(Arc::from));
            self.hello = Some(hello);
            return Ok(());
        }
        let peer = self.peer;
        match frame.kind {
            Kind::Hello => return Err(BadHead("a second hello").into()),
            Kind::Lookup => self.look_up(frame),
            Kind::Ask | Kind::Tell => {
                let is_ask = frame.kind == Kind::Ask;
                if is_ask {
                    peer.forget_cancelled(frame.request);
                }
                if let Err(error) = self.deliver(frame, payload, table, attachments) {
                    tracing::debug!(peer = &**peer.address(), %error, "a message was not delivered");
                    if is_ask {
                        peer.refuse(frame.request, &error);
                    }
                }
            }
            Kind::Reply => {
                let outcome = match error_from_wire(frame.target, payload, peer.address()) {
                    Some(error) => Err(error),
                    None => Codec::from_wire(frame.codec).map(|codec| Answer {
                        arguments: Arguments {
                            peer,
                            codec,
                            method: Method::Id(0),
                            payload,
                            table,
                            attachments,
                            request: None,
                        },
                        actor: frame.message,
                    }),
                };
                let answered = catch_unwind(AssertUnwindSafe(|| peer.answered(frame.request, outcome)));
                match answered {
                    Ok(true) => {}
                    Ok(false) => return Err(BadHead("an answer to nothing").into()),
                    Err(_) => tracing::error!(peer = &**peer.address(), "decoding an answer panicked"),
                }
            }
            Kind::Cancel => peer.cancel(frame.request),
            Kind::Return => {
                let (numbers, rest) = payload.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(BadHead("a return that is cut").into());
                }
                let numbers: SmallVec<[u64; 16]> = numbers.iter().map(|number| u64::from_le_bytes(*number)).collect();
                peer.loans().returned(&numbers);
            }
            Kind::Bye => peer.retire(),
            Kind::Watch => {
                peer.forget_cancelled(frame.request);
                match self.addressee(frame) {
                    Ok(actor) => {
                        let way_back = RemoteReply::new(Arc::clone(peer), frame.request, Codec::Postcard, Exit::encode);
                        actor.watch(Reply::link(way_back));
                    }
                    Err(error) => peer.refuse(frame.request, &error),
                }
            }
            Kind::Gone => peer.actor_gone(frame.target),
        }
        Ok(())
    }

    fn look_up(&self, frame: &Frame<'_>) {
        let found = self.system.upgrade().and_then(|system| system.find(frame.name));
        let matches = |type_name: &str| frame.message == 0 || frame.message == fnv1a(type_name);
        if self.system.upgrade().is_none_or(|system| system.is_closing()) {
            self.peer.refuse(frame.request, &ActorError::Stopped);
            return;
        }
        let refusal = match found {
            Some((id, local)) if matches(local.type_name()) => {
                let answer = Frame { request: frame.request, message: id, ..Frame::new(Kind::Reply) };
                // If the link has ended, nobody waits.
                let _ = self.peer.send_bare(&answer);
                return;
            }
            Some((_, local)) => format!("{} is a {}", frame.name, local.type_name()),
            None => frame.name.to_owned(),
        };
        self.peer.refuse(frame.request, &ActorError::UnknownActor(refusal.into()));
    }

    /// Who a message is for. Of one that has ended the other end is told that its number is good for nothing.
    fn addressee(&self, frame: &Frame<'_>) -> Result<Arc<dyn Local>, ActorError> {
        let system = self.system.upgrade().ok_or(ActorError::Stopped)?;
        system.actor(frame.target).ok_or_else(|| {
            // It was there when it was looked up. If the link has ended, nobody needs to know.
            let _ = self.peer.send_bare(&Frame { target: frame.target, ..Frame::new(Kind::Gone) });
            ActorError::Stopped
        })
    }

    fn deliver(
        &self,
        frame: &Frame<'_>,
        payload: &[u8],
        table: &[u8],
        attachments: &[Bytes],
    ) -> Result<(), ActorError> {
        let codec = Codec::from_wire(frame.codec)?;
        let actor = self.addressee(frame)?;
        let method = if frame.message == 0 { Method::Name(frame.name) } else { Method::Id(frame.message) };
        let request = (frame.kind == Kind::Ask).then_some(frame.request);
        let arguments = Arguments { peer: self.peer, codec, method, payload, table, attachments, request };
        let deadline = (frame.timeout_ms > 0).then(|| Instant::now() + Duration::from_millis(frame.timeout_ms.into()));
        let delivered = catch_unwind(AssertUnwindSafe(|| actor.deliver(arguments, deadline)))
            .unwrap_or_else(|_| Err(ActorError::malformed("decoding the arguments panicked")));
        if delivered.is_err() && self.system.upgrade().is_none_or(|system| !system.lives(frame.target)) {
            // It is ending, and its name is free already: the next call has to find who has it then.
            let _ = self.peer.send_bare(&Frame { target: frame.target, ..Frame::new(Kind::Gone) });
        }
        delivered
    }

    /// Reads through the references that came, `refs` of them. Connects to their memory nodes, if the peer has told where they are and
    /// this process is not connected.
    async fn meet_nodes(&mut self, table: &[u8], refs: u16) -> Result<(), BadHead> {
        let mut rest = table;
        for _ in 0..refs {
            let (reference, after) = WireRef::decode(rest).map_err(|malformed| BadHead(malformed.0))?;
            rest = after;
            let node = reference.id.node();
            if matches!(reference.bytes, Inlined::Bytes(_)) || self.known == Some(node) {
                continue;
            }
            if Store::of_node(node).is_none() {
                self.meet(node).await;
            }
            self.known = Some(node);
        }
        if rest.is_empty() { Ok(()) } else { Err(BadHead("more references than it says")) }
    }

    async fn meet(&self, node: NodeId) {
        let nodes = self.hello.iter().flat_map(|hello| &hello.nodes);
        let Some((_, url)) = nodes.into_iter().find(|(number, _)| *number == node.0) else { return };
        let Some(system) = self.system.upgrade().map(System) else { return };
        let connecting = Store::connect_with(StoreOptions::new(url.clone()));
        match tokio::time::timeout(NODE_DEADLINE, connecting).await {
            Ok(Ok(store)) => system.keep_store(store),
            // The message says so to its sender, by the ref that it can't have.
            Ok(Err(error)) => tracing::warn!(url, %error, "a memory node of a peer can't be reached"),
            Err(_) => tracing::warn!(url, "a memory node of a peer did not answer in time"),
        }
    }
}

fn placed(target: Target) -> Bytes {
    Buffer::from_target(target).expect("the buffer that was placed").into_vec().into()
}
