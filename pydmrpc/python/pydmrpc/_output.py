"""What workers print, at the driver."""

from __future__ import annotations

import os
import select
import sys
import threading

from pydmrpc import _core


def start() -> None:
    """Begins to print what workers print, until the session ends."""
    threading.Thread(target=_print, name="pydmrpc-output", daemon=True).start()


def _print() -> None:
    bell = _core.Completions()
    process = os.getpid()
    while os.getpid() == process and _core.current() is not None:
        for pid, is_error, line in _core._take_printed(bell):
            stream = sys.stderr if is_error else sys.stdout
            try:
                print(f"(pid={pid}) {line}", file=stream, flush=True)
            except ValueError:
                # Closed, as at the end of the interpreter.
                return
        select.select([bell], [], [], 1.0)
        bell.take()
