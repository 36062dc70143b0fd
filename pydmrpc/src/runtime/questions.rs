//! What clients ask the hub, as JSON, and what it answers.
//!
//! | question | answer |
//! | --- | --- |
//! | `{"named": [namespace, name]}` | the actor's handle, and what its handles are |
//! | `{"task": [client, number]}` | a task that is not done: its name, what it occupies, its actor |
//! | `{"title": text}` | that is what the actor of the worker that asks calls itself |
//! | `{"change": {name: thousandths}}` | so much more of named resources, or less |
//! | `{"add": {name: [number, …]}}`, `{"set": …}` | so much is added to what programs count under a name, or it is that; numbers are text |
//! | `"tasks"`, `"actors"`, `"objects"` (results of tasks), `"workers"`, `"names"` | lists |
//! | `"tallies"` | what programs count, by name |
//! | `{"held": milliseconds}` | what each process holds, of those that answer within so long |
//! | `"totals"` | how much there is of everything |

use super::calls::hex;
use super::client::Client;
use super::home::Home;
use super::payload::Payload;
use dmrpc_hub::{ActorId, ClientId, Event, FunctionId, Resources, ResultId, TaskId, TaskRow, WorkerId};
use rustc_hash::FxHashMap;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// What distinguishes the definition of a class's handles from that of the class: a bit of the name.
pub(crate) const HANDLES: u128 = 1 << 127;
/// What distinguishes the name of a function, for people, from its definition.
pub(crate) const NAMES: u128 = 1 << 126;
/// How long a question to all processes may take, whatever was asked.
pub(crate) const MAX_CENSUS: Duration = Duration::from_secs(60);
/// An answer of more bytes is none.
const MAX_HELD_BYTES: usize = 4 << 20;
/// How the codec of small values marks text.
const TEXT: u8 = 5;

pub(crate) fn answer(home: &mut Home, client: &Arc<Client>, from: ClientId, what: &[u8]) -> (Vec<u8>, Vec<ResultId>) {
    let mut given = Vec::new();
    let question: Value = serde_json::from_slice(what).unwrap_or_default();
    let answer = match &question {
        Value::Object(asked) => about_one(home, client, from, asked, &mut given).unwrap_or_default(),
        Value::String(list) => match list.as_str() {
            "names" => home.hub.names().map(|((namespace, name), _)| json!([namespace, name])).collect(),
            "totals" => totals(home),
            "tallies" => home.tallies.rows(),
            "tasks" => home.hub.task_rows().map(|row| task(home, &row)).collect(),
            "actors" => actors(home),
            "objects" => objects(home),
            "workers" => workers(home),
            _ => Value::Null,
        },
        _ => Value::Null,
    };
    (answer.to_string().into_bytes(), given)
}

/// Whether it is asked what all processes hold, which they themselves must be asked; and how long that may take.
pub(crate) fn census(what: &[u8]) -> Option<Duration> {
    let question: Value = serde_json::from_slice(what).ok()?;
    Some(Duration::from_millis(question.as_object()?.get("held")?.as_u64()?).min(MAX_CENSUS))
}

/// [`census`] as a question.
pub(crate) fn ask_census(limit: Duration) -> String {
    json!({"held": u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)}).to_string()
}

/// What a process says that it holds, as [`crate::held::list`] makes it; `None` for anything else.
pub(crate) fn held(what: &[u8]) -> Option<Value> {
    if what.len() > MAX_HELD_BYTES {
        return None;
    }
    let said: Value = serde_json::from_slice(what).ok()?;
    let row = |row: &Value| {
        let [object, bytes, kind, site] = row.as_array()?.as_slice() else { return None };
        Some(json!([object.as_str()?, bytes.as_u64()?, kind.as_str()?, site.as_str()]))
    };
    let rows: Vec<Value> = said.get("rows")?.as_array()?.iter().map(row).collect::<Option<_>>()?;
    Some(json!({"count": said.get("count")?.as_u64()?, "bytes": said.get("bytes")?.as_u64()?, "rows": rows}))
}

