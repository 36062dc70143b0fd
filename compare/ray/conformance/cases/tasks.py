"""Remote functions and their options."""

from __future__ import annotations

import os
import time

from conformance.case import case, gate, raised, tally, until


@case("tasks")
def a_bare_decorator(ray):
    @ray.remote
    def f(x, y=2):
        return x + y

    return ray.get([f.remote(1), f.remote(1, 5), f.remote(x=1, y=1)])


@case("tasks")
def a_decorator_with_options(ray):
    @ray.remote(num_cpus=1, num_returns=2, max_retries=1)
    def f():
        return 1, 2

    return ray.get(f.remote())


@case("tasks")
def remote_as_a_function(ray):
    def f(x):
        return x * 2

    return (
        ray.get(ray.remote(f).remote(4)),
        ray.get(ray.remote(num_cpus=1)(f).remote(5)),
        ray.get(ray.remote(lambda: 6).remote()),
    )


@case("tasks")
def a_remote_function_called_directly(ray):
    @ray.remote
    def f():
        return 1

    return raised(f)


@case("tasks")
def wrong_arguments_are_found_at_once(ray):
    @ray.remote
    def f(a, *, b=1):
        return a

    return [
        raised(f.remote),
        raised(f.remote, 1, 2),
        raised(f.remote, 1, c=2),
        raised(f.remote, a=1),
        raised(f.remote, 1, a=2),
    ]


@case("tasks")
def positional_only_and_variadic_arguments(ray):
    @ray.remote
    def f(a, /, b, *rest, c=3, **more):
        return a, b, rest, c, sorted(more.items())

    return ray.get(f.remote(1, 2, 3, 4, c=5, d=6)), ray.get(f.remote(1, b=2))


@case("tasks")
def remote_with_unknown_options(ray):
    def f():
        pass

    return raised(ray.remote(no_such_option=1), f), raised(lambda: ray.remote(f).options(no_such_option=1).remote())


@case("tasks")
def remote_with_wrong_values(ray):
    def f():
        pass

    wrong = [
        {"num_cpus": -1},
        {"num_cpus": "1"},
        {"max_retries": -2},
        {"num_returns": -1},
        {"num_returns": "many"},
        {"max_calls": -1},
    ]
    return [raised(lambda o=options: ray.remote(**o)(f)) for options in wrong]


@case("tasks")
def remote_of_what_is_no_function(ray):
    return raised(ray.remote, 1), raised(lambda: ray.remote(1, 2))


@case("tasks")
def remote_with_positional_options(ray):
    def f():
        pass

    return raised(ray.remote, f, 1)


@case("tasks")
def options_of_a_call(ray):
    @ray.remote
    def f():
        return 1, 2, 3

    a, b, c = f.options(num_returns=3).remote()
    return ray.get([a, b, c]), ray.get(f.remote())


@case("tasks")
def options_of_options(ray):
    @ray.remote(num_cpus=1)
    def f():
        return ray.get_runtime_context().get_assigned_resources().get("CPU")

    return (
        ray.get(f.options(num_cpus=2).remote()),
        ray.get(f.remote()),
        ray.get(f.options(num_cpus=0.5).remote()),
    )


@case("tasks")
def several_returns(ray):
    @ray.remote(num_returns=3)
    def f():
        return [1, "two", (3,)]

    refs = f.remote()
    return type(refs), len(refs), ray.get(refs)


@case("tasks")
def no_returns(ray):
    with gate() as g:

        @ray.remote(num_returns=0)
        def f():
            g.open()

        return f.remote(), g.wait()


@case("tasks")
def too_few_returns(ray):
    @ray.remote(num_returns=3)
    def f():
        return 1, 2

    return [raised(ray.get, ref) for ref in f.remote()]


@case("tasks")
def returns_that_are_no_tuple(ray):
    @ray.remote(num_returns=2)
    def f():
        return 1

    return [raised(ray.get, ref) for ref in f.remote()]


@case("tasks")
def several_returns_of_what_raises(ray):
    @ray.remote(num_returns=2)
    def f():
        raise ValueError

    return [raised(ray.get, ref) for ref in f.remote()]


