"""References as futures, for asyncio and for `concurrent.futures`.

Whoever waits is known by a number, which the core puts into a list when the value is there. An event loop listens to a list of
its own; for `concurrent.futures` one thread does.

1. No thread waits for one reference alone, but where a value has to be fetched from a node elsewhere.
2. Whatever is waited for when the session ends is woken, and hears that it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import select
import threading
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pydmrpc import _core

#: Threads that fetch values from nodes elsewhere. They wait in Rust, without the GIL.
_MAX_THREADS = 16

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_process = 0


def executor() -> ThreadPoolExecutor:
    """Threads for what can only be waited for by a thread."""
    global _pool, _pool_process
    with _lock:
        if _pool is None or _pool_process != os.getpid():
            _pool = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="pydmrpc")
            _pool_process = os.getpid()
        return _pool


def stop() -> None:
    """The session has ended: all that waits goes on."""
    global _pool, _reader
    with _lock:
        pool, _pool = _pool, None
        reader, _reader = _reader, None
        loops = list(_loops.items())
    if pool is not None and _pool_process == os.getpid():
        pool.shutdown(wait=False, cancel_futures=True)
    if reader is not None:
        reader.end()
    for loop, watched in loops:
        # A loop that was closed has nobody who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(watched.wake_all)


class _Watched:
    """References that are waited for, and what is to be done when their values are there."""

    def __init__(self) -> None:
        self.completions = _core.Completions()
        self._numbers = itertools.count(1)
        self._then: dict[int, Callable[[], object]] = {}

    def watch(self, ref: _core.ObjectRef, then: Callable[[], object]) -> int | None:
        """Has `then` called once the value is there; None if nobody need wait for it, or only a thread can."""
        number = next(self._numbers)
        self._then[number] = then
        if self.completions.watch(ref, number):
            return number
        del self._then[number]
        return None

    def forget(self, ref: _core.ObjectRef, number: int) -> None:
        """Nobody waits any more."""
        if self._then.pop(number, None) is not None:
            self.completions.forget(ref, number)

    def wake(self) -> None:
        """Goes on with whatever is there."""
        for number in self.completions.take():
            if (then := self._then.pop(number, None)) is not None:
                then()

    def wake_all(self) -> None:
        """Goes on with everything."""
        waiting, self._then = list(self._then.values()), {}
        for then in waiting:
            then()


#: What each event loop waits for.
_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Watched] = weakref.WeakKeyDictionary()


def _watched(loop: asyncio.AbstractEventLoop) -> _Watched:
    watched = _loops.get(loop)
    if watched is None:
        watched = _Watched()
        loop.add_reader(watched.completions.fileno(), watched.wake)
        with _lock:
            _loops[loop] = watched
    return watched


async def presence(ref: _core.ObjectRef) -> None:
    """Until the value of a reference is there, or its failure."""
    if ref.is_ready():
        return
    loop = asyncio.get_running_loop()
    watched = _watched(loop)
    woken: asyncio.Future[None] = loop.create_future()
    number = watched.watch(ref, functools.partial(_wake, woken))
    if number is None:
        if not ref.is_ready():
            await asyncio.wrap_future(executor().submit(_core.wait, [ref]))
        return
    try:
        await woken
    finally:
        watched.forget(ref, number)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


def awaited(ref: _core.ObjectRef) -> Generator[Any, None, Any]:
    """What ``await ref`` runs."""
    return (_ready(ref) if ref.is_ready() else _present(ref)).__await__()


async def _ready(ref: _core.ObjectRef) -> Any:
    return _core.get(ref)


async def _present(ref: _core.ObjectRef) -> Any:
    if not _is_fetched(ref):
        return await asyncio.wrap_future(executor().submit(_core.get, ref))
    await presence(ref)
    return _core.get(ref)


def _is_fetched(ref: _core.ObjectRef) -> bool:
    """Whether the value comes by itself, rather than when it is asked for."""
    return bool(ref._is_promised())


class _Reader:
    """The thread that waits for the futures of `concurrent.futures`."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._watched = _Watched()
        self._has_ended = False
        threading.Thread(target=self._read, name="pydmrpc-futures", daemon=True).start()

    def future_of(self, ref: _core.ObjectRef) -> Future[Any]:
        future: Future[Any] = Future()
        number = self._watched.watch(ref, lambda: _settle(future, ref))
        if number is None:
            _settle(future, ref)
        else:
            future.add_done_callback(lambda done: self._watched.forget(ref, number) if done.cancelled() else None)
        return future

    def end(self) -> None:
        self._has_ended = True
        self._watched.completions.add(0)

    def _read(self) -> None:
        while not self._has_ended:
            select.select([self._watched.completions], [], [])
            self._watched.wake()
        self._watched.wake_all()


_reader: _Reader | None = None


def future_of(ref: _core.ObjectRef) -> Future[Any]:
    """A future of what ``get(ref)`` gives; done at once if nobody need be waited for."""
    global _reader
    if ref.is_ready():
        done: Future[Any] = Future()
        _settle(done, ref)
        return done
    if not _is_fetched(ref):
        return executor().submit(_core.get, ref)
    with _lock:
        if _reader is None or _reader.process != os.getpid():
            _reader = _Reader()
        reader = _reader
    return reader.future_of(ref)


def _settle(future: Future[Any], ref: _core.ObjectRef) -> None:
    """The future has what `get` gives, unless it was cancelled."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        value = _core.get(ref)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(value)
