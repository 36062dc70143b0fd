"""How values lie in objects (docs/python.md): what is encoded decodes, and other bytes are errors."""

import collections
import pickle
import struct
import threading
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydmrpc import _core
from pydmrpc.exceptions import MalformedError

TRAILER = struct.Struct("<QQQIBBH")
KINDS = {"scalar": 1, "str": 2, "bytes": 3, "bytearray": 4, "array": 5, "memoryview": 6, "pickle": 7}


def encode(value):
    return _core._encode(value)


def decode(encoded):
    return _core._decode(encoded)


def round_trip(value):
    return decode(encode(value))


def trailer(encoded):
    payload, meta_offset, meta_bytes, buffers, kind, version, magic = TRAILER.unpack(encoded[-32:])
    return payload, meta_offset, meta_bytes, buffers, kind, version, magic


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.binary(max_size=40)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        | st.frozensets(scalars.filter(lambda x: x == x), max_size=4)
    ),
    max_leaves=20,
)


def same(a, b):
    """Equal and of equal types, with NaN equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b or (a != a and b != b)


@given(values)
def test_values_come_back_as_they_were(value):
    assert same(round_trip(value), value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "scalar"),
        (True, "scalar"),
        (2**63 - 1, "scalar"),
        (-(2**63), "scalar"),
        (2**63, "pickle"),
        (1.5, "scalar"),
        ((1, "a", b"b", (None, ())), "scalar"),
        (tuple(range(100)), "pickle"),
        ((((((1,),),),),), "pickle"),
        ("añ\0😀", "str"),
        ("\ud800", "pickle"),
        ("", "str"),
        (b"", "bytes"),
        (b"x" * 5000, "bytes"),
        (bytearray(b"abc"), "bytearray"),
        (1j, "pickle"),
        ([1, 2], "pickle"),
        (np.float32(1.5), "pickle"),
        (range(3), "pickle"),
    ],
)
def test_each_value_has_its_kind(value, kind):
    encoded = encode(value)
    assert trailer(encoded)[4:] == (KINDS[kind], 1, int.from_bytes(b"Py", "little"))
    assert same(decode(encoded), value)


class Int(int):
    pass


Point = collections.namedtuple("Point", "x y")


def test_subclasses_stay_what_they_are():
    for value in (Int(3), Point(1, 2), collections.OrderedDict(a=1), np.ma.masked_array([1, 2], [0, 1])):
        back = round_trip(value)
        assert type(back) is type(value)
        assert repr(back) == repr(value)


DTYPES = ["?", "i1", "<u2", ">i4", "<i8", "<f2", "<f4", ">f8", "<c16", "S5", "<U3", "<M8[ns]", "<m8[s]"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 0, 2), (2, 3, 4)])
def test_arrays_come_back_as_they_were(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).astype("i8").reshape(shape).astype(dtype)
    encoded = encode(array)
    assert trailer(encoded)[4] == KINDS["array"]
    # The payload comes first, so that programs in other languages find it (invariant 1 of the layout).
    assert encoded[: array.nbytes] == array.tobytes()
    back = decode(encoded)
    assert type(back) is np.ndarray
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable


@pytest.mark.parametrize("order", ["C", "F"])
def test_orders_are_kept(order):
    array = np.asarray(np.arange(12, dtype="f4").reshape(3, 4), order=order)
    back = round_trip(array)
    assert (back == array).all()
    assert back.strides == array.strides


def test_arrays_that_are_not_contiguous_are_stored_in_order():
    base = np.arange(60, dtype="i4").reshape(3, 4, 5)
    for array in (base[::2], base[:, ::-1], base.transpose(2, 0, 1), np.broadcast_to(base[0], (2, 4, 5))):
        encoded = encode(array)
        assert encoded[: array.size * 4] == np.ascontiguousarray(array).tobytes()
        assert (decode(encoded) == array).all()


def test_structured_arrays_and_arrays_of_objects_are_pickled():
    structured = np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")])
    objects = np.array([1, "two", None], dtype=object)
    for array in (structured, objects):
        encoded = encode(array)
        assert trailer(encoded)[4] == KINDS["pickle"]
        back = decode(encoded)
        assert back.dtype == array.dtype
        assert (back == array).all()


def test_buffers_in_a_pickle_are_out_of_band_and_aligned():
    """Invariant 2 of the layout."""
    small, large = np.arange(10, dtype="i8"), np.arange(5000, dtype="f8")
    value = {"small": small, "large": large, "more": [small + 1]}
    encoded = encode(value)
    buffers = trailer(encoded)[3]
    assert buffers == 3
    table = struct.unpack(f"<{2 * buffers}Q", encoded[-32 - 16 * buffers : -32])
    places = list(zip(table[::2], table[1::2]))
    assert [length for _, length in places] == [80, 40000, 80]
    assert [offset % 64 for offset, _ in places] == [0, 0, 0]
    assert places[1][0] % 4096 == 0
    back = decode(encoded)
    assert (back["small"] == small).all()
    assert (back["large"] == large).all()
    assert (back["more"][0] == small + 1).all()
    back["large"][3] = -1
    assert large[3] == 3


def test_arrays_of_every_shape_in_a_pickle():
    value = [
        np.float64(1).reshape(()),
        np.zeros((0, 3)),
        np.ones((2, 2), order="F"),
        np.arange(9)[::2],
        np.datetime64("2026-01-01"),
    ]
    for back, array in zip(round_trip(value), value):
        assert np.array_equal(back, array)


def test_memoryviews():
    view = memoryview(np.arange(6, dtype="f4"))
    back = round_trip(view)
    assert isinstance(back, memoryview)
    assert back.format == "f"
    assert back.tolist() == view.tolist()
    assert round_trip(memoryview(b"abc")).tobytes() == b"abc"
    with pytest.raises(ValueError, match="contiguous"):
        encode(memoryview(b"abcdef")[::2])


def test_equal_values_are_equal_objects():
    value = [np.arange(3, dtype="u1"), np.arange(30000, dtype="u1")]
    assert encode(value) == encode(value)


def test_functions_and_local_classes_are_pickled_by_value():
    class Local:
        def __init__(self, x):
            self.x = x

    offset = 3
    assert round_trip(lambda x: x + offset)(4) == 7
    assert round_trip(Local(5)).x == 5


def test_what_cannot_be_pickled_is_named():
    lock = threading.Lock()
    holder = types.SimpleNamespace(parts={"x": (1, lock)})
    for value, place in (
        (lock, "value is a lock"),
        ({"a": [1, lock]}, "value['a'][1] is a lock"),
        (holder, "value.parts['x'][1] is a lock"),
        (lambda: lock, "value → the variable lock it uses is a lock"),
    ):
        with pytest.raises((TypeError, pickle.PicklingError), match="lock") as caught:
            encode(value)
        assert any(place in note for note in caught.value.__notes__)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_error(junk):
    with pytest.raises(MalformedError):
        decode(junk)


@given(
    st.sampled_from([None, 7, (1, ("a", b"c")), "text", b"bytes", np.arange(9, dtype="<i2")]),
    st.integers(1, 60),
    st.integers(1, 255),
)
def test_a_changed_byte_is_an_error_or_another_value(value, position, mask):
    """Pickles are left out: they are programs, and trusted within a tenant."""
    encoded = bytearray(encode(value))
    position = min(position, len(encoded))
    encoded[-position] ^= mask
    if encoded[-4] == KINDS["pickle"]:
        return
    try:
        decode(bytes(encoded))
    except (MalformedError, ValueError, TypeError):
        pass


@given(st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=3), st.integers(0, 2**32 - 1), st.integers(0, 7))
def test_a_trailer_that_lies_is_an_error(numbers, buffers, kind):
    body = bytes(64)
    lying = body + TRAILER.pack(*numbers, buffers, kind, 1, int.from_bytes(b"Py", "little"))
    try:
        decode(lying)
    except (MalformedError, pickle.UnpicklingError, EOFError, ValueError, TypeError):
        pass
