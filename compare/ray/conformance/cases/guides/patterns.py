"""The guides' patterns and what they advise against."""

from __future__ import annotations

import asyncio
import random
import time

import numpy as np

from conformance.case import case, gate, tally, until


@case("guides: patterns")
def guide_progress_of_many_samples(ray):
    @ray.remote(num_cpus=0)
    class Progress:
        def __init__(self, total):
            self.total = total
            self.done = {}

        def report(self, task, count):
            self.done[task] = count

        def share(self):
            return sum(self.done.values()) / self.total

    @ray.remote
    def sample(n, task, progress):
        for i in range(n):
            if (i + 1) % 100 == 0:
                progress.report.remote(task, i + 1)
        progress.report.remote(task, n)
        return n

    progress = Progress.remote(5 * 250)
    refs = [sample.remote(250, task, progress) for task in range(5)]
    finished = until(lambda: ray.get(progress.share.remote()) == 1)
    return finished, sum(ray.get(refs))


@case("guides: patterns")
def guide_sort_by_nested_tasks(ray):
    def partition(items):
        pivot, *rest = items
        return [x for x in rest if x < pivot], pivot, [x for x in rest if x >= pivot]

    def sort(items):
        if len(items) <= 10:
            return sorted(items)
        low, pivot, high = partition(items)
        return [*sort(low), pivot, *sort(high)]

    @ray.remote
    def sort_remotely(items):
        if len(items) <= 100:
            return sort(items)
        low, pivot, high = partition(items)
        low, high = sort_remotely.remote(low), sort_remotely.remote(high)
        return [*ray.get(low), pivot, *ray.get(high)]

    items = random.Random(3).choices(range(10_000), k=600)
    return ray.get(sort_remotely.remote(items)) == sorted(items)


@case("guides: patterns")
def guide_generators_keep_memory_low(ray):
    @ray.remote
    def at_once(n):
        return [np.zeros(20_000, np.int8) for _ in range(n)]

    @ray.remote(num_returns=4)
    def one_by_one(n):
        for i in range(n):
            yield np.full(20_000, i, np.int8)

    return len(ray.get(at_once.remote(4))), [int(ray.get(ref)[0]) for ref in one_by_one.remote(4)]


@case("guides: patterns")
def guide_limit_of_running_tasks(ray):
    with tally() as running, gate() as g:

        @ray.remote(num_cpus=0.5, memory=100 * 1024 * 1024)
        def process(i):
            running.add()
            g.wait()
            return i

        refs = [process.remote(i) for i in range(4)]
        all_run = until(lambda: running.count() == 4)
        g.open()
        return all_run, ray.get(refs)


@case("guides: patterns")
def guide_limit_of_pending_tasks(ray):
    @ray.remote(num_cpus=0)
    class Actor:
        async def heavy(self):
            await asyncio.sleep(0.001)

    actor = Actor.remote()
    refs = []
    for i in range(100):
        if len(refs) > 20:
            done = i - 20
            ray.wait(refs, num_returns=done)
        refs.append(actor.heavy.remote())
    ray.get(refs)
    return len(refs)


@case("guides: patterns")
def guide_concurrent_calls_of_an_async_actor(ray):
    @ray.remote(num_cpus=0)
    class Store:
        def __init__(self):
            self.items = list(range(4))

        def get(self):
            return self.items.pop() if self.items else None

    @ray.remote
    class Executor:
        def __init__(self, store):
            self.store = store
            self.done = []

        async def run(self):
            while (item := await self.store.get.remote()) is not None:
                self.done.append(item)

        async def states(self):
            return sorted(self.done)

    executor = Executor.remote(Store.remote())
    ray.get(executor.run.remote())
    return ray.get(executor.states.remote())


@case("guides: patterns")
def guide_pipelining(ray):
    @ray.remote(num_cpus=0)
    class Queue:
        def __init__(self):
            self.items = list(range(10))

        def get(self):
            return self.items.pop() if self.items else None

    @ray.remote
    class Worker:
        def __init__(self, queue):
            self.queue = queue

        def run(self):
            done, upcoming = [], self.queue.get.remote()
            while upcoming:
                item = ray.get(upcoming)
                if item is None:
                    break
                upcoming = self.queue.get.remote()
                done.append(item)
            return done

    return ray.get(Worker.remote(Queue.remote()).run.remote())


