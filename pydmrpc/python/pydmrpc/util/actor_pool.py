"""A pool of actors, each given one call at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pydmrpc


class ActorPool:
    """Spreads calls over actors: each actor has one at a time, the rest wait here.

    Results come by :meth:`get_next` in the order of submission, or by :meth:`get_next_unordered` as they are ready; a program
    uses one of the two, for the time that calls are under way.

    Args:
        actors: handles, which belong to the pool from now on.

    Example::

        pool = ActorPool([Worker.remote() for _ in range(2)])
        list(pool.map(lambda actor, x: actor.double.remote(x), [1, 2, 3]))      # [2, 4, 6]
    """

    def __init__(self, actors: Iterable[Any]) -> None:
        self._idle: list[Any] = list(actors)
        # Calls under way: their numbers and actors by their references.
        self._running: dict[Any, tuple[int, Any]] = {}
        # The same references by number; those that were given out are gone.
        self._by_number: dict[int, Any] = {}
        self._waiting: deque[tuple[Callable[[Any, Any], Any], Any]] = deque()
        self._submitted = 0
        self._next = 0

    def submit(self, fn: Callable[[Any, Any], Any], value: Any) -> None:
        """Calls ``fn(actor, value)``, which makes a call of the actor and gives its reference, when an actor is idle."""
        if not self._idle:
            self._waiting.append((fn, value))
            return
        actor = self._idle.pop()
        ref = fn(actor, value)
        self._running[ref] = self._submitted, actor
        self._by_number[self._submitted] = ref
        self._submitted += 1

    def map(self, fn: Callable[[Any, Any], Any], values: Iterable[Any]) -> Iterator[Any]:
        """The results of ``fn(actor, value)`` for all values, in their order.

        What was submitted before and not taken is dropped.
        """
        self._drop_pending()
        for value in values:
            self.submit(fn, value)
        return self._results(self.get_next)

    def map_unordered(self, fn: Callable[[Any, Any], Any], values: Iterable[Any]) -> Iterator[Any]:
        """The results of ``fn(actor, value)`` for all values, as they are ready."""
        self._drop_pending()
        for value in values:
            self.submit(fn, value)
        return self._results(self.get_next_unordered)

    def _drop_pending(self) -> None:
        while self.has_next():
            try:
                self.get_next_unordered(timeout=0)
            except TimeoutError:
                break

    def _results(self, get: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield get()

    def has_next(self) -> bool:
        """Whether there are results to come."""
        return bool(self._running)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The result of the call that was submitted first of those that were not taken yet.

        Args:
            timeout: seconds to wait at most.
            ignore_if_timedout: take the call as done when the time is over, and its actor as idle.

        Raises:
            StopIteration: if there is none.
            TimeoutError: if it does not come in time.
            ValueError: if it was taken by :meth:`get_next_unordered`.
        """
        if not self.has_next():
            raise StopIteration("the pool has no results to come: submit calls first")
        if self._next not in self._by_number:
            raise ValueError("get_next can't follow get_next_unordered: results were taken out of their order")
        ref = self._by_number[self._next]
        late = not pydmrpc.wait([ref], timeout=timeout)[0]
        if late and not ignore_if_timedout:
            raise TimeoutError("the next result is not there yet: ask again, or wait for longer")
        self._next += 1
        self._take(ref)
        if late:
            raise TimeoutError("the result did not come in time, and is ignored")
        return pydmrpc.get(ref)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The result of a call that is done.

        Raises:
            StopIteration: if there are no calls.
            TimeoutError: if none is done in time.
        """
        if not self.has_next():
            raise StopIteration("the pool has no results to come: submit calls first")
        ready, _ = pydmrpc.wait(list(self._running), num_returns=1, timeout=timeout)
        if not ready:
            if ignore_if_timedout:
                self._take(next(iter(self._running)))
                raise TimeoutError("the result did not come in time, and is ignored")
            raise TimeoutError("no result is there yet: ask again, or wait for longer")
        (ref,) = ready
        number = self._take(ref)
        self._next = max(self._next, number + 1)
        return pydmrpc.get(ref)

    def _take(self, ref: Any) -> int:
        """Lets go of a call; its actor takes the next."""
        number, actor = self._running.pop(ref)
        del self._by_number[number]
        self._free(actor)
        return number

    def _free(self, actor: Any) -> None:
        self._idle.append(actor)
        if self._waiting:
            self.submit(*self._waiting.popleft())

    def has_free(self) -> bool:
        """Whether an actor is idle and no call waits."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> Any:
        """Takes an idle actor out of the pool; None if there is none."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: Any) -> None:
        """Adds an actor to the pool.

        Raises:
            ValueError: if it belongs to the pool.
        """
        if actor in self._idle or any(actor == busy for _, busy in self._running.values()):
            raise ValueError("the actor belongs to the pool already")
        self._free(actor)
