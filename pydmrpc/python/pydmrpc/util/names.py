"""What is known by name: actors, this host, and what was said already."""

from __future__ import annotations

import threading
from typing import Any

import pydmrpc

_said: set[str] = set()
_lock = threading.Lock()


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """Names of the actors that live and have one.

    Args:
        all_namespaces: those of all namespaces rather than of this one.

    Returns:
        Names; with `all_namespaces` dicts of ``name`` and ``namespace``.
    """
    from pydmrpc.util.state import list_actors

    namespace = pydmrpc.get_runtime_context().namespace
    named = [row for row in list_actors(limit=None) if row.name and row.state != "DEAD"]
    if all_namespaces:
        return [{"name": row.name, "namespace": row.ray_namespace} for row in named]
    return [row.name for row in named if row.ray_namespace == namespace]


def get_node_ip_address() -> str:
    """The address of this host: all runs on one, so its loopback address."""
    return "127.0.0.1"


def log_once(key: str) -> bool:
    """Whether this process asks for the first time with this key: for messages that are to be seen once."""
    with _lock:
        if key in _said:
            return False
        _said.add(key)
        return True
