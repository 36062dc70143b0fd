"""Remote classes and their options."""

from __future__ import annotations

import asyncio
import os
import threading

from conformance.case import case, gate, raised, tally, until


@case("actors")
def an_actor_keeps_its_state(ray):
    @ray.remote
    class Counter:
        def __init__(self, start=0):
            self.n = start

        def add(self, by=1):
            self.n += by
            return self.n

    counter = Counter.remote(10)
    return ray.get([counter.add.remote() for _ in range(3)]), ray.get(counter.add.remote(by=5))


@case("actors")
def an_actor_class_called_directly(ray):
    @ray.remote
    class A:
        pass

    return raised(A)


@case("actors")
def an_actor_method_called_directly(ray):
    @ray.remote
    class A:
        def f(self):
            return 1

    return raised(A.remote().f)


@case("actors")
def a_method_that_is_not_there(ray):
    @ray.remote
    class A:
        def f(self):
            return 1

    return raised(lambda: A.remote().g.remote())


@case("actors")
def wrong_arguments_of_a_method(ray):
    @ray.remote
    class A:
        def __init__(self, x):
            self.x = x

        def f(self, a):
            return a

    a = A.remote(1)
    return (
        raised(A.remote),
        raised(A.remote, 1, 2),
        raised(a.f.remote),
        raised(a.f.remote, 1, 2),
        raised(a.f.remote, b=1),
    )


@case("actors")
def remote_of_a_class_as_a_function(ray):
    class A:
        def f(self):
            return 1

    return ray.get(ray.remote(A).remote().f.remote()), ray.get(ray.remote(num_cpus=0)(A).remote().f.remote())


@case("actors")
def an_actor_class_with_options(ray):
    @ray.remote(num_cpus=1, resources={"widget": 1})
    class A:
        def f(self):
            return ray.get_runtime_context().get_assigned_resources()

    a = A.options(resources={"widget": 0.5}).remote()
    have = ray.get(a.f.remote())
    return have.get("CPU"), have["widget"]


@case("actors")
def resources_of_an_actor_are_back_when_it_ends(ray):
    @ray.remote(num_cpus=0, resources={"widget": 2})
    class A:
        def f(self):
            return 1

    for _ in range(2):
        a = A.remote()
        ray.get(a.f.remote())
        del a
    return until(lambda: ray.available_resources().get("widget") == 2.0)


@case("actors")
def calls_run_in_order(ray):
    @ray.remote
    class A:
        def __init__(self):
            self.seen = []

        def f(self, i):
            self.seen.append(i)

        def all(self):
            return self.seen

    a = A.remote()
    for i in range(100):
        a.f.remote(i)
    return ray.get(a.all.remote()) == list(range(100))


@case("actors")
def calls_wait_for_their_arguments(ray):
    with gate() as g:

        @ray.remote
        def slow():
            g.wait()
            return "slow"

        @ray.remote
        class A:
            def __init__(self):
                self.seen = []

            def f(self, x):
                self.seen.append(x)
                return self.seen

        a = A.remote()
        first, second = a.f.remote(slow.remote()), a.f.remote("second")
        g.open()
        return ray.get(first), ray.get(second)


@case("actors")
def handles_as_arguments(ray):
    @ray.remote
    class Counter:
        def __init__(self):
            self.n = 0

        def add(self):
            self.n += 1
            return self.n

    @ray.remote
    def add_twice(counter):
        ray.get(counter.add.remote())
        return ray.get(counter.add.remote())

    counter = Counter.remote()
    return ray.get(add_twice.remote(counter)), ray.get(counter.add.remote())


@case("actors")
def handles_in_actors_and_in_lists(ray):
    @ray.remote
    class Leaf:
        def f(self):
            return "leaf"

    @ray.remote
    class Root:
        def __init__(self, leaves):
            self.leaves = leaves

        def f(self):
            return ray.get([leaf.f.remote() for leaf in self.leaves])

    return ray.get(Root.remote([Leaf.remote(), Leaf.remote()]).f.remote())


@case("actors")
def a_handle_by_put_and_get(ray):
    @ray.remote
    class A:
        def f(self):
            return 1

    a = ray.get(ray.put(A.remote()))
    return ray.get(a.f.remote()), type(a).__name__


