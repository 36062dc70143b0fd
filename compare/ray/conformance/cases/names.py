"""Actors that are found by name."""

from __future__ import annotations

import os

from conformance.case import case, raised, until


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
