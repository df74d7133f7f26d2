"""Runs from before learners were composed of parts are read as what they are called today."""

import json
from pathlib import Path

import pytest
from conftest import composed
from omegaconf import OmegaConf

from metagen.config import renamed
from metagen.config.renamed_learners import key_of_today

BEFORE = json.loads(Path(__file__).with_name("learners_of_before.json").read_text())
"""The node of each choice, as it was composed then."""


def without_defaults(node):
    """A node without what it leaves to its constructor, to compare what is said."""
    if not isinstance(node, dict):
        return node
    return {key: without_defaults(value) for key, value in node.items() if value is not None}


def agrees(old, today):
    """Whether all that an old node says is said today, and nothing else but defaults."""
    defaults = {"first_order": False, "early": 1.0, "late": 0.0, "on_query": True, "any_shots": False}
    defaults |= {"steps": 0, "test_steps": 0, "adapts": "all"}
    if not isinstance(old, dict):
        return old == today
    return all(
        agrees(old.get(key, defaults.get(key)), today.get(key, defaults.get(key))) for key in {*old, *today}
    )


@pytest.mark.parametrize("choice", BEFORE)
def test_a_learner_of_before_is_todays_choice(choice):
    learner = composed(f"learner={renamed.CHOICES.get(('learner', choice), choice)}").learner
    if "channels" in (learner.get("start") or {}):
        learner.start.channels = 1  # was said outright then, and follows from the data today
    learner.clip = None  # there was none then, and all graphs were kept
    if choice == "scratch_momentum":
        learner.rule.rate = 0.1  # too far on a net of 512 units
    if choice == "learned_optimizer":
        learner.steps, learner.rule.hidden = 20, 8  # took more memory than a small machine has
    if "checkpoint_steps" in (learner.get("gradient") or {}):
        learner.gradient.checkpoint_steps = None
    today = OmegaConf.to_container(learner)
    got = without_defaults(renamed.config(BEFORE[choice]))
    assert agrees(got, without_defaults(today)), (got, today)
    assert renamed.config(today) == today, "one of today stays"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("learner.second.rule.rate", "learner.rule.rate"),
        ("learner.second.first_order", "learner.gradient.first_order"),
        ("learner.first.any_shots", "learner.start.any_shots"),
        ("learner.msl_steps", "learner.meta_loss.early.steps"),
        ("learner.rule.rate", "learner.rule.rate"),
        ("learner", "learner"),
        ("model.size", "model.size"),
    ],
)
def test_a_key_of_before_is_todays(old, new):
    assert key_of_today(old) == new
