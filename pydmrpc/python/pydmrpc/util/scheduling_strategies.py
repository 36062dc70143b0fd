"""Where tasks and actors are to run. All of them run on one host, so these are checked and, but for placement groups, met."""

from __future__ import annotations

from typing import Any, TypeAlias


class PlacementGroupSchedulingStrategy:
    """Within a placement group: of the resources that it has reserved.

    Args:
        placement_group: the group; None for none, also where the caller's is passed on.
        placement_group_bundle_index: which of its bundles; -1 for any.
        placement_group_capture_child_tasks: whether tasks of the task are in the group too.
    """

    def __init__(
        self,
        placement_group: Any,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None:
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks


class NodeAffinitySchedulingStrategy:
    """On a node, by its id.

    Args:
        node_id: the node, in hex.
        soft: whether it may run elsewhere if the node is not there.
    """

    def __init__(self, node_id: str, soft: bool, _spill_on_unavailable: bool = False, _fail_on_unavailable: bool = False) -> None:
        self.node_id = node_id
        self.soft = soft


class NodeLabelSchedulingStrategy:
    """On a node with labels.

    Args:
        hard: labels that it must have.
        soft: labels that it had better have.
    """

    def __init__(self, hard: dict[str, Any], *, soft: dict[str, Any] | None = None) -> None:
        self.hard = hard
        self.soft = soft or {}


SchedulingStrategyT: TypeAlias = (
    str | PlacementGroupSchedulingStrategy | NodeAffinitySchedulingStrategy | NodeLabelSchedulingStrategy | None
)
"""What ``scheduling_strategy`` takes: ``"DEFAULT"`` and ``"SPREAD"`` are the names."""
