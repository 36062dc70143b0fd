"""Classes whose instances live elsewhere, and handles of them."""

from __future__ import annotations

import inspect
from typing import Any

from pydmrpc import _core, _definition, _options, _runtime


class ActorClass:
    """What ``@pydmrpc.remote`` makes of a class: make an actor by ``C.remote(...)``."""

    def __init__(self, cls: type, options: dict[str, Any]) -> None:
        _options.check(options, _options.ACTOR_OPTIONS, "actors")
        self._class = cls
        self._options = options
        self.__doc__ = cls.__doc__
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__module__ = cls.__module__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"Actors cannot be instantiated directly. Instead of '{self.__name__}()', use '{self.__name__}.remote()'."
        )

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        raise TypeError(f"Inheriting from actor classes is not supported: inherit from {self.__name__} undecorated")

    def options(self, **options: Any) -> ActorClass:
        """The same class with other options."""
        other = ActorClass(self._class, {**self._options, **options})
        other.__dict__["_known"] = self._definition()
        return other

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Makes an actor; its `__init__` runs there."""
        options = self._options
        name = options.get("name")
        lifetime = options.get("lifetime")
        if lifetime not in (None, "detached", "non_detached"):
            raise ValueError("actor `lifetime` argument must be one of 'detached', 'non_detached' and 'None'")
        if name is not None and (not isinstance(name, str) or not name):
            raise TypeError("name must be a non-empty string, or None")
        namespace = options.get("namespace") or _runtime.namespace()
        if options.get("get_if_exists"):
            if not name:
                raise ValueError("The actor name must be specified to use `get_if_exists`.")
            found = _core.get_named(namespace, name)
            if found is not None:
                return ActorHandle(found[0], *found[1])
        elif name is not None and _core.get_named(namespace, name) is not None:
            raise ValueError(f"The name {name} (namespace={namespace}) is already taken. Please use a different name.")
        known, definition = self._definition()
        methods = _methods(self._class)
        retries = _options.tries(options.get("max_task_retries"), 0)
        ref = _core.create_actor(
            known,
            definition,
            (self.__qualname__, methods, retries),
            args,
            kwargs or None,
            restarts=_options.tries(options.get("max_restarts"), 0),
            name=None if name is None else (namespace, name),
            detached=lifetime == "detached",
            **_options.thousandths(options, 0),
        )
        return ActorHandle(ref, self.__qualname__, methods, retries)

    def _definition(self) -> tuple[bytes, tuple[Any, ...]]:
        known = self.__dict__.get("_known")
        if known is None:
            definition = ("class", self.__qualname__, _definition.pickled(self._class))
            known = self.__dict__["_known"] = (_definition.name_of(definition), definition)
        return known  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorClass, (self._class, self._options)


def _methods(cls: type) -> dict[str, dict[str, Any]]:
    """The methods of a class by name, and the options that `method` gave each."""
    found = inspect.getmembers(cls, lambda member: inspect.isroutine(member))
    return {
        name: dict(getattr(member, "__pydmrpc_options__", {}))
        for name, member in found
        if name == "__call__" or not (name.startswith("__") and name.endswith("__"))
    }


class ActorHandle:
    """A handle of an actor: ``handle.method.remote(...)`` calls it. Can be passed to any task or actor."""

    def __init__(
        self, ref: _core.ActorRef, class_name: str, methods: dict[str, dict[str, Any]], max_task_retries: int = 0
    ) -> None:
        self.__dict__.update(_ref=ref, _class_name=class_name, _methods=methods, _max_task_retries=max_task_retries)

    def __getattr__(self, name: str) -> ActorMethod:
        methods: dict[str, dict[str, Any]] = self.__dict__["_methods"]
        if name in methods:
            method = ActorMethod(self._ref, name, methods[name], self._max_task_retries)
        elif name == "__ray_terminate__":
            method = ActorMethod(self._ref, name, {}, 0)
        else:
            raise AttributeError(f"'{self._class_name}' object has no attribute '{name}'")
        # The next time it is found without us.
        self.__dict__[name] = method
        return method

    def __dir__(self) -> list[str]:
        return sorted(self._methods)

    def __repr__(self) -> str:
        return f"Actor({self._class_name}, {self._ref.hex()})"

    def __hash__(self) -> int:
        return hash(self._ref)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and bool(self._ref == other._ref)

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorHandle, (self._ref, self._class_name, self._methods, self._max_task_retries)


class ActorMethod:
    """A method of an actor: ``method.remote(...)`` calls it."""

    __slots__ = ("_name", "_options", "_ref", "_retries", "remote")

    def __init__(self, ref: _core.ActorRef, name: str, options: dict[str, Any], retries: int) -> None:
        known, definition = _definition.method(name)
        self._ref = ref
        self._name = name
        self._options = options
        self._retries = retries
        returns = options.get("num_returns")
        core = ref.method(
            known,
            definition,
            returns=1 if returns is None else returns,
            retries=_options.tries(options.get("max_task_retries"), retries),
            retry_raised=bool(options.get("retry_exceptions")),
        )
        #: Calls it.
        self.remote = core.remote

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"Actor methods cannot be called directly. Instead of running 'object.{self._name}()', "
            f"try 'object.{self._name}.remote()'."
        )

    def options(self, **options: Any) -> ActorMethod:
        """The same method with other options."""
        _options.check(options, _options.METHOD_OPTIONS, "actor methods")
        return ActorMethod(self._ref, self._name, {**self._options, **options}, self._retries)
