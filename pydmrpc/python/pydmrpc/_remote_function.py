"""Functions that run elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from pydmrpc import _core, _definition, _options


class RemoteFunction:
    """What ``@pydmrpc.remote`` makes of a function: call it by ``f.remote(...)``."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        _options.check(options, _options.TASK_OPTIONS, "remote functions")
        self._function = function
        self._options = options
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = getattr(self._function, "__name__", "it")
        raise TypeError(
            f"Remote functions cannot be called directly. Instead of running '{name}()', try '{name}.remote()'."
        )

    def __getattr__(self, name: str) -> Any:
        # Made at the first use, so that what the function refers to is what it is then.
        if name == "remote":
            remote = self._task(self._options).remote
            self.__dict__["remote"] = remote
            return remote
        raise AttributeError(name)

    def _definition(self) -> tuple[bytes, tuple[Any, ...]]:
        known = self.__dict__.get("_known")
        if known is None:
            name = getattr(self._function, "__qualname__", repr(self._function))
            definition = ("function", name, _definition.pickled(self._function))
            known = self.__dict__["_known"] = (_definition.name_of(definition), definition)
        return known  # type: ignore[no-any-return]

    def _task(self, options: dict[str, Any]) -> _core.Task:
        name, definition = self._definition()
        returns = options.get("num_returns")
        return _core.Task(
            name,
            definition,
            returns=1 if returns is None else returns,
            retries=_options.tries(options.get("max_retries"), 3),
            retry_raised=bool(options.get("retry_exceptions")),
            **_options.thousandths(options, 1),
        )

    def options(self, **options: Any) -> RemoteFunction:
        """The same function with other options."""
        other = RemoteFunction(self._function, {**self._options, **options})
        if "_known" in self.__dict__:
            other.__dict__["_known"] = self.__dict__["_known"]
        else:
            other.__dict__["_known"] = self._definition()
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFunction, (self._function, self._options)
