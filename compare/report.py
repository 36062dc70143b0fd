#!/usr/bin/env python3
"""Makes the report of `compare/run.py`'s figures: Markdown, plots (PNG and SVG), and one HTML page with all of it inside.

    compare/report.py [results.json ...]            writes beside the first; several are parts of one report
    compare/report.py --readme [results.json ...]   puts the main table and two plots into the README, too
"""

import argparse
import html
import json
import pathlib
import re
import shutil
import sys

import matplotlib
from tables import in_short, markdown_table, percentiles, shown, size_text, table, target_rows

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

COLOURS = {
    "dmrpc": "#0b6e4f",
    "dmrpc-value": "#8fc3ae",
    "dmrpc-put": "#4f9d80",
    "pydmrpc": "#1f4e9c",
    "pydmrpc-put": "#8aa9d6",
    "grpc": "#c0392b",
    "ray-actors": "#e67e22",
    "ray-actors-value": "#f5b97f",
    "ray-tasks": "#a8630f",
    "ray-put": "#e67e22",
    "spark": "#8e44ad",
    "dmrpc-tcp": "#1f4e9c",
    "memcpy": "#7f8c8d",
    "socket": "#c0392b",
    "flight": "#e67e22",
    "iperf3": "#8e44ad",
}

plt.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "compare",
    }
)


# --- Plots -----------------------------------------------------------------------------------------------------------


def bars(part, rows, figure, path, title):
    systems = [system for system in part["systems"] if any(system["name"] in row["systems"] for row in rows)]
    width = 0.8 / len(systems)
    fig, axes = plt.subplots(figsize=(max(6, min(13, 1.1 * len(rows) * max(1, len(systems) / 4))), 3.8))
    for n, system in enumerate(systems):
        points = [(at, row["systems"][system["name"]][figure]) for at, row in enumerate(rows) if system["name"] in row["systems"]]
        medians = [point["median"] for _, point in points]
        errors = [
            [max(0, point["median"] - point["low"]) for _, point in points],
            [max(0, point["high"] - point["median"]) for _, point in points],
        ]
        axes.bar(
            [at + (n - (len(systems) - 1) / 2) * width for at, _ in points],
            medians,
            width,
            yerr=errors,
            error_kw={"lw": 0.7},
            label=system["title"],
            color=COLOURS.get(system["name"]),
        )
    axes.set_yscale("log")
    # Without how many at a time, which the title says; in short lines.
    names = [row["title"].rsplit(", ", 1)[0].replace(", ", "\n").replace(" in ", " in\n") for row in rows]
    axes.set_xticks(range(len(rows)), names)
    axes.set_ylabel("operations a second" if figure == "per_second" else "mean latency in µs")
    axes.set_title(title)
    axes.legend(ncols=3, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.26))
    save(fig, path)


def lines(part, rows, x, x_title, path, title, y="mean_us"):
    fig, axes = plt.subplots(figsize=(6, 3.6))
    for system in part["systems"]:
        points = [(x(row), row["systems"][system["name"]][y]["median"]) for row in rows if system["name"] in row["systems"]]
        if points:
            axes.plot(*zip(*sorted(points)), marker="o", ms=3.5, lw=1.4, label=system["title"], color=COLOURS.get(system["name"]))
    axes.set_yscale("log")
    axes.set_xlabel(x_title)
    axes.set_ylabel("mean latency in µs")
    axes.set_title(title)
    axes.legend(fontsize=8, loc="upper center", ncols=3, bbox_to_anchor=(0.5, -0.18))
    return fig, axes, path


def save(fig, path):
    for form in ("png", "svg"):
        fig.savefig(path.with_suffix(f".{form}"), dpi=150, bbox_inches="tight", metadata={"Date": None} if form == "svg" else None)
    plt.close(fig)


def plot_cow(part, folder):
    for figure, key, words in (("throughput", "per_second", "many at a time"), ("latency", "mean_us", "one at a time")):
        rows = [row for row in part["rows"] if row["figure"] == figure]
        if len(rows) > 9:
            # One a size and a number of pages, written whole.
            rows = [row for row in rows if row["order"]["touch"]["bytes"] in (0, 4096)]
        if rows:
            yield f"cow-{figure}", f"Copy on write, {words}"
            bars(part, rows, key, folder / f"cow-{figure}", f"Copy on write, {words}")