@case("actors")
def actors_that_make_actors(ray):
    @ray.remote
    class Child:
        def f(self):
            return "child"

    @ray.remote
    class Parent:
        def make(self):
            self.child = Child.remote()
            return self.child

        def ask(self):
            return ray.get(self.child.f.remote())

    parent = Parent.remote()
    child = ray.get(parent.make.remote())
    return ray.get(parent.ask.remote()), ray.get(child.f.remote())


@case("actors")
def a_task_that_returns_an_actor(ray):
    @ray.remote
    class A:
        def f(self):
            return 3

    @ray.remote
    def make():
        return A.remote()

    a = ray.get(make.remote())
    return ray.get(a.f.remote())


@case("actors")
def inheritance(ray):
    class Base:
        def __init__(self, x):
            self.x = x

        def f(self):
            return "base", self.x

        def g(self):
            return "g of base"

    @ray.remote
    class Derived(Base):
        def __init__(self, x):
            super().__init__(x + 1)

        def f(self):
            return "derived", super().f()

    a = Derived.remote(1)
    return ray.get([a.f.remote(), a.g.remote()])


@case("actors")
def inheritance_from_an_actor_class(ray):
    @ray.remote
    class A:
        pass

    def derive():
        class B(A):
            pass

    return raised(derive)


@case("actors")
def static_and_class_methods(ray):
    @ray.remote
    class A:
        number = 7

        @staticmethod
        def s(x):
            return x + 1

        @classmethod
        def c(cls):
            return cls.number

    a = A.remote()
    return ray.get([a.s.remote(1), a.c.remote()])


@case("actors")
def an_actor_without_init(ray):
    @ray.remote
    class A:
        value = 1

        def f(self):
            self.value += 1
            return self.value

    return ray.get(A.remote().f.remote())


@case("actors")
def attributes_are_not_visible(ray):
    @ray.remote
    class A:
        def __init__(self):
            self.x = 1

    return raised(lambda: A.remote().x)


@case("actors")
def methods_that_call_methods(ray):
    @ray.remote
    class A:
        def f(self):
            return self.g() + 1

        def g(self):
            return 1

    return ray.get(A.remote().f.remote())


@case("actors")
def several_returns_of_a_method(ray):
    @ray.remote
    class A:
        @ray.method(num_returns=2)
        def f(self):
            return 1, 2

        def g(self):
            return 3, 4

    a = A.remote()
    return (
        ray.get(a.f.remote()),
        ray.get(a.g.remote()),
        ray.get(a.g.options(num_returns=2).remote()),
    )


@case("actors")
def method_with_unknown_options(ray):
    return raised(ray.method, no_such_option=1), raised(ray.method)


@case("actors")
def an_actor_has_a_process_of_its_own(ray):
    @ray.remote
    class A:
        def pid(self):
            return os.getpid()

    a, b = A.remote(), A.remote()
    pids = ray.get([a.pid.remote(), a.pid.remote(), b.pid.remote()])
    return pids[0] == pids[1], pids[0] != pids[2], os.getpid() not in pids


@case("actors")
def a_private_method(ray):
    @ray.remote
    class A:
        def _f(self):
            return 1

        def __len__(self):
            return 5

        def __call__(self, x):
            return x + 1

    a = A.remote()
    return (
        ray.get(a._f.remote()),
        ray.get(a.__len__.remote()),
        ray.get(a.__call__.remote(1)),
    )


@case("actors")
def the_representation_of_handles(ray):
    @ray.remote
    class Named:
        def f(self):
            return 1

    a = Named.remote()
    return repr(a).startswith("Actor(Named"), a._actor_id.hex() in repr(a)


# --- Threads and asyncio --------------------------------------------------------------------------------------------------


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


# --- Lifetimes ------------------------------------------------------------------------------------------------------------


@case("actors: lifetime")
def an_actor_ends_with_its_last_handle(ray):
    @ray.remote
    class A:
        def pid(self):
            return os.getpid()

    a = A.remote()
    pid = ray.get(a.pid.remote())
    del a
    return until(lambda: not _lives(pid))


@case("actors: lifetime")
def pending_calls_run_after_the_last_handle_went(ray):
    with tally() as ran:

        @ray.remote
        class A:
            def f(self):
                return ran.add()

        a = A.remote()
        refs = [a.f.remote() for _ in range(5)]
        del a
        return ray.get(refs)


