//! The half of an RDMA link that sends.
#![forbid(unsafe_code)]

use super::channel::interests;
use super::handle::Handle;
use crate::link::{Body, Interests, LinkError, Sender, TrySendError, check_lengths};
use crate::options::LinkOptions;
use crate::queue::{Queue, message_bytes};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What is gathered before it is sent without being asked to.
const GATHERED_BYTES: u64 = 64 * 1024;

pub(super) struct RdmaSender {
    handle: Arc<Handle>,
    queue: Queue,
    waits: [OwnedFd; 4],
    max_body_bytes: u64,
    max_queued_bytes: u64,
    turn_bytes: u64,
}

impl RdmaSender {
    pub(super) fn new(handle: Arc<Handle>, waits: [OwnedFd; 4], max_body_bytes: u64, options: &LinkOptions) -> Self {
        let (max_queued_bytes, turn_bytes) = (options.max_queued_bytes, options.turn_bytes.max(1));
        Self { handle, queue: Queue::default(), waits, max_body_bytes, max_queued_bytes, turn_bytes }
    }

    fn send(&mut self) -> Result<bool, LinkError> {
        let sent = self.handle.channel().send(&mut self.queue, self.turn_bytes);
        if sent.is_err() {
            self.queue = Queue::default();
        }
        sent
    }
}

impl Sender for RdmaSender {
    fn try_send(&mut self, head: &[u8], body: Body) -> Result<(), TrySendError> {
        self.handle.channel().alive()?;
        let body_len = check_lengths(head, &body, || self.max_body_bytes)?;
        let bytes = message_bytes(head, body_len);
        let limit = self.max_queued_bytes;
        let over = |queue: &Queue| !queue.is_empty() && queue.bytes() + bytes > limit;
        if over(&self.queue) && !self.send()? && over(&self.queue) {
            return Err(TrySendError::Full(body));
        }
        self.queue.push_message(head, body, body_len);
        if self.queue.bytes() >= GATHERED_BYTES {
            self.send()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<bool, LinkError> {
        self.send()
    }

    fn interests(&self) -> Interests<'_> {
        interests(&self.waits)
    }
}

impl Drop for RdmaSender {
    fn drop(&mut self) {
        let _ = self.send();
        self.handle.channel().sender_gone();
    }
}
