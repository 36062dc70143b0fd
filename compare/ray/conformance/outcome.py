"""What a case ended in, as JSON that does not depend on the process or the system."""

from __future__ import annotations

import re
from typing import Any

_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")


def of_value(value: Any, system: str) -> dict[str, Any]:
    return {"value": plain(value, system)}


def of_error(error: BaseException) -> dict[str, Any]:
    return {"raises": type(error).__name__}


HANG = {"raises": "(no end)"}
CRASH = {"raises": "(end of the process)"}


def plain(value: Any, system: str) -> Any:
    """A value as JSON: equal for equal values of either system."""
    if value is None or isinstance(value, (bool, int, str)) and type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if value == value and abs(value) != float("inf") else repr(value)
    if type(value) in (list, tuple):
        items = [plain(item, system) for item in value]
        return items if type(value) is list else {"tuple": items}
    if type(value) in (set, frozenset):
        return {type(value).__name__: sorted((plain(item, system) for item in value), key=repr)}
    if type(value) is dict:
        return {"dict": [[plain(key, system), plain(item, system)] for key, item in value.items()]}
    if isinstance(value, type):
        return {"type": value.__name__}
    if isinstance(value, BaseException):
        return {"error": type(value).__name__}
    if type(value).__module__ == "numpy":
        if type(value).__name__ == "ndarray":
            return {
                "array": [
                    str(value.dtype),
                    list(value.shape),
                    plain(value.ravel().tolist()[:1000], system),
                ]
            }
        return {str(value.dtype): plain(value.item(), system)}
    return {"repr": _ADDRESS.sub("0x", repr(value)).replace(system, "ray")}
