"""Starting and stopping, put, get, wait, cancel, references."""

from __future__ import annotations

import asyncio
import collections
import threading
import time

from conformance.case import case, gate, part, raised, until

# --- Sessions -------------------------------------------------------------------------------------------------------------


@case("core", alone=True)
def init_and_shutdown(ray):
    states = [ray.is_initialized()]
    ray.init(num_cpus=1)
    states.append(ray.is_initialized())
    ray.shutdown()
    states.append(ray.is_initialized())
    return states


@case("core", alone=True)
def init_again_after_shutdown(ray):
    results = []
    for round_ in range(2):
        ray.init(num_cpus=1)

        @ray.remote
        def f(x):
            return x + 1

        results.append(ray.get(f.remote(round_)))
        ray.shutdown()
    return results


@case("core", alone=True)
def init_twice(ray):
    ray.init(num_cpus=1)
    return raised(ray.init)


@case("core", alone=True)
def init_twice_ignored(ray):
    ray.init(num_cpus=1)
    ray.init(num_cpus=1, ignore_reinit_error=True)
    return ray.is_initialized()


@case("core", alone=True)
def shutdown_without_init(ray):
    ray.shutdown()
    ray.shutdown()
    return ray.is_initialized()


@case("core", alone=True)
def init_by_itself_on_put(ray):
    value = ray.get(ray.put(7))
    return value, ray.is_initialized()


@case("core", alone=True)
def init_by_itself_on_a_task(ray):
    @ray.remote
    def f():
        return 5

    before = ray.is_initialized()
    return before, ray.get(f.remote()), ray.is_initialized()


@case("core", alone=True)
def init_by_itself_on_an_actor(ray):
    @ray.remote
    class A:
        def f(self):
            return 5

    return ray.get(A.remote().f.remote()), ray.is_initialized()


@case("core", alone=True)
def init_as_a_context_manager(ray):
    with ray.init(num_cpus=1):
        inside = ray.is_initialized()
    return inside, ray.is_initialized()


@case("core", alone=True)
def init_of_resources(ray):
    ray.init(num_cpus=3, num_gpus=1, resources={"magic": 2})
    have = ray.cluster_resources()
    return have["CPU"], have["GPU"], have["magic"]


@case("core", alone=True)
def init_with_an_unknown_option(ray):
    return raised(ray.init, no_such_option=1)


@case("core", alone=True)
def init_of_negative_cpus(ray):
    return raised(ray.init, num_cpus=-1)


@case("core", alone=True)
def init_where_nobody_is(ray):
    return raised(ray.init, address="auto")


@case("core", alone=True)
def functions_declared_before_init(ray):
    @ray.remote
    def f():
        return "f"

    @ray.remote
    class A:
        def g(self):
            return "g"

    ray.init(num_cpus=2)
    return ray.get([f.remote(), A.remote().g.remote()])


@case("core", alone=True)
def refs_after_shutdown(ray):
    ray.init(num_cpus=1)
    ref = ray.put(1)
    ray.shutdown()
    return raised(ray.get, ref) is not None


# --- put and get ----------------------------------------------------------------------------------------------------------


@case("core")
def get_what_was_put(ray):
    values = [
        None,
        True,
        1,
        -(2**70),
        1.5,
        "añ😀",
        b"\0\1",
        [1, [2]],
        (1, "a"),
        {"a": {1: 2}},
        {1, 2},
        1j,
        ...,
    ]
    return [ray.get(ray.put(value)) == value for value in values]


@case("core")
def get_a_list(ray):
    return ray.get([ray.put(i) for i in range(5)])


@case("core")
def get_nothing(ray):
    return ray.get([])


@case("core")
def get_the_same_twice(ray):
    ref = ray.put([1])
    a, b = ray.get([ref, ref])
    return a, b, ray.get(ref) is ray.get(ref)


@case("core")
def get_a_tuple(ray):
    return raised(ray.get, (ray.put(1),))


@case("core")
def get_what_is_no_ref(ray):
    return [raised(ray.get, value) for value in (1, "a", None, {}, [1], [None], [ray.put(1), 2])]


