"""The command ``dmrpc``: a system that outlives programs, and what goes on in it."""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from pydmrpc import _head

#: Seconds that the start of a system may take, and its end.
_START_S, _STOP_S = 30.0, 10.0
#: Seconds between two pictures of ``dmrpc top``.
_TOP_S = 2.0
#: Seconds that processes may take to say what they hold.
_ANSWER_S = 5.0

_LISTS = ("actors", "tasks", "objects", "workers", "nodes", "jobs", "placement-groups")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives its exit code."""
    parser = argparse.ArgumentParser(prog="dmrpc", description="A system of tasks and actors on this host.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    start = commands.add_parser("start", help="start a system that programs join by init(address='auto')")
    start.add_argument("--head", action="store_true", help="not needed: there is one host")
    start.add_argument("--num-cpus", type=float, help="processors that tasks occupy together")
    start.add_argument("--num-gpus", type=float, help="accelerators, as a number")
    start.add_argument("--resources", type=json.loads, help="whatever else is counted, as JSON")
    start.add_argument("--object-store-memory", type=int, help="bytes of the object store")
    start.add_argument("--metrics-export-port", type=int, help="port of this host where Prometheus finds the programs' metrics")
    start.add_argument("--block", action="store_true", help="stay in the foreground until it ends")
    stop = commands.add_parser("stop", help="end the system, and all that runs in it")
    stop.add_argument("-f", "--force", action="store_true", help="without waiting for its end")
    commands.add_parser("status", help="what there is and what is occupied")
    commands.add_parser("memory", help="who holds what")
    commands.add_parser("metrics", help="what programs count, in Prometheus's text format")
    listing = commands.add_parser("list", help="list what there is")
    listing.add_argument("what", choices=_LISTS)
    listing.add_argument("--filter", action="append", default=[], metavar="COLUMN=VALUE", help="only rows with that")
    listing.add_argument("--limit", type=int, default=100, help="rows at most")
    listing.add_argument("--format", choices=("table", "json"), default="table")
    top = commands.add_parser("top", help="what runs, again and again")
    top.add_argument("--once", action="store_true", help="show it once")
    options = parser.parse_args(arguments)
    try:
        return int(_COMMANDS[options.command](options) or 0)
    except (ConnectionError, PermissionError) as error:
        print(f"dmrpc: {error}", file=sys.stderr)
        return 1
    except (BrokenPipeError, KeyboardInterrupt):
        return 130


def _start(options: argparse.Namespace) -> int:
    if _head.running():
        print("dmrpc: a system runs already: dmrpc stop ends it", file=sys.stderr)
        return 1
    wanted = {
        "num_cpus": options.num_cpus,
        "num_gpus": options.num_gpus,
        "resources": options.resources,
        "object_store_memory": options.object_store_memory,
        "_metrics_export_port": options.metrics_export_port,
    }
    log = open(_head.folder() / "head.log", "ab")
    ready, its_end = os.pipe()
    command = [sys.executable, "-m", "pydmrpc._head", "--options", json.dumps(wanted), "--ready", str(its_end)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[its_end], start_new_session=True, cwd="/"
    )
    os.close(its_end)
    about = os.read(ready, 65536) if select.select([ready], [], [], _START_S)[0] else b""
    if not about:
        process.kill()
        print(f"dmrpc: the system did not start; {log.name} says why", file=sys.stderr)
        return 1
    print("The system runs. Programs join it by pydmrpc.init(address='auto'); dmrpc stop ends it.")
    if options.block:
        try:
            process.wait()
        except KeyboardInterrupt:
            _stop(argparse.Namespace(force=False))
    return 0


def _stop(options: argparse.Namespace) -> int:
    about = _head.running()
    if about is None:
        print("No system runs.")
        return 0
    process = os.pidfd_open(about["pid"])
    signal.pidfd_send_signal(process, signal.SIGTERM)
    if not select.select([process], [], [], 1.0 if options.force else _STOP_S)[0]:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        select.select([process], [], [], _STOP_S)
        (_head.folder() / "head.json").unlink(missing_ok=True)
    print("The system has ended.")
    return 0


def _join() -> Any:
    """The package, joined to the system that runs.

    Raises:
        ConnectionError: if none does.
    """
    import pydmrpc

    pydmrpc.init(address="auto", log_to_driver=False)
    return pydmrpc


def _status(_: argparse.Namespace) -> int:
    dmrpc = _join()
    total, free = dmrpc.cluster_resources(), dmrpc.available_resources()
    print("Occupied")
    for name, amount in sorted(total.items()):
        if name.endswith("memory"):
            continue
        print(f"  {amount - free.get(name, 0):g}/{amount:g} {name}")
    memory = dmrpc.memory()
    print(f"  {_size(memory.used + memory.leased)}/{_size(memory.pool)} object store, {memory.objects} objects")
    from pydmrpc.util import state

    for what, rows in (("actors", state.list_actors(limit=None)), ("tasks", state.list_tasks(limit=None))):
        counts: dict[str, int] = {}
        for row in rows:
            counts[row.state] = counts.get(row.state, 0) + 1
        print(f"{what.capitalize()}: " + (", ".join(f"{count} {state_}" for state_, count in sorted(counts.items())) or "none"))
    return 0


def _memory(_: argparse.Namespace) -> int:
    dmrpc = _join()
    from pydmrpc.util import state

    runs = {row.pid: row.runs for row in state.list_workers(limit=None)}
    rows = sorted(state.list_objects(limit=None, timeout=_ANSWER_S), key=lambda row: -row.object_size)
    _table(
        [
            {
                "object": row.object_id,
                "bytes": row.object_size,
                "kind": row.kind,
                "state": row.task_status,
                "held by": _holder(row, runs),
                "since": row.call_site,
            }
            for row in rows
            if row.pid != os.getpid()
        ]
    )
    memory = dmrpc.memory()
    print(f"\n{memory.objects} objects of the store: {_size(memory.used)} used, {_size(memory.logical)} if nothing was shared,")
    print(f"{_size(memory.leased)} ready for objects to come, of {_size(memory.pool)};", end=" ")
    print(f"{memory.sessions} processes, {memory.holds} holds")
    return 0


def _holder(row: dict[str, Any], runs: dict[int, str | None]) -> str:
    """Who holds an object, for people."""
    if row["pid"] is None:
        return {"PICKLED": "a pickle"}.get(row["reference_type"], "values and tasks")
    return f"{runs.get(row['pid']) or row['type'].lower()} (pid {row['pid']})"


def _metrics(_: argparse.Namespace) -> int:
    _join()
    from pydmrpc.util import metrics

    print(metrics.text(), end="")
    return 0


def _list(options: argparse.Namespace) -> int:
    _join()
    from pydmrpc.util import state

    filters = []
    for text in options.filter:
        column, sign, value = text.partition("=")
        if not sign:
            print(f"dmrpc: {text!r} is no condition: COLUMN=VALUE is one", file=sys.stderr)
            return 2
        filters.append((column.removesuffix("!"), "!=" if column.endswith("!") else "=", value))
    rows = getattr(state, f"list_{options.what.replace('-', '_')}")(filters=filters, limit=options.limit)
    if options.format == "json":
        print(json.dumps(rows, indent=1, default=str))
    else:
        _table(rows)
    return 0


def _top(options: argparse.Namespace) -> int:
    _join()
    from pydmrpc.util import state

    while True:
        rows = []
        for row in state.list_workers(limit=None):
            usage = _usage(row.pid)
            rows.append(
                {"pid": row.pid, "runs": row.runs or "(idle)", "threads": usage[0], "memory": usage[1], "cpu s": usage[2]}
            )
        if not options.once:
            print("\x1b[H\x1b[2J", end="")
        _table(rows)
        if options.once:
            return 0
        time.sleep(_TOP_S)


def _usage(pid: int) -> tuple[str, str, str]:
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(") ")[2].split()
    except OSError:
        return "", "", ""
    ticks = os.sysconf("SC_CLK_TCK")
    return fields[17], _size(int(fields[21]) * os.sysconf("SC_PAGE_SIZE")), f"{(int(fields[11]) + int(fields[12])) / ticks:.1f}"


def _table(rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        print("none")
        return
    columns = [column for column in rows[0] if any(row.get(column) not in (None, "") for row in rows)]
    cells = [[str(column).upper() for column in columns]]
    cells += [["" if row.get(column) is None else str(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


_COMMANDS = {
    "start": _start,
    "stop": _stop,
    "status": _status,
    "memory": _memory,
    "metrics": _metrics,
    "list": _list,
    "top": _top,
}


if __name__ == "__main__":
    sys.exit(main())
