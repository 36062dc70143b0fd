"""Actors of other processes, in whatever language they are written."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from pydmrpc import _core, _futures


def connect(address: str, *, timeout: float = 10.0) -> ForeignActor:
    """Connects to the actor at ``"unix:///path#name"`` (this host) or ``"tcp://host:port#name"``, or within TLS at
    ``"tls://host:port?ca=FILE#name"``.

    Args:
        address: where the actor's process listens, and the name that the actor is registered by.
        timeout: seconds to wait for the connection.

    Raises:
        ActorUnavailableError: if nobody is there.
        ValueError: if there is no actor of this name, or the address is none.
        GetTimeoutError: if it takes too long.

    Example::

        thumbnails = pydmrpc.connect("unix:///run/images.sock#thumbnails")
        photo = pydmrpc.put(open("photo.jpg", "rb").read())
        small = thumbnails.resize(photo, 200, 200)      # the reference travels, not the photo
        pydmrpc.get(small)
    """
    return ForeignActor(_core.connect(address, timeout))


class ForeignActor:
    """A handle to an actor: its methods are called by their names, with positional arguments.

    Arguments and answers are None, bools, ints, floats, str, bytes, lists, dicts (also for structs), and references. An actor
    in Rust gets a reference to an array or to bytes as ``ObjectRef<[f64]>``, ``ObjectRef<[u8]>`` and so on; an array as an
    argument is stored first. References that come back are to plain bytes: ``ref.view("f8")`` makes them arrays.

    References are lent for the time of the call, and nobody asks the memory node anything.
    """

    __slots__ = ("_core",)

    def __init__(self, core: _core.Actor) -> None:
        self._core = core

    def __getattr__(self, method: str) -> ForeignMethod:
        if method.startswith("__"):
            raise AttributeError(method)
        return ForeignMethod(self._core, method)

    def __repr__(self) -> str:
        return f"ForeignActor({self._core.address!r})"

    def call(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        """Calls a method by name and gives its answer. As ``handle.method(*args)``.

        Raises:
            AttributeError: if the actor has no such method.
            MalformedError: if the arguments are not what the method takes.
            ActorDiedError: if the actor stopped, or its handler panicked.
            ActorUnavailableError: if its process is gone.
            PendingCallsLimitExceeded: if its mailbox is full.
            GetTimeoutError: if no answer comes within `timeout` seconds (30 unless said otherwise).
        """
        return self._core.call(method, args, timeout)

    def tell(self, method: str, *args: Any, timeout: float | None = None) -> None:
        """Sends a message without waiting for an answer; `timeout` is for room to send it."""
        self._core.tell(method, args, timeout)


class ForeignMethod:
    """A method of an actor."""

    __slots__ = ("_core", "_name")

    def __init__(self, core: _core.Actor, name: str) -> None:
        self._core = core
        self._name = name

    def __call__(self, *args: Any, timeout: float | None = None) -> Any:
        """Calls it and gives its answer: see :meth:`ForeignActor.call`."""
        return self._core.call(self._name, args, timeout)

    def future(self, *args: Any, timeout: float | None = None) -> Future[Any]:
        """Calls it on another thread; gives a `concurrent.futures.Future` of the answer."""
        return _futures.executor().submit(self._core.call, self._name, args, timeout)

    def tell(self, *args: Any, timeout: float | None = None) -> None:
        """Sends it without waiting for an answer."""
        self._core.tell(self._name, args, timeout)

    def __repr__(self) -> str:
        return f"ForeignMethod({self._core.address!r}, {self._name!r})"
