"""Banks on disk: written atomically, rebuilt whenever anything is wrong with them."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metagen.data.bank import Bank
from metagen.errors import MetagenError
from metagen.files import atomic
from metagen.reading import opened

_LOG = logging.getLogger(__name__)
_FORMAT = 1


def folder(cache: str | None) -> Path:
    """Return the cache folder: ``cache``, else the environment's METAGEN_CACHE, else ~/.cache/metagen."""
    return Path(cache or os.environ.get("METAGEN_CACHE") or "~/.cache/metagen").expanduser()


def fingerprint(params: Mapping[str, Any], sources: Sequence[Path]) -> str:
    """Return a checksum of the parameters and of each source file's name, size and time."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    return hashlib.sha256(json.dumps([_FORMAT, dict(params), stats]).encode()).hexdigest()


def cached(path: Path, key: str, read: Callable[[], Bank]) -> Bank:
    """Return the bank stored at ``path`` under ``key``, else ``read()`` it and store it.

    A cache that is truncated, corrupt or stale is rebuilt, and one that cannot be written is done
    without; both are logged as warnings, neither stops the run.
    """
    try:
        if path.exists():
            return _load(path, key)
    except Exception as error:  # whatever is wrong with it, the sources are at hand
        _LOG.warning("cache %s is not used and will be rebuilt: %s", path, error)
    bank = read()
    try:
        _save(path, key, bank)
    except MetagenError as error:
        _LOG.warning("the run goes on without a cache: %s", error)
    return bank


def _checksum(bank: Bank, key: str) -> str:
    digest = hashlib.sha256(json.dumps([key, bank.sha256, bank.name, bank.names]).encode())
    digest.update(bank.held.numpy().data)
    return digest.hexdigest()


def _load(path: Path, key: str) -> Bank:
    with opened(path) as content, np.load(content, allow_pickle=False) as file:
        if str(file["key"]) != key:
            raise ValueError("its source files or parameters have changed")
        images, labels, held = (torch.from_numpy(file[k]) for k in ("images", "labels", "held"))
        bank = Bank(str(file["name"]), images, labels, tuple(file["names"].tolist()), held)
        if str(file["checksum"]) != _checksum(bank, key):
            raise ValueError("its checksum does not match its content")
    return bank


def _save(path: Path, key: str, bank: Bank) -> None:
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            key=np.array(key),
            checksum=np.array(_checksum(bank, key)),
            name=np.array(bank.name),
            names=np.array(bank.names),
            images=bank.images.numpy(),
            labels=bank.labels.numpy(),
            held=bank.held.numpy(),
        )
