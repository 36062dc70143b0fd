"""The guides on actors: state, order, names, ends, restarts, concurrency, utilities."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading

from conformance.case import case, folder, gate, part, raised, tally, until


@case("guides: actors")
def guide_actors(ray):
    @ray.remote
    class Counter:
        def __init__(self):
            self.value = 0

        def increment(self):
            self.value += 1
            return self.value

        def get_counter(self):
            return self.value

    counters = [Counter.options(num_cpus=0).remote() for _ in range(10)]
    once = ray.get([counter.increment.remote() for counter in counters])
    again = ray.get([counters[0].increment.remote() for _ in range(5)])

    @ray.remote
    def use(counter):
        for _ in range(10):
            counter.increment.remote()
        return ray.get(counter.get_counter.remote()) >= 10

    used = ray.get([use.remote(counters[1]) for _ in range(3)])
    return once, again, used, ray.get(counters[1].get_counter.remote())


@case("guides: actors")
def guide_cancel_an_async_call(ray):
    with gate() as began:

        @ray.remote
        class Actor:
            def __init__(self):
                self.seen = None

            async def f(self):
                began.open()
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    self.seen = "cancelled"

            async def what(self):
                return self.seen

        actor = Actor.remote()
        ref = actor.f.remote()
        began.wait()
        ray.cancel(ref)
        outcome = raised(ray.get, ref)
        until(lambda: ray.get(actor.what.remote()))
        return outcome, ray.get(actor.what.remote())


@case("guides: actors")
def guide_a_call_looks_whether_it_is_cancelled(ray):
    with gate() as began:

        @ray.remote
        class Actor:
            def __init__(self):
                self.is_canceled = False

            def run(self):
                began.open()
                if until(lambda: ray.get_runtime_context().is_canceled()):
                    self.is_canceled = True
                    return "canceled"
                return "completed"

            def status(self):
                return self.is_canceled, ray.get_runtime_context().is_canceled()

        actor = Actor.remote()
        ref = actor.run.remote()
        began.wait()
        ray.cancel(ref)
        return raised(ray.get, ref), ray.get(actor.status.remote())


@case("guides: actors")
def guide_a_call_that_does_not_look(ray):
    with gate() as began, gate() as end:

        @ray.remote
        class Actor:
            def run(self):
                began.open()
                return end.wait()

            def lives(self):
                return True

        actor = Actor.remote()
        ref = actor.run.remote()
        began.wait()
        ray.cancel(ref)
        early = ray.wait([ref], timeout=0.3)[0]
        end.open()
        return len(early), raised(ray.get, ref), ray.get(actor.lives.remote())


@case("guides: actors")
def guide_a_threaded_call_looks_whether_it_is_cancelled(ray):
    with gate() as began:

        @ray.remote(max_concurrency=2)
        class Actor:
            def run(self):
                began.open()
                return until(lambda: ray.get_runtime_context().is_canceled())

            def other(self):
                return ray.get_runtime_context().is_canceled()

        actor = Actor.remote()
        ref = actor.run.remote()
        began.wait()
        ray.cancel(ref)
        return raised(ray.get, ref), ray.get(actor.other.remote())


@case("guides: actors")
def guide_a_task_looks_whether_it_is_cancelled(ray):
    @ray.remote
    def looks():
        return ray.get_runtime_context().is_canceled()

    @ray.remote
    class Async:
        async def looks(self):
            return raised(ray.get_runtime_context().is_canceled)

    return ray.get(looks.remote()), ray.get(Async.remote().looks.remote()), raised(ray.get_runtime_context().is_canceled)


@case("guides: actors")
def guide_events_of_a_method(ray):
    @ray.remote
    class Quiet:
        @ray.method(enable_task_events=False)
        def foo(self):
            return 1

    return ray.get(Quiet.options(enable_task_events=False).remote().foo.remote())


@case("guides: actors", alone=True)
def guide_named_actors(ray):
    ray.init(num_cpus=2, namespace="colors")

    @ray.remote(num_cpus=0)
    class Actor:
        def f(self):
            return ray.get_runtime_context().namespace

    Actor.options(name="orange", lifetime="detached").remote()
    Actor.options(name="orange", namespace="fruits", lifetime="detached").remote()
    found = [ray.get_actor("orange"), ray.get_actor("orange", namespace="fruits")]
    twice = raised(Actor.options(name="orange").remote)
    for actor in found:
        ray.get(actor.f.remote())
        ray.kill(actor)
    gone = until(lambda: raised(ray.get_actor, "orange") == "ValueError")
    return ray.get_runtime_context().namespace, twice, gone, raised(ray.get_actor, "orange", namespace="nowhere")


@case("guides: actors")
def guide_get_or_create(ray):
    @ray.remote
    class Greeter:
        def __init__(self, value):
            self.value = value

        def greet(self):
            return self.value

    a = Greeter.options(name="guide-greeter", get_if_exists=True).remote("Alice")
    b = Greeter.options(name="guide-greeter", get_if_exists=True).remote("Dave")
    return ray.get([a.greet.remote(), b.greet.remote()])


@case("guides: actors")
def guide_ends_of_actors(ray):
    @ray.remote
    class Actor:
        def f(self):
            return 1

        def leave(self):
            ray.actor.exit_actor()

    killed, left = Actor.remote(), Actor.remote()
    ray.get([killed.f.remote(), left.f.remote()])
    ray.kill(killed)
    return raised(ray.get, killed.f.remote()), raised(ray.get, left.leave.remote()), raised(ray.get, left.f.remote())


@case("guides: actors")
def guide_restarts(ray):
    @ray.remote(max_restarts=2, max_task_retries=-1)
    class Actor:
        def __init__(self):
            self.counter = 0

        def increment(self):
            if self.counter == 4:
                os._exit(0)
            self.counter += 1
            return self.counter

    actor = Actor.remote()
    counts = [ray.get(actor.increment.remote()) for _ in range(12)]
    failures = []
    for _ in range(3):
        try:
            ray.get(actor.increment.remote())
        except ray.exceptions.RayActorError:
            failures.append("failure")
    return counts, failures


@case("guides: actors")
def guide_checkpoints_by_hand(ray):
    @ray.remote(num_cpus=1)
    class Worker:
        def __init__(self):
            self.state = {"done": 0}

        def run(self, crash=False):
            if crash:
                sys.exit(1)
            self.state["done"] += 1

        def checkpoint(self):
            return self.state

        def restore(self, state):
            self.state = state

    class Controller:
        def __init__(self):
            self.worker = Worker.remote()
            self.state = ray.get(self.worker.checkpoint.remote())

        def run(self):
            for i in range(1, 10):
                try:
                    ray.get(self.worker.run.remote(crash=i % 2 == 1))
                    self.state = ray.get(self.worker.checkpoint.remote())
                    return
                except ray.exceptions.RayActorError:
                    self.worker = Worker.remote()
                    ray.get(self.worker.restore.remote(self.state))

    controller = Controller()
    controller.run()
    controller.run()
    return ray.get(controller.worker.checkpoint.remote())


@case("guides: actors")
def guide_checkpoints_by_restarts(ray):
    with folder() as path, tally() as crashes:

        @ray.remote(max_restarts=-1, max_task_retries=-1)
        class Immortal:
            def __init__(self, path):
                self.path = path
                self.state = eval(path.read_text()) if path.exists() else {}

            def update(self, key, value):
                if crashes.add() % 2:
                    sys.exit(1)
                self.state[key] = value
                self.path.write_text(repr(self.state))

            def get(self, key):
                return self.state[key]

        actor = Immortal.remote(path / "checkpoint")
        for key in ("1", "2"):
            actor.update.remote(key, int(key))
        return ray.get([actor.get.remote("1"), actor.get.remote("2")])


@case("guides: actors")
def guide_the_creator_dies(ray):
    @ray.remote(num_cpus=0, max_restarts=-1)
    class Actor:
        def ping(self):
            return "hello"

    @ray.remote(num_cpus=0)
    class Parent:
        def make(self):
            self.child = Actor.remote()
            self.detached = Actor.options(name="guide-detached", lifetime="detached").remote()
            return self.child, self.detached, os.getpid()

    parent = Parent.remote()
    child, detached, pid = ray.get(parent.make.remote())
    ray.get([child.ping.remote(), detached.ping.remote()])
    os.kill(pid, signal.SIGKILL)
    gone = until(lambda: raised(ray.get, parent.make.remote()) is not None)
    of_child = until(lambda: raised(ray.get, child.ping.remote()) is not None, 5)
    answer = ray.get(detached.ping.remote())
    ray.kill(detached)
    return gone, of_child, answer


@case("guides: actors")
def guide_order_of_one_caller(ray):
    @ray.remote
    class Counter:
        def __init__(self):
            self.value = 0

        def add(self, addition):
            self.value += addition
            return self.value

    counter = Counter.remote()
    return ray.get([counter.add.remote(1), counter.add.remote(2)])


@case("guides: actors")
def guide_order_of_several_callers(ray):
    with gate() as g:

        @ray.remote(num_cpus=0)
        class Counter:
            def __init__(self):
                self.value = 0

            def add(self, addition):
                self.value += addition
                return self.value

        counter = Counter.remote()

        @ray.remote
        def submit(value):
            return ray.get(counter.add.remote(value))

        @ray.remote
        def late(value):
            g.wait()
            return value

        first, second = submit.remote(late.remote(1)), submit.remote(2)
        ray.get(second)
        g.open()
        return ray.get([first, second])


@case("guides: actors")
def guide_order_of_an_async_actor(ray):
    with gate() as g:

        @ray.remote
        class Counter:
            def __init__(self):
                self.value = 0

            async def add(self, addition):
                self.value += addition
                return self.value

        @ray.remote
        def late(value):
            g.wait()
            return value

        counter = Counter.remote()
        first, second = counter.add.remote(late.remote(1)), counter.add.remote(2)
        overtakes = ray.wait([first, second], num_returns=1, timeout=20)[0] == [second]
        g.open()
        return overtakes, ray.get([first, second])


@case("guides: actors")
def guide_order_is_given_up(ray):
    with gate() as g:

        @ray.remote(max_concurrency=2)
        class Threaded:
            def f(self, x):
                return x

        @ray.remote
        def late(value):
            g.wait()
            return value

        actor = Threaded.options(allow_out_of_order_execution=True).remote()
        first, second = actor.f.remote(late.remote(1)), actor.f.remote(2)
        overtakes = ray.wait([first, second], num_returns=1, timeout=20)[0] == [second]
        g.open()
        return overtakes, ray.get([first, second])


@case("guides: actors")
def guide_threads(ray):
    both = []
    with folder() as path:

        @ray.remote
        class Threaded:
            def meet(self, mine, other):
                (path / mine).touch()
                until(lambda: (path / other).exists())
                return threading.current_thread() is not threading.main_thread()

        actor = Threaded.options(max_concurrency=2).remote()
        both = ray.get([actor.meet.remote("a", "b"), actor.meet.remote("b", "a")])
    return both


@case("guides: actors")
def guide_concurrency_groups(ray):
    @ray.remote(concurrency_groups={"io": 2, "compute": 4})
    class Actor:
        def __init__(self):
            self.running = 0
            self.most = 0

        async def count(self):
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0.05)
            self.running -= 1

        @ray.method(concurrency_group="io")
        async def f1(self):
            await self.count()

        @ray.method(concurrency_group="io")
        async def f2(self):
            await self.count()

        @ray.method(concurrency_group="compute")
        async def f3(self):
            return "compute"

        async def f5(self):
            return self.most

    actor = Actor.remote()
    ray.get([*[actor.f1.remote() for _ in range(4)], *[actor.f2.remote() for _ in range(4)], actor.f3.remote()])
    most = ray.get(actor.f5.remote())
    ray.get([actor.f2.options().remote(), *[actor.f2.options(concurrency_group="compute").remote() for _ in range(4)]])
    return most, ray.get(actor.f3.remote()), ray.get(actor.f5.remote()) > 2


@case("guides: actors")
def guide_a_name_of_its_own(ray):
    @ray.remote
    class Mine:
        def __init__(self, index):
            self.index = index

        def foo(self):
            return repr(self)

        def __repr__(self):
            return f"Mine(index={self.index})"

    return ray.get([Mine.remote(1).foo.remote(), Mine.remote(2).foo.remote()])


@case("guides: actors")
def guide_a_pool_of_actors(ray):
    @ray.remote
    class Actor:
        def double(self, n):
            return n * 2

    pool = part(ray, "util").ActorPool([Actor.remote(), Actor.remote()])
    mapped = list(pool.map(lambda actor, value: actor.double.remote(value), [1, 2, 3, 4]))
    unordered = sorted(pool.map_unordered(lambda actor, value: actor.double.remote(value), [1, 2, 3, 4]))
    pool.submit(lambda actor, value: actor.double.remote(value), 5)
    return mapped, unordered, pool.has_next(), pool.get_next(), pool.has_free()


@case("guides: actors")
def guide_a_queue_between_tasks(ray):
    queue = part(ray, "util.queue").Queue(maxsize=100)

    @ray.remote
    def consume(id, queue):
        seen = []
        while (item := queue.get(block=True)) is not None:
            seen.append(item)
        return seen

    consumers = [consume.remote(id, queue) for id in range(2)]
    for i in range(10):
        queue.put(i)
    for _ in consumers:
        queue.put(None)
    return sorted(sum(ray.get(consumers), []))


@case("guides: actors")
def guide_an_actor_that_serves(ray):
    @ray.remote
    class Counter:
        async def __init__(self):
            self.counter = 0
            self.server = await asyncio.start_server(self.answer, "127.0.0.1", 0)

        async def answer(self, reader, writer):
            writer.write(str(self.counter).encode())
            await writer.drain()
            writer.close()

        async def port(self):
            return self.server.sockets[0].getsockname()[1]

        async def increment(self):
            self.counter += 1

    import socket

    counter = Counter.remote()
    ray.get([counter.increment.remote() for _ in range(5)])
    with socket.create_connection(("127.0.0.1", ray.get(counter.port.remote())), timeout=20) as link:
        return link.recv(100).decode()


@case("guides: actors")
def guide_an_actor_that_is_away(ray):
    with folder() as path:

        @ray.remote(max_restarts=1)
        class Actor:
            def __init__(self):
                if (path / "crashed").exists():
                    until(lambda: (path / "go").exists())

            def crash(self):
                (path / "crashed").touch()
                os._exit(1)

            def ping(self):
                return "pong"

        actor = Actor.remote()
        before = ray.get(actor.ping.remote())
        crash = raised(ray.get, actor.crash.remote())
        away = raised(ray.get, actor.ping.remote(), timeout=0.3)
        (path / "go").touch()
        back = until(lambda: raised(ray.get, actor.ping.remote(), timeout=1) is None)
        return before, crash, away, back


@case("guides: actors")
def guide_limit_of_pending_calls(ray):
    with gate() as g:

        @ray.remote(max_pending_calls=2)
        class Actor:
            def f(self):
                return g.wait()

        actor = Actor.remote()
        refs, limits = [], 0
        for _ in range(8):
            try:
                refs.append(actor.f.remote())
            except ray.exceptions.PendingCallsLimitExceeded:
                limits += 1
        g.open()
        return limits > 0, set(ray.get(refs))


@case("guides: actors")
def guide_types_of_handles(ray):
    @ray.remote
    class Counter:
        @ray.method(num_returns=2)
        def two(self):
            return 1, 2

        @ray.method
        def plain(self):
            return 3

    module = part(ray, "actor")
    handle: module.ActorHandle[Counter] = Counter.remote()
    a, b = handle.two.remote()
    one = handle.two.options(num_returns=1).remote()
    return ray.get([a, b, one, handle.plain.remote()]), isinstance(Counter, module.ActorClass), isinstance(handle, module.ActorHandle)


@case("guides: actors")
def guide_a_function_run_within_an_actor(ray):
    @ray.remote
    class Holder:
        def __init__(self):
            self.value = 5

    actor = Holder.remote()
    ready = ray.get(actor.__ray_ready__.remote())
    return ready, ray.get(actor.__ray_call__.remote(lambda self, x: self.value + x, 2))