@case("tasks")
def nested_tasks(ray):
    @ray.remote
    def leaf(i):
        return i * i

    @ray.remote
    def sum_of(n):
        return sum(ray.get([leaf.remote(i) for i in range(n)]))

    return ray.get([sum_of.remote(n) for n in range(6)])


@case("tasks")
def recursion(ray):
    @ray.remote
    def fibonacci(n):
        if n < 2:
            return n
        return sum(ray.get([fibonacci.remote(n - 1), fibonacci.remote(n - 2)]))

    return ray.get(fibonacci.remote(5))


@case("tasks")
def recursion_deeper_than_there_are_cpus(ray):
    @ray.remote(num_cpus=1)
    def deep(n):
        return 0 if n == 0 else 1 + ray.get(deep.remote(n - 1))

    return ray.get(deep.remote(8))


@case("tasks")
def waiting_in_a_task_gives_its_cpu_back(ray):
    @ray.remote(num_cpus=4)
    def inner():
        return 1

    @ray.remote(num_cpus=4)
    def outer():
        ready, _ = ray.wait([inner.remote()], timeout=30)
        return len(ready)

    return ray.get(outer.remote())


@case("tasks")
def closures(ray):
    captured = {"a": [1, 2]}

    def helper(x):
        return x + captured["a"][1]

    @ray.remote
    def f(x):
        return helper(x)

    return ray.get(f.remote(1))


@case("tasks")
def closures_are_pickled_once(ray):
    captured = [1]

    @ray.remote
    def f():
        return captured

    first = ray.get(f.remote())
    captured.append(2)
    return first, ray.get(f.remote())


@case("tasks")
def a_function_defined_anew(ray):
    results = []
    for i in range(3):

        @ray.remote
        def f():
            return i

        results.append(ray.get(f.remote()))
    return results


@case("tasks")
def a_class_defined_anew(ray):
    results = []
    for i in range(2):

        class Value:
            number = i

        @ray.remote
        def f(value):
            return value.number

        results.append(ray.get(f.remote(Value())))
    return results


@case("tasks")
def large_captured_variables(ray):
    captured = b"x" * 3_000_000

    @ray.remote
    def f():
        return len(captured)

    return ray.get([f.remote(), f.remote()])


@case("tasks")
def large_arguments_and_results(ray):
    @ray.remote
    def f(x):
        return x + b"!"

    back = ray.get(f.remote(b"y" * 2_000_000))
    return len(back), back[-2:]


@case("tasks")
def functions_that_call_each_other(ray):
    @ray.remote
    def even(n):
        return True if n == 0 else ray.get(odd.remote(n - 1))

    @ray.remote
    def odd(n):
        return False if n == 0 else ray.get(even.remote(n - 1))

    return ray.get(even.remote(4))


@case("tasks")
def a_remote_function_as_an_argument(ray):
    @ray.remote
    def square(x):
        return x * x

    @ray.remote
    def apply(f, x):
        return ray.get(f.remote(x))

    return ray.get(apply.remote(square, 5))


@case("tasks")
def arguments_that_can_not_be_pickled(ray):
    import threading

    @ray.remote
    def f(x):
        return x

    return raised(f.remote, threading.Lock())


@case("tasks")
def results_that_can_not_be_pickled(ray):
    import threading

    @ray.remote
    def f():
        return threading.Lock()

    return raised(ray.get, f.remote()) is not None


@case("tasks")
def functions_that_can_not_be_pickled(ray):
    import threading

    lock = threading.Lock()

    @ray.remote
    def f():
        return lock

    return raised(f.remote)


@case("tasks")
def tasks_are_tried_again_when_their_worker_dies(ray):
    with tally() as tries:

        @ray.remote(max_retries=2)
        def f():
            if tries.add() < 3:
                os._exit(1)
            return "done"

        return ray.get(f.remote()), tries.count()


@case("tasks")
def max_retries_0(ray):
    with tally() as tries:

        @ray.remote(max_retries=0)
        def f():
            tries.add()
            os._exit(1)

        return raised(ray.get, f.remote()), tries.count()


@case("tasks")
def max_retries_are_used_up(ray):
    with tally() as tries:

        @ray.remote(max_retries=1)
        def f():
            tries.add()
            os._exit(1)

        return raised(ray.get, f.remote()), tries.count()


