"""The guides on tasks, scheduling, placement and environments."""

from __future__ import annotations

import os

import numpy as np

from conformance.case import case, folder, gate, part, raised, tally, until


@case("guides: tasks")
def guide_tasks(ray):
    @ray.remote
    def one():
        return 1

    @ray.remote
    def increment(value):
        return value + 1

    @ray.remote(num_returns=3)
    def three():
        return 0, 1, 2

    @ray.remote(num_returns=3)
    def three_by_a_generator():
        for i in range(3):
            yield i

    @ray.remote
    def single():
        return 0, 1, 2

    ready, pending = ray.wait([one.remote() for _ in range(2)], num_returns=1, timeout=None)
    a, b, c = three_by_a_generator.remote()
    return ray.get([increment.remote(one.remote()), *three.remote(), a, b, c, single.remote()]), len(ready), len(pending)


@case("guides: tasks")
def guide_cancel_a_task(ray):
    with gate() as g:

        @ray.remote
        def block():
            g.wait()

        ref = block.remote()
        ray.cancel(ref)
        # Whether it had begun is a matter of luck.
        try:
            ray.get(ref)
        except ray.exceptions.TaskCancelledError:
            return "cancelled"


@case("guides: tasks")
def guide_nested_tasks(ray):
    @ray.remote
    def f():
        return 1

    @ray.remote
    def g():
        return [f.remote() for _ in range(4)]

    @ray.remote
    def h():
        return ray.get([f.remote() for _ in range(4)])

    refs = ray.get(g.remote())
    return [type(ref).__name__ for ref in refs], ray.get(refs), ray.get(h.remote())


@case("guides: tasks")
def guide_errors_of_tasks(ray):
    class Mine(Exception):
        pass

    class Final(Exception):
        def __init_subclass__(cls, /, *args, **kwargs):
            raise TypeError("not to be derived from")

    @ray.remote
    def fails(kind):
        raise kind("the real error")

    @ray.remote
    def g(x):
        return x

    seen = []
    for ref in (fails.remote(Exception), g.remote(fails.remote(Exception)), fails.remote(Mine), fails.remote(Final)):
        try:
            ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            text = str(error)
            seen.append((type(error.cause).__name__, isinstance(error, type(error.cause)), "the real error" in text))
            seen.append("in fails" in text)
    return seen


@case("guides: tasks")
def guide_retries(ray):
    class Random(Exception):
        pass

    with tally() as crashes, tally() as failures:

        @ray.remote(max_retries=1)
        def may_crash():
            if crashes.add() == 1:
                os._exit(0)
            return crashes.count()

        @ray.remote(max_retries=1, retry_exceptions=True)
        def may_fail(probability):
            if not 0 <= probability <= 1:
                raise ValueError(probability)
            if failures.add() % 2:
                raise Random
            return failures.count()

        listed = may_fail.options(retry_exceptions=[Random])
        outcomes = [ray.get(may_crash.remote()), ray.get(may_fail.remote(0.5))]
        return outcomes, raised(ray.get, listed.remote(-1)), ray.get(listed.remote(0.5))


@case("guides: tasks", alone=True)
def guide_environment_variables(ray):
    ray.init(num_cpus=1, runtime_env={"env_vars": {"GUIDE": "bar"}})

    @ray.remote
    def variable():
        return os.environ.get("GUIDE")

    other = variable.options(runtime_env={"env_vars": {"GUIDE": "other"}})
    return ray.get([variable.remote(), other.remote()])


@case("guides: tasks", alone=True)
def guide_runtime_env_as_an_object(ray):
    environment = part(ray, "runtime_env").RuntimeEnv(env_vars={"GUIDE": "typed"})
    ray.init(num_cpus=1)

    @ray.remote(runtime_env=environment)
    def variable():
        return os.environ.get("GUIDE")

    @ray.remote
    class Actor:
        def variable(self):
            return os.environ.get("GUIDE")

    actor = Actor.options(runtime_env=environment).remote()
    return ray.get([variable.remote(), actor.variable.remote()]), environment["env_vars"], environment.env_vars()


@case("guides: tasks", alone=True)
def guide_a_hook_for_workers(ray):
    def hook():
        os.environ["GUIDE"] = "set by the hook"

    ray.init(num_cpus=1, runtime_env={"worker_process_setup_hook": hook})

    @ray.remote
    def variable():
        return os.environ.get("GUIDE")

    @ray.remote
    class Actor:
        def variable(self):
            return os.environ.get("GUIDE")

    return ray.get([variable.remote(), Actor.remote().variable.remote()]), "GUIDE" in os.environ


@case("guides: tasks", alone=True)
def guide_a_working_directory(ray):
    with folder() as path:
        (path / "module_of_the_guide.py").write_text("def answer():\n    return 42\n")
        (path / "data.txt").write_text("hello")
        ray.init(num_cpus=1, runtime_env={"working_dir": str(path)})

        @ray.remote
        def use():
            import module_of_the_guide

            with open("data.txt") as file:
                return module_of_the_guide.answer(), file.read()

        return ray.get(use.remote())


