"""What Ray programs import from ``ray.actor``."""

from __future__ import annotations

from typing import NoReturn

from pydmrpc import _core
from pydmrpc._actor_class import ActorClass, ActorHandle, ActorMethod

__all__ = ["ActorClass", "ActorHandle", "ActorMethod", "exit_actor"]


class _ActorExit(SystemExit):
    """An actor wants to end."""


def exit_actor() -> NoReturn:
    """Ends this actor: the call that says so fails with ActorDiedError, as do all later ones, and it is not made again.

    Raises:
        TypeError: if this is no actor.

    Example::

        @pydmrpc.remote
        class Worker:
            def stop(self):
                pydmrpc.actor.exit_actor()
    """
    if _core._own_actor() is None:
        raise TypeError("exit_actor called on a non-actor: only an actor can exit so")
    raise _ActorExit(0)
