"""A pretended GPU: torch's device ``meta``, whose tensors have a shape and a type but no numbers.

What it refuses is what a GPU would refuse, or wait for: a number that Python wants to know (``.item()``), a
result whose size depends on numbers (``nonzero``, a mask as an index), a copy to the CPU. Operations on
tensors of both devices are refused here, and copies to the device are counted.
"""

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from metagen.functional.vectorize import tree_map

GPU = torch.device("meta")
MAKERS = (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
"""Functions that copy numbers of Python's to the device; their copy hides from a dispatch mode."""


class MixedDevicesError(Exception):
    """An operation on a tensor of the CPU and one of the GPU."""


class PretendedGPU(TorchDispatchMode):
    """Refuses operations on two devices, and keeps the names of those that copy to the GPU in ``copies``.

    A scalar of the CPU may take part in an operation: it travels with it.
    """

    def __init__(self):
        super().__init__()
        self.copies = []
        self._made = _Made(self.copies)

    def __enter__(self):
        self._made.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._made.__exit__(*error)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        given, name = _tensors((args, kwargs or {})), str(operation)
        copies = "_copy" in name or "copy_" in name
        if len({x.device for x in given if x.dim()}) > 1 and not copies:
            raise MixedDevicesError(
                f"{name}: {', '.join(f'{x.device.type} {tuple(x.shape)}' for x in given)}"
            )
        out = operation(*args, **(kwargs or {}))
        if copies and "cpu" in {x.device.type for x in given} and _tensors(out)[0].device == GPU:
            self.copies.append(name)
        return out


class _Made(TorchFunctionMode):
    def __init__(self, copies):
        super().__init__()
        self.copies = copies

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function in MAKERS and out.device == GPU:
            self.copies.append(function.__name__)
        return out


def on_gpu(thing):
    """Move a tree of tensors, or the parameters and buffers of a module, which is changed."""
    return thing.to(GPU) if isinstance(thing, nn.Module) else tree_map(lambda leaf: leaf.to(GPU), thing)


def _tensors(tree):
    if isinstance(tree, torch.Tensor):
        return [tree]
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, tuple | list) else ()
    return [found for part in parts for found in _tensors(part)]
