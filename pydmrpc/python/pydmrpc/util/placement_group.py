"""Placement groups: resources that are reserved together, and the tasks and actors that use them.

There is one host, so every strategy places all bundles on it but ``STRICT_SPREAD`` of several, which is never ready. A group is
an actor that occupies what its bundles add up to. While it lives the host has resources of names that belong to the group
(``CPU_group_<id>``, and ``CPU_group_<index>_<id>`` for each bundle), and what runs in the group asks for those.
"""

from __future__ import annotations

import math
import secrets
from typing import Any

import pydmrpc
from pydmrpc import _core, _system
from pydmrpc.util.scheduling_strategies import PlacementGroupSchedulingStrategy

_STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")

#: Of what each bundle has 1,000, and everything in the group takes a thousandth, so that what needs nothing else belongs to it.
_MEMBER = "bundle"
_MEMBERS_PER_BUNDLE = 1000
_MEMBERSHIP = 0.001

#: Seconds that a look takes whether a group is ready.
_LOOK_S = 0.05

#: Where the actor is found that keeps the groups.
_NAME, _NAMESPACE = "placement groups", "_dmrpc"


class PlacementGroup:
    """A group, as :func:`placement_group` makes it. It can be passed to tasks and actors."""

    def __init__(self, id: str, bundles: list[dict[str, float]]) -> None:
        self._id = id
        self._bundles = bundles

    @property
    def id(self) -> str:
        """Its name among all groups, in hex."""
        return self._id

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """What was asked for."""
        return self._bundles

    @property
    def bundle_count(self) -> int:
        """How many bundles it has."""
        return len(self._bundles)

    @property
    def is_empty(self) -> bool:
        """Whether it is no group."""
        return not self._bundles

    def ready(self) -> Any:
        """A reference that is ready when the resources are reserved; its value is the group."""
        reservation = pydmrpc.get(_groups().reservation.remote(self._id))
        if reservation is None:
            raise ValueError(f"the placement group {self._id} was removed")
        return reservation.ready.remote(self)

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Whether the resources are reserved within so many seconds."""
        return bool(pydmrpc.wait([self.ready()], timeout=timeout_seconds)[0])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and self._id == other._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"PlacementGroup({self._id})"


def placement_group(
    bundles: list[dict[str, float]],
    strategy: str = "PACK",
    name: str = "",
    lifetime: str | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
) -> PlacementGroup:
    """Reserves resources, as soon as they are there.

    Args:
        bundles: what is reserved, each a dict of resources such as ``{"CPU": 2, "widget": 1}``.
        strategy: ``"PACK"``, ``"SPREAD"``, ``"STRICT_PACK"`` or ``"STRICT_SPREAD"``.
        name: to find it by with :func:`get_placement_group`.
        lifetime: ``"detached"`` for a group that outlives its driver, if the system does.

    Raises:
        ValueError: if there are no bundles, or they are none, or the strategy or name is wrong.

    Example::

        group = placement_group([{"CPU": 1}, {"CPU": 1}])
        pydmrpc.get(group.ready())
        f.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group)).remote()
    """
    if not isinstance(bundles, list):
        raise ValueError("bundles must be a list of dicts")
    if not bundles:
        raise ValueError("a placement group needs bundles")
    for bundle in bundles:
        if not isinstance(bundle, dict) or not all(isinstance(amount, (int, float)) for amount in bundle.values()):
            raise ValueError("a bundle must be a dict of resources and amounts")
        if any(amount < 0 for amount in bundle.values()):
            raise ValueError("an amount of a bundle must not be negative")
        if not bundle or all(amount == 0 for amount in bundle.values()):
            raise ValueError("a bundle must have resources")
    if strategy not in _STRATEGIES:
        raise ValueError(f"{strategy!r} is no strategy: {', '.join(_STRATEGIES)} are")
    if lifetime not in (None, "detached"):
        raise ValueError("lifetime must be None or 'detached'")
    amounts = [{resource: float(amount) for resource, amount in bundle.items()} for bundle in bundles]
    group = PlacementGroup(secrets.token_hex(18), amounts)
    if not pydmrpc.get(_groups().add.remote(group, strategy, name)):
        raise ValueError(f"there is a placement group of the name {name!r} already")
    return group


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Gives what a group has reserved back; tasks and actors in it end."""
    pydmrpc.get(_groups().remove.remote(placement_group.id))


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """The group of a name.

    Raises:
        ValueError: if there is none.
    """
    if not placement_group_name:
        raise ValueError("a placement group is found by its name")
    group: PlacementGroup | None = pydmrpc.get(_groups().find.remote(placement_group_name))
    if group is None:
        raise ValueError(f"there is no placement group of the name {placement_group_name!r}")
    return group


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """What is known of a group, or of all groups by their ids: name, bundles, strategy, state."""
    table: dict[str, Any] = pydmrpc.get(_groups().table.remote(placement_group.id if placement_group else None))
    return table


def get_current_placement_group() -> PlacementGroup | None:
    """The group that this task or actor runs in; None if it runs in none."""
    for name in pydmrpc.get_runtime_context().get_assigned_resources():
        resource, marker, rest = name.partition("_group_")
        if resource == _MEMBER and marker and "_" not in rest:
            group: PlacementGroup | None = pydmrpc.get(_groups().by_id.remote(rest))
            return group
    return None


