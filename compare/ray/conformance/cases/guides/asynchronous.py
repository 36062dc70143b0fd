"""The guide on asyncio and threads."""

from __future__ import annotations

import asyncio
import concurrent.futures

from conformance.case import case, raised


def _async_actor(ray):
    @ray.remote
    class Actor:
        def __init__(self):
            self.running = self.most = 0

        async def run(self):
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0.05)
            self.running -= 1
            return "ran"

        async def at_once(self):
            return self.most

    return Actor


@case("guides: async")
def guide_async_actors(ray):
    actor = _async_actor(ray).remote()
    all_ = ray.get([actor.run.remote() for _ in range(50)])

    async def main():
        return await actor.run.remote()

    return set(all_), asyncio.run(main()), ray.get(actor.at_once.remote()) > 10


@case("guides: async")
def guide_how_many_at_once(ray):
    actor = _async_actor(ray).options(max_concurrency=10).remote()
    ray.get([actor.run.remote() for _ in range(50)])
    return ray.get(actor.at_once.remote())


@case("guides: async")
def guide_references_as_futures(ray):
    @ray.remote
    def some():
        return 1

    async def main():
        ref = some.remote()
        future: asyncio.Future = asyncio.wrap_future(ref.future())
        done, pending = await asyncio.wait([future])
        gathered = await asyncio.gather(some.remote(), some.remote())
        within = await asyncio.wait_for(asyncio.wrap_future(some.remote().future()), timeout=20)
        return await some.remote(), len(done), len(pending), gathered, within, await future

    futures = [some.remote().future() for _ in range(4)]
    results = [future.result() for future in concurrent.futures.as_completed(futures) if future.done()]
    return asyncio.run(main()), results


@case("guides: async")
def guide_tasks_are_not_async(ray):
    async def f():
        return "value"

    @ray.remote
    def wrapper():
        return asyncio.run(f())

    return raised(ray.remote, f), ray.get(wrapper.remote())


@case("guides: async")
def guide_blocking_calls_within_a_loop(ray):
    @ray.remote
    def f(x):
        return x

    async def main():
        a, b, c, d = (f.remote(x) for x in range(4))
        values = [ray.get(a), ray.get([b])[0]]
        ready, _ = ray.wait([c])
        return values, len(ready), await d

    return asyncio.run(main())


@case("guides: async")
def guide_an_async_actor_that_computes_elsewhere(ray):
    @ray.remote
    def compute(x):
        return x * x

    @ray.remote
    class Front:
        async def ask(self, xs):
            return await asyncio.gather(*[compute.remote(x) for x in xs])

    return ray.get(Front.remote().ask.remote([1, 2, 3]))
