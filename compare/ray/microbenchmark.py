"""Ray's microbenchmark, on Ray and on pydmrpc, in turns and in one run.

The rows have the names that Ray's own benchmark gives them. Each system runs all rows in a process of its own, again and again in
turns (A B A B); a figure is the median over the turns of a row's rate. Besides: from `init` to the first result, and the memory
of an idle worker.

    python microbenchmark.py --ray-python ../../.venv-ray/bin/python --quick
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parent

#: Seconds that a row is measured for in a turn, after it ran for a third of that to warm up.
SECONDS, QUICK_SECONDS = 2.0, 0.3
TURNS, QUICK_TURNS = 3, 1
#: Processors that both systems are told of: as many as Ray's own benchmark has clients, or less where there are fewer.
CLIENTS = min(4, max(2, os.cpu_count() or 2))
#: Calls that a row of calls makes ahead.
BATCH = 1000


@dataclass(frozen=True)
class Row:
    """A row: what it is called, and what of it is to be reached beside Ray."""

    name: str
    unit: str
    #: At least this many times Ray's rate; None where nothing is promised.
    target: float | None = None


ROWS = [
    Row("single client get calls (Plasma Store)", "1/s", 50),
    Row("single client put calls (Plasma Store)", "1/s", 50),
    Row("multi client put calls (Plasma Store)", "1/s"),
    Row("single client put gigabytes", "GB/s"),
    Row("multi client put gigabytes", "GB/s"),
    Row("single client tasks and get batch", "1/s"),
    Row("single client get object containing 10k refs", "1/s"),
    Row("single client wait 1k refs", "1/s"),
    Row("single client tasks sync", "1/s", 20),
    Row("single client tasks async", "1/s", 100),
    Row("multi client tasks async", "1/s", 100),
    Row("1:1 actor calls sync", "1/s", 20),
    Row("1:1 actor calls async", "1/s", 100),
    Row("1:1 actor calls concurrent", "1/s", 100),
    Row("1:n actor calls async", "1/s", 100),
    Row("n:n actor calls async", "1/s", 100),
    Row("n:n actor calls with arg async", "1/s", 100),
    Row("1:1 async-actor calls sync", "1/s", 20),
    Row("1:1 async-actor calls async", "1/s", 100),
    Row("1:1 async-actor calls with args async", "1/s", 100),
    Row("1:n async-actor calls async", "1/s", 100),
    Row("n:n async-actor calls async", "1/s", 100),
    Row("placement group create/removal", "1/s"),
    Row("init to first result", "s", 20),
    Row("idle worker memory", "MiB", 3),
]

#: Bytes of the arrays whose `put` is compared with a copy of them, by name.
PUTS = {"put of 1 MiB": 1 << 20, "put of 16 MiB": 16 << 20, "put of 256 MiB": 256 << 20}
#: What is to be reached of a copy's bandwidth.
PUT_TARGET = 0.9
#: An array of so many bytes is put, and the memory that all processes use together is watched.
PEAK, PEAK_BYTES = "peak of a put of 1 GiB", 1 << 30


def rows_of(ray: Any) -> Iterator[tuple[str, Callable[[], Any], float]]:
    """For each row what is to be repeated, and how many operations (or gigabytes) that is."""

    @ray.remote
    def small_value():
        return b"ok"

    @ray.remote
    def small_value_batch(n):
        ray.get([small_value.remote() for _ in range(n)])

    @ray.remote
    def put_small():
        for _ in range(100):
            ray.put(0)

    @ray.remote
    def put_large():
        for _ in range(10):
            ray.put(np.zeros(10 * 1024 * 1024, dtype=np.int64))

    @ray.remote(num_cpus=0)
    class Actor:
        def small_value(self):
            return b"ok"

        def small_value_arg(self, x):
            return b"ok"

        def small_value_batch(self, n):
            ray.get([small_value.remote() for _ in range(n)])

    @ray.remote(num_cpus=0)
    class AsyncActor:
        async def small_value(self):
            return b"ok"

        async def small_value_with_arg(self, x):
            return b"ok"

    @ray.remote(num_cpus=0)
    class Client:
        def __init__(self, servers):
            self.servers = servers if isinstance(servers, list) else [servers]

        def small_value_batch(self, n):
            ray.get([server.small_value.remote() for server in self.servers for _ in range(n)])

        def small_value_batch_arg(self, n):
            x = ray.put(0)
            ray.get([server.small_value_arg.remote(x) for server in self.servers for _ in range(n)])

    @ray.remote
    def objects_containing_refs():
        return [ray.put(1) for _ in range(10_000)]

    @ray.remote
    def client_of(servers, n):
        ray.get([servers[i % len(servers)].small_value.remote() for i in range(n)])

    stored = ray.put(0)
    yield "single client get calls (Plasma Store)", lambda: ray.get(stored), 1
    yield "single client put calls (Plasma Store)", lambda: ray.put(0), 1
    yield (
        "multi client put calls (Plasma Store)",
        lambda: ray.get([put_small.remote() for _ in range(10)]),
        1000,
    )
    array = np.zeros(100 * 1024 * 1024, dtype=np.int64)
    yield "single client put gigabytes", lambda: ray.put(array), array.nbytes / 1e9
    del array
    yield (
        "multi client put gigabytes",
        lambda: ray.get([put_large.remote() for _ in range(10)]),
        10 * 10 * 8 * 1024 * 1024 * 10 / 1e9,
    )
    yield (
        "single client tasks and get batch",
        lambda: ray.get([small_value.remote() for _ in range(1000)]) and None,
        1,
    )
    container = objects_containing_refs.remote()
    yield (
        "single client get object containing 10k refs",
        lambda: ray.get(container) and None,
        1,
    )
    del container

    def wait_1k():
        pending = [small_value.remote() for _ in range(1000)]
        while pending:
            _, pending = ray.wait(pending)

    yield "single client wait 1k refs", wait_1k, 1
    yield "single client tasks sync", lambda: ray.get(small_value.remote()), 1
    yield (
        "single client tasks async",
        lambda: ray.get([small_value.remote() for _ in range(BATCH)]) and None,
        BATCH,
    )
    actors = [Actor.remote() for _ in range(CLIENTS)]
    yield (
        "multi client tasks async",
        lambda: ray.get([a.small_value_batch.remote(BATCH) for a in actors]),
        BATCH * CLIENTS,
    )
    del actors
    one = Actor.remote()
    yield "1:1 actor calls sync", lambda: ray.get(one.small_value.remote()), 1
    yield (
        "1:1 actor calls async",
        lambda: ray.get([one.small_value.remote() for _ in range(BATCH)]) and None,
        BATCH,
    )
    threaded = Actor.options(max_concurrency=16).remote()
    yield (
        "1:1 actor calls concurrent",
        lambda: ray.get([threaded.small_value.remote() for _ in range(BATCH)]) and None,
        BATCH,
    )
    del one, threaded
    servers = [Actor.remote() for _ in range(CLIENTS)]
    client = Client.remote(servers)
    yield (
        "1:n actor calls async",
        lambda: ray.get(client.small_value_batch.remote(BATCH)),
        BATCH * CLIENTS,
    )
    yield (
        "n:n actor calls async",
        lambda: ray.get([client_of.remote(servers, BATCH) for _ in range(CLIENTS)]),
        BATCH * CLIENTS,
    )
    clients = [Client.remote(server) for server in servers]
    yield (
        "n:n actor calls with arg async",
        lambda: ray.get([c.small_value_batch_arg.remote(BATCH) for c in clients]),
        BATCH * CLIENTS,
    )
    del client, clients, servers
    asynchronous = AsyncActor.remote()
    yield (
        "1:1 async-actor calls sync",
        lambda: ray.get(asynchronous.small_value.remote()),
        1,
    )
    yield (
        "1:1 async-actor calls async",
        lambda: ray.get([asynchronous.small_value.remote() for _ in range(BATCH)]) and None,
        BATCH,
    )
    yield (
        "1:1 async-actor calls with args async",
        lambda: ray.get([asynchronous.small_value_with_arg.remote(i) for i in range(BATCH)]) and None,
        BATCH,
    )
    del asynchronous
    servers = [AsyncActor.remote() for _ in range(CLIENTS)]
    client = Client.remote(servers)
    yield (
        "1:n async-actor calls async",
        lambda: ray.get(client.small_value_batch.remote(BATCH)),
        BATCH * CLIENTS,
    )
    yield (
        "n:n async-actor calls async",
        lambda: ray.get([client_of.remote(servers, BATCH) for _ in range(CLIENTS)]),
        BATCH * CLIENTS,
    )
    del client, servers

    util = importlib.import_module(f"{ray.__name__}.util")

    def placement_group():
        group = util.placement_group([{"CPU": 1}])
        group.wait(30)
        util.remove_placement_group(group)

    yield "placement group create/removal", placement_group, 1


def put_bandwidth(ray: Any, size: int, seconds: float) -> tuple[float, float]:
    """GB/s of `put` of an array, and of a copy of it into memory that was written before, in turns."""
    array = np.random.default_rng(1).integers(0, 255, size, dtype=np.uint8)
    target = np.ones_like(array)
    puts: list[float] = []
    copies: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(puts) < 5:
        started = time.perf_counter()
        ref = ray.put(array)
        between = time.perf_counter()
        np.copyto(target, array)
        puts.append(between - started)
        copies.append(time.perf_counter() - between)
        del ref
    return size / statistics.median(puts) / 1e9, size / statistics.median(copies) / 1e9


def put_peak(ray: Any) -> float:
    """GiB that all processes of the session use more than before while a GiB is put, at the most."""
    array = np.ones(PEAK_BYTES, np.uint8)
    # What a first call starts and loads is not what is asked for.
    ray.put(array[:1])
    watching, peak = threading.Event(), [0.0]

    def watch() -> None:
        while not watching.is_set():
            peak[0] = max(peak[0], _family_gib())

    before = _family_gib()
    watcher = threading.Thread(target=watch)
    watcher.start()
    ref = ray.put(array)
    peak[0] = max(peak[0], _family_gib())
    watching.set()
    watcher.join()
    del ref
    return peak[0] - before


def _family_gib() -> float:
    """Memory of this process and all below it, what they share counted once."""
    total, queue = 0.0, [os.getpid()]
    while queue:
        pid = queue.pop()
        try:
            total += _private_mib(pid)
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                queue += map(int, task.read_text().split())
        except (OSError, LookupError):
            # It has just ended.
            continue
    return total / 1024


def rate(repeat: Callable[[], Any], amount: float, seconds: float) -> float:
    """Operations a second, once it ran for a while."""
    end = time.perf_counter() + seconds / 3
    repeat()
    while time.perf_counter() < end:
        repeat()
    count, started = 0, time.perf_counter()
    while True:
        repeat()
        count += 1
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return count * amount / elapsed


def measure(system: str, seconds: float, pattern: str) -> dict[str, float | str]:
    """All rows of a system, in this process."""
    started = time.perf_counter()
    ray = importlib.import_module(system)
    options = {"num_cpus": CLIENTS, "log_to_driver": False}
    if system == "ray":
        options |= {"include_dashboard": False, "logging_level": "ERROR"}
    imported = time.perf_counter()
    ray.init(**options)

    @ray.remote
    def first():
        return os.getpid()

    pid = ray.get(first.remote())
    figures: dict[str, float | str] = {
        "init to first result": time.perf_counter() - imported,
        "import": imported - started,
        "idle worker memory": _private_mib(pid),
    }
    if pattern in PEAK:
        # First, while no memory is there that could be used again.
        figures[PEAK] = put_peak(ray)
        print(f"  {system}: {PEAK}: {figures[PEAK]:.2f} GiB", file=sys.stderr)
    for name, repeat, amount in rows_of(ray):
        if pattern in name:
            try:
                figures[name] = rate(repeat, amount, seconds)
            except Exception as error:
                figures[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            print(f"  {system}: {name}: {figures[name]}", file=sys.stderr)
        gc.collect()
    for name, size in PUTS.items():
        if pattern in name:
            figures[name], figures[f"{name}, copied"] = put_bandwidth(ray, size, seconds)
            print(f"  {system}: {name}: {figures[name]:.2f} GB/s, copied {figures[f'{name}, copied']:.2f}", file=sys.stderr)
            gc.collect()
    ray.shutdown()
    return figures


def _private_mib(pid: int) -> float:
    """What a process has of memory: its own, and its share of what it has in common with others."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"/proc/{pid}/smaps_rollup has no Pss")