@case("core")
def get_within_a_timeout(ray):
    return ray.get(ray.put(1), timeout=10), ray.get([ray.put(2)], timeout=0)


@case("core")
def get_times_out(ray):
    with gate() as g:

        @ray.remote
        def f():
            g.wait()

        ref = f.remote()
        return (
            raised(ray.get, ref, timeout=0.05),
            raised(ray.get, [ref], timeout=0.05),
            raised(ray.get, ref, timeout=0),
        )


@case("core")
def get_after_a_timeout(ray):
    with gate() as g:

        @ray.remote
        def f():
            g.wait()
            return 3

        ref = f.remote()
        first = raised(ray.get, ref, timeout=0.05)
        g.open()
        return first, ray.get(ref)


@case("core")
def put_a_ref(ray):
    return raised(ray.put, ray.put(1))


@case("core")
def put_a_list_of_refs(ray):
    inner = ray.get(ray.put([ray.put(1), ray.put("b")]))
    return [type(ref).__name__ for ref in inner], ray.get(inner)


@case("core")
def put_what_is_changed_later(ray):
    value = [1, 2]
    ref = ray.put(value)
    value.append(3)
    ray.get(ref).append(4)
    return ray.get(ref)


@case("core")
def put_an_object_of_a_local_class(ray):
    class Point:
        def __init__(self, x):
            self.x = x

        def __eq__(self, other):
            return self.x == other.x

    return ray.get(ray.put(Point(3))) == Point(3)


@case("core")
def put_a_named_tuple_and_an_ordered_dict(ray):
    Pair = collections.namedtuple("Pair", "a b")
    pair = ray.get(ray.put(Pair(1, 2)))
    return (
        pair.a,
        pair.b,
        type(pair).__name__,
        list(ray.get(ray.put(collections.OrderedDict(z=1, a=2))).items()),
    )


@case("core")
def put_a_function(ray):
    offset = 10
    return ray.get(ray.put(lambda x: x + offset))(5)


@case("core")
def put_a_lock(ray):
    return raised(ray.put, threading.Lock())


@case("core")
def put_a_generator(ray):
    return raised(ray.put, (i for i in range(3)))


@case("core")
def put_an_exception(ray):
    error = ray.get(ray.put(KeyError("a")))
    return type(error), error.args


@case("core")
def put_a_cycle(ray):
    cycle = [1]
    cycle.append(cycle)
    back = ray.get(ray.put(cycle))
    return back[0], back[1] is back


@case("core")
def put_in_a_task(ray):
    @ray.remote
    def f():
        return [ray.put("inside")]

    return ray.get(ray.get(f.remote())[0])


@case("core")
def the_value_of_a_nested_ref_comes_by_getting_twice(ray):
    @ray.remote
    def inner():
        return 4

    @ray.remote
    def outer():
        return inner.remote()

    ref = ray.get(outer.remote())
    return type(ref).__name__, ray.get(ref)


# --- wait -----------------------------------------------------------------------------------------------------------------


@case("core")
def wait_for_one(ray):
    refs = [ray.put(i) for i in range(3)]
    ready, rest = ray.wait(refs)
    return len(ready), len(rest), ready[0] in refs


@case("core")
def wait_for_all_keeps_the_order(ray):
    refs = [ray.put(i) for i in range(5)]
    ready, rest = ray.wait(refs, num_returns=5)
    return ready == refs, rest


@case("core")
def wait_for_the_quick(ray):
    with gate() as g:

        @ray.remote
        def slow():
            g.wait()

        @ray.remote
        def quick():
            return 1

        refs = [slow.remote(), quick.remote()]
        ready, rest = ray.wait(refs, num_returns=1, timeout=30)
        return ready == [refs[1]], rest == [refs[0]]


@case("core")
def wait_with_a_timeout(ray):
    with gate() as g:

        @ray.remote
        def f():
            g.wait()

        ref = f.remote()
        ready, rest = ray.wait([ref], timeout=0.05)
        return ready, rest == [ref], ray.wait([ref], timeout=0)[0]


