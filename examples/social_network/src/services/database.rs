//! A service's database: tables of bytes by number or by name, embedded in the service, or at a Redis server.
//!
//! Writes are there for the next read at once and on disk some time later, as with the stores that social networks have: a post that is
//! lost with the power is no disaster.

use crate::call::Failure;
use crate::host::Setup;
use redb::{Database as Redb, Durability, ReadableDatabase as _, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// When a table at a server that nobody has ended properly goes.
#[cfg(feature = "redis")]
const TABLE_LIFE_SECONDS: i64 = 24 * 3600;

/// A service's database.
pub(crate) enum Database {
    /// In a file of the service's own.
    Embedded(Redb),
    /// A hash of this name at a server; one connection, on which requests follow each other without waiting.
    #[cfg(feature = "redis")]
    Redis { connection: redis::aio::MultiplexedConnection, table: String },
}

fn failed(error: impl Into<redb::Error>) -> Failure {
    Failure::Database(error.into().to_string())
}

#[cfg(feature = "redis")]
fn refused(error: &redis::RedisError) -> Failure {
    Failure::Database(error.to_string())
}

impl Database {
    /// An empty one.
    pub(crate) async fn create(setup: &Setup, name: &str) -> anyhow::Result<Self> {
        let Some(url) = &setup.database else {
            let database = Redb::create(setup.folder.join(name).with_extension("redb"))?;
            let writing = database.begin_write()?;
            writing.open_table(RECORDS)?;
            writing.commit()?;
            return Ok(Self::Embedded(database));
        };
        Self::at(url, setup, name).await
    }

    #[cfg(feature = "redis")]
    async fn at(url: &str, setup: &Setup, name: &str) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        let client = redis::Client::open(url)?;
        let connection = client.get_multiplexed_async_connection().await;
        let mut connection = connection.with_context(|| format!("the database at {url} can't be reached"))?;
        // The folder is this network's alone, and so are its tables.
        let table = format!("{}:{name}", setup.folder.display());
        let () = redis::pipe()
            .del(&table)
            .ignore()
            .hset(&table, "", "")
            .ignore()
            .expire(&table, TABLE_LIFE_SECONDS)
            .ignore()
            .query_async(&mut connection)
            .await?;
        Ok(Self::Redis { connection, table })
    }

    #[cfg(not(feature = "redis"))]
    #[expect(clippy::unused_async, reason = "as with the feature")]
    async fn at(url: &str, _setup: &Setup, name: &str) -> anyhow::Result<Self> {
        anyhow::bail!("{name} is to be kept at {url}, and this program was built without the feature redis")
    }

    /// Writes records, all or none.
    pub(crate) async fn put_all<K: Serialize, V: Serialize>(&self, records: &[(K, V)]) -> Result<(), Failure> {
        let records: Vec<_> =
            records.iter().map(|(key, value)| Ok((encoded(key)?, encoded(value)?))).collect::<Result<_, Failure>>()?;
        match self {
            Self::Embedded(database) => {
                let mut writing = database.begin_write().map_err(failed)?;
                writing.set_durability(Durability::None).map_err(failed)?;
                {
                    let mut table = writing.open_table(RECORDS).map_err(failed)?;
                    for (key, value) in &records {
                        table.insert(&**key, &**value).map_err(failed)?;
                    }
                }
                writing.commit().map_err(failed)
            }
            #[cfg(feature = "redis")]
            Self::Redis { connection, table } => {
                let mut writing = redis::cmd("HSET");
                writing.arg(table);
                for (key, value) in &records {
                    writing.arg(key).arg(value);
                }
                let _added: u64 =
                    writing.query_async(&mut connection.clone()).await.map_err(|error| refused(&error))?;
                Ok(())
            }
        }
    }

    /// A record.
    pub(crate) async fn get<K: Serialize, V: DeserializeOwned>(&self, key: &K) -> Result<Option<V>, Failure> {
        Ok(self.get_all(std::slice::from_ref(key)).await?.pop().flatten())
    }

    /// Records, each at the place of its key.
    pub(crate) async fn get_all<K: Serialize, V: DeserializeOwned>(
        &self,
        keys: &[K],
    ) -> Result<Vec<Option<V>>, Failure> {
        let keys: Vec<_> = keys.iter().map(encoded).collect::<Result<_, _>>()?;
        match self {
            Self::Embedded(database) => {
                let reading = database.begin_read().map_err(failed)?;
                let table = reading.open_table(RECORDS).map_err(failed)?;
                let find = |key: &Vec<u8>| match table.get(&**key).map_err(failed)? {
                    Some(found) => decoded(found.value()).map(Some),
                    None => Ok(None),
                };
                keys.iter().map(find).collect()
            }
            #[cfg(feature = "redis")]
            Self::Redis { .. } if keys.is_empty() => Ok(Vec::new()),
            #[cfg(feature = "redis")]
            Self::Redis { connection, table } => {
                let mut reading = redis::cmd("HMGET");
                reading.arg(table).arg(&keys);
                let found: Vec<Option<Vec<u8>>> =
                    reading.query_async(&mut connection.clone()).await.map_err(|error| refused(&error))?;
                found.into_iter().map(|found| found.map(|bytes| decoded(&bytes)).transpose()).collect()
            }
        }
    }

    /// Takes away what would be left at a server.
    pub(crate) async fn remove(&self) {
        match self {
            Self::Embedded(_) => {}
            #[cfg(feature = "redis")]
            Self::Redis { connection, table } => {
                // If the server is gone, so is the table, or it goes when its time is up.
                let _removed: Result<u64, _> = redis::cmd("DEL").arg(table).query_async(&mut connection.clone()).await;
            }
        }
    }
}

fn encoded<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    postcard::to_allocvec(value).map_err(|error| Failure::Database(error.to_string()))
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    postcard::from_bytes(bytes).map_err(|error| Failure::Database(error.to_string()))
}