def plot_chain(part, folder):
    rows = [row for row in part["rows"] if row["figure"] == "latency"]
    sizes = sorted({row["size"] for row in rows})
    if len(rows) <= len(sizes):
        return
    fig, all_axes = plt.subplots(1, len(sizes), figsize=(3.6 * len(sizes) + 0.8, 3.3), sharey=True, squeeze=False)
    for axes, size in zip(all_axes[0], sizes):
        for system in part["systems"]:
            points = sorted(
                (row["order"]["actors"], row["systems"][system["name"]]["mean_us"]["median"])
                for row in rows
                if row["size"] == size and system["name"] in row["systems"]
            )
            if points:
                axes.plot(*zip(*points), marker="o", ms=3.5, lw=1.4, label=system["title"], color=COLOURS.get(system["name"]))
        axes.set_yscale("log")
        axes.set_title(size_text(size))
        axes.set_xlabel("processes")
    all_axes[0][0].set_ylabel("mean latency in µs")
    fig.legend(*all_axes[0][0].get_legend_handles_labels(), loc="upper center", ncols=5, bbox_to_anchor=(0.5, 0.0), fontsize=8)
    fig.suptitle("Through a chain of processes, one at a time")
    fig.tight_layout()
    save(fig, folder / "chain")
    yield "chain", "Through a chain of processes"


def plot_by_size(part, folder, x_title):
    if len(part["rows"]) < 2:
        return
    fig, axes, path = lines(part, part["rows"], lambda row: row["size"], x_title, folder / part["name"], part["title"])
    axes.set_xscale("log", base=2 if "bytes" in x_title else 10)
    sizes = sorted({row["size"] for row in part["rows"]})
    if "bytes" in x_title:
        axes.set_xticks(sizes, [size_text(size) for size in sizes])
        axes.set_xlabel("")
    save(fig, path)
    yield part["name"], part["title"]


def plot_curves(part, folder):
    """Throughput against latency, a picture for each size."""
    rows = [row for row in part["rows"] if row["figure"] in ("curve", "throughput")]
    sizes = sorted({row["size"] for row in rows})
    if not any(row["figure"] == "curve" for row in rows):
        return
    fig, all_axes = plt.subplots(1, len(sizes), figsize=(3.2 * len(sizes) + 0.6, 3.2), sharey=True, squeeze=False)
    for axes, size in zip(all_axes[0], sizes):
        for system in part["systems"]:
            found = [row["systems"].get(system["name"]) for row in rows if row["size"] == size and row["figure"] == "curve"]
            points = sorted((one["per_second"]["median"], one["mean_us"]["median"] / 1000) for one in found if one)
            if points:
                axes.plot(*zip(*points), marker="o", ms=3.5, lw=1.4, label=system["title"], color=COLOURS.get(system["name"]))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(next(row["title"].split(",")[0] for row in rows if row["size"] == size))
        axes.set_xlabel("requests a second")
    all_axes[0][0].set_ylabel("mean latency in ms")
    handles, labels = max((axes.get_legend_handles_labels() for axes in all_axes[0]), key=lambda found: len(found[1]))
    fig.legend(handles, labels, loc="upper center", ncols=5, bbox_to_anchor=(0.5, 0.0), fontsize=8)
    fig.suptitle(f"{part['title']}: load at a rate", y=1.0)
    fig.tight_layout()
    save(fig, folder / f"{part['name']}-curves")
    yield f"{part['name']}-curves", f"{part['title']}: throughput and latency"


