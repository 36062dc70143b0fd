"""Iterators whose items are made by actors: each actor has a shard of them."""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import pydmrpc

T = TypeVar("T")
U = TypeVar("U")

#: Items that a shard's actor gives at a time at most.
_BATCH = 100


def from_items(items: list[T], num_shards: int = 2, repeat: bool = False) -> ParallelIterator[T]:
    """An iterator over a list, its items dealt to shards in turn.

    Args:
        items: the list.
        num_shards: how many actors.
        repeat: whether to begin anew at the end, for ever.
    """
    return from_iterators([items[i::num_shards] for i in range(num_shards)], repeat, f"from_items[{len(items)}]")


def from_range(n: int, num_shards: int = 2, repeat: bool = False) -> ParallelIterator[int]:
    """An iterator over ``range(n)``, each shard with a run of it."""
    bounds = [n * i // num_shards for i in range(num_shards + 1)]
    return from_iterators([range(a, b) for a, b in itertools.pairwise(bounds)], repeat, f"from_range[{n}]")


def from_iterators(generators: list[Any], repeat: bool = False, name: str | None = None) -> ParallelIterator[Any]:
    """An iterator with a shard for each iterable, or for each function that gives one."""
    return ParallelIterator([pydmrpc.remote(_Shard).remote(g, repeat) for g in generators], (), name or "from_iterators")


def from_actors(actors: list[Any], name: str | None = None) -> ParallelIterator[Any]:
    """An iterator over shards that are actors of a class derived from :class:`ParallelIteratorWorker`."""
    return ParallelIterator(actors, (), name or "from_actors")


class ParallelIteratorWorker:
    """What an actor is derived from that is a shard of an iterator.

    Args:
        item_generator: an iterable, or a function that gives one.
        repeat: whether to begin anew at the end, for ever.
    """

    def __init__(self, item_generator: Any, repeat: bool) -> None:
        self._source = item_generator
        self._repeat = repeat
        self._items: dict[int, Iterator[Any]] = {}

    def _dmrpc_begin(self, key: int, steps: tuple[Callable[[Iterator[Any]], Iterator[Any]], ...]) -> None:
        def items() -> Iterator[Any]:
            while True:
                yield from self._source() if callable(self._source) else self._source
                if not self._repeat:
                    return

        it = items()
        for step in steps:
            it = step(it)
        self._items[key] = it

    def _dmrpc_next(self, key: int, count: int) -> list[Any]:
        """At most so many items; fewer at the end."""
        taken = list(itertools.islice(self._items[key], count))
        if len(taken) < count:
            del self._items[key]
        return taken


class _Shard(ParallelIteratorWorker):
    pass


_keys = itertools.count()


class ParallelIterator(Generic[T]):
    """Items in shards. What is done to each (`for_each`, `filter`, …) is done by the shards' actors, when they are asked for.

    ``gather_sync`` and ``gather_async`` bring them here::

        from_range(10, num_shards=2).for_each(lambda x: x * x).gather_sync().take(3)     # [0, 25, 1]
    """

    def __init__(
        self, actors: list[Any], steps: tuple[Any, ...], name: str, others: tuple[ParallelIterator[Any], ...] = ()
    ) -> None:
        self._actors = actors
        self._steps = steps
        self._others = others
        self.name = name

    def __repr__(self) -> str:
        return f"ParallelIterator[{self.name}]"

    def __iter__(self) -> Iterator[T]:
        raise TypeError("a parallel iterator is gathered first: it.gather_sync() or it.gather_async()")

    def _with(self, step: Callable[[Iterator[Any]], Iterator[Any]], name: str) -> ParallelIterator[Any]:
        others = tuple(other._with(step, name) for other in self._others)
        return ParallelIterator(self._actors, (*self._steps, step), f"{self.name}.{name}", others)

    def transform(self, fn: Callable[[Iterator[T]], Iterator[U]]) -> ParallelIterator[U]:
        """Makes an iterator of each shard's iterator."""
        return self._with(fn, "transform()")

    def for_each(
        self, fn: Callable[[T], U], max_concurrency: int = 1, resources: dict[str, Any] | None = None
    ) -> ParallelIterator[U]:
        """Applies a function to each item; with more than one at once, as tasks."""
        if max_concurrency < 1:
            raise ValueError("max_concurrency must be at least 1")
        if max_concurrency == 1:
            return self._with(lambda it: map(fn, it), "for_each()")
        options = resources or {}

        def ahead(it: Iterator[T]) -> Iterator[U]:
            task = pydmrpc.remote(lambda item: fn(item)).options(**options)
            pending: collections.deque[Any] = collections.deque()
            for item in it:
                pending.append(task.remote(item))
                if len(pending) >= max_concurrency:
                    yield pydmrpc.get(pending.popleft())
            while pending:
                yield pydmrpc.get(pending.popleft())

        return self._with(ahead, "for_each()")

    def filter(self, fn: Callable[[T], bool]) -> ParallelIterator[T]:
        """Keeps the items of which a function says so."""
        return self._with(lambda it: (item for item in it if fn(item)), "filter()")

    def batch(self, n: int) -> ParallelIterator[list[T]]:
        """Lists of `n` items each; the last of a shard may have fewer."""
        return self._with(lambda it: _batches(it, n), f"batch({n})")

    def flatten(self) -> ParallelIterator[Any]:
        """The items of items that are iterables."""
        return self._with(itertools.chain.from_iterable, "flatten()")

    def combine(self, fn: Callable[[T], list[U]]) -> ParallelIterator[U]:
        """Applies a function that gives a list, and takes the items of the lists."""
        return self.for_each(fn).flatten()

    def local_shuffle(self, shuffle_buffer_size: int, seed: int | None = None) -> ParallelIterator[T]:
        """Mixes each shard's items, as far as a buffer of so many allows."""
        return self._with(lambda it: _shuffled(it, shuffle_buffer_size, random.Random(seed)), "local_shuffle()")

    def repartition(self, num_partitions: int, batch_ms: int = 0) -> ParallelIterator[T]:
        """The same items in another number of shards."""
        shards = self.shards()

        def part(i: int) -> Callable[[], Iterator[T]]:
            return lambda: itertools.chain.from_iterable(itertools.islice(shard, i, None, num_partitions) for shard in shards)

        made = from_iterators([part(i) for i in range(num_partitions)])
        made.name = f"{self.name}.repartition({num_partitions})"
        return made

    def union(self, other: ParallelIterator[T]) -> ParallelIterator[T]:
        """The items of both, each in its own shards."""
        if not isinstance(other, ParallelIterator):
            raise TypeError("only a ParallelIterator can be united with one")
        return ParallelIterator(self._actors, self._steps, f"{self}.union({other})", (*self._others, other))

    def num_shards(self) -> int:
        """How many shards it has."""
        return len(self._actors) + sum(other.num_shards() for other in self._others)

    def shards(self) -> list[LocalIterator[T]]:
        """An iterator here for each shard."""
        own = [
            LocalIterator(_Remote(actor, self._steps, batch=_BATCH), f"{self.name}.shard[{i}]")
            for i, actor in enumerate(self._actors)
        ]
        return own + [shard for other in self._others for shard in other.shards()]

    def get_shard(self, shard_index: int, batch_ms: int = 0, num_async: int = 1) -> LocalIterator[T]:
        """An iterator here over one shard."""
        shards = self.shards()
        if not 0 <= shard_index < len(shards):
            raise ValueError(f"there are {len(shards)} shards, and no shard {shard_index}")
        return shards[shard_index]

    def _remotes(self, batch: int) -> list[_Remote]:
        own = [_Remote(actor, self._steps, batch) for actor in self._actors]
        return own + [remote for other in self._others for remote in other._remotes(batch)]

    def batch_across_shards(self) -> LocalIterator[list[T]]:
        """Lists of one item of each shard that has any left."""
        remotes = self._remotes(1)

        def lists() -> Iterator[list[T]]:
            its = [iter(remote) for remote in remotes]
            while its:
                taken, left = [], []
                for it in its:
                    for item in it:
                        taken.append(item)
                        left.append(it)
                        break
                its = left
                if taken:
                    yield taken

        return LocalIterator(lists, f"{self.name}.batch_across_shards()")

    def gather_sync(self) -> LocalIterator[T]:
        """The items here: one of each shard in turn."""
        batches = self.batch_across_shards()
        return LocalIterator(lambda: itertools.chain.from_iterable(batches), f"{self.name}.gather_sync()")

    def gather_async(self, batch_ms: int = 0, num_async: int = 1) -> LocalIterator[T]:
        """The items here, of whichever shard has them first.

        Args:
            batch_ms: taken as leave to ask for several items at a time if it is positive.
            num_async: how many questions are under way with each shard.
        """
        if num_async < 1:
            raise ValueError("num_async must be at least 1")
        remotes = self._remotes(_BATCH if batch_ms else 1)

        def items() -> Iterator[T]:
            asked = {remote.ask(): remote for remote in [remote.begin() for remote in remotes]}
            while asked:
                ready, _ = pydmrpc.wait(list(asked), num_returns=1)
                remote = asked.pop(ready[0])
                batch = pydmrpc.get(ready[0])
                if len(batch) == remote.batch:
                    asked[remote.ask()] = remote
                yield from batch

        return LocalIterator(items, f"{self.name}.gather_async()")

    def take(self, n: int) -> list[T]:
        """The first `n` items of :meth:`gather_sync`."""
        return self.gather_sync().take(n)

    def show(self, n: int = 20) -> None:
        """Prints the first `n` items."""
        self.gather_sync().show(n)


class _Remote:
    """One pass over a shard, from here."""

    def __init__(self, actor: Any, steps: tuple[Any, ...], batch: int) -> None:
        self._actor = actor
        self._steps = steps
        self.batch = batch
        self._key = next(_keys)

    def begin(self) -> _Remote:
        """A new pass."""
        other = _Remote(self._actor, self._steps, self.batch)
        self._actor._dmrpc_begin.remote(other._key, other._steps)
        return other

    def ask(self) -> Any:
        """A reference to the next items."""
        return self._actor._dmrpc_next.remote(self._key, self.batch)

    def __call__(self) -> Iterator[Any]:
        return iter(self)

    def __iter__(self) -> Iterator[Any]:
        it = self.begin()
        upcoming = it.ask()
        while True:
            batch = pydmrpc.get(upcoming)
            if len(batch) == self.batch:
                upcoming = it.ask()
            yield from batch
            if len(batch) < self.batch:
                return


class LocalIterator(Generic[T]):
    """Items here, from shards elsewhere. Each iteration begins anew."""

    def __init__(self, base: Callable[[], Iterator[T]], name: str) -> None:
        self._base = base
        self.name = name

    def __iter__(self) -> Iterator[T]:
        return self._base()

    def __next__(self) -> T:
        if "_current" not in self.__dict__:
            self._current = iter(self)
        return next(self._current)

    def __repr__(self) -> str:
        return f"LocalIterator[{self.name}]"

    def _with(self, base: Callable[[], Iterator[Any]], name: str) -> LocalIterator[Any]:
        return LocalIterator(base, f"{self.name}.{name}")

    def transform(self, fn: Callable[[Iterator[T]], Iterator[U]]) -> LocalIterator[U]:
        """Makes an iterator of the iterator."""
        return self._with(lambda: fn(iter(self)), "transform()")

    def for_each(
        self, fn: Callable[[T], U], max_concurrency: int = 1, resources: dict[str, Any] | None = None
    ) -> LocalIterator[U]:
        """Applies a function to each item."""
        return self._with(lambda: map(fn, iter(self)), "for_each()")

    def filter(self, fn: Callable[[T], bool]) -> LocalIterator[T]:
        """Keeps the items of which a function says so."""
        return self._with(lambda: (item for item in self if fn(item)), "filter()")

    def batch(self, n: int) -> LocalIterator[list[T]]:
        """Lists of `n` items each."""
        return self._with(lambda: _batches(iter(self), n), f"batch({n})")

    def flatten(self) -> LocalIterator[Any]:
        """The items of items that are iterables."""
        return self._with(lambda: itertools.chain.from_iterable(self), "flatten()")  # type: ignore[arg-type]

    def combine(self, fn: Callable[[T], list[U]]) -> LocalIterator[U]:
        """Applies a function that gives a list, and takes the items of the lists."""
        return self.for_each(fn).flatten()

    def shuffle(self, shuffle_buffer_size: int, seed: int | None = None) -> LocalIterator[T]:
        """Mixes the items, as far as a buffer of so many allows."""
        return self._with(lambda: _shuffled(iter(self), shuffle_buffer_size, random.Random(seed)), "shuffle()")

    def zip_with_source_actor(self) -> LocalIterator[Any]:
        """Not offered: items come in batches, without their actor."""
        raise NotImplementedError("items are not told apart by their actors: let the shards' functions add what tells them apart")

    def union(self, *others: LocalIterator[T]) -> LocalIterator[T]:
        """The items of several iterators, one of each in turn."""

        def items() -> Iterator[T]:
            its = [iter(self), *map(iter, others)]
            while its:
                for it in list(its):
                    try:
                        yield next(it)
                    except StopIteration:
                        its.remove(it)

        return self._with(items, "union()")

    def duplicate(self, n: int) -> list[LocalIterator[T]]:
        """As many iterators over the same items, made once."""
        copies = itertools.tee(self, n)
        return [self._with(lambda it=it: iter(it), f"duplicate[{i}]") for i, it in enumerate(copies)]  # type: ignore[misc]

    def take(self, n: int) -> list[T]:
        """The first `n` items."""
        return list(itertools.islice(self, n))

    def show(self, n: int = 20) -> None:
        """Prints the first `n` items."""
        for item in itertools.islice(self, n):
            print(item)


def _batches(it: Iterable[T], n: int) -> Iterator[list[T]]:
    it = iter(it)
    while batch := list(itertools.islice(it, n)):
        yield batch


def _shuffled(it: Iterator[T], size: int, numbers: random.Random) -> Iterator[T]:
    if size < 1:
        raise ValueError("the buffer must have room for one item at least")
    buffer: list[T] = []
    for item in it:
        buffer.append(item)
        if len(buffer) >= size:
            yield buffer.pop(numbers.randrange(len(buffer)))
    numbers.shuffle(buffer)
    yield from buffer
