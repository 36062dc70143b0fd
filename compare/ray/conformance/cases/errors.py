"""What is raised, and what it tells."""

from __future__ import annotations

import os
import signal

from conformance.case import case, gate, part, raised, until


@case("errors")
def a_task_error_is_its_cause_too(ray):
    @ray.remote
    def f():
        raise ValueError("what went wrong")

    try:
        ray.get(f.remote())
    except ValueError as error:
        return (
            isinstance(error, ray.exceptions.RayTaskError),
            isinstance(error, ray.exceptions.RayError),
            type(error).__name__,
        )


@case("errors")
def the_cause_of_a_task_error(ray):
    @ray.remote
    def f():
        raise KeyError("a", 2)

    try:
        ray.get(f.remote())
    except KeyError as error:
        return type(error.cause).__name__, error.cause.args, error.args


@case("errors")
def the_remote_traceback(ray):
    @ray.remote
    def outer():
        def function_that_fails():
            raise RuntimeError("deep inside")

        function_that_fails()

    try:
        ray.get(outer.remote())
    except RuntimeError as error:
        return [part_ in str(error) for part_ in ("function_that_fails", "deep inside", "RuntimeError", "outer")]


@case("errors")
def an_exception_class_of_the_user(ray):
    class Mine(Exception):
        def __init__(self, code):
            super().__init__(f"code {code}")
            self.code = code

    @ray.remote
    def f():
        error = Mine(5)
        raise error

    try:
        ray.get(f.remote())
    except Mine as error:
        return type(error).__name__, isinstance(error, ray.exceptions.RayTaskError)
    except ray.exceptions.RayTaskError as error:
        return "no instance of Mine", type(error).__name__


@case("errors")
def attributes_of_an_exception(ray):
    class Mine(Exception):
        pass

    @ray.remote
    def f():
        error = Mine("text")
        error.code = 7
        raise error

    try:
        ray.get(f.remote())
    except Mine as error:
        return error.cause.code, getattr(error, "code", None)


@case("errors")
def an_exception_that_can_not_be_pickled(ray):
    class Mine(Exception):
        def __reduce__(self):
            raise TypeError("not me")

    @ray.remote
    def f():
        raise Mine

    return raised(ray.get, f.remote()) in ("RayTaskError", "RayError")


@case("errors")
def an_exception_with_two_arguments(ray):
    class Mine(Exception):
        def __init__(self, a, b):
            self.a, self.b = a, b
            super().__init__(a, b)

    @ray.remote
    def f():
        raise Mine(1, 2)

    try:
        ray.get(f.remote())
    except Mine as error:
        return error.cause.a, error.cause.b


@case("errors")
def errors_pass_through_tasks(ray):
    @ray.remote
    def inner():
        raise ZeroDivisionError

    @ray.remote
    def outer():
        return ray.get(inner.remote())

    try:
        ray.get(outer.remote())
    except ZeroDivisionError as error:
        return type(error).__name__, isinstance(error, ray.exceptions.RayTaskError)


@case("errors")
def errors_can_be_caught_in_tasks(ray):
    @ray.remote
    def inner():
        raise ZeroDivisionError

    @ray.remote
    def outer():
        try:
            return ray.get(inner.remote())
        except ZeroDivisionError:
            return "caught"

    return ray.get(outer.remote())


@case("errors")
def errors_of_methods(ray):
    @ray.remote
    class A:
        def f(self):
            raise IndexError("i")

        def g(self):
            return "goes on"

    a = A.remote()
    return raised(ray.get, a.f.remote()), ray.get(a.g.remote())


@case("errors")
def errors_in_a_list(ray):
    @ray.remote
    def good():
        return 1

    @ray.remote
    def bad():
        raise OSError(2, "no file")

    return raised(ray.get, [good.remote(), bad.remote(), good.remote()])


@case("errors")
def an_os_error_keeps_its_number(ray):
    @ray.remote
    def f():
        open("/does/not/exist")

    try:
        ray.get(f.remote())
    except FileNotFoundError as error:
        return error.cause.errno, type(error).__name__


