"""Types: the package is strict, and the stub of its core says what there is."""

import pathlib
import subprocess
import sys

import pydmrpc

PACKAGE = pathlib.Path(pydmrpc.__file__).parent


def run(*command):
    command = [sys.executable, "-m", *command]
    done = subprocess.run(command, cwd=PACKAGE.parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy():
    run("mypy", "--config-file", "pyproject.toml", str(PACKAGE))


def test_the_stub_is_what_there_is():
    run("mypy.stubtest", "--mypy-config-file", "pyproject.toml", "--concise", "pydmrpc._core")
