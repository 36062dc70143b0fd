"""A hub that outlives programs: what ``dmrpc start`` runs, and how others find it."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import stat
import sys
import tempfile
import threading
from typing import Any


def folder() -> pathlib.Path:
    """Where the hub of this user leaves what others find it by. Nobody else can write there."""
    path = pathlib.Path(tempfile.gettempdir()) / f"dmrpc-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.stat(follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{path} is not a folder that belongs to this user alone: remove it")
    return path


def running() -> dict[str, Any] | None:
    """What is known of the hub that ``dmrpc start`` started, if it runs."""
    try:
        about: dict[str, Any] = json.loads((folder() / "head.json").read_text())
        # A number may have become another process's.
        if _started(about["pid"]) != about["started"]:
            return None
    except (OSError, ValueError, KeyError):
        return None
    return about


def _started(pid: int) -> str:
    """When a process was started, in ticks since the machine was."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]


def find(address: str | None) -> str | None:
    """The socket of the hub that `init` is to join; None if it is to start one, or to join a memory node alone.

    Raises:
        ConnectionError: if ``"auto"`` finds none.
    """
    if address is None or address == "local":
        address = os.environ.get("DMRPC_ADDRESS") if address is None else None
        if address is None:
            return None
    if address == "auto":
        about = running()
        if about is None:
            raise ConnectionError(
                "no system runs that could be joined: run dmrpc start, or leave the address out to start one here"
            )
        return str(about["socket"])
    return address.removeprefix("hub://") if address.startswith("hub://") else None


def main() -> None:
    """The process of the hub: starts it, tells that it is ready, and waits for its end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--options", type=json.loads, required=True)
    parser.add_argument("--ready", type=int, required=True)
    arguments = parser.parse_args()
    import pydmrpc
    from pydmrpc import _core, _runtime

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    pydmrpc.init("local", log_to_driver=True, **arguments.options)
    _runtime.start()
    socket = (_core._hub_address() or "").removeprefix("hub://")
    about = {"pid": os.getpid(), "started": _started(os.getpid()), "socket": socket, "node": _core.about()[0]}
    path = folder() / "head.json"
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(about))
    fresh.replace(path)
    os.write(arguments.ready, json.dumps(about).encode())
    os.close(arguments.ready)
    ended.wait()
    path.unlink(missing_ok=True)
    pydmrpc.shutdown()
    sys.stdout.flush()


if __name__ == "__main__":
    main()
