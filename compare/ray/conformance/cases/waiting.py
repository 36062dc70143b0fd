"""wait."""

from __future__ import annotations

from conformance.case import case, gate, raised


@case("core")
def wait_for_one(ray):
    refs = [ray.put(i) for i in range(3)]
    ready, rest = ray.wait(refs)
    return len(ready), len(rest), ready[0] in refs


@case("core")
def wait_for_all_keeps_the_order(ray):
    refs = [ray.put(i) for i in range(5)]
    ready, rest = ray.wait(refs, num_returns=5)
    return ready == refs, rest


@case("core")
def wait_for_the_quick(ray):
    with gate() as g:

        @ray.remote
        def slow():
            g.wait()

        @ray.remote
        def quick():
            return 1

        refs = [slow.remote(), quick.remote()]
        ready, rest = ray.wait(refs, num_returns=1, timeout=30)
        return ready == [refs[1]], rest == [refs[0]]


@case("core")
def wait_with_a_timeout(ray):
    with gate() as g:

        @ray.remote
        def f():
            g.wait()

        ref = f.remote()
        ready, rest = ray.wait([ref], timeout=0.05)
        return ready, rest == [ref], ray.wait([ref], timeout=0)[0]


@case("core")
def wait_gives_no_more_than_asked(ray):
    refs = [ray.put(i) for i in range(6)]
    ready, rest = ray.wait(refs, num_returns=2, timeout=5)
    return len(ready), len(rest)


@case("core")
def wait_for_what_fails(ray):
    @ray.remote
    def f():
        raise ValueError

    ready, rest = ray.wait([f.remote()], timeout=30)
    return len(ready), rest, raised(ray.get, ready)


@case("core")
def wait_without_fetching(ray):
    ready, rest = ray.wait([ray.put(1)], fetch_local=False)
    return len(ready), rest


@case("core")
def wait_for_nothing(ray):
    return ray.wait([])


@case("core")
def wait_for_mistakes(ray):
    ref, other = ray.put(1), ray.put(2)
    return [
        raised(ray.wait, ref),
        raised(ray.wait, [1]),
        raised(ray.wait, [ref, ref]),
        raised(ray.wait, [ref], num_returns=0),
        raised(ray.wait, [ref], num_returns=2),
        raised(ray.wait, [ref, other], num_returns=-1),
        raised(ray.wait, [ref], timeout=-1),
    ]


@case("core")
def wait_again_and_again(ray):
    @ray.remote
    def f(i):
        return i

    rest = [f.remote(i) for i in range(20)]
    got = []
    while rest:
        ready, rest = ray.wait(rest, timeout=30)
        got += ray.get(ready)
    return sorted(got)