def plot_transfer(part, folder):
    """Bandwidth by size, reading and writing, one at a time."""
    rows = [row for row in part["rows"] if row["order"]["load"]["in_flight"] == 1]
    if len({row["size"] for row in rows}) < 2:
        return
    fig, both = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for axes, direction in zip(both, ("read", "write")):
        for system in part["systems"]:
            points = sorted(
                (row["size"], row["systems"][system["name"]]["per_second"]["median"] * row["size"] / 1e9)
                for row in rows
                if row["order"]["direction"] == direction and system["name"] in row["systems"]
            )
            if points:
                axes.plot(*zip(*points), marker="o", ms=3.5, lw=1.4, label=system["title"], color=COLOURS.get(system["name"]))
        sizes = sorted({row["size"] for row in rows if row["order"]["direction"] == direction})
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(sizes, [size_text(size) for size in sizes], rotation=30, ha="right")
        axes.set_title(direction)
    both[0].set_ylabel("GB/s, one at a time")
    fig.legend(*both[0].get_legend_handles_labels(), loc="upper center", ncols=3, bbox_to_anchor=(0.5, 0.0), fontsize=8)
    fig.suptitle(part["title"])
    fig.tight_layout()
    save(fig, folder / "transfer")
    yield "transfer", part["title"]


PLOTS = {
    "transfer": plot_transfer,
    "service": plot_curves,
    "social": plot_curves,
    "cow": plot_cow,
    "chain": plot_chain,
    "create-ref": lambda part, folder: plot_by_size(part, folder, "bytes"),
    "translate": lambda part, folder: plot_by_size(part, folder, "extents"),
}


# --- Pages -----------------------------------------------------------------------------------------------------------

OPENING = """\
The same work on DmRPC, Ray, Spark and gRPC, in turns on one machine, answers compared. Figures are medians, ± half the distance of the quartiles;
the best of a row is bold. A rate is better if higher, a time if lower."""

SHORT = """\
From the least to the most of a part's cases, against the better of each system's ways (Ray: by reference or by value, actors or tasks). Below 1 the
peer is ahead. Small sizes are the least, large ones the most, as a rule: the tables below have each."""

FAIR = """\
All systems are started first and stay up; each case is warmed up and checked on each, then they take turns, A B … B A …, so that what drifts
on the machine drifts for all. A figure is the median of the turns, ± half the distance of the quartiles over the median. Every answer is
compared with what it has to be, and those of all systems with each other. References are made for each request. Payloads are written bytes."""

PAPER = """\
Where the paper (DmRPC, ICDE 2024) did otherwise: it made references once at set-up, here one is made per request; its Ray side was a
single-threaded Python program, here Ray's actors, tasks and actors by value take part and the best counts; its Spark side ran `foreach` over an
empty list, so the function never ran, here it has one element."""


# A machine that is less idle than this before a run has other work.
IDLE_PERCENT = 80


def machine_text(results):
    machine, load = results["machine"], results["load"]
    return (
        f"{machine['cores']} {'virtual cores' if machine['virtual'] else 'cores'} of {machine['cpu']}, {machine['memory_gib']} GiB, "
        f"Linux {machine['kernel']}. Idle before the run {load['before']['idle_percent']} %, after it {load['after']['idle_percent']} %; "
        f"load of the last minute {load['before']['last_minute']:.1f} and {load['after']['last_minute']:.1f}. "
        f"{results['settings']['rounds']} turns of {results['settings']['seconds']} s a system and case, {results['minutes']} minutes in all. "
        + ", ".join(f"{name} {version}" for name, version in results["versions"].items())
        + "."
        + (" The machine had other work: only ratios mean something." if load["before"]["idle_percent"] < IDLE_PERCENT else "")
    )


def blocks(results, folder):
    """The report as (kind, content), in order."""
    yield "h1", "DmRPC, side by side"
    yield "p", OPENING
    header, rows = in_short(results)
    if rows:
        yield "h2", "In short"
        yield "p", SHORT
        yield "table", (header, rows)
    rows = list(target_rows(results))
    if rows:
        yield "h2", "Targets"
        yield "table", (["target", "wanted", "reached", ""], rows)
    for part in results["parts"]:
        if not part["systems"]:
            continue
        yield "h2", part["title"]
        yield "p", part["about"]
        if part["name"] in PLOTS:
            for name, title in PLOTS[part["name"]](part, folder):
                yield "plot", (name, title)
        yield "table", table(part)
        if part.get("percentiles"):
            yield "more", percentiles(part)
        wrong = [row["title"] for row in part["rows"] if not row["answers_agree"]]
        if wrong:
            yield "p", f"THE SYSTEMS COMPUTED DIFFERENT ANSWERS: {'; '.join(wrong)}"
    if results["left_out"]:
        yield "h2", "Left out"
        rows = [[out["part"], out["title"], out["needs"] or "–", out["why"]] for out in results["left_out"]]
        yield "table", (["part", "system", "needs", "why"], rows)
    yield "h2", "How"
    yield "p", FAIR
    yield "p", PAPER
    yield "p", machine_text(results)


