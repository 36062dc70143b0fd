//! URL shortener: short names for links, kept in a database.

use super::database::Database;
use crate::call::{Answer, Call, Failure, Role, Url};
use crate::host::Setup;
use std::hash::{BuildHasher as _, RandomState};

/// Makes short names.
pub(crate) struct UrlShorten {
    names: Database,
    random: RandomState,
}

impl UrlShorten {
    pub(crate) async fn open(setup: &Setup) -> anyhow::Result<Self> {
        Ok(Self { names: Database::create(setup, "urls").await?, random: RandomState::new() })
    }

    pub(crate) fn database(&self) -> &Database {
        &self.names
    }

    pub(crate) async fn answer(&self, call: Call) -> Result<Answer, Failure> {
        match call {
            Call::Shorten { urls } => {
                let urls: Vec<Url> = urls.into_iter().map(|long| Url { short: self.short(&long), long }).collect();
                if !urls.is_empty() {
                    let records: Vec<_> = urls.iter().map(|url| (&url.short, &url.long)).collect();
                    self.names.put_all(&records).await?;
                }
                Ok(Answer::Urls(urls))
            }
            Call::Reset => Ok(Answer::Done),
            _ => Err(Failure::NotMine { role: Role::UrlShorten }),
        }
    }

    fn short(&self, long: &str) -> String {
        format!("http://short.example/{:011x}", self.random.hash_one(long) >> 20)
    }
}
