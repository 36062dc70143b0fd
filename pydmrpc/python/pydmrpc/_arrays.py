"""Arrays in the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydmrpc import _core

if TYPE_CHECKING:
    import numpy as np


def empty(shape: int | Sequence[int], dtype: Any = float) -> np.ndarray[Any, Any]:
    """An array that is allocated in the store: `put` of it copies nothing.

    Fill it, then store it whole. After that it is an array as from `get`: it can be written, nobody else sees that, and storing
    it again stores what was written. What is in it at first is unspecified, as with ``numpy.empty``::

        a = pydmrpc.empty((1024, 1024), "f4")
        numpy.add(b, c, out=a)
        ref = pydmrpc.put(a)

    Parts and transposed views of it are stored as copies.

    Raises:
        ObjectStoreFullError: if there is no room.
        ValueError: for types with references in them.
    """
    import numpy as np

    kind = np.dtype(dtype)
    if kind.hasobject or kind.kind == "V":
        raise ValueError(f"an array of {kind} can't lie in the store: its items are not plain numbers or text")
    axes = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    array: np.ndarray[Any, Any] = _core.allocate(kind.str, kind.itemsize, axes)
    return array
