//! Actors that pass references instead of payloads.
//!
//! An [`#[actor]`](macro@actor) handles messages one at a time; an [`ActorRef`] sends them, whether the actor is in this process, in
//! another one on this host, or elsewhere. `docs/actors.md` has the invariants, which tests name, and the bytes on links.
//!
//! ```
//! use dmrpc_actors::{Context, System, actor};
//!
//! struct Greeter {
//!     greeted: u64,
//! }
//!
//! #[actor]
//! impl Greeter {
//!     #[message]
//!     async fn greet(&mut self, name: String) -> String {
//!         self.greeted += 1;
//!         format!("hello {name}")
//!     }
//!
//!     #[message(id = 2)]
//!     fn leave(&mut self, cx: &mut Context<Self>) {
//!         cx.stop();
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), dmrpc_actors::ActorError> {
//! let system = System::builder().name("doc").build().await?;
//! let greeter = system.spawn(Greeter { greeted: 0 });
//! assert_eq!(greeter.greet("you".into()).await?, "hello you");
//! greeter.tell_leave().await?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod actor;
mod actor_ref;
mod ask;
mod beside;
mod context;
mod deadlines;
mod dynamic;
mod error;
mod exit;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod mailbox;
mod payload;
mod pool;
mod recipient;
mod remote;
mod reply;
mod run;
mod supervision;
mod supervisor;
mod system;
mod tell;

pub use actor::{Actor, Handle, Message, Plain};
pub use actor_ref::ActorRef;
pub use ask::{Ask, Asking};
pub use beside::Beside;
pub use context::{Context, Origin};
pub use dmrpc_actors_macros::actor;
pub use dynamic::{DynamicAnswer, DynamicRef};
pub use error::ActorError;
pub use exit::Exit;
pub use mailbox::{Mail, MailboxOptions, WhenFull};
pub use payload::{Opened, Payload};
pub use pool::Pool;
pub use recipient::Recipient;
/// For `Bytes` within a struct that is an argument or an answer: with `#[serde(with = "dmrpc_actors::attached")]` long ones travel
/// without being copied, as those that are arguments themselves do.
pub use remote::attach::bytes_argument as attached;
pub use remote::codec::{Arguments, Codec, Method, Output};
pub use remote::peer::Peer;
pub use reply::Reply;
pub use supervision::{Restart, Strategy, Supervision};
pub use supervisor::Supervisor;
pub use system::{DEFAULT_ASK_TIMEOUT, System, SystemBuilder};
pub use tell::{Tell, Telling};

/// What code made by [`#[actor]`](macro@actor) uses. Not for others.
#[doc(hidden)]
pub mod made {
    pub use crate::remote::attach::{BytesAnswer, bytes_argument};
    pub use serde;
}

/// The examples of the README run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
