"""What a worker does with what it is given.

The main thread is in ``_core._work``, which calls :meth:`Hooks.resolve` once for each function, class or method, and then what that
gave for each task. A definition is what the driver's side made (`_remote_function.py`, `_actor_class.py`): a tuple whose first item
says which. What runs elsewhere than on the main thread (threads, an event loop) is *deferred*: then the callable is given a
``_core.Call``, the arguments and the keyword arguments, and answers by that call whenever it likes.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from pydmrpc import _core, _runtime, _task_error

#: What this worker is, for those who ask (`runtime_context`).
environment: int = 0
#: The actor that lives here, and its class's name.
actor: Any = None
actor_name: str | None = None


class Hooks:
    """What the Rust side asks of Python."""

    def resolve(self, definition: tuple[Any, ...], create: bool, is_actor: bool) -> tuple[Callable[..., Any], bool]:
        """What is to be called for a definition, and whether it answers later."""
        return _RESOLVERS[definition[0]](*definition[1:])

    def failure(self, error: BaseException) -> Any:
        """What the caller is to be told of an exception: something that can be pickled."""
        return _task_error.pack(error)


def _function(name: str, pickled: bytes) -> tuple[Callable[..., Any], bool]:
    return pickle.loads(pickled), False


def _class(name: str, pickled: bytes) -> tuple[Callable[..., Any], bool]:
    cls = pickle.loads(pickled)

    def make(*args: Any, **kwargs: Any) -> None:
        global actor, actor_name
        actor_name = name
        actor = cls(*args, **kwargs)

    return make, False


def _method(name: str) -> tuple[Callable[..., Any], bool]:
    return getattr(actor, name), False


#: By the first item of a definition.
_RESOLVERS: dict[str, Callable[..., tuple[Callable[..., Any], bool]]] = {
    "function": _function,
    "class": _class,
    "method": _method,
}


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Somebody cancelled what runs, or the interrupt came too late."""
    if _core._interrupted():
        raise KeyboardInterrupt


def main(settings: dict[str, Any], worker: int, secret: int, environment_id: int, definition: bytes) -> None:
    """The whole life of a worker, from the fork on."""
    global environment
    environment = environment_id
    sys.argv[:] = settings["argv"]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, _interrupt)
    try:
        _runtime.joined.update(pickle.loads(_core._join(settings["hub"], (worker, secret))))
        _core._work(Hooks())
    except SystemExit:
        pass
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
