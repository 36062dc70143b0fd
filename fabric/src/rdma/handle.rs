//! A channel that whoever uses it last leaves to end in its own time.
#![forbid(unsafe_code)]

use super::channel::Channel;
use std::time::{Duration, Instant};

/// How long what was sent may still be on its way when both halves are gone.
const LINGER: Duration = Duration::from_secs(5);
/// As long as that whoever drops the last half sees to it; then a thread does.
const LINGER_HERE: Duration = Duration::from_millis(1);

/// What both halves share.
pub(super) struct Handle(Option<Channel>);

impl Handle {
    pub(super) fn new(channel: Channel) -> Self {
        Self(Some(channel))
    }

    pub(super) fn channel(&self) -> &Channel {
        self.0.as_ref().expect("taken when it is dropped")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let channel = self.0.take().expect("dropped once");
        let started = Instant::now();
        while !channel.is_idle() {
            if started.elapsed() > LINGER_HERE {
                let linger = move || {
                    while !channel.is_idle() && started.elapsed() < LINGER {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                };
                // Without a thread what is on its way may be lost, as it is when a process ends.
                let _ = std::thread::Builder::new().name("dmrpc-rdma-end".into()).spawn(linger);
                return;
            }
            std::thread::yield_now();
        }
    }
}
