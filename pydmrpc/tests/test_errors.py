"""What goes wrong in tasks, as whoever asks for the result sees it."""

import os
import threading

import pydmrpc
import pytest
from conftest import PATIENCE
from pydmrpc.exceptions import RayTaskError, WorkerCrashedError


class Odd(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")
        self.a = a


def get(ref):
    return pydmrpc.get(ref, timeout=PATIENCE)


def test_raised(runtime):
    @pydmrpc.remote
    def divide(a, b):
        return a / b

    with pytest.raises(ZeroDivisionError) as caught:
        get(divide.remote(1, 0))
    assert isinstance(caught.value, RayTaskError)
    assert isinstance(caught.value.cause, ZeroDivisionError)
    # Also of code that travelled: the file, so that Python shows the line.
    assert f'File "{__file__}", line' in str(caught.value)
    assert "in divide\n    return a / b" in str(caught.value)
    with pytest.raises(ZeroDivisionError):
        get(divide.remote(divide.remote(1, 0), 1))


def test_exceptions_that_pickle_badly(runtime):
    @pydmrpc.remote
    def odd():
        raise Odd(1, 2)

    @pydmrpc.remote
    def unpicklable():
        error = ValueError("held")
        error.lock = threading.Lock()
        raise error

    with pytest.raises(RayTaskError, match="1 and 2"):
        get(odd.remote())
    with pytest.raises(RayTaskError, match="held"):
        get(unpicklable.remote())


def test_unpicklable_arguments_and_results(runtime):
    @pydmrpc.remote
    def lock(value=None):
        return {"a": [threading.Lock()]}

    with pytest.raises(TypeError) as caught:
        lock.remote({"x": [1, threading.Lock()]})
    assert any("value['x'][1]" in note for note in caught.value.__notes__)
    with pytest.raises(TypeError, match="lock"):
        get(lock.remote())


def test_crashes(runtime):
    @pydmrpc.remote(max_retries=0)
    def crash():
        print("the last words", flush=True)
        os._exit(7)

    with pytest.raises(WorkerCrashedError, match=r"(?s)code 7.*the last words"):
        get(crash.remote())


def test_retries(runtime, tmp_path):
    @pydmrpc.remote(max_retries=2)
    def crash_twice():
        (tmp_path / str(os.getpid())).touch()
        if len(list(tmp_path.iterdir())) < 3:
            os.kill(os.getpid(), 9)
        return "done"

    assert get(crash_twice.remote()) == "done"


def test_direct_calls(runtime):
    @pydmrpc.remote
    def function():
        pass

    with pytest.raises(TypeError, match="remote"):
        function()
