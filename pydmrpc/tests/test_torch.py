"""Tensors: with torch where it is installed, and with something that is no more than the part of it that is used."""

import importlib.util
import subprocess
import sys
import textwrap

import numpy as np
import pydmrpc
import pytest
from conftest import PATIENCE

#: What of torch `_torch.py` uses, over numpy.
FAKE = '''
"""A torch that has no more than bytes with a type and a shape."""

import numpy

uint8, float32, strided = "uint8", "float32", "strided"


class _Storage:
    def __init__(self, array):
        self.array = array

    def nbytes(self):
        return self.array.nbytes


class _Device:
    type = "cpu"


class Tensor:
    device, layout, is_quantized, is_leaf, _backward_hooks = _Device, strided, False, True, None
    __slots__ = ("array", "base", "requires_grad", "__dict__")

    def __init__(self, array, base=None, requires_grad=False):
        self.array, self.base, self.requires_grad = array, array if base is None else base, requires_grad

    dtype = property(lambda self: str(self.array.dtype))
    shape = property(lambda self: self.array.shape)
    is_conj = is_neg = lambda self: False
    detach = contiguous = lambda self: self
    is_contiguous = lambda self: self.array.flags.c_contiguous
    numel = lambda self: self.array.size
    element_size = lambda self: self.array.itemsize
    untyped_storage = lambda self: _Storage(self.base)
    numpy = lambda self: self.array

    def reshape(self, *shape):
        return Tensor(self.array.reshape(*shape))

    def view(self, dtype):
        return Tensor(self.array.view(dtype))

    def requires_grad_(self):
        self.requires_grad = True
        return self

    def __getitem__(self, index):
        return Tensor(self.array[index], self.base)

    def __reduce_ex__(self, protocol):
        return _copied, (self.array.tobytes(), self.dtype, self.shape)


def _copied(content, dtype, shape):
    return Tensor(numpy.frombuffer(content, dtype).reshape(shape))


def from_numpy(array):
    return Tensor(array)


def ones(*shape):
    return Tensor(numpy.ones(shape, "float32"))
'''

PROGRAM = """
    import torch, numpy as np, pydmrpc

    pydmrpc.init(num_cpus=1, pool="256MiB")
    tensor = torch.ones(3, 1 << 20)
    ref = pydmrpc.put({"weights": tensor, "step": 7})
    came = pydmrpc.get(ref)["weights"]
    assert tuple(came.shape) == (3, 1 << 20) and came.dtype == tensor.dtype and not came.requires_grad
    # It is in the pages of the store, and can be written like any array that `get` gives.
    base = came.numpy()
    while isinstance(base.base, np.ndarray):
        base = base.base
    kept = base.base.obj if isinstance(base.base, memoryview) else base.base
    assert type(kept).__name__ == "PageBuffer", type(kept)
    came.numpy()[0, 0] = 2
    assert pydmrpc.get(ref)["weights"].numpy()[0, 0] == 1
    # A part of another's memory goes as torch has it go.
    part = pydmrpc.get(pydmrpc.put([tensor[1]]))[0]
    assert tuple(part.shape) == (1 << 20,) and part.numpy()[0] == 1
    grad = pydmrpc.get(pydmrpc.put(torch.ones(5).requires_grad_()))
    assert grad.requires_grad

    @pydmrpc.remote
    def total(tensor):
        return float(tensor.numpy().sum())

    assert pydmrpc.get(total.remote(tensor), timeout=60) == 3 << 20
    print("fine")
"""


@pytest.mark.parametrize("which", ["torch", "fake"])
def test_tensors(tmp_path, which):
    if which == "fake":
        (tmp_path / "torch.py").write_text(FAKE)
    elif importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    pydmrpc.shutdown()
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + textwrap.dedent(PROGRAM)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE * 2)
    assert done.stdout == "fine\n", done.stderr


def test_any_buffer_of_pickle_5(embedded):
    class Picture:
        def __init__(self, pixels):
            self.pixels = pixels

        def __reduce_ex__(self, protocol):
            import pickle

            return Picture, (pickle.PickleBuffer(self.pixels),)

    picture = Picture(np.arange(1 << 20, dtype="u1"))
    ref = pydmrpc.put(picture)
    before = pydmrpc.memory()
    came = pydmrpc.get(ref)
    assert np.array_equal(np.frombuffer(came.pixels, "u1"), picture.pixels)
    assert pydmrpc.memory().used == before.used


