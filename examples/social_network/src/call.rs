//! What the services say to each other.

use bytes::Bytes;
use dmrpc_objstore::{ObjectRef, StoreError};
use dmrpc_turns::payload;
use serde::{Deserialize, Serialize};

/// A user's number, from 1 on.
pub(crate) type UserId = u32;

/// A service, each a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Role {
    UniqueId,
    UrlShorten,
    UserMention,
    Text,
    Media,
    User,
    SocialGraph,
    PostStorage,
    UserTimeline,
    HomeTimeline,
    ComposePost,
    FrontEnd,
}

impl Role {
    /// All of them, each after those that it calls.
    pub(crate) const ALL: [Self; 12] = [
        Self::UniqueId,
        Self::UrlShorten,
        Self::UserMention,
        Self::Text,
        Self::Media,
        Self::User,
        Self::SocialGraph,
        Self::PostStorage,
        Self::UserTimeline,
        Self::HomeTimeline,
        Self::ComposePost,
        Self::FrontEnd,
    ];

    /// Whom it calls.
    pub(crate) fn calls(self) -> &'static [Self] {
        match self {
            Self::Text => &[Self::UrlShorten, Self::UserMention],
            Self::UserTimeline => &[Self::PostStorage],
            Self::HomeTimeline => &[Self::PostStorage, Self::SocialGraph],
            Self::ComposePost => &[
                Self::UniqueId,
                Self::Text,
                Self::Media,
                Self::User,
                Self::PostStorage,
                Self::UserTimeline,
                Self::HomeTimeline,
            ],
            Self::FrontEnd => &[Self::ComposePost, Self::UserTimeline, Self::HomeTimeline],
            _ => &[],
        }
    }
}

/// A picture or a film that belongs to a post.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Media {
    pub(crate) id: u64,
    /// Such as `image/jpeg`.
    pub(crate) kind: String,
    pub(crate) content: Content,
}

/// Bytes on their way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Content {
    /// All of them.
    Value(#[serde(with = "dmrpc_actors::attached")] Bytes),
    /// Where they are.
    Reference(ObjectRef),
    /// They travel beside the message: what a transport without attachments makes of a value.
    #[cfg(feature = "compare")]
    Beside,
}

impl Content {
    /// How many bytes there are, which is known without looking at them.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Value(bytes) => bytes.len() as u64,
            Self::Reference(reference) => reference.len(),
            #[cfg(feature = "compare")]
            Self::Beside => 0,
        }
    }

    /// Reads all of them.
    pub(crate) async fn sum(&self) -> Result<u64, StoreError> {
        Ok(match self {
            Self::Value(bytes) => payload::sum(bytes),
            Self::Reference(reference) => payload::sum(&reference.get().await?),
            #[cfg(feature = "compare")]
            Self::Beside => 0,
        })
    }
}

/// A post.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Post {
    pub(crate) id: u64,
    pub(crate) author: UserId,
    pub(crate) author_name: String,
    pub(crate) text: String,
    pub(crate) mentions: Vec<UserId>,
    pub(crate) urls: Vec<Url>,
    pub(crate) media: Vec<Media>,
}

/// A link of a post.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Url {
    pub(crate) short: String,
    pub(crate) long: String,
}

/// What one service asks another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    /// The front end, compose-post: publish what a user has written.
    Compose { author: UserId, text: String, media: Vec<Media> },
    /// The front end, a user timeline: a user's newest posts.
    ReadUser { user: UserId, count: u32 },
    /// The front end, a home timeline: the newest posts of those whom a user follows.
    ReadHome { user: UserId, count: u32 },
    /// Unique ids: a number that no post has.
    NextId,
    /// Text: its links and mentions.
    Process { text: String },
    /// URL shortener: short names for links.
    Shorten { urls: Vec<String> },
    /// User mentions: who has these names.
    Find { names: Vec<String> },
    /// Media: takes what may be published.
    Admit { media: Vec<Media> },
    /// Users: a user's name.
    Name { user: UserId },
    /// Social graph: who follows a user.
    Followers { user: UserId },
    /// Post storage.
    StorePost { post: Post },
    /// Post storage: those that there still are, in this order.
    Posts { ids: Vec<u64> },
    /// User timeline: a post of a user.
    Append { user: UserId, post: u64 },
    /// Home timelines: a post for those who follow its author, and those whom it mentions.
    FanOut { author: UserId, post: u64, mentions: Vec<UserId> },
    /// Any service: forget all posts.
    Reset,
}

/// What it is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Id(u64),
    Text { text: String, urls: Vec<Url>, mentions: Vec<UserId> },
    Urls(Vec<Url>),
    Users(Vec<UserId>),
    Name(String),
    Media(Vec<Media>),
    Posts(Vec<Post>),
}

impl Answer {
    /// That of a service which answers something else than it was asked.
    fn other<T>(self, wanted: &str) -> Result<T, Failure> {
        let _ = self;
        Err(Failure::Protocol { wanted: wanted.to_owned() })
    }
}

/// `fn name(self) -> Result<type, Failure>` for a variant of [`Answer`].
macro_rules! answers {
    ($($name:ident: $variant:ident($type:ty);)*) => {
        impl Answer {
            $(pub(crate) fn $name(self) -> Result<$type, Failure> {
                match self {
                    Self::$variant(it) => Ok(it),
                    other => other.other(stringify!($name)),
                }
            })*
        }
    };
}

answers! {
    id: Id(u64);
    urls: Urls(Vec<Url>);
    users: Users(Vec<UserId>);
    name: Name(String);
    media: Media(Vec<Media>);
    posts: Posts(Vec<Post>);
}

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// No such user.
    #[error("there is no user {0}")]
    UnknownUser(UserId),
    /// Media that are too large, or too many.
    #[error("{0}")]
    Refused(String),
    /// The service does not do that.
    #[error("{role:?} does not do that")]
    NotMine { role: Role },
    /// The answer is another than was asked for.
    #[error("an answer without {wanted}")]
    Protocol { wanted: String },
    /// Another service can't be reached.
    #[error("{role:?} can't be reached: {why}")]
    Unreachable { role: Role, why: String },
    /// A database does not do what it should.
    #[error("the database fails: {0}")]
    Database(String),
}
