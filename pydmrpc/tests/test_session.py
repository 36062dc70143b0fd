"""init, shutdown, figures, errors, forks, signals, threads."""

import multiprocessing
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pydmrpc
import pytest
from conftest import PATIENCE, Node, until
from pydmrpc.exceptions import (
    AccessDeniedError,
    DmrpcError,
    ForkError,
    GetTimeoutError,
    NodeUnreachableError,
    ObjectLostError,
    ObjectStoreFullError,
    QuotaExceededError,
    RayError,
    RaySystemError,
)


def run(code, *arguments):
    """Runs Python code in a process of its own; gives what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_init_and_shutdown():
    pydmrpc.shutdown()
    assert not pydmrpc.is_initialized()
    context = pydmrpc.init(pool="64MiB")
    assert pydmrpc.is_initialized()
    assert context.page_bytes == 4096
    assert context.is_local
    with pytest.raises(RuntimeError, match="shutdown"):
        pydmrpc.init()
    assert pydmrpc.init(ignore_reinit_error=True) == context
    pydmrpc.shutdown()
    pydmrpc.shutdown()
    assert not pydmrpc.is_initialized()
    again = pydmrpc.init(pool="64MiB", page_size="64KiB")
    assert again.node != context.node
    assert again.page_bytes == 65536
    assert pydmrpc.get(pydmrpc.put(np.ones(10_000))).sum() == 10_000
    pydmrpc.shutdown()


def test_init_by_itself():
    assert run("import pydmrpc; print(pydmrpc.get(pydmrpc.put(b'x' * 100_000))[:3])") == "b'xxx'"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"address": "unix:///nonexistent/socket"}, NodeUnreachableError),
        ({"address": "nonsense"}, ValueError),
        ({"address": "unix:///x", "pool": "1GiB"}, ValueError),
        ({"pool": "many"}, ValueError),
        ({"pool": []}, TypeError),
        ({"pool": "64MiB", "page_size": 5000}, (ValueError, RaySystemError)),
        ({"deadline": -1}, ValueError),
    ],
)
def test_bad_options(options, error):
    pydmrpc.shutdown()
    with pytest.raises(error):
        pydmrpc.init(**{"deadline": 5, **options})
    assert not pydmrpc.is_initialized()


def test_refs_after_shutdown(store):
    ref = pydmrpc.put(np.zeros(100_000))
    pydmrpc.shutdown()
    with pytest.raises(RayError) as caught:
        pydmrpc.get(ref)
    assert isinstance(caught.value, DmrpcError)
    assert "shut down" in str(caught.value)
    pydmrpc.init(pool="64MiB")
    with pytest.raises(RayError):
        pydmrpc.get(ref)


def test_a_full_pool():
    pydmrpc.shutdown()
    pydmrpc.init(pool="8MiB", deadline=5)
    with pytest.raises(ObjectStoreFullError, match="pool"):
        pydmrpc.put(np.zeros(64 << 20, "u1"))
    refs = []
    with pytest.raises(ObjectStoreFullError):
        for _ in range(100):
            refs.append(pydmrpc.put(np.ones(1 << 20, "u1")))
    assert len(refs) >= 4
    assert all(pydmrpc.get(ref)[0] == 1 for ref in refs)
    refs.clear()
    assert pydmrpc.get(pydmrpc.put(np.full(2 << 20, 3, "u1"))).sum() == 3 * (2 << 20)
    pydmrpc.shutdown()


def test_figures(store):
    ref = pydmrpc.put(np.zeros(1 << 20, "u1"))
    ref.grant()  # now the node knows of it
    memory = pydmrpc.memory()
    assert memory.pool == 512 << 20
    assert memory.objects >= 1
    assert memory.used >= 1 << 20
    assert memory.sessions == 1
    assert pydmrpc.stats()["page_bytes"] == 4096


def test_what_is_dropped_leaves_nothing(local_store):
    """A hundred thousand objects of each size; the rest of a million is of the small."""
    for count, size in ((900_000, 10), (99_000, 3000), (1000, 100_000)):
        content = bytes(size)
        for _ in range(count):
            pydmrpc.put(content)
    keep = [pydmrpc.put(bytes(5000)) for _ in range(1000)]
    assert pydmrpc.get(keep[-1]) == bytes(5000)
    keep.clear()
    until(lambda: pydmrpc.memory().used == 0, "all pages back")
    assert pydmrpc.stats()["objects"] == 0


def test_granted_objects_that_are_dropped_leave_nothing(store):
    refs = [pydmrpc.put(np.zeros(2000)) for _ in range(500)]
    grants = [ref.grant(ttl=0.05) for ref in refs]
    assert len(set(grants)) == 500
    refs.clear()
    until(lambda: pydmrpc.memory().used == 0, "all pages back")


def test_the_peak_of_a_large_put(node):
    """The array, the pages, and nothing else: 256 MiB twice. (The node is a process of its own, as it maps the pages too.)"""
    peak_over = run(
        """
        import resource, sys, numpy as np, pydmrpc
        size = 256 << 20
        pydmrpc.init(sys.argv[1])
        array = np.ones(size, "u1")
        pydmrpc.put(np.ones(100_000, "u1"))
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        before = peak()
        ref = pydmrpc.put(array)
        after = peak()
        assert pydmrpc.get(ref)[-1] == 1
        print(after - before)
        """,
        node.address,
    )
    assert int(peak_over) < (256 << 20) * 1.15


def test_a_killed_process_gives_its_pages_back(node):
    pydmrpc.init(node.address)
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
            import sys, time, numpy as np, pydmrpc
            pydmrpc.init(sys.argv[1])
            refs = [pydmrpc.put(np.ones(1 << 20, "u1")) for _ in range(20)]
            keep = [pydmrpc.get(ref) for ref in refs]
            print(refs[0].grant(), flush=True)
            refs[0].grant(ttl=0.0)
            time.sleep(1000)
            """
            ),
            node.address,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        ref = pydmrpc.redeem(child.stdout.readline().strip())
        assert pydmrpc.get(ref).sum() == 1 << 20
        child.kill()
        child.wait()
    finally:
        child.kill()
        child.stdout.close()
    until(lambda: pydmrpc.memory().sessions == 1, "the session of the dead")
    assert pydmrpc.memory().objects == 1, "what is held by the living stays"
    assert pydmrpc.get(ref).sum() == 1 << 20