/// A process and what it holds, if it has answered.
pub(crate) fn holder(client: ClientId, pid: u32, is_worker: bool, held: Option<&Value>) -> Value {
    json!({"client": client.0, "pid": pid, "type": kind(is_worker), "held": held})
}

fn kind(is_worker: bool) -> &'static str {
    if is_worker { "WORKER" } else { "DRIVER" }
}

fn about_one(
    home: &mut Home,
    client: &Arc<Client>,
    from: ClientId,
    asked: &Map<String, Value>,
    given: &mut Vec<ResultId>,
) -> Option<Value> {
    let (what, about) = asked.iter().next()?;
    match what.as_str() {
        "named" => {
            let [Value::String(namespace), Value::String(name)] = about.as_array()?.as_slice() else { return None };
            named(home, from, namespace, name, given)
        }
        "task" => {
            let [client, number] = about.as_array()?.as_slice() else { return None };
            let id = TaskId {
                client: ClientId(client.as_u64()?.try_into().ok()?),
                number: number.as_u64()?.try_into().ok()?,
            };
            let mut answer = task(home, &home.hub.task_row(id)?);
            answer["resources"] = resources(home.hub.resources_of(id)?);
            Some(answer)
        }
        // Longer ones are no titles.
        "title" => {
            home.set_title(from, about.as_str()?.chars().take(200).collect());
            Some(Value::Bool(true))
        }
        "add" => {
            home.tallies.add(about.as_object()?);
            Some(Value::Bool(true))
        }
        "set" => {
            home.tallies.set(about.as_object()?);
            Some(Value::Bool(true))
        }
        "change" => {
            for (name, more) in about.as_object()? {
                home.hub.change_resources(name, more.as_i64()?);
            }
            // What waited for them can begin.
            home.step(client, Event::Tick);
            Some(Value::Bool(true))
        }
        _ => None,
    }
}

fn named(home: &mut Home, from: ClientId, namespace: &str, name: &str, given: &mut Vec<ResultId>) -> Option<Value> {
    let actor = home.hub.named(namespace, name)?;
    let FunctionId(class) = home.hub.class(actor)?;
    // Where nobody has a handle, and it lives on, the first one is new.
    if !home.hub.hold(from, actor.handle()) && !home.hub.revive(from, actor) {
        return None;
    }
    given.push(actor.handle());
    // What handles are is small: names of methods and numbers.
    let handles = home.definition(FunctionId(class | HANDLES)).map(|definition| definition.bytes.to_vec());
    Some(json!({"handles": handles}))
}

/// The name of a function or class for people.
fn name(home: &Home, FunctionId(function): FunctionId) -> String {
    let name = home.definition(FunctionId(function | NAMES));
    let text = name.and_then(|name| name.bytes.split_first_chunk::<5>()).filter(|(head, _)| head[0] == TEXT);
    text.map_or_else(String::new, |(_, text)| String::from_utf8_lossy(text).into_owned())
}

fn pid(home: &Home, worker: Option<WorkerId>) -> Option<u32> {
    let worker = worker?;
    home.workers().find(|&(id, ..)| id == worker).map(|(_, pid, ..)| pid)
}

fn task(home: &Home, row: &TaskRow) -> Value {
    let function = name(home, row.function);
    let class = |actor: ActorId| home.hub.class(actor).map(|class| name(home, class)).unwrap_or_default();
    let (kind, function) = match row.actor {
        None => ("NORMAL_TASK", function),
        Some(_) if row.makes => ("ACTOR_CREATION_TASK", format!("{function}.__init__")),
        Some(actor) => ("ACTOR_TASK", format!("{}.{function}", class(actor))),
    };
    json!({
        "task_id": hex(row.id),
        "name": function,
        "func_or_class_name": function,
        "state": row.state,
        "type": kind,
        "actor_id": row.actor.map(|ActorId(id)| hex(id)),
        "parent_task_id": row.parent.map(hex),
        "job_id": format!("{:08x}", row.id.client.0),
        "worker_id": row.worker.map(|WorkerId(id)| format!("{id:08x}")),
        "worker_pid": pid(home, row.worker),
        "end_time_ms": row.ended,
        "duration_us": row.micros,
    })
}

