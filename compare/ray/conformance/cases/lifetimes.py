"""How actors end, and are made again."""

from __future__ import annotations

import os

from conformance.case import case, gate, raised, tally, until


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


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(") ")[2][0] != "Z"
