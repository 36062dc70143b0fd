//! An embedded database: tables of bytes by number or by name, in a file of the service's own.
//!
//! Writes are there for the next read at once and on disk some time later, as with the stores that social networks have: a post that is
//! lost with the power is no disaster.

use crate::call::Failure;
use crate::host::Setup;
use redb::{Database as Redb, Durability, ReadableDatabase as _, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// A service's database.
pub(crate) struct Database(Redb);

fn failed(error: impl Into<redb::Error>) -> Failure {
    Failure::Database(error.into().to_string())
}

impl Database {
    /// An empty one in the service's folder.
    pub(crate) fn create(setup: &Setup, name: &str) -> anyhow::Result<Self> {
        let database = Self(Redb::create(setup.folder.join(name).with_extension("redb"))?);
        database.put_all::<u8, u8>(&[])?;
        Ok(database)
    }

    /// Writes records, all or none.
    pub(crate) fn put_all<K: Serialize, V: Serialize>(&self, records: &[(K, V)]) -> Result<(), Failure> {
        let mut writing = self.0.begin_write().map_err(failed)?;
        writing.set_durability(Durability::None).map_err(failed)?;
        {
            let mut table = writing.open_table(RECORDS).map_err(failed)?;
            for (key, value) in records {
                table.insert(&*encoded(key)?, &*encoded(value)?).map_err(failed)?;
            }
        }
        writing.commit().map_err(failed)
    }

    /// A record.
    pub(crate) fn get<K: Serialize, V: DeserializeOwned>(&self, key: &K) -> Result<Option<V>, Failure> {
        let reading = self.0.begin_read().map_err(failed)?;
        let table = reading.open_table(RECORDS).map_err(failed)?;
        let Some(found) = table.get(&*encoded(key)?).map_err(failed)? else { return Ok(None) };
        postcard::from_bytes(found.value()).map(Some).map_err(|error| Failure::Database(error.to_string()))
    }
}

fn encoded<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    postcard::to_allocvec(value).map_err(|error| Failure::Database(error.to_string()))
}
