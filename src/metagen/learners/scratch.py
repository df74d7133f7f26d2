"""The control of every experiment."""

from metagen.learners.gradient_descent import GradientDescent


class Scratch(GradientDescent):
    """Training from scratch: gradient descent on the support images from a random start.

    Nothing is meta-trained; the start is the model's initialisation under the run's seed.
    """

    meta_trained = False
