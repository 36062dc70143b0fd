"""`util` and its modules."""

from __future__ import annotations

import asyncio

from conformance.case import case, gate, part, raised, until


def _worker(ray):
    @ray.remote
    class Worker:
        def double(self, x):
            return 2 * x

        def wait(self, gate_, x):
            gate_.wait()
            return x

        def fail(self, x):
            raise ValueError(x)

    return Worker


# --- ActorPool ------------------------------------------------------------------------------------------------------------


@case("utilities: ActorPool")
def actor_pool_map(ray):
    pool = part(ray, "util").ActorPool([_worker(ray).remote() for _ in range(2)])
    return list(pool.map(lambda a, x: a.double.remote(x), range(6)))


@case("utilities: ActorPool")
def actor_pool_map_unordered(ray):
    pool = part(ray, "util").ActorPool([_worker(ray).remote() for _ in range(2)])
    return sorted(pool.map_unordered(lambda a, x: a.double.remote(x), range(6)))


@case("utilities: ActorPool")
def actor_pool_submit(ray):
    pool = part(ray, "util.actor_pool").ActorPool([_worker(ray).remote()])
    states = [pool.has_next(), pool.has_free()]
    pool.submit(lambda a, x: a.double.remote(x), 1)
    pool.submit(lambda a, x: a.double.remote(x), 2)
    states += [pool.has_next(), pool.has_free()]
    return (
        states,
        pool.get_next(),
        pool.get_next(),
        pool.has_next(),
        raised(pool.get_next),
    )


@case("utilities: ActorPool")
def actor_pool_get_next_unordered(ray):
    with gate() as g:
        pool = part(ray, "util").ActorPool([_worker(ray).remote() for _ in range(2)])
        pool.submit(lambda a, x: a.wait.remote(g, x), "slow")
        pool.submit(lambda a, x: a.double.remote(x), 1)
        first = pool.get_next_unordered()
        g.open()
        return first, pool.get_next_unordered(), raised(pool.get_next_unordered)


@case("utilities: ActorPool")
def actor_pool_timeouts(ray):
    with gate() as g:
        pool = part(ray, "util").ActorPool([_worker(ray).remote()])
        pool.submit(lambda a, x: a.wait.remote(g, x), 1)
        first = raised(pool.get_next, timeout=0.05)
        second = raised(pool.get_next_unordered, timeout=0.05)
        g.open()
        return first, second, pool.get_next()


@case("utilities: ActorPool")
def actor_pool_push_and_pop(ray):
    Worker = _worker(ray)
    a = Worker.remote()
    pool = part(ray, "util").ActorPool([a])
    popped = pool.pop_idle()
    nothing = pool.pop_idle()
    pool.push(popped)
    return (
        popped is a,
        nothing,
        raised(pool.push, popped),
        list(pool.map(lambda a, x: a.double.remote(x), [4])),
    )


@case("utilities: ActorPool")
def actor_pool_failures(ray):
    pool = part(ray, "util").ActorPool([_worker(ray).remote()])
    pool.submit(lambda a, x: a.fail.remote(x), 1)
    pool.submit(lambda a, x: a.double.remote(x), 2)
    return raised(pool.get_next), pool.get_next()


# --- Queue ----------------------------------------------------------------------------------------------------------------


@case("utilities: Queue")
def queue_in_order(ray):
    queue = part(ray, "util.queue").Queue()
    for i in range(3):
        queue.put(i)
    sizes = queue.size(), queue.qsize(), len(queue), queue.empty(), queue.full()
    return sizes, [queue.get() for _ in range(3)], queue.empty()


@case("utilities: Queue")
def queue_empty_and_full(ray):
    module = part(ray, "util.queue")
    queue = module.Queue(maxsize=1)
    empty = (
        raised(queue.get, block=False),
        raised(queue.get_nowait),
        raised(queue.get, timeout=0.02),
    )
    queue.put(1)
    full = (
        raised(queue.put, 2, block=False),
        raised(queue.put_nowait, 2),
        raised(queue.put, 2, timeout=0.02),
    )
    return empty, full, queue.full(), issubclass(module.Empty, Exception)


