"""Cases, and what they are written with."""

from __future__ import annotations

import contextlib
import importlib
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

#: Seconds that a case may take at most, unless it says so itself: past them it hangs.
DEADLINE_S = 60.0

#: What the session is started with that cases share.
SHARED = {
    "num_cpus": 4,
    "resources": {"widget": 2.0},
    "namespace": "conformance",
    "log_to_driver": False,
}


@dataclass(frozen=True)
class Case:
    """One small program, and where it belongs."""

    name: str
    topic: str
    function: Callable[[Any], Any]
    #: Whether it runs in a process of its own that has no session yet.
    alone: bool
    deadline_s: float


CASES: dict[str, Case] = {}


def case(
    topic: str, *, alone: bool = False, deadline: float = DEADLINE_S
) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """Makes a function of the system's module a case of a topic."""

    def register(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        name = function.__name__
        if name in CASES:
            raise ValueError(f"two cases are named {name}")
        CASES[name] = Case(name, topic, function, alone, deadline)
        return function

    return register


def load() -> dict[str, Case]:
    """All cases, by name, topic after topic."""
    for topic in (
        "sessions",
        "objects",
        "waiting",
        "references",
        "cancelling",
        "cluster",
        "tasks",
        "generators",
        "actors",
        "concurrency",
        "lifetimes",
        "names",
        "errors",
        "utilities",
        "data",
        "surroundings",
        "patterns",
        "guides.tasks",
        "guides.actors",
        "guides.objects",
        "guides.generators",
        "guides.asynchronous",
        "guides.patterns",
    ):
        importlib.import_module(f"conformance.cases.{topic}")
    return CASES


def part(system: ModuleType, path: str) -> Any:
    """A module of the system, as ``part(ray, "util.queue")``."""
    return importlib.import_module(f"{system.__name__}.{path}")


def raised(function: Callable[..., Any], *arguments: Any, **options: Any) -> str | None:
    """The name of the type of what a call raises; None if it returns."""
    try:
        function(*arguments, **options)
    except BaseException as error:
        return type(error).__name__
    return None


def until(condition: Callable[[], Any], seconds: float = 30.0) -> bool:
    """Whether a condition comes to hold."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class Gate:
    """Something that tasks in any process wait for until somebody opens it. It works without the system under test."""

    def __init__(self, path: str) -> None:
        self.path = pathlib.Path(path)

    def open(self) -> None:
        self.path.touch()

    def is_open(self) -> bool:
        return self.path.exists()

    def wait(self, seconds: float = 30.0) -> bool:
        """Whether it was opened. When its case is over it counts as open."""
        return until(lambda: self.path.exists() or not self.path.parent.exists(), seconds)


class Tally:
    """A count that any process adds to, and that outlives the processes."""

    def __init__(self, path: str) -> None:
        self.path = pathlib.Path(path)

    def add(self) -> int:
        """Adds one and gives the count."""
        with self.path.open("ab") as file:
            file.write(b".")
        return self.count()

    def count(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0


@contextlib.contextmanager
def folder() -> Iterator[pathlib.Path]:
    """A folder for the time of a case."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as path:
        yield pathlib.Path(path)


@contextlib.contextmanager
def gate() -> Iterator[Gate]:
    """A gate that is opened at the end at the latest, so that nothing stays behind it."""
    with folder() as path:
        it = Gate(str(path / "gate"))
        try:
            yield it
        finally:
            it.open()


@contextlib.contextmanager
def tally() -> Iterator[Tally]:
    with folder() as path:
        yield Tally(str(path / "tally"))
