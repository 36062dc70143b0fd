"""What Ray programs import from ``ray.util``: pools, queues, placement groups, metrics, lists of what there is.

All of it is made of the public functions of the package. The larger modules are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pydmrpc.util.actor_pool import ActorPool
from pydmrpc.util.completion import as_completed, map_unordered
from pydmrpc.util.names import get_node_ip_address, list_named_actors, log_once
from pydmrpc.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from pydmrpc.util.serialization import deregister_serializer, inspect_serializability, register_serializer

if TYPE_CHECKING:
    from pydmrpc.util import accelerators, iter, joblib, metrics, multiprocessing, queue, scheduling_strategies, state

_MODULES = ("accelerators", "iter", "joblib", "metrics", "multiprocessing", "queue", "scheduling_strategies", "state")

__all__ = [
    "ActorPool",
    "PlacementGroup",
    "accelerators",
    "as_completed",
    "deregister_serializer",
    "get_current_placement_group",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "iter",
    "joblib",
    "list_named_actors",
    "log_once",
    "map_unordered",
    "metrics",
    "multiprocessing",
    "placement_group",
    "placement_group_table",
    "queue",
    "register_serializer",
    "remove_placement_group",
    "scheduling_strategies",
    "state",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
