"""Arrays from `get` are writable, nobody else sees what is written, and storing them again stores what was written."""

import threading

import numpy as np
import pydmrpc
import pytest

PAGE = 4096
PAGES = 256


@pytest.fixture
def array():
    return np.arange(PAGES * PAGE, dtype="u4").reshape(PAGES, PAGE).astype("u1")


def test_nobody_else_sees_what_is_written(store, array):
    ref = pydmrpc.put(array)
    first, second = pydmrpc.get(ref), pydmrpc.get(ref)
    shared = pydmrpc.get(ref, writable=False)
    first[3] = 1
    second[3, :10] = 2
    assert np.array_equal(shared, array)
    assert np.array_equal(pydmrpc.get(ref), array)
    assert (first[3] == 1).all()
    assert (second[3, :10] == 2).all()
    assert np.array_equal(second[3, 10:], array[3, 10:])
    array[:] = 9
    assert not np.array_equal(pydmrpc.get(ref), array), "the object has a copy of what was put"


def test_writable_is_the_default_and_can_be_refused(store, array):
    ref = pydmrpc.put(array)
    read_only = pydmrpc.get(ref, writable=False)
    assert not read_only.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        read_only[0] = 1
    with pytest.raises(ValueError):
        read_only.flags.writeable = True


def test_an_array_that_was_written_is_stored_as_the_difference(store, array):
    ref = pydmrpc.put(array)
    a = pydmrpc.get(ref)
    a[7, 5] = 200
    a[100] = 201
    new = pydmrpc.put(a)
    assert np.array_equal(pydmrpc.get(new), a)
    assert np.array_equal(pydmrpc.get(ref), array)
    sharing = pydmrpc.sharing(ref, new)
    assert sharing.shared == sharing.pages_a - 2
    assert sharing.pages_a == sharing.pages_b
    # The array goes on as it was: it can be written and stored again.
    a[8] = 202
    newer = pydmrpc.put(a)
    assert np.array_equal(pydmrpc.get(newer), a)
    assert pydmrpc.get(new)[8, 0] == array[8, 0]
    assert pydmrpc.sharing(ref, newer).shared == sharing.pages_a - 3


def test_an_array_that_was_only_read_is_the_same_object(store, array):
    ref = pydmrpc.put(array)
    for writable in (True, False):
        a = pydmrpc.get(ref, writable=writable)
        assert a.sum() == array.sum()
        again = pydmrpc.put(a)
        sharing = pydmrpc.sharing(ref, again)
        assert sharing.shared == sharing.pages_a == sharing.pages_b


def test_a_chain_of_small_changes(store, array):
    refs, expected = [pydmrpc.put(array)], array.copy()
    for step in range(50):
        a = pydmrpc.get(refs[-1])
        assert np.array_equal(a, expected), step
        a[step * 5, step] = expected[step * 5, step] = step
        refs.append(pydmrpc.put(a))
    for step, ref in enumerate(refs):
        assert pydmrpc.get(ref[0, 0]) == expected[0, 0] or step == 0
    assert pydmrpc.sharing(refs[0], refs[-1]).shared > PAGES - 60


def test_parts_of_an_array_from_the_store(store, array):
    """They lie elsewhere in the new object, so they are copied; what is stored is right."""
    a = pydmrpc.get(pydmrpc.put(array))
    a[50] = 3
    for part in (a[40:90], a[:200], a[1:], a.reshape(-1)[5:-5], a[::2], a.T, a.view("u4")):
        assert np.array_equal(pydmrpc.get(pydmrpc.put(part)), part)


def test_many_arrays_of_one_object(store, array):
    value = {"a": array, "b": array + 1, "name": "x"}
    ref = pydmrpc.put(value)
    back = pydmrpc.get(ref)
    back["a"][3] = 77
    new = pydmrpc.put(back)
    again = pydmrpc.get(new)
    assert (again["a"][3] == 77).all()
    assert np.array_equal(again["b"], value["b"])
    assert pydmrpc.get(ref)["a"][3, 0] == array[3, 0]
    sharing = pydmrpc.sharing(ref, new)
    assert sharing.shared >= 2 * PAGES - 3


def test_an_array_that_is_mostly_written_is_copied(store, array):
    a = pydmrpc.get(pydmrpc.put(array))
    a[:] = 5
    new = pydmrpc.put(a)
    assert (pydmrpc.get(new) == 5).all()


def test_threads_have_arrays_of_their_own(store, array):
    ref = pydmrpc.put(array)
    failures = []

    def work(number):
        try:
            for _ in range(20):
                a = pydmrpc.get(ref)
                a[number] = number
                back = pydmrpc.get(pydmrpc.put(a))
                expected = array.copy()
                expected[number] = number
                assert np.array_equal(back, expected)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert np.array_equal(pydmrpc.get(ref), array)
