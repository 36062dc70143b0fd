"""The figures of a run as tables: what a cell says, and which cases and systems are in it."""

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def size_text(size):
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def time_text(us):
    if us < 1:
        return f"{us * 1000:.3g} ns"
    if us < 1000:
        return f"{us:.3g} µs"
    return f"{us / 1000:.3g} ms" if us < 1e6 else f"{us / 1e6:.3g} s"


def rate_text(rate):
    return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.3g}/s"


def bandwidth_text(rate):
    return f"{rate / 1e9:.3g} GB/s" if rate >= 1e9 else f"{rate / 1e6:.3g} MB/s"


def spread(figure):
    """Half the distance of the quartiles, over the median."""
    return (figure["high"] - figure["low"]) / 2 / figure["median"] if figure["median"] else 0.0


def shown(row, found):
    """What a cell says, and by what systems are compared: more is better."""
    figure_name, size = row["figure"], row["size"]
    if figure_name == "latency":
        figure = found["mean_us"]
        better = 1 / figure["median"] if figure["median"] else 0.0
        return f"{time_text(figure['median'])} ±{spread(figure):.0%}", better
    figure = found["per_second"]
    text = bandwidth_text(figure["median"] * size) if figure_name == "bandwidth" else rate_text(figure["median"])
    return f"{text} ±{spread(figure):.0%}", figure["median"]


def ratio_text(ratio):
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.2g}×"


def table(part):
    """Header and rows of a part's table; the last column is how far ahead the best of ours is of the best peer."""
    systems = part["systems"]
    peers = [system for system in systems if not system["ours"]]
    header = ["", *(system["title"] for system in systems)]
    if part.get("alike", True) and peers and len(peers) < len(systems):
        header.append("best of ours / best peer")
    rows = []
    for row in [row for row in part["rows"] if row["figure"] != "curve"]:
        texts, betters, best = [], [], {True: 0.0, False: 0.0}
        for system in systems:
            found = row["systems"].get(system["name"])
            text, better = shown(row, found) if found else ("–", 0.0)
            if found and found["given_up"]:
                text += " (overloaded)"
            texts.append(text)
            betters.append(better)
            best[system["ours"]] = max(best[system["ours"]], better)
        several = len([better for better in betters if better]) > 1
        cells = [row["title"], *(f"**{text}**" if several and better == max(betters) else text for text, better in zip(texts, betters))]
        if len(header) > len(cells):
            cells.append(ratio_text(best[True] / best[False]) if best[True] and best[False] else "–")
        rows.append(cells)
    return header, rows


# Peers, and the systems that stand for each: the best of them.
PEERS = {
    "by value": ("dmrpc-value",),
    "gRPC": ("grpc",),
    "Ray": ("ray-actors", "ray-actors-value", "ray-tasks", "ray-put"),
    "Spark": ("spark",),
}


def in_short(results):
    """Header and rows of how far ahead of each peer ours is, from the least to the most of all cases of a part; in Rust if there is that."""
    header = ["how many times as fast", "ours", *PEERS]
    rows = []
    for part in results["parts"]:
        names = {system["name"]: system["title"] for system in part["systems"]}
        if not part.get("alike", True):
            continue
        for ours in ("dmrpc", "dmrpc-put", "pydmrpc", "pydmrpc-put"):
            if ours not in names:
                continue
            cells = []
            for peers in PEERS.values():
                ratios = []
                for row in part["rows"]:
                    if row["figure"] == "curve" or ours not in row["systems"]:
                        continue
                    best = max((shown(row, row["systems"][peer])[1] for peer in peers if peer in row["systems"]), default=0.0)
                    if best:
                        ratios.append(shown(row, row["systems"][ours])[1] / best)
                low, high = (ratio_text(min(ratios)), ratio_text(max(ratios))) if ratios else ("–", "–")
                cells.append(low if low == high else f"{low} … {high}")
            if any(cell != "–" for cell in cells):
                rows.append([part["title"], names[ours], *cells])
    return header, rows


def percentiles(part):
    """Header and rows of a part's latencies: what so many of a hundred were within."""
    names = {"p50_us": "p50", "p90_us": "p90", "p99_us": "p99", "p999_us": "p99.9"}
    header = ["", *(system["title"] for system in part["systems"])]
    rows = []
    for row in part["rows"]:
        cells = [row["title"]]
        for system in part["systems"]:
            found = row["systems"].get(system["name"])
            cells.append(" / ".join(time_text(found[name]["median"]) for name in names) if found else "–")
        rows.append(cells)
    return f"Latency: {' / '.join(names.values())}", header, rows


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
