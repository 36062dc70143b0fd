"""The pass table."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from conformance.case import Case

_HEAD = """\
# What Ray programs do here

Small programs that run on Ray {version} and on pydmrpc, and what they end in: a value or the type of an error. `make conformance`
runs both and writes this page; `compare/ray/conformance/cases` has the programs. The tests of the Python package compare with the
recorded outcomes of Ray.

"""


def of(
    cases: list[Case],
    theirs: dict[str, Any],
    ours: dict[str, Any],
    differences: dict[str, str],
) -> str:
    """The page, in Markdown."""
    topics = list(dict.fromkeys(case.topic for case in cases))
    total = Counter(case.topic for case in cases)
    alike = Counter(case.topic for case in cases if theirs[case.name] == ours[case.name])
    lines = ["| | cases | alike | |", "| --- | --- | --- | --- |"]
    lines += [f"| {topic} | {total[topic]} | {alike[topic]} | {_percent(alike[topic], total[topic])} |" for topic in topics]
    lines.append(f"| **all** | **{total.total()}** | **{alike.total()}** | **{_percent(alike.total(), total.total())}** |")
    lines += [
        "",
        "## Where they differ",
        "",
        "| case | Ray | pydmrpc | why |",
        "| --- | --- | --- | --- |",
    ]
    for case in cases:
        if theirs[case.name] != ours[case.name]:
            reason = differences.get(case.name, "**not explained**")
            lines.append(f"| `{case.name}` | {_short(theirs[case.name])} | {_short(ours[case.name])} | {reason} |")
    lines += ["", "## Cases", ""]
    for topic in topics:
        names = ", ".join(_mark(case, theirs, ours) for case in cases if case.topic == topic)
        lines.append(f"**{topic}**: {names}\n")
    return _HEAD.format(version=_version()) + "\n".join(lines).rstrip() + "\n"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def _mark(case: Case, theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    return f"`{case.name}`" + ("" if theirs[case.name] == ours[case.name] else " ✗")


def _short(done: dict[str, Any]) -> str:
    text = f"raises {done['raises']}" if "raises" in done else json.dumps(done["value"])
    return "`" + (text if len(text) < 100 else text[:97] + "…").replace("|", "\\|") + "`"


def _version() -> str:
    from conformance.run import FOLDER

    for line in (FOLDER.parent / "requirements.txt").read_text().splitlines():
        if line.startswith("ray["):
            return line.partition("==")[2]
    raise LookupError("requirements.txt names no version of ray")
