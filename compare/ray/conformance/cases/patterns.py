"""Programs of the kinds that Ray's guides show: small, and whole."""

from __future__ import annotations

import asyncio
import collections
import random

import numpy as np

from conformance.case import case, gate, raised, tally


@case("patterns")
def estimate_pi(ray):
    @ray.remote
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
        numbers = random.Random(task)
        inside = sum(numbers.random() ** 2 + numbers.random() ** 2 <= 1 for _ in range(n))
        ray.get(progress.report.remote(task, n))
        return inside

    progress = Progress.remote(4 * 2000)
    inside = sum(ray.get([sample.remote(2000, task, progress) for task in range(4)]))
    return inside, ray.get(progress.share.remote())


@case("patterns")
def map_and_reduce(ray):
    texts = ["a b a", "b c", "a c c c"]

    @ray.remote(num_returns=2)
    def count(text):
        counts = collections.Counter(text.split())
        return {w: n for w, n in counts.items() if w <= "b"}, {w: n for w, n in counts.items() if w > "b"}

    @ray.remote
    def add(*parts):
        total = collections.Counter()
        for part_ in parts:
            total.update(part_)
        return dict(sorted(total.items()))

    parts = [count.remote(text) for text in texts]
    return ray.get([add.remote(*[two[i] for two in parts]) for i in range(2)])


@case("patterns")
def a_tree_of_sums(ray):
    @ray.remote
    def add(a, b):
        return a + b

    refs = [ray.put(i) for i in range(1, 9)]
    while len(refs) > 1:
        refs = [add.remote(a, b) for a, b in zip(refs[::2], refs[1::2])]
    return ray.get(refs[0])


@case("patterns")
def quick_sort_by_nested_tasks(ray):
    def partition(items):
        pivot = items[0]
        return (
            [x for x in items[1:] if x < pivot],
            pivot,
            [x for x in items[1:] if x >= pivot],
        )

    @ray.remote
    def sort(items):
        if len(items) <= 12:
            return sorted(items)
        low, pivot, high = partition(items)
        low, high = ray.get([sort.remote(low), sort.remote(high)])
        return [*low, pivot, *high]

    items = random.Random(1).sample(range(1000), 60)
    return ray.get(sort.remote(items)) == sorted(items)


@case("patterns")
def a_tree_of_actors(ray):
    @ray.remote
    class Worker:
        def __init__(self, name):
            self.name = name

        def work(self, x):
            return f"{self.name}{x}"

    @ray.remote
    class Supervisor:
        def __init__(self, name):
            self.workers = [Worker.remote(f"{name}{i}") for i in range(2)]

        def work(self, x):
            return ray.get([worker.work.remote(x) for worker in self.workers])

    return ray.get([Supervisor.remote(name).work.remote("!") for name in "ab"])


@case("patterns")
def a_parameter_server(ray):
    @ray.remote
    class Server:
        def __init__(self):
            self.weights = np.zeros(10)

        def apply(self, *gradients):
            self.weights -= np.mean(gradients, axis=0)
            return self.weights

        def get(self):
            return self.weights

    @ray.remote
    class Worker:
        def gradient(self, weights, target):
            return weights - target

    server = Server.remote()
    workers = [Worker.remote() for _ in range(2)]
    weights = server.get.remote()
    for _ in range(3):
        weights = server.apply.remote(*[worker.gradient.remote(weights, i + 1.0) for i, worker in enumerate(workers)])
    return ray.get(weights)


@case("patterns")
def limit_what_is_pending(ray):
    @ray.remote
    def f(i):
        return i

    pending, results, most = [], [], 0
    for i in range(30):
        if len(pending) >= 5:
            ready, pending = ray.wait(pending, num_returns=1)
            results += ray.get(ready)
        pending.append(f.remote(i))
        most = max(most, len(pending))
    results += ray.get(pending)
    return most, sorted(results) == list(range(30))


@case("patterns")
def results_as_they_come(ray):
    with gate() as g:

        @ray.remote
        def f(i):
            if i == 0:
                g.wait()
            return i

        pending = [f.remote(i) for i in range(4)]
        order = []
        while pending:
            (ready,), pending = ray.wait(pending, num_returns=1)
            order.append(ray.get(ready))
            if len(order) == 3:
                g.open()
        return sorted(order[:3]), order[3]