@case("actors: lifetime")
def kill(ray):
    @ray.remote
    class A:
        def f(self):
            return 1

    a = A.remote()
    ray.get(a.f.remote())
    ray.kill(a)
    return raised(ray.get, a.f.remote()), raised(ray.get, a.f.remote())


@case("actors: lifetime")
def kill_while_calls_wait(ray):
    with gate() as started, gate() as g:

        @ray.remote
        class A:
            def block(self):
                started.open()
                g.wait(60)

            def f(self):
                return 1

        a = A.remote()
        refs = [a.block.remote(), a.f.remote()]
        started.wait()
        ray.kill(a)
        return [raised(ray.get, ref, timeout=30) for ref in refs]


@case("actors: lifetime")
def kill_mistakes(ray):
    @ray.remote
    class A:
        pass

    return raised(ray.kill, 1), raised(ray.kill, A), raised(ray.kill, ray.put(1))


@case("actors: lifetime")
def max_restarts(ray):
    @ray.remote(max_restarts=1, max_task_retries=1)
    class A:
        def __init__(self):
            self.n = 0

        def add(self):
            self.n += 1
            return self.n

        def die(self):
            os._exit(1)

        def pid(self):
            return os.getpid()

    a = A.remote()
    first = ray.get([a.add.remote(), a.add.remote()])
    os.kill(ray.get(a.pid.remote()), 9)
    return first, ray.get(a.add.remote(), timeout=60)


@case("actors: lifetime")
def restarts_are_used_up(ray):
    @ray.remote(max_restarts=1)
    class A:
        def die(self):
            os._exit(1)

        def f(self):
            return 1

    a = A.remote()
    results = [raised(ray.get, a.die.remote()) for _ in range(1)]
    until(lambda: raised(ray.get, a.f.remote()) is None)
    results.append(raised(ray.get, a.die.remote()))
    until(lambda: raised(ray.get, a.f.remote()) == "ActorDiedError")
    return [name in ("ActorDiedError", "ActorUnavailableError") for name in results], raised(ray.get, a.f.remote())


@case("actors: lifetime")
def max_task_retries(ray):
    with tally() as tries:

        @ray.remote(max_restarts=-1, max_task_retries=-1)
        class A:
            def f(self):
                if tries.add() < 3:
                    os._exit(1)
                return "done"

        return ray.get(A.remote().f.remote()), tries.count()


@case("actors: lifetime")
def no_task_retries(ray):
    with tally() as tries:

        @ray.remote(max_restarts=2, max_task_retries=0)
        class A:
            def f(self):
                tries.add()
                os._exit(1)

            def alive(self):
                return True

        a = A.remote()
        first = raised(ray.get, a.f.remote())
        return (
            first in ("ActorUnavailableError", "ActorDiedError"),
            tries.count(),
            until(lambda: raised(ray.get, a.alive.remote()) is None),
        )


@case("actors: lifetime")
def retry_exceptions_of_a_method(ray):
    with tally() as tries:

        @ray.remote
        class A:
            @ray.method(max_task_retries=3, retry_exceptions=True)
            def f(self):
                if tries.add() < 3:
                    raise ValueError
                return "done"

        return ray.get(A.remote().f.remote()), tries.count()


@case("actors: lifetime")
def a_restarted_actor_knows(ray):
    @ray.remote(max_restarts=1, max_task_retries=2)
    class A:
        def pid(self):
            return os.getpid()

        def restarted(self):
            return ray.get_runtime_context().was_current_actor_reconstructed

    a = A.remote()
    before = ray.get(a.restarted.remote())
    os.kill(ray.get(a.pid.remote()), 9)
    return before, ray.get(a.restarted.remote(), timeout=60)


@case("actors: lifetime")
def kill_with_a_restart(ray):
    @ray.remote(max_restarts=1, max_task_retries=2)
    class A:
        def f(self):
            return os.getpid()

    a = A.remote()
    first = ray.get(a.f.remote())
    ray.kill(a, no_restart=False)
    return until(lambda: raised(ray.get, a.f.remote()) is None and ray.get(a.f.remote()) != first)