@case("utilities: Queue")
def queue_negative_timeouts(ray):
    queue = part(ray, "util.queue").Queue()
    return raised(queue.get, timeout=-1), raised(queue.put, 1, timeout=-1)


@case("utilities: Queue")
def queue_batches(ray):
    module = part(ray, "util.queue")
    queue = module.Queue(maxsize=4)
    queue.put_nowait_batch([1, 2, 3])
    too_many = raised(queue.put_nowait_batch, [4, 5])
    got = queue.get_nowait_batch(2)
    return (
        too_many,
        got,
        raised(queue.get_nowait_batch, 5),
        queue.size(),
        raised(queue.get_nowait_batch, "a"),
    )


@case("utilities: Queue")
def queue_between_tasks(ray):
    queue = part(ray, "util.queue").Queue()

    @ray.remote
    def produce(queue, n):
        for i in range(n):
            queue.put(i)

    @ray.remote
    def consume(queue, n):
        return [queue.get() for _ in range(n)]

    produce.remote(queue, 5)
    return ray.get(consume.remote(queue, 5))


@case("utilities: Queue")
def queue_that_blocks(ray):
    queue = part(ray, "util.queue").Queue(maxsize=1)

    @ray.remote
    def produce(queue):
        for i in range(4):
            queue.put(i)
        return "done"

    ref = produce.remote(queue)
    return [queue.get() for _ in range(4)], ray.get(ref)


@case("utilities: Queue")
def queue_asynchronously(ray):
    queue = part(ray, "util.queue").Queue()

    async def main():
        await queue.put_async(1)
        return await queue.get_async(), await _raised_async(queue.get_async(timeout=0.02))

    async def _raised_async(awaitable):
        try:
            await awaitable
        except Exception as error:
            return type(error).__name__

    return asyncio.run(main())


@case("utilities: Queue")
def queue_shutdown(ray):
    queue = part(ray, "util.queue").Queue(actor_options={"num_cpus": 0})
    queue.put(1)
    queue.shutdown()
    return queue.actor is None


# --- multiprocessing.Pool -------------------------------------------------------------------------------------------------


def _square(x):
    return x * x


def _add(a, b=0):
    return a + b


def _fail(x):
    raise KeyError(x)


@case("utilities: Pool")
def pool_map(ray):
    with part(ray, "util.multiprocessing").Pool(2) as pool:
        return (
            pool.map(_square, range(10)),
            pool.map(_square, range(5), chunksize=2),
            pool.map(_square, []),
        )


@case("utilities: Pool")
def pool_apply(ray):
    with part(ray, "util.multiprocessing").Pool(1) as pool:
        return (
            pool.apply(_add, (1,), {"b": 2}),
            pool.apply(_square, (3,)),
            raised(pool.apply, _fail, (1,)),
        )


@case("utilities: Pool")
def pool_apply_async(ray):
    with part(ray, "util.multiprocessing").Pool(1) as pool:
        result = pool.apply_async(_square, (4,))
        value = result.get(timeout=30)
        bad = pool.apply_async(_fail, (4,))
        bad.wait(30)
        return (
            value,
            result.ready(),
            result.successful(),
            bad.ready(),
            bad.successful(),
            raised(bad.get),
        )


@case("utilities: Pool")
def pool_timeouts(ray):
    module = part(ray, "util.multiprocessing")
    with gate() as g, module.Pool(1) as pool:
        result = pool.apply_async(g.wait)
        state = (
            result.ready(),
            raised(result.successful),
            raised(result.get, timeout=0.05),
        )
        g.open()
        return state, result.get(30), issubclass(module.TimeoutError, Exception)


