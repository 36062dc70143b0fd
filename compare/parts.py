"""What is compared: parts, the systems that take turns in each, and the cases that they are given."""

import dataclasses
import pathlib
import sys

from tables import GIB, KIB, MIB, size_text

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARIES = ROOT / "target" / "release"


@dataclasses.dataclass(frozen=True)
class System:
    """One of the systems of a part: a program, and which of the ways it has."""

    name: str
    title: str
    command: tuple
    way: str
    ours: bool = False
    # What it needs beside this tree, for those who don't have it.
    needs: str = ""
    # Which cases it has; all if nothing is said.
    does: object = None


@dataclasses.dataclass(frozen=True)
class Case:
    """What is done in a turn. `figure` is what it is about: "throughput" or "latency", or "curve" where it is a point of one.

    A load of `{"share": 0.5, "of": "grpc"}` is half the rate that this system had in the part's throughput case of this size; without
    `of`, or where that system takes no part, half of each system's own."""

    title: str
    order: dict
    figure: str
    size: int = 0


@dataclasses.dataclass(frozen=True)
class Target:
    """`ours` is to be at least `times` as good as the best of `peers`, in the cases that `where` picks."""

    title: str
    ours: str
    peers: tuple
    times: float
    where: object
    # What latencies are compared, where the figure is latency.
    latency: str = "mean_us"


@dataclasses.dataclass(frozen=True)
class Limit:
    """`ours` is to take at most so many microseconds for an operation, in the cases that `where` picks."""

    title: str
    ours: str
    at_most_us: float
    where: object


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    title: str
    about: str
    systems: tuple
    cases: tuple
    targets: tuple = ()
    # Programs are started anew for every turn, so that nothing is warm.
    cold: bool = False
    # The report has a table of percentiles, too.
    percentiles: bool = False
    # How far ahead the best of ours is of the best peer says something: they do the same.
    alike: bool = True


def rust(*arguments):
    return (str(BINARIES / "dmrpc-compare"), *arguments)


def python(program, *arguments):
    return (sys.executable, str(ROOT / "compare" / "python" / program), *arguments)


RAY = "the Python package ray"
SPARK = "the Python package pyspark, and Java 17"
PYDMRPC = "the Python package pydmrpc with tasks and actors"


def on_ray(program, ways):
    """The same program on Ray and on ours; `ways`: name, title and way of each on Ray, the first of which is ours too."""
    yield System("pydmrpc", "ours, Python", python(program, "--api", "pydmrpc"), ways[0][2], True, PYDMRPC)
    for name, title, way in ways:
        yield System(name, title, python(program, "--api", "ray"), way, False, RAY)


def flight(n):
    return {"in_flight": n}


def cow(effort):
    touches = {
        "smoke": [(32 * KIB, 1, 4096)],
        "quick": [(4 * KIB, 1, 4096), (32 * KIB, 0, 0), (32 * KIB, 1, 4), (32 * KIB, 8, 4096), (MIB, 1, 4096), (16 * MIB, 1, 4096)],
        "full": [(4 * KIB, 0, 0), (4 * KIB, 1, 4096), (32 * KIB, 0, 0)]
        + [(32 * KIB, pages, size) for pages in (1, 2, 4, 8) for size in (4, 1024, 2048, 4096)]
        + [(MIB, pages, 4096) for pages in (0, 1, 16, 256)]
        + [(16 * MIB, pages, 4096) for pages in (0, 1, 256, 4096)],
    }[effort]
    cases = []
    for size, pages, written in touches:
        what = f"{written} B in {pages} of {size // 4096} pages" if pages else "nothing written"
        many = 64 if size <= MIB else 8
        for figure, load in (("latency", 1), ("throughput", many)):
            order = {"size": size, "touch": {"pages": pages, "bytes": written}, "load": flight(load)}
            title = f"{size_text(size)}, {what}, " + ("one at a time" if load == 1 else f"{load} at a time")
            cases.append(Case(title, order, figure, size))
    at_32k = lambda case: case.size == 32 * KIB and case.figure == "throughput"
    ray = ("ray-actors", "ray-actors-value")
    return Part(
        "cow",
        "Copy on write",
        "An object is made, passed to a worker in another process, which writes into some of its pages and answers with what it wrote.",
        (
            System("dmrpc", "ours, Rust", rust("cow"), "ref", True),
            System("dmrpc-value", "ours, Rust, by value", rust("cow"), "value", True),
            *on_ray(
                "cow.py",
                [("ray-actors", "Ray actors", "actor"), ("ray-actors-value", "Ray actors, by value", "value"), ("ray-tasks", "Ray tasks", "task")],
            ),
            System("spark", "Spark", python("spark.py", "--part", "cow"), "broadcast", False, SPARK),
        ),
        tuple(cases),
        (
            Target("Python, 32 KiB, throughput, against Ray actors (the better way)", "pydmrpc", ray, 50, at_32k),
            Target("Python, 32 KiB, throughput, against Spark", "pydmrpc", ("spark",), 1000, at_32k),
            Target("Rust, 32 KiB, throughput, against Ray actors (the better way)", "dmrpc", ray, 300, at_32k),
        ),
    )


