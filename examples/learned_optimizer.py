"""Train an optimizer on one model, then use it in the place of torch.optim.Adam for a net it never saw."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from metagen.core.episode import Episode, Shots
from metagen.core.model import Classifier
from metagen.core.objective import Objective
from metagen.functional import rng
from metagen.functional.vectorize import vmap
from metagen.learners.gradients import Unrolled
from metagen.learners.meta_learner import MetaLearner
from metagen.learners.meta_losses import MultiStep
from metagen.learners.mlp_rule import MlpRule
from metagen.learners.rule_optimizer import RuleOptimizer
from metagen.learners.rules import Adam, Rule
from metagen.learners.starts import Random

SIZE, CLASSES = 8, 4


class Small(Classifier):
    """The model of the meta-training: one layer of 16 features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(SIZE**2, 16), nn.ReLU())
        self.readout = nn.Linear(16, CLASSES)

    def features(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """Map images (B, C, H, W) to features (B, F)."""
        return self.body(x)


def episodes(seed: int, tasks: int = 4, shots: int = 4) -> Episode:
    """Return tasks of telling noisy patterns apart, T x N classes x K images for support and query."""
    keys = rng.fold_in(rng.key(seed), torch.arange(tasks))
    noise = torch.Generator().manual_seed(seed)
    patterns = torch.rand(tasks, CLASSES, 1, 1, SIZE, SIZE, generator=noise)
    y = torch.arange(CLASSES)[None, :, None].expand(tasks, CLASSES, shots)

    def seen() -> Shots:
        x = patterns + 0.5 * torch.randn(tasks, CLASSES, shots, 1, SIZE, SIZE, generator=noise)
        return Shots(x, y, keys)

    return Episode(seen(), seen(), torch.arange(CLASSES).expand(tasks, CLASSES))


def meta_train(updates: int = 60) -> Rule:
    """Return a rule that learned to train a small network in eight steps, from any initialisation."""
    rule = MlpRule(Adam(0.003), per_tensor=False, scale=0.01)
    learner = MetaLearner(Random(), rule, Unrolled(first_order=True), MultiStep(), steps=8)
    objective = Objective(Small())
    learner.bind(objective, CLASSES)
    optimizer = torch.optim.Adam(learner.parameters(), 0.01)
    for update in range(updates):
        params = objective.params()
        losses = vmap(lambda e: learner.meta_loss(objective, params, e, update))(episodes(update))  # noqa: B023
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    return rule


def train(optimizer: torch.optim.Optimizer, net: nn.Module, steps: int = 8) -> float:
    """Train ``net`` on one task's support images and return its loss on the query images, in nats."""

    def loss(shots: Shots) -> Tensor:
        return nn.functional.cross_entropy(net(shots.x.flatten(0, 2).flatten(1)), shots.y.flatten())

    task = episodes(seed=10_000, tasks=1, shots=16)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(task.support).backward()
        optimizer.step()
    with torch.no_grad():
        return loss(task.query).item()


def unseen() -> nn.Module:
    """Return a net of other depth, width and activation than the one of the meta-training."""
    torch.manual_seed(1)
    layers = nn.Linear(SIZE**2, 48), nn.Tanh(), nn.Linear(48, 24), nn.Tanh(), nn.Linear(24, CLASSES)
    return nn.Sequential(*layers)


def main(updates: int = 60) -> dict[str, float]:
    """Return the query losses of the unseen net, by optimizer."""
    torch.manual_seed(0)
    rule, losses = meta_train(updates), {}
    makers: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
        "learned": lambda params: RuleOptimizer(params, rule),
        "Adam at 0.003, from which it was learned": lambda params: torch.optim.Adam(params, 0.003),
        "Adam at 0.03": lambda params: torch.optim.Adam(params, 0.03),
    }
    for name, make in makers.items():
        net = unseen()
        losses[name] = train(make(net.parameters()), net)
    return losses


if __name__ == "__main__":
    from metagen.console import echo

    for name, value in main().items():
        echo(f"{name}: {value:.3f} nats after 8 steps")
