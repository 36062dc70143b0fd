//! What a client's record asks for.

use crate::runtime::payload::Payload;
use crate::runtime::peer::{self, PeerError};
use dmrpc_hub::record::{Record, Who};
use dmrpc_hub::{ClientId, Event, FunctionId, Outcome, ResultId};
use dmrpc_objstore::Borrows;

/// What a record asks for.
pub(super) enum Wish {
    Event(Event<Payload>),
    Hello(Who, u32),
    Function(FunctionId, Payload),
    Want(Vec<ResultId>),
    Hold(Vec<ResultId>),
    Grant(Vec<ResultId>),
    Ask(u64, Vec<u8>),
    Holdings(u64, Vec<u8>),
}

/// What a record of a client's asks for.
pub(super) fn wish(from: Option<ClientId>, record: &Record<'_>, borrows: &Borrows) -> Result<Wish, PeerError> {
    let client = from.unwrap_or(ClientId(u32::MAX));
    let event = match record {
        Record::Hello { who, pid } => return Ok(Wish::Hello(*who, *pid)),
        Record::Function { id, definition } => return Ok(Wish::Function(*id, Payload::read(definition, borrows)?)),
        Record::Hold(results) => return Ok(Wish::Hold(results.to_vec())),
        Record::Grant(results) => return Ok(Wish::Grant(results.to_vec())),
        Record::Ask { number, what } => return Ok(Wish::Ask(*number, what.to_vec())),
        Record::Holdings { number, what } => return Ok(Wish::Holdings(*number, what.to_vec())),
        Record::Submit { task, parent, work, resources, environment } => Event::Submit {
            client,
            want: false,
            task: dmrpc_hub::TaskSpec {
                id: *task,
                parent: *parent,
                work: peer::work(work, borrows)?,
                resources: resources.clone(),
                environment: *environment,
            },
        },
        Record::Create { actor, work, resources, environment, name, detached, unordered } => Event::Create {
            client,
            actor: dmrpc_hub::ActorSpec {
                id: *actor,
                work: peer::work(work, borrows)?,
                resources: resources.clone(),
                environment: *environment,
                name: name.clone(),
                detached: *detached,
                unordered: *unordered,
            },
        },
        Record::Call { task, actor, parent, work } => Event::Call {
            client,
            want: false,
            call: dmrpc_hub::CallSpec { id: *task, actor: *actor, parent: *parent, work: peer::work(work, borrows)? },
        },
        Record::Finished { task, outcomes, micros } => {
            let outcomes: Result<Vec<Outcome<Payload>>, _> =
                outcomes.iter().map(|came| peer::outcome(came, borrows)).collect();
            Event::Finished { client, task: *task, outcomes: outcomes?, micros: *micros }
        }
        Record::Yielded { result, outcome } => {
            Event::Yielded { client, result: *result, outcome: peer::outcome(outcome, borrows)? }
        }
        Record::Want(results) => return Ok(Wish::Want(results.to_vec())),
        Record::Release(results) => Event::Release { client, results: results.to_vec() },
        Record::Blocked => Event::Blocked { client },
        Record::Unblocked => Event::Unblocked { client },
        Record::Returned(tasks) => Event::Returned { client, tasks: tasks.to_vec() },
        Record::Cancel { task, force, recursive } => {
            Event::Cancel { task: *task, force: *force, recursive: *recursive }
        }
        Record::Kill { actor, restart } => Event::Kill { actor: *actor, restart: *restart },
        Record::Exits => Event::Exits { client },
        Record::Welcome { .. }
        | Record::Run { .. }
        | Record::Deliver { .. }
        | Record::Recall { .. }
        | Record::Interrupt { .. }
        | Record::Near { .. }
        | Record::Printed { .. }
        | Record::Exit
        | Record::Answer { .. }
        | Record::Census { .. }
        | Record::Loans(_) => return Err(dmrpc_hub::record::Malformed("not from a client").into()),
    };
    Ok(Wish::Event(event))
}
