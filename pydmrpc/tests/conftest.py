"""Stores to test against: a node embedded in this process, and a `dmrpc-memnode` of its own."""

import functools
import os
import pathlib
import re
import signal
import subprocess
import time

import pydmrpc
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

#: How long a test waits for what must come; nothing is expected to take as long.
PATIENCE = 60.0


def until(condition, what):
    """Waits until `condition()` holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        time.sleep(0.005)


@functools.cache
def built(package):
    """The binary of a package of this workspace, as cargo builds it now."""
    subprocess.run(["cargo", "build", "--quiet", "--package", package], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return str(target / "debug" / package)


class Node:
    """A `dmrpc-memnode` process."""

    def __init__(self, directory, *options):
        self.address = f"unix://{directory}/node.sock"
        self.process = subprocess.Popen(
            [built("dmrpc-memnode"), "--listen", self.address, "--listen", "tcp://127.0.0.1:0", *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self.process.stdout.readline()
        assert self.ready, "the node did not say that it is ready"
        self.tcp_address = re.search(r"tcp://[^,\s]+", self.ready)[0]

    def pause(self):
        """Stops the process where it is, all its threads."""
        self.process.send_signal(signal.SIGSTOP)
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task")

        def is_stopped(task):
            return (task / "stat").read_text().rpartition(") ")[2][0] == "T"

        until(lambda: all(map(is_stopped, tasks.iterdir())), "the node's threads stop")

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.stdout.close()


@pytest.fixture
def node(tmp_path):
    """A node process with a pool of 512 MiB, and nobody connected."""
    pydmrpc.shutdown()
    node = Node(tmp_path, "--pool", "512MiB", "--hugepages", "never")
    yield node
    pydmrpc.shutdown()
    node.stop()


def session(kind, directory):
    """A session with a node within this process, of another process on this host, or of one as if it were elsewhere."""
    pydmrpc.shutdown()
    if kind == "embedded":
        yield pydmrpc.init(pool="512MiB")
        pydmrpc.shutdown()
    else:
        node = Node(directory, "--pool", "512MiB", "--hugepages", "never")
        yield pydmrpc.init(node.tcp_address if kind == "tcp" else node.address)
        pydmrpc.shutdown()
        node.stop()


@pytest.fixture(params=["embedded", "memnode", "tcp"])
def store(request, tmp_path):
    """A session, with each kind of node."""
    yield from session(request.param, tmp_path)


@pytest.fixture(params=["embedded", "memnode"])
def local_store(request, tmp_path):
    """A session, with each kind of node on this host: for tests that move too much for a network."""
    yield from session(request.param, tmp_path)


@pytest.fixture
def embedded():
    """A session with an embedded node."""
    pydmrpc.shutdown()
    yield pydmrpc.init(pool="512MiB")
    pydmrpc.shutdown()


@pytest.fixture(scope="module")
def runtime():
    """A session that tasks and actors run in, one for all tests of a file."""
    pydmrpc.shutdown()
    yield pydmrpc.init(num_cpus=4, pool="512MiB")
    pydmrpc.shutdown()
