"""What a worker does with what it is given.

The main thread is in ``_core._work``, which calls :meth:`Hooks.resolve` once for each function, class or method, and then what that
gave for each task. A definition is what the driver's side made (`_definition.py`): a tuple whose first item says which. What runs
elsewhere than on the main thread (threads, an event loop), and what yields, is *deferred*: then the callable is given a ``_core.Call``,
the arguments and the keyword arguments, and answers by that call whenever it likes.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import pickle
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from pydmrpc import _concurrency, _core, _environment, _generator, _runtime, _tallies, _task_error, exceptions

#: The actor that lives here, and what is known of it.
actor: Any = None
actor_about: dict[str, Any] = {}
#: Where its calls run, if that is not the main thread.
_elsewhere: _concurrency.Threads | _concurrency.EventLoop | None = None
#: Calls of the actor that were cancelled while they ran and can't be interrupted: they may ask.
_canceled: set[tuple[int, int]] = set()
#: How often the functions were called that end their worker after a number of calls.
_calls: dict[str, int] = {}

#: Of more cancelled calls than these some do not hear of it.
_MAX_CANCELED = 100_000

_Resolved = tuple[Callable[..., Any], bool]


class Hooks:
    """What the Rust side asks of Python."""

    def resolve(self, definition: tuple[Any, ...], create: bool, is_actor: bool) -> _Resolved:
        """What is to be called for a definition, and whether it answers later."""
        return _RESOLVERS[definition[0]](*definition[1:])

    def has_loop(self) -> bool:
        """Whether the actor was made on an event loop."""
        return isinstance(_elsewhere, _concurrency.EventLoop)

    def serve(self, calls: _core.Calls) -> None:
        """Runs the event loop of the actor until it is to end."""
        assert isinstance(_elsewhere, _concurrency.EventLoop)
        _elsewhere.serve(calls)

    def failure(self, error: BaseException) -> Any:
        """What the caller is to be told of an exception: something that can be pickled."""
        if isinstance(error, SystemExit):
            leave(error)
        if isinstance(error, KeyboardInterrupt):
            error = exceptions.TaskCancelledError("the task was cancelled").with_traceback(error.__traceback__)
        return _task_error.pack(error)


def leave(error: SystemExit) -> None:
    """Ends this process, as something that runs here wants: with an actor for good, unless it says that it failed."""
    if actor is not None and not error.code:
        _core._exits()
    _tallies.tell()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(error.code if isinstance(error.code, int) else 0 if error.code is None else 1)


def _fails(call: _core.Call, error: BaseException) -> None:
    """Answers a deferred call with an exception."""
    if isinstance(error, SystemExit):
        leave(error)
    call.fail(error)


def _function(name: str, pickled: bytes, options: dict[str, Any]) -> _Resolved:
    function = pickle.loads(pickled)
    if retried := options.get("retried"):
        function = _retrying(function, *retried)
    if limit := options.get("max_calls"):
        function = _ending(function, name, limit)
    if inspect.isgeneratorfunction(function):
        return functools.partial(_yielding, function, options.get("ahead")), True
    return function, False


def _retrying(function: Callable[..., Any], kinds: tuple[type[BaseException], ...], retries: int) -> Callable[..., Any]:
    """A function that is tried again when it raises what is named; -1 is without end."""

    @functools.wraps(function)
    def tried(*args: Any, **kwargs: Any) -> Any:
        left = retries
        while left:
            try:
                return function(*args, **kwargs)
            except kinds:
                left -= 1
        return function(*args, **kwargs)

    return tried


def _ending(function: Callable[..., Any], name: str, limit: int) -> Callable[..., Any]:
    """A function after so many calls of which the worker ends."""

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        _calls[name] = _calls.get(name, 0) + 1
        if _calls[name] == limit:
            _core._exits()
        return function(*args, **kwargs)

    return counted


def _yielding(
    function: Callable[..., Any], ahead: int | None, call: _core.Call, args: tuple[Any, ...], kwargs: dict[str, Any] | None
) -> None:
    before = call.enter()
    try:
        _generator.answer(call, function(*args, **(kwargs or {})), ahead, _fails)
    except BaseException as error:
        # Of the arguments.
        _fails(call, error)
    finally:
        _core.Call.leave(before)


def _class(name: str, pickled: bytes, options: dict[str, Any]) -> _Resolved:
    cls = pickle.loads(pickled)

    def make(*args: Any, **kwargs: Any) -> None:
        actor_about.update(options, class_name=name)
        _make(cls, args, kwargs)
        if any("__repr__" in vars(kind) for kind in cls.__mro__[:-1]):
            # What it prints begins with that.
            _core._ask(json.dumps({"title": repr(actor)}))

    return make, False


def _make(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    global actor, _elsewhere
    groups: dict[str | None, int] = dict(actor_about.get("groups") or {})
    limit = actor_about.get("max_concurrency")
    if _concurrency.is_async(cls):
        loop = _elsewhere = _concurrency.EventLoop({None: limit or _concurrency.DEFAULT_ASYNC_CONCURRENCY, **groups}, _fails)
        actor = loop.make(cls, args, kwargs)
        return
    if groups or (limit or 1) > 1:
        _elsewhere = _concurrency.Threads({None: limit or 1, **groups}, _fails)
    actor = cls(*args, **kwargs)


def _method(name: str, group: str | None, ahead: int | None) -> _Resolved:
    if name == "__ray_terminate__":
        return _terminate, False
    if name == "__ray_ready__":
        return lambda: True, False
    method = _call if name == "__ray_call__" else getattr(actor, name)
    if _elsewhere is None:
        if inspect.isgeneratorfunction(method):
            return functools.partial(_yielding, method, ahead), True
        return method, False
    if group is None:
        group = getattr(method, "__pydmrpc_options__", {}).get("concurrency_group")
    if group is not None and group not in (actor_about.get("groups") or {}):
        raise ValueError(f"{actor_about['class_name']} has no concurrency group {group!r}")
    return _elsewhere.submits(group, ahead, method), True


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(actor, *args, **kwargs)


def _terminate() -> None:
    raise SystemExit(0)


#: By the first item of a definition.
_RESOLVERS: dict[str, Callable[..., _Resolved]] = {"function": _function, "class": _class, "method": _method}


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Somebody cancelled what runs, or the interrupt came too late."""
    if actor is None:
        if _core._interrupted():
            raise KeyboardInterrupt
        return
    for task in _core._take_interrupted():
        if _elsewhere is None or not _elsewhere.cancel(task):
            if len(_canceled) == _MAX_CANCELED:
                _canceled.pop()
            _canceled.add(task)


def is_canceled(task: tuple[int, int]) -> bool:
    """Whether a task that runs here was cancelled.

    Raises:
        RuntimeError: in an actor with an event loop.
    """
    if isinstance(_elsewhere, _concurrency.EventLoop):
        raise RuntimeError("calls of an actor with an event loop get a CancelledError where they wait")
    return task in _canceled


def main(settings: dict[str, Any], worker: int, secret: int, environment_id: int, definition: bytes) -> None:
    """The whole life of a worker, from the fork on."""
    sys.argv[:] = settings["argv"]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, _interrupt)
    _environment.enter(environment_id, definition)
    try:
        _runtime.joined.update(pickle.loads(_core._join(settings["hub"], (worker, secret))))
        _core._work(Hooks())
    except SystemExit:
        pass
    finally:
        _tallies.tell()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
