"""The learners that tests compose in Python, by the names that people know."""

from metagen.learners.gradients import Unrolled
from metagen.learners.implicit import Implicit
from metagen.learners.meta_learner import MetaLearner
from metagen.learners.meta_losses import Displacement, Joint, MultiStep, Untrained
from metagen.learners.schedules import Linear, Until
from metagen.learners.starts import ClassMean, Random, Theta


def maml(rule, steps=5, first_order=False, start=None, checkpoint_steps=None, **more):
    gradient = Unrolled(first_order, checkpoint_steps=checkpoint_steps)
    return MetaLearner(start or Theta(), rule, gradient, steps=steps, **more)


def reptile(rule, steps=5, start=None, **more):
    return MetaLearner(start or Theta(), rule, Unrolled(True), Displacement(), steps, **more)


def imaml(rule, steps=10, strength=2.0, cg_steps=5, start=None, **more):
    return MetaLearner(start or Theta(), rule, Implicit(strength, cg_steps), steps=steps, **more)


def maml_plus_plus(rule, steps=5, msl_steps=1000, second_order_after=500, start=None, **more):
    gradient, loss = Unrolled(Until(second_order_after)), MultiStep(Linear(1.0, 0.0, msl_steps))
    return MetaLearner(start or Theta(), rule, gradient, loss, steps, **more)


def learned_optimizer(rule, steps=20, truncation=None, random_start=True, **more):
    start = Random() if random_start else Theta()
    return MetaLearner(start, rule, Unrolled(True, truncation), MultiStep(), steps, **more)


def scratch(rule, test_steps=5, **more):
    return MetaLearner(Theta(), rule, Unrolled(), Untrained(), 0, test_steps, **more)


def transfer(rule, test_steps=5, **more):
    return MetaLearner(ClassMean(), rule, Unrolled(), Joint(), 0, test_steps, **more)