@case("actors: lifetime")
def exit_actor(ray):
    @ray.remote
    class A:
        def leave(self):
            ray.actor.exit_actor()

        def f(self):
            return 1

    a = A.remote()
    ray.get(a.f.remote())
    return raised(ray.get, a.leave.remote()), raised(ray.get, a.f.remote())


@case("actors: lifetime")
def exit_actor_of_an_async_actor(ray):
    @ray.remote
    class A:
        async def leave(self):
            ray.actor.exit_actor()

        async def f(self):
            return 1

    a = A.remote()
    ray.get(a.f.remote())
    return raised(ray.get, a.leave.remote()), raised(ray.get, a.f.remote())


@case("actors: lifetime")
def exit_actor_does_not_restart(ray):
    with tally() as starts:

        @ray.remote(max_restarts=-1)
        class A:
            def __init__(self):
                starts.add()

            def leave(self):
                ray.actor.exit_actor()

            def f(self):
                return 1

        a = A.remote()
        first = raised(ray.get, a.leave.remote())
        return first, raised(ray.get, a.f.remote()), starts.count()


@case("actors: lifetime")
def exit_actor_outside_of_an_actor(ray):
    @ray.remote
    def f():
        ray.actor.exit_actor()

    return raised(ray.actor.exit_actor), raised(ray.get, f.remote())


@case("actors: lifetime")
def terminate_an_actor(ray):
    @ray.remote
    class A:
        def f(self):
            return 1

    a = A.remote()
    pending = a.f.remote()
    end = a.__ray_terminate__.remote()
    return ray.get(pending), raised(ray.get, end), raised(ray.get, a.f.remote())


@case("actors: lifetime")
def an_actor_whose_init_raises(ray):
    @ray.remote
    class A:
        def __init__(self):
            raise ValueError("no")

        def f(self):
            return 1

    a = A.remote()
    return raised(ray.get, a.f.remote()), raised(ray.get, a.f.remote())


@case("actors: lifetime")
def an_actor_that_can_never_start(ray):
    @ray.remote(resources={"nobody has it": 1})
    class A:
        def f(self):
            return 1

    ref = A.remote().f.remote()
    return ray.wait([ref], timeout=0.3)[0]


@case("actors: lifetime")
def max_pending_calls(ray):
    with gate() as g:

        @ray.remote(max_pending_calls=2)
        class A:
            def block(self):
                g.wait()

        a = A.remote()
        refs = [a.block.remote(), a.block.remote()]
        third = raised(a.block.remote)
        g.open()
        ray.get(refs)
        return third, ray.get(a.block.remote())


@case("actors: lifetime")
def an_actor_that_exits(ray):
    @ray.remote
    class A:
        def leave(self):
            os._exit(3)

        def f(self):
            return 1

    a = A.remote()
    return raised(ray.get, a.leave.remote()), raised(ray.get, a.f.remote())


@case("actors: lifetime")
def an_actor_that_raises_system_exit(ray):
    import sys

    @ray.remote
    class A:
        def leave(self):
            sys.exit(0)

        def f(self):
            return 1

    a = A.remote()
    return raised(ray.get, a.leave.remote()), raised(ray.get, a.f.remote())


# --- Names ----------------------------------------------------------------------------------------------------------------


@case("actors: names")
def get_actor(ray):
    @ray.remote
    class A:
        def __init__(self):
            self.n = 0

        def add(self):
            self.n += 1
            return self.n

    a = A.options(name="get_actor").remote()
    ray.get(a.add.remote())
    return ray.get(ray.get_actor("get_actor").add.remote())


@case("actors: names")
def get_actor_that_is_not_there(ray):
    return (
        raised(ray.get_actor, "not there"),
        raised(ray.get_actor, ""),
        raised(ray.get_actor, "a", namespace="elsewhere"),
    )


@case("actors: names")
def get_actor_from_a_task(ray):
    @ray.remote
    class A:
        def f(self):
            return "found"

    @ray.remote
    def f():
        return ray.get(ray.get_actor("from a task").f.remote())

    keep = A.options(name="from a task").remote()
    return ray.get(f.remote()), keep is not None


@case("actors: names")
def a_name_that_is_taken(ray):
    @ray.remote
    class A:
        def f(self):
            return 1

    keep = A.options(name="taken").remote()
    ray.get(keep.f.remote())
    return raised(A.options(name="taken").remote)


