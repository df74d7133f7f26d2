"""The training step of the context transformer: written out, with fused attention, and compiled.

    python benchmarks/transformer.py cuda             # experiment=omniglot_nll size=gpu, in bf16; or cpu

All do the same work on the same images: losses and gradients are compared. The FLOPs are those of the step
that is written out; ``peak`` is their share of what a large matrix product reaches on the same card.
"""

import copy
import sys
from collections.abc import Iterator
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from timing import in_turns, markdown, peak_flops
from torch.utils.flop_counter import FlopCounterMode

from metagen.config.tree import conf_dir
from metagen.functional.compiled import compiled
from metagen.models.pixel_transformer import PixelTransformer

COLUMNS = ("step", "classes", "images", "ms", "tokens a second", "TFLOP/s", "peak", "MB", "loss", "gradient")
WANTED = 0.3
"""Of the bf16 peak."""
SMALL = ("model.width=16", "model.layers=1", "model.heads=2", "model.features=8")


def models(small: bool) -> tuple[dict[str, PixelTransformer], Any]:
    """Return the same network in its forms, and the task that it is trained on."""
    words = ["experiment=omniglot_nll", "size=gpu", *(SMALL if small else ())]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", words)
    torch.manual_seed(0)
    fused = instantiate(cfg.model, second_order=False)
    plain = instantiate(cfg.model, second_order=True)
    plain.load_state_dict(fused.state_dict())
    return {"written out": plain, "fused": fused, "fused, compiled": copy.deepcopy(fused)}, cfg.task


def rows(device: str, small: bool) -> Iterator[dict[str, Any]]:
    """Yield a row for each form and number of classes in a step, in bf16 on a GPU."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    forms, task = models(small)
    peak = peak_flops(device, dtype)
    length = task.shots + task.queries
    for classes in (2,) if small else (task.ways, 2 * task.ways, 4 * task.ways):
        x = (torch.rand(classes, length, 1, 28, 28, generator=torch.Generator().manual_seed(1)) > 0.9).float()
        reference: Any = None
        flops = 0
        for name, model in forms.items():
            step = _step(model.to(device), x.to(device), device, dtype, name, small)
            if not flops:
                with FlopCounterMode(display=False) as counter:
                    step()
                flops = counter.get_total_flops()
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            seconds = in_turns({name: step}, 1 if small else 10, device)[name]
            loss, gradient = step()
            reference = reference or (loss, gradient)
            yield {
                "step": name, "classes": classes, "images": length, "ms": 1e3 * seconds,
                "tokens a second": classes * length * model.length / seconds,
                "TFLOP/s": flops / seconds / 1e12,
                "peak": f"{flops / seconds / peak:.0%}", "share": flops / seconds / peak,
                "loss": float((loss - reference[0]).abs() / reference[0].abs()),
                "gradient": float((gradient - reference[1]).norm() / reference[1].norm()),
                **({"MB": torch.cuda.max_memory_allocated() / 1e6} if device == "cuda" else {}),
            }  # fmt: skip


def _step(model: PixelTransformer, x: Any, device: str, dtype: torch.dtype, name: str, small: bool) -> Any:
    nll: Any = PixelTransformer.nll_of_sequences
    if "compiled" in name:
        nll = compiled(nll, **({"backend": "aot_eager"} if small else {}))

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        with torch.autocast(device, dtype, enabled=dtype != torch.float32, cache_enabled=False):
            loss = nll(model, x).float().mean()
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    return step


if __name__ == "__main__":
    found = list(rows(sys.argv[1], "--quick" in sys.argv))
    print(markdown(found, COLUMNS))
    best = max(found, key=lambda row: row["share"])
    unequal = [row["step"] for row in found if not row["gradient"] < 0.1]
    share = f"{best['share']:.0%} of the peak, {WANTED:.0%} wanted"
    print(f"best: {best['step']}, {best['classes']} classes, {share}")
    sys.exit(bool(unequal))