@case("patterns")
def an_actor_as_a_signal(ray):
    @ray.remote(num_cpus=0)
    class Signal:
        def __init__(self):
            self.event = asyncio.Event()

        def send(self):
            self.event.set()

        async def wait(self):
            await self.event.wait()

    @ray.remote
    def wait_and_go(signal):
        ray.get(signal.wait.remote())
        return "go"

    signal = Signal.remote()
    refs = [wait_and_go.remote(signal) for _ in range(2)]
    early = ray.wait(refs, timeout=0.05)[0]
    ray.get(signal.send.remote())
    return early, ray.get(refs)


@case("patterns")
def an_actor_as_a_semaphore(ray):
    @ray.remote(num_cpus=0)
    class Semaphore:
        def __init__(self, n):
            self.semaphore = asyncio.Semaphore(n)

        async def acquire(self):
            await self.semaphore.acquire()

        async def release(self):
            self.semaphore.release()

        async def locked(self):
            return self.semaphore.locked()

    semaphore = Semaphore.remote(1)
    ray.get(semaphore.acquire.remote())
    second = semaphore.acquire.remote()
    states = [ray.get(semaphore.locked.remote()), ray.wait([second], timeout=0.05)[0]]
    ray.get(semaphore.release.remote())
    ray.get(second)
    return states


@case("patterns")
def a_pipeline_of_actors(ray):
    @ray.remote
    class Stage:
        def __init__(self, function):
            self.function = function

        def process(self, x):
            return self.function(x)

    stages = [
        Stage.remote(lambda x: x + 1),
        Stage.remote(lambda x: x * 2),
        Stage.remote(str),
    ]
    results = []
    for i in range(5):
        ref = ray.put(i)
        for stage in stages:
            ref = stage.process.remote(ref)
        results.append(ref)
    return ray.get(results)


@case("patterns")
def a_worker_asks_for_work_ahead(ray):
    @ray.remote
    class Source:
        def __init__(self):
            self.items = list(range(6))

        def next(self):
            return self.items.pop(0) if self.items else None

    @ray.remote
    class Worker:
        def run(self, source):
            done, upcoming = [], source.next.remote()
            while (item := ray.get(upcoming)) is not None:
                upcoming = source.next.remote()
                done.append(item * item)
            return done

    source = Source.remote()
    return sorted(sum(ray.get([Worker.remote().run.remote(source) for _ in range(2)]), []))


@case("patterns")
def tasks_in_batches(ray):
    @ray.remote
    def squares(batch):
        return [x * x for x in batch]

    batches = [range(i, i + 10) for i in range(0, 50, 10)]
    return sum(sum(ray.get([squares.remote(batch) for batch in batches]), []))


@case("patterns")
def a_large_object_is_put_once(ray):
    model = ray.put(np.arange(200_000))

    @ray.remote
    def predict(model, x):
        return int(model[x])

    return ray.get([predict.remote(model, x) for x in range(5)])


@case("patterns")
def a_generator_limits_memory(ray):
    @ray.remote
    def blocks(n):
        for i in range(n):
            yield np.full(50_000, i)

    @ray.remote
    def total(block):
        return int(block.sum())

    return ray.get([total.remote(block) for block in blocks.remote(4)])


@case("patterns")
def fault_tolerance_by_hand(ray):
    with tally() as tries:

        @ray.remote(max_restarts=0)
        class Flaky:
            def work(self):
                import os

                if tries.add() == 1:
                    os._exit(1)
                return "done"

        actor = Flaky.remote()
        for _ in range(3):
            try:
                return ray.get(actor.work.remote()), tries.count()
            except ray.exceptions.RayActorError:
                actor = Flaky.remote()


@case("patterns")
def a_checkpoint_of_an_actor(ray):
    from conformance.case import folder

    with folder() as path:

        @ray.remote(max_restarts=1, max_task_retries=1)
        class Counter:
            def __init__(self, file):
                self.file = file
                self.n = int(file.read_text()) if file.exists() else 0

            def add(self, crash=False):
                import os

                if crash and not self.file.with_suffix(".crashed").exists():
                    self.file.with_suffix(".crashed").touch()
                    os._exit(1)
                self.n += 1
                self.file.write_text(str(self.n))
                return self.n

        counter = Counter.remote(path / "state")
        ray.get([counter.add.remote(), counter.add.remote()])
        return ray.get(counter.add.remote(crash=True))


@case("patterns")
def global_state_belongs_in_an_actor(ray):
    @ray.remote
    class Shared:
        def __init__(self):
            self.value = 0

        def set(self, value):
            self.value = value

        def get(self):
            return self.value

    @ray.remote
    def reads(shared):
        return ray.get(shared.get.remote())

    shared = Shared.remote()
    ray.get(shared.set.remote(5))
    return ray.get([reads.remote(shared) for _ in range(2)])


