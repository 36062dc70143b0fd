//! User timelines: what each user has posted, kept in a database.
//!
//! 1. The [`MAX_POSTS`] newest posts of a user are kept, the newest first.

use super::database::Database;
use super::post_storage::MAX_POSTS;
use crate::call::{Answer, Call, Failure, Role};
use crate::host::Setup;
use crate::net::Net;
use tokio::sync::Mutex;

/// Keeps what users have posted.
pub(crate) struct UserTimelines {
    timelines: Database,
    /// One change at a time: reading and writing is not one step.
    changing: Mutex<()>,
}

impl UserTimelines {
    pub(crate) async fn open(setup: &Setup) -> anyhow::Result<Self> {
        Ok(Self { timelines: Database::create(setup, "timelines").await?, changing: Mutex::default() })
    }

    pub(crate) fn database(&self) -> &Database {
        &self.timelines
    }

    pub(crate) async fn answer(&self, call: Call, net: &Net) -> Result<Answer, Failure> {
        match call {
            Call::Append { user, post } => {
                let _changing = self.changing.lock().await;
                let mut posts: Vec<u64> = self.timelines.get(&user).await?.unwrap_or_default();
                posts.insert(0, post);
                posts.truncate(MAX_POSTS);
                self.timelines.put_all(&[(user, posts)]).await?;
                Ok(Answer::Done)
            }
            Call::ReadUser { user, count } => {
                let mut ids: Vec<u64> = self.timelines.get(&user).await?.unwrap_or_default();
                ids.truncate(count as usize);
                net.call(Role::PostStorage, Call::Posts { ids }).await
            }
            // Numbers of posts that are gone lead nowhere.
            Call::Reset => Ok(Answer::Done),
            _ => Err(Failure::NotMine { role: Role::UserTimeline }),
        }
    }
}
