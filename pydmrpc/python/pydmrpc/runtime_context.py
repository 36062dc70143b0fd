"""What a task, an actor or a driver can know of itself."""

from __future__ import annotations

import os
from typing import Any

from pydmrpc import _actor_class, _concurrency, _core, _environment, _runtime, _system, _worker


def get_runtime_context() -> RuntimeContext:
    """What can be known of where this is called: ids, names, resources, the actor itself.

    Example::

        pydmrpc.get_runtime_context().get_task_id()
    """
    _runtime.start()
    return RuntimeContext()


class RuntimeContext:
    """See :func:`get_runtime_context`."""

    @property
    def namespace(self) -> str:
        """The namespace of actors' names that say none."""
        return _runtime.namespace()

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether this actor was made again after its process had died."""
        row = _row(_core._own_actor())
        return row is not None and row["num_restarts"] > 0

    @property
    def was_current_actor_restarted(self) -> bool:
        """Whether this actor was made again after its process had died."""
        return self.was_current_actor_reconstructed

    @property
    def current_actor(self) -> Any:
        """A handle of this actor.

        Raises:
            RuntimeError: if this is no actor.
        """
        actor = _core._own_actor()
        if actor is None:
            raise RuntimeError("this is no actor: only an actor has a handle of itself")
        return _actor_class.ActorHandle(_core._actor(*actor), *_worker.actor_about["about"])

    @property
    def runtime_env(self) -> dict[str, Any]:
        """The environment of this process, as far as it was asked for."""
        return dict(_environment.current)

    def get_runtime_env_string(self) -> str:
        """The environment as JSON."""
        import json

        return json.dumps(_environment.current)

    @property
    def gcs_address(self) -> str:
        """Where other drivers of this host join; empty if they can't."""
        return _core._hub_address() or ""

    def get_task_id(self) -> str | None:
        """The id of the task that this is called in, in hex; None at a driver."""
        task = _task()
        return None if task is None else _hex(task)

    def get_task_name(self) -> str | None:
        """The name of the task that this is called in; None at a driver."""
        row = _system.task(_task())
        return str(row["name"]) if row else None

    def get_task_function_name(self) -> str | None:
        """The name of the function that this is called in; None at a driver."""
        return self.get_task_name()

    def get_actor_id(self) -> str | None:
        """The id of this actor, in hex; None if this is none."""
        actor = _core._own_actor()
        return None if actor is None else _hex(actor)

    def get_actor_name(self) -> str | None:
        """The name that this actor is found by; None if it has none, or this is no actor."""
        name: str | None = _worker.actor_about.get("name")
        return name

    def get_assigned_resources(self) -> dict[str, float]:
        """What the task or actor that this is called in occupies; nothing at a driver."""
        row = _system.task(_task())
        return _system.amounts(row["resources"]) if row else {}

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """Accelerators that are assigned, by kind: they are counted and not told apart."""
        return {"GPU": []}

    def get_job_id(self) -> str:
        """The id of this driver, or of the one that this runs for."""
        task = _task()
        return f"{_job(task):08x}"

    def get_node_id(self) -> str:
        """The id of this host."""
        return _system.node_id()

    @property
    def job_id(self) -> str:
        """See :meth:`get_job_id`."""
        return self.get_job_id()

    @property
    def node_id(self) -> str:
        """See :meth:`get_node_id`."""
        return self.get_node_id()

    @property
    def task_id(self) -> str | None:
        """See :meth:`get_task_id`."""
        return self.get_task_id()

    @property
    def actor_id(self) -> str | None:
        """See :meth:`get_actor_id`."""
        return self.get_actor_id()

    def get_placement_group_id(self) -> str | None:
        """The id of the placement group that this runs in, in hex; None if it runs in none."""
        from pydmrpc.util.placement_group import get_current_placement_group

        group = get_current_placement_group()
        return None if group is None else group.id

    @property
    def current_placement_group_id(self) -> str | None:
        """See :meth:`get_placement_group_id`."""
        return self.get_placement_group_id()

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether what this calls is in its placement group, too."""
        return "placement_group" in _environment.current

    def get_session_name(self) -> str:
        """The name of the session that drivers and workers of one system have in common."""
        return "session_" + os.path.basename(_runtime.hub_address()).removeprefix("dmrpc-").removesuffix(".sock")

    def get_temp_dir(self) -> str:
        """Where the system has its sockets."""
        return os.path.dirname(_runtime.hub_address().partition("://")[2])

    def get_node_labels(self) -> dict[str, str]:
        """The labels of this host: it has none."""
        return {}

    def get_resource_ids(self) -> dict[str, list[str]]:
        """See :meth:`get_accelerator_ids`."""
        return self.get_accelerator_ids()

    def is_canceled(self) -> bool:
        """Whether somebody has cancelled the task or call that this is called in: it may clean up and return.

        Raises:
            RuntimeError: at a driver, and in an actor with an event loop, whose calls get a ``CancelledError``.
        """
        task = _task()
        if task is None:
            raise RuntimeError("this is no task: only a task, or a call of an actor, can be cancelled")
        return _worker.is_canceled(task)

    def get_worker_id(self) -> str:
        """The id of this process."""
        current = _core.current()
        return f"{current[0] if current else 0:08x}"

    def get(self) -> dict[str, Any]:
        """All ids, by name."""
        return {
            "job_id": self.get_job_id(),
            "node_id": self.get_node_id(),
            "task_id": self.get_task_id(),
            "actor_id": self.get_actor_id(),
        }


def _task() -> tuple[int, int] | None:
    if (task := _concurrency.running_task.get()) is not None:
        return task
    current = _core.current()
    return current[1] if current else None


def _job(task: tuple[int, int] | None) -> int:
    """The driver that made a task, or made what made it."""
    client = task[0] if task else (_core.current() or (0,))[0]
    return _system.driver_of(client)


def _hex(id: tuple[int, int]) -> str:
    return f"{id[0]:08x}{id[1]:08x}"


def _row(actor: tuple[int, int] | None) -> dict[str, Any] | None:
    if actor is None:
        return None
    return next((row for row in _system.rows("actors") if row["actor_id"] == _hex(actor)), None)