@case("patterns")
def a_cache_by_refs(ray):
    @ray.remote
    class Cache:
        def __init__(self):
            self.refs = {}

        def add(self, key, refs):
            self.refs[key] = refs[0]

        def find(self, key):
            return [self.refs[key]] if key in self.refs else []

    cache = Cache.remote()
    ray.get(cache.add.remote("a", [ray.put(np.ones(100_000))]))
    (ref,) = ray.get(cache.find.remote("a"))
    return ray.get(ref).sum(), ray.get(cache.find.remote("b"))


@case("patterns")
def asynchronous_batches(ray):
    @ray.remote
    class Batcher:
        def __init__(self):
            self.waiting = []

        async def ask(self, x):
            future = asyncio.get_running_loop().create_future()
            self.waiting.append((x, future))
            if len(self.waiting) == 3:
                batch, self.waiting = self.waiting, []
                total = sum(x for x, _ in batch)
                for _, waiter in batch:
                    waiter.set_result(total)
            return await future

    batcher = Batcher.remote()
    return ray.get([batcher.ask.remote(x) for x in (1, 2, 3)])


@case("patterns")
def a_publisher_by_long_polling(ray):
    @ray.remote
    class Publisher:
        def __init__(self):
            self.condition = asyncio.Condition()
            self.version = 0

        async def publish(self):
            async with self.condition:
                self.version += 1
                self.condition.notify_all()

        async def newer_than(self, version):
            async with self.condition:
                await self.condition.wait_for(lambda: self.version > version)
                return self.version

    publisher = Publisher.remote()
    refs = [publisher.newer_than.remote(0) for _ in range(3)]
    ray.get(publisher.publish.remote())
    return ray.get(refs)


@case("patterns")
def a_dining_table(ray):
    @ray.remote
    class Fork:
        def __init__(self):
            self.lock = asyncio.Lock()

        async def take(self):
            await self.lock.acquire()

        async def lay_down(self):
            self.lock.release()

    @ray.remote(num_cpus=0)
    def philosopher(first, second):
        for _ in range(2):
            ray.get(first.take.remote())
            ray.get(second.take.remote())
            ray.get([first.lay_down.remote(), second.lay_down.remote()])
        return "full"

    forks = [Fork.remote() for _ in range(3)]
    pairs = [(0, 1), (1, 2), (0, 2)]
    return ray.get([philosopher.remote(forks[a], forks[b]) for a, b in pairs])


@case("patterns")
def a_game_of_life(ray):
    @ray.remote
    def row(above, here, below):
        n = len(here)

        def alive(i):
            around = sum(line[(i + d) % n] for line in (above, here, below) for d in (-1, 0, 1)) - here[i]
            return int(around == 3 or (here[i] and around == 2))

        return [alive(i) for i in range(n)]

    grid = [[0] * 5 for _ in range(5)]
    for x, y in [(0, 1), (1, 2), (2, 0), (2, 1), (2, 2)]:
        grid[x][y] = 1
    for _ in range(4):
        grid = ray.get([row.remote(grid[i - 1], grid[i], grid[(i + 1) % 5]) for i in range(5)])
    return grid


@case("patterns")
def a_distributed_matrix_product(ray):
    @ray.remote
    def multiply(a, b):
        return a @ b

    @ray.remote
    def add(*blocks):
        return sum(blocks)

    a = np.arange(16.0).reshape(4, 4)
    blocks = {(i, j): ray.put(a[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]) for i in range(2) for j in range(2)}
    product = [[add.remote(*[multiply.remote(blocks[i, k], blocks[k, j]) for k in range(2)]) for j in range(2)] for i in range(2)]
    return bool((np.block([ray.get(line) for line in product]) == a @ a).all())


@case("patterns")
def errors_do_not_stop_a_search(ray):
    @ray.remote
    def trial(x):
        if x % 3 == 0:
            raise ValueError(x)
        return -((x - 5) ** 2)

    scores = {}
    for x, ref in [(x, trial.remote(x)) for x in range(8)]:
        try:
            scores[x] = ray.get(ref)
        except ValueError:
            scores[x] = None
    return scores


@case("patterns")
def decorated_by_hand(ray):
    def parallel(function):
        remote = ray.remote(function)
        return lambda items: ray.get([remote.remote(item) for item in items])

    @parallel
    def cube(x):
        return x**3

    return cube(range(5)), raised(cube, ["a"])
