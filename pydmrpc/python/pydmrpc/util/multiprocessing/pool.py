"""`Pool`: the interface of `multiprocessing.pool.Pool`, on actors."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import TimeoutError
from typing import Any

import pydmrpc

_Function = Callable[..., Any]

#: A pool cuts what it maps into as many parts for each process, unless told otherwise.
_PARTS_PER_PROCESS = 4


class Pool:
    """A pool of processes, each an actor, with the methods of `multiprocessing.Pool`.

    Args:
        processes: how many; as many as there are CPUs by default.
        initializer: called in each process at its start.
        initargs: its arguments.
        maxtasksperchild: how many parts of work a process does before another takes its place.
        context: not used; there for programs that pass it.
        ray_address: where to :func:`pydmrpc.init` if there is no session.
        ray_remote_args: options of the actors.

    Example::

        with Pool(2) as pool:
            pool.map(abs, [-1, 2, -3])      # [1, 2, 3]
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: _Function | None = None,
        initargs: Iterable[Any] | None = None,
        maxtasksperchild: int | None = None,
        context: Any = None,
        ray_address: str | None = None,
        ray_remote_args: dict[str, Any] | None = None,
    ) -> None:
        if processes is not None and not isinstance(processes, int):
            raise TypeError("the number of processes must be an int")
        if processes is not None and processes < 1:
            raise ValueError("the number of processes must be positive")
        if initializer is not None and not callable(initializer):
            raise TypeError("the initializer can't be called")
        if not pydmrpc.is_initialized():
            pydmrpc.init(ray_address)
        count = processes or max(1, int(pydmrpc.cluster_resources().get("CPU", 1)))
        self._initializer = initializer, tuple(initargs or ())
        self._limit = maxtasksperchild
        self._options = ray_remote_args or {}
        self._class = pydmrpc.remote(_Process)
        self._processes = [self._start() for _ in range(count)]
        # Parts of work that each process was given, and which of them are not known to be done.
        self._done = [0] * count
        self._pending: list[deque[Any]] = [deque() for _ in range(count)]
        self._closed = False
        self._watcher = _Watcher()
        # What is under way holds the pool, so that an abandoned one ends with its last result.
        self._lock = threading.Lock()

    def _start(self) -> Any:
        return self._class.options(**self._options).remote(*self._initializer)

    def __enter__(self) -> Pool:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def __reduce__(self) -> Any:
        raise NotImplementedError("a pool can't be passed to other processes: pass what is to be done to it")

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the pool is closed: nothing more can be given to it")

    def _submit(self, function: _Function, calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]) -> Any:
        """Gives a part of work to the process that has least to do."""
        with self._lock:
            for queue in self._pending:
                if queue:
                    ready, _ = pydmrpc.wait(list(queue), num_returns=len(queue), timeout=0)
                    done = set(ready)
                    for ref in [ref for ref in queue if ref in done]:
                        queue.remove(ref)
            at = min(range(len(self._pending)), key=lambda i: len(self._pending[i]))
            if self._limit is not None and self._done[at] >= self._limit:
                # The old process ends when it has done what it was given.
                self._processes[at] = self._start()
                self._done[at] = 0
            ref = self._processes[at].run.remote(function, list(calls))
            self._done[at] += 1
            self._pending[at].append(ref)
            return ref

    def _parts(self, function: _Function, calls: Iterable[tuple[Any, ...]], chunksize: int | None) -> list[Any]:
        listed = list(calls)
        if chunksize is None:
            chunksize = max(1, -(-len(listed) // (_PARTS_PER_PROCESS * len(self._processes))))
        if chunksize < 1:
            raise ValueError("chunksize must be at least 1")
        return [
            self._submit(function, [(call, {}) for call in listed[i : i + chunksize]]) for i in range(0, len(listed), chunksize)
        ]

    def apply(self, func: _Function, args: Iterable[Any] | None = None, kwargs: dict[str, Any] | None = None) -> Any:
        """Calls ``func(*args, **kwargs)`` in a process and gives its result."""
        return self.apply_async(func, args, kwargs).get()

    def apply_async(
        self,
        func: _Function,
        args: Iterable[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        callback: _Function | None = None,
        error_callback: _Function | None = None,
    ) -> AsyncResult:
        """Calls ``func(*args, **kwargs)`` in a process; what it gives is asked for the result."""
        self._check_open()
        ref = self._submit(func, [(tuple(args or ()), kwargs or {})])
        return self._result([ref], callback, error_callback, single=True)

    def map(self, func: _Function, iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """Results of ``func(item)`` for all items, in their order."""
        return list(self.map_async(func, iterable, chunksize).get())

    def map_async(
        self,
        func: _Function,
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: _Function | None = None,
        error_callback: _Function | None = None,
    ) -> AsyncResult:
        """As :meth:`map`, without waiting."""
        self._check_open()
        refs = self._parts(func, ((item,) for item in iterable), chunksize)
        return self._result(refs, callback, error_callback)

    def starmap(self, func: _Function, iterable: Iterable[Iterable[Any]], chunksize: int | None = None) -> list[Any]:
        """Results of ``func(*item)`` for all items, in their order."""
        return list(self.starmap_async(func, iterable, chunksize).get())

    def starmap_async(
        self,
        func: _Function,
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: _Function | None = None,
        error_callback: _Function | None = None,
    ) -> AsyncResult:
        """As :meth:`starmap`, without waiting."""
        self._check_open()
        refs = self._parts(func, (tuple(item) for item in iterable), chunksize)
        return self._result(refs, callback, error_callback)

    def imap(self, func: _Function, iterable: Iterable[Any], chunksize: int = 1) -> IMapIterator:
        """Results of ``func(item)`` in the order of the items, one by one; items are taken as processes become idle."""
        self._check_open()
        return IMapIterator(self, func, iterable, chunksize, ordered=True)

    def imap_unordered(self, func: _Function, iterable: Iterable[Any], chunksize: int = 1) -> IMapIterator:
        """Results of ``func(item)`` as they are ready."""
        self._check_open()
        return IMapIterator(self, func, iterable, chunksize, ordered=False)

    def _result(
        self, refs: list[Any], callback: _Function | None, error_callback: _Function | None, *, single: bool = False
    ) -> AsyncResult:
        result = AsyncResult(refs, single=single)
        if callback is not None or error_callback is not None:
            self._watcher.watch(result, callback, error_callback)
        return result

    def close(self) -> None:
        """Nothing more can be given to the pool; what it has is done."""
        self._closed = True

    def terminate(self) -> None:
        """Ends the processes at once."""
        self._closed = True
        for process in self._processes:
            pydmrpc.kill(process)
        self._watcher.stop()

    def join(self) -> None:
        """Waits until all that was given to the pool is done, and ends its processes.

        Raises:
            ValueError: if it was neither closed nor terminated.
        """
        if not self._closed:
            raise ValueError("the pool still runs: close or terminate it first")
        refs = [ref for queue in self._pending for ref in queue]
        if refs:
            pydmrpc.wait(refs, num_returns=len(refs))
        self._watcher.stop()
        self._processes.clear()


class _Process:
    """What each of a pool's actors is."""

    def __init__(self, initializer: _Function | None, arguments: tuple[Any, ...]) -> None:
        if initializer is not None:
            initializer(*arguments)

    def run(self, function: _Function, calls: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[tuple[bool, Any]]:
        """Results of the calls: whether each returned, and what, or what it raised."""
        results = []
        for arguments, keywords in calls:
            try:
                results.append((True, function(*arguments, **keywords)))
            except Exception as error:
                results.append((False, error))
        return results


class AsyncResult:
    """A result to come, with the methods of `multiprocessing.pool.AsyncResult`."""

    def __init__(self, refs: list[Any], *, single: bool = False) -> None:
        self._refs = refs
        self._single = single

    def wait(self, timeout: float | None = None) -> None:
        """Waits until it is there, or for `timeout` seconds."""
        if self._refs:
            pydmrpc.wait(self._refs, num_returns=len(self._refs), timeout=timeout)

    def get(self, timeout: float | None = None) -> Any:
        """The result.

        Raises:
            multiprocessing.TimeoutError: if it does not come within `timeout` seconds.
            Exception: what the function raised.
        """
        self.wait(timeout)
        if not self.ready():
            raise TimeoutError("the result is not there yet: ask again, or wait for longer")
        values = []
        for returned, value in itertools.chain.from_iterable(pydmrpc.get(self._refs)):
            if not returned:
                raise value
            values.append(value)
        return values[0] if self._single else values

    def ready(self) -> bool:
        """Whether it is there."""
        return not self._refs or len(pydmrpc.wait(self._refs, num_returns=len(self._refs), timeout=0)[0]) == len(self._refs)

    def successful(self) -> bool:
        """Whether nothing was raised.

        Raises:
            ValueError: if it is not there yet.
        """
        if not self.ready():
            raise ValueError("the result is not there yet: wait for it first")
        try:
            self.get()
        except Exception:
            return False
        return True


class _Watcher:
    """A thread that calls back, started when there is something to watch."""

    def __init__(self) -> None:
        self._watched: list[tuple[AsyncResult, _Function | None, _Function | None]] = []
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def watch(self, result: AsyncResult, callback: _Function | None, error_callback: _Function | None) -> None:
        with self._condition:
            self._watched.append((result, callback, error_callback))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pool-callbacks", daemon=True)
                self._thread.start()
            self._condition.notify()

    def stop(self) -> None:
        """Ends the thread once it has called back for what is done."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._watched and not self._stopping:
                    self._condition.wait()
                watched = list(self._watched)
                stopping = self._stopping
            done = [entry for entry in watched if entry[0].ready()]
            for result, callback, error_callback in done:
                try:
                    value = result.get()
                except Exception as error:
                    if error_callback is not None:
                        error_callback(error)
                else:
                    if callback is not None:
                        callback(value)
            with self._condition:
                self._watched = [entry for entry in self._watched if entry not in done]
            if stopping:
                return
            if not done:
                # One thread for all: any of several results may be the next.
                refs = list(dict.fromkeys(ref for result, _, _ in watched for ref in result._refs))
                pending = pydmrpc.wait(refs, num_returns=len(refs), timeout=0)[1] if refs else []
                if pending:
                    pydmrpc.wait(pending, num_returns=1, timeout=0.1)


class IMapIterator:
    """Results of :meth:`Pool.imap` and :meth:`Pool.imap_unordered`."""

    def __init__(self, pool: Pool, function: _Function, iterable: Iterable[Any], chunksize: int, *, ordered: bool) -> None:
        if chunksize < 1:
            raise ValueError("chunksize must be at least 1")
        self._pool = pool
        self._function = function
        self._items = iter(iterable)
        self._chunksize = chunksize
        self._ordered = ordered
        self._pending: list[Any] = []
        self._results: deque[tuple[bool, Any]] = deque()
        for _ in range(2 * len(pool._processes)):
            self._submit()

    def _submit(self) -> None:
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
        calls = [((item,), {}) for item in itertools.islice(self._items, self._chunksize)]
        if calls:
            self._pending.append(self._pool._submit(self._function, calls))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result.

        Raises:
            StopIteration: if there are no more.
            multiprocessing.TimeoutError: if it does not come within `timeout` seconds.
            Exception: what the function raised.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._results:
            if not self._pending:
                raise StopIteration
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            candidates = self._pending[:1] if self._ordered else self._pending
            ready, _ = pydmrpc.wait(candidates, num_returns=1, timeout=left)
            if not ready:
                raise TimeoutError("the next result is not there yet: ask again, or wait for longer")
            self._pending.remove(ready[0])
            self._submit()
            self._results.extend(pydmrpc.get(ready[0]))
        returned, value = self._results.popleft()
        if not returned:
            raise value
        return value
