"""References between Python and an actor in Rust, which runs in a process of its own."""

import asyncio
import subprocess

import numpy as np
import pydmrpc
import pytest
from conftest import PATIENCE, built, until
from pydmrpc.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    MalformedError,
    NodeUnreachableError,
)


def checksum(content):
    hashed = 0xCBF29CE484222325
    for byte in bytes(content):
        hashed = (hashed ^ byte) * 0x100000001B3 % 2**64
    return hashed


class Peer:
    def __init__(self, store, address):
        self.process = subprocess.Popen(
            [built("dmrpc-python-peer"), store, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = self.process.stdout.readline().strip()
        assert self.address, "the peer did not say that it is ready"

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.stdout.close()


@pytest.fixture(params=["unix", "tcp"])
def peer(request, store, tmp_path):
    address = f"unix://{tmp_path}/peer.sock" if request.param == "unix" else "tcp://127.0.0.1:0"
    peer = Peer(store.address, address)
    yield peer
    peer.stop()


@pytest.fixture
def handle(peer):
    return pydmrpc.connect(peer.address)


@pytest.mark.parametrize("length", [0, 1, 1000, 5000, 70_000])
def test_bytes_both_ways(handle, length):
    content = bytes(i % 253 for i in range(length))
    ref = pydmrpc.put(content)
    assert handle.checksum(ref) == checksum(content)
    assert handle.call("checksum", ref[length // 2 :]) == checksum(content[length // 2 :])
    made = handle.make(length, 7)
    assert (made.kind, made.nbytes) == ("raw", length)
    assert pydmrpc.get(made).tobytes() == b"\7" * length
    assert handle.checksum(made) == checksum(b"\7" * length)


def test_arrays_are_slices_of_numbers(handle):
    for count in (3, 100_000):
        array = np.arange(count, dtype="f8")
        ref = pydmrpc.put(array)
        assert handle.sum(ref) == array.sum()
        assert handle.sum(ref[1:3]) == 3
        assert handle.sum(array) == array.sum()
        back = handle.echo(ref)
        assert np.array_equal(pydmrpc.get(back.view("f8")), array)


def test_values_without_a_payload_go_whole(handle):
    for value in ({"a": np.arange(100_000)}, [1, 2], None):
        np.testing.assert_equal(pydmrpc.get(handle.echo(pydmrpc.put(value))), value)


def test_copy_on_write_on_both_sides(handle):
    content = np.arange(100_000).astype("u1")
    ref = pydmrpc.put(content)
    written = content.copy()
    written[50_000] = 255
    # The actor writes into its picture: nobody here sees it.
    mine = pydmrpc.get(ref)
    assert handle.scribble(ref, 50_000, 255) == checksum(written)
    assert np.array_equal(mine, content)
    assert np.array_equal(pydmrpc.get(ref), content)
    # Written here: the actor sees nothing of it.
    mine[3] = 99
    assert handle.checksum(ref) == checksum(content)
    # What the actor edits is another object, which shares all pages but one.
    edited = handle.edit(ref, 50_000, 255)
    assert np.array_equal(pydmrpc.get(edited.view("u1")), written)
    assert np.array_equal(pydmrpc.get(ref), content)
    # And what is stored here of what the actor made is its difference.
    made = handle.make(100 * 4096, 1)
    array = pydmrpc.get(made.view("u1"))
    array[0] = 2
    new = pydmrpc.put(array)
    assert handle.checksum(new) == checksum(b"\2" + b"\1" * (100 * 4096 - 1))
    assert pydmrpc.sharing(made, new).shared == 99


def test_what_the_actor_keeps_outlives_us(handle):
    ref = pydmrpc.put(np.full(100_000, 3, "u1"))
    assert handle.keep(ref) == 1
    del ref
    (back,) = handle.kept()
    assert (pydmrpc.get(back.view("u1")) == 3).all()
    del back
    handle.forget()
    until(lambda: pydmrpc.memory().used == 0, "all pages back")


def test_what_the_actor_made_outlives_it(handle, peer):
    ref = handle.make(100_000, 5)
    view = pydmrpc.get(ref)
    peer.stop()
    assert pydmrpc.get(ref).tobytes() == b"\5" * 100_000
    assert view.tobytes() == b"\5" * 100_000


def test_lists_and_structs(handle):
    parts = [pydmrpc.put(b"abc"), pydmrpc.put(bytes(5000))]
    assert handle.describe("parts", parts) == {"name": "parts", "bytes": 5003, "first": ord("a")}
    assert handle.describe("ñ", []) == {"name": "ñ", "bytes": 0, "first": None}


def test_tell_and_futures(handle):
    ref = pydmrpc.put(bytes(5000))
    handle.tell("keep", ref)
    handle.keep.tell(ref)
    assert handle.keep.future(ref).result(PATIENCE) == 3

    async def both():
        return await asyncio.gather(*[asyncio.wrap_future(handle.checksum.future(ref)) for _ in range(5)])

    assert asyncio.run(both()) == [checksum(bytes(5000))] * 5


def test_errors(handle, peer):
    with pytest.raises(AttributeError, match="no_such_method"):
        handle.no_such_method()
    with pytest.raises(MalformedError):
        handle.sum("text")
    with pytest.raises(MalformedError):
        handle.sum()
    with pytest.raises(TypeError, match="complex"):
        handle.sum(1j)
    with pytest.raises(GetTimeoutError):
        handle.sleep(60_000, timeout=0.05)
    with pytest.raises(ValueError, match="nobody"):
        pydmrpc.connect(peer.address.replace("#peer", "#nobody"))
    with pytest.raises(ValueError, match="ADDRESS#NAME"):
        pydmrpc.connect(peer.address.replace("#peer", ""))
    with pytest.raises(ActorUnavailableError):
        pydmrpc.connect("unix:///nonexistent/socket#peer", timeout=5)


def test_an_actor_that_panics(handle):
    with pytest.raises(ActorDiedError, match="for a reason"):
        handle.panic("for a reason")
    with pytest.raises((ActorDiedError, ValueError)):
        handle.checksum(pydmrpc.put(b""))


def test_an_actor_whose_process_is_killed(handle, peer):
    ref = pydmrpc.put(bytes(100_000))
    handle.keep(ref)
    peer.process.kill()
    peer.process.wait()
    with pytest.raises(ActorUnavailableError):
        handle.checksum(ref)
    del ref
    until(lambda: pydmrpc.memory().used == 0, "all pages back")


def test_references_of_a_node_that_is_gone(tmp_path):
    pydmrpc.shutdown()
    pydmrpc.init(pool="64MiB")
    ref = pydmrpc.put(bytes(100_000))
    pydmrpc.shutdown()
    context = pydmrpc.init(pool="64MiB")
    peer = Peer(context.address, f"unix://{tmp_path}/peer.sock")
    try:
        with pytest.raises((NodeUnreachableError, pydmrpc.exceptions.RayError)):
            pydmrpc.connect(peer.address).checksum(ref)
    finally:
        peer.stop()
        pydmrpc.shutdown()
