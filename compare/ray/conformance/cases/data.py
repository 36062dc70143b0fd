"""Arrays, tables and other large values."""

from __future__ import annotations

import array
import dataclasses
import datetime
import decimal
import enum
import pathlib
import uuid

import numpy as np

from conformance.case import case, part, raised


@case("data")
def arrays_of_every_type(ray):
    kinds = [
        "?",
        "i1",
        "u2",
        "i4",
        "i8",
        "f2",
        "f4",
        "f8",
        "c8",
        "c16",
        "S5",
        "U3",
        "M8[ms]",
        "m8[s]",
        ">i4",
    ]
    back = [ray.get(ray.put(np.zeros(10, kind))) for kind in kinds]
    return [str(a.dtype) for a in back], all((a == np.zeros(10, a.dtype)).all() for a in back)


@case("data")
def arrays_of_every_shape(ray):
    shapes = [(), (0,), (1,), (3, 0, 2), (2, 3, 4), (1000, 100)]
    return [ray.get(ray.put(np.ones(shape))).shape for shape in shapes]


@case("data")
def arrays_that_are_not_contiguous(ray):
    base = np.arange(60_000).reshape(200, 300)
    views = [base.T, base[::2], base[:, 5], base[::-1], np.asfortranarray(base)]
    return [bool((ray.get(ray.put(view)) == view).all()) for view in views]


@case("data")
def arrays_of_objects(ray):
    back = ray.get(ray.put(np.array([1, "a", None, [2]], dtype=object)))
    return back.tolist(), str(back.dtype)


@case("data")
def arrays_with_fields(ray):
    a = np.array([(1, 2.5), (3, 4.5)], dtype=[("x", "i4"), ("y", "f8")])
    back = ray.get(ray.put(a))
    return back["x"].tolist(), back["y"].tolist(), back.dtype.names


@case("data")
def masked_arrays(ray):
    back = ray.get(ray.put(np.ma.array([1, 2, 3], mask=[0, 1, 0])))
    return type(back).__name__, back.sum()


@case("data")
def numpy_scalars(ray):
    return (
        ray.get(ray.put(np.float32(1.5))),
        ray.get(ray.put(np.int64(3))),
        ray.get(ray.put(np.bool_(True))),
    )


@case("data")
def a_large_array(ray):
    a = np.arange(4_000_000)
    back = ray.get(ray.put(a))
    return int(back.sum()), back.flags.owndata


@case("data")
def an_array_from_get_can_be_written(ray):
    back = ray.get(ray.put(np.zeros(200_000)))

    def write():
        back[0] = 1

    return raised(write)


@case("data")
def an_array_argument_can_be_written(ray):
    @ray.remote
    def f(a):
        a[0] = 1
        return a.sum()

    return raised(lambda: ray.get(f.remote(np.zeros(200_000))))


@case("data")
def what_is_written_is_seen_by_nobody_else(ray):
    ref = ray.put(np.zeros(200_000))
    mine = ray.get(ref).copy()
    mine[:] = 1
    return ray.get(ref).sum()


@case("data")
def no_copy_on_get(ray):
    ref = ray.put(np.zeros(200_000))
    a, b = ray.get(ref), ray.get(ref)
    return a.flags.owndata, b.flags.owndata


@case("data")
def arrays_in_containers(ray):
    value = {"a": np.arange(100_000), "b": [np.ones((10, 10)), (np.zeros(3), "x")]}
    back = ray.get(ray.put(value))
    return int(back["a"].sum()), back["b"][0].sum(), back["b"][1][1]


@case("data")
def the_same_array_twice_in_a_value(ray):
    a = np.arange(100_000)
    x, y = ray.get(ray.put((a, a)))
    return x is y, int(y.sum())


@case("data")
def arrays_as_arguments_and_results(ray):
    @ray.remote
    def double(a):
        return a * 2

    a = np.arange(300_000)
    return int(ray.get(double.remote(a)).sum()), int(ray.get(double.remote(ray.put(a))).sum())


@case("data")
def an_array_through_a_chain(ray):
    @ray.remote
    def add(a):
        return a + 1

    ref = ray.put(np.zeros(100_000))
    for _ in range(5):
        ref = add.remote(ref)
    return ray.get(ref).sum()


@case("data")
def an_array_in_an_actor(ray):
    @ray.remote
    class Holder:
        def __init__(self, a):
            self.a = a

        def total(self):
            return float(self.a.sum())

        def array(self):
            return self.a

    holder = Holder.remote(np.ones(150_000))
    return ray.get(holder.total.remote()), ray.get(holder.array.remote()).shape


@case("data")
def views_outlive_their_refs(ray):
    a = ray.get(ray.put(np.full(200_000, 7)))
    for i in range(5):
        ray.put(np.full(200_000, i))
    return int(a.sum())


@case("data")
def an_object_outlives_the_task_that_put_it(ray):
    @ray.remote(max_calls=1)
    def f():
        return [ray.put(np.full(200_000, 3))]

    (ref,) = ray.get(f.remote())
    return int(ray.get(ref).sum())


