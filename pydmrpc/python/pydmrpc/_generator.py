"""Tasks that yield: what drains a generator in a worker, and what its caller iterates over.

Result 0 of such a task is there at its end, and is its failure if it failed. Its values are the results 1, 2, …; the caller takes
hold of them one after another, of those that are there and of the next. After the last comes the failure, if there is one,
and then an end that is no value. ``pydmrpc/hub/src/streams.rs`` keeps them.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from typing import Any

from pydmrpc import _core, _futures

#: `returns` of a task whose values come one by one, as the core counts it.
STREAM = 0xFFFF_FFFF


def returns(number: int | str | None, is_generator: bool) -> int:
    """What the core is told of ``num_returns``.

    Raises:
        ValueError: for what is none.
    """
    if number is None:
        return STREAM if is_generator else 1
    if isinstance(number, str):
        return STREAM if number == "streaming" else 1
    return number


def answer(
    call: _core.Call, values: Iterable[Any], ahead: int | None, fails: Callable[[_core.Call, BaseException], None]
) -> None:
    """Runs a generator and answers its call: value by value, or all at the end if the caller asked for a number of them.

    Args:
        call: what is answered.
        values: the generator.
        ahead: how many values it may be ahead of its caller.
        fails: answers the call with an exception.
    """
    try:
        if not call.is_stream:
            _finish(call, values)
            return
        for index, value in enumerate(values, 1):
            call.yields(index, value)
            if ahead is not None and index >= ahead:
                _core.wait([call.taken(index + 1 - ahead)])
    except BaseException as error:
        fails(call, error)
    else:
        call.finish(None)


async def answer_async(
    call: _core.Call, values: AsyncGenerator[Any, None], ahead: int | None, fails: Callable[[_core.Call, BaseException], None]
) -> None:
    """As :func:`answer`, of an asynchronous generator."""
    try:
        if not call.is_stream:
            collected: list[Any] = []
            failure: BaseException | None = None
            try:
                async for value in values:
                    collected.append(value)
            except Exception as error:
                failure = error
            _finish(call, _replayed(collected, failure))
            return
        index = 0
        async for value in values:
            index += 1
            call.yields(index, value)
            if ahead is not None and index >= ahead:
                await _futures.presence(call.taken(index + 1 - ahead))
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        fails(call, error)
    else:
        call.finish(None)


def _finish(call: _core.Call, values: Iterable[Any]) -> None:
    """Answers with all values at once; if the generator raises, those before that are values all the same."""
    made: list[Any] = []
    failure: Exception | None = None
    try:
        for value in values if call.returns == 1 else itertools.islice(values, call.returns):
            made.append(value)
    except Exception as error:
        if not made:
            raise
        failure = error
    if call.returns != 1:
        call.finish_each(made, failure)
        return
    refs = [_core.put(value) for value in made]
    if failure is not None:
        refs.append(_raising(failure))
    call.finish(DynamicObjectRefGenerator(refs))


def _replayed(values: list[Any], failure: BaseException | None) -> Iterator[Any]:
    yield from values
    if failure is not None:
        raise failure


def _raising(error: Exception) -> _core.ObjectRef:
    """A reference to a value that is not there because of an exception."""
    from pydmrpc import _api

    def fail(error: Exception) -> None:
        raise error

    ref: _core.ObjectRef = _api.remote(num_cpus=0)(fail).remote(error)
    return ref


class DynamicObjectRefGenerator:
    """What ``num_returns="dynamic"`` gives: references to all values of a task that has ended. It can be passed on."""

    def __init__(self, refs: list[_core.ObjectRef]) -> None:
        self._refs = refs

    def __iter__(self) -> Iterator[_core.ObjectRef]:
        while self._refs:
            yield self._refs.pop(0)

    def __len__(self) -> int:
        return len(self._refs)


class ObjectRefGenerator:
    """References to the values of a task that yields, one after another, each as soon as it is there.

    It is an iterator and an asynchronous iterator. :func:`pydmrpc.wait` takes it in place of its next reference, and
    :func:`pydmrpc.cancel` to end its task. It belongs to the process that called the task.

    Example::

        for ref in numbers.remote(10):
            print(pydmrpc.get(ref))
    """

    def __init__(self, end: _core.ObjectRef) -> None:
        self._end = end
        self._index = 1
        self._upcoming: _core.ObjectRef | None = None

    def __iter__(self) -> Iterator[_core.ObjectRef]:
        return self

    def __next__(self) -> _core.ObjectRef:
        """A reference to the next value, once it is there."""
        ref = self._peek()
        if not ref.is_ready():
            _core.wait([ref])
        return self._take(ref, StopIteration)

    def __aiter__(self) -> AsyncIterator[_core.ObjectRef]:
        return self

    async def __anext__(self) -> _core.ObjectRef:
        ref = self._peek()
        if not ref.is_ready():
            await _futures.presence(ref)
        return self._take(ref, StopAsyncIteration)

    def _peek(self) -> _core.ObjectRef:
        """A reference to the next value, if there is one, whether it is there or not."""
        if self._upcoming is None:
            self._upcoming = self._end._value(self._index)
        return self._upcoming

    def _take(self, ref: _core.ObjectRef, end: type[Exception]) -> _core.ObjectRef:
        if ref._is_end():
            raise end
        self._upcoming = None
        self._index += 1
        return ref

    def _next_sync(self, timeout_s: float | None = None) -> _core.ObjectRef | NilRef:
        """A reference to the next value; one to nothing if it is not there in time."""
        ref = self._peek()
        if not _core.wait([ref], timeout=timeout_s)[0]:
            return NilRef()
        return self._take(ref, StopIteration)

    def completed(self) -> _core.ObjectRef:
        """A reference that is ready when the task has ended."""
        return self._end

    def is_finished(self) -> bool:
        """Whether all values were taken, and the task has ended."""
        return self._end.is_ready() and self._upcoming is not None and self._upcoming._is_end()

    def next_ready(self) -> bool:
        """Whether the next value is there."""
        return bool(self._peek().is_ready())

    def __reduce__(self) -> Any:
        raise TypeError("a generator of references belongs to the process that called its task: pass the references on")

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._end.hex()})"


class NilRef:
    """A reference to nothing."""

    def is_nil(self) -> bool:
        """True."""
        return True


def wrapped(remote: Callable[..., Any], returns: int) -> Callable[..., Any]:
    """`remote`, but that it gives a generator where values come one by one."""
    if returns != STREAM:
        return remote
    return lambda *args, **kwargs: ObjectRefGenerator(remote(*args, **kwargs))
