"""Actors that run several calls at once: threads, event loops, groups."""

from __future__ import annotations

import asyncio
import threading

from conformance.case import case, gate, raised


@case("actors: concurrency")
def a_threaded_actor(ray):
    @ray.remote(max_concurrency=2)
    class A:
        def __init__(self):
            self.event = threading.Event()

        def wait(self):
            return self.event.wait(30)

        def set(self):
            self.event.set()

    a = A.remote()
    ref = a.wait.remote()
    ray.get(a.set.remote())
    return ray.get(ref)


@case("actors: concurrency")
def a_threaded_actor_has_no_more_threads_than_it_may(ray):
    @ray.remote(max_concurrency=3)
    class A:
        def __init__(self):
            self.lock = threading.Lock()
            self.running = self.most = 0

        def f(self):
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
            threading.Event().wait(0.02)
            with self.lock:
                self.running -= 1

        def seen(self):
            return self.most

    a = A.remote()
    ray.get([a.f.remote() for _ in range(12)])
    return ray.get(a.seen.remote()) == 3


@case("actors: concurrency")
def an_async_actor(ray):
    @ray.remote
    class A:
        def __init__(self):
            self.event = asyncio.Event()

        async def wait(self):
            await self.event.wait()
            return "woken"

        async def set(self):
            self.event.set()

    a = A.remote()
    refs = [a.wait.remote() for _ in range(5)]
    ray.get(a.set.remote())
    return ray.get(refs)


@case("actors: concurrency")
def an_async_actor_awaits_refs(ray):
    @ray.remote
    def f(x):
        return x * 2

    @ray.remote
    class A:
        async def one(self, x):
            return await f.remote(x)

        async def many(self, n):
            return await asyncio.gather(*[f.remote(i) for i in range(n)])

    a = A.remote()
    return ray.get([a.one.remote(4), a.many.remote(3)])


@case("actors: concurrency")
def max_concurrency_of_an_async_actor(ray):
    @ray.remote(max_concurrency=2)
    class A:
        def __init__(self):
            self.running = self.most = 0

        async def f(self):
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0.01)
            self.running -= 1

        async def seen(self):
            return self.most

    a = A.remote()
    ray.get([a.f.remote() for _ in range(8)])
    return ray.get(a.seen.remote())


@case("actors: concurrency")
def sync_methods_of_an_async_actor(ray):
    @ray.remote
    class A:
        async def f(self):
            return "async"

        def g(self):
            return "sync", asyncio.get_running_loop() is not None

    a = A.remote()
    return ray.get([a.f.remote(), a.g.remote()])


@case("actors: concurrency")
def an_async_method_that_raises(ray):
    @ray.remote
    class A:
        async def f(self):
            raise KeyError("x")

        async def g(self):
            return "goes on"

    a = A.remote()
    return raised(ray.get, a.f.remote()), ray.get(a.g.remote())


@case("actors: concurrency")
def many_calls_of_an_async_actor(ray):
    @ray.remote
    class A:
        async def f(self, i):
            await asyncio.sleep(0)
            return i

    a = A.remote()
    return sum(ray.get([a.f.remote(i) for i in range(300)]))


@case("actors: concurrency")
def async_calls_from_an_async_driver(ray):
    @ray.remote
    class A:
        async def f(self, i):
            await asyncio.sleep(0.001 * (5 - i))
            return i

    async def main():
        a = A.remote()
        return await asyncio.gather(*[a.f.remote(i) for i in range(5)])

    return asyncio.run(main())


@case("actors: concurrency")
def concurrency_groups(ray):
    with gate() as g:

        @ray.remote(concurrency_groups={"io": 1, "compute": 2})
        class A:
            @ray.method(concurrency_group="io")
            def block(self):
                return g.wait()

            @ray.method(concurrency_group="compute")
            def f(self):
                return "compute"

            def default(self):
                return "default"

            def name(self):
                return threading.current_thread() is threading.main_thread()

        a = A.remote()
        blocked = a.block.remote()
        others = ray.get([a.f.remote(), a.default.remote()])
        g.open()
        return others, ray.get(blocked)


@case("actors: concurrency")
def concurrency_groups_by_options(ray):
    with gate() as g:

        @ray.remote(concurrency_groups={"io": 1})
        class A:
            def block(self):
                return g.wait()

            def f(self):
                return "f"

        a = A.remote()
        blocked = a.block.remote()
        other = ray.get(a.f.options(concurrency_group="io").remote())
        g.open()
        return other, ray.get(blocked)


@case("actors: concurrency")
def concurrency_groups_of_an_async_actor(ray):
    with gate() as g:

        @ray.remote(concurrency_groups={"io": 1})
        class A:
            @ray.method(concurrency_group="io")
            async def block(self):
                while not g.is_open():
                    await asyncio.sleep(0.01)
                return "woken"

            async def f(self):
                return "f"

        a = A.remote()
        ref = a.block.remote()
        other = ray.get(a.f.remote())
        g.open()
        return other, ray.get(ref)


@case("actors: concurrency")
def a_concurrency_group_that_is_not_there(ray):
    @ray.remote(concurrency_groups={"io": 1})
    class A:
        def f(self):
            return 1

    return raised(lambda: ray.get(A.remote().f.options(concurrency_group="none").remote())) is not None


@case("actors: concurrency")
def a_sync_actor_runs_in_its_main_thread(ray):
    @ray.remote
    class A:
        def f(self):
            return threading.current_thread() is threading.main_thread()

    return ray.get(A.remote().f.remote())


@case("actors: concurrency")
def get_in_a_threaded_actor(ray):
    @ray.remote
    def f(x):
        return x + 1

    @ray.remote(max_concurrency=4)
    class A:
        def g(self, x):
            return ray.get(f.remote(x))

    a = A.remote()
    return ray.get([a.g.remote(i) for i in range(8)])
