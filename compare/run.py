#!/usr/bin/env python3
"""Runs the same work on every system in turns, and checks that every system computed the same.

    compare/run.py                                          all parts, all systems: as long as it takes
    compare/run.py --quick                                  the same with fewer cases and shorter turns: minutes
    compare/run.py cow --systems pydmrpc,ray --sizes 32KiB --json out.json

What is compared, and how, is in docs/compare.md.
"""

import argparse
import json
import pathlib
import re
import signal
import statistics
import sys
import tempfile
import time

import machine
import parts
import tables
from contender import Contender, Failed
from tqdm import tqdm

# Turns of each system in a case, and how long one takes.
EFFORTS = {"smoke": (1, 0.05), "quick": (3, 0.25), "full": (7, 0.4)}

# What is kept of the latencies of a turn.
FIGURES = ("mean_us", "p50_us", "p90_us", "p99_us", "p999_us")

UNITS = {"": 1, "b": 1, "kib": parts.KIB, "mib": parts.MIB, "gib": parts.GIB}


def size(text):
    found = re.fullmatch(r"(\d+)\s*([a-z]*)", text.strip().lower())
    if not found or found[2] not in UNITS:
        raise argparse.ArgumentTypeError(f"{text} is no size, such as 4KiB")
    return int(found[1]) * UNITS[found[2]]


def options():
    names = [part.name for part in parts.all_parts("smoke")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"which parts: {', '.join(names)} (default: all)")
    parser.add_argument("--systems", type=lambda text: text.split(","), help="only systems whose names begin so")
    parser.add_argument("--sizes", type=lambda text: [size(part) for part in text.split(",")], help="only these sizes")
    parser.add_argument("--json", type=pathlib.Path, help="where the figures go (default: compare/report/results.json)")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", dest="effort", action="store_const", const="quick", help="fewer cases, shorter turns")
    effort.add_argument("--smoke", dest="effort", action="store_const", const="smoke", help="one short turn each: answers only")
    parser.add_argument("--binaries", type=pathlib.Path, default=parts.BINARIES, help="where the Rust programs are (default: target/release)")
    parser.add_argument("--mix", choices=parts.MIXES, default="deathstarbench", help="what the users of the social network do")
    parser.add_argument("--database", help="what its services keep their data in, such as redis://127.0.0.1/ (default: embedded redb)")
    parser.add_argument("--rounds", type=int, help="turns of each system in a case")
    parser.add_argument("--seconds", type=float, help="how long a turn takes")
    chosen = parser.parse_args()
    for name in chosen.parts:
        if name not in names:
            parser.error(f"there is no part {name}: {', '.join(names)}")
    chosen.effort = chosen.effort or "full"
    rounds, seconds = EFFORTS[chosen.effort]
    chosen.rounds, chosen.seconds = chosen.rounds or rounds, chosen.seconds or seconds
    chosen.json = chosen.json or parts.ROOT / "compare" / "report" / "results.json"
    return chosen


class LeftOut(list):
    """Systems that took no part, or stopped, and why."""

    def add(self, part, system, why):
        self.append(
            {"part": part.name, "system": system.name, "title": system.title, "ours": system.ours, "needs": system.needs, "why": why}
        )
        tqdm.write(f"{part.name}: {system.title} is left out: {why}", file=sys.stderr)


class Field:
    """The programs of a part that are up: systems that differ in their way alone share one."""

    def __init__(self, part, systems, folder, left_out):
        self.part, self.left_out = part, left_out
        self.programs, self.systems = {}, list(systems)
        # Operations a second in the last throughput case of a size, by size and system.
        self.peaks = {}
        self.folder = folder
        for system in [] if part.cold else systems:
            if system.command not in self.programs:
                try:
                    self.programs[system.command] = Contender(system.command, folder)
                except Failed as error:
                    self.programs[system.command] = error
            if isinstance(self.programs[system.command], Failed):
                self.drop(system, str(self.programs[system.command]))

    def turn(self, system, order, seconds):
        """What came of it, or None if the system is out of the race, with all that share its program."""
        try:
            if not self.part.cold:
                return self.programs[system.command].turn(system.way, order, seconds)
            program = Contender(system.command, self.folder)
            try:
                return program.turn(system.way, order, seconds)
            finally:
                program.close()
        except Failed as error:
            for other in [other for other in self.systems if other.command == system.command]:
                self.drop(other, str(error))
            return None

    def order(self, system, case):
        """What the system is told, with shares of rates as rates."""
        load = case.order.get("load", {})
        if "share" not in load:
            return case.order
        peak = self.peaks.get((case.size, load.get("of"))) or self.peaks.get((case.size, system.name)) or 1.0
        return case.order | {"load": {"per_second": peak * load["share"]}}

    def drop(self, system, why):
        self.systems.remove(system)
        self.left_out.add(self.part, system, why)

    def close(self):
        for program in self.programs.values():
            if isinstance(program, Contender):
                program.close()


def does(system, case):
    return system.does is None or system.does(case)


def summary(figures):
    ordered = sorted(figures)
    if len(ordered) < 3:
        low, high = ordered[0], ordered[-1]
    else:
        low, _, high = statistics.quantiles(ordered, n=4, method="inclusive")
    return {"median": statistics.median(ordered), "low": low, "high": high}


