"""Runs, records, checks and tabulates: ``python -m conformance --help`` in `compare/ray`."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from typing import Any

from conformance import run, table
from conformance.case import Case, load
from conformance.differences import DIFFERENCES

RECORDED = run.FOLDER / "recorded" / "ray.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    ran = commands.add_parser("run", help="run cases on one system and print their outcomes")
    ran.add_argument("system", choices=["ray", "pydmrpc"])
    recorded = commands.add_parser("record", help="run cases on Ray and record their outcomes")
    recorded.add_argument("--missing", action="store_true", help="only those that are not recorded")
    recorded.add_argument(
        "--times",
        type=int,
        default=2,
        help="how often to run each: one that does not end alike is not recorded",
    )
    checked = commands.add_parser("check", help="run cases on pydmrpc and compare with what is recorded of Ray")
    tabled = commands.add_parser("table", help="run cases on both and write the pass table")
    tabled.add_argument("--ray-python", help="the interpreter that has Ray; without it what is recorded of Ray is taken")
    tabled.add_argument("--output", type=pathlib.Path, required=True)
    for command in (ran, recorded, checked, tabled):
        command.add_argument(
            "-k",
            dest="pattern",
            default="",
            help="only cases whose name or topic contains this",
        )
    options = parser.parse_args()
    cases = [case for case in load().values() if options.pattern in case.name or options.pattern in case.topic]
    if options.command == "run":
        for case, done, seconds in run.on(options.system, sys.executable, cases):
            print(f"{seconds:7.2f} s  {case.name}: {json.dumps(done)}", flush=True)
        return 0
    if options.command == "record":
        return _record(cases, options.times, missing=options.missing)
    if options.command == "check":
        return _check(cases, json.loads(RECORDED.read_text()))
    theirs = _outcomes("ray", options.ray_python, cases) if options.ray_python else json.loads(RECORDED.read_text())
    ours = _outcomes("pydmrpc", sys.executable, cases)
    options.output.write_text(table.of(cases, theirs, ours, DIFFERENCES))
    return 0


def _outcomes(system: str, python: str, cases: list[Case]) -> dict[str, Any]:
    outcomes = {}
    for case, done, seconds in run.on(system, python, cases):
        outcomes[case.name] = done
        print(
            f"{system}: {len(outcomes)}/{len(cases)} {seconds:6.2f} s {case.name}",
            file=sys.stderr,
        )
    return outcomes


def _record(cases: list[Case], times: int, *, missing: bool) -> int:
    """Records what came alike each time; what did not is a case to be mended."""
    known = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    if missing:
        cases = [case for case in cases if case.name not in known]
    runs = [_outcomes("ray", sys.executable, cases) for _ in range(times)]
    unstable = 0
    for case in cases:
        seen = [outcomes[case.name] for outcomes in runs]
        if all(outcome == seen[0] for outcome in seen):
            known[case.name] = seen[0]
        else:
            unstable += 1
            print(f"unstable: {case.name}: {json.dumps(seen)}")
    RECORDED.parent.mkdir(exist_ok=True)
    names = [name for name in load() if name in known]
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(known[name])}" for name in names)
    RECORDED.write_text("{\n" + lines + "\n}\n")
    return bool(unstable)


def _check(cases: list[Case], recorded: dict[str, Any]) -> int:
    ours = _outcomes("pydmrpc", sys.executable, cases)
    wrong = 0
    for case in cases:
        alike = ours[case.name] == recorded.get(case.name)
        if alike and case.name in DIFFERENCES:
            print(f"{case.name} is like Ray, and listed as different")
        elif not alike and case.name not in DIFFERENCES:
            print(f"{case.name}: {json.dumps(ours[case.name])}, Ray: {json.dumps(recorded.get(case.name))}")
        else:
            continue
        wrong += 1
    print(f"{len(cases) - wrong} passed, {wrong} failed")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
