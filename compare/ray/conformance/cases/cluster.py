"""What there is: nodes, resources, contexts, timelines."""

from __future__ import annotations

from conformance.case import case, gate, until


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
