"""What references can do."""

from __future__ import annotations

import asyncio
import threading

from conformance.case import case, gate, part, raised


@case("core")
def refs_are_hashable(ray):
    a, b = ray.put(1), ray.put(1)
    return len({a, b, a}), {a: "a"}[a], a == b, a != b, a == a, hash(a) == hash(a)


@case("core")
def a_ref_is_equal_to_itself_after_a_journey(ray):
    @ray.remote
    def f(refs):
        return refs

    ref = ray.put(1)
    back = ray.get(f.remote([ref]))[0]
    return back == ref, hash(back) == hash(ref), back.hex() == ref.hex()


@case("core")
def refs_as_text(ray):
    @ray.remote
    def f():
        pass

    ref = f.remote()
    return (
        repr(ref).startswith("ObjectRef("),
        ref.hex() in repr(ref),
        type(ref.binary()).__name__,
        type(ref).__name__,
    )


@case("core")
def refs_as_futures(ray):
    @ray.remote
    def f():
        return 5

    @ray.remote
    def g():
        raise ValueError

    good, bad = f.remote().future(), g.remote().future()
    return good.result(30), raised(bad.result, 30), good.done()


@case("core")
def refs_are_awaitable(ray):
    @ray.remote
    def f(x):
        return x

    async def main():
        one = await f.remote(1)
        return [one, *await asyncio.gather(f.remote(2), f.remote(3), ray.put(4))]

    return asyncio.run(main())


@case("core")
def awaiting_a_failure(ray):
    @ray.remote
    def f():
        raise KeyError("a")

    async def main():
        try:
            await f.remote()
        except KeyError as error:
            return type(error).__name__

    return asyncio.run(main())


@case("core")
def awaiting_with_a_timeout(ray):
    with gate() as g:

        @ray.remote
        def f():
            g.wait()

        async def main():
            await asyncio.wait_for(f.remote(), 0.05)

        return raised(asyncio.run, main())


@case("core")
def asyncio_wait_of_refs(ray):
    @ray.remote
    def f(x):
        return x

    async def main():
        tasks = [asyncio.wrap_future(f.remote(i).future()) for i in range(4)]
        done, pending = await asyncio.wait(tasks)
        return sorted(task.result() for task in done), len(pending)

    return asyncio.run(main())


@case("core")
def refs_by_cloudpickle(ray):
    cloudpickle = part(ray, "cloudpickle")

    ref = ray.put("value")
    return ray.get(cloudpickle.loads(cloudpickle.dumps(ref)))


@case("core")
def a_ref_kept_in_an_actor(ray):
    @ray.remote
    class Keeper:
        def keep(self, refs):
            self.ref = refs[0]

        def read(self):
            return ray.get(self.ref)

    keeper = Keeper.remote()
    ref = ray.put([1, 2, 3])
    ray.get(keeper.keep.remote([ref]))
    del ref
    return ray.get(keeper.read.remote())


@case("core")
def top_level_refs_are_resolved(ray):
    @ray.remote
    def f(a, b=None, *rest, c=None):
        return a, b, rest, c

    return ray.get(f.remote(ray.put(1), ray.put(2), ray.put(3), c=ray.put(4)))


@case("core")
def nested_refs_stay_refs(ray):
    @ray.remote
    def f(a, b, c):
        return [type(x).__name__ for x in (a[0], b["k"], c[0][0])]

    ref = ray.put(1)
    return ray.get(f.remote([ref], {"k": ref}, ([ref],)))


@case("core")
def refs_of_pending_tasks_are_resolved(ray):
    with gate() as g:

        @ray.remote
        def first():
            g.wait()
            return 2

        @ray.remote
        def second(x):
            return x * 10

        ref = second.remote(first.remote())
        ready, _ = ray.wait([ref], timeout=0.05)
        g.open()
        return ready, ray.get(ref)


@case("core")
def a_chain_of_refs(ray):
    @ray.remote
    def f(x):
        return x + 1

    ref = ray.put(0)
    for _ in range(20):
        ref = f.remote(ref)
    return ray.get(ref)


@case("core")
def an_argument_that_failed(ray):
    @ray.remote
    def bad():
        raise ValueError("first")

    @ray.remote
    def next_(x):
        return "ran"

    return raised(ray.get, next_.remote(bad.remote()))


@case("core")
def get_from_threads(ray):
    @ray.remote
    def f(x):
        return x * x

    results = {}

    def work(i):
        results[i] = ray.get(f.remote(i))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return sorted(results.items())
