"""Stores to test against: a node embedded in this process, and a `dmrpc-memnode` of its own."""

import functools
import os
import pathlib
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
            [built("dmrpc-memnode"), "--listen", self.address, *options], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline(), "the node did not say that it is ready"

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


@pytest.fixture(params=["embedded", "memnode"])
def store(request, tmp_path):
    """A session, with an embedded node and with a node process."""
    pydmrpc.shutdown()
    if request.param == "embedded":
        yield pydmrpc.init(pool="512MiB")
        pydmrpc.shutdown()
    else:
        node = Node(tmp_path, "--pool", "512MiB", "--hugepages", "never")
        yield pydmrpc.init(node.address)
        pydmrpc.shutdown()
        node.stop()


@pytest.fixture
def embedded():
    """A session with an embedded node."""
    pydmrpc.shutdown()
    yield pydmrpc.init(pool="512MiB")
    pydmrpc.shutdown()