@case("guides: tasks", alone=True)
def guide_resources(ray):
    ray.init(num_cpus=3, num_gpus=4, resources={"special": 1, "custom": 1})

    @ray.remote(num_cpus=4, num_gpus=2, resources={"special": 1})
    def func():
        return ray.get_runtime_context().get_assigned_resources()

    @ray.remote(num_cpus=0, num_gpus=0.5)
    class Actor:
        def assigned(self):
            return ray.get_runtime_context().get_assigned_resources()

    fits = func.options(num_cpus=2, num_gpus=3, resources={"custom": 0.001}).remote()
    actor = Actor.options(num_cpus=0, num_gpus=0.6).remote()
    too_much = func.remote()
    got, of_actor = ray.get([fits, actor.assigned.remote()])
    names = ("CPU", "GPU", "custom")
    return [got.get(name) for name in names], of_actor.get("GPU"), ray.wait([too_much], timeout=0.2)[0]


@case("guides: tasks", alone=True)
def guide_accelerators(ray):
    ray.init(num_cpus=2, num_gpus=2)

    @ray.remote(num_gpus=1)
    class Actor:
        def ids(self):
            return ray.get_gpu_ids(), os.environ["CUDA_VISIBLE_DEVICES"], ray.get_runtime_context().get_accelerator_ids()["GPU"]

    @ray.remote(num_gpus=1)
    def use():
        return ray.get_gpu_ids(), os.environ["CUDA_VISIBLE_DEVICES"]

    actor = Actor.remote()
    first = ray.get(actor.ids.remote())
    second = ray.get(use.remote())
    return sorted([first[0][0], second[0][0]]), sorted([first[1], second[1]]), len(first[2]), ray.get_gpu_ids()


@case("guides: tasks", alone=True)
def guide_parts_of_accelerators(ray):
    ray.init(num_cpus=4, num_gpus=3)

    @ray.remote(num_gpus=0.5)
    class Part:
        def ids(self):
            return ray.get_gpu_ids()

    parts = [Part.remote() for _ in range(3)]
    return sorted(sum(ray.get([one.ids.remote() for one in parts]), []))


@case("guides: tasks", alone=True)
def guide_accelerator_types(ray):
    v100 = part(ray, "util.accelerators").NVIDIA_TESLA_V100
    ray.init(num_cpus=1, num_gpus=1, resources={f"accelerator_type:{v100}": 1})

    @ray.remote(num_gpus=1, accelerator_type=v100)
    def train():
        return "trained"

    @ray.remote(accelerator_type="nobody-has-it")
    def never():
        return "never"

    return v100, ray.get(train.remote()), ray.wait([never.remote()], timeout=0.2)[0]


@case("guides: tasks")
def guide_strategies(ray):
    affinity = part(ray, "util.scheduling_strategies").NodeAffinitySchedulingStrategy

    @ray.remote
    def default():
        return 1

    @ray.remote(scheduling_strategy="SPREAD")
    def spread():
        return 2

    @ray.remote
    def node():
        return ray.get_runtime_context().get_node_id()

    here = ray.get_runtime_context().get_node_id()
    on_it = node.options(scheduling_strategy=affinity(node_id=here, soft=False)).remote()
    if_possible = node.options(scheduling_strategy=affinity(node_id=ray.get(node.remote()), soft=True)).remote()
    total = sum(ray.get([spread.remote() for _ in range(20)]))
    explicit = default.options(scheduling_strategy="DEFAULT").remote()
    return ray.get([default.remote(), explicit]), total, ray.get([on_it, if_possible]) == [here, here]


@case("guides: tasks")
def guide_locality(ray):
    @ray.remote
    def large():
        return [1] * 100_000

    @ray.remote
    def count(data):
        return len(data)

    data = large.remote()
    return ray.get([count.remote(data), *[count.options(scheduling_strategy="SPREAD").remote(data) for _ in range(3)]])