@case("errors")
def exceptions_that_end_interpreters(ray):
    @ray.remote(max_retries=0)
    def leaves():
        raise SystemExit(0)

    @ray.remote(max_retries=0)
    def interrupted():
        raise KeyboardInterrupt

    return raised(ray.get, leaves.remote()), raised(ray.get, interrupted.remote())


@case("errors")
def stop_iteration_of_a_task(ray):
    @ray.remote
    def f():
        raise StopIteration

    return raised(ray.get, f.remote())


@case("errors")
def an_exception_group(ray):
    @ray.remote
    def f():
        raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])

    try:
        ray.get(f.remote())
    except BaseExceptionGroup as error:
        return type(error).__name__, [type(inner).__name__ for inner in error.exceptions]
    except Exception as error:
        return type(error).__name__


@case("errors")
def a_chain_of_causes(ray):
    @ray.remote
    def f():
        try:
            1 / 0
        except ZeroDivisionError as error:
            raise ValueError("second") from error

    try:
        ray.get(f.remote())
    except ValueError as error:
        return "ZeroDivisionError" in str(error), "second" in str(error)


@case("errors")
def task_errors_can_be_pickled(ray):
    @ray.remote
    def f():
        raise ValueError("a")

    try:
        ray.get(f.remote())
    except ValueError as error:
        pickle = part(ray, "cloudpickle")
        again = pickle.loads(pickle.dumps(error))
        return isinstance(again, ray.exceptions.RayTaskError), "a" in str(again)


@case("errors")
def a_task_error_as_a_value(ray):
    @ray.remote
    def f():
        return ValueError("returned, not raised")

    return type(ray.get(f.remote()))


@case("errors")
def a_worker_that_exits(ray):
    @ray.remote(max_retries=0)
    def f():
        os._exit(1)

    return raised(ray.get, f.remote())


@case("errors")
def a_worker_that_crashes(ray):
    @ray.remote(max_retries=0)
    def f():
        os.kill(os.getpid(), signal.SIGSEGV)
        signal.pause()

    return raised(ray.get, f.remote())


@case("errors")
def a_worker_that_is_killed(ray):
    @ray.remote(max_retries=0)
    def f():
        os.kill(os.getpid(), signal.SIGKILL)

    return raised(ray.get, f.remote())


@case("errors")
def the_driver_goes_on_after_crashes(ray):
    @ray.remote(max_retries=0)
    def bad():
        os._exit(1)

    @ray.remote
    def good():
        return 1

    raised(ray.get, bad.remote())
    return ray.get([good.remote() for _ in range(4)])


@case("errors")
def an_actor_error_tells_of_its_actor(ray):
    @ray.remote
    class A:
        def f(self):
            os._exit(1)

    a = A.remote()
    try:
        ray.get(a.f.remote())
    except ray.exceptions.RayActorError as error:
        return isinstance(error, ray.exceptions.ActorDiedError), error.actor_id == a._actor_id.hex()


@case("errors")
def an_init_that_raised_is_told_of(ray):
    @ray.remote
    class A:
        def __init__(self):
            raise ValueError("wrong from the start")

        def f(self):
            return 1

    try:
        ray.get(A.remote().f.remote())
    except ray.exceptions.RayActorError as error:
        return "wrong from the start" in str(error), type(error).__name__