def chain(effort):
    sizes = {"smoke": [64 * KIB], "quick": [4 * KIB, MIB], "full": [4 * KIB, 32 * KIB, 256 * KIB, MIB, 4 * MIB]}[effort]
    lengths = {"smoke": [3], "quick": [1, 3, 7], "full": [1, 2, 3, 4, 5, 6, 7]}[effort]
    cases = []
    for size in sizes:
        for actors in lengths:
            for figure, load in (("latency", 1), ("throughput", 8)):
                if figure == "throughput" and actors != lengths[-1]:
                    continue
                order = {"size": size, "actors": actors, "load": flight(load)}
                title = f"{size_text(size)} through {actors}, " + ("one at a time" if load == 1 else f"{load} at a time")
                cases.append(Case(title, order, figure, size))
    return Part(
        "chain",
        "Chain",
        "An object goes through a chain of processes, one actor or service each; the last one reads all of it.",
        (
            System("dmrpc", "ours, Rust", rust("chain"), "ref", True),
            System("dmrpc-value", "ours, Rust, by value", rust("chain"), "value", True),
            System("grpc", "gRPC (tonic)", rust("grpc-chain"), "value"),
            *on_ray("chain.py", [("ray-actors", "Ray actors", "actor")]),
        ),
        tuple(cases),
    )


def create_ref(effort):
    sizes = {
        "smoke": [64 * KIB],
        "quick": [4 * KIB, MIB, 64 * MIB],
        "full": [4 * KIB, 32 * KIB, MIB, 16 * MIB, 64 * MIB, 256 * MIB, GIB],
    }[effort]
    cases = []
    for size in sizes:
        cases.append(Case(f"reference to {size_text(size)}", {"size": size}, "latency", size))
    return Part(
        "create-ref",
        "References made and dropped",
        "To a range of an object that is there, which Ray and Spark have not; and of bytes that become an object first.",
        (
            System("dmrpc", "ours, Rust: range", rust("create-ref"), "range", True),
            System("dmrpc-put", "ours, Rust: put", rust("create-ref"), "bytes", True),
            System("pydmrpc", "ours, Python: range", python("create_ref.py", "--api", "pydmrpc"), "range", True, PYDMRPC),
            System("pydmrpc-put", "ours, Python: put", python("create_ref.py", "--api", "pydmrpc"), "bytes", True, PYDMRPC),
            System("ray-put", "Ray put", python("create_ref.py", "--api", "ray"), "bytes", False, RAY),
            System("spark", "Spark broadcast", python("spark.py", "--part", "create_ref"), "bytes", False, SPARK),
        ),
        tuple(cases),
        (
            Target("reference to a range against Ray's put", "dmrpc", ("ray-put",), 1000, lambda case: True),
            Limit("reference to a range, whatever the size", "dmrpc", 0.2, lambda case: True),
        ),
    )


def first_put(effort):
    sizes = {"smoke": [64 * KIB], "quick": [MIB, 64 * MIB], "full": [32 * KIB, MIB, 16 * MIB, 64 * MIB, 256 * MIB, GIB]}[effort]
    cases = tuple(Case(f"first put of {size_text(size)}", {"size": size, "first": True}, "latency", size) for size in sizes)
    return Part(
        "first-put",
        "Cold stores: the first put",
        "The first object of a store that was just started, in a program that was just started: memory is touched for the first time. Every "
        "figure above is of stores that are warm.",
        tuple(dataclasses.replace(system, title=system.title.replace(": put", "")) for system in create_ref(effort).systems if system.way == "bytes"),
        cases,
        cold=True,
    )


