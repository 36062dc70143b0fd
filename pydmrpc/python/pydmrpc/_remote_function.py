"""Functions that run elsewhere."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from pydmrpc import _core, _definition, _generator, _options, _signature


class RemoteFunction:
    """What ``@pydmrpc.remote`` makes of a function: call it by ``f.remote(...)``."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        _options.check(options, _options.TASK_OPTIONS, "remote functions")
        if inspect.iscoroutinefunction(function):
            raise ValueError(
                "'async def' should not be used for remote tasks: wrap it in a function that runs it, or in an actor"
            )
        self._function = function
        self._options = options
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = getattr(self._function, "__name__", "it")
        raise TypeError(f"Remote functions cannot be called directly. Instead of running '{name}()', try '{name}.remote()'.")

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Has it run elsewhere; gives a reference to what it returns, a list of them, None, or a generator of them."""
        # Made at the first call, so that what the function refers to is what it is then. The next time it is found without us.
        remote = self._remote()
        self.__dict__["remote"] = remote
        return remote(*args, **kwargs)

    def _remote(self) -> Callable[..., Any]:
        options = self._options
        name = options.get("name") or getattr(self._function, "__qualname__", repr(self._function)).rpartition(".<locals>.")[2]
        more: dict[str, Any] = {}
        if limit := options.get("max_calls"):
            more["max_calls"] = limit
        if ahead := options.get("_generator_backpressure_num_objects"):
            more["ahead"] = ahead
        if isinstance(kinds := options.get("retry_exceptions"), list | tuple):
            retries = options.get("max_retries")
            more["retried"] = (tuple(kinds), 3 if retries is None else retries)
        definition = ("function", name, self._pickled(), more)
        returns = _generator.returns(options.get("num_returns"), inspect.isgeneratorfunction(self._function))
        core = _core.Task(
            _definition.name_of(definition),
            definition,
            returns=returns,
            retries=_options.tries(options.get("max_retries"), 3),
            retry_raised=options.get("retry_exceptions") is True,
            takes=_signature.of(self._function),
            **_options.placement(options, 1),
        )
        return _generator.wrapped(core.remote, returns)

    def _pickled(self) -> bytes:
        known = self.__dict__.get("_known")
        if known is None:
            known = self.__dict__["_known"] = _definition.pickled(self._function)
        return bytes(known)

    def options(self, **options: Any) -> RemoteFunction:
        """The same function with other options."""
        other = RemoteFunction(self._function, {**self._options, **options})
        other.__dict__["_known"] = self._pickled()
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFunction, (self._function, self._options)
