#!/usr/bin/env python3
"""Keeps each processor of a guest on a processor of its own, if there are as many: pin.py IMAGE

IMAGE is what the guest's emulator was started with. On a busy host both might share one otherwise, and each message wait for
a turn of the host's scheduler.
"""

import os
import sys
import time
from pathlib import Path

GUEST_PROCESSORS = 2
DEADLINE_S = 20


def processors(image: str) -> dict[int, int]:
    """The threads that are processors, by their number."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if image.encode() not in (process / "cmdline").read_bytes():
                continue
            for task in (process / "task").iterdir():
                name = (task / "comm").read_text()
                if name.startswith("CPU ") and "/" in name:
                    found[int(name[4:].split("/")[0])] = int(task.name)
        except OSError:
            # It has ended.
            continue
    return found


def main() -> None:
    hosts = sorted(os.sched_getaffinity(0))
    if len(hosts) < GUEST_PROCESSORS:
        return
    until = time.monotonic() + DEADLINE_S
    while len(found := processors(sys.argv[1])) < GUEST_PROCESSORS:
        if time.monotonic() > until:
            sys.exit("pin.py: there is no such guest")
        time.sleep(0.05)
    for number, thread in found.items():
        os.sched_setaffinity(thread, {hosts[number]})


if __name__ == "__main__":
    main()