def test_processes_share_objects(node):
    """Written here, read there, written there: neither sees what the other writes."""
    pydmrpc.init(node.address)
    array = np.arange(1_000_000)
    ref = pydmrpc.put(array)
    printed = run(
        """
        import sys, numpy as np, pydmrpc
        ref = pydmrpc.redeem(sys.argv[1])      # joins the node by itself
        a = pydmrpc.get(ref)
        assert a.sum() == sum(range(1_000_000))
        a[0] = 5
        new = pydmrpc.put(a)
        assert pydmrpc.get(ref[0]) == 0
        print(new.grant())
        """,
        ref.grant(),
    )
    new = pydmrpc.redeem(printed)
    expected = array.copy()
    expected[0] = 5
    assert np.array_equal(pydmrpc.get(new), expected)
    assert np.array_equal(pydmrpc.get(ref), array)
    sharing = pydmrpc.sharing(ref, new)
    assert sharing.shared == sharing.pages_a - 1


def test_a_node_that_does_not_answer(node):
    pydmrpc.init(node.address)
    ref = pydmrpc.put(np.arange(100_000))
    text = ref.grant()
    del ref
    ref = pydmrpc.redeem(text)  # where its pages are has to be asked for
    node.pause()
    try:
        with pytest.raises(GetTimeoutError, match="longer timeout"):
            pydmrpc.get(ref, timeout=0.05)
        with pytest.raises(GetTimeoutError):
            pydmrpc.get([pydmrpc.put(1), ref], timeout=0.05)
    finally:
        node.resume()
    assert pydmrpc.get(ref, timeout=PATIENCE).sum() == sum(range(100_000))


def test_interrupts(node):
    """Ctrl-C ends a wait."""
    pydmrpc.init(node.address)
    ref = pydmrpc.put(np.arange(100_000))
    waiter = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED), node.address, ref.grant()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert waiter.stdout.readline() == "ready\n"
        node.pause()
        waiter.stdin.close()
        assert waiter.stdout.readline() == "interrupted\n"
    finally:
        node.resume()
        waiter.kill()
        waiter.wait()
        waiter.stdin.close()
        waiter.stdout.close()


