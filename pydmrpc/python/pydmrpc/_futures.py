"""References as futures, for asyncio and for `concurrent.futures`."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pydmrpc import _core

#: Threads that wait for objects on behalf of futures. They wait in Rust, without the GIL.
_MAX_THREADS = 16

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_process = 0


def executor() -> ThreadPoolExecutor:
    global _pool, _pool_process
    with _lock:
        if _pool is None or _pool_process != os.getpid():
            _pool = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="pydmrpc")
            _pool_process = os.getpid()
        return _pool


def stop() -> None:
    """Lets go of the threads; futures that wait are cancelled."""
    global _pool
    with _lock:
        pool, _pool = _pool, None
    if pool is not None and _pool_process == os.getpid():
        pool.shutdown(wait=False, cancel_futures=True)


def future_of(ref: _core.ObjectRef) -> Future[Any]:
    """A future of what ``get(ref)`` gives; done at once if nobody need be waited for."""
    if ref.is_ready():
        done: Future[Any] = Future()
        try:
            done.set_result(_core.get(ref))
        except Exception as error:
            done.set_exception(error)
        return done
    return executor().submit(_core.get, ref)


async def presence(ref: _core.ObjectRef) -> None:
    """Until the value of a reference is there, or its failure."""
    if not ref.is_ready():
        await asyncio.wrap_future(executor().submit(_core.wait, [ref]))


def awaited(ref: _core.ObjectRef) -> Generator[Any, None, Any]:
    """What ``await ref`` runs."""
    if ref.is_ready():
        return _ready(ref)
    return asyncio.wrap_future(future_of(ref)).__await__()


def _ready(ref: _core.ObjectRef) -> Generator[Any, None, Any]:
    return _core.get(ref)
    yield  # makes it a generator
