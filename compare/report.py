#!/usr/bin/env python3
"""Makes the report of `compare/run.py`'s figures: Markdown, plots (PNG and SVG), and one HTML page with all of it inside.

    compare/report.py [results.json]                writes beside it
    compare/report.py --readme [results.json]       puts the main table and two plots into the README, too
"""

import argparse
import html
import json
import pathlib
import re
import shutil
import sys

import matplotlib

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


def time_text(us):
    if us < 1:
        return f"{us * 1000:.3g} ns"
    if us < 1000:
        return f"{us:.3g} µs"
    return f"{us / 1000:.3g} ms" if us < 1e6 else f"{us / 1e6:.3g} s"


def rate_text(rate):
    return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.3g}/s"


def spread(figure):
    """Half the distance of the quartiles, over the median."""
    return (figure["high"] - figure["low"]) / 2 / figure["median"] if figure["median"] else 0.0


def shown(figure_name, found):
    """What a cell says, and by what systems are compared: more is better."""
    if figure_name == "latency":
        figure = found["mean_us"]
        better = 1 / figure["median"] if figure["median"] else 0.0
        return f"{time_text(figure['median'])} ±{spread(figure):.0%}", better
    figure = found["per_second"]
    return f"{rate_text(figure['median'])} ±{spread(figure):.0%}", figure["median"]


def ratio_text(ratio):
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.2g}×"


def table(part):
    """Header and rows of a part's table; the last column is how far ahead the best of ours is of the best peer."""
    systems = part["systems"]
    peers = [system for system in systems if not system["ours"]]
    header = ["", *(system["title"] for system in systems)]
    if peers and len(peers) < len(systems):
        header.append("best of ours / best peer")
    rows = []
    for row in [row for row in part["rows"] if row["figure"] != "curve"]:
        cells, best = [row["title"]], {True: 0.0, False: 0.0}
        for system in systems:
            found = row["systems"].get(system["name"])
            text, better = shown(row["figure"], found) if found else ("–", 0.0)
            if found and found["given_up"]:
                text += " (overloaded)"
            cells.append(text)
            best[system["ours"]] = max(best[system["ours"]], better)
        if len(header) > len(cells):
            cells.append(ratio_text(best[True] / best[False]) if best[True] and best[False] else "–")
        rows.append(cells)
    return header, rows


def target_rows(results):
    names = {part["name"]: part["title"] for part in results["parts"]}
    for target in results["targets"]:
        if "limit_us" in target:
            wanted = f"≤ {time_text(target['limit_us'])}"
            low, high = time_text(target["least"]), time_text(target["most"])
        else:
            wanted = f"≥ {target['times']:g}×"
            low, high = ratio_text(target["least"]), ratio_text(target["most"])
        reached = low if low == high else f"{low} … {high}"
        yield [f"{names[target['part']]}: {target['title']}", wanted, reached, "✓" if target["met"] else "✗"]


def markdown_table(header, rows):
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return "\n".join([line(header), line(["---"] + ["--:"] * (len(header) - 1)), *map(line, rows)])


# --- Plots -----------------------------------------------------------------------------------------------------------


def bars(part, rows, figure, path, title):
    systems = [system for system in part["systems"] if any(system["name"] in row["systems"] for row in rows)]
    width = 0.8 / len(systems)
    fig, axes = plt.subplots(figsize=(max(6, 1.1 * len(rows) * max(1, len(systems) / 4)), 3.6))
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
    axes.set_xticks(range(len(rows)), [row["title"].replace(", ", "\n", 1).rsplit(", ", 1)[0] for row in rows])
    axes.set_ylabel("operations a second" if figure == "per_second" else "mean latency in µs")
    axes.set_title(title)
    axes.legend(ncols=3, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.22))
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
    for size in sorted({row["size"] for row in rows}):
        of_size = [row for row in rows if row["size"] == size]
        if len(of_size) < 2:
            continue
        name = f"chain-{size >> 10}KiB"
        title = f"{of_size[0]['title'].split(' through')[0]} through a chain of processes"
        fig, axes, path = lines(part, of_size, lambda row: row["order"]["actors"], "processes", folder / name, title)
        save(fig, path)
        yield name, title


def plot_by_size(part, folder, x_title):
    if len(part["rows"]) < 2:
        return
    fig, axes, path = lines(part, part["rows"], lambda row: row["size"], x_title, folder / part["name"], part["title"])
    axes.set_xscale("log", base=2 if "bytes" in x_title else 10)
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


PLOTS = {
    "service": plot_curves,
    "social": plot_curves,
    "cow": plot_cow,
    "chain": plot_chain,
    "create-ref": lambda part, folder: plot_by_size(part, folder, "bytes"),
    "translate": lambda part, folder: plot_by_size(part, folder, "extents"),
}


# --- Pages -----------------------------------------------------------------------------------------------------------

