"""Tasks and actors that yield."""

from __future__ import annotations

import asyncio

from conformance.case import case, gate, raised, tally, until


@case("tasks: generators")
def a_generator_task(ray):
    @ray.remote
    def f(n):
        for i in range(n):
            yield i * 10

    generator = f.remote(4)
    return type(generator).__name__, [ray.get(ref) for ref in generator]


@case("tasks: generators")
def a_streaming_generator_by_name(ray):
    @ray.remote(num_returns="streaming")
    def f():
        yield 1
        yield 2

    return [ray.get(ref) for ref in f.remote()]


@case("tasks: generators")
def a_dynamic_generator(ray):
    @ray.remote(num_returns="dynamic")
    def f(n):
        for i in range(n):
            yield i

    refs = ray.get(f.remote(3))
    return type(refs).__name__, [ray.get(ref) for ref in refs], len(refs)


@case("tasks: generators")
def a_dynamic_generator_that_is_passed_on(ray):
    @ray.remote(num_returns="dynamic")
    def f():
        yield "a"
        yield "b"

    @ray.remote
    def g(generator):
        return [ray.get(ref) for ref in generator]

    return ray.get(g.remote(f.remote()))


@case("tasks: generators")
def several_returns_of_a_generator(ray):
    @ray.remote(num_returns=3)
    def f():
        yield from "abc"

    return ray.get(f.remote())


@case("tasks: generators")
def too_many_values_of_a_generator(ray):
    @ray.remote(num_returns=2)
    def f():
        yield from range(3)

    return [raised(ray.get, ref) for ref in f.remote()]


@case("tasks: generators")
def a_generator_gives_values_before_it_ends(ray):
    with gate() as g:

        @ray.remote
        def f():
            yield "first"
            g.wait()
            yield "last"

        generator = f.remote()
        first = ray.get(next(generator))
        g.open()
        return first, ray.get(next(generator)), raised(next, generator)


@case("tasks: generators")
def a_generator_that_raises(ray):
    @ray.remote
    def f():
        yield 1
        raise ValueError("late")

    generator = f.remote()
    got = [ray.get(next(generator))]
    second = next(generator)
    return got, raised(ray.get, second), raised(next, generator)


@case("tasks: generators")
def a_generator_that_yields_nothing(ray):
    @ray.remote
    def f():
        return
        yield

    return list(f.remote())


@case("tasks: generators")
def a_generator_that_raises_at_once(ray):
    @ray.remote
    def f():
        raise KeyError
        yield

    return [raised(ray.get, ref) for ref in f.remote()]


@case("tasks: generators")
def a_generator_of_large_values(ray):
    @ray.remote
    def f():
        for i in range(4):
            yield bytes([i]) * 500_000

    return [(len(value), value[0]) for value in map(ray.get, f.remote())]


@case("tasks: generators")
def waiting_for_a_generator(ray):
    with gate() as g:

        @ray.remote
        def f():
            yield 1
            g.wait()
            yield 2

        generator = f.remote()
        ready, _ = ray.wait([generator], timeout=30)
        ray.get(next(ready[0]))
        late, rest = ray.wait([generator], timeout=0.05)
        return len(ready), late, rest == [generator]


@case("tasks: generators")
def iterating_asynchronously(ray):
    @ray.remote
    def f():
        for i in range(3):
            yield i

    async def main():
        return [await ref async for ref in f.remote()]

    return asyncio.run(main())


@case("tasks: generators")
def backpressure(ray):
    with tally() as made:

        @ray.remote(_generator_backpressure_num_objects=2)
        def f():
            for i in range(6):
                made.add()
                yield i

        generator = f.remote()
        first = ray.get(next(generator))
        until(lambda: made.count() >= 3, 2)
        ahead = made.count() <= 4
        return first, ahead, [ray.get(ref) for ref in generator], made.count()


@case("tasks: generators")
def a_generator_of_an_actor(ray):
    @ray.remote
    class A:
        def f(self, n):
            for i in range(n):
                yield i

        @ray.method(num_returns="streaming")
        def g(self):
            yield "g"

    a = A.remote()
    streamed = [ray.get(ref) for ref in a.f.options(num_returns="streaming").remote(3)]
    return (
        streamed,
        [ray.get(ref) for ref in a.f.remote(2)],
        [ray.get(ref) for ref in a.g.remote()],
    )


@case("tasks: generators")
def an_asynchronous_generator_of_an_actor(ray):
    @ray.remote
    class A:
        async def f(self, n):
            for i in range(n):
                await asyncio.sleep(0)
                yield i

    return [ray.get(ref) for ref in A.remote().f.remote(3)]


@case("tasks: generators")
def an_asynchronous_generator_that_raises(ray):
    @ray.remote
    class A:
        async def f(self):
            yield 1
            raise ValueError

    generator = A.remote().f.remote()
    return (
        ray.get(next(generator)),
        raised(ray.get, next(generator)),
        raised(next, generator),
    )


@case("tasks: generators")
def cancel_a_generator(ray):
    with gate() as g:

        @ray.remote
        def f():
            yield 1
            g.wait(60)
            yield 2

        generator = f.remote()
        ray.get(next(generator))
        ray.cancel(generator)
        return raised(ray.get, next(generator), timeout=30)


@case("tasks: generators")
def a_generator_is_done(ray):
    @ray.remote
    def f():
        yield 1

    generator = f.remote()
    list(generator)
    return ray.get(generator.completed()), generator.is_finished()


@case("tasks: generators")
def a_generator_whose_refs_are_arguments(ray):
    @ray.remote
    def f():
        for i in (1, 2, 3):
            yield i

    @ray.remote
    def double(x):
        return 2 * x

    return ray.get([double.remote(ref) for ref in f.remote()])


@case("tasks: generators")
def a_generator_can_not_be_passed_on(ray):
    @ray.remote
    def f():
        yield 1

    @ray.remote
    def g(x):
        return type(x).__name__

    return raised(g.remote, f.remote())


@case("tasks: generators")
def next_of_a_generator_with_a_timeout(ray):
    with gate() as g:

        @ray.remote
        def f():
            g.wait()
            yield 1

        generator = f.remote()
        ref = generator._next_sync(0.05)
        nil = ref.is_nil()
        g.open()
        return nil, ray.get(next(generator))