@case("tasks")
def errors_are_not_tried_again(ray):
    with tally() as tries:

        @ray.remote(max_retries=3)
        def f():
            tries.add()
            raise ValueError

        return raised(ray.get, f.remote()), tries.count()


@case("tasks")
def retry_exceptions(ray):
    with tally() as tries:

        @ray.remote(max_retries=3, retry_exceptions=True)
        def f():
            if tries.add() < 3:
                raise ValueError
            return "done"

        return ray.get(f.remote()), tries.count()


@case("tasks")
def retry_exceptions_of_a_list(ray):
    with tally() as tries, tally() as others:

        @ray.remote(max_retries=2, retry_exceptions=[KeyError])
        def f():
            tries.add()
            raise KeyError

        @ray.remote(max_retries=2, retry_exceptions=[KeyError])
        def g():
            others.add()
            raise ValueError

        return (
            raised(ray.get, f.remote()),
            tries.count(),
            raised(ray.get, g.remote()),
            others.count(),
        )


@case("tasks")
def retry_exceptions_for_ever(ray):
    with tally() as tries:

        @ray.remote(max_retries=-1, retry_exceptions=True)
        def f():
            if tries.add() < 6:
                raise ValueError
            return tries.count()

        return ray.get(f.remote())


@case("tasks")
def max_calls_ends_the_worker(ray):
    @ray.remote(max_calls=1)
    def f():
        return os.getpid()

    pids = []
    for _ in range(3):
        pids.append(ray.get(f.remote()))
    return len(set(pids))


@case("tasks")
def a_task_with_a_name(ray):
    @ray.remote
    def f():
        return ray.get_runtime_context().get_task_name()

    return ray.get(f.options(name="a name").remote())


@case("tasks")
def resources_limit_what_runs_at_once(ray):
    with gate() as g, tally() as running:

        @ray.remote(num_cpus=0, resources={"widget": 1})
        def f():
            running.add()
            g.wait()

        refs = [f.remote() for _ in range(3)]
        two = until(lambda: running.count() == 2)
        waited = ray.wait(refs, num_returns=1, timeout=0.2)[0]
        count = running.count()
        g.open()
        ray.get(refs)
        return two, waited, count, running.count()


@case("tasks")
def resources_that_nobody_has(ray):
    @ray.remote(resources={"nobody has it": 1})
    def f():
        return 1

    ref = f.remote()
    ready, _ = ray.wait([ref], timeout=0.3)
    ray.cancel(ref)
    return ready


@case("tasks")
def fractions_of_resources(ray):
    @ray.remote(num_cpus=0, resources={"widget": 0.25})
    def f():
        return ray.get_runtime_context().get_assigned_resources()["widget"]

    return ray.get([f.remote() for _ in range(3)])


@case("tasks")
def num_cpus_0(ray):
    @ray.remote(num_cpus=0)
    def f():
        return ray.get_runtime_context().get_assigned_resources().get("CPU")

    return ray.get(f.remote())


@case("tasks")
def scheduling_strategies_by_name(ray):
    @ray.remote
    def f():
        return 1

    return ray.get([f.options(scheduling_strategy=strategy).remote() for strategy in ("DEFAULT", "SPREAD")])


@case("tasks")
def a_scheduling_strategy_that_is_none(ray):
    def f():
        return 1

    return raised(lambda: ray.remote(scheduling_strategy="SOMEWHERE")(f).remote())


@case("tasks")
def node_affinity(ray):
    from conformance.case import part

    strategy = part(ray, "util.scheduling_strategies").NodeAffinitySchedulingStrategy

    @ray.remote
    def f():
        return ray.get_runtime_context().get_node_id()

    here = ray.get_runtime_context().get_node_id()
    return ray.get(f.options(scheduling_strategy=strategy(here, soft=False)).remote()) == here


@case("tasks")
def runtime_env_of_variables(ray):
    @ray.remote(runtime_env={"env_vars": {"CONFORMANCE_A": "1", "CONFORMANCE_B": "two"}})
    def f():
        return os.environ.get("CONFORMANCE_A"), os.environ.get("CONFORMANCE_B")

    @ray.remote
    def g():
        return os.environ.get("CONFORMANCE_A")

    return ray.get(f.remote()), ray.get(g.remote())


