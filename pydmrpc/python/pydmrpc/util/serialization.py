"""How values of a user's classes are pickled, and what about a value can't be."""

from __future__ import annotations

import copyreg
import inspect
import io
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

from pydmrpc import _pickling


def register_serializer(cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """Pickles values of a class by functions of the user, in this process.

    The function that makes them again travels with each value, so it need not be registered where the value goes.

    Args:
        cls: exactly the class, not those derived from it.
        serializer: makes something of a value that can be pickled.
        deserializer: makes a value of that.

    Example::

        register_serializer(Connection, serializer=lambda c: c.address, deserializer=Connection)
    """
    # By its code where it has no name that others could import.
    function = _pickling.dumps(deserializer)
    copyreg.pickle(cls, lambda value: (_restore, (function, serializer(value))))


def deregister_serializer(cls: type) -> None:
    """Takes :func:`register_serializer` of a class back."""
    copyreg.dispatch_table.pop(cls, None)


def _restore(function: bytes, state: Any) -> Any:
    return pickle.loads(function)(state)


class FailureTuple(NamedTuple):
    """Something that can't be pickled, and where it was found."""

    obj: Any
    """The thing itself."""
    path: tuple[str, ...]
    """The names on the way to it."""
    parent: Any
    """What it is part of."""

    @property
    def name(self) -> str:
        """Its name there."""
        return self.path[-1]


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: Any = None
) -> tuple[bool, set[Any]]:
    """Whether a value can be pickled, and if not, what within it is the reason.

    Args:
        base_obj: the value.
        name: what to call it in what is printed.
        depth: how deep to look into closures and attributes.
        print_file: where to print what is found; the standard output by default.

    Returns:
        Whether it can, and a set of :class:`FailureTuple` if not.

    Example::

        ok, failures = inspect_serializability(function, name="function")
    """
    if _can_pickle(base_obj):
        return True, set()
    found: dict[int, FailureTuple] = {}
    label = name or getattr(base_obj, "__name__", None) or repr(base_obj)
    _search(base_obj, (label,), None, depth, found)
    out = io.StringIO()
    out.write(f"{label} can't be pickled:\n")
    for failure in found.values():
        out.write(f"  {failure.name}: {failure.obj!r}, within {failure.parent!r}\n")
    print(out.getvalue(), end="", file=print_file)
    return False, _Failures(found.values())


class _Failures(set[Any]):
    """Failures by identity: what can't be pickled often can't be hashed either."""

    def __init__(self, failures: Any) -> None:
        super().__init__(_Failure(*failure) for failure in failures)


class _Failure(FailureTuple):
    __slots__ = ()

    def __hash__(self) -> int:
        return hash((id(self.obj), self.path))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FailureTuple) and self.obj is other.obj and self.path == other.path


def _can_pickle(value: Any) -> bool:
    try:
        _pickling.dumps(value)
    except Exception:
        return False
    return True


def _search(value: Any, path: tuple[str, ...], parent: Any, depth: int, found: dict[int, FailureTuple]) -> bool:
    """Looks for what can't be pickled within a value that can't; whether something was found."""
    parts: dict[str, Any] = {}
    if inspect.isfunction(value):
        closure = inspect.getclosurevars(value)
        parts |= {**closure.nonlocals, **closure.globals}
    elif isinstance(value, dict):
        parts |= {f"[{key!r}]": item for key, item in value.items()}
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts |= {f"[{i}]": item for i, item in enumerate(value)}
    elif hasattr(value, "__dict__"):
        parts |= {f".{key}": item for key, item in vars(value).items()}
    inner = False
    if depth > 0:
        for key, part in parts.items():
            if part is not value and not _can_pickle(part):
                inner |= _search(part, (*path, key), value, depth - 1, found)
    if not inner:
        found[id(value)] = FailureTuple(value, path, parent)
    return True
