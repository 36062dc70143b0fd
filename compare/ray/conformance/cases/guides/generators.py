"""The guide on generators."""

from __future__ import annotations

import asyncio

import numpy as np

from conformance.case import case, folder, gate, part, raised, until


@case("guides: generators")
def guide_generators(ray):
    @ray.remote
    def task():
        for i in range(5):
            yield i

    gen = task.remote()
    first = [ray.get(next(gen)), ray.get(next(gen))]
    return first, [ray.get(ref) for ref in gen], raised(next, gen)


@case("guides: generators")
def guide_a_failure_in_a_generator(ray):
    @ray.remote
    def task():
        for i in range(5):
            if i == 1:
                raise ValueError
            yield i

    gen = task.remote()
    return ray.get(next(gen)), raised(ray.get, next(gen)), raised(next, gen)


@case("guides: generators")
def guide_generators_of_actors(ray):
    @ray.remote
    class Sync:
        def f(self):
            for i in range(5):
                yield i

    @ray.remote
    class Async:
        async def f(self):
            for i in range(5):
                yield i

    @ray.remote(max_concurrency=5)
    class Threaded:
        def f(self):
            for i in range(5):
                yield i

    return [[ray.get(ref) for ref in kind.remote().f.remote()] for kind in (Sync, Async, Threaded)]


@case("guides: generators")
def guide_generators_asynchronously(ray):
    @ray.remote
    def task():
        for i in range(5):
            yield i

    async def collect():
        return [await ref async for ref in task.remote()]

    async def main():
        return await asyncio.gather(collect(), collect())

    return asyncio.run(main())


@case("guides: generators")
def guide_a_generator_that_goes(ray):
    @ray.remote
    def task():
        for i in range(5):
            yield i

    gen = task.remote()
    ref = next(gen)
    del gen
    return ray.get(ref)


@case("guides: generators")
def guide_wait_for_a_generator(ray):
    with folder() as path:

        @ray.remote
        def task():
            for i in range(3):
                until(lambda: (path / str(i)).exists())
                yield i

        gen = task.remote()
        seen = [tuple(map(len, ray.wait([gen], timeout=0)))]
        (path / "0").touch()
        seen.append(tuple(map(len, ray.wait([gen]))))
        next(gen)
        seen.append(tuple(map(len, ray.wait([gen], timeout=0))))
        for name in "12":
            (path / name).touch()
        return seen, [ray.get(ref) for ref in gen]


@case("guides: generators")
def guide_wait_for_generators_and_references(ray):
    kind = part(ray, "_raylet").ObjectRefGenerator

    @ray.remote
    def values():
        for i in range(5):
            yield i

    @ray.remote
    def value():
        return "value"

    result, unready = [], [values.remote(), value.remote()]
    while unready:
        ready, unready = ray.wait(unready)
        for one in ready:
            if isinstance(one, kind):
                try:
                    result.append(ray.get(next(one)))
                except StopIteration:
                    pass
                else:
                    unready.append(one)
            else:
                result.append(ray.get(one))
    return sorted(map(str, result)), kind is ray.ObjectRefGenerator


@case("guides: generators")
def guide_cancel_a_generator(ray):
    with gate() as g:

        @ray.remote
        def task():
            yield 1
            g.wait()
            yield 2

        gen = task.remote()
        first = ray.get(next(gen))
        ray.cancel(gen)
        return first, raised(ray.get, next(gen)), raised(ray.get, gen.completed())


@case("guides: generators")
def guide_a_number_of_values_that_is_not_known(ray):
    @ray.remote(num_returns="dynamic")
    def split(array, size):
        while len(array) > 0:
            yield array[:size]
            array = array[size:]

    @ray.remote
    def total(generator: ray.DynamicObjectRefGenerator):
        return sum(len(ray.get(ref)) for ref in generator)

    array = ray.put(np.zeros(2500))
    ref = split.remote(array, 1000)
    lengths = [len(ray.get(part_)) for part_ in ray.get(ref)]
    again = split.remote(array, 1000)
    return lengths, ray.get(total.remote(again)), ray.get(total.remote(ray.get(split.remote(array, 1000))))


@case("guides: generators")
def guide_failures_of_generators_with_several_values(ray):
    @ray.remote
    def generator():
        for i in range(2):
            yield i
        raise Exception("error")

    a, b, c, d = generator.options(num_returns=4).remote()
    e, f = generator.options(num_returns=2).remote()
    refs = list(ray.get(generator.options(num_returns="dynamic").remote()))
    return (
        ray.get([a, b]),
        [raised(ray.get, ref) for ref in (c, d)],
        ray.get([e, f]),
        ray.get(refs[:2]),
        [raised(ray.get, ref) for ref in refs[2:]],
    )


@case("guides: generators")
def guide_a_generator_is_tried_again(ray):
    from conformance.case import tally

    with tally() as tries:

        @ray.remote(max_retries=2, retry_exceptions=True)
        def task():
            for i in range(3):
                if i == 2 and tries.add() == 1:
                    raise ValueError
                yield i

        return [ray.get(ref) for ref in task.remote()], tries.count()
