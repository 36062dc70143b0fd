"""Values of references in the order in which they are ready."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pydmrpc


def as_completed(refs: Sequence[Any], chunk_size: int = 10, yield_obj_refs: bool = False) -> Iterator[Any]:
    """Values of references, those first that are ready first.

    Args:
        refs: references of tasks or calls.
        chunk_size: how many to wait for at a time: more is quicker, less is closer to the order of completion.
        yield_obj_refs: give the references rather than their values.

    Raises:
        ValueError: if `chunk_size` is less than 1.
        Exception: what a task raised.

    Example::

        for value in pydmrpc.util.as_completed([f.remote(i) for i in range(100)]):
            print(value)
    """
    if chunk_size < 1:
        raise ValueError("chunk_size must be at least 1")
    return _as_completed(list(refs), chunk_size, yield_obj_refs)


def _as_completed(pending: list[Any], chunk_size: int, yield_refs: bool) -> Iterator[Any]:
    while pending:
        ready, pending = pydmrpc.wait(pending, num_returns=min(chunk_size, len(pending)))
        yield from ready if yield_refs else pydmrpc.get(ready)


def map_unordered(fn: Any, items: Iterable[Any], backpressure_size: int | None = 100, chunk_size: int = 10) -> Iterator[Any]:
    """Results of ``fn.remote(item)`` for all items, as they are ready.

    Args:
        fn: a remote function or a method of an actor.
        items: its arguments, taken as there is room for them.
        backpressure_size: how many calls are under way at most; None for all.
        chunk_size: how many to wait for at a time.

    Raises:
        ValueError: if `backpressure_size` or `chunk_size` is less than 1.
    """
    if chunk_size < 1 or (backpressure_size is not None and backpressure_size < 1):
        raise ValueError("chunk_size and backpressure_size must be at least 1")
    return _map_unordered(fn, iter(items), backpressure_size, chunk_size)


def _map_unordered(fn: Any, items: Iterator[Any], most: int | None, chunk_size: int) -> Iterator[Any]:
    pending: list[Any] = []
    more = True
    while more or pending:
        while more and (most is None or len(pending) < most):
            try:
                pending.append(fn.remote(next(items)))
            except StopIteration:
                more = False
        if pending:
            ready, pending = pydmrpc.wait(pending, num_returns=min(chunk_size, len(pending)))
            yield from pydmrpc.get(ready)