@case("tasks")
def runtime_env_by_options(ray):
    @ray.remote
    def f():
        return os.environ.get("CONFORMANCE_C")

    return ray.get(f.options(runtime_env={"env_vars": {"CONFORMANCE_C": "c"}}).remote()), ray.get(f.remote())


@case("tasks", alone=True)
def runtime_env_of_a_session(ray):
    ray.init(num_cpus=1, runtime_env={"env_vars": {"CONFORMANCE_D": "d"}})

    @ray.remote
    def f():
        return os.environ.get("CONFORMANCE_D")

    return ray.get(f.remote())


@case("tasks", alone=True)
def runtime_env_of_a_working_directory(ray):
    from conformance.case import folder

    with folder() as path:
        (path / "only_there.py").write_text("VALUE = 42\n")
        (path / "data.txt").write_text("data")
        ray.init(num_cpus=1, runtime_env={"working_dir": str(path)})

        @ray.remote
        def f():
            import only_there

            return only_there.VALUE, open("data.txt").read()

        return ray.get(f.remote())


@case("tasks")
def runtime_env_mistakes(ray):
    def f():
        pass

    wrong = [{"env_vars": {"A": 1}}, {"env_vars": [1]}, {"working_dir": 5}]
    return [raised(lambda e=env: ray.remote(runtime_env=e)(f).remote()) for env in wrong]


@case("tasks")
def tasks_run_in_other_processes(ray):
    @ray.remote
    def f():
        return os.getpid()

    return ray.get(f.remote()) != os.getpid()


@case("tasks")
def tasks_run_at_once(ray):
    with gate() as a, gate() as b:

        @ray.remote
        def f(mine, other):
            mine.open()
            return other.wait()

        return ray.get([f.remote(a, b), f.remote(b, a)])


@case("tasks")
def many_tasks(ray):
    @ray.remote
    def f(i):
        return i

    return sum(ray.get([f.remote(i) for i in range(500)]))


@case("tasks")
def many_arguments(ray):
    @ray.remote
    def f(*numbers):
        return sum(numbers)

    return ray.get(f.remote(*[ray.put(i) for i in range(50)])), ray.get(f.remote(*range(300)))


@case("tasks")
def results_that_are_arguments_twice(ray):
    @ray.remote
    def f():
        return [1]

    @ray.remote
    def g(a, b):
        return a, b

    ref = f.remote()
    return ray.get(g.remote(ref, ref))


@case("tasks")
def arguments_can_be_changed(ray):
    @ray.remote
    def f(items):
        items.append(1)
        return items

    ref = ray.put([0])
    return ray.get([f.remote(ref), f.remote(ref)]), ray.get(ref)


@case("tasks")
def globals_of_a_function_stay_in_its_worker(ray):
    state = {"count": 0}

    @ray.remote
    def f():
        state["count"] += 1
        return state["count"] >= 1

    return ray.get([f.remote() for _ in range(3)]), state["count"]


@case("tasks")
def a_coroutine_is_no_remote_function(ray):
    async def f():
        return 1

    return raised(lambda: ray.get(ray.remote(f).remote()))


@case("tasks")
def methods_are_no_remote_functions_of_their_class(ray):
    class A:
        @ray.remote
        def f(self):
            return 1

    return raised(A().f.remote)


@case("tasks")
def a_partial_is_a_remote_function(ray):
    import functools

    return raised(lambda: ray.get(ray.remote(functools.partial(pow, 2)).remote(5)))


@case("tasks")
def a_builtin_is_a_remote_function(ray):
    return raised(lambda: ray.get(ray.remote(len).remote([1, 2])))


@case("tasks")
def the_time_that_a_task_takes_is_its_own(ray):
    @ray.remote
    def f():
        started = time.monotonic()
        time.sleep(0.05)
        return time.monotonic() - started >= 0.05

    return ray.get(f.remote())


@case("tasks")
def a_wrapped_function(ray):
    import functools

    def twice(function):
        @functools.wraps(function)
        def wrapper(*arguments):
            return function(function(*arguments))

        return wrapper

    @ray.remote
    @twice
    def f(x):
        return x + 1

    return ray.get(f.remote(1))


@case("tasks")
def results_are_dropped_unread(ray):
    @ray.remote
    def f():
        return b"x" * 200_000

    for _ in range(20):
        f.remote()
    return len(ray.get(f.remote()))
