"""A function that torch compiles for a GPU, where it can."""

import logging
import shutil
from collections.abc import Callable
from typing import Any

import torch

log = logging.getLogger(__name__)
COMPILERS = ("gcc", "cc", "clang")
"""One of these builds what starts the compiled kernels."""


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return ``function`` compiled for the shapes that it is called with, or as it is, with a warning."""
    if not any(map(shutil.which, COMPILERS)):
        log.warning("there is no %s here: nothing is compiled, which costs time only", " or ".join(COMPILERS))
        return function
    return torch.compile(function, dynamic=False, **options)
