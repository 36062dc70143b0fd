"""Functions and classes as they travel: pickled once, named by what they are."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

from pydmrpc import _pickling


def pickled(what: Any) -> bytes:
    """The pickle of a function or class.

    Raises:
        TypeError: if it refers to what can't be pickled, with the way to that in a note.
    """
    try:
        return _pickling.dumps(what, protocol=5)
    except Exception as error:
        place = _pickling.locate(what)
        message = f"Could not serialize {what!r}: {error}" + (f" ({place})" if place else "")
        raise TypeError(message) from error


def name_of(definition: tuple[Any, ...]) -> bytes:
    """The 16 bytes that a definition is known by."""
    digest = hashlib.blake2b(digest_size=16)
    for part in definition:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\0")
    return digest.digest()


@functools.lru_cache(maxsize=10_000)
def method(name: str, group: str | None, ahead: int | None) -> tuple[bytes, tuple[Any, ...]]:
    """Name and definition of the method of any actor, in a concurrency group, as far ahead of its caller as that."""
    definition = ("method", name, group, ahead)
    return name_of(definition), definition