@case("core")
def wait_gives_no_more_than_asked(ray):
    refs = [ray.put(i) for i in range(6)]
    ready, rest = ray.wait(refs, num_returns=2, timeout=5)
    return len(ready), len(rest)


@case("core")
def wait_for_what_fails(ray):
    @ray.remote
    def f():
        raise ValueError

    ready, rest = ray.wait([f.remote()], timeout=30)
    return len(ready), rest, raised(ray.get, ready)


@case("core")
def wait_without_fetching(ray):
    ready, rest = ray.wait([ray.put(1)], fetch_local=False)
    return len(ready), rest


@case("core")
def wait_for_nothing(ray):
    return ray.wait([])


@case("core")
def wait_for_mistakes(ray):
    ref, other = ray.put(1), ray.put(2)
    return [
        raised(ray.wait, ref),
        raised(ray.wait, [1]),
        raised(ray.wait, [ref, ref]),
        raised(ray.wait, [ref], num_returns=0),
        raised(ray.wait, [ref], num_returns=2),
        raised(ray.wait, [ref, other], num_returns=-1),
        raised(ray.wait, [ref], timeout=-1),
    ]


@case("core")
def wait_again_and_again(ray):
    @ray.remote
    def f(i):
        return i

    rest = [f.remote(i) for i in range(20)]
    got = []
    while rest:
        ready, rest = ray.wait(rest, timeout=30)
        got += ray.get(ready)
    return sorted(got)


# --- References -----------------------------------------------------------------------------------------------------------


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


# --- cancel ---------------------------------------------------------------------------------------------------------------


@case("core")
def cancel_a_running_task(ray):
    with gate() as started, gate() as g:

        @ray.remote
        def f():
            started.open()
            g.wait(60)

        ref = f.remote()
        started.wait()
        ray.cancel(ref)
        return raised(ray.get, ref, timeout=30)


@case("core")
def cancel_a_waiting_task(ray):
    with gate() as g:

        @ray.remote
        def first():
            g.wait()

        @ray.remote
        def second(x):
            return x

        ref = second.remote(first.remote())
        ray.cancel(ref)
        g.open()
        return raised(ray.get, ref, timeout=30)


@case("core")
def cancel_what_is_done(ray):
    @ray.remote
    def f():
        return 1

    ref = f.remote()
    ray.get(ref)
    ray.cancel(ref)
    return ray.get(ref)


@case("core")
def cancel_by_force(ray):
    with gate() as started, gate() as g:

        @ray.remote(max_retries=0)
        def f():
            started.open()
            while not g.is_open():
                try:
                    time.sleep(0.1)
                except BaseException:
                    pass

        ref = f.remote()
        started.wait()
        ray.cancel(ref, force=True)
        return raised(ray.get, ref, timeout=30) in (
            "WorkerCrashedError",
            "TaskCancelledError",
        )


@case("core")
def cancel_children_too(ray):
    with gate() as started, gate() as g, gate() as interrupted:

        @ray.remote
        def child():
            started.open()
            try:
                g.wait(60)
            except BaseException:
                interrupted.open()
                raise

        @ray.remote
        def parent():
            return ray.get(child.remote())

        ref = parent.remote()
        started.wait()
        ray.cancel(ref, recursive=True)
        return raised(ray.get, ref, timeout=30), interrupted.wait()


@case("core")
def cancel_is_seen_inside(ray):
    with gate() as started, gate() as g, gate() as seen:

        @ray.remote
        def f():
            started.open()
            try:
                g.wait(60)
            except KeyboardInterrupt:
                seen.open()
                raise

        ref = f.remote()
        started.wait()
        ray.cancel(ref)
        return seen.wait(), raised(ray.get, ref, timeout=30)


@case("core")
def cancel_mistakes(ray):
    with gate() as g:

        @ray.remote
        class A:
            def f(self):
                g.wait()

        ref = A.remote().f.remote()
        return (
            raised(ray.cancel, 1),
            raised(ray.cancel, [ref]),
            raised(ray.cancel, ref, force=True),
        )


