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
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydmrpc import _core, _generator, exceptions

#: Calls of an actor with an event loop that run at once unless it says otherwise.
DEFAULT_ASYNC_CONCURRENCY = 1000

_Function = Callable[..., Any]
#: A call with what it calls: how far it may be ahead of its caller, the function, its arguments.
_Waiting = tuple[_core.Call, int | None, Callable[..., Any], tuple[Any, ...], dict[str, Any]]

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

    def __init__(self, limits: Mapping[str | None, int], fails: Callable[[_core.Call, BaseException], None]) -> None:
        self._pools = {
            group: ThreadPoolExecutor(limit, thread_name_prefix=f"dmrpc-{group or 'calls'}") for group, limit in limits.items()
        }
        # What no thread has begun: answers before the last of them are sent together.
        self._waiting: dict[str | None, deque[_Waiting]] = {group: deque() for group in limits}
        self._fails = fails

    def submit(
        self,
        call: _core.Call,
        group: str | None,
        ahead: int | None,
        function: _Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Has a call run."""
        waiting = self._waiting[group]
        waiting.append((call, ahead, function, args, kwargs))
        self._pools[group].submit(self._run, waiting)

    def cancel(self, task: tuple[int, int]) -> bool:
        """Threads can't be interrupted."""
        return False

    def _run(self, waiting: deque[_Waiting]) -> None:
        call, ahead, function, args, kwargs = waiting.popleft()
        before = call.enter()
        try:
            value = function(*args, **kwargs)
            if inspect.isgenerator(value):
                _generator.answer(call, value, ahead, self._fails)
                return
        except BaseException as error:
            self._fails(call, error)
        else:
            call.finish(value, bool(waiting))
        finally:
            _core.Call.leave(before)


class _Group:
    """Calls of a group that run, and those that wait."""

    __slots__ = ("limit", "running", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self.waiting: deque[_Waiting] = deque()


class EventLoop:
    """An event loop on a thread of its own."""

    def __init__(self, limits: Mapping[str | None, int], fails: Callable[[_core.Call, BaseException], None]) -> None:
        self._groups = {group: _Group(limit) for group, limit in limits.items()}
        self._fails = fails
        self._tasks: dict[tuple[int, int], asyncio.Task[None]] = {}
        # What came and was not seen by the loop yet. It is woken for the first of them only.
        self._arrived: deque[tuple[str | None, _Waiting]] = deque()
        self._is_woken = False
        self._will_flush = False
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="dmrpc-loop", daemon=True).start()

    def submit(
        self,
        call: _core.Call,
        group: str | None,
        ahead: int | None,
        function: _Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Has a call run."""
        self._arrived.append((group, (call, ahead, function, args, kwargs)))
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._take)

    def cancel(self, task: tuple[int, int]) -> bool:
        """Cancels a call that runs or waits; whether there was such a one."""
        known = task in self._tasks or any(
            waiting[0].task == task for group in self._groups.values() for waiting in group.waiting
        )
        if known:
            self._loop.call_soon_threadsafe(self._cancel, task)
        return known

    def run(self, function: _Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a function on the loop's thread, and waits for it."""

        async def there() -> Any:
            return function(*args, **kwargs)

        return asyncio.run_coroutine_threadsafe(there(), self._loop).result()

    def _cancel(self, id: tuple[int, int]) -> None:
        if task := self._tasks.get(id):
            task.cancel()
            return
        for group in self._groups.values():
            for waiting in group.waiting:
                if waiting[0].task == id:
                    group.waiting.remove(waiting)
                    waiting[0].cancelled()
                    return

    def _take(self) -> None:
        # First, so that whoever comes from now on wakes us again.
        self._is_woken = False
        while self._arrived:
            name, waiting = self._arrived.popleft()
            group = self._groups[name]
            if group.running < group.limit:
                self._begin(group, *waiting)
            else:
                group.waiting.append(waiting)

    def _finish(self, call: _core.Call, value: Any) -> None:
        """Answers; what others answer in this turn of the loop is sent with it."""
        if self._will_flush:
            call.finish(value, True)
        elif len(self._tasks) > 1 or self._arrived:
            call.finish(value, True)
            self._will_flush = True
            self._loop.call_soon(self._flush, call)
        else:
            call.finish(value)

    def _flush(self, call: _core.Call) -> None:
        self._will_flush = False
        call.flush()

    def _begin(
        self,
        group: _Group,
        call: _core.Call,
        ahead: int | None,
        function: _Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        group.running += 1
        id = call.task
        self._tasks[id] = self._loop.create_task(self._run(id, group, call, ahead, function, args, kwargs))

    async def _run(
        self,
        id: tuple[int, int],
        group: _Group,
        call: _core.Call,
        ahead: int | None,
        function: _Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        running_task.set(id)
        try:
            value = function(*args, **kwargs)
            if inspect.isawaitable(value):
                value = await value
            elif inspect.isasyncgen(value):
                values: Any = value
                await _generator.answer_async(call, values, ahead, self._fails)
                return
            elif inspect.isgenerator(value):
                _generator.answer(call, value, ahead, self._fails)
                return
        except asyncio.CancelledError:
            self._fails(call, exceptions.TaskCancelledError("the call was cancelled"))
        except BaseException as error:
            self._fails(call, error)
        else:
            self._finish(call, value)
        finally:
            del self._tasks[id]
            group.running -= 1
            if group.waiting and group.running < group.limit:
                self._begin(group, *group.waiting.popleft())
