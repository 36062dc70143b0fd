"""`remote`, `wait`, `kill`, `cancel` and what goes with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from pydmrpc import _core, _runtime
from pydmrpc._actor_class import ActorClass, ActorHandle
from pydmrpc._remote_function import RemoteFunction


def remote(*args: Any, **options: Any) -> Any:
    """Makes a function or a class remote; bare, or with options.

    ::

        @pydmrpc.remote
        def square(x):
            return x * x

        @pydmrpc.remote(num_cpus=2, max_restarts=1)
        class Counter:
            ...

        pydmrpc.get(square.remote(4))
        counter = Counter.remote()
    """
    if len(args) == 1 and not options and callable(args[0]):
        return _make(args[0], {})
    if args or not options:
        raise TypeError("The @pydmrpc.remote decorator must be applied with no arguments and no '()', or with keyword arguments")
    return lambda what: _make(what, options)


def _make(what: Callable[..., Any], options: dict[str, Any]) -> Any:
    if inspect.isclass(what):
        return ActorClass(what, options)
    if isinstance(what, (RemoteFunction, ActorClass)) or not callable(what):
        raise TypeError("The @pydmrpc.remote decorator must be applied to either a function or a class")
    return RemoteFunction(what, options)


def method(**options: Any) -> Callable[[Any], Any]:
    """Options of an actor's method, as a decorator: ``num_returns``, ``concurrency_group``, …"""

    def mark(function: Any) -> Any:
        function.__pydmrpc_options__ = options
        return function

    if not options:
        raise ValueError("The @pydmrpc.method decorator must be applied using at least one of the arguments")
    return mark


def wait(
    refs: Sequence[_core.ObjectRef],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[_core.ObjectRef], list[_core.ObjectRef]]:
    """Waits until `num_returns` of the references have values; gives those, and the others.

    Fewer are given when `timeout` seconds have passed. A task that failed is done, too.

    Raises:
        ValueError: if there are not so many references, or one twice.
        TypeError: if it is not a list of references.
    """
    if isinstance(refs, _core.ObjectRef):
        raise TypeError("wait() expected a list of ObjectRef, got a single ObjectRef")
    refs = list(refs)
    if not refs:
        return [], []
    if len(set(refs)) != len(refs):
        raise ValueError("Wait requires a list of unique object refs.")
    if timeout is not None and timeout < 0:
        raise ValueError(f"The 'timeout' argument must be nonnegative. Received {timeout}")
    return _core.wait(refs, num_returns=num_returns, timeout=timeout)


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """Ends an actor at once; what it runs fails with ActorDiedError."""
    if not isinstance(actor, ActorHandle):
        raise ValueError(f"kill() only supported for actors. For tasks, try cancel(). Got: {type(actor)}.")
    _core.kill(actor._ref, not no_restart)


def cancel(ref: _core.ObjectRef, *, force: bool = False, recursive: bool = True) -> None:
    """Cancels a task: it does not begin, or is interrupted; with `force` its worker is killed. ``get`` then raises TaskCancelledError."""
    if not isinstance(ref, _core.ObjectRef):
        raise TypeError(f"cancel() only supported for object refs. For actors, try kill(). Got: {type(ref)}.")
    _core.cancel(ref, force, recursive)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """The actor of this name.

    Raises:
        ValueError: if there is none.
    """
    if not name:
        raise ValueError("Please supply a non-empty value to get_actor")
    found = _core.get_named(namespace or _runtime.namespace(), name)
    if found is None:
        raise ValueError(
            f"Failed to look up actor with name '{name}'. This could because 1. You are trying to look up a named actor you "
            "didn't create. 2. The named actor died. 3. You did not use a namespace matching the namespace of the actor."
        )
    return ActorHandle(found[0], *found[1])
