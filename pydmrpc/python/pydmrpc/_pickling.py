"""Pickling what plain pickle can't, and where in a value the part is that can't be pickled at all."""

from __future__ import annotations

import io
import types
from collections.abc import Callable, Iterator
from typing import IO, Any

import cloudpickle

#: How deep, and at how many parts, is looked before giving up: it is a help for people, not a search.
_MAX_DEPTH = 20
_MAX_PARTS = 10_000


def _reduce_code(code: types.CodeType) -> tuple[Any, ...]:
    make, args = cloudpickle.Pickler.dispatch_table[types.CodeType](code)
    return _code_of, (make, args, code.co_filename)


def _code_of(make: Callable[..., types.CodeType], args: tuple[Any, ...], filename: str) -> types.CodeType:
    return make(*args).replace(co_filename=filename)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's, but that code keeps the name of its file: tracebacks of tasks show the user's lines by it."""

    dispatch_table = cloudpickle.Pickler.dispatch_table.new_child({types.CodeType: _reduce_code})


def dump(obj: Any, file: IO[bytes], protocol: int | None = None, buffer_callback: Callable[[Any], Any] | None = None) -> None:
    """Writes the pickle of any value, functions and classes by their code where they have no name that others could import."""
    Pickler(file, protocol=protocol, buffer_callback=buffer_callback).dump(obj)


def dumps(obj: Any, protocol: int | None = None, buffer_callback: Callable[[Any], Any] | None = None) -> bytes:
    """The pickle of any value. See :func:`dump`."""
    with io.BytesIO() as file:
        dump(obj, file, protocol, buffer_callback)
        return file.getvalue()


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
        dumps(value, protocol=5, buffer_callback=lambda _: None)
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
