//! One end of a link between a client and the hub: records out and in, and the references that are lent over it.

use super::payload::Payload;
use dmrpc_fabric::LinkOptions;
use dmrpc_fabric::buffer::Buffer;
use dmrpc_fabric::link::{Body, Incoming, Link, LinkError, MAX_HEAD_BYTES, Receiver, Sender, TrySendError};
use dmrpc_hub::record::{Came, Failed, Malformed, Record, Value, Wanted};
use dmrpc_hub::{Failure, FunctionId, Outcome, Work};
use dmrpc_objstore::{Borrows, Loans, StoreError};
use rustc_hash::FxHashSet;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long what was lent over a link is kept when the link ends, so that borrowers can take hold of it.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes of the ring each way.
const RING_BYTES: usize = 256 * 1024;
/// The longest record.
const MAX_RECORD_BYTES: u64 = 1 << 30;
/// So many records are on their way together: the peer works on them while more are made. Fewer wake it more often
/// (`compare/ray/microbenchmark.py`, 1:1 actor calls async).
const STRIDE: u32 = 64;
/// What may wait for a peer that does not read, in bytes.
const MAX_QUEUED_BYTES: u64 = 1 << 28;

/// How links are to be.
pub(crate) fn options() -> LinkOptions {
    let mut options = LinkOptions::default().ring_bytes(RING_BYTES).max_body_bytes(MAX_RECORD_BYTES);
    options.max_queued_bytes = MAX_QUEUED_BYTES;
    options
}

/// Why a link is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it does not read what is sent to it")]
    Full,
}

/// The half that sends.
pub(crate) struct Outgoing {
    sender: Box<dyn Sender>,
    scratch: Vec<u8>,
    pub(crate) loans: Loans,
    borrows: Borrows,
    returns: Arc<AtomicBool>,
    /// Functions that the peer knows.
    functions: FxHashSet<FunctionId>,
    /// Something was sent and not flushed.
    dirty: bool,
    /// Records since something was flushed.
    unflushed: u32,
}

/// The half that receives.
pub(crate) struct Inward {
    receiver: Box<dyn Receiver>,
    borrows: Borrows,
}

/// Both halves; `wake` is called when there are loans to give back.
pub(crate) fn halves(link: Link, wake: impl Fn() + Send + Sync + 'static) -> (Outgoing, Inward) {
    let Link { sender, mut receiver, .. } = link;
    receiver.edge_triggered(true);
    let returns = Arc::new(AtomicBool::new(false));
    let borrows = Borrows::new({
        let returns = returns.clone();
        move || {
            if !returns.swap(true, Ordering::AcqRel) {
                wake();
            }
        }
    });
    let loans = Loans::new(GRACE);
    let outgoing = Outgoing {
        sender,
        scratch: Vec::new(),
        loans,
        borrows: borrows.clone(),
        returns,
        functions: FxHashSet::default(),
        dirty: false,
        unflushed: 0,
    };
    (outgoing, Inward { receiver, borrows })
}

impl Outgoing {
    /// Takes a record to be sent; it need not be on its way before [`flush`](Self::flush).
    pub(crate) fn send(&mut self, record: &Record<'_>) -> Result<(), PeerError> {
        self.scratch.clear();
        record.encode(&mut self.scratch);
        self.dirty = true;
        let sent = if self.scratch.len() <= MAX_HEAD_BYTES {
            self.sender.try_send(&self.scratch, Body::new())
        } else {
            let mut body = Body::new();
            body.push(std::mem::take(&mut self.scratch).into());
            self.sender.try_send(&[], body)
        };
        match sent {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(PeerError::Full),
            Err(TrySendError::Link(error)) => return Err(error.into()),
        }
        self.unflushed += 1;
        if self.unflushed >= STRIDE {
            self.move_on()?;
        }
        Ok(())
    }

    /// Sends the definition of a function, unless the peer knows it.
    pub(crate) fn send_function(
        &mut self,
        id: FunctionId,
        definition: impl FnOnce() -> Option<Payload>,
    ) -> Result<(), PeerError> {
        if self.functions.contains(&id) {
            return Ok(());
        }
        // Without a definition the worker says what is wrong.
        let Some(definition) = definition() else { return Ok(()) };
        self.functions.insert(id);
        let mut table = Vec::new();
        definition.lend(&self.loans, &mut table)?;
        self.send(&Record::Function { id, definition: definition.value(&table) })
    }

    /// Moves on what was sent, and gives back what was borrowed. Whether all of it is on its way.
    pub(crate) fn flush(&mut self) -> Result<bool, PeerError> {
        if self.returns.load(Ordering::Relaxed) && self.returns.swap(false, Ordering::AcqRel) {
            let mut numbers = Vec::new();
            self.borrows.take_returns(&mut numbers);
            if !numbers.is_empty() {
                self.send(&Record::Loans(numbers.into()))?;
            }
        }
        if !self.dirty {
            return Ok(true);
        }
        self.move_on()
    }