#: Waits for a node that does not answer, and is interrupted when it does so.
INTERRUPTED = """
import os, signal, sys, threading, time, pydmrpc

def interrupt(main, waiting):
    while sys._current_frames()[main].f_lineno != waiting:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

def wait():
    here = sys._getframe()
    threading.Thread(target=interrupt, args=(threading.get_ident(), here.f_lineno + 1)).start()
    pydmrpc.get(ref)

# Whoever started the tests in the background may have had it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
pydmrpc.init(sys.argv[1], deadline=30)
ref = pydmrpc.redeem(sys.argv[2])
print("ready", flush=True)
sys.stdin.read()
try:
    wait()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_only_the_slice_moves(node):
    """Over a network, what is read of a large object is what was asked for."""
    text = run(
        """
        import sys, numpy as np, pydmrpc
        pydmrpc.init(sys.argv[1])
        print(pydmrpc.put(np.arange(4_000_000)).grant())
        """,
        node.address,
    )
    context = pydmrpc.init(node.tcp_address)
    assert not context.is_local
    ref = pydmrpc.redeem(text)
    assert ref.shape is not None  # its trailer was read
    before = pydmrpc.stats()["bytes_read"]
    assert pydmrpc.get(ref[3_000_000:3_000_512]).tolist() == list(range(3_000_000, 3_000_512))
    assert pydmrpc.stats()["bytes_read"] - before == 4096


def test_tokens_and_quotas(tmp_path):
    pydmrpc.shutdown()
    node = Node(tmp_path, "--pool", "64MiB", "--hugepages", "never", "--tenant-token", "secret", "--tenant-token", "other")
    try:
        for token in (None, "wrong"):
            with pytest.raises(AccessDeniedError):
                pydmrpc.init(node.address, token=token, deadline=5)
        pydmrpc.init(node.address, token="secret", quota="8MiB", deadline=5)
        with pytest.raises(QuotaExceededError, match="quota"):
            pydmrpc.put(np.ones(16 << 20, "u1"))
        text = pydmrpc.put(np.ones(1 << 20, "u1")).grant()
        assert pydmrpc.get(pydmrpc.redeem(text)).sum() == 1 << 20
        pydmrpc.shutdown()
        pydmrpc.init(node.address, token=b"other")
        with pytest.raises((ObjectLostError, AccessDeniedError)):
            pydmrpc.redeem(text)
    finally:
        pydmrpc.shutdown()
        node.stop()


def test_a_dead_node(node):
    pydmrpc.init(node.address, deadline=5)
    ref = pydmrpc.put(np.zeros(100_000))
    view = pydmrpc.get(ref)
    node.process.kill()
    node.process.wait()
    with pytest.raises(RayError):
        for _ in range(10_000):
            pydmrpc.put(np.zeros(1_000_000)).grant()
    assert view.sum() == 0
    with pytest.raises(NodeUnreachableError):
        pydmrpc.stats()


def test_a_fork_says_so(store):
    ref = pydmrpc.put(np.zeros(100_000))
    small = pydmrpc.put(1)

    def child(connection):
        failures = []
        for act in (
            lambda: pydmrpc.get(ref),
            lambda: pydmrpc.get(small),
            lambda: pydmrpc.put(1),
            lambda: ref.edit(),
            lambda: ref.grant(),
            pydmrpc.stats,
            lambda: pydmrpc.init(pool="64MiB"),
        ):
            try:
                act()
                failures.append("nothing raised")
            except ForkError as error:
                if "spawn" not in str(error):
                    failures.append(str(error))
        pydmrpc.shutdown()
        connection.send(failures)

    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(there,))
    process.start()
    assert here.poll(PATIENCE)
    assert here.recv() == []
    process.join(PATIENCE)
    assert process.exitcode == 0
    assert pydmrpc.get(ref).sum() == 0, "the parent goes on"
    assert pydmrpc.memory().sessions == 1


def test_a_long_copy_lets_other_threads_run(local_store):
    """Another thread of Python's counts while bytes are copied in Rust."""
    counted, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            counted[0] += 1
            time.sleep(0)  # gives the GIL to whoever waits for it

    def counts_during(act):
        seen = []
        for _ in range(20):
            before = counted[0]
            act()
            seen.append(counted[0] - before)
        return sum(seen[5:])  # the first few may wait for memory

    array, content = np.ones(64 << 20, "u1"), b"x" * (64 << 20)
    ref = pydmrpc.put(content)
    counter = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    try:
        counter.start()
        # From now on nobody is asked to let go of the GIL: others have a turn only when it is let go of.
        sys.setswitchinterval(1000)
        assert counts_during(lambda: sum(range(100_000))) == 0, "the test sees who holds the GIL"
        assert counts_during(lambda: pydmrpc.put(array)) > 0
        assert counts_during(lambda: pydmrpc.get(ref)) > 0
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        counter.join()


def test_threads(store):
    failures = []

    def work(number):
        try:
            for step in range(200):
                value = bytes([number]) * (step * 100)
                ref = pydmrpc.put(value)
                assert pydmrpc.get(ref) == value
                assert pydmrpc.get(ref[: step * 10]) == value[: step * 10]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
