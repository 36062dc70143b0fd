"""Lists of what there is: tasks, actors, objects, workers, as the hub knows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pydmrpc
from pydmrpc import _system

#: Rows that a list has at most unless told otherwise.
DEFAULT_LIMIT = 100
#: Seconds that processes may take to answer unless told otherwise.
DEFAULT_TIMEOUT_S = 30.0

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


class _Lister(Protocol):
    """What lists rows."""

    def __call__(
        self,
        address: str | None = None,
        filters: Sequence[_Filter] | None = None,
        limit: int | None = DEFAULT_LIMIT,
        timeout: float = DEFAULT_TIMEOUT_S,
        detail: bool = False,
        raise_on_missing_output: bool = True,
    ) -> list[State]: ...


_MANNER = """

    Args:
        address: not used: the session's system is asked.
        filters: conditions that rows meet, each ``(column, "=" or "!=", value)``.
        limit: rows at most; None for all.
        timeout: seconds that processes may take to answer, where they are asked.
        detail: not used: rows have all columns.
        raise_on_missing_output: not used: who has not answered is a row.

    Raises:
        ValueError: for conditions that are none."""


def _lister(name: str, what: str, rows: Callable[[float], list[dict[str, Any]]]) -> _Lister:
    """The function that lists `rows`, which are given the timeout."""

    def list_rows(
        address: str | None = None,
        filters: Sequence[_Filter] | None = None,
        limit: int | None = DEFAULT_LIMIT,
        timeout: float = DEFAULT_TIMEOUT_S,
        detail: bool = False,
        raise_on_missing_output: bool = True,
    ) -> list[State]:
        return _chosen(rows(timeout), filters, limit)

    list_rows.__name__ = list_rows.__qualname__ = name
    list_rows.__doc__ = what + _MANNER
    return list_rows


def _of_hub(kind: str) -> Callable[[float], list[dict[str, Any]]]:
    return lambda _: _system.rows(kind)


def _nodes(_: float) -> list[dict[str, Any]]:
    return [
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


def _placement_groups(_: float) -> list[dict[str, Any]]:
    from pydmrpc.util.placement_group import placement_group_table

    if not any(row["class_name"] == "_Groups" and row["state"] != "DEAD" for row in _system.rows("actors")):
        return []
    return list(placement_group_table().values())


list_tasks = _lister(
    "list_tasks", "Tasks and actor calls: those that wait or run, and the latest of those that have ended.", _of_hub("tasks")
)
list_actors = _lister("list_actors", "Actors, and the latest of those that have ended.", _of_hub("actors"))
list_objects = _lister(
    "list_objects",
    """Which process has references to which objects: results of tasks, and what was put.

    A row has ``object_id``, ``object_size`` in bytes, ``kind``, ``call_site`` (file and line where the reference came to be, or the
    task that returns it), ``type`` and ``pid`` of the process, ``reference_type`` and ``task_status``. The largest 1,000 of what a
    process has by itself are listed. A process that did not answer in time is a row with the status ``NO_ANSWER``.""",
    _system.objects,
)
list_workers = _lister("list_workers", "Processes that run tasks and actors.", _of_hub("workers"))
list_nodes = _lister("list_nodes", "The host.", _nodes)
list_jobs = _lister("list_jobs", "Drivers.", _of_hub("jobs"))
list_placement_groups = _lister("list_placement_groups", "Placement groups.", _placement_groups)


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
    return list_objects(filters=[("object_id", "=", id)], limit=None, timeout=timeout)


def summarize_tasks(address: str | None = None, timeout: int = 30, raise_on_missing_output: bool = True) -> dict[str, Any]:
    """How many tasks of each function are in which state."""
    return _summary(list_tasks(limit=None), "func_or_class_name", lambda row: {"type": row["type"]})


def summarize_actors(address: str | None = None, timeout: int = 30, raise_on_missing_output: bool = True) -> dict[str, Any]:
    """How many actors of each class are in which state."""
    return _summary(list_actors(limit=None), "class_name", lambda row: {})


def summarize_objects(address: str | None = None, timeout: int = 30, raise_on_missing_output: bool = True) -> dict[str, Any]:
    """How many objects are where, and how large they are together."""
    rows = [row for row in list_objects(limit=None, timeout=timeout) if row["object_id"]]
    return {"cluster": {"total_objects": len(rows), "total_size_mb": sum(row["object_size"] for row in rows) / 2**20}}


def _summary(rows: list[State], column: str, more: Callable[[State], dict[str, Any]]) -> dict[str, Any]:
    groups: dict[str, Any] = {}
    for row in rows:
        group = groups.setdefault(row[column], {"state_counts": Counter(), **more(row)})
        group["state_counts"][row["state"]] += 1
    for group in groups.values():
        group["state_counts"] = dict(group["state_counts"])
    return {"cluster": {"summary": groups, "total": len(rows)}}


def _one(kind: str, column: str, id: str) -> State | None:
    return next(iter(_chosen(_system.rows(kind), [(column, "=", id)], 1)), None)


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