def transfer(effort):
    sizes = {
        "smoke": [64 * KIB],
        "quick": [4 * KIB, 64 * KIB, MIB, 64 * MIB],
        "full": [64, 4 * KIB, 64 * KIB, MIB, 16 * MIB, 64 * MIB, 256 * MIB, GIB],
    }[effort]
    cases = []
    for direction in ("read", "write"):
        for size in sizes:
            # What is smaller has no pages: it travels in the reference.
            if direction == "write" and size < 4 * KIB:
                continue
            for lanes in {"smoke": [1], "quick": [1, 8], "full": [1, 2, 8, 32]}[effort]:
                if lanes > 1 and size > MIB:
                    continue
                order = {"size": size, "direction": direction, "load": flight(lanes)}
                title = f"{direction} {size_text(size)}, " + ("one at a time" if lanes == 1 else f"{lanes} at a time")
                cases.append(Case(title, order, "bandwidth", size))
    large = lambda direction, least: lambda case: (
        case.order["direction"] == direction and case.size >= least and case.order["load"]["in_flight"] == 1
    )
    program = rust("transfer")
    return Part(
        "transfer",
        "Bytes read and written",
        "Parts of an object are read, and bytes become an object; ours over TCP has them at the memory node before the next begins. The socket has "
        "questions of nine bytes and nothing else; iperf3 sends without being asked. What the other fabrics reach is in docs/fabrics.md, beside "
        "their bare devices, and RDMA beside perftest in docs/rdma.md.",
        (
            System("dmrpc", "ours, shared memory", program, "memory", True),
            System("memcpy", "memcpy in one process", program, "memcpy"),
            System("dmrpc-tcp", "ours, TCP", program, "tcp", True),
            System("socket", "bare TCP socket", program, "socket"),
            System("flight", "Arrow Flight", python("flight.py"), "table", False, "the Python package pyarrow"),
            System(
                "iperf3",
                "iperf3",
                python("iperf3.py"),
                "stream",
                False,
                "iperf3 (Debian: apt-get install iperf3)",
                lambda case: case.size >= MIB and case.order["load"]["in_flight"] == 1,
            ),
        ),
        tuple(cases),
        (
            Target("put, same host, from 64 KiB, against memcpy", "dmrpc", ("memcpy",), 0.9, large("write", 64 * KIB)),
            Target("TCP read, from 1 MiB, against iperf3", "dmrpc-tcp", ("iperf3",), 0.9, large("read", MIB)),
            Target("TCP write, from 1 MiB, against iperf3", "dmrpc-tcp", ("iperf3",), 0.9, large("write", MIB)),
        ),
        percentiles=True,
        alike=False,
    )


def translate(effort):
    counts = {"smoke": [1, 1000], "quick": [1, 1000, 100_000], "full": [1, 10, 100, 1000, 10_000, 100_000, 1_000_000]}[effort]
    cases = [Case(f"{count} extents", {"extents": count}, "latency", count) for count in counts]
    return Part(
        "translate",
        "References followed",
        "A reference and a random offset to the bytes there, in objects of so many extents of one page each.",
        (System("dmrpc", "ours, Rust", rust("translate"), "read", True),),
        tuple(cases),
        (
            Limit("one extent", "dmrpc", 0.05, lambda case: case.size == 1),
            Limit("up to a million extents", "dmrpc", 0.5, lambda case: case.size > 1),
        ),
    )


def at_rates(sizes, shares, order):
    """For each size: throughput, latency at half the rate that gRPC reaches, and points of a curve."""
    cases = []
    for size in sizes:
        text = size_text(size)
        cases.append(Case(f"{text}, 8 at a time", order(size) | {"load": flight(8)}, "throughput", size))
        half = {"share": 0.5, "of": "grpc"}
        cases.append(Case(f"{text}, at half of gRPC's rate", order(size) | {"load": half}, "latency", size))
        for share in shares:
            load = {"share": share}
            cases.append(Case(f"{text}, at {share:.0%} of its own rate", order(size) | {"load": load}, "curve", size))
    return tuple(cases)


def ahead_of_grpc(ours):
    large = lambda figure: lambda case: case.figure == figure and case.size >= 256 * KIB
    return (
        Target("≥ 256 KiB, throughput, by reference against gRPC", ours, ("grpc",), 5, large("throughput")),
        Target("≥ 256 KiB, mean latency, by reference against gRPC", ours, ("grpc",), 4, large("latency")),
        Target(
            "< 256 KiB, throughput, by reference against gRPC",
            ours,
            ("grpc",),
            1,
            lambda case: case.figure == "throughput" and case.size < 256 * KIB,
        ),
    )


