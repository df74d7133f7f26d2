"""Checkpoints that are whole or not there."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from metagen.report.files import atomic


class AtomicCheckpoints(TorchCheckpointIO):
    """Write a checkpoint beside its target and move it there: a full disk leaves the one before."""

    def save_checkpoint(
        self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            MetagenError: the file cannot be written; what was at ``path`` still is.
        """
        # torch.save to a file hides a full disk in a RuntimeError; writing bytes names it.
        buffer = io.BytesIO()
        torch.save(dict(checkpoint), buffer)
        with atomic(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
