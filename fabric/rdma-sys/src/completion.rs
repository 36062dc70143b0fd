//! Completion queues.

use crate::raw::*;
use crate::{Device, RdmaError};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A descriptor that becomes readable when something completes in the queue that it belongs to, after that was
/// [armed](CompletionQueue::arm). It never blocks.
pub struct CompletionChannel {
    channel: *mut ibv_comp_channel,
    device: Device,
}

// SAFETY: the functions of the library may be called from any thread.
unsafe impl Send for CompletionChannel {}
// SAFETY: as above.
unsafe impl Sync for CompletionChannel {}

impl CompletionChannel {
    fn new(device: &Device) -> Result<Self, RdmaError> {
        let doing = "making a completion channel";
        // SAFETY: an open device.
        let channel = unsafe { (device.library().ibv_create_comp_channel)(device.context()) };
        if channel.is_null() {
            return Err(RdmaError::last(doing));
        }
        let made = Self { channel, device: device.clone() };
        // SAFETY: a descriptor of ours; no memory is involved.
        let set = unsafe {
            let fd = (*channel).fd;
            libc::fcntl(fd, libc::F_SETFL, libc::fcntl(fd, libc::F_GETFL) | libc::O_NONBLOCK)
        };
        if set == -1 { Err(RdmaError::last(doing)) } else { Ok(made) }
    }
}

impl AsFd for CompletionChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the channel lives.
        unsafe { BorrowedFd::borrow_raw((*self.channel).fd) }
    }
}

impl Drop for CompletionChannel {
    fn drop(&mut self) {
        // SAFETY: made by us, and its queue is gone.
        let _ = unsafe { (self.device.library().ibv_destroy_comp_channel)(self.channel) };
    }
}

/// A queue that tells what work is done. Clones are the same.
#[derive(Clone)]
pub struct CompletionQueue {
    inner: Arc<Inner>,
}

struct Inner {
    queue: *mut ibv_cq,
    device: Device,
    channel: CompletionChannel,
    /// Events that were taken and have yet to be acknowledged.
    events: AtomicU32,
}

// SAFETY: as for channels.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        let library = self.device.library();
        // SAFETY: made by us, and queue pairs that it was of are gone. Unacknowledged events would keep it for ever.
        unsafe {
            (library.ibv_ack_cq_events)(self.queue, *self.events.get_mut());
            let _ = (library.ibv_destroy_cq)(self.queue);
        }
    }
}

/// With so many events not acknowledged, they are. It takes a lock, so not each by itself.
const ACKNOWLEDGE: u32 = 128;

impl CompletionQueue {
    /// A queue of `entries` with a channel of its own.
    ///
    /// # Errors
    ///
    /// [`RdmaError::Verb`].
    pub fn new(device: &Device, entries: u32) -> Result<Self, RdmaError> {
        let channel = CompletionChannel::new(device)?;
        let entries = entries.min(device.limits().max_completions).max(1) as i32;
        // SAFETY: an open device and a channel of it.
        let queue = unsafe {
            (device.library().ibv_create_cq)(device.context(), entries, std::ptr::null_mut(), channel.channel, 0)
        };
        if queue.is_null() {
            return Err(RdmaError::last("making a completion queue"));
        }
        Ok(Self { inner: Arc::new(Inner { queue, device: device.clone(), channel, events: AtomicU32::new(0) }) })
    }

    /// Takes completions out; how many.
    ///
    /// # Errors
    ///
    /// [`RdmaError::Verb`] if the queue ran over or the device failed.
    pub fn poll(&self, into: &mut [ibv_wc]) -> Result<usize, RdmaError> {
        let poll = self.inner.device.ops().poll_cq.expect("every driver has it");
        // SAFETY: room for so many.
        let count = unsafe { poll(self.inner.queue, into.len() as i32, into.as_mut_ptr()) };
        usize::try_from(count).map_err(|_| RdmaError::last("taking completions"))
    }

    /// Has the channel become readable at the next completion. What is there already does not count: poll once more.
    ///
    /// # Errors
    ///
    /// [`RdmaError::Verb`].
    pub fn arm(&self) -> Result<(), RdmaError> {
        let notify = self.inner.device.ops().req_notify_cq.expect("every driver has it");
        // SAFETY: a queue that is there.
        RdmaError::check("asking for completion events", unsafe { notify(self.inner.queue, 0) })
    }

    /// Takes the events of the channel, so that it is not readable any more. Whether there were any.
    pub fn take_events(&self) -> bool {
        let (mut queue, mut context) = (std::ptr::null_mut(), std::ptr::null_mut());
        let library = self.inner.device.library();
        let mut taken = 0;
        // SAFETY: a channel that is there, and room for the answers. It does not block.
        while unsafe { (library.ibv_get_cq_event)(self.inner.channel.channel, &mut queue, &mut context) } == 0 {
            taken += 1;
        }
        // Relaxed: a number; that of the drop comes after all others.
        let events = self.inner.events.fetch_add(taken, Ordering::Relaxed) + taken;
        if events >= ACKNOWLEDGE {
            let acknowledged = self.inner.events.swap(0, Ordering::Relaxed);
            // SAFETY: a queue that is there, and events that were taken from it.
            unsafe { (library.ibv_ack_cq_events)(self.inner.queue, acknowledged) };
        }
        taken > 0
    }

    /// What to wait on.
    pub fn channel(&self) -> &CompletionChannel {
        &self.inner.channel
    }

    pub(crate) fn raw(&self) -> *mut ibv_cq {
        self.inner.queue
    }
}