@case("core")
def cancel_a_waiting_actor_call(ray):
    with gate() as started, gate() as g:

        @ray.remote
        class A:
            def wait(self):
                started.open()
                g.wait()

            def f(self):
                return 1

        a = A.remote()
        first = a.wait.remote()
        second = a.f.remote()
        started.wait()
        ray.cancel(second)
        g.open()
        ray.get(first)
        return raised(ray.get, second, timeout=30), ray.get(a.f.remote())


@case("core")
def cancel_a_running_async_actor_call(ray):
    with gate() as started:

        @ray.remote
        class A:
            async def wait(self):
                started.open()
                await asyncio.sleep(100)

            async def f(self):
                return "alive"

        a = A.remote()
        ref = a.wait.remote()
        started.wait()
        ray.cancel(ref)
        return raised(ray.get, ref, timeout=30), ray.get(a.f.remote())


# --- What there is --------------------------------------------------------------------------------------------------------


@case("core")
def nodes(ray):
    (node,) = ray.nodes()
    return (
        node["Alive"],
        node["Resources"]["CPU"],
        node["Resources"]["widget"],
        type(node["NodeID"]).__name__,
    )


@case("core")
def cluster_resources(ray):
    have = ray.cluster_resources()
    return have["CPU"], have["widget"], "memory" in have, "object_store_memory" in have


@case("core")
def available_resources_go_and_come_back(ray):
    with gate() as started, gate() as g:

        @ray.remote(resources={"widget": 1})
        def f():
            started.open()
            g.wait()

        ref = f.remote()
        started.wait()
        taken = until(lambda: ray.available_resources().get("widget", 0) == 1.0)
        g.open()
        ray.get(ref)
        return taken, until(lambda: ray.available_resources().get("widget") == 2.0)


@case("core")
def runtime_context_of_the_driver(ray):
    context = ray.get_runtime_context()
    return (
        context.namespace,
        context.get_task_id(),
        context.get_actor_id(),
        len(context.get_job_id()) > 0,
        len(context.get_node_id()) > 0,
        len(context.get_worker_id()) > 0,
    )


@case("core")
def runtime_context_of_a_task(ray):
    @ray.remote(num_cpus=1, resources={"widget": 1})
    def f():
        context = ray.get_runtime_context()
        assigned = context.get_assigned_resources()
        return (
            len(context.get_task_id()) > 0,
            context.get_actor_id(),
            assigned["CPU"],
            assigned["widget"],
            context.get_job_id(),
        )

    *rest, job = ray.get(f.remote())
    return rest, job == ray.get_runtime_context().get_job_id()


@case("core")
def runtime_context_of_an_actor(ray):
    @ray.remote
    class A:
        def ids(self):
            context = ray.get_runtime_context()
            return (
                context.get_actor_id(),
                context.get_actor_name(),
                context.was_current_actor_reconstructed,
                context.namespace,
            )

        def handle(self):
            return ray.get_runtime_context().current_actor

        def f(self):
            return "f"

    a = A.options(name="context of an actor").remote()
    actor, name, reconstructed, namespace = ray.get(a.ids.remote())
    own = ray.get(a.handle.remote())
    return (
        actor == a._actor_id.hex(),
        name,
        reconstructed,
        namespace,
        ray.get(own.f.remote()),
    )


@case("core")
def task_ids_differ(ray):
    @ray.remote
    def f():
        return ray.get_runtime_context().get_task_id()

    return len(set(ray.get([f.remote() for _ in range(5)])))


@case("core")
def the_timeline_has_what_ran(ray):
    @ray.remote
    def a_task_to_look_for():
        return 1

    ray.get(a_task_to_look_for.remote())
    return until(lambda: any("a_task_to_look_for" in str(event.get("name")) + str(event.get("cat")) for event in ray.timeline()))


@case("core")
def the_version(ray):
    return type(ray.__version__).__name__


@case("core")
def worker_mode(ray):
    @ray.remote
    def f():
        return ray.is_initialized()

    return ray.get(f.remote())


@case("core")
def gpu_ids_of_a_task_without(ray):
    @ray.remote
    def f():
        return ray.get_gpu_ids()

    return ray.get(f.remote())
