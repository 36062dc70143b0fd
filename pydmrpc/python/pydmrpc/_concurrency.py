"""Where an actor's calls run when they don't run one by one on the main thread: threads, or an event loop.

The main thread hands a call over and goes on; whoever runs it answers by the call itself. Each *group* of methods has a limit of
calls that run at once, and those beyond it wait here, in the order in which they came.

1. Calls of a group begin in the order in which they came.
2. A call is answered exactly once, whatever happens to it.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import selectors
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from types import GeneratorType
from typing import Any

from pydmrpc import _core, _generator, exceptions

#: Calls of an actor with an event loop that run at once unless it says otherwise.
DEFAULT_ASYNC_CONCURRENCY = 1000

_Function = Callable[..., Any]
_Fails = Callable[[_core.Call, BaseException], None]
#: What the core gives a call to, with its arguments.
_Submit = Callable[[_core.Call, tuple[Any, ...], dict[str, Any] | None], None]

#: The task that code of an event loop runs for: many run on its one thread.
running_task: contextvars.ContextVar[tuple[int, int] | None] = contextvars.ContextVar("running_task", default=None)


def is_async(cls: type) -> bool:
    """Whether a class has methods for an event loop."""
    return any(
        inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
        for _, member in inspect.getmembers(cls, inspect.isfunction)
    )


class Threads:
    """Threads for each group."""

    def __init__(self, limits: Mapping[str | None, int], fails: _Fails) -> None:
        self._lines = {group: _Line(group or "calls", limit, fails) for group, limit in limits.items()}

    def submits(self, group: str | None, ahead: int | None, function: _Function) -> _Submit:
        """What a method's calls are given to; `ahead` is how far one that yields may be ahead of its caller."""
        line = self._lines[group]
        put = line.put

        def submit(call: _core.Call, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> None:
            put((call, ahead, function, args, kwargs))
            line.submitted += 1
            if line.may_grow:
                line.grow()

        return submit

    def cancel(self, task: tuple[int, int]) -> bool:
        """Threads can't be interrupted."""
        return False


class _Line:
    """The calls of a group that no thread has begun, and its threads.

    One idle thread is woken at a time, by the queue: while calls are so short that the first takes them all, the others sleep on.
    """

    def __init__(self, name: str, limit: int, fails: _Fails) -> None:
        self._name = name
        self._limit = limit
        self._fails = fails
        self._queue: SimpleQueue[tuple[_core.Call, int | None, _Function, tuple[Any, ...], dict[str, Any] | None]] = SimpleQueue()
        #: Has a call run. By the main thread only, which counts them.
        self.put = self._queue.put
        self.submitted = 0
        #: Whether there may be more threads.
        self.may_grow = True
        #: By each thread, how many calls it has run: so that no two write the same.
        self._done: list[int] = []

    def grow(self) -> None:
        """Starts a thread, unless one is idle."""
        place = len(self._done)
        if self.submitted - sum(self._done) > place:
            self._done.append(0)
            self.may_grow = place + 1 < self._limit
            threading.Thread(target=self._run, args=(place,), name=f"dmrpc-{self._name}_{place}", daemon=True).start()

    def _run(self, place: int) -> None:
        get, is_empty, done, leave = self._queue.get, self._queue.empty, self._done, _core.Call.leave
        while True:
            call, ahead, function, args, kwargs = get()
            before = call.enter()
            try:
                value = function(*args, **kwargs) if kwargs else function(*args)
                if isinstance(value, GeneratorType):
                    _generator.answer(call, value, ahead, self._fails)
                else:
                    # Answers before the last of those that wait are sent together.
                    call.finish(value, not is_empty())
                value = None
            except BaseException as error:
                self._fails(call, error)
            leave(before)
            # A thread that sleeps keeps none of it.
            del call, function, args, kwargs
            done[place] += 1


class _Group:
    """Calls of a group that run, and those that wait."""

    __slots__ = ("limit", "running", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self.waiting: deque[_Arrived] = deque()


#: A call: its group, what it calls, whether that is a coroutine function, how far it may be ahead of its caller, itself, arguments.
_Arrived = tuple[_Group, _Function, bool, int | None, _core.Call, tuple[Any, ...], dict[str, Any] | None]


class _Selector(selectors.EpollSelector):
    """What the event loop sleeps in: the link to the hub, which is told of what the loop listens to."""

    def __init__(self) -> None:
        super().__init__()
        #: How often the loop came here.
        self.turn = 0
        self._calls: _core.Calls | None = None
        self._take: Callable[[], None]
        self._leave: Callable[[], None]

    def open(self, calls: _core.Calls, take: Callable[[], None], leave: Callable[[], None]) -> None:
        """From now on calls are taken: `take` is called when there are some, `leave` when there will be no more."""
        self._calls, self._take, self._leave = calls, take, leave
        calls.listen(self.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turn += 1
        calls = self._calls
        if calls is None:
            return super().select(timeout)
        ready = super().select(0)
        came = calls.poll(0 if ready or (timeout is not None and timeout <= 0) else timeout)
        if came:
            self._take()
            return ready
        if came is None:
            self._leave()
        # It may be what we listen to that ended the sleep.
        return ready or super().select(0)


class EventLoop:
    """An event loop on the main thread.

    A call has the event loop's task for itself from where it first waits for something. What does not wait at all, one after another, is
    run by one task, unless a call has left something behind in it: a reference to it, or a variable of its context.
    """

    def __init__(self, limits: Mapping[str | None, int], fails: _Fails) -> None:
        self._groups = {group: _Group(limit) for group, limit in limits.items()}
        self._fails = fails
        #: Tasks by the calls that they run.
        self._running: dict[tuple[int, int], asyncio.Task[None]] = {}
        #: Those of them that were cancelled by whoever called.
        self._cancelled: set[tuple[int, int]] = set()
        # What came and was not begun.
        self._arrived: deque[_Arrived] = deque()
        self._is_due = False
        self._context = contextvars.copy_context()
        self._selector = _Selector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        asyncio.set_event_loop(self._loop)

    def submits(self, group: str | None, ahead: int | None, function: _Function) -> _Submit:
        """What a method's calls are given to; `ahead` is how far one that yields may be ahead of its caller."""
        arrive, entry, awaits = self._arrived.append, self._groups[group], inspect.iscoroutinefunction(function)
        return lambda call, args, kwargs: arrive((entry, function, awaits, ahead, call, args, kwargs))

    def make(self, cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An instance of a class, made in the loop."""

        async def there() -> Any:
            made = cls.__new__(cls, *args, **kwargs) if cls.__new__ is not object.__new__ else cls.__new__(cls)
            # It may be a coroutine, too.
            waits: Any = made.__init__(*args, **kwargs)
            if inspect.isawaitable(waits):
                await waits
            return made

        return self._loop.run_until_complete(there())

    def serve(self, calls: _core.Calls) -> None:
        """Runs calls until there will be no more."""
        self._selector.open(calls, self._take, self._loop.stop)
        self._loop.run_forever()

    def cancel(self, task: tuple[int, int]) -> bool:
        """Cancels a call that runs or waits; whether there was such a one. By the handler of a signal."""
        known = (
            task in self._running
            or any(waiting[4].task == task for waiting in self._arrived)
            or any(waiting[4].task == task for group in self._groups.values() for waiting in group.waiting)
        )
        if known:
            self._loop.call_soon_threadsafe(self._cancel, task)
        return known

    def _cancel(self, id: tuple[int, int]) -> None:
        if task := self._running.get(id):
            self._cancelled.add(id)
            task.cancel()
            return
        for group in self._groups.values():
            for waiting in group.waiting:
                if waiting[4].task == id:
                    group.waiting.remove(waiting)
                    waiting[4].cancelled()
                    return

    def _take(self) -> None:
        """Begins what arrived."""
        self._is_due = False
        if (first := self._next()) is not None:
            self._begin(first)

    def _begin(self, first: _Arrived) -> None:
        # Whoever begins it may be a task with variables of its own.
        self._loop.create_task(self._run(first), context=self._context.copy())

    def _next(self) -> _Arrived | None:
        """The first call that arrived and may run."""
        while self._arrived:
            what = self._arrived.popleft()
            group = what[0]
            if group.running < group.limit:
                group.running += 1
                return what
            group.waiting.append(what)
        return None

    async def _run(self, first: _Arrived) -> None:
        task: asyncio.Task[None] = asyncio.current_task()  # type: ignore[assignment]
        selector, arrived, running, turn = self._selector, self._arrived, self._running, self._selector.turn
        references, context = sys.getrefcount(task), contextvars.copy_context()
        what: _Arrived | None = first
        del first
        while what is not None:
            group, function, awaits, ahead, call, args, kwargs = what
            what = None
            if arrived and not self._is_due:
                # If this call waits for something, others go on.
                self._is_due = True
                self._loop.call_soon(self._take)
            id = call.task
            running[id] = task
            token = running_task.set(id)
            value: Any = None
            try:
                value = function(*args, **kwargs) if kwargs else function(*args)
                if awaits:
                    value = await value
                    if id in self._cancelled:
                        # It went on all the same; nobody waits for what it returns.
                        raise asyncio.CancelledError
                elif inspect.isawaitable(value):
                    value = await value
                elif inspect.isasyncgen(value):
                    values: Any = value
                    await _generator.answer_async(call, values, ahead, self._fails)
                    value = _ANSWERED
                elif inspect.isgenerator(value):
                    _generator.answer(call, value, ahead, self._fails)
                    value = _ANSWERED
            except asyncio.CancelledError:
                self._fails(call, exceptions.TaskCancelledError("the call was cancelled"))
            except BaseException as error:
                self._fails(call, error)
            else:
                if value is not _ANSWERED:
                    # It is on its way at the end of the loop's turn.
                    call.finish(value, True)
            del running[id]
            self._cancelled.discard(id)
            # What is waited for from here on need not keep these.
            del value, args, kwargs
            running_task.reset(token)
            if group.waiting:
                what = group.waiting.popleft()
            else:
                group.running -= 1
                what = self._next()
            if what is not None and (
                selector.turn != turn or sys.getrefcount(task) != references or task.cancelling() or not _is_now(context)
            ):
                self._begin(what)
                return


#: The value of a call that was answered already.
_ANSWERED = object()


def _is_now(context: contextvars.Context) -> bool:
    """Whether the variables are what they were."""
    try:
        return contextvars.copy_context() == context
    except Exception:
        # Of values that can't be compared.
        return False