@case("utilities: Pool")
def pool_callbacks(ray):
    with part(ray, "util.multiprocessing").Pool(1) as pool:
        got, failed = [], []
        pool.apply_async(_square, (5,), callback=got.append).get(30)
        pool.map_async(_square, [1, 2], callback=got.append).get(30)
        raised(pool.apply_async(_fail, (5,), error_callback=failed.append).get)
        return (
            until(lambda: len(got) == 2 and len(failed) == 1),
            got,
            [isinstance(error, KeyError) for error in failed],
        )


@case("utilities: Pool")
def pool_starmap(ray):
    with part(ray, "util.multiprocessing").Pool(2) as pool:
        return pool.starmap(_add, [(1, 2), (3, 4)]), pool.starmap_async(_add, [(1,), (5, 5)]).get(30)


@case("utilities: Pool")
def pool_imap(ray):
    with part(ray, "util.multiprocessing").Pool(2) as pool:
        return list(pool.imap(_square, range(6))), sorted(pool.imap_unordered(_square, range(6), chunksize=2))


@case("utilities: Pool")
def pool_imap_step_by_step(ray):
    with part(ray, "util.multiprocessing").Pool(1) as pool:
        it = pool.imap(_square, [1, 2])
        return next(it), it.next(timeout=30), raised(next, it)


@case("utilities: Pool")
def pool_imap_of_a_failure(ray):
    with part(ray, "util.multiprocessing").Pool(1) as pool:
        it = pool.imap(_fail, [1])
        return raised(next, it), raised(pool.map, _fail, [1])


@case("utilities: Pool")
def pool_initializer(ray):
    import builtins

    def set_up(value):
        builtins.conformance_value = value

    with part(ray, "util.multiprocessing").Pool(1, initializer=set_up, initargs=(7,)) as pool:
        return pool.apply(lambda: builtins.conformance_value)


@case("utilities: Pool")
def pool_close_and_join(ray):
    pool = part(ray, "util.multiprocessing").Pool(1)
    result = pool.map_async(_square, [1, 2, 3])
    early = raised(pool.join)
    pool.close()
    late = raised(pool.apply, _square, (1,))
    pool.join()
    return early, late, result.get(30)


@case("utilities: Pool")
def pool_terminate(ray):
    pool = part(ray, "util.multiprocessing").Pool(1)
    pool.map(_square, [1])
    pool.terminate()
    pool.join()
    return raised(pool.map, _square, [1])


@case("utilities: Pool")
def pool_of_a_wrong_size(ray):
    Pool = part(ray, "util.multiprocessing").Pool
    return raised(Pool, 0), raised(Pool, -1), raised(Pool, 1.5)


@case("utilities: Pool")
def pool_maxtasksperchild(ray):
    import os

    with part(ray, "util.multiprocessing").Pool(1, maxtasksperchild=1) as pool:
        return len({pool.apply(os.getpid) for _ in range(3)})


# --- joblib ---------------------------------------------------------------------------------------------------------------


@case("utilities: joblib")
def joblib_backend(ray):
    import joblib

    part(ray, "util.joblib").register_ray()
    with joblib.parallel_backend("ray", n_jobs=2):
        return joblib.Parallel()(joblib.delayed(_square)(i) for i in range(10))


@case("utilities: joblib")
def joblib_failures(ray):
    import joblib

    part(ray, "util.joblib").register_ray()

    def run():
        with joblib.parallel_backend("ray", n_jobs=2):
            joblib.Parallel()(joblib.delayed(_fail)(i) for i in range(3))

    return "KeyError" in str(raised(run))


# --- as_completed, map_unordered ------------------------------------------------------------------------------------------


@case("utilities: as_completed")
def as_completed(ray):
    @ray.remote
    def f(i):
        return i

    return sorted(part(ray, "util").as_completed([f.remote(i) for i in range(8)], chunk_size=3))


