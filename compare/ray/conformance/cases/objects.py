"""put and get."""

from __future__ import annotations

import collections
import threading

from conformance.case import case, gate, raised


@case("core")
def get_what_was_put(ray):
    values = [
        None,
        True,
        1,
        -(2**70),
        1.5,
        "añ😀",
        b"\0\1",
        [1, [2]],
        (1, "a"),
        {"a": {1: 2}},
        {1, 2},
        1j,
        ...,
    ]
    return [ray.get(ray.put(value)) == value for value in values]


@case("core")
def get_a_list(ray):
    return ray.get([ray.put(i) for i in range(5)])


@case("core")
def get_nothing(ray):
    return ray.get([])


@case("core")
def get_the_same_twice(ray):
    ref = ray.put([1])
    a, b = ray.get([ref, ref])
    return a, b, ray.get(ref) is ray.get(ref)


@case("core")
def get_a_tuple(ray):
    return raised(ray.get, (ray.put(1),))


@case("core")
def get_what_is_no_ref(ray):
    return [raised(ray.get, value) for value in (1, "a", None, {}, [1], [None], [ray.put(1), 2])]


@case("core")
def get_within_a_timeout(ray):
    return ray.get(ray.put(1), timeout=10), ray.get([ray.put(2)], timeout=0)


@case("core")
def get_times_out(ray):
    with gate() as g:

        @ray.remote
        def f():
            g.wait()

        ref = f.remote()
        return (
            raised(ray.get, ref, timeout=0.05),
            raised(ray.get, [ref], timeout=0.05),
            raised(ray.get, ref, timeout=0),
        )


@case("core")
def get_after_a_timeout(ray):
    with gate() as g:

        @ray.remote
        def f():
            g.wait()
            return 3

        ref = f.remote()
        first = raised(ray.get, ref, timeout=0.05)
        g.open()
        return first, ray.get(ref)


@case("core")
def put_a_ref(ray):
    return raised(ray.put, ray.put(1))


@case("core")
def put_a_list_of_refs(ray):
    inner = ray.get(ray.put([ray.put(1), ray.put("b")]))
    return [type(ref).__name__ for ref in inner], ray.get(inner)


@case("core")
def put_what_is_changed_later(ray):
    value = [1, 2]
    ref = ray.put(value)
    value.append(3)
    ray.get(ref).append(4)
    return ray.get(ref)


@case("core")
def put_an_object_of_a_local_class(ray):
    class Point:
        def __init__(self, x):
            self.x = x

        def __eq__(self, other):
            return self.x == other.x

    return ray.get(ray.put(Point(3))) == Point(3)


@case("core")
def put_a_named_tuple_and_an_ordered_dict(ray):
    Pair = collections.namedtuple("Pair", "a b")
    pair = ray.get(ray.put(Pair(1, 2)))
    return (
        pair.a,
        pair.b,
        type(pair).__name__,
        list(ray.get(ray.put(collections.OrderedDict(z=1, a=2))).items()),
    )


@case("core")
def put_a_function(ray):
    offset = 10
    return ray.get(ray.put(lambda x: x + offset))(5)


@case("core")
def put_a_lock(ray):
    return raised(ray.put, threading.Lock())


@case("core")
def put_a_generator(ray):
    return raised(ray.put, (i for i in range(3)))


@case("core")
def put_an_exception(ray):
    error = ray.get(ray.put(KeyError("a")))
    return type(error), error.args


@case("core")
def put_a_cycle(ray):
    cycle = [1]
    cycle.append(cycle)
    back = ray.get(ray.put(cycle))
    return back[0], back[1] is back


@case("core")
def put_in_a_task(ray):
    @ray.remote
    def f():
        return [ray.put("inside")]

    return ray.get(ray.get(f.remote())[0])


@case("core")
def the_value_of_a_nested_ref_comes_by_getting_twice(ray):
    @ray.remote
    def inner():
        return 4

    @ray.remote
    def outer():
        return inner.remote()

    ref = ray.get(outer.remote())
    return type(ref).__name__, ray.get(ref)
