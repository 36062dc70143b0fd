//! Answers that go back over a link.

use super::codec::{Codec, Output};
use super::frame::{Frame, Kind};
use super::peer::Peer;
use crate::ActorError;
use std::sync::Arc;

/// How a request ended. The numbers stand on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Status {
    Ok = 0,
    MailboxFull = 1,
    Deadline = 2,
    Stopped = 3,
    Crashed = 4,
    UnknownActor = 5,
    UnknownMessage = 6,
    Malformed = 7,
    Cancelled = 8,
    TooLarge = 9,
    Reference = 10,
    Unreachable = 11,
}

/// What goes to the other end in the place of an answer: a status and a text.
pub(crate) fn error_to_wire(error: &ActorError) -> (u32, String) {
    let (status, text) = match error {
        ActorError::MailboxFull => (Status::MailboxFull, String::new()),
        ActorError::Deadline => (Status::Deadline, String::new()),
        ActorError::Stopped => (Status::Stopped, String::new()),
        ActorError::Crashed(text) => (Status::Crashed, text.to_string()),
        ActorError::UnknownActor(text) => (Status::UnknownActor, text.to_string()),
        ActorError::UnknownMessage(text) => (Status::UnknownMessage, text.to_string()),
        ActorError::Malformed(text) => (Status::Malformed, text.to_string()),
        ActorError::Cancelled => (Status::Cancelled, String::new()),
        ActorError::TooLarge { len, limit } => (Status::TooLarge, format!("{len} {limit}")),
        ActorError::Reference(text) => (Status::Reference, text.to_string()),
        ActorError::Unreachable { .. } | ActorError::NameTaken(_) | ActorError::Address { .. } => {
            (Status::Unreachable, error.to_string())
        }
    };
    (status as u32, text)
}

/// The error that came in the place of an answer; `None` for [`Status::Ok`].
pub(crate) fn error_from_wire(status: u32, text: &[u8], address: &Arc<str>) -> Option<ActorError> {
    use Status::*;
    const ALL: [Status; 12] = [
        Ok,
        MailboxFull,
        Deadline,
        Stopped,
        Crashed,
        UnknownActor,
        UnknownMessage,
        Malformed,
        Cancelled,
        TooLarge,
        Reference,
        Unreachable,
    ];
    let text: Arc<str> = String::from_utf8_lossy(text).into();
    Some(match ALL.into_iter().find(|known| *known as u32 == status) {
        Some(Ok) => return None,
        Some(MailboxFull) => ActorError::MailboxFull,
        Some(Deadline) => ActorError::Deadline,
        Some(Stopped) => ActorError::Stopped,
        Some(Crashed) => ActorError::Crashed(text),
        Some(UnknownActor) => ActorError::UnknownActor(text),
        Some(UnknownMessage) => ActorError::UnknownMessage(text),
        Some(Malformed) => ActorError::Malformed(text),
        Some(Cancelled) => ActorError::Cancelled,
        Some(TooLarge) => {
            let mut figures = text.split(' ').map(|figure| figure.parse().unwrap_or(0));
            ActorError::TooLarge { len: figures.next().unwrap_or(0), limit: figures.next().unwrap_or(0) }
        }
        Some(Reference) => ActorError::Reference(text),
        Some(Unreachable) => ActorError::Unreachable { address: Arc::clone(address), why: text },
        None => ActorError::Malformed(format!("an answer with the unknown status {status}").into()),
    })
}

/// The way back of one request.
pub(crate) struct RemoteReply<R> {
    peer: Arc<Peer>,
    request: u32,
    codec: Codec,
    encode: fn(&R, &mut Output<'_>) -> Result<(), ActorError>,
}

impl<R> RemoteReply<R> {
    pub(crate) fn new(
        peer: Arc<Peer>,
        request: u32,
        codec: Codec,
        encode: fn(&R, &mut Output<'_>) -> Result<(), ActorError>,
    ) -> Self {
        Self { peer, request, codec, encode }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.peer.is_cancelled(self.request)
    }

    pub(crate) fn finish(self, result: Result<R, ActorError>) {
        self.peer.forget_cancelled(self.request);
        let sent = result.and_then(|answer| {
            let frame = Frame { codec: self.codec as u8, request: self.request, ..Frame::new(Kind::Reply) };
            self.peer.send(frame, self.codec, |output| (self.encode)(&answer, output))
        });
        if let Err(error) = sent {
            self.peer.refuse(self.request, &error);
        }
    }
}
