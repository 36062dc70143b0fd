"""`with ref.edit() as e`: a new object that shares every page that was not written."""

import numpy as np
import pydmrpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SHAPES = [(40,), (9, 8), (60, 50, 40)]


def indices(shape):
    axis = [st.integers(-n, n - 1) | st.slices(n) for n in shape]
    some = st.integers(0, len(shape)).flatmap(lambda count: st.tuples(*axis[:count]))
    return some | some.map(lambda key: (*key, Ellipsis))


@pytest.mark.parametrize("shape", SHAPES)
def test_an_edit_is_an_assignment_of_numpy(embedded, shape):
    array = np.arange(np.prod(shape), dtype="i4").reshape(shape)
    ref = pydmrpc.put(array)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.tuples(indices(shape), st.integers(-100, -1)), max_size=4))
    def check(edits):
        expected = array.copy()
        with ref.edit() as e:
            for key, value in edits:
                content = np.arange(value, value + expected[key].size).reshape(expected[key].shape)
                expected[key] = content
                e[key] = content
                assert np.array_equal(e[key], expected[key])
        assert np.array_equal(pydmrpc.get(e.ref), expected)
        assert np.array_equal(pydmrpc.get(ref), array)

    check()


def test_only_what_is_written_is_new(store):
    array = np.zeros(1_000_000, "u1")
    ref = pydmrpc.put(array)
    with ref.edit() as e:
        e[500_000:500_010] = 1
        e[3] = 2
    sharing = pydmrpc.sharing(ref, e.ref)
    assert sharing.pages_a == sharing.pages_b
    assert sharing.shared == sharing.pages_a - 2
    array[500_000:500_010] = 1
    array[3] = 2
    assert np.array_equal(pydmrpc.get(e.ref), array)
    assert (e.ref.kind, e.ref.shape) == ("array", (1_000_000,))


def test_broadcast_and_conversion(store):
    ref = pydmrpc.put(np.zeros((300, 400)))
    with ref.edit() as e:
        e[2:4] = range(400)
        e[..., 0] = 7
        e[5, 5] = "3.5"
        with pytest.raises(ValueError):
            e[0] = [1, 2, 3]
    back = pydmrpc.get(e.ref)
    assert back[2].tolist()[1:] == list(range(1, 400))
    assert (back[:, 0] == 7).all()
    assert back[5, 5] == 3.5


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("length", [100, 100_000])
def test_edits_of_bytes(store, kind, length):
    content = bytes(i % 251 for i in range(length))
    ref = pydmrpc.put(kind(content))
    with ref.edit() as e:
        assert len(e) == length
        e[10:13] = b"abc"
        e[-1] = 0
        assert e[9:14] == content[9:10] + b"abc" + content[13:14]
        assert e[10] == ord("a")
        with pytest.raises(ValueError, match="length"):
            e[0:5] = b"too long for that"
        with pytest.raises(IndexError):
            e[length] = 1
    back = pydmrpc.get(e.ref)
    assert type(back) is kind
    assert back == content[:10] + b"abc" + content[13:-1] + b"\0"
    assert pydmrpc.get(ref) == content


def test_edits_of_parts_and_raw_bytes(store):
    ref = pydmrpc.put(np.arange(100_000, dtype="u4"))
    with ref[1000:3000].edit() as e:
        e[0] = 5
    assert pydmrpc.get(e.ref).tolist()[:2] == [5, 1001]
    assert e.ref.shape == (2000,)
    with ref.view().edit() as e:
        e[0:4] = b"\7\0\0\0"
    assert pydmrpc.get(e.ref.view("u4"))[0] == 7


def test_how_an_edit_ends(store):
    ref = pydmrpc.put(np.zeros(100_000))
    e = ref.edit()
    with pytest.raises(ValueError, match="not committed"):
        e.ref
    e[5] = 1
    new = e.commit()
    assert e.commit() is new is e.ref
    with pytest.raises(ValueError, match="over"):
        e[6] = 1
    with pytest.raises(KeyError), ref.edit() as e:
        e[0] = 1
        raise KeyError
    with pytest.raises(ValueError):
        e.ref
    with ref.edit() as e:
        e.discard()
        with pytest.raises(ValueError, match="over"):
            e[0] = 1
        e = ref.edit()
    with pytest.raises(TypeError, match="ints, slices"):
        ref.edit()[[1, 2]] = 0
    with pytest.raises(IndexError):
        ref.edit()[100_000] = 0
