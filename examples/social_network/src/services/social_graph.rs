//! Social graph: who follows whom, kept in a database.

use super::database::Database;
use crate::call::{Answer, Call, Failure, Role};
use crate::graph::Graph;
use crate::host::Setup;

/// Knows who follows whom.
pub(crate) struct SocialGraph {
    followers: Database,
}

impl SocialGraph {
    pub(crate) async fn open(setup: &Setup) -> anyhow::Result<Self> {
        let followers = Database::create(setup, "followers").await?;
        let graph = Graph::open(setup.graph.as_deref())?;
        let records: Vec<_> = graph.users().map(|user| (user, graph.friends(user))).collect();
        followers.put_all(&records).await?;
        Ok(Self { followers })
    }

    pub(crate) fn database(&self) -> &Database {
        &self.followers
    }

    pub(crate) async fn answer(&self, call: &Call) -> Result<Answer, Failure> {
        match call {
            Call::Followers { user } => {
                self.followers.get(user).await?.map(Answer::Users).ok_or(Failure::UnknownUser(*user))
            }
            Call::Reset => Ok(Answer::Done),
            _ => Err(Failure::NotMine { role: Role::SocialGraph }),
        }
    }
}
