"""Actors with an event loop, with threads, and references that are awaited."""

import asyncio
import contextvars
import threading
import time

import pydmrpc
import pytest
from conftest import PATIENCE, until
from pydmrpc.exceptions import RaySystemError, TaskCancelledError


@pydmrpc.remote
def after(path, value):
    """`value`, once the file is there."""
    end = time.monotonic() + PATIENCE
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.005)
    return value


@pydmrpc.remote
class Loop:
    def __init__(self):
        self.log = []
        self.variable = contextvars.ContextVar("variable", default="nothing")
        self.kept = None
        self.ticks = 0
        self.background = asyncio.get_running_loop().create_task(self._tick())

    async def _tick(self):
        while True:
            await asyncio.sleep(0.001)
            self.ticks += 1

    async def ticked(self):
        return self.ticks

    async def now(self, value):
        return value

    async def later(self, value, turns=1):
        for _ in range(turns):
            await asyncio.sleep(0)
        return value

    async def sets(self):
        before = self.variable.get()
        self.variable.set("set")
        return before

    async def keeps(self):
        self.kept = asyncio.current_task()

    async def cancels_kept(self):
        self.kept.cancel()

    async def cancels_itself(self):
        asyncio.current_task().cancel()
        return "went on"

    async def forever(self):
        try:
            await asyncio.sleep(10 * PATIENCE)
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise

    async def logged(self):
        return self.log

    async def awaits(self, refs):
        return await asyncio.gather(*refs)

    async def elsewhere(self):
        return await asyncio.to_thread(lambda: threading.current_thread() is threading.main_thread())

    async def on_main(self):
        return threading.current_thread() is threading.main_thread()

    async def raises(self):
        raise ValueError("so it is")

    def plain(self):
        return "plain"

    async def yields(self, count):
        for i in range(count):
            await asyncio.sleep(0)
            yield i


def get(ref):
    return pydmrpc.get(ref, timeout=PATIENCE)


@pytest.fixture(scope="module")
def loop(runtime):
    return Loop.remote()


def test_calls_that_wait_and_calls_that_do_not(loop):
    refs = []
    for i in range(300):
        refs += [loop.now.remote(i), loop.later.remote(i, i % 4), loop.plain.remote()]
    assert get(refs) == [value for i in range(300) for value in (i, i, "plain")]
    with pytest.raises(ValueError, match="so it is"):
        get(loop.raises.remote())
    assert [get(ref) for ref in loop.yields.options(num_returns="streaming").remote(5)] == list(range(5))
    assert get(loop.on_main.remote())
    assert not get(loop.elsewhere.remote())


def test_a_call_leaves_nothing_to_the_next(loop):
    assert get([loop.sets.remote() for _ in range(50)]) == ["nothing"] * 50
    # They arrive together, so that one task may run all of them: but not what comes after one that is known to somebody.
    refs = [call() for _ in range(20) for call in (loop.keeps.remote, loop.cancels_kept.remote, lambda: loop.now.remote(1))]
    assert get(refs) == [None, None, 1] * 20
    refs = [call() for _ in range(20) for call in (loop.cancels_itself.remote, lambda: loop.later.remote(2))]
    assert get(refs) == ["went on", 2] * 20


def test_timers_go_on_while_no_call_comes(loop):
    first = get(loop.ticked.remote())
    until(lambda: get(loop.ticked.remote()) > first + 3, "the actor's own task runs")


def test_a_call_that_waits_is_cancelled(loop):
    ref = loop.forever.remote()
    get(loop.now.remote(1))
    pydmrpc.cancel(ref)
    with pytest.raises(TaskCancelledError):
        get(ref)
    assert get(loop.logged.remote()) == ["cancelled"]
    assert get(loop.now.remote(2)) == 2


def test_an_actor_awaits_references(loop, tmp_path):
    gate = tmp_path / "gate"
    refs = [after.remote(gate, i) for i in range(3)]
    answer = loop.awaits.remote([refs[0]])
    assert get(loop.now.remote(1)) == 1
    gate.touch()
    assert get(answer) == [0]
    assert get(loop.awaits.remote(refs)) == [0, 1, 2]


def test_no_thread_waits_for_what_is_awaited(runtime, tmp_path):
    gate = tmp_path / "gate"

    async def main():
        refs = [after.options(num_cpus=0.01).remote(gate, i) for i in range(20)]
        threads = threading.active_count()
        waiting = [asyncio.ensure_future(_value(ref)) for ref in refs]
        # The same reference, given up again and again.
        for _ in range(50):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(_value(refs[0]), 0.001)
        assert threading.active_count() == threads
        gate.touch()
        return await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)

    assert asyncio.run(main()) == list(range(20))


async def _value(ref):
    return await ref


def test_futures_share_a_thread(runtime, tmp_path):
    gate = tmp_path / "gate"
    threads = threading.active_count()
    refs = [after.options(num_cpus=0.01).remote(gate, i) for i in range(20)]
    futures = [ref.future() for ref in refs]
    assert threading.active_count() <= threads + 1
    assert futures[0].cancel()
    gate.touch()
    assert [future.result(PATIENCE) for future in futures[1:]] == list(range(1, 20))
    assert refs[1].future().result(0) == 1


def test_what_waits_when_the_session_ends_hears_so(tmp_path):
    pydmrpc.shutdown()
    pydmrpc.init(num_cpus=1, pool="64MiB")
    gate = tmp_path / "gate"
    future = after.remote(gate, 1).future()

    async def main():
        waiting = asyncio.ensure_future(_value(after.remote(gate, 2)))
        await asyncio.sleep(0)
        pydmrpc.shutdown()
        with pytest.raises(RaySystemError):
            await asyncio.wait_for(waiting, PATIENCE)

    asyncio.run(main())
    with pytest.raises(RaySystemError):
        future.result(PATIENCE)


@pydmrpc.remote(max_concurrency=8)
class Threads:
    def __init__(self):
        self.inside = threading.Barrier(8)

    def meets(self):
        """All eight threads run at once, or this fails."""
        return self.inside.wait(PATIENCE)

    def now(self, value):
        return value


def test_as_many_threads_as_it_may_have(runtime):
    threads = Threads.remote()
    assert sorted(get([threads.meets.remote() for _ in range(8)])) == list(range(8))
    assert get([threads.now.remote(i) for i in range(1000)]) == list(range(1000))
    assert sorted(get([threads.meets.remote() for _ in range(8)])) == list(range(8))
