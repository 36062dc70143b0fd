"""Tensors of torch whose memory goes straight into pages, and comes back without a copy.

torch pickles the bytes of a tensor as a part of the pickle. Here a tensor that is the whole of its memory, on the processor, is
pickled as an array beside the pickle, as numpy's are. What is more than that (parts of another's memory, sparse, quantized, on an
accelerator, with hooks) is pickled as torch does it.
"""

from __future__ import annotations

import copyreg
import sys
import warnings
from typing import Any


def register() -> bool:
    """Has tensors pickled like that; False while torch is not there."""
    torch = sys.modules.get("torch")
    kind = getattr(torch, "Tensor", None)
    if kind is None or not hasattr(torch, "from_numpy"):
        return False
    # What somebody registered before stays.
    copyreg.dispatch_table.setdefault(kind, _reduce)
    return True


def _reduce(tensor: Any) -> Any:
    if not _is_plain(tensor):
        return tensor.__reduce_ex__(5)
    import torch

    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return _tensor, (flat, tensor.dtype, tuple(tensor.shape), bool(tensor.requires_grad))


def _is_plain(tensor: Any) -> bool:
    import torch

    return (
        tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and not tensor.is_quantized
        and not tensor.is_conj()
        and not tensor.is_neg()
        and tensor.is_leaf
        and tensor.is_contiguous()
        and not tensor.__dict__
        and not tensor._backward_hooks
        and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    )


def _tensor(flat: Any, dtype: Any, shape: tuple[int, ...], requires_grad: bool) -> Any:
    import torch

    with warnings.catch_warnings():
        # Of arrays that can't be written: whoever asked for `writable=False` knows.
        warnings.simplefilter("ignore", UserWarning)
        tensor = torch.from_numpy(flat).view(dtype).reshape(shape)
    return tensor.requires_grad_() if requires_grad else tensor