def markdown(content):
    out = []
    for kind, what in content:
        if kind in ("h1", "h2"):
            out.append("#" * int(kind[1]) + f" {what}")
        elif kind == "table":
            out.append(markdown_table(*what))
        elif kind == "more":
            out += [what[0], markdown_table(*what[1:])]
        elif kind == "plot":
            out.append(f"![{what[1]}]({what[0]}.png)")
        else:
            out.append(what)
    return "\n\n".join(out) + "\n"


STYLE = """
body { font: 15px/1.55 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1.2rem; color: #222; }
h1 { margin-bottom: .3rem; }
h2 { margin-top: 2.8rem; padding-bottom: .2rem; border-bottom: 2px solid #0b6e4f; }
p { max-width: 62rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: 1rem 0; font-size: 14px; }
a { color: #0b6e4f; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th { background: #f3f6f5; vertical-align: bottom; }
td, th { padding: .3rem .75rem; border-bottom: 1px solid #e5e5e5; text-align: right; white-space: nowrap; }
th { white-space: normal; }
td:first-child, th:first-child { text-align: left; white-space: normal; min-width: 13rem; }
tr:hover td { background: #f8faf9; }
small { color: #888; }
details { margin: 1rem 0; }
summary { cursor: pointer; color: #0b6e4f; }
figure { margin: 1rem 0; }
svg { max-width: 100%; height: auto; }
@media print { nav { display: none; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""


def cell_html(text):
    text = re.sub(r"( ±\d+%)", r"<small>\1</small>", html.escape(text))
    return re.sub(r"\*\*(.*?)\*\*", r"<b>\1</b>", text)


def table_html(header, rows):
    line = lambda tag, row: "<tr>" + "".join(f"<{tag}>{cell_html(cell)}</{tag}>" for cell in row) + "</tr>"
    body = "".join(line("td", row) for row in rows)
    return f"<div class=scroll><table><thead>{line('th', header)}</thead><tbody>{body}</tbody></table></div>"


def anchor(title):
    return re.sub(r"[^a-z]+", "-", title.lower()).strip("-")


def page(content, folder):
    content = list(content)
    out = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>DmRPC, side by side</title><style>{STYLE}</style></head><body>"
    ]
    sections = "".join(f'<a href="#{anchor(what)}">{html.escape(what)}</a>' for kind, what in content if kind == "h2")
    for kind, what in content:
        if kind == "table":
            out.append(table_html(*what))
        elif kind == "more":
            out.append(f"<details><summary>{html.escape(what[0])}</summary>{table_html(*what[1:])}</details>")
        elif kind == "plot":
            drawing = (folder / f"{what[0]}.svg").read_text()
            # What a drawing has by a name is its own: names of all drawings are in one page.
            drawing = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{what[0]}-", drawing[drawing.index("<svg") :])
            out.append(f'<figure aria-label="{html.escape(what[1])}">{drawing}</figure>')
        elif kind == "h2":
            out.append(f'<h2 id="{anchor(what)}">{html.escape(what)}</h2>')
        else:
            text = re.sub("`(.*?)`", r"<code>\1</code>", html.escape(what))
            out.append(f"<{kind}>{text}</{kind}>")
            if kind == "h1":
                out.append(f"<nav>{sections}</nav>")
    return "\n".join(out) + "\n</body></html>\n"


# --- README ----------------------------------------------------------------------------------------------------------

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Which cases of a part are in the main table.
MAIN = {
    "cow": lambda row: row["figure"] == "throughput",
    "chain": lambda row: row["order"]["actors"] == 7,
    "create-ref": lambda row: True,
    "first-put": lambda row: True,
    "translate": lambda row: False,
    "transfer": lambda row: False,
    "service": lambda row: row["figure"] != "curve",
    "social": lambda row: row["figure"] != "curve",
    "offload": lambda row: False,
    "everyday": lambda row: True,
}

# Columns of the main table, and the systems that stand for each: the best of them.
COLUMNS = {
    "ours, Rust": ("dmrpc", "dmrpc-put"),
    "ours, Python": ("pydmrpc", "pydmrpc-put"),
    "ours by value": ("dmrpc-value",),
    "gRPC": ("grpc",),
    "Ray": ("ray-actors", "ray-actors-value", "ray-tasks", "ray-put"),
    "Spark": ("spark",),
}

README_PLOTS = ("cow-throughput", "service-curves")


def together(runs):
    """Runs of several parts as one. They are of the same machine and settings, or no one should compare them."""
    first = runs[0]
    for run in runs[1:]:
        if (run["machine"], run["versions"], run["settings"]) != (first["machine"], first["versions"], first["settings"]):
            raise SystemExit("these runs are of different machines, versions or settings")
    order = list(MAIN)
    place = lambda of: order.index(of) if of in order else len(order)
    return first | {
        "parts": sorted((part for run in runs for part in run["parts"]), key=lambda part: place(part["name"])),
        "targets": sorted((target for run in runs for target in run["targets"]), key=lambda target: place(target["part"])),
        "left_out": [out for run in runs for out in run["left_out"]],
        "load": {
            "before": min((run["load"]["before"] for run in runs), key=lambda load: load["idle_percent"]),
            "after": min((run["load"]["after"] for run in runs), key=lambda load: load["idle_percent"]),
        },
        "minutes": round(sum(run["minutes"] for run in runs), 1),
    }


def main_table(results):
    rows = []
    for part in results["parts"]:
        for row in filter(MAIN.get(part["name"], lambda row: False), part["rows"]):
            if not row["answers_agree"]:
                continue
            cells = [f"{part['title']}: {row['title']}"]
            for names in COLUMNS.values():
                found = [shown(row, row["systems"][name]) for name in names if name in row["systems"]]
                best = max(found, key=lambda one: one[1])[0].split(" ±")[0] if found else ""
                cells.append(best)
            rows.append(cells)
    return markdown_table(["", *COLUMNS], rows)


def into_readme(results, folder):
    """Replaces what stands between the marks in the README."""
    plots = ROOT / "docs" / "figures"
    plots.mkdir(exist_ok=True)
    shown_plots = []
    for name in README_PLOTS:
        if (folder / f"{name}.png").exists():
            shutil.copy(folder / f"{name}.png", plots)
            shown_plots.append(f"![{name}](docs/figures/{name}.png)")
    misses = [f"{title} (wanted {wanted}, reached {reached})" for title, wanted, reached, met in target_rows(results) if met == "✗"]
    wrong = [row["title"] for part in results["parts"] for row in part["rows"] if not row["answers_agree"]]
    text = "\n\n".join(
        [
            f"`make compare{' QUICK=1' if results['settings']['effort'] == 'quick' else ''}`: {machine_text(results)}",
            main_table(results),
            *shown_plots,
            *([f"Left out, since answers differed (what is read must not change during a run): {'; '.join(wrong)}."] if wrong else []),
            "Targets that were missed: " + "; ".join(misses) + "." if misses else "All targets were met.",
        ]
    )
    readme = ROOT / "README.md"
    begin, end = "<!-- compare/report.py --readme: begin -->", "<!-- end -->"
    replaced = re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n\n{text}\n\n{end}", readme.read_text(), count=1, flags=re.S)
    readme.write_text(replaced)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = pathlib.Path(__file__).parent / "report" / "results.json"
    parser.add_argument("results", nargs="*", type=pathlib.Path, default=[default])
    parser.add_argument("--readme", action="store_true", help="put the main table and two plots into the README")
    chosen = parser.parse_args()
    results, folder = together([json.loads(path.read_text()) for path in chosen.results]), chosen.results[0].parent
    content = list(blocks(results, folder))
    if chosen.readme:
        into_readme(results, folder)
    (folder / "report.md").write_text(markdown(content))
    (folder / "report.html").write_text(page(content, folder))
    print(f"report: {folder / 'report.md'}, {folder / 'report.html'}", file=sys.stderr)


if __name__ == "__main__":
    main()
