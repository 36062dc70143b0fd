//! Front end: what users talk to. It says who serves what.

use crate::call::{Answer, Call, Failure, Role};
use crate::net::Net;

/// The most posts that are read at once.
const MAX_COUNT: u32 = 100;

/// Passes on what users ask.
pub(crate) struct FrontEnd;

impl FrontEnd {
    pub(crate) async fn answer(&self, call: Call, net: &Net) -> Result<Answer, Failure> {
        match call {
            Call::ReadUser { count, .. } | Call::ReadHome { count, .. } if count > MAX_COUNT => {
                Err(Failure::Refused(format!("{count} posts are over the limit of {MAX_COUNT}")))
            }
            Call::Compose { .. } => net.call(Role::ComposePost, call).await,
            Call::ReadUser { .. } => net.call(Role::UserTimeline, call).await,
            Call::ReadHome { .. } => net.call(Role::HomeTimeline, call).await,
            Call::Reset => Ok(Answer::Done),
            _ => Err(Failure::NotMine { role: Role::FrontEnd }),
        }
    }
}
