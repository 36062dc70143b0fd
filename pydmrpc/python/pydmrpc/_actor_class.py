"""Classes whose instances live elsewhere, and handles of them."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

from pydmrpc import _concurrency, _core, _definition, _generator, _options, _runtime, _signature, exceptions

#: Methods that every actor has.
_BUILT_IN = ("__ray_terminate__", "__ray_ready__", "__ray_call__")


class ActorClass:
    """What ``@pydmrpc.remote`` makes of a class: make an actor by ``C.remote(...)``."""

    def __init__(self, cls: type, options: dict[str, Any]) -> None:
        _options.check(options, _options.ACTOR_OPTIONS, "actors")
        if options.get("get_if_exists") and not options.get("name"):
            raise ValueError("The actor name must be specified to use `get_if_exists`.")
        self._class = cls
        self._options = options
        self.__doc__ = cls.__doc__
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__module__ = cls.__module__

    def __class_getitem__(cls, of: Any) -> Any:
        """``ActorClass[C]`` in annotations."""
        return cls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"Actors cannot be instantiated directly. Instead of '{self.__name__}()', use '{self.__name__}.remote()'."
        )

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        raise exceptions.ActorClassInheritanceException(
            f"Inheriting from actor classes is not supported: inherit from {self.__name__} undecorated, and decorate that"
        )

    def options(self, **options: Any) -> ActorClass:
        """The same class with other options."""
        other = ActorClass(self._class, {**self._options, **options})
        other.__dict__["_known"] = self._pickled()
        return other

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Makes an actor; its `__init__` runs there."""
        options = self._options
        made_by: Any = inspect.getattr_static(self._class, "__init__")
        if made_by is not object.__init__:
            if (takes := _signature.of(made_by, 1)) is not None:
                takes[2](*args, **kwargs)
        elif args or kwargs:
            raise TypeError(f"{self.__name__} takes no arguments")
        name = options.get("name")
        namespace = options.get("namespace") or _runtime.namespace()
        if name is not None:
            found = _core.get_named(namespace, name)
            if found is not None:
                if options.get("get_if_exists"):
                    return ActorHandle(found[0], *found[1])
                raise exceptions.ActorAlreadyExistsError(
                    f"The name {name} (namespace={namespace}) is already taken. Please use a different name."
                )
        more: dict[str, Any] = {}
        if options.get("max_concurrency"):
            more["max_concurrency"] = options["max_concurrency"]
        if groups := options.get("concurrency_groups"):
            more["groups"] = {group["name"]: group["max_concurrency"] for group in groups} if isinstance(groups, list) else groups
        class_name = self.__qualname__
        methods = _methods(self._class)
        about = (class_name, methods, options.get("max_task_retries") or 0, options.get("max_pending_calls") or -1)
        definition = ("class", class_name, self._pickled(), {**more, "name": name, "about": about})
        ref = _core.create_actor(
            _definition.name_of(definition),
            definition,
            about,
            args,
            kwargs or None,
            restarts=_options.tries(options.get("max_restarts"), 0),
            name=None if name is None else (namespace, name),
            detached=options.get("lifetime") == "detached",
            unordered=_is_unordered(self._class, options),
            **_options.placement(options, 0),
        )
        return ActorHandle(ref, *about)

    def _pickled(self) -> bytes:
        known = self.__dict__.get("_known")
        if known is None:
            known = self.__dict__["_known"] = _definition.pickled(self._class)
        return bytes(known)

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorClass, (self._class, self._options)


def _is_unordered(cls: type, options: dict[str, Any]) -> bool:
    """Whether a call that waits for its arguments lets later ones of its caller go before it."""
    several = (options.get("max_concurrency") or 1) > 1 or options.get("concurrency_groups")
    return bool(options.get("allow_out_of_order_execution") or several or _concurrency.is_async(cls))


def _methods(cls: type) -> dict[str, dict[str, Any]]:
    """The methods of a class by name: the options that `method` gave each, whether it yields, and what it takes."""
    found = {}
    for name, member in inspect.getmembers(cls, inspect.isroutine):
        if name not in vars(object) or name in vars(cls):
            options = dict(getattr(member, "__pydmrpc_options__", {}))
            if inspect.isgeneratorfunction(member) or inspect.isasyncgenfunction(member):
                options["yields"] = True
            options["takes"] = _takes(cls, name, member)
            found[name] = options
    return found


def _takes(cls: type, name: str, member: Any) -> Any:
    """The signature of a method without `self`, in a form that travels; None if there is none."""
    try:
        signature = inspect.signature(member)
    except (TypeError, ValueError):
        return None
    parameters = list(signature.parameters.values())
    if not isinstance(inspect.getattr_static(cls, name), staticmethod | classmethod) and not inspect.ismethod(member):
        parameters = parameters[1:]
    return tuple((p.name, int(p.kind), p.default is not inspect.Parameter.empty) for p in parameters)