@case("data")
def an_object_and_the_actor_that_put_it(ray):
    @ray.remote
    class A:
        def make(self):
            return [ray.put(np.full(200_000, 3))]

        def f(self):
            return 1

    a = A.remote()
    (ref,) = ray.get(a.make.remote())
    ray.kill(a)
    raised(ray.get, a.f.remote())
    return raised(ray.get, ref, timeout=20)


@case("data")
def bytes_of_every_kind(ray):
    values = [b"", b"x", b"x" * 300_000, bytearray(b"y" * 300_000), "ñ" * 200_000]
    back = [ray.get(ray.put(value)) for value in values]
    return [a == b and type(a) is type(b) for a, b in zip(values, back)]


@case("data")
def memoryviews(ray):
    return raised(lambda: ray.get(ray.put(memoryview(b"abc"))))


@case("data")
def arrays_of_the_standard_library(ray):
    return ray.get(ray.put(array.array("d", [1.0, 2.0]))).tolist()


@case("data")
def values_of_the_standard_library(ray):
    class Color(enum.Enum):
        RED = 1

    values = [
        datetime.datetime(2024, 1, 2, 3, 4, 5),
        datetime.timedelta(days=1),
        decimal.Decimal("1.10"),
        uuid.UUID(int=5),
        pathlib.PurePosixPath("a/b"),
        range(3),
        slice(1, 2),
        frozenset({1}),
    ]
    return [ray.get(ray.put(value)) == value for value in values], ray.get(ray.put(Color.RED)).value


@case("data")
def data_classes(ray):
    @dataclasses.dataclass
    class Point:
        x: int
        y: list

    back = ray.get(ray.put(Point(1, [2])))
    return back.x, back.y, dataclasses.asdict(back)


@case("data")
def classes_with_a_way_of_their_own(ray):
    class Half:
        def __init__(self, x):
            self.x = x

        def __getstate__(self):
            return {"x": self.x / 2}

    return ray.get(ray.put(Half(10))).x


@case("data")
def a_serializer_of_the_user(ray):
    import threading

    class Locked:
        def __init__(self, x):
            self.x = x
            self.lock = threading.Lock()

    util = part(ray, "util")
    before = raised(ray.put, Locked(1))
    util.register_serializer(Locked, serializer=lambda value: value.x, deserializer=Locked)
    back = ray.get(ray.put(Locked(5))).x
    util.deregister_serializer(Locked)
    return before, back, raised(ray.put, Locked(1))


@case("data")
def pandas_frames(ray):
    import pandas as pd

    frame = pd.DataFrame({"a": range(50_000), "b": ["x"] * 50_000, "c": np.ones(50_000)})
    back = ray.get(ray.put(frame))
    return (
        bool(back.equals(frame)),
        list(back.columns),
        [str(kind) for kind in back.dtypes],
    )


@case("data")
def pandas_series_and_indices(ray):
    import pandas as pd

    series = pd.Series([1, 2, 3], index=pd.date_range("2024-01-01", periods=3), name="s")
    back = ray.get(ray.put(series))
    return (
        bool(back.equals(series)),
        back.name,
        bool((back.index == series.index).all()),
    )


@case("data")
def pandas_in_tasks(ray):
    import pandas as pd

    @ray.remote
    def means(frame):
        return frame.groupby("key")["value"].mean()

    frame = pd.DataFrame({"key": [0, 1] * 10_000, "value": np.arange(20_000.0)})
    return ray.get(means.remote(frame)).tolist()


@case("data")
def arrow_tables(ray):
    import pyarrow as pa

    table = pa.table({"a": np.arange(100_000), "b": ["text"] * 100_000})
    back = ray.get(ray.put(table))
    return back.equals(table), back.num_rows, back.schema.names


@case("data")
def arrow_arrays_and_slices(ray):
    import pyarrow as pa

    values = pa.array(range(10_000))
    return ray.get(ray.put(values.slice(10, 5))).to_pylist(), ray.get(ray.put(pa.array([1, None, 3]))).null_count


@case("data")
def arrow_batches_in_tasks(ray):
    import pyarrow as pa

    @ray.remote
    def rows(batch):
        return batch.num_rows

    return ray.get(rows.remote(pa.RecordBatch.from_pydict({"a": [1, 2, 3]})))


@case("data")
def many_small_objects(ray):
    refs = [ray.put(i) for i in range(2000)]
    return sum(ray.get(refs))


@case("data")
def many_objects_in_one(ray):
    refs = [ray.put(i) for i in range(300)]

    @ray.remote
    def total(refs):
        return sum(ray.get(refs))

    return ray.get(total.remote(refs))


@case("data")
def a_pickle_with_buffers(ray):
    import pickle

    class Blob:
        def __init__(self, content):
            self.content = content

        def __reduce_ex__(self, protocol):
            return type(self), (pickle.PickleBuffer(self.content),)

    return bytes(ray.get(ray.put(Blob(b"z" * 200_000))).content) == b"z" * 200_000
