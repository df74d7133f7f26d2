"""The process of one rank of a training: ``python -m metagen.cli.rank``."""

import json
import os
import sys
import threading

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from metagen.cli.exit import guard
from metagen.config.interpolations import literal
from metagen.jobs.process import quiet


def main() -> int:
    """Join a training as one of its ranks; the configuration comes through the standard input."""
    return guard(_join)


def _join() -> int:
    from metagen.jobs.train import train

    whole = json.loads(sys.stdin.readline())
    threading.Thread(target=_follow, daemon=True).start()
    hydra = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
    OmegaConf.set_struct(hydra.hydra, False)
    hydra.merge_with({"hydra": whole["hydra"]})
    HydraConfig.instance().set_config(hydra)
    quiet()
    train(OmegaConf.create(literal(whole["config"])), lambda text: None)
    return 0


def _follow() -> None:
    """End with rank 0, however that ended: it holds the other end of the standard input."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
