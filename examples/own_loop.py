"""N-way episodes as tensors for a loop of one's own: a nearest-mean classifier of pixels.

python examples/own_loop.py
"""

import sys

import metagen

data = metagen.build(["data=digits", "task=classify", "model=conv4", "learner=maml", "task.episodes=20"]).data
right = []
for episode in data.test_dataloader():
    support, query = episode.support, episode.query  # x: (T, N, K, C, H, W), y: (T, N, K)
    means = support.x.mean(2).flatten(2)  # (T, N, D)
    images = query.x.flatten(1, 2).flatten(2)  # (T, N Q, D)
    nearest = ((images[:, :, None] - means[:, None]) ** 2).sum(-1).argmin(-1)
    right.append((nearest == query.y.flatten(1)).float().mean())
sys.stdout.write(
    f"nearest mean of the pixels: {100 * sum(right) / len(right):.1f} % of new classes' digits\n"
)