@case("utilities: as_completed")
def as_completed_gives_the_quick_first(ray):
    with gate() as g:

        @ray.remote
        def f(i):
            if i == 0:
                g.wait()
            return i

        it = part(ray, "util").as_completed([f.remote(i) for i in range(3)], chunk_size=1)
        got = [next(it), next(it)]
        g.open()
        return sorted(got), list(it)


@case("utilities: as_completed")
def map_unordered(ray):
    @ray.remote
    def f(i):
        return i * i

    return sorted(part(ray, "util").map_unordered(f, range(8), backpressure_size=3))


# --- Placement groups -----------------------------------------------------------------------------------------------------


@case("utilities: placement groups")
def a_placement_group(ray):
    util = part(ray, "util")
    group = util.placement_group([{"CPU": 1}, {"CPU": 1}], strategy="PACK")
    ready = group.wait(30)
    result = (
        ready,
        group.bundle_count,
        group.bundle_specs,
        ray.get(group.ready()) is not None,
    )
    util.remove_placement_group(group)
    return result


@case("utilities: placement groups")
def tasks_in_a_placement_group(ray):
    util = part(ray, "util")
    strategy = part(ray, "util.scheduling_strategies").PlacementGroupSchedulingStrategy
    group = util.placement_group([{"CPU": 1}])
    ray.get(group.ready())

    @ray.remote(num_cpus=1)
    def f():
        return util.get_current_placement_group() == group

    result = ray.get(f.options(scheduling_strategy=strategy(group, placement_group_bundle_index=0)).remote())
    util.remove_placement_group(group)
    return result, util.get_current_placement_group()


@case("utilities: placement groups")
def actors_in_a_placement_group(ray):
    util = part(ray, "util")
    strategy = part(ray, "util.scheduling_strategies").PlacementGroupSchedulingStrategy
    group = util.placement_group([{"CPU": 1}])

    @ray.remote(num_cpus=1)
    class A:
        def f(self):
            return util.get_current_placement_group() is not None

    a = A.options(scheduling_strategy=strategy(group)).remote()
    result = ray.get(a.f.remote())
    util.remove_placement_group(group)
    return result, raised(ray.get, a.f.remote(), timeout=30) in (
        "ActorDiedError",
        "ActorPlacementGroupRemoved",
    )


@case("utilities: placement groups")
def a_placement_group_takes_its_resources(ray):
    util = part(ray, "util")
    group = util.placement_group([{"widget": 1.5}])
    group.wait(30)
    taken = until(lambda: ray.available_resources().get("widget") == 0.5)
    util.remove_placement_group(group)
    return taken, until(lambda: ray.available_resources().get("widget") == 2.0)


@case("utilities: placement groups")
def a_placement_group_that_does_not_fit(ray):
    util = part(ray, "util")
    group = util.placement_group([{"CPU": 1000}])
    ready = group.wait(0.2)
    util.remove_placement_group(group)
    return ready


@case("utilities: placement groups")
def placement_group_mistakes(ray):
    make = part(ray, "util").placement_group
    wrong = [[], [{}], [{"CPU": 0}], [{"CPU": -1}], {"CPU": 1}, ["CPU"]]
    return [raised(make, bundles) for bundles in wrong], raised(make, [{"CPU": 1}], strategy="SCATTER")


@case("utilities: placement groups")
def a_placement_group_by_name(ray):
    util = part(ray, "util")
    group = util.placement_group([{"CPU": 1}], name="named group")
    group.wait(30)
    found = util.get_placement_group("named group") == group
    util.remove_placement_group(group)
    return found, raised(util.get_placement_group, "no such group")