class ActorHandle:
    """A handle of an actor: ``handle.method.remote(...)`` calls it. Can be passed to any task or actor."""

    _ref: _core.ActorRef
    _class_name: str
    _methods: dict[str, dict[str, Any]]
    _max_task_retries: int
    _pending: _Pending | None

    def __init__(
        self,
        ref: _core.ActorRef,
        class_name: str,
        methods: dict[str, dict[str, Any]],
        max_task_retries: int = 0,
        max_pending_calls: int = -1,
    ) -> None:
        pending = _Pending(max_pending_calls) if max_pending_calls > 0 else None
        self.__dict__.update(
            _ref=ref, _class_name=class_name, _methods=methods, _max_task_retries=max_task_retries, _pending=pending
        )

    def __getattr__(self, name: str) -> ActorMethod:
        methods: dict[str, dict[str, Any]] = self.__dict__["_methods"]
        if name in methods:
            options = methods[name]
        elif name in _BUILT_IN:
            options = {}
        else:
            raise AttributeError(f"'{self._class_name}' object has no attribute '{name}'")
        method = ActorMethod(self._ref, name, options, self._max_task_retries, self._pending)
        # The next time it is found without us.
        self.__dict__[name] = method
        return method

    def __class_getitem__(cls, of: Any) -> Any:
        """``ActorHandle[C]`` in annotations."""
        return cls

    @property
    def _actor_id(self) -> ActorID:
        return ActorID(self._ref.hex())

    def __dir__(self) -> list[str]:
        return sorted(self._methods)

    def __repr__(self) -> str:
        return f"Actor({self._class_name}, {self._ref.hex()})"

    def __hash__(self) -> int:
        return hash(self._ref)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and bool(self._ref == other._ref)

    def __reduce__(self) -> tuple[Any, ...]:
        limit = self._pending.limit if self._pending else -1
        return ActorHandle, (self._ref, self._class_name, self._methods, self._max_task_retries, limit)


class ActorID(str):
    """The id of an actor, as hex digits."""

    __slots__ = ()

    def hex(self) -> str:
        """The digits."""
        return str(self)

    def binary(self) -> bytes:
        """The bytes."""
        return bytes.fromhex(self)


class _Pending:
    """Calls through one handle that are not answered."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._refs: list[_core.ObjectRef] = []
        self._lock = threading.Lock()

    def wrap(self, remote: Callable[..., Any]) -> Callable[..., Any]:
        """`remote`, but that it raises when there are too many."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                self._refs = [ref for ref in self._refs if not ref.is_ready()]
                if len(self._refs) >= self.limit:
                    # What is answered and did not arrive yet does not count.
                    _core.wait(self._refs, num_returns=1, timeout=0)
                    self._refs = [ref for ref in self._refs if not ref.is_ready()]
                if len(self._refs) >= self.limit:
                    raise exceptions.PendingCallsLimitExceeded(
                        f"{len(self._refs)} calls of the actor are pending, and max_pending_calls is {self.limit}: wait for some"
                    )
                made = remote(*args, **kwargs)
                refs = made if isinstance(made, list) else [made] if made is not None else []
                self._refs += [ref for ref in refs[:1] if isinstance(ref, _core.ObjectRef)]
            return made

        return call


class ActorMethod:
    """A method of an actor: ``method.remote(...)`` calls it."""

    __slots__ = ("_name", "_options", "_pending", "_ref", "_retries", "remote")

    # It has no handle, whose attribute it is: the last handle goes at once, without a collection of cycles.
    def __init__(self, ref: _core.ActorRef, name: str, options: dict[str, Any], retries: int, pending: _Pending | None) -> None:
        known, definition = _definition.method(
            name, options.get("concurrency_group"), options.get("_generator_backpressure_num_objects")
        )
        self._ref = ref
        self._name = name
        self._retries = retries
        self._pending = pending
        self._options = options
        returns = _generator.returns(options.get("num_returns"), bool(options.get("yields")))
        core = ref.method(
            known,
            definition,
            returns=returns,
            retries=_options.tries(options.get("max_task_retries"), retries),
            retry_raised=bool(options.get("retry_exceptions")),
            takes=None if (takes := options.get("takes")) is None else _signature.by(takes),
        )
        remote = _generator.wrapped(core.remote, returns)
        if pending is not None:
            remote = pending.wrap(remote)
        #: Calls it.
        self.remote = remote

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"Actor methods cannot be called directly. Instead of running 'object.{self._name}()', "
            f"try 'object.{self._name}.remote()'."
        )

    def options(self, **options: Any) -> ActorMethod:
        """The same method with other options."""
        _options.check(options, _options.METHOD_OPTIONS, "actor methods")
        return ActorMethod(self._ref, self._name, {**self._options, **options}, self._retries, self._pending)
