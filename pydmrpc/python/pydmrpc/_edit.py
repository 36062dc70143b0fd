"""Editing an object: only the pages that are written are copied, all others are shared with what it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from pydmrpc import _core


class Edit:
    """A private, writable picture of an array or of bytes. ``ref.edit()`` makes one.

    In a ``with`` block it is committed at the end, and discarded if the block raises::

        with ref.edit() as e:
            e[10:20] = 0
        new = e.ref          # shares all other pages with ref

    or step by step: ``e = ref.edit(); e[3] = 1; new = e.commit()``.

    Arrays take the indices of numpy that name a view of it: ints, slices, ``...`` and tuples of them. Bytes take ints and
    slices whose length does not change.
    """

    __slots__ = ("_committed", "_core", "_discarded", "_model", "_source")

    def __init__(self, source: _core.ObjectRef, core: _core.Edit) -> None:
        self._source = source
        self._core = core
        self._committed: _core.ObjectRef | None = None
        self._discarded = False
        # An array over the unedited bytes: it is never read, only asked where an index leads.
        self._model: Any = source.model() if source.kind == "array" else None

    def __enter__(self) -> Edit:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._committed is not None or self._discarded:
            return
        if kind is None:
            self.commit()
        else:
            self.discard()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        """A copy of what is there now, edits included."""
        if self._model is None:
            start, stop = self._byte_range(index)
            run = self._core.read(start, stop - start)
            return run if isinstance(index, slice) else run[0]
        import numpy as np

        view = self._view(index)
        if view.size == 0:
            return np.empty(view.shape, view.dtype)
        low, span = _span(self._model, view)
        content = np.ndarray(view.shape, view.dtype, bytearray(self._core.read(low, span)), _lead(view), view.strides)
        return content.copy() if content.ndim else content[()]

    def __setitem__(self, index: Any, value: Any) -> None:
        if self._model is None:
            start, stop = self._byte_range(index)
            content = bytes([value]) if not isinstance(index, slice) else memoryview(value).cast("B")
            if len(content) != stop - start:
                raise ValueError(f"{len(content)} bytes can't take the place of {stop - start}: an edit keeps the length")
            self._core.write(start, content)
            return
        import numpy as np

        view = self._view(index)
        self._assign(view, np.broadcast_to(np.asarray(value, dtype=self._model.dtype), view.shape))

    def _assign(self, view: Any, value: Any) -> None:
        """Writes the items of ``value`` where ``view`` of the model is, run by run."""
        import numpy as np

        if view.size == 0:
            return
        low, span = _span(self._model, view)
        if view.flags.c_contiguous:
            self._core.write(low, np.ascontiguousarray(value))
        elif view.ndim > 1:
            for part, content in zip(view, value):
                self._assign(part, content)
        else:
            content = bytearray(self._core.read(low, span))
            np.ndarray(view.shape, view.dtype, content, _lead(view), view.strides)[...] = value
            self._core.write(low, content)

    def _view(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        for part in parts:
            if not (part is Ellipsis or isinstance(part, slice) or (hasattr(part, "__index__") and not hasattr(part, "shape"))):
                raise TypeError(
                    f"an edit takes ints, slices and ..., not {type(part).__name__}: for other indices write to"
                    " a = pydmrpc.get(ref) and store that with pydmrpc.put(a), which keeps unchanged pages shared too"
                )
        # With an ellipsis a single item is a view too, and no number.
        return self._model[parts if Ellipsis in parts else (*parts, ...)]

    def _byte_range(self, index: Any) -> tuple[int, int]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError("bytes are edited in runs: the step must be 1")
            return start, max(start, stop)
        position = range(len(self))[index]
        return position, position + 1

    def write(self, offset: int, content: Any) -> None:
        """Writes bytes from byte ``offset`` on; they must end within the object."""
        self._core.write(offset, content)

    def read(self, offset: int, length: int) -> bytes:
        """Reads bytes as they are now."""
        return self._core.read(offset, length)

    def commit(self) -> _core.ObjectRef:
        """Makes a new object of it and returns its reference. The edit is over."""
        if self._committed is None:
            self._committed = self._core.commit()
        return self._committed

    def discard(self) -> None:
        """Forgets it. The edit is over."""
        self._discarded = True
        self._core.discard()

    @property
    def ref(self) -> _core.ObjectRef:
        """The new object, once the edit is committed."""
        if self._committed is None:
            raise ValueError("the edit is not committed: leave its with block, or call commit()")
        return self._committed


def _span(model: Any, view: Any) -> tuple[int, int]:
    """The first byte of the model that ``view`` touches, and how many there are to the last."""
    low = high = view.ctypes.data - model.ctypes.data
    for length, stride in zip(view.shape, view.strides):
        reach = (length - 1) * stride
        low, high = (low + reach, high) if reach < 0 else (low, high + reach)
    return low, high + view.itemsize - low


def _lead(view: Any) -> int:
    """How far the first item of ``view`` lies behind the first byte it touches."""
    return -int(sum((length - 1) * stride for length, stride in zip(view.shape, view.strides) if stride < 0))