@case("actors: names")
def a_name_is_free_when_its_actor_ends(ray):
    @ray.remote
    class A:
        def f(self):
            return 1

    first = A.options(name="free again").remote()
    ray.get(first.f.remote())
    ray.kill(first)
    gone = until(lambda: raised(ray.get_actor, "free again") == "ValueError")
    second = A.options(name="free again").remote()
    return gone, ray.get(second.f.remote())


@case("actors: names")
def get_if_exists(ray):
    @ray.remote
    class A:
        def __init__(self, x):
            self.x = x

        def f(self):
            return self.x

    first = A.options(name="if exists", get_if_exists=True).remote(1)
    second = A.options(name="if exists", get_if_exists=True).remote(2)
    return ray.get([first.f.remote(), second.f.remote()])


@case("actors: names")
def get_if_exists_needs_a_name(ray):
    @ray.remote
    class A:
        pass

    return raised(lambda: A.options(get_if_exists=True).remote())


@case("actors: names")
def namespaces(ray):
    @ray.remote
    class A:
        def __init__(self, x):
            self.x = x

        def f(self):
            return self.x

    here = A.options(name="in a namespace").remote("here")
    there = A.options(name="in a namespace", namespace="there").remote("there")
    found = ray.get_actor("in a namespace", namespace="there")
    return ray.get(
        [
            found.f.remote(),
            ray.get_actor("in a namespace").f.remote(),
            here.f.remote(),
            there.f.remote(),
        ]
    )


@case("actors: names")
def a_named_actor_ends_with_its_last_handle(ray):
    @ray.remote
    class A:
        def f(self):
            return 1

    a = A.options(name="ends").remote()
    ray.get(a.f.remote())
    del a
    return until(lambda: raised(ray.get_actor, "ends") == "ValueError")


@case("actors: names")
def a_detached_actor_stays_without_handles(ray):
    @ray.remote
    class A:
        def f(self):
            return "still here"

    a = A.options(name="detached", lifetime="detached").remote()
    ray.get(a.f.remote())
    del a
    found = ray.get_actor("detached")
    result = ray.get(found.f.remote())
    ray.kill(found)
    return result, until(lambda: raised(ray.get_actor, "detached") == "ValueError")


@case("actors: names")
def a_detached_actor_of_a_task(ray):
    @ray.remote
    class A:
        def f(self):
            return "made by a task"

    @ray.remote
    def make():
        ray.get(A.options(name="made by a task", lifetime="detached").remote().f.remote())

    ray.get(make.remote())
    a = ray.get_actor("made by a task")
    result = ray.get(a.f.remote())
    ray.kill(a)
    return result


@case("actors: names")
def a_lifetime_that_is_none(ray):
    @ray.remote
    class A:
        pass

    return raised(lambda: A.options(lifetime="for ever").remote())


@case("actors: names")
def names_that_are_none(ray):
    @ray.remote
    class A:
        pass

    return raised(lambda: A.options(name="").remote()), raised(lambda: A.options(name=5).remote())


@case("actors: names")
def list_named_actors(ray):
    @ray.remote
    class A:
        def f(self):
            return 1

    a = A.options(name="listed").remote()
    ray.get(a.f.remote())
    names = ray.util.list_named_actors()
    everywhere = ray.util.list_named_actors(all_namespaces=True)
    return "listed" in names, {
        "name": "listed",
        "namespace": "conformance",
    } in everywhere


@case("actors: names")
def options_of_an_actor_that_are_none(ray):
    @ray.remote
    class A:
        pass

    wrong = [
        {"max_concurrency": 0},
        {"max_restarts": -2},
        {"no_such_option": 1},
        {"max_task_retries": -2},
        {"num_returns": 2},
    ]
    return [raised(lambda o=options: A.options(**o).remote()) for options in wrong]


@case("actors: names")
def an_actor_with_an_environment(ray):
    @ray.remote(runtime_env={"env_vars": {"CONFORMANCE_ACTOR": "yes"}})
    class A:
        def f(self):
            return os.environ.get("CONFORMANCE_ACTOR")

    return ray.get(A.remote().f.remote())


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(") ")[2][0] != "Z"
