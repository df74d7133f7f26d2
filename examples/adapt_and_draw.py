"""Load a run, adapt to five tensors of each class, and draw.

python examples/adapt_and_draw.py RUN      (RUN: a trained generator's folder)
"""

import sys

import metagen

trained = metagen.load(sys.argv[1])
data = metagen.build(["experiment=quickstart"]).data
episode = next(iter(data.test_dataloader()))
images = episode.support.x[0]  # (N, K, 1, H, W): K = 5 images of each of N classes not seen in training

adapted = trained.adapt(images)  # all parameters of the model, adapted
drawn = trained.sample(adapted, ways=len(images), n=16)  # (N, 16, 1, H, W), pixels in [0, 1]
scores = trained.log_likelihood(images, episode.query.x[0], importance_samples=50)  # (N, Q), in nats

sys.stdout.write(f"{tuple(drawn.shape)}, {float(scores.mean()):.1f} nats a real image\n")
