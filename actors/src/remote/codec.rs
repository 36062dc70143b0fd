//! Arguments and answers as bytes.

use super::answer::RemoteReply;
use super::attach::{self, Scope};
use super::peer::Peer;
use crate::{Actor, ActorError, Message, Reply};
use bytes::Bytes;
use dmrpc_objstore::{AnyRef, Lending, Loans, StoreError, with_borrower, with_lender};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// How a payload is encoded. The numbers stand on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// Between Rust processes.
    Postcard = 0,
    /// For other languages: arguments as an array, structs in answers as maps, methods by name.
    MessagePack = 1,
}

impl Codec {
    pub(crate) fn from_wire(number: u8) -> Result<Self, ActorError> {
        match number {
            0 => Ok(Self::Postcard),
            1 => Ok(Self::MessagePack),
            _ => Err(ActorError::Malformed("unknown codec".into())),
        }
    }
}

/// Where arguments or an answer are written for a link.
pub struct Output<'a> {
    peer: &'a Arc<Peer>,
    codec: Codec,
    loans: Loans,
    pub(crate) payload: &'a mut Vec<u8>,
    pub(crate) attachments: Vec<Bytes>,
    pub(crate) lending: Option<Lending>,
}

impl<'a> Output<'a> {
    /// `loans`: those under which references go.
    pub(crate) fn new(peer: &'a Arc<Peer>, codec: Codec, loans: Loans, payload: &'a mut Vec<u8>) -> Self {
        payload.clear();
        Self { peer, codec, loans, payload, attachments: Vec::new(), lending: None }
    }

    /// Writes `value`, which is all there is.
    ///
    /// # Errors
    ///
    /// [`ActorError::Malformed`] if it can't be serialized.
    pub fn write<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ActorError> {
        let payload = std::mem::take(self.payload);
        let scope = Scope { codec: self.codec, attachments: Vec::new(), peer: Arc::clone(self.peer) };
        let (codec, loans) = (self.codec, &self.loans);
        let ((written, lending), scope) = attach::within(scope, || {
            with_lender(loans, || match codec {
                Codec::Postcard => postcard::to_extend(value, payload).map_err(ActorError::malformed),
                Codec::MessagePack => {
                    let mut payload = payload;
                    let mut serializer = rmp_serde::Serializer::new(&mut payload).with_struct_map();
                    value.serialize(&mut serializer).map_err(ActorError::malformed)?;
                    Ok(payload)
                }
            })
        });
        *self.payload = written?;
        self.attachments = scope.attachments;
        self.lending = (lending.count() > 0).then_some(lending);
        Ok(())
    }
}

impl Output<'_> {
    /// Writes bytes that are encoded already, and lends the references that they name by their place in `refs`.
    pub(crate) fn write_raw(&mut self, value: &[u8], refs: &[AnyRef]) -> Result<(), ActorError> {
        self.payload.extend_from_slice(value);
        // Each serializes to its place in the table, which is that in `refs`; where it stands in the value, the caller has written.
        let (lent, lending) =
            with_lender(&self.loans, || refs.iter().try_for_each(|reference| postcard::to_stdvec(reference).map(drop)));
        lent.map_err(|error| ActorError::Reference(error.to_string().into()))?;
        self.lending = (lending.count() > 0).then_some(lending);
        Ok(())
    }
}

/// Which method is meant.
#[derive(Clone, Copy, Debug)]
pub enum Method<'a> {
    /// By number.
    Id(u32),
    /// By name.
    Name(&'a str),
}

/// Arguments or an answer that came over a link.
#[derive(Clone, Copy)]
pub struct Arguments<'a> {
    pub(crate) peer: &'a Arc<Peer>,
    pub(crate) codec: Codec,
    pub(crate) method: Method<'a>,
    pub(crate) payload: &'a [u8],
    pub(crate) table: &'a [u8],
    pub(crate) attachments: &'a [Bytes],
    /// The number under which an answer is awaited.
    pub(crate) request: Option<u32>,
}

impl<'a> Arguments<'a> {
    /// Which method is meant.
    pub fn method(&self) -> Method<'a> {
        self.method
    }

    /// The error for a method that there is not.
    pub fn unknown(&self) -> ActorError {
        ActorError::UnknownMessage(match self.method {
            Method::Id(id) => format!("number {id}").into(),
            Method::Name(name) => name.into(),
        })
    }

    /// The arguments as a message, with the way back for its answer.
    ///
    /// # Errors
    ///
    /// [`ActorError::Malformed`], [`ActorError::Reference`].
    pub fn read<A, M>(self) -> Result<A::Message, ActorError>
    where
        A: Actor,
        M: Message<A> + DeserializeOwned,
    {
        let message: M = self.value()?;
        let reply = match self.request {
            Some(request) => Reply::link(RemoteReply::new(Arc::clone(self.peer), request, self.codec, M::encode_reply)),
            None => Reply::nobody(),
        };
        Ok(message.into_mail(reply))
    }

    /// The references that came along.
    pub(crate) fn references(&self) -> Result<Vec<AnyRef>, ActorError> {
        let mut references = Vec::new();
        let mut rest = self.table;
        while !rest.is_empty() {
            let (reference, after) = self.peer.borrows().borrow(rest).map_err(|error| reference_error(&error))?;
            references.push(reference);
            rest = after;
        }
        Ok(references)
    }

    /// The value that the bytes are.
    ///
    /// # Errors
    ///
    /// [`ActorError::Malformed`], [`ActorError::Reference`].
    pub fn value<T: DeserializeOwned>(self) -> Result<T, ActorError> {
        let scope = Scope { codec: self.codec, attachments: self.attachments.to_vec(), peer: Arc::clone(self.peer) };
        let decode = || match self.codec {
            Codec::Postcard => {
                let (value, rest) = postcard::take_from_bytes(self.payload).map_err(ActorError::malformed)?;
                if rest.is_empty() { Ok(value) } else { Err(ActorError::malformed("longer than its value")) }
            }
            Codec::MessagePack => {
                let mut rest = self.payload;
                let value = rmp_serde::from_read(&mut rest).map_err(ActorError::malformed)?;
                if rest.is_empty() { Ok(value) } else { Err(ActorError::malformed("longer than its value")) }
            }
        };
        let (decoded, _) = attach::within(scope, || {
            if self.table.is_empty() { Ok(decode()) } else { with_borrower(self.peer.borrows(), self.table, decode) }
        });
        decoded.map_err(|error| reference_error(&error))?
    }
}

pub(crate) fn reference_error(error: &StoreError) -> ActorError {
    match error {
        StoreError::Malformed(why) => ActorError::malformed(why),
        other => ActorError::Reference(other.to_string().into()),
    }
}
