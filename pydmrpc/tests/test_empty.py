"""Arrays that are allocated in the store."""

import gc

import numpy as np
import pydmrpc
import pytest
from conftest import until


@pytest.mark.parametrize("shape", [(), 0, 10, (300, 400), (1000, 1000)])
@pytest.mark.parametrize("dtype", ["u1", "<f8", "S3", "<M8[s]"])
def test_what_is_filled_is_stored(store, shape, dtype):
    a = pydmrpc.empty(shape, dtype)
    assert (a.dtype, a.shape) == (np.dtype(dtype), np.empty(shape).shape)
    content = np.arange(a.size).astype("i8").reshape(a.shape).astype(dtype)
    a[...] = content
    ref = pydmrpc.put(a)
    assert np.array_equal(pydmrpc.get(ref), content)
    assert np.array_equal(a, content)


def test_put_copies_nothing(embedded):
    """The pages of the object are those that were allocated, so there is room for no copy of them."""
    pydmrpc.shutdown()
    pydmrpc.init(pool="48MiB", deadline=5)
    a = pydmrpc.empty(32 << 20, "u1")
    a[:] = 3
    ref = pydmrpc.put(a)
    assert pydmrpc.get(ref, writable=False).sum() == 3 * (32 << 20)


def test_what_was_stored_can_be_written(store):
    a = pydmrpc.empty(1_000_000, "u1")
    a[:] = 1
    ref = pydmrpc.put(a)
    other = pydmrpc.get(ref)
    a[500_000] = 2
    assert (pydmrpc.get(ref) == 1).all()
    assert (other == 1).all()
    assert a[500_000] == 2
    new = pydmrpc.put(a)
    assert pydmrpc.get(new)[500_000] == 2
    assert pydmrpc.get(new).sum() == 1_000_001
    sharing = pydmrpc.sharing(ref, new)
    assert sharing.shared == sharing.pages_a - 1
    assert pydmrpc.sharing(new) == sharing
    assert np.array_equal(pydmrpc.get(ref), np.ones(1_000_000, "u1"))


def test_parts_are_copied(store):
    a = pydmrpc.empty((1000, 1000), "u2")
    a[:] = np.arange(1000)
    for part in (a[10:], a[:10], a.T, a[::2], a.reshape(-1), a.view("u1")):
        assert np.array_equal(pydmrpc.get(pydmrpc.put(part)), part)
    assert np.array_equal(pydmrpc.get(pydmrpc.put({"a": a}))["a"], a)
    ref = pydmrpc.put(a)
    a[0] = 0
    assert pydmrpc.get(ref)[0, 1] == 1


def test_what_is_never_stored_leaves_nothing(local_store):
    for _ in range(100):
        pydmrpc.empty(32 << 20, "u1")[0] = 1
    gc.collect()
    assert pydmrpc.get(pydmrpc.put(np.ones(64 << 20, "u1")))[-1] == 1
    until(lambda: pydmrpc.memory().used == 0, "all pages back")


def test_the_array_keeps_its_memory(store):
    a = pydmrpc.empty(1_000_000, "u1")
    a[:] = 5
    pydmrpc.put(a)
    gc.collect()
    for fill in range(10):
        pydmrpc.put(np.full(1_000_000, fill, "u1"))
    assert (a == 5).all()
    b = pydmrpc.empty(1_000_000, "u1")
    b[:] = 6
    pydmrpc.shutdown()
    assert (a == 5).all()
    assert (b == 6).all()


def test_what_can_not_be_allocated(store):
    with pytest.raises(ValueError, match="plain"):
        pydmrpc.empty(3, object)
    with pytest.raises(pydmrpc.exceptions.ObjectStoreFullError):
        pydmrpc.empty(1 << 40, "u1")
    with pytest.raises(ValueError):
        pydmrpc.empty((1 << 40, 1 << 40), "u1")
    with pytest.raises((ValueError, OverflowError)):
        pydmrpc.empty(-1, "u1")
