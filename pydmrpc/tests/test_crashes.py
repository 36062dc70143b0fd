"""Processes that are killed, at any time: every result ends with a value or an error, and nothing is left behind."""

import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

import pydmrpc
import pytest
from conftest import PATIENCE, until
from pydmrpc.exceptions import RayError


def children(pid):
    """All processes below one."""
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *children(child)]
    return found


def is_alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state != "Z"


def zygote():
    def is_zygote(pid):
        return b"pydmrpc._zygote" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()

    task = pathlib.Path(f"/proc/{os.getpid()}/task")
    direct = [int(child) for entry in task.glob("*/children") for child in entry.read_text().split()]
    return next(pid for pid in direct if is_zygote(pid))


@pydmrpc.remote
def work(n):
    time.sleep(0.001 * (n % 3))
    return n


@pydmrpc.remote(max_restarts=-1)
class Worker:
    def work(self, n):
        return n


def outcome(ref):
    try:
        return pydmrpc.get(ref, timeout=PATIENCE)
    except pydmrpc.exceptions.GetTimeoutError:
        raise
    except RayError as error:
        return error


def test_workers_are_killed_under_load(runtime):
    random.seed(1)
    stop = threading.Event()
    assert pydmrpc.get(work.remote(1), timeout=PATIENCE) == 1
    main = zygote()

    def kill():
        while not stop.wait(0.05):
            workers = children(main)
            if workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(random.choice(workers), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        actors = [Worker.remote() for _ in range(2)]
        for _ in range(10):
            refs = [(n, work.remote(n)) for n in range(50)] + [(n, actors[n % 2].work.remote(n)) for n in range(50)]
            for n, ref in refs:
                came = outcome(ref)
                assert came == n or isinstance(came, RayError), came
    finally:
        stop.set()
        killer.join()
    assert pydmrpc.get([work.remote(n) for n in range(20)], timeout=PATIENCE) == list(range(20))


def test_the_zygote_is_killed(runtime):
    assert pydmrpc.get(work.remote(1), timeout=PATIENCE) == 1
    old = zygote()
    os.kill(old, signal.SIGKILL)
    # More workers are needed than there are, so there is a new zygote.
    actors = [Worker.remote() for _ in range(6)]
    assert pydmrpc.get([actor.work.remote(5) for actor in actors], timeout=PATIENCE) == [5] * 6
    assert zygote() != old


DRIVER = """
    import os, sys, time
    import pydmrpc

    pydmrpc.init(num_cpus=2, pool="64MiB")

    @pydmrpc.remote
    def spin():
        while True:
            pass

    @pydmrpc.remote
    class Actor:
        def pid(self):
            return os.getpid()

    actor = Actor.remote()
    pydmrpc.get(actor.pid.remote())
    refs = [spin.remote(), spin.remote(), pydmrpc.put(bytes(1 << 20))]
    time.sleep(0.1)
    print("ready", flush=True)
    HOW
"""


@pytest.mark.parametrize("how", ["time.sleep(600)", "sys.exit(0)", "os._exit(0)", "pydmrpc.shutdown(); time.sleep(600)"])
def test_nothing_outlives_the_driver(how):
    driver = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER).replace("HOW", how)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert driver.stdout.readline() == "ready\n"
        below = children(driver.pid)
        if how == "time.sleep(600)":
            assert len(below) >= 3
            driver.kill()
        if "shutdown" not in how:
            driver.wait(PATIENCE)
        until(lambda: not any(map(is_alive, below)), "its processes end")
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()


def test_a_killed_driver_that_did_not_listen_leaves_no_complaints():
    driver = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER).replace("HOW", "time.sleep(600)")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout.readline() == "ready\n"
    driver.send_signal(signal.SIGSTOP)
    worker = children(driver.pid)[-1]
    os.kill(worker, signal.SIGKILL)
    until(lambda: not os.path.exists(f"/proc/{worker}"), "the zygote notices")
    driver.kill()
    _, complaints = driver.communicate(timeout=PATIENCE)
    assert complaints == ""


def test_the_next_session_removes_what_a_killed_driver_left():
    pydmrpc.shutdown()
    driver = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER).replace("HOW", "time.sleep(600)")], stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout.readline() == "ready\n"
    driver.kill()
    driver.wait()
    driver.stdout.close()
    pydmrpc.init(num_cpus=1, pool="64MiB")
    try:
        left = [path for path in os.listdir(tempfile.gettempdir()) if path.startswith(f"dmrpc-{driver.pid}-")]
        assert left == []
    finally:
        pydmrpc.shutdown()


def test_interrupt_in_get():
    pydmrpc.shutdown()
    program = """
        import _thread, signal, threading, time
        import pydmrpc

        # Whoever started the tests in the background may have had it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pydmrpc.init(num_cpus=1, pool="64MiB")

        @pydmrpc.remote
        def forever():
            time.sleep(600)

        ref = forever.remote()
        threading.Timer(0.3, _thread.interrupt_main).start()
        try:
            pydmrpc.get(ref)
        except KeyboardInterrupt:
            print("interrupted")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "interrupted\n", done.stderr


def test_fork_after_init():
    program = """
        import os
        import pydmrpc
        from pydmrpc.exceptions import ForkError

        pydmrpc.init(num_cpus=1, pool="64MiB")

        @pydmrpc.remote
        def one():
            return 1

        ref = one.remote()
        assert pydmrpc.get(ref) == 1
        pid = os.fork()
        if pid == 0:
            code = 0
            for use in (lambda: one.remote(), lambda: pydmrpc.get(ref), lambda: pydmrpc.wait([ref])):
                try:
                    use()
                    code = 1
                except ForkError:
                    pass
            del ref
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert pydmrpc.get(one.remote()) == 1
        print("fine")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "fine\n", done.stderr


def test_a_million_objects(runtime):
    for _ in range(100):
        refs = [pydmrpc.put(n) for n in range(10_000)]
        del refs
    for _ in range(20):
        refs = [work.options(num_cpus=0.5).remote(0) for _ in range(200)]
        pydmrpc.get(refs, timeout=PATIENCE)
        del refs
    large = [pydmrpc.put(bytes(10_000)) for _ in range(1000)]
    del large
    until(lambda: pydmrpc.memory().objects == 0, "no object is left")


def test_a_module_that_workers_can_not_import(runtime):
    """Workers that don't come up are an error, not a hang."""
    # The definition can't be read there: whoever asks for the result hears why.
    module = type(sys)("nowhere_else")
    exec("def f():\n    return 1", module.__dict__)
    module.f.__module__ = "nowhere_else"
    sys.modules["nowhere_else"] = module
    try:
        with pytest.raises(ModuleNotFoundError, match="nowhere_else"):
            pydmrpc.get(pydmrpc.remote(module.f).remote(), timeout=PATIENCE)
    finally:
        del sys.modules["nowhere_else"]
