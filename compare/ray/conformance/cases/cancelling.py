"""cancel."""

from __future__ import annotations

import asyncio
import time

from conformance.case import case, gate, raised


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
