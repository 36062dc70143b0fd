//! Users: they write, and read what others have written, and check what they see.
//!
//! 1. Every post that is read has the media that were written, byte for byte: their sum is compared.
//! 2. By reference, each post has references of its own.

use crate::call::{Answer, Call, Content, Media, Post, Role, UserId};
use crate::graph::Graph;
use crate::net::Net;
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use dmrpc_objstore::Store;
use dmrpc_turns::payload;
use std::sync::Arc;

/// Users who write. Few, so that everyone who reads finds something.
const AUTHORS: UserId = 64;

/// Posts of each author before the load begins.
const POSTS_BEFORE: u32 = 10;

/// Posts of a page of a timeline.
pub(crate) const PAGE_POSTS: u32 = 10;

/// How media travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passing {
    Value,
    Reference,
}

/// What of a hundred requests are posts, and what are readings of user timelines; the rest are of home timelines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) compose: u64,
    pub(crate) read_user: u64,
}

/// What DeathStarBench has.
pub(crate) const MIX: Mix = Mix { compose: 10, read_user: 30 };

/// All users.
#[derive(Clone)]
pub(crate) struct Users {
    net: Arc<Net>,
    /// Where media are put that are passed on by reference.
    store: Option<Store>,
    graph: Arc<Graph>,
    passing: Passing,
    mix: Mix,
    media: Bytes,
    sum: u64,
}

impl Users {
    /// Users of a network, whose posts have media of this size.
    pub(crate) fn new(
        net: Arc<Net>,
        store: Option<Store>,
        graph: Arc<Graph>,
        passing: Passing,
        mix: Mix,
        media_bytes: usize,
    ) -> Self {
        let media = payload::bytes(media_bytes);
        let sum = payload::sum(&media);
        Self { net, store, graph, passing, mix, media: media.into(), sum }
    }

    /// Forgets what was there, and has every author write something.
    pub(crate) async fn begin(&self, services: &Net) -> anyhow::Result<()> {
        for role in Role::ALL {
            services.call(role, Call::Reset).await?;
        }
        for _ in 0..POSTS_BEFORE {
            for author in 1..=AUTHORS {
                self.compose(author, "good morning".into()).await?;
            }
        }
        Ok(())
    }

    /// One of many requests, by its number.
    pub(crate) async fn request(&self, n: u64) -> anyhow::Result<()> {
        // Numbers that have nothing to do with each other, and are the same in every run.
        let dice = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let dice = dice ^ (dice >> 29);
        let (kind, user) = (dice % 100, (dice >> 32) as UserId);
        let author = user % AUTHORS + 1;
        if kind < self.mix.compose {
            let text = format!(
                "what user_{author} wrote as number {n} @user_{} @user_{} https://a.example/{n}",
                user % 97 + 1,
                user % 89 + 1
            );
            self.compose(author, text).await?;
        } else if kind < self.mix.compose + self.mix.read_user {
            self.read(Call::ReadUser { user: author, count: PAGE_POSTS }).await?;
        } else {
            let user = user % (self.graph.users().end() - 1) + 1;
            self.read(Call::ReadHome { user, count: PAGE_POSTS }).await?;
        }
        Ok(())
    }

    async fn compose(&self, author: UserId, text: String) -> anyhow::Result<u64> {
        let content = match self.passing {
            Passing::Value => Content::Value(self.media.clone()),
            Passing::Reference => {
                Content::Reference(self.store.as_ref().context("there is no store")?.put(&self.media).await?)
            }
        };
        let media = vec![Media { id: 0, kind: "image/jpeg".into(), content }];
        Ok(self.net.call(Role::FrontEnd, Call::Compose { author, text, media }).await?.id()?)
    }

    async fn read(&self, call: Call) -> anyhow::Result<Vec<Post>> {
        let posts = self.net.call(Role::FrontEnd, call).await?.posts()?;
        for post in &posts {
            ensure!(post.media.len() == 1, "a post has {} media", post.media.len());
            ensure!(post.media[0].content.sum().await? == self.sum, "media are not what was written");
        }
        Ok(posts)
    }

    /// Writes a post and finds it in every place where it has to be. The answer is the same for every transport.
    pub(crate) async fn check(&self) -> anyhow::Result<String> {
        let author = 1;
        let follower = *self.graph.friends(author).first().context("the first user has no friends")?;
        let stranger = self.graph.users().find(|user| *user != author && !self.graph.friends(author).contains(user));
        let stranger = stranger.context("everyone knows the first user")?;
        let text = format!("see https://a.example/long and ask @user_{stranger} or @nobody");
        let id = self.compose(author, text).await?;
        let page = |call| async { anyhow::Ok(self.read(call).await?.into_iter().find(|post| post.id == id)) };
        let mut seen = Vec::new();
        for (place, call) in [
            ("the author's timeline", Call::ReadUser { user: author, count: PAGE_POSTS }),
            ("a follower's home timeline", Call::ReadHome { user: follower, count: PAGE_POSTS }),
            ("the home timeline of who is mentioned", Call::ReadHome { user: stranger, count: PAGE_POSTS }),
        ] {
            let post = page(call).await?.with_context(|| format!("the post is not in {place}"))?;
            ensure!(post.author_name == "user_1" && post.mentions == [stranger], "{place} has another post");
            ensure!(post.urls.len() == 1 && post.text.contains(&post.urls[0].short), "a link was not shortened");
            seen.push(post.media[0].content.len());
        }
        for wrong in [
            Call::ReadUser { user: author, count: 1000 },
            Call::Compose { author: 0, text: "by nobody".into(), media: Vec::new() },
            Call::NextId,
        ] {
            let refused: Result<Answer, _> = self.net.call(Role::FrontEnd, wrong).await;
            ensure!(refused.is_err(), "what had to be refused was not");
        }
        Ok(format!("{:016x} in {} places", self.sum, seen.len()))
    }
}
