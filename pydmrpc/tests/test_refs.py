"""References: names, parts, views, pickles, grants, futures."""

import asyncio
import pickle
import weakref

import numpy as np
import pydmrpc
import pytest
from pydmrpc.exceptions import MalformedError

LENGTHS = [100, 200_000]  # travels with its reference; in pages


def test_refs_are_values(store):
    for value in (1, np.zeros(100_000)):
        a, b = pydmrpc.put(value), pydmrpc.put(value)
        assert a == a
        assert a != b
        assert a != 1
        assert len({a, b, a}) == 2
        assert a.hex() != b.hex()
        assert a.hex() in repr(a)
        assert weakref.ref(a)() is a


@pytest.mark.parametrize("length", LENGTHS)
def test_slices_of_bytes(store, length):
    content = bytes(i % 251 for i in range(length))
    ref = pydmrpc.put(content)
    assert len(ref) == length
    for part in (slice(10, 20), slice(None), slice(-7, None), slice(50, 50), slice(40, 10), slice(0, 10**9)):
        assert pydmrpc.get(ref[part]) == content[part]
        assert len(ref[part]) == len(content[part])
    assert pydmrpc.get(ref[10:60][5:-5][1:3]) == content[16:18]
    assert ref[10:20] == ref[10:20]
    assert ref[10:20] != ref[11:21]
    assert hash(ref[10:20]) == hash(ref[10:20])
    with pytest.raises(ValueError, match="step"):
        ref[::2]
    with pytest.raises(TypeError):
        ref[3]
    assert type(pydmrpc.get(pydmrpc.put(bytearray(content))[3:5])) is bytearray


@pytest.mark.parametrize("shape", [(5, 4, 3), (500, 40, 30)])
def test_slices_of_arrays_are_those_of_numpy(store, shape):
    array = np.arange(np.prod(shape), dtype="i4").reshape(shape)
    ref = pydmrpc.put(array)
    runs = [
        np.s_[2],
        np.s_[-1],
        np.s_[1:4],
        np.s_[1, 2],
        np.s_[1, 1:3],
        np.s_[1, 2, 0:2],
        np.s_[1, 2, 1],
        np.s_[...],
        np.s_[2, ...],
        np.s_[1:2, 1:3],
        np.s_[1:2, 1:2, 1:3],
        np.s_[:, :, :],
        np.s_[3:3],
        np.s_[2:3, ..., :],
    ]
    for index in runs:
        part = ref[index]
        back = pydmrpc.get(part)
        assert np.array_equal(back, array[index]), index
        assert part.shape == array[index].shape
        assert part.nbytes == array[index].nbytes
    assert np.array_equal(pydmrpc.get(ref[1:4][2][0:3]), array[3][0:3])
    for index in (np.s_[:, 1], np.s_[1:3, 1:3], np.s_[..., 0], np.s_[::2], np.s_[::-1]):
        with pytest.raises(ValueError, match="one run"):
            ref[index]
    for index in (np.s_[shape[0]], np.s_[0, 0, 0, 0], np.s_[0, -100]):
        with pytest.raises(IndexError):
            ref[index]
    for index in ([1, 2], None, "a", np.array([True])):
        with pytest.raises((TypeError, IndexError)):
            ref[index]


@pytest.mark.parametrize("length", LENGTHS)
def test_views_of_refs(store, length):
    array = np.arange(length, dtype="u4")
    ref = pydmrpc.put(array)
    assert np.array_equal(pydmrpc.get(ref.view("u1")), array.view("u1"))
    assert np.array_equal(pydmrpc.get(ref.view(np.float32)), array.view("f4"), equal_nan=True)
    assert pydmrpc.get(ref.view("u4", (-1, 50))[1]).tolist() == list(range(50, 100))
    assert pydmrpc.get(ref.view("u4", (length // 4, 4))).shape == (length // 4, 4)
    raw = ref.view()
    assert (raw.kind, raw.nbytes) == ("raw", 4 * length)
    assert pydmrpc.get(raw[4:8]).tobytes() == b"\1\0\0\0"
    assert pydmrpc.get(raw, writable=False).readonly
    for dtype, shape in (
        ("S3" if length % 3 else "S7", None),
        ("u4", 7),
        ("u4", (-1, -1)),
        ("u4", (-1, 0)),
        ("O", None),
        (None, 3),
    ):
        with pytest.raises((ValueError, TypeError)):
            ref.view(dtype, shape)


def test_what_has_no_parts_says_so(store):
    for value in (1, [1, 2], {"a": np.zeros(100_000)}):
        ref = pydmrpc.put(value)
        with pytest.raises(TypeError, match="whole"):
            ref[0:1]
        with pytest.raises(TypeError, match="whole"):
            len(ref)
        with pytest.raises(TypeError, match="whole"):
            ref.edit()
    with pytest.raises(TypeError, match="UTF-8"):
        pydmrpc.put("text")[0:1]
    assert pydmrpc.get(pydmrpc.put("text").view()[0:1]).tobytes() == b"t"


@pytest.mark.parametrize("length", LENGTHS)
def test_pickled_refs(store, length):
    array = np.arange(length)
    ref = pydmrpc.put(array)
    for one in (ref, ref[3:50], ref.view("u1")[8:], pydmrpc.put({"a": array}), pydmrpc.put("x" * length)):
        back = pickle.loads(pickle.dumps(one))
        assert back == one
        assert hash(back) == hash(one)
        np.testing.assert_equal(pydmrpc.get(back), pydmrpc.get(one))


@pytest.mark.parametrize("length", LENGTHS)
def test_refs_in_stored_values(store, length):
    """The outer reference keeps the inner one alive."""
    outer = pydmrpc.put([pydmrpc.put(np.arange(length)), {"part": pydmrpc.put(np.arange(length))[1:3]}])
    inner, parts = pydmrpc.get(outer)
    assert pydmrpc.get(inner).sum() == sum(range(length))
    assert pydmrpc.get(parts["part"]).tolist() == [1, 2]


@pytest.mark.parametrize("length", LENGTHS)
def test_grants(store, length):
    ref = pydmrpc.put(np.arange(length))
    assert np.array_equal(pydmrpc.get(pydmrpc.redeem(ref.grant())), np.arange(length))
    assert pydmrpc.get(pydmrpc.redeem(ref[5:7].grant(ttl=5))).tolist() == [5, 6]
    for text in ("", "x", ref.grant()[:-3], ref.grant()[:20], "pydmrpc1-00-zz", "pydmrpc1-bytes-00-0g"):
        with pytest.raises(MalformedError):
            pydmrpc.redeem(text)
    with pytest.raises(ValueError, match="ttl"):
        ref.grant(ttl=-1)


@pytest.mark.parametrize("length", LENGTHS)
def test_futures(store, length):
    ref = pydmrpc.put(np.arange(length))
    assert ref.future().result(60).sum() == sum(range(length))

    async def both():
        first = await ref
        rest = await asyncio.gather(ref[1:3], *[pydmrpc.put(i) for i in range(3)])
        return first, rest

    first, rest = asyncio.run(both())
    assert first.sum() == sum(range(length))
    assert rest[0].tolist() == [1, 2]
    assert rest[1:] == [0, 1, 2]