def turn(system: str, python: str, seconds: float, pattern: str) -> dict[str, Any]:
    """A turn of a system, in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [
            python,
            __file__,
            "--measure",
            system,
            "--seconds",
            str(seconds),
            "-k",
            pattern,
            "--json",
            out.name,
        ]
        subprocess.run(
            command,
            check=True,
            env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
            stdout=subprocess.DEVNULL,
        )
        return json.loads(pathlib.Path(out.name).read_text())


def table(turns: dict[str, list[dict[str, Any]]]) -> str:
    """The figures of both in Markdown."""
    lines = [
        "| | | Ray | pydmrpc | ratio | target | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in ROWS:
        theirs, ours = (_figures(turns[system], row.name) for system in ("ray", "pydmrpc"))
        if not theirs and not ours:
            continue
        ratio = None
        if theirs and ours:
            ratio = statistics.median(ours) / statistics.median(theirs)
            # Of these less is better.
            ratio = 1 / ratio if row.unit in ("s", "MiB") else ratio
        verdict = "" if ratio is None or row.target is None else "✓" if ratio >= row.target else "✗"
        target = f"≥ {row.target:g}×" if row.target else ""
        cells = [
            row.name,
            row.unit,
            _cell(theirs),
            _cell(ours),
            f"{ratio:.1f}×" if ratio else "",
            target,
            verdict,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def put_table(turns: dict[str, list[dict[str, Any]]]) -> str:
    """What `put` of large arrays does, beside a copy of them, in Markdown."""
    lines = [
        "| | | Ray | of a copy | pydmrpc | of a copy | target | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in PUTS:
        cells, verdict = [name, "GB/s"], ""
        for system in ("ray", "pydmrpc"):
            puts, copies = (_figures(turns[system], key) for key in (name, f"{name}, copied"))
            share = statistics.median([put / copy for put, copy in zip(puts, copies)]) if puts else None
            cells += [_cell(puts), "" if share is None else f"{share:.0%}"]
            verdict = "" if share is None else "✓" if share >= PUT_TARGET else "✗"
        lines.append("| " + " | ".join([*cells, f"≥ {PUT_TARGET:.0%}", verdict]) + " |")
    peaks = [_figures(turns[system], PEAK) for system in ("ray", "pydmrpc")]
    if any(peaks):
        verdict = "✓" if peaks[1] and max(peaks[1]) < 1.1 else "✗"
        lines.append(f"| {PEAK}, over the array | GiB | {_cell(peaks[0])} | | {_cell(peaks[1])} | | 1 | {verdict} |")
    return "\n".join(lines) + "\n"


def _page(text: str, turns: int, seconds: float) -> str:
    """The table with what it is."""
    return (
        "# Ray's microbenchmark\n\n"
        "The rows of Ray's own microbenchmark and two more, on Ray and on pydmrpc (as `make compare-ray` builds it, for release), each system in\n"
        "a process of its own, in turns in one run: that command writes this page. Figures are medians, with the least and the most where there\n"
        "were several turns. Rows by themselves: `make compare-ray COMPARE_ARGS='-k async'`, which prints them and leaves the page as it is.\n"
        f"This run: {turns} turn{'s' * (turns != 1)} of {seconds:g} s a row, {os.cpu_count()} processors, load {os.getloadavg()[1]:.0f}"
        " while it ran.\n\n" + text
    )


def _figures(turns: list[dict[str, Any]], name: str) -> list[float]:
    return [turn[name] for turn in turns if isinstance(turn.get(name), (int, float))]


def _cell(figures: list[float]) -> str:
    if not figures:
        return "–"
    middle = statistics.median(figures)
    spread = f" ({_number(min(figures))}–{_number(max(figures))})" if len(figures) > 1 else ""
    return _number(middle) + spread


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ray-python",
        help="the interpreter that has Ray; without it pydmrpc runs alone",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one short turn of each: to see that it runs",
    )
    parser.add_argument("--turns", type=int)
    parser.add_argument("--seconds", type=float, help="for each row in each turn")
    parser.add_argument("-k", dest="pattern", default="", help="only rows whose name contains this")
    parser.add_argument("--json", type=pathlib.Path, help="where to write all figures")
    parser.add_argument("--markdown", type=pathlib.Path, help="where to write the table")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    if options.measure:
        options.json.write_text(json.dumps(measure(options.measure, seconds, options.pattern)))
        return
    turns: dict[str, list[dict[str, Any]]] = {"ray": [], "pydmrpc": []}
    for _ in range(options.turns or (QUICK_TURNS if options.quick else TURNS)):
        if options.ray_python:
            turns["ray"].append(turn("ray", options.ray_python, seconds, options.pattern))
        turns["pydmrpc"].append(turn("pydmrpc", sys.executable, seconds, options.pattern))
    text = table(turns) + "\nLarge arrays, beside `numpy.copyto` in the same process and turn:\n\n" + put_table(turns)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(turns, indent=1))
    if options.markdown and not options.pattern:
        options.markdown.write_text(_page(text, len(turns["pydmrpc"]), seconds))


if __name__ == "__main__":
    main()
