"""What workers print, at the driver: each line behind who printed it, and what several print again and again once.

A line that differs from one of the last seconds in its numbers alone, and comes of another process, is counted rather than
printed; the count follows when the time is over. Set ``RAY_DEDUP_LOGS=0`` to see all.
"""

from __future__ import annotations

import os
import re
import select
import sys
import threading
import time
from collections import OrderedDict
from typing import Any, TextIO

from pydmrpc import _core, _system

#: Seconds for which a line counts as a repetition.
_WINDOW_S = 5.0
#: Different lines that are remembered.
_MAX_LINES = 1000
_NUMBER = re.compile(r"\d+")

_CYAN, _GREEN, _OFF = "\x1b[36m", "\x1b[32m", "\x1b[0m"


def start() -> None:
    """Begins to print what workers print, until the session ends."""
    threading.Thread(target=_print, name="pydmrpc-output", daemon=True).start()


def _print() -> None:
    bell = _core.Completions()
    process = os.getpid()
    lines = _Lines()
    while os.getpid() == process and _core.current() is not None:
        try:
            for pid, is_error, line in _core._take_printed(bell):
                lines.add(pid, is_error, line)
            lines.settle(time.monotonic())
        except ValueError:
            # Closed, as at the end of the interpreter.
            return
        select.select([bell], [], [], 1.0)
        bell.take()


class _Repeated:
    """A line that was printed, and how often it came since from elsewhere."""

    def __init__(self, pid: int, is_error: bool, now: float) -> None:
        self.pid = pid
        self.is_error = is_error
        self.since = now
        self.count = 0
        self.last: tuple[int, str] = (0, "")


class _Lines:
    """Lines on their way to the terminal."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._repeated: OrderedDict[str, _Repeated] = OrderedDict()
        self._all = os.environ.get("RAY_DEDUP_LOGS", "1") == "0"

    def add(self, pid: int, is_error: bool, line: str) -> None:
        if self._all or not line.strip():
            self._show(pid, is_error, line)
            return
        now = time.monotonic()
        key = _NUMBER.sub("#", line)
        known = self._repeated.get(key)
        if known is not None and known.pid != pid and now - known.since < _WINDOW_S:
            known.count += 1
            known.last = (pid, line)
            return
        if known is None:
            if len(self._repeated) >= _MAX_LINES:
                self._settle(*self._repeated.popitem(last=False))
            self._repeated[key] = _Repeated(pid, is_error, now)
        self._show(pid, is_error, line)

    def settle(self, now: float) -> None:
        """Tells how often lines were repeated whose time is over."""
        while self._repeated:
            key, first = next(iter(self._repeated.items()))
            if now - first.since < _WINDOW_S:
                return
            del self._repeated[key]
            self._settle(key, first)

    def _settle(self, _key: str, known: _Repeated) -> None:
        if known.count == 1:
            self._show(known.last[0], known.is_error, known.last[1])
        elif known.count > 1:
            pid, line = known.last
            self._show(pid, known.is_error, f"{line} {_paint(f'[repeated {known.count}x across workers]', _GREEN, sys.stdout)}")

    def _show(self, pid: int, is_error: bool, line: str) -> None:
        stream = sys.stderr if is_error else sys.stdout
        name = self._name(pid)
        who = f"({name} pid={pid})" if name else f"(pid={pid})"
        print(f"{_paint(who, _CYAN, stream)} {line}", file=stream, flush=True)

    def _name(self, pid: int) -> str:
        """What a worker runs: the name of its actor's class, or of a function."""
        if pid not in self._names:
            rows: list[dict[str, Any]] = _system.rows("workers")
            # What runs functions runs others later.
            self._names = {row["pid"]: row["runs"] or "" for row in rows}
        name = self._names.get(pid, "")
        return name


def _paint(text: str, color: str, stream: TextIO) -> str:
    return f"{color}{text}{_OFF}" if stream.isatty() else text
