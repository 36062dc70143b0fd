"""Exceptions of tasks, on their way from the worker to whoever asks for the result."""

from __future__ import annotations

import functools
import os
import pickle
import traceback
from typing import Any

from pydmrpc import _pickling, exceptions


def pack(error: BaseException) -> Any:
    """What travels of an exception: text and, if it can be pickled, the exception itself."""
    if isinstance(error, exceptions.RayTaskError):
        # Of a task that this one waited for: as it came.
        cause, text = error.cause, error.traceback_str
        text = f"{text.rstrip()}\n\nDuring handling by the task that waited for it:\n\n" + _text(error)
    else:
        cause, text = error, _text(error)
    try:
        pickled = _pickling.dumps(cause, protocol=5)
        # What can't be read is of no use at the other end.
        pickle.loads(pickled)
    except Exception:
        pickled = b""
    return ("error", pickled, type(cause).__qualname__, str(cause), text, os.getpid())


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def exception(kind: str, value: Any, why: str) -> BaseException:
    """The exception for why a result has no value; called by the core."""
    if kind == "raised":
        return _raised(value)
    if kind == "cancelled":
        return exceptions.TaskCancelledError("This task or its dependency was cancelled")
    if kind == "worker_died":
        return exceptions.WorkerCrashedError(
            f"The worker died while it ran the task: {why}. Look at what it printed; allow max_retries if it is safe to run twice"
        )
    if kind == "actor_died":
        return exceptions.ActorDiedError(f"The actor died: {why}")
    if kind == "actor_not_made":
        made = _raised(value)
        return exceptions.ActorDiedError(f"The actor died because its __init__ raised:\n{made}")
    if kind == "actor_unavailable":
        return exceptions.ActorUnavailableError(f"The actor is restarting: {why}. Try again")
    if kind == "no_more_values":
        return StopIteration()
    if kind == "infeasible":
        return exceptions.TaskUnschedulableError(why)
    return exceptions.ObjectLostError(f"The object is lost: {why}")


def _raised(value: tuple[Any, ...]) -> BaseException:
    _, pickled, name, message, text, pid = value
    cause: BaseException | None = None
    if pickled:
        try:
            cause = pickle.loads(pickled)
        except Exception:
            cause = None
    if cause is None:
        return exceptions.RayTaskError(text, None, pid, f"{name}: {message}")
    return as_instance(text, cause, pid)


def as_instance(text: str, cause: BaseException, pid: int) -> exceptions.RayTaskError:
    """A RayTaskError that is an instance of the cause, too, if its class can be inherited from."""
    try:
        kind: Any = type(cause)
        return _class_for(kind)(text, cause, pid)
    except TypeError:
        # A class that can't be inherited from.
        return exceptions.RayTaskError(text, cause, pid)


@functools.lru_cache(maxsize=1000)
def _class_for(kind: type[BaseException]) -> type[exceptions.RayTaskError]:
    """A RayTaskError that is also an instance of what was raised."""
    if issubclass(exceptions.RayTaskError, kind):
        return exceptions.RayTaskError

    def __new__(cls: Any, text: str, cause: Any, pid: int) -> Any:
        return BaseExceptionGroup.__new__(cls, cause.message, cause.exceptions)

    def __init__(self: Any, text: str, cause: BaseException, pid: int) -> None:
        exceptions.RayTaskError.__init__(self, text, cause, pid)
        self.args = (cause,) if not isinstance(cause, exceptions.RayTaskError) else cause.args

    def __getattr__(self: Any, name: str) -> Any:
        return getattr(self.__dict__["cause"], name)

    def __reduce__(self: Any) -> tuple[Any, ...]:
        return as_instance, (self.traceback_str, self.cause, self.pid)

    name = f"RayTaskError({kind.__name__})"
    body = {"__init__": __init__, "__getattr__": __getattr__, "__reduce__": __reduce__, "__module__": "pydmrpc.exceptions"}
    if issubclass(kind, BaseExceptionGroup):
        body["__new__"] = __new__
    return type(name, (exceptions.RayTaskError, kind), body)
