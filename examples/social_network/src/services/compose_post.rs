//! Compose post: has all parts of a post made at once, then stored and shown.

use crate::call::{Answer, Call, Failure, Post, Role};
use crate::net::Net;

/// Makes posts.
pub(crate) struct ComposePost;

impl ComposePost {
    pub(crate) async fn answer(&self, call: Call, net: &Net) -> Result<Answer, Failure> {
        let (author, text, media) = match call {
            Call::Compose { author, text, media } => (author, text, media),
            Call::Reset => return Ok(Answer::Done),
            _ => return Err(Failure::NotMine { role: Role::ComposePost }),
        };
        let (id, text, media, name) = tokio::join!(
            net.call(Role::UniqueId, Call::NextId),
            net.call(Role::Text, Call::Process { text }),
            net.call(Role::Media, Call::Admit { media }),
            net.call(Role::User, Call::Name { user: author }),
        );
        let (id, media, author_name) = (id?.id()?, media?.media()?, name?.name()?);
        let Answer::Text { text, urls, mentions } = text? else {
            return Err(Failure::Protocol { wanted: "text".into() });
        };
        let post = Post { id, author, author_name, text, mentions: mentions.clone(), urls, media };
        // Nobody is shown a post that is not there yet.
        net.call(Role::PostStorage, Call::StorePost { post }).await?;
        let (user, home) = tokio::join!(
            net.call(Role::UserTimeline, Call::Append { user: author, post: id }),
            net.call(Role::HomeTimeline, Call::FanOut { author, post: id, mentions }),
        );
        user?;
        home?;
        Ok(Answer::Id(id))
    }
}
