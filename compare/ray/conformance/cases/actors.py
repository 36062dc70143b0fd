"""Actors: what they are made with, how they are called."""

from __future__ import annotations

import os

from conformance.case import case, gate, raised, until


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
