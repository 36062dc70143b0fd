//! The task that does what a link's outbox leaves to be done, once for all that was sent before its turn: it wakes the peer, waits
//! for room, and returns loans that no answer takes along.

use super::peer::Peer;
use crate::ActorError;
use dmrpc_fabric::link::LinkError;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

pub(crate) async fn run(peer: Arc<Peer>) {
    let _close = CloseOnDrop(&peer);
    loop {
        tokio::select! {
            biased;
            () = peer.ended() => return,
            () = peer.work.notified() => {}
        }
        if peer.has_returns_only() {
            // They go with an answer that is about to be sent, in most cases: let it be.
            others_first().await;
        }
        let sent = tokio::select! {
            biased;
            () = peer.ended() => return,
            sent = poll_fn(|cx| peer.poll_sent(cx)) => sent,
        };
        if let Err(error) = sent {
            peer.close(&link_error(&peer, &error));
            return;
        }
    }
}

/// Goes to the end of the queue of tasks. The runtime's own way asks the operating system for news first.
async fn others_first() {
    let mut there = false;
    poll_fn(|cx| {
        if there {
            return Poll::Ready(());
        }
        there = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
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
