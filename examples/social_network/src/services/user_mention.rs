//! User mentions: who has a name.

use super::user::name_of;
use crate::call::{Answer, Call, Failure, Role, UserId};
use crate::graph::Graph;
use crate::host::Setup;
use std::collections::HashMap;

/// Knows all names.
pub(crate) struct UserMention {
    users: HashMap<String, UserId>,
}

impl UserMention {
    pub(crate) fn open(setup: &Setup) -> anyhow::Result<Self> {
        let users = Graph::open(setup.graph.as_deref())?.users().map(|user| (name_of(user), user)).collect();
        Ok(Self { users })
    }

    pub(crate) fn answer(&self, call: Call) -> Result<Answer, Failure> {
        match call {
            // A name that nobody has is text like any other.
            Call::Find { names } => {
                Ok(Answer::Users(names.iter().filter_map(|name| self.users.get(name).copied()).collect()))
            }
            Call::Reset => Ok(Answer::Done),
            _ => Err(Failure::NotMine { role: Role::UserMention }),
        }
    }
}
