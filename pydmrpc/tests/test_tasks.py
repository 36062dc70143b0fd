"""Functions that run elsewhere."""

import contextlib
import os
import threading
import time

import numpy as np
import pydmrpc
import pytest
from conftest import PATIENCE, until


@pydmrpc.remote
def add(a, b=1):
    return a + b


@pydmrpc.remote
def identity(value):
    return value


VALUES = [None, True, 5, 1 << 100, 2.5, "text", "x" * 10_000, b"bytes", (1, "a"), [1, [2]], {"a": {1}}, bytearray(b"abc"), slice(3)]


@pytest.mark.parametrize("value", VALUES, ids=[type(value).__name__ + str(i) for i, value in enumerate(VALUES)])
def test_values_come_back(runtime, value):
    assert pydmrpc.get(identity.remote(value), timeout=PATIENCE) == value


def test_arguments(runtime):
    assert pydmrpc.get(add.remote(1), timeout=PATIENCE) == 2
    assert pydmrpc.get(add.remote(1, 2), timeout=PATIENCE) == 3
    assert pydmrpc.get(add.remote(b=5, a=1), timeout=PATIENCE) == 6


def test_many_results_in_order(runtime):
    refs = [add.remote(i) for i in range(2000)]
    assert pydmrpc.get(refs, timeout=PATIENCE) == list(range(1, 2001))


def test_references_are_resolved_at_the_top_only(runtime):
    put, result = pydmrpc.put(10), add.remote(1)

    @pydmrpc.remote
    def look(top, result, nested):
        assert isinstance(nested[0], pydmrpc.ObjectRef)
        assert isinstance(nested[1], pydmrpc.ObjectRef)
        return top, result, pydmrpc.get(nested)

    assert pydmrpc.get(look.remote(put, result, [put, result]), timeout=PATIENCE) == (10, 2, [10, 2])


def test_large_arrays(runtime):
    array = np.arange(1 << 20)
    ref = identity.remote(array)
    back = pydmrpc.get(ref, timeout=PATIENCE)
    assert (back == array).all()
    back[0] = 5
    assert pydmrpc.get(identity.remote(ref), timeout=PATIENCE)[0] == 0
    assert pydmrpc.get(ref[10:12]).tolist() == [10, 11]
    assert pydmrpc.get(pydmrpc.get(identity.remote([ref]), timeout=PATIENCE)[0]).sum() == array.sum()


def test_results_outlive_their_worker(runtime):
    @pydmrpc.remote
    def make():
        return os.getpid(), np.ones(1 << 20)

    ref = make.remote()
    pid, array = pydmrpc.get(ref, timeout=PATIENCE)
    with contextlib.suppress(ProcessLookupError):  # one that idles may have been ended already
        os.kill(pid, 9)
    assert array.sum() == 1 << 20
    assert pydmrpc.get(ref)[1].sum() == 1 << 20


def test_several_returns(runtime):
    @pydmrpc.remote(num_returns=2)
    def pair(n):
        return range(n)

    a, b = pair.remote(2)
    assert pydmrpc.get([a, b], timeout=PATIENCE) == [0, 1]
    with pytest.raises(ValueError, match="num_returns=2"):
        pydmrpc.get(pair.remote(3)[0], timeout=PATIENCE)
    assert add.options(num_returns=0).remote(1) is None


def test_nested_tasks_do_not_starve(runtime):
    @pydmrpc.remote
    def fib(n):
        return n if n < 2 else sum(pydmrpc.get([fib.remote(n - 1), fib.remote(n - 2)]))

    assert pydmrpc.get(fib.remote(7), timeout=PATIENCE) == 13


def test_wait(runtime):
    @pydmrpc.remote
    def gate(path):
        while not os.path.exists(path):
            pass
        return 1

    fast = add.remote(1)
    slow = gate.remote(f"/nonexistent/{os.getpid()}")
    done, rest = pydmrpc.wait([slow, fast], timeout=PATIENCE)
    assert (done, rest) == ([fast], [slow])
    assert pydmrpc.wait([slow], timeout=0.01) == ([], [slow])
    with pytest.raises(pydmrpc.exceptions.GetTimeoutError):
        pydmrpc.get(slow, timeout=0.01)
    pydmrpc.cancel(slow, force=True)
    with pytest.raises(pydmrpc.exceptions.TaskCancelledError):
        pydmrpc.get(slow, timeout=PATIENCE)


def test_second_session():
    pydmrpc.shutdown()
    for _ in range(2):
        pydmrpc.init(num_cpus=1, pool="64MiB")
        assert pydmrpc.get(add.remote(1), timeout=PATIENCE) == 2
        pydmrpc.shutdown()


def test_a_worker_asks_for_all_at_once(runtime):
    @pydmrpc.remote
    def fail():
        raise ValueError("first")

    @pydmrpc.remote
    def gather():
        refs = [fail.remote(), add.remote(1)]
        with pytest.raises(ValueError, match="first"):
            pydmrpc.get(refs)
        # Nobody asks for the second any more, and it comes.
        until(refs[1].is_ready, "what nobody asks for any more")

    pydmrpc.get(gather.remote(), timeout=PATIENCE)


def test_wait_takes_each_once(runtime):
    refs = [add.remote(i) for i in range(100)]
    pending, done = list(refs), []
    while pending:
        ready, pending = pydmrpc.wait(pending, timeout=PATIENCE)
        done += ready
    assert set(done) == set(refs)
    assert pydmrpc.wait(refs, num_returns=2) == (refs[:2], refs[2:])
    for twice in ([refs[0]] * 2, [pydmrpc.put(1)] * 2):
        with pytest.raises(ValueError, match="unique"):
            pydmrpc.wait(twice)


def test_somebody_reads_after_several_threads_have_waited(runtime, tmp_path):
    @pydmrpc.remote
    def late(seconds):
        time.sleep(seconds)

    @pydmrpc.remote
    class Toucher:
        def touch(self, path):
            path.touch()

    # The last of several who wait is still listed as waiting while it reads.
    for turn in range(3):
        refs = [late.remote(0.02 * n) for n in range(3)]
        threads = [threading.Thread(target=pydmrpc.get, args=(ref,)) for ref in refs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        time.sleep(0.1)  # the keeper goes to sleep, if it ever does
        path = tmp_path / str(turn)
        toucher = Toucher.remote()
        toucher.touch.remote(path)
        until(path.exists, "a new actor's call runs although nobody waits for it")


def test_workers_compute_with_one_thread(runtime):
    @pydmrpc.remote
    def threads():
        return os.environ["OMP_NUM_THREADS"]

    assert pydmrpc.get(threads.remote(), timeout=PATIENCE) == os.environ.get("OMP_NUM_THREADS", "1")