# Alone: groups that make no sense, as in the cases before, can end Ray's control process a moment later.
@case("utilities: placement groups", alone=True)
def the_table_of_placement_groups(ray):
    ray.init(num_cpus=2)
    util = part(ray, "util")
    group = util.placement_group([{"CPU": 1}], strategy="SPREAD")
    group.wait(30)
    table = util.placement_group_table(group)
    util.remove_placement_group(group)
    removed = until(lambda: util.placement_group_table(group)["state"] == "REMOVED")
    return table["state"], table["strategy"], removed


@case("utilities: placement groups")
def more_than_a_placement_group_has(ray):
    util = part(ray, "util")
    strategy = part(ray, "util.scheduling_strategies").PlacementGroupSchedulingStrategy
    group = util.placement_group([{"CPU": 1}])

    @ray.remote(num_cpus=2)
    def f():
        return 1

    result = raised(f.options(scheduling_strategy=strategy(group)).remote)
    index = raised(
        f.options(
            num_cpus=1,
            scheduling_strategy=strategy(group, placement_group_bundle_index=5),
        ).remote
    )
    util.remove_placement_group(group)
    return result, index


@case("utilities: placement groups")
def tasks_in_a_bundle_wait_for_each_other(ray):
    util = part(ray, "util")
    strategy = part(ray, "util.scheduling_strategies").PlacementGroupSchedulingStrategy
    group = util.placement_group([{"CPU": 1}])
    with gate() as started, gate() as g:

        @ray.remote(num_cpus=1)
        def f(first):
            if first:
                started.open()
                g.wait()
            return first

        f = f.options(scheduling_strategy=strategy(group))
        one = f.remote(True)
        started.wait()
        two = f.remote(False)
        early = ray.wait([two], timeout=0.1)[0]
        g.open()
        result = ray.get([one, two])
        util.remove_placement_group(group)
        return early, result


# --- Metrics --------------------------------------------------------------------------------------------------------------


@case("utilities: metrics")
def metrics(ray):
    module = part(ray, "util.metrics")
    counter = module.Counter("conformance_counter", description="d", tag_keys=("a",))
    counter.inc(2.0, tags={"a": "1"})
    counter.set_default_tags({"a": "2"})
    counter.inc()
    gauge = module.Gauge("conformance_gauge")
    gauge.set(5)
    histogram = module.Histogram("conformance_histogram", boundaries=[1, 10], tag_keys=("a",))
    histogram.observe(3, tags={"a": "x"})
    return (
        counter.info["name"],
        counter.info["tag_keys"],
        counter.info["default_tags"],
        histogram.info["boundaries"],
    )


@case("utilities: metrics")
def metric_mistakes(ray):
    module = part(ray, "util.metrics")
    counter = module.Counter("conformance_wrong", tag_keys=("a",))
    return (
        raised(module.Counter, ""),
        raised(module.Counter, 1),
        raised(module.Counter, "x", tag_keys="a"),
        raised(module.Counter, "y", tag_keys=(1,)),
        raised(counter.inc, 0),
        raised(counter.inc, -1),
        raised(counter.inc, 1, tags={"b": "1"}),
        raised(counter.inc, 1),
        raised(counter.inc, 1, tags={"a": 1}),
        raised(module.Histogram, "z"),
        raised(module.Histogram, "z", boundaries=[-1, 1]),
    )


@case("utilities: metrics")
def metrics_in_tasks(ray):
    @ray.remote
    def f():
        counter = part(ray, "util.metrics").Counter("conformance_in_a_task")
        counter.inc(3)
        return counter.info["name"]

    return ray.get(f.remote())


@case("utilities: metrics")
def metrics_travel(ray):
    module = part(ray, "util.metrics")
    gauge = module.Gauge("conformance_travels", tag_keys=("k",))

    @ray.remote
    def f(gauge):
        gauge.set(1.0, tags={"k": "v"})
        return gauge.info["name"]

    return ray.get(f.remote(gauge))


# --- State ----------------------------------------------------------------------------------------------------------------


