//! Post storage: posts in a database, their media in memory, as a cache before a store of large objects would have them.
//!
//! 1. Media of the [`MAX_POSTS`] newest posts are kept; an older post is gone, whoever still has its number.

use super::database::Database;
use crate::call::{Answer, Call, Failure, Media, Post, Role};
use crate::host::Setup;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How many posts are kept.
pub(crate) const MAX_POSTS: usize = 1024;

/// Keeps posts.
pub(crate) struct PostStorage {
    posts: Database,
    /// Those of the newest posts, by number.
    media: Mutex<BTreeMap<u64, Vec<Media>>>,
}

impl PostStorage {
    pub(crate) async fn open(setup: &Setup) -> anyhow::Result<Self> {
        Ok(Self { posts: Database::create(setup, "posts").await?, media: Mutex::default() })
    }

    pub(crate) fn database(&self) -> &Database {
        &self.posts
    }

    pub(crate) async fn answer(&self, call: Call) -> Result<Answer, Failure> {
        match call {
            Call::StorePost { mut post } => {
                let media = std::mem::take(&mut post.media);
                self.posts.put_all(&[(post.id, &post)]).await?;
                let mut kept = self.kept();
                kept.insert(post.id, media);
                let oldest = if kept.len() > MAX_POSTS { kept.pop_first() } else { None };
                drop(kept);
                // Out of the lock: what it takes to let go of media is not for others to wait for.
                drop(oldest);
                Ok(Answer::Done)
            }
            Call::Posts { ids } => {
                let (ids, media): (Vec<u64>, Vec<Vec<Media>>) = {
                    let kept = self.kept();
                    ids.into_iter().filter_map(|id| Some((id, kept.get(&id)?.clone()))).unzip()
                };
                let posts = self.posts.get_all::<_, Post>(&ids).await?;
                let there = posts.into_iter().zip(media).filter_map(|(post, media)| Some(Post { media, ..post? }));
                Ok(Answer::Posts(there.collect()))
            }
            Call::Reset => {
                let all = std::mem::take(&mut *self.kept());
                drop(all);
                Ok(Answer::Done)
            }
            _ => Err(Failure::NotMine { role: Role::PostStorage }),
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Vec<Media>>> {
        // No code that can panic runs under the lock.
        self.media.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
