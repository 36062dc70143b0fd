"""A node and an actor within TLS, from Python."""

import re
import subprocess

import numpy as np
import pydmrpc
import pytest
from conftest import Node, built
from pydmrpc.exceptions import NodeUnreachableError
from test_actor import Peer, checksum


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Options of addresses, by what they are: those of a host with a certificate, and the authority alone."""
    folders = [tmp_path_factory.mktemp(name) for name in ("authority", "another")]
    for folder in folders:
        subprocess.run([built("dmrpc-test-authority"), folder], check=True)
    ours, others = folders
    return {
        "host": f"?ca={ours}/ca.pem&cert={ours}/host.pem&key={ours}/host.key",
        "nobody": f"?ca={ours}/ca.pem",
        "stranger": f"?ca={others}/ca.pem&cert={others}/host.pem&key={others}/host.key",
    }


@pytest.fixture
def address(files, tmp_path):
    """A node for those who have a certificate, and nobody connected; its address without options."""
    pydmrpc.shutdown()
    listen = f"tls://127.0.0.1:0{files['host']}"
    node = Node(tmp_path, "--pool", "256MiB", "--hugepages", "never", "--listen", listen)
    yield re.search(r"tls://[^,\s]+", node.ready)[0]
    pydmrpc.shutdown()
    node.stop()


def test_values_within_tls(address, files):
    assert "?" not in address
    pydmrpc.init(address + files["host"])
    for value in (b"bytes" * 100_000, {"a": 1}, np.arange(1_000_000)):
        back = pydmrpc.get(pydmrpc.put(value))
        assert np.array_equal(back, value) if isinstance(value, np.ndarray) else back == value
    array = pydmrpc.get(pydmrpc.put(np.zeros(1_000_000)))
    array[7] = 1
    assert pydmrpc.get(pydmrpc.put(array)).sum() == 1


def test_who_gets_in(address, files):
    for who, why in (("nobody", "asks for a certificate"), ("stranger", "not accepted")):
        with pytest.raises(NodeUnreachableError, match=why):
            pydmrpc.init(address + files[who])
    with pytest.raises(ValueError, match="ca=FILE"):
        pydmrpc.init(address)


def test_an_actor_within_tls(files, tmp_path):
    """It is in another process, and is passed references to what lies in the node of this one."""
    pydmrpc.shutdown()
    node = Node(tmp_path, "--pool", "256MiB", "--hugepages", "never")
    peer = Peer(node.address, f"tls://127.0.0.1:0{files['host']}")
    try:
        pydmrpc.init(node.address)
        address, name = peer.address.split("#")
        assert "?" not in address
        handle = pydmrpc.connect(f"{address}{files['host']}#{name}")
        assert handle.checksum(pydmrpc.put(b"x" * 70_000)) == checksum(b"x" * 70_000)
    finally:
        pydmrpc.shutdown()
        peer.stop()
        node.stop()
