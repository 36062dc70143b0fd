"""`dmrpc`: a system that outlives programs."""

import json
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import pydmrpc
import pytest

PATIENCE = 60


def dmrpc(*arguments, environment=None):
    command = [sys.executable, "-m", "pydmrpc._command", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment)


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system of its own: what others find it by lies where temporary files do."""
    pydmrpc.shutdown()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = dmrpc("start", "--num-cpus", "3", environment=environment)
    assert done.returncode == 0, done.stderr + "".join(path.read_text() for path in tmp_path.rglob("head.log"))
    yield lambda *arguments: dmrpc(*arguments, environment=environment)
    pydmrpc.shutdown()
    dmrpc("stop", environment=environment)
    assert not list(pathlib.Path(tmp_path).rglob("head.json"))


def test_a_driver_joins_and_leaves(system):
    for _ in range(2):
        pydmrpc.init(address="auto", namespace="tests")
        assert pydmrpc.cluster_resources()["CPU"] == 3

        @pydmrpc.remote
        def where():
            return os.getpid()

        assert pydmrpc.get(where.remote()) != os.getpid()
        pydmrpc.shutdown()


def test_what_workers_print_comes_to_who_joined(system):
    program = """
        import pydmrpc, sys

        pydmrpc.init(address="auto")

        @pydmrpc.remote
        def inner():
            print("from the inner task", flush=True)

        @pydmrpc.remote
        class Outer:
            def __init__(self):
                print("from the actor", file=sys.stderr, flush=True)

            def call(self):
                pydmrpc.get(inner.remote())

        pydmrpc.get(Outer.remote().call.remote())
        # What was printed is on its way, and this waits for a line of it to be there.
        sys.stdin.readline()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        out, error = driver.stdout.readline(), driver.stderr.readline()
        driver.stdin.close()
        assert driver.wait(PATIENCE) == 0
    assert re.fullmatch(r"\(inner pid=\d+\) from the inner task\n", out)
    assert re.fullmatch(r"\(Outer pid=\d+\) from the actor\n", error)


def test_a_detached_actor_stays(system):
    @pydmrpc.remote
    class Counter:
        def __init__(self):
            self.n = 0

        def add(self):
            self.n += 1
            return self.n

    for expected in (1, 2):
        pydmrpc.init(address="auto", namespace="tests")
        counter = Counter.options(name="counter", lifetime="detached", get_if_exists=True).remote()
        assert pydmrpc.get(counter.add.remote()) == expected
        pydmrpc.shutdown()
    listed = json.loads(system("list", "actors", "--format", "json", "--filter", "state=ALIVE").stdout)
    assert [(row["class_name"].rpartition(".")[2], row["name"], row["ray_namespace"]) for row in listed] == [
        ("Counter", "counter", "tests")
    ]


def test_what_it_tells(system):
    assert "0/3 CPU" in system("status").stdout
    assert "objects of the store" in system("memory").stdout
    assert system("top", "--once").returncode == 0
    assert system("list", "nodes").stdout.startswith("NODE_ID")
    assert system("list", "tasks", "--filter", "nonsense").returncode == 2
    assert system("start").returncode == 1


def test_what_programs_count(system):
    assert system("metrics").stdout == ""
    for _ in range(2):
        pydmrpc.init(address="auto")
        pydmrpc.util.metrics.Counter("started", "programs").inc()
        pydmrpc.shutdown()
    assert system("metrics").stdout.splitlines()[-1] == "started_total 2.0"


def test_where_nothing_runs(tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    assert dmrpc("status", environment=environment).returncode == 1
    assert dmrpc("stop", environment=environment).returncode == 0
    assert dmrpc("nonsense", environment=environment).returncode == 2
