"""What `remote`, `method` and `options` take, checked, and as the core counts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydmrpc import _environment

#: For both.
_COMMON = {
    "accelerator_type", "enable_task_events", "label_selector", "fallback_strategy", "memory", "name", "num_cpus", "num_gpus",
    "object_store_memory", "placement_group", "placement_group_bundle_index", "placement_group_capture_child_tasks", "resources",
    "runtime_env", "scheduling_strategy", "_labels", "_metadata",
}  # fmt: skip
#: For functions.
TASK_OPTIONS = frozenset(
    _COMMON | {"max_calls", "max_retries", "num_returns", "retry_exceptions", "_generator_backpressure_num_objects"}
)
#: For classes.
ACTOR_OPTIONS = frozenset(
    _COMMON
    | {
        "allow_out_of_order_execution", "concurrency_groups", "get_if_exists", "lifetime", "max_concurrency", "max_pending_calls",
        "max_restarts", "max_task_retries", "namespace",
    }
)  # fmt: skip
#: For methods.
METHOD_OPTIONS = frozenset(
    {
        "concurrency_group", "enable_task_events", "max_task_retries", "name", "num_returns", "retry_exceptions",
        "tensor_transport", "_generator_backpressure_num_objects",
    }
)  # fmt: skip

#: A number of retries that has no end.
ENDLESS = 0xFFFF_FFFF

_AMOUNTS = ("num_cpus", "num_gpus", "memory", "object_store_memory")
_TRIES = ("max_retries", "max_restarts", "max_task_retries")


def check(options: Mapping[str, Any], known: frozenset[str], what: str) -> None:
    """Raises for an option that there is not, or a value that it can't have.

    Raises:
        ValueError: for names that are none, and values out of their range.
        TypeError: for values of a wrong type.
    """
    for name, value in options.items():
        if name not in known:
            raise ValueError(f"Invalid option keyword {name} for {what}; there are {', '.join(sorted(known))}")
        if value is None:
            continue
        if name in _AMOUNTS:
            _number(name, value, 0)
        elif name in _TRIES:
            _integer(name, value, -1)
        elif name == "max_calls":
            _integer(name, value, 0)
        elif name in ("max_concurrency", "_generator_backpressure_num_objects"):
            _integer(name, value, 0 if name == "max_concurrency" else 1)
        elif name == "max_pending_calls":
            _integer(name, value, -1)
        elif name == "num_returns":
            _returns(value)
        elif name == "retry_exceptions":
            _exceptions(value)
        elif name == "resources":
            _resources(value)
        elif name == "lifetime":
            if value not in ("detached", "non_detached"):
                raise ValueError("actor `lifetime` argument must be one of 'detached', 'non_detached' and 'None'")
        elif name in ("name", "namespace"):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be None or a string, not {type(value).__name__}")
            if not value:
                raise ValueError(f"{name} must not be empty")
        elif name == "runtime_env":
            _environment.check(value)
        elif name == "scheduling_strategy":
            _strategy(value)


def _number(name: str, value: Any, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"The type of keyword '{name}' must be a number, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"The keyword '{name}' only accepts None, 0 or a positive number, not {value}")


def _integer(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int):
        raise TypeError(f"The type of keyword '{name}' must be an int, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"The keyword '{name}' must be {least} or more, not {value}")


def _returns(value: Any) -> None:
    if isinstance(value, str):
        if value not in ("dynamic", "streaming"):
            raise TypeError(f"num_returns is a number, 'dynamic' or 'streaming', not {value!r}")
    elif not isinstance(value, int):
        raise TypeError(f"num_returns is a number, 'dynamic' or 'streaming', not {type(value).__name__}")
    elif value < 0:
        raise ValueError(f"num_returns must not be negative, as {value} is")


def _exceptions(value: Any) -> None:
    if isinstance(value, bool):
        return
    if not isinstance(value, list | tuple) or not all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in value
    ):
        raise TypeError("retry_exceptions must be a bool or a list of exception classes")


def _resources(value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"resources must be a dict, not {type(value).__name__}")
    for name, amount in value.items():
        if name in ("CPU", "GPU"):
            raise ValueError("Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU' in 'resources' keyword")
        _number(name, amount, 0)


def _strategy(value: Any) -> None:
    from pydmrpc.util import scheduling_strategies as strategies

    kinds = (
        strategies.PlacementGroupSchedulingStrategy,
        strategies.NodeAffinitySchedulingStrategy,
        strategies.NodeLabelSchedulingStrategy,
    )
    if value not in ("DEFAULT", "SPREAD") and not isinstance(value, kinds):
        raise ValueError(f"Invalid scheduling_strategy {value!r}: 'DEFAULT', 'SPREAD' and the classes of its module are")


def placement(options: Mapping[str, Any], default_cpus: float) -> dict[str, Any]:
    """Resources and environment, as the core counts them."""
    cpus, gpus = options.get("num_cpus"), options.get("num_gpus")
    cpu = default_cpus if cpus is None else cpus
    other: dict[str, float] = {name: amount for name, amount in (options.get("resources") or {}).items() if amount}
    gpu = gpus or 0
    strategy: Any = options.get("scheduling_strategy")
    if strategy is None and (group := options.get("placement_group")) not in (None, "default"):
        from pydmrpc.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        strategy = PlacementGroupSchedulingStrategy(group, options.get("placement_group_bundle_index", -1))
    environment = _environment.check(options.get("runtime_env"))
    if accelerator := options.get("accelerator_type"):
        other[f"accelerator_type:{accelerator}"] = 0.001
    if strategy is None and (captured := _environment.current.get("placement_group")):
        from pydmrpc.util.placement_group import captured_by

        strategy = captured_by(captured)
    if hasattr(strategy, "placement_group"):
        # Of the caller's, but for what is passed on by that.
        environment["placement_group"] = None
    if getattr(strategy, "placement_group", None) is not None:
        from pydmrpc.util.placement_group import within

        if strategy.placement_group_capture_child_tasks:
            group = strategy.placement_group
            environment["placement_group"] = [group.id, group.bundle_specs]
        asked = {"CPU": cpu, "GPU": gpu, **other}
        other, cpu, gpu = within(strategy, {name: amount for name, amount in asked.items() if amount}), 0, 0
    return {
        "cpu": round(cpu * 1000),
        "gpu": round(gpu * 1000),
        "other": {name: round(amount * 1000) for name, amount in other.items()},
        "environment": _environment.number(environment),
    }


def tries(count: int | None, default: int) -> int:
    """A number of retries as the core counts it: -1 is without end."""
    number = default if count is None else count
    return ENDLESS if number < 0 else number
