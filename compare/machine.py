"""The machine and the versions that were measured, and what else it was doing: a figure without them means little."""

import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
import time


def first_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout or done.stderr).strip().split("\n")[0]


def field(path, name):
    try:
        found = re.search(rf"^{name}\s*:\s*(.*)$", pathlib.Path(path).read_text(), re.M)
    except OSError:
        return None
    return found and found[1]


def look():
    memory = field("/proc/meminfo", "MemTotal")
    return {
        "cpu": field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "virtual": " hypervisor" in (field("/proc/cpuinfo", "flags") or ""),
        "memory_gib": round(int(memory.split()[0]) / (1 << 20)) if memory else None,
        "kernel": platform.release(),
    }


def versions(root):
    def package(name):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    lock = (root / "Cargo.lock").read_text()
    tonic = re.search(r'name = "tonic"\nversion = "(.*)"', lock)
    found = {
        "rustc": (first_line("rustc", "--version") or "").removeprefix("rustc ").split(" (")[0],
        "python": platform.python_version(),
        "ray": package("ray"),
        "pyspark": package("pyspark"),
        "pyarrow": package("pyarrow"),
        "java": next(iter(re.findall(r'"(.+?)"', first_line("java", "-version") or "")), None),
        "tonic": tonic and tonic[1],
        "numpy": package("numpy"),
    }
    return {name: version for name, version in found.items() if version}


def load():
    """Processes that wanted to run over the last minute, and the share of processor time that nobody used, over a moment."""
    before = _ticks()
    time.sleep(1)
    after = _ticks()
    idle = (after[3] - before[3]) / max(1, sum(after) - sum(before))
    return {"last_minute": os.getloadavg()[0], "idle_percent": round(idle * 100)}


def _ticks():
    return [int(n) for n in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
