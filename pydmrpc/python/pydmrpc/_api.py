"""`remote`, `wait`, `kill`, `cancel` and what goes with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from pydmrpc import _core, _options, _runtime, _system
from pydmrpc._actor_class import ActorClass, ActorHandle
from pydmrpc._generator import ObjectRefGenerator
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
    if not inspect.isfunction(what):
        raise TypeError("The @pydmrpc.remote decorator must be applied to either a function or a class")
    return RemoteFunction(what, options)


def method(*args: Any, **options: Any) -> Any:
    """Options of an actor's method, as a decorator: ``num_returns``, ``concurrency_group``, …; bare, it says nothing."""

    if len(args) == 1 and not options and callable(args[0]):
        return args[0]
    if args or not options:
        raise ValueError("The @pydmrpc.method decorator must be applied using at least one of the arguments")
    _options.check(options, _options.METHOD_OPTIONS, "actor methods")

    def mark(function: Any) -> Any:
        function.__pydmrpc_options__ = options
        return function

    return mark


def wait(
    refs: Sequence[Any],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[Any], list[Any]]:
    """Waits until `num_returns` of the references have values; gives those, and the others.

    Fewer are given when `timeout` seconds have passed. A task that failed is done, too. A generator of references is ready when
    its next reference is, or its task has ended.

    Args:
        refs: references, each once.
        num_returns: how many to wait for.
        timeout: seconds to wait at most.
        fetch_local: not used: what is ready is on this host.

    Raises:
        ValueError: if there are not so many references, or one twice.
        TypeError: if it is not a list of references.

    Example::

        ready, pending = pydmrpc.wait(pending, timeout=1)
    """
    if not isinstance(refs, Sequence):
        raise TypeError(f"wait() expected a list of ObjectRef, got {type(refs).__name__}")
    listed = list(refs)
    if not listed:
        return [], []
    if timeout is not None and timeout < 0:
        raise ValueError(f"The 'timeout' argument must be nonnegative. Received {timeout}")
    if num_returns <= 0:
        raise ValueError("Invalid number of objects to return: num_returns must be positive")
    if set(map(type, listed)) == {_core.ObjectRef}:
        return _core.wait(listed, num_returns=num_returns, timeout=timeout)
    by_ref = {_presence(ref): ref for ref in listed}
    if len(by_ref) != len(listed):
        raise ValueError("Wait requires a list of unique object refs.")
    ready, rest = _core.wait(list(by_ref), num_returns=num_returns, timeout=timeout)
    return [by_ref[ref] for ref in ready], [by_ref[ref] for ref in rest]


def _presence(ref: Any) -> _core.ObjectRef:
    """The reference that is ready when `ref` is."""
    if isinstance(ref, ObjectRefGenerator):
        return ref._peek()
    if not isinstance(ref, _core.ObjectRef):
        raise TypeError(f"wait() expected a list of ObjectRef, got a list with {type(ref).__name__}")
    return ref


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """Ends an actor at once; what it runs fails with ActorDiedError.

    Args:
        actor: its handle.
        no_restart: whether it is over for good, or may be made again as `max_restarts` says.

    Raises:
        ValueError: if it is no actor.
    """
    if not isinstance(actor, ActorHandle):
        raise ValueError(f"kill() only supported for actors. For tasks, try cancel(). Got: {type(actor)}.")
    _core.kill(actor._ref, not no_restart)


def cancel(ref: _core.ObjectRef | ObjectRefGenerator, *, force: bool = False, recursive: bool = True) -> None:
    """Cancels a task: it does not begin, or is interrupted. ``get`` then raises TaskCancelledError.

    A task that runs gets a KeyboardInterrupt, a call of an async actor a ``CancelledError``. Calls that run in threads of an
    actor can't be interrupted.

    Args:
        ref: of what it returns.
        force: kill the worker of a task that runs.
        recursive: whether tasks that it made are cancelled, too.

    Raises:
        TypeError: if it is no reference of a task.
        ValueError: if a call of an actor is to be cancelled by force: kill the actor instead.
    """
    if isinstance(ref, ObjectRefGenerator):
        ref = ref.completed()
    if not isinstance(ref, _core.ObjectRef):
        raise TypeError(f"cancel() only supported for object refs. For actors, try kill(). Got: {type(ref)}.")
    if force and not ref.is_ready():
        row = _system.task((int(ref.hex()[:8], 16), int(ref.hex()[8:16], 16)))
        if row is not None and row["actor_id"] is not None:
            raise ValueError("force=True is not supported for actor tasks: kill the actor instead")
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
