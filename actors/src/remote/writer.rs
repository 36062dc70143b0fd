//! The task that sends what a link's outbox gathers: all there is, then one flush, so that the peer is woken once.
//!
//! 1. What is returned goes ahead of the answer to the question for which it was lent, so that whoever gets the answer knows
//!    what is still in use.

use super::frame::{Data, Frame, Kind};
use super::peer::{Outbox, Peer};
use crate::ActorError;
use dmrpc_fabric::asynchronous::AsyncSender;
use dmrpc_fabric::link::{Body, LinkError, TrySendError};
use std::sync::Arc;

/// Loan numbers that go back in one message.
const MAX_RETURNS: usize = 4096;

pub(crate) async fn run(mut sender: AsyncSender, peer: Arc<Peer>) {
    let _close = CloseOnDrop(&peer);
    let mut outbox = Outbox::default();
    let mut returns = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = peer.ended() => return,
            () = peer.work.notified() => {}
        }
        if peer.has_returns_only() {
            // They come with an answer that is about to be queued, in most cases: let it be.
            tokio::task::yield_now().await;
        }
        loop {
            peer.take_outbox(&mut outbox);
            peer.borrows().take_returns(&mut returns);
            if outbox.messages.is_empty() && returns.is_empty() {
                peer.went_idle();
                break;
            }
            let sent = tokio::select! {
                biased;
                () = peer.ended() => return,
                sent = send(&mut sender, &mut outbox, &mut returns) => sent,
            };
            if let Err(error) = sent {
                peer.close(&link_error(&peer, &error));
                return;
            }
        }
    }
}

async fn send(sender: &mut AsyncSender, outbox: &mut Outbox, returns: &mut Vec<u64>) -> Result<(), LinkError> {
    let mut head = Vec::new();
    for numbers in returns.chunks(MAX_RETURNS) {
        let payload: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let data = Data::Head { payload: &payload, table: &[] };
        head.clear();
        Frame { data, ..Frame::new(Kind::Return) }.encode(std::iter::empty(), &mut head);
        send_one(sender, &head, Body::new()).await?;
    }
    returns.clear();
    let mut start = 0;
    for (end, body) in outbox.messages.drain(..) {
        send_one(sender, &outbox.heads[start..end], body).await?;
        start = end;
    }
    sender.flush().await
}

async fn send_one(sender: &mut AsyncSender, head: &[u8], body: Body) -> Result<(), LinkError> {
    let mut body = body;
    loop {
        match sender.get_mut().try_send(head, body) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(back)) => body = back,
            Err(TrySendError::Link(error)) => return Err(error),
        }
        sender.flush().await?;
    }
}

/// However a task of the link ends, the link ends with it.
pub(crate) struct CloseOnDrop<'a>(pub(crate) &'a Arc<Peer>);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close(&link_error(self.0, &LinkError::Closed));
    }
}

pub(crate) fn link_error(peer: &Peer, error: &dyn std::fmt::Display) -> ActorError {
    ActorError::Unreachable { address: Arc::clone(peer.address()), why: error.to_string().into() }
}
