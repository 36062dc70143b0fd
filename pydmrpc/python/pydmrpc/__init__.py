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

from pydmrpc import exceptions
from pydmrpc._actor import ActorHandle, actor
from pydmrpc._api import cancel, get_actor, kill, method, remote, wait
from pydmrpc._arrays import empty
from pydmrpc._core import ObjectRef, get, put, redeem
from pydmrpc._edit import Edit
from pydmrpc._node import Context, Memory, Sharing, init, is_initialized, memory, sharing, shutdown, stats
from pydmrpc._runtime import hub_address

__all__ = [
    "ActorHandle",
    "Context",
    "Edit",
    "Memory",
    "ObjectRef",
    "Sharing",
    "actor",
    "cancel",
    "empty",
    "exceptions",
    "get",
    "get_actor",
    "hub_address",
    "init",
    "is_initialized",
    "kill",
    "memory",
    "method",
    "put",
    "redeem",
    "remote",
    "sharing",
    "shutdown",
    "stats",
    "wait",
]

__version__ = "0.1.0"
