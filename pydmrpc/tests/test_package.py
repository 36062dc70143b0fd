"""The package as a whole: what its docstring shows, and what it promises in its stubs."""

import inspect
import re
import subprocess
import sys
import textwrap

import pydmrpc
from pydmrpc import _core, exceptions


def test_the_example_runs():
    example = re.search(r"show it::\n\n(.*?)\n\n`init`", pydmrpc.__doc__, re.DOTALL)[1]
    checked = textwrap.dedent(example) + "\nprint(*pydmrpc.sharing(new))"
    done = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2049", "2049", "2047"]


def test_without_numpy():
    """Values without arrays need no numpy."""
    program = """
        import sys
        sys.modules["numpy"] = None
        import pydmrpc
        ref = pydmrpc.put({"a": memoryview(bytes(100_000)).tolist(), "b": bytearray(5000)})
        assert pydmrpc.get(ref)["b"] == bytearray(5000)
        view = pydmrpc.get(pydmrpc.put(memoryview(bytes(100_000))))
        view[5] = 1
        assert pydmrpc.get(pydmrpc.put(view))[5] == 1
        with pydmrpc.put(bytes(100_000)).edit() as e:
            e[3:5] = b"ab"
        assert pydmrpc.get(e.ref[2:6]) == b"\\0ab\\0"
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_everything_public_is_documented():
    for name in pydmrpc.__all__:
        if not inspect.ismodule(getattr(pydmrpc, name)):
            assert inspect.getdoc(getattr(pydmrpc, name)), name
    for name, member in vars(_core.ObjectRef).items():
        if not name.startswith("_"):
            assert inspect.getdoc(member), name


def test_exceptions_are_errors_of_this_package():
    for name in exceptions.__all__:
        assert issubclass(getattr(exceptions, name), exceptions.RayError)
        assert inspect.getdoc(getattr(exceptions, name))
