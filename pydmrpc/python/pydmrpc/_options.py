"""What `remote` and `options` take, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: For functions.
TASK_OPTIONS = frozenset(
    [
        "accelerator_type", "enable_task_events", "label_selector", "max_calls", "max_retries", "memory", "name", "num_cpus", "num_gpus",
        "num_returns", "object_store_memory", "resources", "retry_exceptions", "runtime_env", "scheduling_strategy", "_metadata",
        "_generator_backpressure_num_objects", "placement_group", "placement_group_bundle_index",
        "placement_group_capture_child_tasks",
    ]
)  # fmt: skip
#: For classes.
ACTOR_OPTIONS = frozenset(
    [
        "accelerator_type", "concurrency_groups", "enable_task_events", "get_if_exists", "label_selector", "lifetime",
        "max_concurrency", "max_pending_calls", "max_restarts", "max_task_retries", "memory", "name", "namespace", "num_cpus",
        "num_gpus", "object_store_memory", "resources", "runtime_env", "scheduling_strategy", "_metadata", "placement_group",
        "placement_group_bundle_index", "placement_group_capture_child_tasks", "allow_out_of_order_execution",
    ]
)  # fmt: skip
#: For methods.
METHOD_OPTIONS = frozenset(
    [
        "concurrency_group", "enable_task_events", "max_task_retries", "name", "num_returns", "retry_exceptions",
        "_generator_backpressure_num_objects",
    ]
)  # fmt: skip

#: A number of retries that has no end.
ENDLESS = 0xFFFF_FFFF


def check(options: Mapping[str, Any], known: frozenset[str], what: str) -> None:
    """Raises ValueError for an option that there is not, or a value that it can't have."""
    for name, value in options.items():
        if name not in known:
            raise ValueError(f"Invalid option keyword {name} for {what}; there are {', '.join(sorted(known))}")
        if name in ("num_cpus", "num_gpus", "memory", "object_store_memory") and value is not None and value < 0:
            raise ValueError(f"The keyword '{name}' only accepts None, 0 or a positive number, not {value}")
        if name in ("max_retries", "max_restarts", "max_task_retries") and value is not None and value < -1:
            raise ValueError(f"The keyword '{name}' only accepts None, 0, -1 or a positive integer, not {value}")
        if name == "resources" and value and any(key in ("CPU", "GPU") for key in value):
            raise ValueError("Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU' in 'resources' keyword")


def thousandths(options: Mapping[str, Any], default_cpus: float) -> dict[str, Any]:
    """What is occupied, as the core counts it."""
    cpus, gpus = options.get("num_cpus"), options.get("num_gpus")
    resources: Mapping[str, float] = options.get("resources") or {}
    return {
        "cpu": round((default_cpus if cpus is None else cpus) * 1000),
        "gpu": round((gpus or 0) * 1000),
        "other": {name: round(amount * 1000) for name, amount in resources.items()},
    }


def tries(count: int | None, default: int) -> int:
    """A number of retries as the core counts it: -1 is without end."""
    number = default if count is None else count
    return ENDLESS if number < 0 else number
