"""Lists of what there is: tasks, actors, objects, workers, as the hub knows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pydmrpc
from pydmrpc import _system

#: Rows that a list has at most unless told otherwise.
DEFAULT_LIMIT = 100

_Filter = tuple[str, str, Any]

_PREDICATES: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda have, want: _text(have) == _text(want),
    "!=": lambda have, want: _text(have) != _text(want),
}


class State(dict[str, Any]):
    """A row: its columns are attributes and items."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the row has no column {name!r}: it has {', '.join(self)}") from None


def list_tasks(
    address: str | None = None,
    filters: Sequence[_Filter] | None = None,
    limit: int | None = DEFAULT_LIMIT,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[State]:
    """Tasks and actor calls: those that wait or run, and the latest of those that have ended.

    Args:
        address: not used: the session's system is asked.
        filters: conditions that rows meet, each ``(column, "=" or "!=", value)``.
        limit: rows at most.
        timeout: not used: the answer is at hand.
        detail: not used: rows have all columns.
        raise_on_missing_output: not used: lists are whole.

    Raises:
        ValueError: for conditions that are none.
    """
    return _rows("tasks", filters, limit)


def list_actors(
    address: str | None = None,
    filters: Sequence[_Filter] | None = None,
    limit: int | None = DEFAULT_LIMIT,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[State]:
    """Actors, and the latest of those that have ended. See :func:`list_tasks`."""
    return _rows("actors", filters, limit)


def list_objects(
    address: str | None = None,
    filters: Sequence[_Filter] | None = None,
    limit: int | None = DEFAULT_LIMIT,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[State]:
    """Results that processes have references to. See :func:`list_tasks`."""
    return _rows("objects", filters, limit)


def list_workers(
    address: str | None = None,
    filters: Sequence[_Filter] | None = None,
    limit: int | None = DEFAULT_LIMIT,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[State]:
    """Processes of the system. See :func:`list_tasks`."""
    return _rows("workers", filters, limit)


def list_nodes(
    address: str | None = None,
    filters: Sequence[_Filter] | None = None,
    limit: int | None = DEFAULT_LIMIT,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[State]:
    """The host. See :func:`list_tasks`."""
    rows = [
        {
            "node_id": node["NodeID"],
            "node_ip": node["NodeManagerAddress"],
            "node_name": node["NodeManagerHostname"],
            "state": "ALIVE" if node["Alive"] else "DEAD",
            "is_head_node": True,
            "resources_total": node["Resources"],
        }
        for node in pydmrpc.nodes()
    ]
    return _chosen(rows, filters, limit)


def list_jobs(
    address: str | None = None,
    filters: Sequence[_Filter] | None = None,
    limit: int | None = DEFAULT_LIMIT,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[State]:
    """Drivers. See :func:`list_tasks`."""
    return _rows("jobs", filters, limit)


def list_placement_groups(
    address: str | None = None,
    filters: Sequence[_Filter] | None = None,
    limit: int | None = DEFAULT_LIMIT,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[State]:
    """Placement groups. See :func:`list_tasks`."""
    from pydmrpc.util.placement_group import placement_group_table

    if not any(row["class_name"] == "_Groups" and row["state"] != "DEAD" for row in list_actors(limit=None)):
        return []
    return _chosen(list(placement_group_table().values()), filters, limit)


def get_task(id: str, address: str | None = None, timeout: int = 30) -> State | None:
    """The task of an id, in hex; None if it is not known."""
    return _one("tasks", "task_id", id)


def get_actor(id: str, address: str | None = None, timeout: int = 30) -> State | None:
    """The actor of an id, in hex; None if it is not known."""
    return _one("actors", "actor_id", id)


def get_worker(id: str, address: str | None = None, timeout: int = 30) -> State | None:
    """The worker of an id, in hex; None if it is not known."""
    return _one("workers", "worker_id", id)


def get_node(id: str, address: str | None = None, timeout: int = 30) -> State | None:
    """The node of an id, in hex; None if it is not known."""
    return next((row for row in list_nodes() if row["node_id"] == id), None)


def get_objects(id: str, address: str | None = None, timeout: int = 30) -> list[State]:
    """The rows of an object, by its id in hex."""
    return _rows("objects", [("object_id", "=", id)], None)


def summarize_tasks(address: str | None = None, timeout: int = 30, raise_on_missing_output: bool = True) -> dict[str, Any]:
    """How many tasks of each function are in which state."""
    return _summary(list_tasks(limit=None), "func_or_class_name", lambda row: {"type": row["type"]})


def summarize_actors(address: str | None = None, timeout: int = 30, raise_on_missing_output: bool = True) -> dict[str, Any]:
    """How many actors of each class are in which state."""
    return _summary(list_actors(limit=None), "class_name", lambda row: {})


def summarize_objects(address: str | None = None, timeout: int = 30, raise_on_missing_output: bool = True) -> dict[str, Any]:
    """How many objects are where, and how large they are together."""
    rows = list_objects(limit=None)
    return {"cluster": {"total_objects": len(rows), "total_size_mb": sum(row["object_size"] for row in rows) / 2**20}}


def _summary(rows: list[State], column: str, more: Callable[[State], dict[str, Any]]) -> dict[str, Any]:
    groups: dict[str, Any] = {}
    for row in rows:
        group = groups.setdefault(row[column], {"state_counts": Counter(), **more(row)})
        group["state_counts"][row["state"]] += 1
    for group in groups.values():
        group["state_counts"] = dict(group["state_counts"])
    return {"cluster": {"summary": groups, "total": len(rows)}}


def _rows(kind: str, filters: Sequence[_Filter] | None, limit: int | None) -> list[State]:
    return _chosen(_system.rows(kind), filters, limit)


def _one(kind: str, column: str, id: str) -> State | None:
    return next(iter(_rows(kind, [(column, "=", id)], 1)), None)


def _chosen(rows: list[dict[str, Any]], filters: Sequence[_Filter] | None, limit: int | None) -> list[State]:
    conditions = []
    for condition in filters or ():
        if len(condition) != 3 or condition[1] not in _PREDICATES:
            raise ValueError(f"{condition!r} is no condition: (column, '=' or '!=', value) is one")
        conditions.append((condition[0].lower(), _PREDICATES[condition[1]], condition[2]))
    chosen = [State(row) for row in rows if all(holds(row.get(column), want) for column, holds, want in conditions)]
    return chosen if limit is None else chosen[:limit]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