FAIR = """\
All systems are started first and stay up; each case is warmed up and checked on each, then they take turns, A B … B A …, so that what drifts
on the machine drifts for all. A figure is the median of the turns, ± half the distance of the quartiles over the median. Every answer is
compared with what it has to be, and those of all systems with each other. References are made for each request. Payloads are written bytes."""

PAPER = """\
Where the paper (DmRPC, ICDE 2024) did otherwise: it made references once at set-up, here one is made per request; its Ray side was a
single-threaded Python program, here Ray's actors, tasks and actors by value take part and the best counts; its Spark side ran `foreach` over an
empty list, so the function never ran, here it has one element."""


def machine_text(results):
    machine, load = results["machine"], results["load"]
    return (
        f"{machine['cores']} {'virtual cores' if machine['virtual'] else 'cores'} of {machine['cpu']}, {machine['memory_gib']} GiB, "
        f"Linux {machine['kernel']}. Idle before the run {load['before']['idle_percent']} %, after it {load['after']['idle_percent']} %; "
        f"load of the last minute {load['before']['last_minute']:.1f} and {load['after']['last_minute']:.1f}. "
        f"{results['settings']['rounds']} turns of {results['settings']['seconds']} s a system and case, {results['minutes']} minutes in all. "
        + ", ".join(f"{name} {version}" for name, version in results["versions"].items())
        + "."
    )


def blocks(results, folder):
    """The report as (kind, content), in order."""
    yield "h1", "Side by side"
    yield "p", machine_text(results)
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


def markdown(content):
    out = []
    for kind, what in content:
        if kind in ("h1", "h2"):
            out.append("#" * int(kind[1]) + f" {what}")
        elif kind == "table":
            out.append(markdown_table(*what))
        elif kind == "plot":
            out.append(f"![{what[1]}]({what[0]}.png)")
        else:
            out.append(what)
    return "\n\n".join(out) + "\n"


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
td, th { padding: .25rem .7rem; border-bottom: 1px solid #e5e5e5; text-align: right; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; white-space: normal; min-width: 12rem; }
svg { max-width: 100%; height: auto; }
"""


def page(content, folder):
    out = [f"<!doctype html><html lang=en><meta charset=utf-8><title>Side by side</title><style>{STYLE}</style>"]
    for kind, what in content:
        if kind == "table":
            cells = lambda tag, row: "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
            header, rows = what
            body = "".join(cells("td", row) for row in rows)
            out.append(f"<div class=scroll><table>{cells('th', header)}{body}</table></div>")
        elif kind == "plot":
            drawing = (folder / f"{what[0]}.svg").read_text()
            out.append(f"<figure>{drawing[drawing.index('<svg'):]}</figure>")
        else:
            out.append(f"<{kind}>{html.escape(what)}</{kind}>")
    return "\n".join(out) + "\n"


# --- README ----------------------------------------------------------------------------------------------------------

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Which cases of a part are in the main table.
MAIN = {
    "cow": lambda row: row["figure"] == "throughput",
    "chain": lambda row: row["order"]["actors"] == 7,
    "create-ref": lambda row: True,
    "service": lambda row: row["figure"] != "curve",
    "social": lambda row: row["figure"] != "curve",
    "everyday": lambda row: True,
}

# Columns of the main table, and the systems that stand for each: the best of them.
COLUMNS = {
    "ours, Rust": ("dmrpc",),
    "ours, Python": ("pydmrpc",),
    "ours by value": ("dmrpc-value",),
    "gRPC": ("grpc",),
    "Ray": ("ray-actors", "ray-actors-value", "ray-tasks", "ray-put"),
    "Spark": ("spark",),
}

README_PLOTS = ("cow-throughput", "service-curves")


def main_table(results):
    rows = []
    for part in results["parts"]:
        for row in filter(MAIN.get(part["name"], lambda row: False), part["rows"]):
            cells = [f"{part['title']}: {row['title']}"]
            for names in COLUMNS.values():
                found = [shown(row["figure"], row["systems"][name]) for name in names if name in row["systems"]]
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
    text = "\n\n".join(
        [
            f"`make compare{' QUICK=1' if results['settings']['effort'] == 'quick' else ''}`: {machine_text(results)}",
            main_table(results),
            *shown_plots,
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
    parser.add_argument("results", nargs="?", type=pathlib.Path, default=default)
    parser.add_argument("--readme", action="store_true", help="put the main table and two plots into the README")
    chosen = parser.parse_args()
    path = chosen.results
    results, folder = json.loads(path.read_text()), path.parent
    content = list(blocks(results, folder))
    if chosen.readme:
        into_readme(results, folder)
    (folder / "report.md").write_text(markdown(content))
    (folder / "report.html").write_text(page(content, folder))
    print(f"report: {folder / 'report.md'}, {folder / 'report.html'}", file=sys.stderr)


if __name__ == "__main__":
    main()