def measure(field, case, chosen, progress):
    """Every system in turns, A B then B A; a row of the report."""
    systems = [system for system in field.systems if does(system, case)]
    answers, turns = {}, {}
    for system in systems:
        if field.part.cold:
            turns[system.name] = []
            progress.update()
            continue
        # Once for the answer, and a short while to get warm.
        warm = field.turn(system, field.order(system, case), 0 if chosen.effort == "smoke" else chosen.seconds / 4)
        if warm:
            answers[system.name], turns[system.name] = warm["answer"], []
        progress.update()
    for round_ in range(chosen.rounds):
        for system in systems if round_ % 2 == 0 else reversed(systems):
            if system in field.systems and system.name in turns:
                turn = field.turn(system, field.order(system, case), chosen.seconds)
                if turn:
                    turns[system.name].append(turn)
                    answers[system.name] = turn["answer"]
            progress.update()
    rows = {}
    for name, of in turns.items():
        if len(of) < chosen.rounds:
            continue
        rows[name] = {
            "per_second": summary([turn["operations"] / turn["seconds"] for turn in of]),
            **{figure: summary([turn[figure] for turn in of]) for figure in FIGURES},
            "given_up": sum(turn["given_up"] for turn in of),
        }
        if case.figure == "throughput":
            field.peaks[case.size, name] = rows[name]["per_second"]["median"]
    agree = len(set(answers.values())) <= 1
    if not agree:
        tqdm.write(f"{field.part.name}: {case.title}: THE SYSTEMS COMPUTED DIFFERENT ANSWERS: {answers}", file=sys.stderr)
    return {
        "title": case.title,
        "order": case.order,
        "figure": case.figure,
        "size": case.size,
        "answers_agree": agree,
        "systems": rows,
    }


def targets(part, cases, rows):
    """What was to be reached, and what was: the worst case counts."""
    for target in part.targets:
        reached = []
        for case, row in zip(cases, rows):
            found = row["systems"]
            if not target.where(case) or target.ours not in found:
                continue
            if isinstance(target, parts.Limit):
                reached.append(found[target.ours]["mean_us"]["median"])
                continue
            peers = [found[name] for name in target.peers if name in found]
            if len(peers) == len(target.peers):
                if case.figure in ("throughput", "bandwidth"):
                    best = max(peer["per_second"]["median"] for peer in peers)
                    reached.append(found[target.ours]["per_second"]["median"] / best)
                else:
                    best = min(peer[target.latency]["median"] for peer in peers)
                    reached.append(best / found[target.ours][target.latency]["median"])
        if not reached:
            continue
        if isinstance(target, parts.Limit):
            yield {
                "part": part.name,
                "title": target.title,
                "limit_us": target.at_most_us,
                "least": min(reached),
                "most": max(reached),
                "met": max(reached) <= target.at_most_us,
            }
        else:
            yield {
                "part": part.name,
                "title": target.title,
                "times": target.times,
                "least": min(reached),
                "most": max(reached),
                "met": min(reached) >= target.times,
            }


def main():
    chosen = options()
    # So that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.monotonic()
    all_parts = parts.all_parts(chosen.effort, chosen.binaries.resolve(), chosen.mix, chosen.database)
    wanted = [part for part in all_parts if not chosen.parts or part.name in chosen.parts]
    plan = []
    for part in wanted:
        systems = [s for s in part.systems if not chosen.systems or any(s.name.startswith(name) for name in chosen.systems)]
        cases = [case for case in part.cases if not chosen.sizes or case.size in chosen.sizes]
        if systems and cases:
            plan.append((part, systems, cases))
    if not plan:
        sys.exit("nothing to compare: no part has these systems and sizes")
    result = {
        "machine": machine.look(),
        "versions": machine.versions(parts.ROOT),
        "settings": {"effort": chosen.effort, "rounds": chosen.rounds, "seconds": chosen.seconds},
        "load": {"before": machine.load()},
        "parts": [],
        "targets": [],
        "left_out": LeftOut(),
    }
    total = sum((1 + chosen.rounds) * sum(does(s, case) for s in systems for case in cases) for _, systems, cases in plan)
    with tqdm(total=total, unit="turn", disable=None, dynamic_ncols=True) as progress:
        for part, systems, cases in plan:
            # Short, since sockets lie in it.
            with tempfile.TemporaryDirectory(prefix="dm") as folder:
                field = Field(part, systems, folder, result["left_out"])
                rows = []
                try:
                    for case in cases:
                        progress.set_description(f"{part.name}: {case.title}")
                        rows.append(measure(field, case, chosen, progress))
                finally:
                    field.close()
            result["parts"].append(
                {
                    "name": part.name,
                    "title": part.title,
                    "about": part.about,
                    "percentiles": part.percentiles,
                    "alike": part.alike,
                    "systems": [
                        {"name": s.name, "title": s.title, "ours": s.ours}
                        for s in systems
                        if any(s.name in row["systems"] for row in rows)
                    ],
                    "rows": rows,
                }
            )
            result["targets"].extend(targets(part, cases, rows))
            # What there is so far, should the rest be interrupted.
            result["load"]["after"] = machine.load()
            result["minutes"] = round((time.monotonic() - begun) / 60, 1)
            chosen.json.parent.mkdir(parents=True, exist_ok=True)
            chosen.json.write_text(json.dumps(result, indent=1) + "\n")
    for part in result["parts"]:
        print(f"{part['title']}\n\n{tables.markdown_table(*tables.table(part))}\n")
    print(f"figures: {chosen.json}", file=sys.stderr)
    wrong = [row["title"] for part in result["parts"] for row in part["rows"] if not row["answers_agree"]]
    if wrong:
        sys.exit(f"systems computed different answers: {', '.join(wrong)}")
    # A peer need not be here; what is ours has to be.
    failed = [f"{out['part']}: {out['title']}: {out['why']}" for out in result["left_out"] if out["ours"]]
    if failed:
        sys.exit(f"ours failed: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
