"""Environments of workers: variables and a working directory, as ``runtime_env`` asks for them.

A worker has one environment from its start. The core knows environments by numbers; what they are travels to the worker.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib
import json
import os
import pickle
import sys
import zlib
from collections.abc import Mapping
from typing import Any

from pydmrpc import _core, _pickling

#: What `runtime_env` has that is met, and what is taken and has no meaning here: workers run in the driver's own installation.
_MET = ("env_vars", "working_dir", "py_modules", "worker_process_setup_hook")
_TAKEN = ("config", "excludes", "_ray_commit", "eager_install")
_UNMET = ("pip", "conda", "uv", "container", "image_uri", "java_jars", "nsight", "mpi")

#: Before the pickle of a function.
_PICKLED = "pickle:"

#: A definition travels in one piece, so it can't be longer, compressed.
_MAX_BYTES = 3000

#: The environment of this worker, or of all that this driver has run; what it runs has it too.
current: dict[str, Any] = {}
#: What workers of a hub elsewhere need in any case, so that they import what this driver can.
inherited: dict[str, Any] = {}


def check(environment: Any) -> dict[str, Any]:
    """What of an environment matters.

    Raises:
        TypeError: for what is no environment.
        ValueError: for what can't be met.
    """
    if environment is None:
        return {}
    if not isinstance(environment, Mapping):
        raise TypeError(f"runtime_env must be a dict, not {type(environment).__name__}")
    for name in environment:
        if name in _UNMET:
            raise ValueError(f"runtime_env can't have {name!r}: workers run in the driver's own installation")
        if name not in _MET and name not in _TAKEN:
            raise ValueError(f"runtime_env has no field {name!r}: there are {', '.join(_MET)}")
    variables = environment.get("env_vars") or {}
    if not isinstance(variables, Mapping):
        raise TypeError(f"env_vars must be a dict, not {type(variables).__name__}")
    for name, value in variables.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("env_vars must map strings to strings")
    found: dict[str, Any] = {}
    if variables:
        found["env_vars"] = dict(variables)
    for name in ("working_dir", "py_modules"):
        value = environment.get(name)
        if value is None:
            continue
        paths = [value] if name == "working_dir" else value
        if not isinstance(paths, list) or not all(isinstance(path, str | os.PathLike) for path in paths):
            raise TypeError(f"{name} must be {'a path' if name == 'working_dir' else 'a list of paths'}")
        absolute = [os.path.abspath(path) for path in paths]
        for path in absolute:
            if not os.path.isdir(path):
                raise ValueError(f"{name} {path} is no directory")
        found[name] = absolute[0] if name == "working_dir" else absolute
    if (hook := environment.get("worker_process_setup_hook")) is not None:
        found["worker_process_setup_hook"] = _hook(hook)
    return found


def _hook(hook: Any) -> str:
    """A function that each worker calls first, as text: its pickle, or where it is imported from."""
    if isinstance(hook, str):
        return hook
    if not callable(hook):
        raise TypeError("worker_process_setup_hook must be a function, or 'module.function'")
    return _PICKLED + base64.b85encode(_pickling.dumps(hook, protocol=5)).decode()


def _run_hook(hook: str) -> None:
    if hook.startswith(_PICKLED):
        pickle.loads(base64.b85decode(hook.removeprefix(_PICKLED)))()
        return
    module, _, name = hook.rpartition(".")
    getattr(importlib.import_module(module), name)()


def number(environment: Mapping[str, Any] | None) -> int:
    """What the core knows an environment by: that of this process with what is said here; 0 is the usual one."""
    merged = {**inherited, **current, **(environment or {})}
    merged = {name: value for name, value in merged.items() if value is not None}
    if variables := {**current.get("env_vars", {}), **(environment or {}).get("env_vars", {})}:
        merged["env_vars"] = variables
    return _number(json.dumps(merged, sort_keys=True)) if merged else 0


@functools.lru_cache(maxsize=1000)
def _known(text: str) -> tuple[int, bytes]:
    definition = zlib.compress(text.encode())
    if len(definition) > _MAX_BYTES:
        raise ValueError(f"the runtime_env takes {len(definition)} bytes, and {_MAX_BYTES} is the limit")
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") or 1, definition


def _number(text: str) -> int:
    environment, definition = _known(text)
    _core._define(environment.to_bytes(16, "little"), definition)
    return environment


def enter(environment: int, definition: bytes) -> None:
    """Makes this process's environment what it is to be; called once, at its start."""
    if environment == 0:
        return
    # In front of the text is what the core says of any value: that it is bytes, and how many.
    current.update(json.loads(zlib.decompress(definition[5:])))
    os.environ.update(current.get("env_vars", {}))
    sys.path[:0] = current.get("py_modules", [])
    if directory := current.get("working_dir"):
        os.chdir(directory)
        sys.path.insert(0, directory)
    if hook := current.get("worker_process_setup_hook"):
        _run_hook(hook)
