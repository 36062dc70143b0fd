"""`put` and `get` of values of every kind, small ones (which travel with their reference) and large ones (in pages)."""

import gc

import numpy as np
import pydmrpc
import pytest
from pydmrpc.exceptions import GetTimeoutError

SIZES = [0, 1, 100, 1500, 2048, 4096, 5000, 65536, 100_000, 1_000_000]


@pytest.mark.parametrize("size", SIZES)
def test_bytes_of_every_size(store, size):
    content = bytes(range(256)) * (size // 256 + 1)
    content = content[:size]
    for value in (content, bytearray(content), "x" * size, "ñ" * size):
        back = pydmrpc.get(pydmrpc.put(value))
        assert type(back) is type(value)
        assert back == value


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("writable", [True, False])
def test_arrays_of_every_size(store, size, writable):
    array = np.arange(size, dtype="u1")
    ref = pydmrpc.put(array)
    assert (ref.kind, ref.shape, ref.dtype, ref.nbytes, len(ref)) == ("array", (size,), np.dtype("u1"), size, size)
    back = pydmrpc.get(ref, writable=writable)
    assert type(back) is np.ndarray
    assert np.array_equal(back, array)
    assert back.flags.writeable is (writable or (size == 0 and back.flags.writeable))


def test_objects_with_arrays_in_them(store):
    value = {"a": np.arange(100_000.0), "b": [np.ones((300, 300), "f4"), "text"], "c": (1, None)}
    back = pydmrpc.get(pydmrpc.put(value))
    assert np.array_equal(back["a"], value["a"])
    assert np.array_equal(back["b"][0], value["b"][0])
    assert back["b"][1:] == ["text"]
    assert back["c"] == (1, None)
    back["a"][7] = -1
    back["b"][0][0] = -1
    read_only = pydmrpc.get(pydmrpc.put(value), writable=False)
    with pytest.raises(ValueError, match="read-only"):
        read_only["a"][7] = -1


def test_scalars_and_lists_of_refs(store):
    values = [None, True, -5, 2.5, (1, "two", b"three"), "text", 10**30, {1: 2}]
    refs = [pydmrpc.put(value) for value in values]
    assert pydmrpc.get(refs) == values
    assert pydmrpc.get(tuple(refs)) == values
    assert pydmrpc.get([]) == []
    assert pydmrpc.get(refs, timeout=0) == values


def test_the_views_keep_the_memory(store):
    """Nothing but the array is left, and its bytes stay."""
    array = pydmrpc.get(pydmrpc.put(np.full(1_000_000, 7, "u1")))
    part = array[500_000:]
    del array
    gc.collect()
    for fill in range(20):
        pydmrpc.put(np.full(1_000_000, fill, "u1"))
    assert (part == 7).all()


def test_views_outlive_the_session(store):
    array = pydmrpc.get(pydmrpc.put(np.full(1_000_000, 7, "u1")))
    read_only = pydmrpc.get(pydmrpc.put(np.full(1_000_000, 8, "u1")), writable=False)
    pydmrpc.shutdown()
    assert (array == 7).all()
    assert (read_only == 8).all()
    array[:] = 9
    assert array.sum() == 9_000_000


def test_what_get_and_put_do_not_take(store):
    with pytest.raises(ValueError, match="ObjectRef"):
        pydmrpc.get(3)
    with pytest.raises(TypeError, match="ObjectRef"):
        pydmrpc.get([pydmrpc.put(1), 2])
    with pytest.raises(TypeError, match="ObjectRef"):
        pydmrpc.put(pydmrpc.put(1))
    with pytest.raises(ValueError, match="timeout"):
        pydmrpc.get(pydmrpc.put(1), timeout=-1)
    assert issubclass(GetTimeoutError, TimeoutError)


def test_the_array_of_a_strided_put(store):
    base = np.arange(1_000_000).reshape(1000, 1000)
    ref = pydmrpc.put(base.T[::2])
    assert np.array_equal(pydmrpc.get(ref), base.T[::2])
