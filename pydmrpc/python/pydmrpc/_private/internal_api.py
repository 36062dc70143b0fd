"""What Ray's guides import from ``ray._private.internal_api``."""

from __future__ import annotations

from pydmrpc.util import state


def memory_summary(
    address: str | None = None,
    redis_password: str | None = None,
    group_by: str = "NODE_ADDRESS",
    sort_by: str = "OBJECT_SIZE",
    units: str = "B",
    line_wrap: bool = True,
    stats_only: bool = False,
    num_entries: int | None = None,
) -> str:
    """Which process has which objects, largest first, as text; the arguments but `num_entries` are not used."""
    rows = sorted(state.list_objects(limit=None), key=lambda row: -row.object_size)[:num_entries]
    return "\n".join(f"{row.object_id} {row.object_size} B {row.type} {row.pid} {row.call_site}" for row in rows)
