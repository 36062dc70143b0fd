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
    pub(crate) fn open(setup: &Setup) -> anyhow::Result<Self> {
        let names = Database::create(setup, "users")?;
        let records: Vec<_> = Graph::open(setup.graph.as_deref())?.users().map(|user| (user, name_of(user))).collect();
        names.put_all(&records)?;
        Ok(Self { names })
    }

    pub(crate) fn answer(&self, call: &Call) -> Result<Answer, Failure> {
        match call {
            Call::Name { user } => self.names.get(user)?.map(Answer::Name).ok_or(Failure::UnknownUser(*user)),
            Call::Reset => Ok(Answer::Done),
            _ => Err(Failure::NotMine { role: Role::User }),
        }
    }
}
