"""The system as a whole, as its hub tells: resources, nodes, what runs and ran."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

from pydmrpc import _core, _runtime


def ask(question: Any) -> Any:
    """Asks the hub, which is started if there is none; ``pydmrpc/src/runtime/questions.rs`` lists the questions."""
    _runtime.start()
    return json.loads(_core._ask(json.dumps(question)))


def rows(kind: str) -> list[dict[str, Any]]:
    """A list of the hub's."""
    if kind == "jobs":
        return [{"job_id": "00000000", "type": "DRIVER", "status": "RUNNING", "driver_info": {"pid": str(os.getpid())}}]
    found: list[dict[str, Any]] = ask(kind)
    return found


def objects(timeout_s: float) -> list[dict[str, Any]]:
    """Which process has references to which objects; the processes have so many seconds to answer."""
    found = rows("objects")
    for process in json.loads(_core._held(round(timeout_s * 1000))):
        who = {"type": process["type"], "pid": process["pid"]}
        if process["held"] is None:
            found.append(_object("", 0, "", None, "", "NO_ANSWER") | who)
            continue
        for id, size, kind, site in process["held"]["rows"]:
            found.append(_object(id, size, kind, site, "LOCAL_REFERENCE", "FINISHED") | who)
    return found


def _object(id: str, size: int, kind: str, site: str | None, reference: str, status: str) -> dict[str, Any]:
    return {
        "object_id": id,
        "object_size": size,
        "task_status": status,
        "reference_type": reference,
        "call_site": site or "",
        "kind": kind,
    }


def task(id: tuple[int, int] | None) -> dict[str, Any] | None:
    """A task that is not done."""
    return None if id is None else ask({"task": list(id)})


def driver_of(client: int) -> int:
    """The driver that a process works for: the one with the hub, which is client 0, or one that joined."""
    return 0


def amounts(resources: dict[str, Any]) -> dict[str, float]:
    """Resources by the names that programs know them by."""
    found = {"CPU": resources["cpu"], "GPU": resources["gpu"], **resources["other"]}
    return {name: amount / 1000 for name, amount in found.items() if amount}


def cluster_resources() -> dict[str, float]:
    """All that tasks and actors can occupy, by name.

    Example::

        pydmrpc.cluster_resources()["CPU"]
    """
    return _with_memory(ask("totals")["total"])


def available_resources() -> dict[str, float]:
    """What is not occupied, by name. What is occupied wholly is not in it."""
    return _with_memory(ask("totals")["available"])


def _with_memory(resources: dict[str, Any]) -> dict[str, float]:
    import pydmrpc

    pool = float(pydmrpc.memory().pool)
    host = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return {**amounts(resources), "memory": host - pool, "object_store_memory": pool}


def node_id() -> str:
    """The id of this host, in hex."""
    _runtime.start()
    name: str = _core.about()[1]
    return name


def nodes() -> list[dict[str, Any]]:
    """The hosts of the system, which is this one: id, names, resources."""
    return [
        {
            "NodeID": node_id(),
            "Alive": True,
            "NodeManagerAddress": "127.0.0.1",
            "NodeManagerHostname": socket.gethostname(),
            "NodeName": socket.gethostname(),
            "Resources": cluster_resources(),
            "Labels": {},
            "alive": True,
        }
    ]


def timeline(filename: str | None = None) -> list[dict[str, Any]] | None:
    """What ran when, as events of Chrome's tracing: a complete event for each of the latest tasks that have ended.

    Args:
        filename: where to write them; they are given back otherwise.

    Example::

        pydmrpc.timeline("timeline.json")       # for chrome://tracing or Perfetto
    """
    started_s = time.time() - ask("totals")["now_ms"] / 1000
    events = []
    for row in rows("tasks"):
        if row["end_time_ms"] is not None:
            end_us = started_s * 1e6 + row["end_time_ms"] * 1000
            events.append(
                {
                    "cat": f"task::{row['name']}",
                    "name": row["name"],
                    "ph": "X",
                    "ts": end_us - row["duration_us"],
                    "dur": row["duration_us"],
                    "pid": row["worker_pid"],
                    "tid": row["worker_id"],
                    "args": {"task_id": row["task_id"], "state": row["state"]},
                }
            )
    if filename is None:
        return events
    with open(filename, "w") as file:
        json.dump(events, file)
    return None


def get_gpu_ids() -> list[int]:
    """Accelerators that are assigned to this task: they are counted and not told apart, so none is named."""
    return []
