"""A queue between tasks and actors: an actor that they all have a handle of."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable
from typing import Any

import pydmrpc


class Empty(queue.Empty):
    """There is nothing in the queue, or not as much as was asked for."""


class Full(queue.Full):
    """The queue has no room, or not for as much as was given."""


class Queue:
    """A queue that can be passed to tasks and actors, first in, first out, with the methods of `queue.Queue`.

    Args:
        maxsize: how many items it holds at most; 0 for no limit.
        actor_options: options of the actor that holds them.

    Example::

        queue = Queue(maxsize=100)
        consumer = consume.remote(queue)
        queue.put("an item", timeout=5)
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        self.maxsize = maxsize
        options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 1000} | (actor_options or {})
        self.actor: Any = pydmrpc.remote(**options)(_Items).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """How many items it has now."""
        return int(pydmrpc.get(self.actor.size.remote()))

    def qsize(self) -> int:
        """How many items it has now."""
        return self.size()

    def empty(self) -> bool:
        """Whether it has none."""
        return self.size() == 0

    def full(self) -> bool:
        """Whether it has no room."""
        return 0 < self.maxsize <= self.size()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Adds an item.

        Args:
            item: any value.
            block: whether to wait for room.
            timeout: for how many seconds at most; None for as long as it takes.

        Raises:
            Full: if there is no room, or none in time.
            ValueError: if `timeout` is negative.
        """
        wait = _check(timeout) if block else 0.0
        if not pydmrpc.get(self.actor.put.remote(item, wait)):
            raise Full(f"the queue has {self.maxsize} items and room for no more")

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As :meth:`put`, awaited."""
        wait = _check(timeout) if block else 0.0
        if not await self.actor.put.remote(item, wait):
            raise Full(f"the queue has {self.maxsize} items and room for no more")

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes the first item.

        Raises:
            Empty: if there is none, or none in time.
            ValueError: if `timeout` is negative.
        """
        wait = _check(timeout) if block else 0.0
        return _item(pydmrpc.get(self.actor.get.remote(wait)))

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """As :meth:`get`, awaited."""
        wait = _check(timeout) if block else 0.0
        return _item(await self.actor.get.remote(wait))

    def put_nowait(self, item: Any) -> None:
        """Adds an item if there is room.

        Raises:
            Full: if there is none.
        """
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """Takes the first item if there is one.

        Raises:
            Empty: if there is none.
        """
        return self.get(block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Adds several items, all of them or none.

        Raises:
            TypeError: if `items` can't be iterated over.
            Full: if there is not room for all.
        """
        batch = list(items)
        if not pydmrpc.get(self.actor.put_batch.remote(batch)):
            raise Full(f"the queue of at most {self.maxsize} items has no room for {len(batch)} more")

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Takes several items, as many as are asked for or none.

        Raises:
            TypeError: if `num_items` is no number.
            ValueError: if it is negative.
            Empty: if there are not as many.
        """
        if not isinstance(num_items, int):
            raise TypeError("num_items must be an int")
        if num_items < 0:
            raise ValueError("num_items must not be negative")
        items: list[Any] | None = pydmrpc.get(self.actor.get_batch.remote(num_items))
        if items is None:
            raise Empty(f"the queue has not {num_items} items")
        return items

    def shutdown(self, force: bool = False, grace_period_s: int = 5) -> None:
        """Ends the queue's actor; its items are lost.

        Args:
            force: end it at once, rather than after the calls that it has.
            grace_period_s: seconds that it may take to end by itself.
        """
        if self.actor is None:
            return
        if not force:
            ended = self.actor.__ray_terminate__.remote()
            pydmrpc.wait([ended], timeout=grace_period_s)
        pydmrpc.kill(self.actor, no_restart=True)
        self.actor = None


def _check(timeout: float | None) -> float | None:
    if timeout is not None and timeout < 0:
        raise ValueError("timeout must not be negative")
    return timeout


def _item(answer: tuple[Any, ...]) -> Any:
    if not answer:
        raise Empty("there is nothing in the queue")
    return answer[0]


class _Items:
    """What the queue's actor is. A `wait` of None is without end, one of 0 is not at all."""

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self.queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    async def size(self) -> int:
        return self.queue.qsize()

    async def put(self, item: Any, wait: float | None) -> bool:
        try:
            if wait == 0:
                self.queue.put_nowait(item)
            else:
                await asyncio.wait_for(self.queue.put(item), wait)
        except (asyncio.QueueFull, TimeoutError):
            return False
        return True

    async def get(self, wait: float | None) -> tuple[Any, ...]:
        try:
            if wait == 0:
                return (self.queue.get_nowait(),)
            return (await asyncio.wait_for(self.queue.get(), wait),)
        except (asyncio.QueueEmpty, TimeoutError):
            return ()

    async def put_batch(self, items: list[Any]) -> bool:
        if self.maxsize > 0 and self.queue.qsize() + len(items) > self.maxsize:
            return False
        for item in items:
            self.queue.put_nowait(item)
        return True

    async def get_batch(self, count: int) -> list[Any] | None:
        if self.queue.qsize() < count:
            return None
        return [self.queue.get_nowait() for _ in range(count)]
