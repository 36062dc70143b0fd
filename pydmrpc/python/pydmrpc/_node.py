"""The memory node that this process uses: starting, joining, leaving it, and its figures."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import socket
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydmrpc import _core, _environment, _futures, _head, _runtime, _tallies

#: Options of Ray's `init` that are taken and ignored.
_WITHOUT_MEANING = {
    "configure_logging", "dashboard_host", "dashboard_port", "include_dashboard", "job_config", "labels", "local_mode",
    "log_to_driver_filter", "logging_config", "logging_format", "logging_level", "_cluster_id", "_driver_object_store_memory",
    "_memory", "_node_ip_address", "_node_name", "_redis_max_memory", "_redis_password", "_system_config",
    "_temp_dir", "_tracing_startup_hook",
}  # fmt: skip


class Context(NamedTuple):
    """What `init` gives: where the memory node is and what it is like."""

    address: str
    """Other processes of this host join by ``pydmrpc.init(address=…)`` with it."""
    node: str
    """Which memory node it is, in hex: a node that was restarted is another node."""
    page_bytes: int
    """Size of a page, the unit of copy-on-write."""
    is_local: bool
    """Whether the node is on this host, so that arrays from `get` are its very pages."""

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        shutdown()


def init(
    address: str | None = None,
    *,
    pool: int | str | None = None,
    page_size: int | str | None = None,
    token: str | bytes | None = None,
    name: str | None = None,
    quota: int | str | None = None,
    deadline: float = 10.0,
    listen: str | Sequence[str] = (),
    ignore_reinit_error: bool = False,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: Mapping[str, float] | None = None,
    namespace: str | None = None,
    log_to_driver: bool = True,
    runtime_env: Mapping[str, Any] | None = None,
    object_store_memory: int | None = None,
    _metrics_export_port: int | None = None,
    **others: Any,
) -> Context:
    """Starts a memory node within this process, or joins the one at `address`.

    Called by itself at the first use of the store, with no arguments; after `shutdown` it may be called again.

    Args:
        address: ``"unix:///path"`` of a memory node on this host, ``"tcp://host:port"`` or
            ``"tls://host:port?ca=FILE"`` of one elsewhere; ``"hub:///path"``, as
            `hub_address` gives it, to share tasks, actors and results with another program; None starts all that is needed.
        pool: most memory that a node started here takes, in bytes or as ``"4GiB"``; a quarter of the host's by default.
        page_size: the unit of copy-on-write of a node started here, a power of two from 4 KiB to 2 MiB.
        token: the tenant's token, where the node asks for one.
        name: what this process calls itself, for people who look at the node's sessions.
        quota: how much of the pool this process would like to be allowed.
        deadline: seconds that an operation waits for the node before it raises GetTimeoutError.
        listen: addresses at which a node started here is reached, besides a Unix socket of its own.
        ignore_reinit_error: give the context of the running session instead of raising.
        num_cpus: processors that tasks may occupy together; those that this process may use by default.
        num_gpus: accelerators, as a number only.
        resources: whatever else tasks and actors are to occupy, by name.
        namespace: of the names of actors that say none.
        log_to_driver: whether what workers print is printed here.
        runtime_env: variables and working directory of all workers.
        object_store_memory: as `pool`, for programs that say so.
        _metrics_export_port: port of the loopback interface where `util.metrics` of a session started here are served.
        others: options of Ray that have no meaning here.

    Raises:
        OSError: if the port is taken.
        RuntimeError: if a session runs already, or for options that Ray does not have either.
        NodeUnreachableError: if there is no node at `address`, or none could be started.
        AccessDeniedError: if the token is wrong.
        ValueError: if `address` is none, or the options contradict each other.

    Example::

        with tempfile.TemporaryDirectory() as d:
            subprocess.Popen(["dmrpc-memnode", "--listen", f"unix://{d}/node"])
            pydmrpc.init(f"unix://{d}/node")
    """
    if is_initialized():
        if ignore_reinit_error:
            return _context()
        raise RuntimeError("init was called twice: call shutdown first, or pass ignore_reinit_error=True")
    if unknown := sorted(others.keys() - _WITHOUT_MEANING):
        raise RuntimeError(f"init has no options {', '.join(unknown)}")
    for what, amount in {"num_cpus": num_cpus, "num_gpus": num_gpus, **(resources or {})}.items():
        if amount is not None and amount < 0:
            raise ValueError(f"{what} must not be negative, as {amount} is")
    environment = _environment.check(runtime_env)
    _runtime.options.clear()
    _runtime.options.update(
        num_cpus=num_cpus, num_gpus=num_gpus, resources=resources, namespace=namespace, log_to_driver=log_to_driver
    )
    hub = _head.find(address)
    if hub is not None:
        _runtime.join(hub)
    else:
        secret = token.encode() if isinstance(token, str) else token
        addresses = [listen] if isinstance(listen, str) else list(listen)
        _sweep()
        _core.start(
            None if address == "local" else address,
            pool if pool is not None else object_store_memory,
            page_size,
            secret,
            name,
            quota,
            deadline,
            addresses,
        )
        if _metrics_export_port is not None:
            try:
                _runtime.serve_metrics(_metrics_export_port)
            except OSError:
                _core.stop()
                raise
    _environment.current.clear()
    _environment.current.update(environment)
    return _context()


def _context() -> Context:
    if not _core.is_started():
        # Of the node of a hub elsewhere.
        _core.stats()
    return Context(*_core.about())


def _sweep() -> None:
    """Removes the sockets of processes that were killed: whoever ends by itself has removed its own."""
    directory = tempfile.gettempdir()
    for name in os.listdir(directory):
        found = re.fullmatch(r"dmrpc-(\d+)-.*\.sock", name)
        if found is None or os.path.exists(f"/proc/{found[1]}"):
            continue
        path = os.path.join(directory, name)
        # The process may be of another container that shares the directory.
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.settimeout(0.1)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)


def shutdown() -> None:
    """Ends the session, and the memory node if it was started here. Does nothing if there is none.

    References of the session can't be used any more; arrays that `get` gave stay readable. At the end of the interpreter it
    is called by itself.
    """
    _runtime.end_serving()
    _tallies.end()
    _core.stop()
    _futures.stop()
    _runtime.joined.clear()
    _environment.current.clear()
    _environment.inherited.clear()


def is_initialized() -> bool:
    """Whether there is a session with a memory node."""
    return _core.is_started() or _core.current() is not None


def stats() -> dict[str, int]:
    """The memory node's figures, by name: pages by what they are used for, objects, holds, sessions, requests, …"""
    return _core.stats()


