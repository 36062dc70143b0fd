//! What hubs and their clients say to each other.

use crate::Target;
use dmrpc_hub::record::{Came, Failed, Record, Value, Wanted, Who};
use dmrpc_hub::{ActorId, ClientId, FunctionId, Resources, TaskId, WorkerId};

pub(crate) const RECORD: Target = Target { name: "record", run, seeds };

/// Heads have room that a kind does not use and its decoder passes over; what it reads is what it writes.
fn run(data: &[u8]) {
    if let Ok(record) = Record::decode(data) {
        let mut again = Vec::new();
        record.encode(&mut again);
        assert!(again.len() == data.len(), "{record:?}");
        let mut once_more = Vec::new();
        Record::decode(&again).expect("what was encoded decodes").encode(&mut once_more);
        assert_eq!(once_more, again, "{record:?}");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let task = TaskId { client: ClientId(2), number: 9 };
    let value = Value { bytes: b"value", references: 1, table: b"reference" };
    let work = Wanted {
        function: FunctionId(7),
        payload: value,
        needs: [task.result(0)].into_iter().collect(),
        contains: [ActorId(task).handle()].into_iter().collect(),
        returns: 2,
        retries: 3,
        retry_raised: true,
    };
    let resources = Resources { cpu: 500, gpu: 0, other: [("tpu".to_owned(), 1000)].into() };
    let came = |value| Came { value, contains: [task.result(1)].into_iter().collect() };
    let records = [
        Record::Hello { who: Who::Worker(WorkerId(3), 11), pid: 100 },
        Record::Welcome { client: ClientId(2), store: "unix:///run/node", about: b"about" },
        Record::Function { id: FunctionId(7), definition: value },
        Record::Submit { task, parent: Some(task), work: work.clone(), resources: resources.clone(), environment: 1 },
        Record::Create {
            actor: ActorId(task),
            work: work.clone(),
            resources,
            environment: 0,
            name: Some(("default".into(), "name".into())),
            detached: true,
            unordered: true,
        },
        Record::Call { task, actor: ActorId(task), parent: None, work },
        Record::Run {
            task,
            actor: Some(ActorId(task)),
            create: true,
            function: FunctionId(7),
            payload: value,
            values: [value].into_iter().collect(),
            given: [task.result(0)].into_iter().collect(),
            returns: 1,
        },
        Record::Finished {
            task,
            outcomes: [came(Ok(value)), came(Err(Failed::Raised(value)))].into_iter().collect(),
            micros: 5,
        },
        Record::Deliver { result: task.result(0), outcome: came(Err(Failed::WorkerDied("why"))) },
        Record::Release([(task.result(0), 2)].into_iter().collect()),
        Record::Returned([task].into_iter().collect()),
        Record::Near { cpu: Some(1) },
        Record::Ask { number: 4, what: b"\"totals\"" },
        Record::Answer { number: 4, what: b"{}", given: [task.result(0)].into_iter().collect() },
        Record::Loans([1, 2, 3].into_iter().collect()),
    ];
    let encoded = |record: &Record<'_>| {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes
    };
    records.iter().map(encoded).collect()
}
