"""Starting the hub of this process."""

from __future__ import annotations

import atexit
import os
import pickle
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any

from pydmrpc import _core, _environment, _output

_lock = threading.Lock()
_number = 0
#: What `init` was told about the runtime; used when it starts, which is at its first use.
options: dict[str, Any] = {}
#: What the hub of another process told when it was joined; a worker's, too.
joined: dict[str, Any] = {}
#: Ends what serves the session's metrics.
_serving: list[Callable[[], None]] = []


def start() -> None:
    """Starts the hub, unless there is one; called by itself when the first task or actor is."""
    global _number
    with _lock:
        if _core.current() is not None:
            return
        if not _core.is_started():
            import pydmrpc

            pydmrpc.init()
            if _core.current() is not None:
                return
        _number += 1
        path = os.path.join(tempfile.gettempdir(), f"dmrpc-{os.getpid()}-hub-{_number}.sock")
        # A worker imports what the driver can, from where the driver does.
        search = [entry or os.getcwd() for entry in sys.path]
        settings = {"path": search, "argv": list(sys.argv), "hub": path}
        about = {"namespace": options.get("namespace") or "default", "driver": os.getpid(), "hub": f"hub://{path}"}
        cpus = options.get("num_cpus")
        resources: Mapping[str, float] = options.get("resources") or {}
        _core._serve(
            python=sys.executable,
            settings=pickle.dumps(settings),
            about=pickle.dumps(about),
            path=path,
            store_url=_core.about()[0],
            cpu=round((len(os.sched_getaffinity(0)) if cpus is None else cpus) * 1000),
            gpu=round((options.get("num_gpus") or 0) * 1000),
            other={name: round(amount * 1000) for name, amount in resources.items()},
        )
        if options.get("log_to_driver", True):
            _output.start()


def join(path: str) -> None:
    """Joins the hub of another process, as one more driver; its workers import from where this process does."""
    with _lock:
        joined.clear()
        joined.update(pickle.loads(_core._join(path)))
    if options.get("log_to_driver", True):
        _output.start()
    _environment.inherited.update(py_modules=[entry or os.getcwd() for entry in sys.path], working_dir=os.getcwd())


def serve_metrics(port: int) -> None:
    """Serves the session's metrics by HTTP until :func:`end_serving`."""
    from pydmrpc.util import metrics

    _serving.append(metrics.serve(port))


def end_serving() -> None:
    """Ends what :func:`serve_metrics` began."""
    while _serving:
        _serving.pop()()


def hub_address() -> str:
    """Where other programs of this host join by ``init(address=…)``: they share tasks, actors and their names, and results."""
    start()
    address = _core._hub_address()
    return str(joined["hub"]) if address is None else address


def namespace() -> str:
    """The namespace of names that say none."""
    return options.get("namespace") or joined.get("namespace") or "default"


atexit.register(options.clear)