    fn move_on(&mut self) -> Result<bool, PeerError> {
        self.unflushed = 0;
        let all = self.sender.flush()?;
        self.dirty = !all;
        Ok(all)
    }

    /// Descriptors that say that there is room.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.sender.interests().iter().map(|interest| interest.fd).collect()
    }

    /// The link is gone.
    pub(crate) fn close(&self) {
        self.loans.close();
        self.borrows.close();
    }
}

impl Inward {
    /// Gives each record that came to `take`, up to `most`. Whether there may be more.
    pub(crate) fn receive(
        &mut self,
        most: usize,
        mut take: impl FnMut(&Record<'_>, &Borrows) -> Result<(), PeerError>,
    ) -> Result<bool, PeerError> {
        for _ in 0..most {
            match self.receiver.recv()? {
                Incoming::Empty => return Ok(false),
                Incoming::Head { head, body_len: 0 } => take(&Record::decode(head)?, &self.borrows)?,
                Incoming::Head { body_len, .. } => {
                    let len = usize::try_from(body_len).map_err(|_| Malformed("longer than memory"))?;
                    self.receiver.place(Buffer::zeroed(len).into());
                }
                Incoming::Body(target) => {
                    if let Some(buffer) = Buffer::from_target(target) {
                        take(&Record::decode(&buffer.into_vec())?, &self.borrows)?;
                    }
                }
            }
        }
        Ok(true)
    }

    /// Descriptors that say that something came.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.receiver.interests().iter().map(|interest| interest.fd).collect()
    }
}

/// An outcome with its references lent into `table`.
pub(crate) fn came<'a>(
    outcome: &'a Outcome<Payload>,
    loans: &Loans,
    table: &'a mut Vec<u8>,
) -> Result<Came<'a>, StoreError> {
    if let Ok(payload) | Err(Failure::Raised(payload) | Failure::ActorNotMade(_, payload)) = &outcome.value {
        payload.lend(loans, table)?;
    }
    let table: &'a [u8] = table;
    let value = match &outcome.value {
        Ok(payload) => Ok(payload.value(table)),
        Err(failure) => Err(match failure {
            Failure::Raised(payload) => Failed::Raised(payload.value(table)),
            Failure::Cancelled => Failed::Cancelled,
            Failure::WorkerDied(why) => Failed::WorkerDied(why),
            Failure::ActorDied(actor, why) => Failed::ActorDied(*actor, why),
            Failure::ActorNotMade(actor, payload) => Failed::ActorNotMade(*actor, payload.value(table)),
            Failure::ActorUnavailable(actor, why) => Failed::ActorUnavailable(*actor, why),
            Failure::NoMoreValues => Failed::NoMoreValues,
            Failure::Infeasible(why) => Failed::Infeasible(why),
            Failure::Lost(why) => Failed::Lost(why),
        }),
    };
    Ok(Came { value, contains: outcome.contains.iter().copied().collect() })
}

/// An outcome that came.
pub(crate) fn outcome(came: &Came<'_>, borrows: &Borrows) -> Result<Outcome<Payload>, StoreError> {
    let read = |value: &Value<'_>| Payload::read(value, borrows);
    let value = match &came.value {
        Ok(value) => Ok(read(value)?),
        Err(failed) => Err(match failed {
            Failed::Raised(value) => Failure::Raised(read(value)?),
            Failed::Cancelled => Failure::Cancelled,
            Failed::WorkerDied(why) => Failure::WorkerDied((*why).into()),
            Failed::ActorDied(actor, why) => Failure::ActorDied(*actor, (*why).into()),
            Failed::ActorNotMade(actor, value) => Failure::ActorNotMade(*actor, read(value)?),
            Failed::ActorUnavailable(actor, why) => Failure::ActorUnavailable(*actor, (*why).into()),
            Failed::NoMoreValues => Failure::NoMoreValues,
            Failed::Infeasible(why) => Failure::Infeasible((*why).into()),
            Failed::Lost(why) => Failure::Lost((*why).into()),
        }),
    };
    Ok(Outcome { value, contains: came.contains.to_vec() })
}

/// Work with its references lent into `table`.
pub(crate) fn wanted<'a>(
    work: &'a Work<Payload>,
    loans: &Loans,
    table: &'a mut Vec<u8>,
) -> Result<Wanted<'a>, StoreError> {
    work.payload.lend(loans, table)?;
    Ok(Wanted {
        function: work.function,
        payload: work.payload.value(table),
        needs: work.needs.iter().copied().collect(),
        contains: work.contains.iter().copied().collect(),
        returns: work.returns,
        retries: work.retries,
        retry_raised: work.retry_raised,
    })
}

/// Work that came.
pub(crate) fn work(wanted: &Wanted<'_>, borrows: &Borrows) -> Result<Work<Payload>, StoreError> {
    Ok(Work {
        function: wanted.function,
        payload: Payload::read(&wanted.payload, borrows)?,
        needs: wanted.needs.to_vec(),
        contains: wanted.contains.to_vec(),
        returns: wanted.returns,
        retries: wanted.retries,
        retry_raised: wanted.retry_raised,
    })
}
