"""Classes whose instances live elsewhere."""

import os

import pydmrpc
import pytest
from conftest import PATIENCE, until
from pydmrpc.exceptions import ActorDiedError


@pydmrpc.remote
class Counter:
    def __init__(self, start=0):
        self.count = start

    def add(self, by=1):
        self.count += by
        return self.count

    def pid(self):
        return os.getpid()

    def die(self):
        os._exit(3)


def get(ref):
    return pydmrpc.get(ref, timeout=PATIENCE)


def test_calls_run_in_order(runtime):
    counter = Counter.remote(5)
    assert get([counter.add.remote() for _ in range(1000)]) == list(range(6, 1006))
    assert get(counter.add.remote(by=pydmrpc.put(10))) == 1015


def test_handles_travel(runtime):
    @pydmrpc.remote
    def use(counter):
        return pydmrpc.get(counter.add.remote(7))

    counter = Counter.remote()
    assert get(use.remote(counter)) == 7
    assert get(counter.add.remote()) == 8


def test_names(runtime):
    counter = Counter.options(name="here").remote(1)
    assert get(pydmrpc.get_actor("here").add.remote()) == 2
    assert get(counter.add.remote()) == 3
    with pytest.raises(ValueError, match="already taken"):
        Counter.options(name="here").remote()
    assert get(Counter.options(name="here", get_if_exists=True).remote().add.remote()) == 4
    with pytest.raises(ValueError, match="Failed to look up"):
        pydmrpc.get_actor("elsewhere")


def test_killed_and_crashed(runtime):
    killed, crashed = Counter.remote(), Counter.remote()
    get(killed.add.remote())
    pydmrpc.kill(killed)
    with pytest.raises(ActorDiedError, match="killed") as error:
        get(killed.add.remote())
    assert error.value.actor_id == killed._actor_id.hex()
    with pytest.raises(ActorDiedError, match="code 3"):
        get(crashed.die.remote())
    with pytest.raises(ActorDiedError):
        get(crashed.add.remote())


def test_made_again(runtime):
    counter = Counter.options(max_restarts=1).remote(5)
    first = get(counter.pid.remote())
    with pytest.raises(pydmrpc.exceptions.RayActorError):
        get(counter.die.remote())
    assert get(counter.add.remote()) == 6
    assert get(counter.pid.remote()) != first


def test_it_ends_with_its_last_handle(runtime):
    counter = Counter.remote()
    pid = get(counter.pid.remote())
    del counter

    def is_gone():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    until(is_gone, "the actor's process ends")


def test_class_that_raises(runtime):
    @pydmrpc.remote
    class Broken:
        def __init__(self):
            raise RuntimeError("not today")

        def method(self):
            pass

    broken = Broken.remote()
    with pytest.raises(ActorDiedError, match="not today") as error:
        get(broken.method.remote())
    assert error.value.actor_id == broken._actor_id.hex()


@pytest.mark.parametrize("kind", ["loop", "threads"])
def test_an_answer_does_not_wait_for_those_behind_it(runtime, tmp_path, kind):
    """Answers are gathered, and yet on their way while the next call runs."""

    def follow(path):
        until(lambda: os.path.exists(path), path)

    class Loop:
        async def quick(self):
            return 1

        async def follow(self, path):
            follow(path)

    class Threads:
        def quick(self):
            return 1

        def follow(self, path):
            follow(path)

    if kind == "loop":
        actor = pydmrpc.remote(Loop).remote()
    else:
        actor = pydmrpc.remote(Threads).options(max_concurrency=2).remote()
    for i in range(20):
        path = str(tmp_path / str(i))
        quick, following = actor.quick.remote(), [actor.follow.remote(path) for _ in range(3)]
        assert get(quick) == 1
        open(path, "w").close()
        get(following)