class Memory(NamedTuple):
    """How the pool of the memory node is used, in bytes."""

    pool: int
    """What there may be at most."""
    used: int
    """What objects use, shared pages counted once."""
    logical: int
    """What objects would use if nothing was shared."""
    leased: int
    """What clients have ready for objects to come."""
    objects: int
    """Number of objects."""
    holds: int
    """Number of claims that keep them alive."""
    sessions: int
    """Number of connected processes."""


def memory() -> Memory:
    """How the pool of the memory node is used.

    What this process put and no other process has seen yet counts as leased: the node does not hear of such objects.
    """
    s = _core.stats()
    page = s["page_bytes"]
    return Memory(
        pool=s["pool_pages"] * page,
        used=s["live_pages"] * page,
        logical=s["logical_pages"] * page,
        leased=s["unpublished_pages"] * page,
        objects=s["objects"],
        holds=s["holds"],
        sessions=s["sessions"],
    )


class Sharing(NamedTuple):
    """How many pages two objects have in common."""

    pages_a: int
    """Pages of the one."""
    pages_b: int
    """Pages of the other."""
    shared: int
    """Pages that are the same."""


def sharing(a: _core.ObjectRef, b: _core.ObjectRef | None = None) -> Sharing:
    """How many pages `a` has in common with `b`, or with the object that it was made of.

    An edit makes one object of another, and so does `put` of an array from `get`.

    Objects whose bytes travel with the reference have no pages::

        a = pydmrpc.get(ref)
        a[0] = 1
        new = pydmrpc.put(a)
        pydmrpc.sharing(new)         # Sharing(pages_a=1025, pages_b=1025, shared=1024)
    """
    return Sharing(*_core.sharing(a, b))


atexit.register(shutdown)
os.register_at_fork(after_in_child=_core._forked)
