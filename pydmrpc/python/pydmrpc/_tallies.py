"""What this process counts, on its way to the hub, which keeps the totals of all processes.

Counting costs no message: what has changed is told together, a moment after the first change, and when the process or the session
ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from pydmrpc import _core, _runtime, _system

#: Seconds from a change until it is told.
INTERVAL_S = 1.0
#: Names that changes are kept of until they are told: later ones are dropped, so that a mistake in names does not fill the memory.
MAX_NAMES = 10_000

#: What a name is: anything that JSON has, with tuples for lists.
Name = tuple[Any, ...]


class _Tallies:
    """What has changed since it was told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._added: dict[Name, list[float]] = {}
        self._set: dict[Name, list[float]] = {}
        self._timer: threading.Timer | None = None

    def add(self, name: Name, size: int, changes: Iterable[tuple[int, float]]) -> None:
        with self._lock:
            numbers = self._added.get(name)
            if numbers is None:
                if len(self._added) >= MAX_NAMES:
                    return
                numbers = self._added[name] = [0.0] * size
            for place, by in changes:
                numbers[place] += by
            self._tell_soon()

    def set(self, name: Name, number: float) -> None:
        with self._lock:
            if name in self._set or len(self._set) < MAX_NAMES:
                self._set[name] = [number]
                self._tell_soon()

    def _tell_soon(self) -> None:
        if self._timer is None:
            timer = threading.Timer(INTERVAL_S, self.tell)
            timer.daemon = True
            # The end of the interpreter tells.
            with contextlib.suppress(RuntimeError):
                timer.start()
                self._timer = timer

    def tell(self) -> None:
        # What a thread has told is told when another's turn has come.
        with self._telling:
            with self._lock:
                self._timer = None
                if _core.current() is None:
                    # Without a hub there is nobody to tell: whoever asks starts it.
                    return
                changes = {"add": self._added, "set": self._set}
                self._added, self._set = {}, {}
            for what, numbers in changes.items():
                if numbers:
                    # What a session counted whose hub is gone is gone with it.
                    with contextlib.suppress(Exception):
                        _system.ask({what: _as_text(numbers)})

    def end(self) -> None:
        timer = self._timer
        self.tell()
        if timer is not None:
            timer.cancel()


def _as_text(numbers: Mapping[Name, list[float]]) -> dict[str, list[str]]:
    return {json.dumps(name): [repr(number) for number in listed] for name, listed in numbers.items()}


_own = _Tallies()


def add(name: Name, size: int, changes: Iterable[tuple[int, float]]) -> None:
    """Adds to some of the `size` numbers of a name, each by its place."""
    _own.add(name, size, changes)


def set(name: Name, number: float) -> None:
    """Sets the one number of a name."""
    _own.set(name, number)


def tell() -> None:
    """Tells the hub now what has changed."""
    _own.tell()


def end() -> None:
    """Tells it, as the session ends: the next one begins with nothing."""
    global _own
    ended, _own = _own, _Tallies()
    ended.end()


def totals() -> list[tuple[Any, list[float]]]:
    """What this process has counted, and all others that have told; nothing without a session."""
    if not _core.is_started() and _core.current() is None:
        return []
    _runtime.start()
    tell()
    return [(json.loads(name), [float(number) for number in numbers]) for name, numbers in _system.ask("tallies").items()]


def _forked() -> None:
    global _own
    _own = _Tallies()


os.register_at_fork(after_in_child=_forked)