@case("errors")
def the_family_of_errors(ray):
    errors = ray.exceptions
    pairs = [
        ("RayTaskError", "RayError"),
        ("RayActorError", "RayError"),
        ("ActorDiedError", "RayActorError"),
        ("ActorUnavailableError", "RayActorError"),
        ("GetTimeoutError", "RayError"),
        ("TaskCancelledError", "RayError"),
        ("WorkerCrashedError", "RayError"),
        ("ObjectLostError", "RayError"),
        ("OwnerDiedError", "ObjectLostError"),
        ("ReferenceCountingAssertionError", "ObjectLostError"),
        ("ObjectReconstructionFailedError", "ObjectLostError"),
        ("OutOfMemoryError", "RayError"),
        ("ObjectStoreFullError", "RayError"),
        ("PendingCallsLimitExceeded", "RayError"),
        ("RaySystemError", "RayError"),
        ("NodeDiedError", "RayError"),
        ("LocalRayletDiedError", "RayError"),
        ("RuntimeEnvSetupError", "RayError"),
        ("TaskUnschedulableError", "RayError"),
        ("ActorUnschedulableError", "RayError"),
        ("AsyncioActorExit", "RayError"),
        ("TaskPlacementGroupRemoved", "RayError"),
        ("ActorPlacementGroupRemoved", "RayError"),
        ("CrossLanguageError", "RayError"),
        ("RayChannelError", "RayError"),
    ]
    return [issubclass(getattr(errors, child), getattr(errors, parent)) for child, parent in pairs]


@case("errors")
def a_timeout_is_a_timeout(ray):
    return issubclass(ray.exceptions.GetTimeoutError, TimeoutError)


@case("errors")
def a_cancelled_task_tells_of_itself(ray):
    with gate() as started, gate() as g:

        @ray.remote
        def f():
            started.open()
            g.wait(60)

        ref = f.remote()
        started.wait()
        ray.cancel(ref)
        try:
            ray.get(ref)
        except ray.exceptions.TaskCancelledError as error:
            return type(error).__name__, isinstance(error, ray.exceptions.RayError)


@case("errors")
def an_error_is_raised_each_time(ray):
    @ray.remote
    def f():
        raise ValueError

    ref = f.remote()
    return [raised(ray.get, ref) for _ in range(3)]


@case("errors")
def errors_of_arguments_reach_methods(ray):
    @ray.remote
    def bad():
        raise ValueError

    @ray.remote
    class A:
        def f(self, x):
            return x

    return raised(ray.get, A.remote().f.remote(bad.remote()))


@case("errors")
def errors_of_arguments_of_an_init(ray):
    @ray.remote
    def bad():
        raise ValueError

    @ray.remote
    class A:
        def __init__(self, x):
            self.x = x

        def f(self):
            return 1

    return raised(ray.get, A.remote(bad.remote()).f.remote())


@case("errors")
def what_can_not_be_pickled_is_named(ray):
    inspect = part(ray, "util").inspect_serializability
    import threading

    lock = threading.Lock()

    def f():
        return lock

    good, nothing = inspect(lambda: 1, name="good")
    bad, failures = inspect(f, name="f")
    return good, len(nothing), bad, len(failures) > 0


@case("errors")
def an_environment_that_can_not_be(ray):
    def f():
        return 1

    def run():
        return ray.get(
            ray.remote(runtime_env={"working_dir": "/does/not/exist"})(f).remote(),
            timeout=30,
        )

    return raised(run)


@case("errors")
def a_name_that_is_not_defined(ray):
    @ray.remote
    def f():
        return not_defined  # noqa: F821

    return raised(ray.get, f.remote())


@case("errors")
def a_module_that_is_not_there(ray):
    @ray.remote
    def f():
        import not_a_module  # noqa: F401

    return raised(ray.get, f.remote())


@case("errors")
def memory_that_is_not_there(ray):
    @ray.remote(max_retries=0)
    def f():
        return bytearray(1 << 60)

    return raised(ray.get, f.remote())


@case("errors")
def actor_errors_after_a_kill_from_outside(ray):
    @ray.remote
    class A:
        def pid(self):
            return os.getpid()

        def f(self):
            return 1

    a = A.remote()
    os.kill(ray.get(a.pid.remote()), signal.SIGKILL)
    return until(lambda: raised(ray.get, a.f.remote()) == "ActorDiedError")


@case("errors", alone=True)
def a_store_that_is_full(ray):
    import numpy as np

    ray.init(num_cpus=1, object_store_memory=80 * 2**20)
    return raised(ray.put, np.zeros(200 * 2**20, "u1"))
