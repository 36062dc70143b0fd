"""Runs cases on a system: most in one process and session, the rest each in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from conformance import outcome
from conformance.case import SHARED, Case, load

FOLDER = pathlib.Path(__file__).resolve().parent
#: Seconds that the start of a session may take, on top of what its first case may.
START_S = 90.0
_SET_CHILD_SUBREAPER = 36
#: A host of its own for what must not see this one: processes, network, temporary files.
_SECLUDED = [
    *(
        "unshare",
        "--pid",
        "--net",
        "--mount",
        "--fork",
        "--mount-proc",
        "--kill-child",
        "sh",
        "-c",
    ),
    *('mount -t tmpfs tmpfs /tmp && ip link set lo up && exec "$@"', "sh"),
]


def on(system: str, python: str, cases: Iterable[Case]) -> Iterator[tuple[Case, dict[str, Any], float]]:
    """Runs cases on a system with the interpreter that has it; gives each with its outcome and seconds, in order."""
    # What a process leaves behind when it is killed becomes a child of this one, and is found.
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    cases = list(cases)
    shared = [case for case in cases if not case.alone]
    while shared:
        with _Process(system, python, shared=True) as process:
            while shared:
                case = shared.pop(0)
                done, seconds, whole = process.run(case)
                yield case, done, seconds
                if not whole:
                    break
    for case in cases:
        if case.alone:
            # Ray's command line ends all of Ray that it finds on a host.
            secluded = system == "ray" and case.topic == "command line"
            with _Process(system, python, shared=False, secluded=secluded) as process:
                done, seconds, _ = process.run(case)
                yield case, done, seconds


class _Process:
    """A process that runs the cases it is told, one after another."""

    def __init__(self, system: str, python: str, *, shared: bool, secluded: bool = False) -> None:
        report, child_report = os.pipe()
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(FOLDER.parent), os.environ.get("PYTHONPATH")])),
            "RAY_DEDUP_LOGS": "1",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONWARNINGS": "ignore",
        }
        # A shell that runs things in the background has them ignore it, and their children too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        command = [
            python,
            "-m",
            "conformance.run",
            system,
            "shared" if shared else "alone",
            str(child_report),
        ]
        self._process = subprocess.Popen(
            [*_SECLUDED, *command] if secluded else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL if "CONFORMANCE_VERBOSE" not in os.environ else sys.stderr,
            stderr=subprocess.DEVNULL if "CONFORMANCE_VERBOSE" not in os.environ else sys.stderr,
            pass_fds=[child_report],
            env=environment,
            text=True,
            start_new_session=True,
        )
        os.close(child_report)
        self._report = os.fdopen(report, "rb", buffering=0)
        self._rest = b""
        self._grace_s = START_S

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(20)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            pass
        self._kill()
        self._report.close()

    def run(self, case: Case) -> tuple[dict[str, Any], float, bool]:
        """The outcome of a case, its seconds, and whether the process goes on."""
        started = time.monotonic()
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(case.name + "\n")
            self._process.stdin.flush()
            line = self._line(started + case.deadline_s + self._grace_s)
        except BrokenPipeError:
            line = b""
        self._grace_s = 0.0
        seconds = time.monotonic() - started
        if line is None:
            self._kill()
            return outcome.HANG, seconds, False
        if not line:
            return outcome.CRASH, seconds, False
        done = json.loads(line)
        return done["outcome"], done["seconds"], True

    def _line(self, deadline: float) -> bytes | None:
        """The next line of the report: empty at its end, None if it does not come."""
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._report], [], [], left)[0]:
                return None
            more = self._report.read(65536)
            if not more:
                return b""
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _kill(self) -> None:
        """Ends the process and all that came of it."""
        while pids := _descendants(os.getpid()):
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                break
            time.sleep(0.01)
        # The status went to whoever waited first.
        self._process.poll()


def _descendants(of: int) -> list[int]:
    """Processes that come of one, by their parents."""
    children: dict[int, list[int]] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    queue = [of]
    while queue:
        for child in children.get(queue.pop(), []):
            found.append(child)
            queue.append(child)
    return found


def _main(name: str, mode: str, report_descriptor: int) -> None:
    """What the process does that runs cases."""
    os.set_inheritable(report_descriptor, False)
    report = os.fdopen(report_descriptor, "w", buffering=1)
    system = importlib.import_module(name)
    cases = load()
    if mode == "shared":
        options = dict(SHARED)
        if name == "ray":
            options |= {"include_dashboard": False, "logging_level": "ERROR"}
        system.init(**options)
    for line in sys.stdin:
        case = cases[line.strip()]
        started = time.monotonic()
        try:
            done = outcome.of_value(case.function(system), name)
        except BaseException as error:
            if "CONFORMANCE_VERBOSE" in os.environ:
                sys.excepthook(type(error), error, error.__traceback__)
            done = outcome.of_error(error)
        seconds = time.monotonic() - started
        gc.collect()
        report.write(json.dumps({"outcome": done, "seconds": seconds}) + "\n")
    system.shutdown()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
