"""The guides on objects: references, values, pickles."""

from __future__ import annotations

import pickle
import sqlite3
import threading

import numpy as np

from conformance.case import case, folder, part, raised


@case("guides: objects")
def guide_objects(ray):
    y = 1
    ref = ray.put(y)
    refs = [ray.put(i) for i in range(3)]
    return ray.get(ref), ray.get(refs), raised(ray.get, [], timeout=0)


@case("guides: objects")
def guide_passed_by_value_and_by_reference(ray):
    @ray.remote
    def echo(a, b=None, *rest, **named):
        return a, b, rest, named

    @ray.remote
    def kinds(a, b):
        return type(a).__name__, type(b[0]).__name__, ray.get(b[0])

    @ray.remote
    class Actor:
        def __init__(self, value):
            self.value = value

        def get(self, value):
            return self.value, value

    ref = ray.put("value")
    actor = Actor.remote(ref)
    return ray.get([echo.remote(ref, b=ref), echo.remote(1, 2, ref, x=ref), kinds.remote(ref, [ref]), actor.get.remote(ref)])


@case("guides: objects")
def guide_captured_by_a_closure(ray):
    ref = ray.put([1, 2, 3])

    @ray.remote
    def captured():
        return ray.get(ref)

    return ray.get(captured.remote())


@case("guides: objects")
def guide_references_within_objects(ray):
    @ray.remote
    class Holder:
        def __init__(self, refs):
            self.refs = refs

        def values(self):
            return ray.get(self.refs)

    nested = ray.put([ray.put(1), ray.put(np.zeros(50_000))])
    holder = Holder.remote(ray.get(nested))
    return [getattr(value, "size", value) for value in ray.get(holder.values.remote())]


@case("guides: objects")
def guide_a_reference_in_a_file(ray):
    cloudpickle = part(ray, "cloudpickle")
    with folder() as path:
        ref = ray.put({"hello": "world"})
        with (path / "store.pickle").open("wb+") as file:
            cloudpickle.dump(ref, file)
        del ref
        with (path / "store.pickle").open("rb") as file:
            again = cloudpickle.load(file)
        return ray.get(again), isinstance(part(ray, "_private.internal_api").memory_summary(), str)


@case("guides: objects")
def guide_an_array_can_not_be_written(ray):
    @ray.remote
    def write(array):
        array[0] = 1

    @ray.remote
    def write_a_copy(array):
        array = array.copy()
        array[0] = 1
        return array[0]

    return raised(ray.get, write.remote(np.zeros(100_000))), ray.get(write_a_copy.remote(np.zeros(100_000)))


@case("guides: objects")
def guide_what_is_there_twice_is_one(ray):
    shared = [np.zeros(42)] * 99
    values = ray.get(ray.put(shared))
    return values[0] is values[1], len(values)


@case("guides: objects")
def guide_reduce(ray):
    class Connection:
        def __init__(self, path):
            self.path = path
            self.connection = sqlite3.connect(path)

        def __reduce__(self):
            return Connection, (self.path,)

    copied = ray.get(ray.put(Connection(":memory:")))
    return copied.path, type(copied.connection).__name__


class _Locked:
    def __init__(self, x):
        self.x = x
        self.lock = threading.Lock()


class _Carrier:
    def __init__(self, a):
        self.a = a

    def __reduce__(self):
        return _Locked, (self.a.x,)


@case("guides: objects")
def guide_serializers(ray):
    before = raised(ray.put, _Locked(1))
    ray.util.register_serializer(_Locked, serializer=lambda a: a.x, deserializer=lambda x: _Locked(x))
    during = ray.get(ray.put(_Locked(1))).x
    ray.util.deregister_serializer(_Locked)
    ray.util.deregister_serializer(_Locked)
    return before, during, raised(ray.put, _Locked(1)), ray.get(ray.put(_Carrier(_Locked(2)))).x, raised(ray.put, _Locked(1))


@case("guides: objects")
def guide_what_can_not_be_pickled(ray):
    lock = threading.Lock()

    def test():
        return lock

    fine, failures = part(ray, "util").inspect_serializability(test, name="test")
    return fine, sorted(failure.path[-1] for failure in failures)


@case("guides: objects")
def guide_names_of_references(ray):
    ref = ray.put(1)
    same = pickle.loads(part(ray, "cloudpickle").dumps(ref))
    return ref == same, hash(ref) == hash(same), bytes.fromhex(ref.hex()) == ref.binary(), ref.is_nil()


@case("guides: objects")
def guide_frames_are_shared(ray):
    import pandas

    frame = pandas.DataFrame({"a": np.arange(1000), "b": ["x"] * 1000})
    ref = ray.put(frame)

    @ray.remote
    def total(frame):
        return int(frame["a"].sum()), frame["b"].iloc[-1]

    return ray.get(total.remote(ref)), bool(ray.get(ref).equals(frame))
