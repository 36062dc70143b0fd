//! What all clients hold: the question, and the rows that come of the answers.

use super::{Home, OWN, now_ms};
use crate::runtime::client::Client;
use crate::runtime::questions;
use crate::runtime::slot::Waiter;
use dmrpc_hub::record::{Record, Results};
use dmrpc_hub::{ClientId, Ended};
use serde_json::Value;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Who asks what clients hold.
pub(super) enum Asker {
    /// A thread of this process, who finds the answers in the cell.
    Here(Arc<Waiter>, Arc<OnceLock<Value>>),
    /// A client, by its number of the question.
    Away(ClientId, u64),
}

impl Home {
    /// Asks all clients what they hold; `waiter` is told when the answers are in the cell.
    pub(crate) fn take_census(
        &mut self,
        client: &Arc<Client>,
        waiter: &Arc<Waiter>,
        limit: Duration,
    ) -> Arc<OnceLock<Value>> {
        let answers = Arc::new(OnceLock::new());
        self.begin_census(client, Asker::Here(waiter.clone(), answers.clone()), limit);
        self.flush(client);
        answers
    }

    pub(super) fn begin_census(&mut self, client: &Arc<Client>, asker: Asker, limit: Duration) {
        let to: Vec<ClientId> = self.by_client.keys().copied().collect();
        let until = now_ms() + limit.as_millis() as u64;
        let (number, crowded) = self.censuses.ask(asker, until, to.iter().copied());
        for to in to {
            self.send_to(client, to, |peer, _| peer.send(&Record::Census { number }));
        }
        let mut ended = self.censuses.take_due(now_ms());
        ended.extend(crowded);
        self.end_censuses(client, ended);
    }

    pub(super) fn end_censuses(&mut self, client: &Arc<Client>, ended: impl IntoIterator<Item = Ended<Asker, Value>>) {
        for Ended { asker, answers } in ended {
            let own = questions::holder(OWN, std::process::id(), false, Some(&crate::held::list()));
            let others = answers.into_iter().filter_map(|(id, held)| {
                let (pid, is_worker) = self.process_of(id)?;
                Some(questions::holder(id, pid, is_worker, held.as_ref()))
            });
            let rows: Value = std::iter::once(own).chain(others).collect();
            match asker {
                Asker::Here(waiter, answers) => {
                    let _ = answers.set(rows);
                    waiter.one_less(client);
                }
                Asker::Away(to, number) => {
                    let what = rows.to_string();
                    self.send_to(client, to, |peer, _| {
                        peer.send(&Record::Answer { number, what: what.as_bytes(), given: Results::new() })
                    });
                    self.flush(client);
                }
            }
        }
    }
}