@case("guides: patterns")
def guide_a_supervisor(ray):
    @ray.remote(num_cpus=0.5)
    class Trainer:
        def __init__(self, rate):
            self.rate = rate

        def train(self, data):
            return self.rate * sum(data)

    @ray.remote(num_cpus=0.5)
    class Supervisor:
        def __init__(self, rate, data):
            self.data = data
            self.trainers = [Trainer.remote(rate) for _ in range(2)]

        def fit(self):
            halves = np.array_split(self.data, 2)
            return sum(ray.get([trainer.train.remote(half) for trainer, half in zip(self.trainers, halves)]))

    data = np.arange(10)
    return [float(value) for value in ray.get([Supervisor.remote(rate, data).fit.remote() for rate in (0.5, 2)])]


@case("guides: patterns")
def guide_map_and_reduce(ray):
    @ray.remote
    def map_(obj, f):
        return f(obj)

    @ray.remote
    def sum_results(*elements):
        return np.sum(elements)

    mapped = [map_.remote(i, lambda value: value * 2) for i in range(20)]
    pairs = mapped
    while len(pairs) > 1:
        pairs = [sum_results.remote(*pairs[i : i + 4]) for i in range(0, len(pairs), 4)]
    return int(ray.get(sum_results.remote(*mapped))), int(ray.get(pairs[0]))


@case("guides: patterns")
def guide_get_of_many_in_parts(ray):
    @ray.remote
    def item(i):
        return np.full(1000, i)

    refs, total = [item.remote(i) for i in range(30)], 0
    while refs:
        ready, refs = ray.wait(refs, num_returns=min(7, len(refs)))
        total += sum(int(value[0]) for value in ray.get(ready))
    return total


@case("guides: patterns")
def guide_one_definition_for_many_calls(ray):
    @ray.remote
    def outer(i):
        return i

    in_a_loop = []
    for i in range(3):

        @ray.remote
        def inner(i):
            return i

        in_a_loop.append(inner.remote(i))
    return ray.get(in_a_loop), ray.get([outer.remote(i) for i in range(3)])


@case("guides: patterns")
def guide_values_rather_than_references(ray):
    @ray.remote
    def by_reference():
        return ray.put(np.zeros(50_000))

    @ray.remote
    def by_value():
        return np.zeros(50_000)

    @ray.remote
    def several():
        return [ray.put(np.zeros(10)) for _ in range(3)]

    @ray.remote(num_returns=3)
    def several_by_value():
        return [np.zeros(10) for _ in range(3)]

    return (
        ray.get(ray.get(by_reference.remote())).size,
        ray.get(by_value.remote()).size,
        [value.size for value in ray.get(ray.get(several.remote()))],
        [value.size for value in ray.get(several_by_value.remote())],
    )


@case("guides: patterns")
def guide_state_is_not_in_globals(ray):
    @ray.remote(num_cpus=0)
    class Value:
        def __init__(self):
            self.value = 3

        def set(self, value):
            self.value = value

        def get(self):
            return self.value

    @ray.remote
    class Uses:
        def f(self, value):
            return ray.get(value.get.remote()) * 2

    value = Value.remote()
    ray.get(value.set.remote(4))
    return ray.get(Uses.remote().f.remote(value))


@case("guides: patterns", alone=True)
def guide_processes_of_ones_own(ray):
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    ray.init(num_cpus=2)

    @ray.remote
    def respond(request):
        return "Response to " + request

    responses = ray.get([respond.remote(f"request {i}") for i in range(3)])
    with ProcessPoolExecutor(max_workers=2, mp_context=multiprocessing.get_context("spawn")) as executor:
        return list(executor.map(str.upper, responses))


@case("guides: patterns")
def guide_batches_of_small_tasks(ray):
    @ray.remote
    def batch(items):
        return [time.sleep(0) or item * item for item in items]

    return sum(sum(ray.get([batch.remote(range(i, i + 10)) for i in range(0, 40, 10)]), []))


@case("guides: patterns")
def guide_a_signal_between_tasks(ray):
    @ray.remote(num_cpus=0)
    class Signal:
        def __init__(self):
            self.event = asyncio.Event()

        def send(self, clear=False):
            self.event.set()
            if clear:
                self.event.clear()

        async def wait(self, should_wait=True):
            if should_wait:
                await self.event.wait()

    @ray.remote
    def wait_and_go(signal):
        ray.get(signal.wait.remote())
        return "go"

    signal = Signal.remote()
    tasks = [wait_and_go.remote(signal) for _ in range(4)]
    ray.get(signal.send.remote())
    return ray.get(tasks)
