"""Arguments that a function does not take, found where it is called rather than where it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

_Kind = inspect.Parameter


def checked(remote: Callable[..., Any], function: Callable[..., Any], skip: int = 0) -> Callable[..., Any]:
    """`remote`, but that it raises TypeError for arguments that `function` does not take after its first `skip`."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        # Of a function in C.
        return remote
    if skip and parameters and parameters[0].kind in (_Kind.POSITIONAL_ONLY, _Kind.POSITIONAL_OR_KEYWORD):
        parameters = parameters[skip:]
    return _checked(remote, parameters)


def checked_by(remote: Callable[..., Any], takes: tuple[tuple[str, int, bool], ...]) -> Callable[..., Any]:
    """As :func:`checked`, by names and kinds of parameters, and whether they have a default."""
    parameters = [
        inspect.Parameter(name, _KINDS[kind], default=None if has_default else _Kind.empty) for name, kind, has_default in takes
    ]
    return _checked(remote, parameters)


def _checked(remote: Callable[..., Any], parameters: list[inspect.Parameter]) -> Callable[..., Any]:
    shape = _Shape(parameters)

    def call(*args: Any, **kwargs: Any) -> Any:
        # By their number where that tells all.
        if kwargs or not shape.least <= len(args) <= shape.most:
            shape.signature.bind(*args, **kwargs)
        return remote(*args, **kwargs)

    return call


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


class _Shape:
    """How many positional arguments do without further looks."""

    __slots__ = ("least", "most", "signature")

    def __init__(self, parameters: list[inspect.Parameter]) -> None:
        self.signature = inspect.Signature(parameters)
        positional = [p for p in parameters if p.kind in (_Kind.POSITIONAL_ONLY, _Kind.POSITIONAL_OR_KEYWORD)]
        needs_names = any(p.kind is _Kind.KEYWORD_ONLY and p.default is _Kind.empty for p in parameters)
        self.least = sum(p.default is _Kind.empty for p in positional)
        self.most: float = len(positional)
        if any(p.kind is _Kind.VAR_POSITIONAL for p in parameters):
            self.most = float("inf")
        if needs_names:
            self.most = -1