fn actors(home: &Home) -> Value {
    let rows = home.hub.actor_rows().map(|row| {
        let (namespace, title) = row.name.unwrap_or_default();
        json!({
            "actor_id": hex(row.id.0),
            "class_name": name(home, row.class),
            "state": row.state,
            "name": title,
            "ray_namespace": namespace,
            "pid": pid(home, row.worker),
            "job_id": format!("{:08x}", row.id.0.client.0),
            "is_detached": row.detached,
            "death_cause": row.why,
            "required_resources": resources(&row.resources),
            "num_restarts": row.restarts,
        })
    });
    rows.collect()
}

/// Results of tasks: a row for each process that holds one, or one for what else keeps it.
fn objects(home: &Home) -> Value {
    let bytes =
        |value: &Payload| value.bytes.len() as u64 + value.stored.iter().map(|stored| stored.byte_len()).sum::<u64>();
    let functions: FxHashMap<TaskId, FunctionId> = home.hub.task_rows().map(|row| (row.id, row.function)).collect();
    let results = home.hub.result_rows().filter(|(id, ..)| id.actor().is_none());
    let rows = results.flat_map(|(id, value, holders)| {
        let row = json!({
            "object_id": format!("{}{:08x}", hex(id.task), id.index),
            "object_size": value.map_or(0, bytes),
            "task_status": if value.is_some() { "FINISHED" } else { "PENDING" },
            "reference_type": if holders.is_empty() { "USED_BY_PENDING_TASK" } else { "LOCAL_REFERENCE" },
            "call_site": functions.get(&id.task).map(|&function| format!("{}.remote()", name(home, function))),
            "kind": "result",
            "type": Value::Null,
            "pid": Value::Null,
        });
        if holders.is_empty() {
            return vec![row];
        }
        let by = |holder| {
            let mut row = row.clone();
            match home.process_of(holder) {
                Some((pid, is_worker)) => {
                    row["pid"] = json!(pid);
                    row["type"] = json!(kind(is_worker));
                }
                // The hub itself: a reference is on its way where it sees none of it.
                None => row["reference_type"] = json!("PICKLED"),
            }
            row
        };
        holders.into_iter().map(by).collect()
    });
    rows.collect()
}

fn workers(home: &Home) -> Value {
    let rows = home.workers().map(|(id, pid, environment, client)| {
        json!({
            "worker_id": format!("{:08x}", id.0),
            "worker_type": "WORKER",
            "runs": home.title(id).map_or_else(|| home.hub.runs_of(id).map(|runs| name(home, runs)), |title| Some(title.to_owned())),
            "pid": pid,
            "is_alive": client.is_some(),
            "client": client.map(|client| client.0),
            "environment": environment,
        })
    });
    let drivers = home.drivers().map(|(client, pid)| {
        json!({
            "worker_id": format!("driver{:02x}", client.0),
            "worker_type": "DRIVER",
            "runs": "driver",
            "pid": pid,
            "is_alive": true,
            "client": client.0,
            "environment": Value::Null,
        })
    });
    drivers.chain(rows).collect()
}

fn resources(resources: &Resources) -> Value {
    json!({"cpu": resources.cpu, "gpu": resources.gpu, "other": resources.other})
}

fn totals(home: &Home) -> Value {
    let totals = home.hub.totals();
    json!({
        "tasks": totals.tasks, "results": totals.results, "actors": totals.actors, "workers": totals.workers,
        "now_ms": super::home::now_ms(), "available": resources(&totals.available), "total": resources(home.hub.total()),
    })
}
