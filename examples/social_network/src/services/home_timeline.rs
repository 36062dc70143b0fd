//! Home timelines: what each user is shown, in memory, the newest first.
//!
//! 1. The [`MAX_SHOWN`] newest posts for a user are kept.

use crate::call::{Answer, Call, Failure, Role, UserId};
use crate::net::Net;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// How many posts a user is shown at most.
const MAX_SHOWN: usize = 256;

/// Keeps what users are shown.
#[derive(Default)]
pub(crate) struct HomeTimelines {
    timelines: Mutex<HashMap<UserId, VecDeque<u64>>>,
}

impl HomeTimelines {
    pub(crate) async fn answer(&self, call: Call, net: &Net) -> Result<Answer, Failure> {
        match call {
            Call::FanOut { author, post, mentions } => {
                let mut readers = net.call(Role::SocialGraph, Call::Followers { user: author }).await?.users()?;
                readers.extend(mentions);
                readers.sort_unstable();
                readers.dedup();
                let mut timelines = self.timelines();
                for reader in readers {
                    let timeline = timelines.entry(reader).or_default();
                    timeline.push_front(post);
                    timeline.truncate(MAX_SHOWN);
                }
                Ok(Answer::Done)
            }
            Call::ReadHome { user, count } => {
                let ids = match self.timelines().get(&user) {
                    Some(timeline) => timeline.iter().take(count as usize).copied().collect(),
                    None => Vec::new(),
                };
                net.call(Role::PostStorage, Call::Posts { ids }).await
            }
            Call::Reset => {
                self.timelines().clear();
                Ok(Answer::Done)
            }
            _ => Err(Failure::NotMine { role: Role::HomeTimeline }),
        }
    }

    fn timelines(&self) -> std::sync::MutexGuard<'_, HashMap<UserId, VecDeque<u64>>> {
        // No code that can panic runs under the lock.
        self.timelines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
