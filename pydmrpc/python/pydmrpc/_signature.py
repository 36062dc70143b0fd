"""Arguments that a function does not take, found where it is called rather than where it runs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

_Kind = inspect.Parameter

#: How many positional arguments do without further looks, at least and at most; what raises TypeError for others that do not.
Takes = tuple[int, int, Callable[..., object]]


def of(function: Callable[..., Any], skip: int = 0) -> Takes | None:
    """What `function` takes after its first `skip` arguments; None if that is not known, as of a function in C."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    if skip and parameters and parameters[0].kind in (_Kind.POSITIONAL_ONLY, _Kind.POSITIONAL_OR_KEYWORD):
        parameters = parameters[skip:]
    return _takes(parameters)


def by(parameters: tuple[tuple[str, int, bool], ...]) -> Takes:
    """As :func:`of`, by names and kinds of parameters, and whether they have a default."""
    return _takes(
        [inspect.Parameter(name, _KINDS[kind], default=None if has_default else _Kind.empty) for name, kind, has_default in parameters]
    )


def _takes(parameters: list[inspect.Parameter]) -> Takes:
    positional = [p for p in parameters if p.kind in (_Kind.POSITIONAL_ONLY, _Kind.POSITIONAL_OR_KEYWORD)]
    least, most = sum(p.default is _Kind.empty for p in positional), len(positional)
    if any(p.kind is _Kind.VAR_POSITIONAL for p in parameters):
        most = sys.maxsize
    if any(p.kind is _Kind.KEYWORD_ONLY and p.default is _Kind.empty for p in parameters):
        # No number does.
        least, most = 1, 0
    return least, most, inspect.Signature(parameters).bind


#: Kinds of parameters by their numbers.
_KINDS: dict[int, Any] = {
    int(kind): kind
    for kind in (
        _Kind.POSITIONAL_ONLY,
        _Kind.POSITIONAL_OR_KEYWORD,
        _Kind.VAR_POSITIONAL,
        _Kind.KEYWORD_ONLY,
        _Kind.VAR_KEYWORD,
    )
}