@case("guides: tasks", alone=True)
def guide_placement_groups(ray):
    groups = part(ray, "util.placement_group")
    strategy = part(ray, "util.scheduling_strategies").PlacementGroupSchedulingStrategy
    ray.init(num_cpus=2, num_gpus=2)
    group = groups.placement_group([{"CPU": 1, "GPU": 1}])
    ray.get(group.ready(), timeout=30)
    ready, unready = ray.wait([group.ready()], timeout=30)
    pending = groups.placement_group([{"CPU": 1}, {"GPU": 2}])
    late = raised(ray.get, pending.ready(), timeout=0.5)

    @ray.remote(num_cpus=1)
    class Actor:
        def ready(self):
            return "ready"

    @ray.remote(num_cpus=0, num_gpus=1)
    class OnAccelerator(Actor.__ray_metadata__.modified_class if hasattr(Actor, "__ray_metadata__") else object):
        def ready(self):
            return "ready, too"

    actor = Actor.options(scheduling_strategy=strategy(placement_group=group)).remote()
    second = OnAccelerator.options(
        scheduling_strategy=strategy(placement_group=group, placement_group_bundle_index=0)
    ).remote()
    answers = ray.get([actor.ready.remote(), second.ready.remote()], timeout=30)
    state = groups.placement_group_table(group)["state"]
    groups.remove_placement_group(group)
    # On Ray the actor can still answer for a moment.
    dead = until(lambda: raised(ray.get, actor.ready.remote(), timeout=30) == "ActorDiedError")
    after = groups.placement_group_table(group)["state"]
    return len(ready), len(unready), late, answers, state, dead, after


@case("guides: tasks", alone=True)
def guide_named_placement_groups(ray):
    groups = part(ray, "util.placement_group")
    ray.init(num_cpus=2)
    group = groups.placement_group([{"CPU": 1}], strategy="STRICT_PACK", lifetime="detached", name="global_name")
    ray.get(group.ready(), timeout=30)
    found = ray.util.get_placement_group("global_name")
    return found.id == group.id, found.bundle_specs, raised(ray.util.get_placement_group, "nobody")


@case("guides: tasks", alone=True)
def guide_children_in_a_placement_group(ray):
    groups = part(ray, "util.placement_group")
    strategy = part(ray, "util.scheduling_strategies").PlacementGroupSchedulingStrategy
    ray.init(num_cpus=2)
    group = groups.placement_group([{"CPU": 2}])
    ray.get(group.ready(), timeout=30)

    @ray.remote(num_cpus=1)
    def child():
        return ray.util.get_current_placement_group() is not None

    @ray.remote(num_cpus=1)
    def parent():
        return ray.get(child.remote())

    @ray.remote
    def parent_of_strangers():
        return ray.get(child.options(scheduling_strategy=strategy(placement_group=None)).remote())

    captures = strategy(placement_group=group, placement_group_capture_child_tasks=True)
    within = ray.get(parent.options(scheduling_strategy=captures).remote(), timeout=30)
    outside = raised(ray.get, parent_of_strangers.options(scheduling_strategy=captures).remote(), timeout=0.5)
    return within, outside


@case("guides: tasks", alone=True)
def guide_what_a_group_reserves_is_taken(ray):
    groups = part(ray, "util.placement_group")
    strategy = part(ray, "util.scheduling_strategies").PlacementGroupSchedulingStrategy
    ray.init(num_cpus=2)
    group = groups.placement_group([{"CPU": 2}])
    ray.get(group.ready(), timeout=30)

    @ray.remote(num_cpus=2)
    def f():
        return True

    outside = f.remote()
    inside = f.options(scheduling_strategy=strategy(placement_group=group)).remote()
    return ray.get(inside, timeout=30), ray.wait([outside], timeout=0.3)[0]


@case("guides: tasks")
def guide_values_outlive_their_tasks(ray):
    @ray.remote
    def by_put():
        return ray.put(1)

    @ray.remote
    def value():
        return 1

    @ray.remote
    def by_child():
        return value.remote()

    @ray.remote
    def by_value():
        return ray.get(value.remote())

    return ray.get([ray.get(by_put.remote()), ray.get(by_child.remote()), by_value.remote()])


@case("guides: tasks")
def guide_the_address_of_another_host(ray):
    @ray.remote
    def f():
        return 1

    return ray.wait([f.options(resources={"node:127.0.0.3": 1}).remote()], timeout=0.2)[0]


@case("guides: tasks")
def guide_the_runtime_context(ray):
    context = ray.get_runtime_context()

    @ray.remote
    def ids():
        context = ray.get_runtime_context()
        again = ray.get_runtime_context()
        return (
            context.get_task_id() == again.get_task_id() is not None,
            context.get_task_name(),
            context.get_task_function_name().rpartition(".")[2],
            context.get_actor_id(),
            context.get_worker_id() is not None,
            context.get_job_id(),
            context.get_node_id(),
            context.get_placement_group_id(),
            context.get_session_name(),
        )

    *seen, job, node, group, session = ray.get(ids.options(name="named").remote())
    alike = (job == context.get_job_id(), node == context.get_node_id(), session == context.get_session_name())
    return seen, alike, group, context.get_task_id(), context.get_actor_id(), type(context.get_temp_dir()).__name__


@case("guides: tasks", alone=True)
def guide_arrays_in_an_argument_are_shared(ray):
    ray.init(num_cpus=2)
    data = ray.put(np.arange(200_000))

    @ray.remote
    def total(array):
        return int(array.sum())

    return ray.get([total.remote(data) for _ in range(3)]), data in [data]
