"""Starting and stopping."""

from __future__ import annotations

from conformance.case import case, raised


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
