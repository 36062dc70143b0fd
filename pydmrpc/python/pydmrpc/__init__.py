"""Objects in copy-on-write pages of a memory node, shared between Python and Rust processes.

Ten lines that show it::

    import numpy as np
    import pydmrpc

    pydmrpc.init()                                  # a memory node within this process; address="unix:///…" joins one
    ref = pydmrpc.put(np.zeros((1024, 1024)))       # one copy, into pages; the reference is what travels
    a = pydmrpc.get(ref)                            # no copy: the pages themselves, writable
    a[0, :] = 1                                     # the kernel copies two pages; nobody else sees it
    new = pydmrpc.put(a)                            # stores two pages, shares the other 2,046
    assert pydmrpc.get(ref)[0, 0] == 0
    assert pydmrpc.get(new[0])[5] == 1              # a slice of a reference: only 8 KiB are looked at

`init`, `put` and `get` have the semantics of Ray's functions of these names, but that arrays from `get` can be written (pass
``writable=False`` for Ray's way) and that objects outlive the process that made them for as long as anybody has a reference.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pydmrpc import actor, exceptions
from pydmrpc._api import cancel, get_actor, kill, method, remote, wait
from pydmrpc._arrays import empty
from pydmrpc._core import ObjectRef, get, put, redeem
from pydmrpc._edit import Edit
from pydmrpc._foreign_actor import ForeignActor, connect
from pydmrpc._generator import DynamicObjectRefGenerator, ObjectRefGenerator
from pydmrpc._node import Context, Memory, Sharing, init, is_initialized, memory, sharing, shutdown, stats
from pydmrpc._runtime import hub_address
from pydmrpc._system import available_resources, cluster_resources, get_gpu_ids, nodes, timeline
from pydmrpc.runtime_context import get_runtime_context

if TYPE_CHECKING:
    from pydmrpc import cloudpickle, experimental, util

__all__ = [
    "Context",
    "DynamicObjectRefGenerator",
    "Edit",
    "ForeignActor",
    "Memory",
    "ObjectRef",
    "ObjectRefGenerator",
    "Sharing",
    "actor",
    "available_resources",
    "cancel",
    "cloudpickle",
    "cluster_resources",
    "connect",
    "empty",
    "exceptions",
    "experimental",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "hub_address",
    "init",
    "is_initialized",
    "kill",
    "memory",
    "method",
    "nodes",
    "put",
    "redeem",
    "remote",
    "sharing",
    "shutdown",
    "stats",
    "timeline",
    "util",
    "wait",
]

__version__ = "0.1.0"

#: Imported when they are first used.
_MODULES = ("cloudpickle", "experimental", "util")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
