//! Users: their names, kept in a database.

use super::database::Database;
use crate::call::{Answer, Call, Failure, Role, UserId};
use crate::graph::Graph;
use crate::host::Setup;

/// Knows all users.
pub(crate) struct Users {
    names: Database,
}

/// The name that a user has chosen.
pub(crate) fn name_of(user: UserId) -> String {
    format!("user_{user}")
}

impl Users {
    pub(crate) async fn open(setup: &Setup) -> anyhow::Result<Self> {
        let names = Database::create(setup, "users").await?;
        let records: Vec<_> = Graph::open(setup.graph.as_deref())?.users().map(|user| (user, name_of(user))).collect();
        names.put_all(&records).await?;
        Ok(Self { names })
    }

    pub(crate) fn database(&self) -> &Database {
        &self.names
    }

    pub(crate) async fn answer(&self, call: &Call) -> Result<Answer, Failure> {
        match call {
            Call::Name { user } => self.names.get(user).await?.map(Answer::Name).ok_or(Failure::UnknownUser(*user)),
            Call::Reset => Ok(Answer::Done),
            _ => Err(Failure::NotMine { role: Role::User }),
        }
    }
}
