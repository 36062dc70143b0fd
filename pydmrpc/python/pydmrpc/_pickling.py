"""Where in a value the part is that can't be pickled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cloudpickle

#: How deep, and at how many parts, is looked before giving up: it is a help for people, not a search.
_MAX_DEPTH = 20
_MAX_PARTS = 10_000


def locate(value: Any) -> str | None:
    """The way from `value` to the innermost part that can't be pickled, as one would write it; None if none is found."""
    budget = [_MAX_PARTS]
    path, part = "value", value
    for _ in range(_MAX_DEPTH):
        for step, inner in _parts(part):
            budget[0] -= 1
            if budget[0] == 0:
                return None
            if not _can_be_pickled(inner):
                path, part = path + step, inner
                break
        else:
            break
    return f"{path} is a {type(part).__qualname__}, which can't be pickled"


def _can_be_pickled(value: Any) -> bool:
    try:
        cloudpickle.dumps(value, protocol=5, buffer_callback=lambda _: None)
    except Exception:
        return False
    return True


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"[{key!r}]", inner
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield f"[{index}]", inner
    elif closure := getattr(value, "__closure__", None):
        for name, cell in zip(value.__code__.co_freevars, closure):
            yield f" → the variable {name} it uses", cell.cell_contents
    else:
        for name, inner in getattr(value, "__dict__", {}).items():
            yield f".{name}", inner