def service(effort):
    sizes = {"smoke": [64 * KIB], "quick": [4 * KIB, 64 * KIB, 256 * KIB, MIB], "full": [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB]}[effort]
    shares = {"smoke": [0.5], "quick": [0.2, 0.5, 0.8], "full": [0.2, 0.4, 0.6, 0.8, 0.9]}[effort]
    program = (str(BINARIES / "img-transcode"), "--turns", "--pool", "1GiB")
    return Part(
        "service",
        "Seven-tier image service",
        "Client, firewall, three balancers, dispatcher, two workers: a process each. Images are moved, and summed at the end.",
        (
            System("dmrpc", "ours, by reference", program, "ref", True),
            System("dmrpc-value", "ours, by value", program, "value", True),
            System("grpc", "gRPC (tonic)", program, "grpc"),
            *on_ray("service.py", [("ray-actors", "Ray actors", "ref"), ("ray-actors-value", "Ray actors, by value", "value")]),
        ),
        at_rates(sizes, shares, lambda size: {"size": size}),
        ahead_of_grpc("dmrpc"),
        percentiles=True,
    )


# Of a hundred requests of the social network: posts, readings of user timelines; the rest are of home timelines.
MIXES = {"deathstarbench": (10, 30), "paper": (10, 60)}


def social(effort, mix="deathstarbench", database=None):
    compose, read_user = MIXES[mix]
    sizes = {"smoke": [16 * KIB], "quick": [4 * KIB, 64 * KIB, 256 * KIB], "full": [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB]}[effort]
    shares = {"smoke": [0.5], "quick": [0.2, 0.5, 0.8], "full": [0.2, 0.4, 0.6, 0.8, 0.9]}[effort]
    program = (str(BINARIES / "social-network"), "--turns", *(("--database", database) if database else ()))
    return Part(
        "social",
        "Social network",
        f"Twelve services, a process each, their data in {'Redis' if database else 'redb'}. Of 100 requests {compose} write a post with a picture of this "
        f"size, {read_user} read a user timeline and {100 - compose - read_user} a home timeline, up to ten posts with their pictures; readers read every "
        "byte.",
        (
            System("dmrpc", "ours, by reference", program, "ref", True),
            System("dmrpc-value", "ours, by value", program, "value", True),
            System("grpc", "gRPC (tonic)", program, "grpc"),
        ),
        at_rates(sizes, shares, lambda size: {"size": size, "mix": [compose, read_user]}),
        ahead_of_grpc("dmrpc"),
        percentiles=True,
    )


def offload(effort):
    sizes = {"smoke": [64 * KIB], "quick": [64 * KIB, MIB], "full": [4 * KIB, 64 * KIB, 256 * KIB, MIB]}[effort]
    cases = [
        Case(f"blocks of {size_text(size)}, 4 at a time", {"size": size, "load": flight(4)}, "throughput", size) for size in sizes
    ]
    program = (str(BINARIES / "offload"), "--turns")
    return Part(
        "offload",
        "Offload",
        "A stream of blocks is compressed by one service and encrypted by another. Most of it is that work, whichever way blocks travel.",
        (System("dmrpc", "ours, by reference", program, "ref", True), System("dmrpc-value", "ours, by value", program, "value", True)),
        tuple(cases),
    )


def everyday(effort):
    names = [
        ("word_count", "word count by map and reduce"),
        ("sort", "sort of 100,000 records by a shuffle"),
        ("parameter_server", "parameter server, 60 steps"),
        ("inference", "batch inference with one read-only model"),
        ("augmentation", "image augmentation on writable arrays"),
    ]
    cases = [Case(title, {"program": name}, "latency") for name, title in names]
    return Part(
        "everyday",
        "Everyday Python programs",
        "The programs of examples/, the same on Ray and ours, and on Spark where they are natural there: how long a run takes. Much of it is "
        "the program's own work.",
        (
            *on_ray("everyday.py", [("ray-actors", "Ray", "any")]),
            System(
                "spark",
                "Spark",
                python("spark.py", "--part", "everyday"),
                "any",
                False,
                SPARK,
                lambda case: case.order["program"] in ("word_count", "sort", "inference"),
            ),
        ),
        tuple(cases),
    )


def all_parts(effort, binaries=BINARIES, mix="deathstarbench", database=None):
    """Every part, in the order of the report; `effort` is "smoke", "quick" or "full". Rust programs are in `binaries`. `mix` and `database` are of the
    social network: what its users do, and what is behind it instead of the embedded one."""

    def found(system):
        program, *arguments = system.command
        if pathlib.Path(program).parent == BINARIES:
            program = str(binaries / pathlib.Path(program).name)
        return dataclasses.replace(system, command=(program, *arguments))

    made = [make(effort) for make in (cow, chain, create_ref, first_put, translate, transfer, service)]
    made += [social(effort, mix, database), offload(effort), everyday(effort)]
    return [dataclasses.replace(part, systems=tuple(map(found, part.systems))) for part in made]
