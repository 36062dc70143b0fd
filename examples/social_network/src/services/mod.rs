//! The services. What each does is here, and does not know how it is reached.
//!
//! | file | service |
//! | --- | --- |
//! | `unique_id.rs`, `text.rs`, `url_shorten.rs`, `user_mention.rs`, `media.rs`, `user.rs` | what a post is made of |
//! | `compose_post.rs`, `post_storage.rs` | making it, and keeping it |
//! | `user_timeline.rs`, `home_timeline.rs`, `social_graph.rs` | who sees it where |
//! | `front_end.rs` | what users talk to |
//! | `database.rs` | the database of those that have one |

mod compose_post;
mod database;
mod front_end;
mod home_timeline;
mod media;
mod post_storage;
mod social_graph;
mod text;
mod unique_id;
mod url_shorten;
mod user;
mod user_mention;
mod user_timeline;

use crate::call::{Answer, Call, Failure, Role};
use crate::host::Setup;
use crate::net::Net;

/// A service of one of the roles.
pub(crate) enum Service {
    UniqueId(unique_id::UniqueId),
    UrlShorten(url_shorten::UrlShorten),
    UserMention(user_mention::UserMention),
    Text(text::Text),
    Media(media::Admission),
    User(user::Users),
    SocialGraph(social_graph::SocialGraph),
    PostStorage(post_storage::PostStorage),
    UserTimeline(user_timeline::UserTimelines),
    HomeTimeline(home_timeline::HomeTimelines),
    ComposePost(compose_post::ComposePost),
    FrontEnd(front_end::FrontEnd),
}

impl Service {
    pub(crate) async fn open(role: Role, setup: &Setup) -> anyhow::Result<Self> {
        Ok(match role {
            Role::UniqueId => Self::UniqueId(unique_id::UniqueId::default()),
            Role::UrlShorten => Self::UrlShorten(url_shorten::UrlShorten::open(setup).await?),
            Role::UserMention => Self::UserMention(user_mention::UserMention::open(setup)?),
            Role::Text => Self::Text(text::Text),
            Role::Media => Self::Media(media::Admission),
            Role::User => Self::User(user::Users::open(setup).await?),
            Role::SocialGraph => Self::SocialGraph(social_graph::SocialGraph::open(setup).await?),
            Role::PostStorage => Self::PostStorage(post_storage::PostStorage::open(setup).await?),
            Role::UserTimeline => Self::UserTimeline(user_timeline::UserTimelines::open(setup).await?),
            Role::HomeTimeline => Self::HomeTimeline(home_timeline::HomeTimelines::default()),
            Role::ComposePost => Self::ComposePost(compose_post::ComposePost),
            Role::FrontEnd => Self::FrontEnd(front_end::FrontEnd),
        })
    }

    /// Takes away what would be left at a server.
    pub(crate) async fn close(&self) {
        let database = match self {
            Self::UrlShorten(service) => service.database(),
            Self::User(service) => service.database(),
            Self::SocialGraph(service) => service.database(),
            Self::PostStorage(service) => service.database(),
            Self::UserTimeline(service) => service.database(),
            _ => return,
        };
        database.remove().await;
    }

    pub(crate) async fn answer(&self, call: Call, net: &Net) -> Result<Answer, Failure> {
        match self {
            Self::UniqueId(service) => service.answer(&call),
            Self::UrlShorten(service) => service.answer(call).await,
            Self::UserMention(service) => service.answer(call),
            Self::Text(service) => service.answer(call, net).await,
            Self::Media(service) => service.answer(call),
            Self::User(service) => service.answer(&call).await,
            Self::SocialGraph(service) => service.answer(&call).await,
            Self::PostStorage(service) => service.answer(call).await,
            Self::UserTimeline(service) => service.answer(call, net).await,
            Self::HomeTimeline(service) => service.answer(call, net).await,
            Self::ComposePost(service) => service.answer(call, net).await,
            Self::FrontEnd(service) => service.answer(call, net).await,
        }
    }
}
