"""Who holds what: `util.state.list_objects` asks all processes, whatever they do."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pydmrpc
import pytest
from conftest import PATIENCE, until
from pydmrpc.util import state

HERE = pathlib.Path(__file__).name


@pytest.fixture
def session():
    pydmrpc.shutdown()
    yield pydmrpc.init(num_cpus=2, pool="256MiB")
    pydmrpc.shutdown()


def rows(**columns):
    """All rows that have these columns."""
    filters = [(name, "=", value) for name, value in columns.items()]
    return state.list_objects(filters=filters, limit=None, timeout=PATIENCE)


def line(text):
    """`file:line` of the line of this file that ends in a text."""
    lines = pathlib.Path(__file__).read_text().splitlines()
    return f"{HERE}:{next(number for number, line in enumerate(lines, 1) if line.endswith(text))}"


def test_what_this_process_put_and_where(session):
    ref = pydmrpc.put(np.zeros(100_000))  # the array
    (row,) = rows(object_id=ref.hex())
    assert row.call_site.endswith(line("# the array"))
    assert (row.kind, row.type, row.pid, row.reference_type) == ("array", "DRIVER", os.getpid(), "LOCAL_REFERENCE")
    assert 800_000 <= row.object_size < 810_000
    part = ref[10:20]  # a part
    assert {row.object_size for row in rows(object_id=part.hex())} == {80}
    with part.edit() as edit:
        edit[0] = 1
    assert len(rows(pid=os.getpid())) == 3
    name = ref.hex()
    del ref, part, edit
    assert rows(object_id=name) == []


def test_what_a_worker_put_while_it_computes(session, tmp_path):
    @pydmrpc.remote
    def work(path):
        ref = pydmrpc.put(b"x" * 50_000)  # within the task
        # One call that holds the interpreter's lock from here on: no other thread of this process runs Python.
        sys.setswitchinterval(1000)
        pathlib.Path(path).write_text(ref.hex())
        while os.path.exists(path):
            pass

    path = tmp_path / "running"
    task = work.remote(str(path))
    until(lambda: path.exists() and path.read_text(), "the task runs")
    found = rows(object_id=path.read_text())
    assert [(row.type, row.kind) for row in found] == [("WORKER", "bytes")]
    assert found[0].pid != os.getpid()
    assert found[0].call_site.endswith(line("# within the task"))
    path.unlink()
    pydmrpc.get(task)


def test_results_have_a_row_for_each_process_that_holds_them(session):
    @pydmrpc.remote
    class Keeper:
        def keep(self, refs):
            self.refs = refs
            return os.getpid()

    @pydmrpc.remote
    def make():
        return b"x" * 1000

    ref, keeper = make.remote(), Keeper.remote()
    pid = pydmrpc.get(keeper.keep.remote([ref]))
    pydmrpc.get(ref)
    until(lambda: {row.pid for row in rows(object_id=ref.hex())} == {os.getpid(), pid}, "both hold it")
    assert all("make" in row.call_site for row in rows(object_id=ref.hex()))
    name = ref.hex()
    del ref
    until(lambda: [row.pid for row in rows(object_id=name)] == [pid], "the actor alone holds it")
    assert state.summarize_objects()["cluster"]["total_objects"] >= 1


PROGRAM = """
    import os, sys, pydmrpc

    pydmrpc.init(address=sys.argv[1])
    ref = pydmrpc.put(b"y" * 30_000)
    print(ref.hex(), flush=True)
    if sys.argv[2] == "computes":
        sys.setswitchinterval(1000)
        while os.path.exists(sys.argv[3]):
            pass
    elif sys.argv[2] == "polls":
        pending = pydmrpc.remote(lambda: None).options(num_cpus=100).remote()
        while os.path.exists(sys.argv[3]):
            pydmrpc.wait([pending], timeout=0)
    else:
        @pydmrpc.remote(num_cpus=0)
        def wait(path):
            import time
            while os.path.exists(path):
                time.sleep(0.01)

        pydmrpc.get(wait.remote(sys.argv[3]))
"""


@pytest.mark.parametrize("manner", ["computes", "polls", "waits"])
def test_a_driver_that_joined(tmp_path, manner):
    pydmrpc.shutdown()
    pydmrpc.init(num_cpus=2, pool="128MiB", resources={"never": 0})
    path = tmp_path / "running"
    path.touch()
    program = textwrap.dedent(PROGRAM)
    command = [sys.executable, "-c", program, pydmrpc.hub_address(), manner, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        name = driver.stdout.readline().strip()
        for _ in range(20):
            assert [(row.pid, row.type) for row in rows(object_id=name)] == [(driver.pid, "DRIVER")]
        path.unlink()
        assert driver.wait(PATIENCE) == 0
    until(lambda: rows(object_id=name) == [], "what it held went with it")
    pydmrpc.shutdown()


def test_a_process_that_does_not_answer_is_listed_as_such(session):
    @pydmrpc.remote
    class Stopped:
        def pid(self):
            return os.getpid()

    actor = Stopped.remote()
    pid = pydmrpc.get(actor.pid.remote())
    os.kill(pid, signal.SIGSTOP)
    try:
        # Signals are not there at once.
        until(
            lambda: any(row.pid == pid and row.task_status == "NO_ANSWER" for row in state.list_objects(limit=None, timeout=0.2)),
            "the process that is stopped is found out",
        )
        assert rows_within(0.2, pid=os.getpid()) == []
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: rows(pid=pid) == [], "it answers again")


def rows_within(seconds, **columns):
    filters = [(name, "=", value) for name, value in columns.items()]
    return state.list_objects(filters=filters, limit=None, timeout=seconds)


def test_it_is_asked_from_a_worker_and_by_many_at_once(session):
    ref = pydmrpc.put(b"z" * 20_000)

    @pydmrpc.remote(num_cpus=0.1)
    def ask(name):
        return [row.pid for row in state.list_objects(filters=[("object_id", "=", name)], limit=None)]

    assert pydmrpc.get([ask.remote(ref.hex()) for _ in range(50)], timeout=PATIENCE) == [[os.getpid()]] * 50
