"""What travels to and from actors: MessagePack, written and read by `message.rs`."""

import math

import numpy as np
import pydmrpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydmrpc import _core
from pydmrpc.exceptions import MalformedError

keys = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary()
values = st.recursive(
    keys | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
    max_leaves=40,
)


@given(values)
def test_what_is_written_is_read(value):
    assert _core._message(value) == value


@pytest.mark.parametrize("length", [0, 15, 16, 31, 32, 255, 256, 65535, 65536])
def test_lengths(length):
    for value in ("x" * length, b"x" * length, [1] * length, {i: i for i in range(length)}):
        assert _core._message(value) == value


def test_what_becomes_what():
    assert _core._message((1, (2,))) == [1, [2]]
    assert _core._message(bytearray(b"a")) == b"a"
    assert _core._message(np.float32(1.5)) == 1.5
    assert _core._message(np.int16(-3)) == -3
    assert _core._message(np.bool_(True)) is True
    assert _core._message({(1, 2): 3}) == {(1, 2): 3}
    assert math.isnan(_core._message(math.nan))


def test_references(embedded):
    array = np.arange(100, dtype="u2")
    raw, text, other, again = _core._message([pydmrpc.put(array), pydmrpc.put("ñ"), pydmrpc.put([1]), array])
    assert pydmrpc.get(raw).tobytes() == array.tobytes()
    assert pydmrpc.get(again.view("u2")).tolist() == array.tolist()
    assert pydmrpc.get(text).tobytes() == "ñ".encode()
    assert pydmrpc.get(other) == [1], "what has no payload goes whole"


def test_what_can_not_be_sent():
    for value, error in ((2**64, OverflowError), (-(2**63) - 1, OverflowError), (1j, TypeError), ({1}, TypeError)):
        with pytest.raises(error) as caught:
            _core._message({"a": [value]})
        assert [note.rsplit("at ")[-1] for note in caught.value.__notes__] == ["[0]", "['a']"]
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="deep"):
        _core._message(endless)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_error_or_a_value(junk):
    try:
        _core._read_message(junk)
    except (MalformedError, TypeError):  # a dict is no key of a dict
        pass


def test_answers_that_lie():
    for junk in (
        b"",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff\x01",
        b"\xd6\x01\0\0\0\0",
        b"\x91" * 1000,
        b"\1\1",
    ):
        with pytest.raises(MalformedError):
            _core._read_message(junk)