def _start(ray):
    """The lists need Ray's dashboard, which is not there in the common session."""
    if ray.__name__ == "ray":
        ray.init(num_cpus=2, include_dashboard=True, log_to_driver=False)
    else:
        ray.init(num_cpus=2, log_to_driver=False)


@case("utilities: state", alone=True)
def state_lists_actors(ray):
    _start(ray)
    state = part(ray, "util.state")

    @ray.remote
    class Listed:
        def f(self):
            return 1

    a = Listed.options(name="listed").remote()
    ray.get(a.f.remote())
    (row,) = state.list_actors(filters=[("state", "=", "ALIVE")])
    gone = Listed.remote()
    ray.get(gone.f.remote())
    ray.kill(gone)
    dead = until(lambda: len(state.list_actors(filters=[("state", "=", "DEAD")])) == 1)
    return (
        row.class_name,
        row.name,
        row.state,
        row["class_name"],
        row.pid > 0,
        row.actor_id == a._actor_id.hex(),
        dead,
    )


@case("utilities: state", alone=True)
def state_lists_tasks(ray):
    _start(ray)
    state = part(ray, "util.state")

    @ray.remote
    def listed(i):
        if i == 2:
            raise ValueError

    for i in range(3):
        raised(ray.get, listed.remote(i))

    def states():
        return sorted(row.state for row in state.list_tasks(filters=[("name", "=", "listed")]))

    until(lambda: states() == ["FAILED", "FINISHED", "FINISHED"])
    row = state.list_tasks(filters=[("name", "=", "listed")], limit=1)[0]
    return states(), row.name, row.type, row.func_or_class_name


@case("utilities: state", alone=True)
def state_lists_the_rest(ray):
    _start(ray)
    state = part(ray, "util.state")
    ref = ray.put(b"x" * 1_000_000)
    (node,) = state.list_nodes()
    objects = until(lambda: any(row.object_id == ref.hex() for row in state.list_objects()), 5)
    return (
        node.state,
        node.is_head_node,
        objects,
        len(state.list_workers()) > 0,
        len(state.list_jobs()) > 0,
        state.list_placement_groups(),
    )


@case("utilities: state", alone=True)
def state_summaries(ray):
    _start(ray)
    state = part(ray, "util.state")

    @ray.remote
    def summarized():
        return 1

    ray.get([summarized.remote() for _ in range(4)])

    def counted():
        summary = state.summarize_tasks()["cluster"]["summary"]
        return summary.get("summarized", {}).get("state_counts")

    until(lambda: counted() == {"FINISHED": 4})
    return counted()


@case("utilities: state", alone=True)
def state_gets_one(ray):
    _start(ray)
    state = part(ray, "util.state")

    @ray.remote
    class A:
        def f(self):
            return 1

    a = A.remote()
    ray.get(a.f.remote())
    return (
        state.get_actor(a._actor_id.hex()).class_name,
        state.get_actor("f" * 32),
        raised(state.list_actors, filters=[("state", "~", "x")]),
    )


# --- Other ----------------------------------------------------------------------------------------------------------------


@case("utilities: other")
def progress_bars(ray):
    @ray.remote
    def f(n):
        tqdm = part(ray, "experimental.tqdm_ray")
        return sum(tqdm.tqdm(range(n), desc="f"))

    bar = part(ray, "experimental.tqdm_ray").tqdm(total=3, desc="driver")
    bar.update(2)
    bar.set_description("changed")
    bar.close()
    return ray.get(f.remote(5))


@case("utilities: other")
def cloudpickle(ray):
    cloudpickle_ = part(ray, "cloudpickle")
    n = 3
    return cloudpickle_.loads(cloudpickle_.dumps(lambda x: x + n))(4)


@case("utilities: other")
def the_address_of_this_node(ray):
    return type(part(ray, "util").get_node_ip_address()).__name__


@case("utilities: other")
def log_once(ray):
    util = part(ray, "util")
    return util.log_once("conformance"), util.log_once("conformance")
