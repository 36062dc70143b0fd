//! What clients ask the hub, as JSON: `{"named": [namespace, name]}`, `"names"`, `"totals"`, `"workers"`.

use super::client::Client;
use super::home::Home;
use dmrpc_hub::{ClientId, FunctionId, ResultId};
use serde_json::{Value, json};
use std::sync::Arc;

/// What distinguishes the definition of a class's handles from that of the class: a bit of the name.
pub(crate) const HANDLES: u128 = 1 << 127;

pub(crate) fn answer(home: &mut Home, _client: &Arc<Client>, from: ClientId, what: &[u8]) -> (Vec<u8>, Vec<ResultId>) {
    let mut given = Vec::new();
    let question: Value = serde_json::from_slice(what).unwrap_or_default();
    let answer = if let Some([Value::String(namespace), Value::String(name)]) =
        question.get("named").and_then(Value::as_array).map(Vec::as_slice)
    {
        named(home, from, namespace, name, &mut given)
    } else {
        match question.as_str() {
            Some("names") => home.hub.names().map(|((namespace, name), _)| json!([namespace, name])).collect(),
            Some("totals") => totals(home),
            Some("workers") => home
                .workers()
                .map(|(id, pid, environment, client)| {
                    json!({"id": id.0, "pid": pid, "environment": environment, "connected": client.is_some()})
                })
                .collect(),
            _ => Value::Null,
        }
    };
    (answer.to_string().into_bytes(), given)
}

fn named(home: &mut Home, from: ClientId, namespace: &str, name: &str, given: &mut Vec<ResultId>) -> Value {
    let Some(actor) = home.hub.named(namespace, name) else { return Value::Null };
    let Some(FunctionId(class)) = home.hub.class(actor) else { return Value::Null };
    if !home.hub.hold(from, actor.handle()) {
        // Nobody has a handle, and it lives on: the first one is new.
        if !home.hub.revive(from, actor) {
            return Value::Null;
        }
    }
    given.push(actor.handle());
    // What handles are is small: names of methods and numbers.
    json!({"handles": home.definition(FunctionId(class | HANDLES)).map(|definition| definition.bytes.to_vec())})
}

fn totals(home: &Home) -> Value {
    let totals = home.hub.totals();
    let resources = |resources: &dmrpc_hub::Resources| json!({"cpu": resources.cpu, "gpu": resources.gpu, "other": resources.other});
    json!({
        "tasks": totals.tasks, "results": totals.results, "actors": totals.actors, "workers": totals.workers,
        "available": resources(&totals.available), "total": resources(home.hub.total()),
    })
}