def within(strategy: PlacementGroupSchedulingStrategy, resources: dict[str, float]) -> dict[str, float]:
    """What something asks for that would ask for `resources`, within a group.

    Raises:
        ValueError: if the group never has as much, or no such bundle.
    """
    group, index = strategy.placement_group, strategy.placement_group_bundle_index
    if not -1 <= index < group.bundle_count:
        raise ValueError(f"the placement group has {group.bundle_count} bundles, and no bundle {index}")
    candidates = group.bundle_specs if index < 0 else [group.bundle_specs[index]]
    if not any(all(bundle.get(name, 0) >= amount for name, amount in resources.items()) for bundle in candidates):
        raise ValueError(f"no bundle of the placement group has {resources}: its bundles are {group.bundle_specs}")
    asked = {}
    for name, amount in {**resources, _MEMBER: _MEMBERSHIP}.items():
        asked[f"{name}_group_{group.id}"] = amount
        if index >= 0:
            asked[f"{name}_group_{index}_{group.id}"] = amount
    return asked


def captured_by(group: list[Any]) -> PlacementGroupSchedulingStrategy:
    """What puts something into the group of its caller; `group` is how that is passed on in environments."""
    return PlacementGroupSchedulingStrategy(PlacementGroup(*group), placement_group_capture_child_tasks=True)


def _change(amounts: dict[str, float]) -> None:
    """Gives the host more of named resources, or less."""
    _system.ask({"change": {name: round(1000 * amount) for name, amount in amounts.items()}})


def _groups() -> Any:
    """The actor that keeps the groups."""
    options = {"name": _NAME, "namespace": _NAMESPACE, "lifetime": "detached", "get_if_exists": True, "num_cpus": 0}
    return pydmrpc.remote(_Groups).options(**options).remote()


class _Reservation:
    """Occupies what a group reserves. That it runs is what makes the group ready."""

    def __init__(self, added: dict[str, float]) -> None:
        if not pydmrpc.get_runtime_context().was_current_actor_reconstructed:
            _change(added)

    def ready(self, group: PlacementGroup) -> PlacementGroup:
        return group


class _Groups:
    """Which groups there are."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}

    def add(self, group: PlacementGroup, strategy: str, name: str) -> bool:
        if name and self._named(name) is not None:
            return False
        total: dict[str, float] = {}
        added: dict[str, float] = {}
        for index, bundle in enumerate(group.bundle_specs):
            for resource, amount in bundle.items():
                total[resource] = total.get(resource, 0) + amount
            for resource, amount in {**bundle, _MEMBER: _MEMBERS_PER_BUNDLE}.items():
                whole = f"{resource}_group_{group.id}"
                added[whole] = added.get(whole, 0) + amount
                added[f"{resource}_group_{index}_{group.id}"] = amount
        if strategy == "STRICT_SPREAD" and group.bundle_count > 1:
            total["hosts besides this one"] = group.bundle_count - 1
        options = {
            "num_cpus": total.pop("CPU", 0),
            "num_gpus": total.pop("GPU", 0),
            "resources": {resource: amount for resource, amount in total.items() if not math.isclose(amount, 0)},
            "max_restarts": -1,
            "max_task_retries": -1,
        }
        reservation = pydmrpc.remote(**options)(_Reservation).remote(added)
        ready = reservation.ready.remote(group)
        self._rows[group.id] = {
            "group": group,
            "strategy": strategy,
            "name": name,
            "reservation": reservation,
            "ready": ready,
            "added": added,
        }
        return True

    def reservation(self, id: str) -> Any:
        row = self._rows.get(id)
        return row["reservation"] if row else None

    def remove(self, id: str) -> None:
        row = self._rows.get(id)
        if row is None or row["reservation"] is None:
            return
        if pydmrpc.wait([row["ready"]], timeout=_LOOK_S)[0]:
            _change({name: -amount for name, amount in row["added"].items()})
            self._end_members(id)
        pydmrpc.kill(row["reservation"])
        row["reservation"] = row["ready"] = None

    def _end_members(self, id: str) -> None:
        """Ends the actors that occupy what belongs to a group."""
        for row in _system.rows("actors"):
            if row["state"] != "DEAD" and any(id in name for name in row["required_resources"]["other"]):
                number = row["actor_id"]
                _core.kill(_core._actor(int(number[:8], 16), int(number[8:], 16)), False)

    def by_id(self, id: str) -> PlacementGroup | None:
        row = self._rows.get(id)
        return row["group"] if row else None

    def find(self, name: str) -> PlacementGroup | None:
        row = self._named(name)
        return row["group"] if row else None

    def _named(self, name: str) -> dict[str, Any] | None:
        return next((row for row in self._rows.values() if row["name"] == name and row["reservation"] is not None), None)

    def table(self, id: str | None) -> dict[str, Any]:
        rows = {key: self._row(row) for key, row in self._rows.items() if id in (None, key)}
        return rows if id is None else rows.get(id, {})

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        group = row["group"]
        if row["reservation"] is None:
            state = "REMOVED"
        else:
            state = "CREATED" if pydmrpc.wait([row["ready"]], timeout=_LOOK_S)[0] else "PENDING"
        return {
            "placement_group_id": group.id,
            "name": row["name"],
            "bundles": dict(enumerate(group.bundle_specs)),
            "strategy": row["strategy"],
            "state": state,
        }
