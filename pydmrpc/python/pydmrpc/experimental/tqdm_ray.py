"""Progress bars of tasks and actors: workers print their state, the driver's terminal shows them.

A bar of a worker is a line that is printed at most twice a second and comes to the driver like anything that workers print; the
bar of a driver is drawn in place where the output is a terminal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TextIO

#: Seconds between two states that are shown of a bar.
_INTERVAL_S = 0.5
_WIDTH = 24


class tqdm:
    """A progress bar with the common part of the interface of `tqdm.tqdm`.

    Args:
        iterable: what is iterated over, if the bar wraps something.
        desc: what is shown in front.
        total: how much there is to do; of `iterable` by default.
        unit: what is counted.
        position: not used: each bar is a line of its own.
        flush_interval_s: seconds between two states that are shown.

    Example::

        @pydmrpc.remote
        def work(items):
            for item in tqdm(items, desc="work"):
                ...
    """

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        desc: str | None = None,
        total: int | None = None,
        unit: str | None = None,
        position: int | None = None,
        flush_interval_s: float = _INTERVAL_S,
    ) -> None:
        if total is None and iterable is not None and isinstance(iterable, Sized):
            total = len(iterable)
        self._iterable = iterable
        self._description = desc or ""
        self._total = total
        self._unit = unit or "it"
        self._done = 0
        self._interval_s = flush_interval_s
        self._started = time.monotonic()
        self._shown = 0.0
        self._closed = False

    def __iter__(self) -> Iterator[Any]:
        if self._iterable is None:
            raise ValueError("the bar wraps nothing: give it an iterable")
        for item in self._iterable:
            yield item
            self.update(1)
        self.close()

    def __enter__(self) -> tqdm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def n(self) -> int:
        """How much is done."""
        return self._done

    def set_description(self, desc: str) -> None:
        """Changes what is shown in front."""
        self._description = desc
        self._show()

    def update(self, n: int = 1) -> None:
        """So much more is done."""
        self._done += n
        if time.monotonic() - self._shown >= self._interval_s:
            self._show()

    def refresh(self) -> None:
        """Shows its state now."""
        self._show()

    def close(self) -> None:
        """Shows it for the last time."""
        if not self._closed:
            self._show()
            self._closed = True
            if sys.stderr.isatty():
                sys.stderr.write("\n")

    def _show(self) -> None:
        self._shown = time.monotonic()
        seconds = self._shown - self._started
        rate = f"{self._done / seconds:.1f}" if seconds > 0 else "?"
        line = f"{self._done} {self._unit}, {rate} {self._unit}/s"
        if self._total:
            share = min(1.0, self._done / self._total)
            filled = round(_WIDTH * share)
            line = f"{share:4.0%}|{'█' * filled}{' ' * (_WIDTH - filled)}| {self._done}/{self._total}, {rate} {self._unit}/s"
        text = f"{self._description}: {line}" if self._description else line
        safe_print(f"\r\x1b[K{text}" if sys.stderr.isatty() else text, file=sys.stderr, end="" if sys.stderr.isatty() else "\n")


def safe_print(*values: Any, sep: str = " ", end: str = "\n", file: TextIO | None = None) -> None:
    """Prints at once, in one piece, so that a bar is not cut in two."""
    stream = file or sys.stdout
    stream.write(sep.join(map(str, values)) + end)
    stream.flush()
