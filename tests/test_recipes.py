"""A sample of the recipes; `make recipes` trains them all."""

import math

import pytest
import recipes
from conftest import choices
from recipe_row import Row, judged, measured, trained, validated
from recipes import Recipe

from metagen.config.compose import compose, resolved
from metagen.jobs.build import build

NAN = math.nan


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("", "protonet", "basenet", "mnist_5k"),
        Recipe("", "supervised", "basenet", "mnist_5k"),
        Recipe("", "in_context", "warp", "icons"),
    ],
    ids=str,
)
def test_a_sample_of_the_recipes_passes(recipe, tmp_cwd):
    row = trained(recipe.overrides, 3)
    assert row.result == "passes"
    assert row.val_end is None or math.isfinite(row.val_end)


@pytest.mark.parametrize(
    "learner", ["maml", "meta_sgd", "maml_plus_plus", "meta_curvature", "scratch_momentum"]
)
def test_inner_steps_of_a_generator_lead_down_from_its_first_step_on(learner):
    before, after = adapted(f"learner={learner}")
    assert after < 0.8 * before


def test_without_a_bound_of_the_inner_gradient_they_are_not_even_finite():
    """What a newcomer saw of experiment=quickstart learner=maml."""
    assert not math.isfinite(adapted("learner=maml", "learner.clip=null", "model.channels=32")[1])


def adapted(*overrides):
    """The validation loss of an untrained model before and after the steps of a learner."""
    few = ["task.ways=3", "task.val_episodes=1", "metric=[negative_elbo]"]
    setup = build(resolved(compose(["experiment=quickstart", *few, *overrides]).config))
    return [validated(setup.experiment, setup.data.streams.val.batch(0), steps) for steps in (0, None)]


def test_only_what_can_be_trained_is_a_recipe():
    found = recipes.recipes(["learner=supervised,in_context", "model=conv4,pixel_transformer"])
    assert set(found) == {
        Recipe("quickstart", "in_context", "pixel_transformer", "glyphs"),
        Recipe("", "supervised", "conv4", "mnist_5k"),
        Recipe("", "in_context", "pixel_transformer", "glyphs"),
        Recipe("", "in_context", "pixel_transformer", "mnist_5k"),
    }


@pytest.mark.parametrize(
    ("row", "losses", "result"),
    [
        (Row(5.0, 4.0, 5.0, 4.0), [5.0, 4.0], "passes"),
        (Row(5.0, NAN, 5.0, 4.0), [5.0, 4.0, NAN], "NaN at step 2"),
        (Row(5.0, 4.0, 5.0, NAN), [5.0], "validation is nan"),
        (Row(5.0, 4.0, 5.0, math.inf), [5.0], "validation is inf"),
        (Row(5.0, 4.0, NAN, NAN), [5.0], "validation is nan"),
        (Row(5.0, 4.0), [5.0], "passes"),
        (Row(5.0, 16.0, 5.0, 4.0), [5.0], "loss ends far above its start"),
        (Row(5.0, 4.0, 5.0, 16.0), [5.0], "validation ends far above its start"),
        (Row(val_start=1.0, val_end=4.0), [], "passes"),
        (Row(val_start=1.0, val_end=NAN), [], "validation is nan"),
    ],
)
def test_what_passes(row, losses, result):
    assert judged(row, losses).result == result


def test_a_training_that_takes_too_much_memory_is_ended(tmp_cwd):
    row = measured(["model=vae"], 200, most=0.01)
    assert row.result == "more than 0.01 GB"
    assert row.seconds < 30


def test_every_learner_and_model_takes_part():
    found = recipes.candidates()
    assert {one.learner for one in found} == set(choices("learner"))
    assert {one.model for one in found} == set(choices("model"))
    some = recipes.recipes(["learner=protonet,maml", "model=basenet,warp", "experiment=-"])
    assert {one[:3] for one in some} == {("", "maml", "basenet"), ("", "protonet", "basenet")}
    assert len(some) == 6


def test_a_run_goes_on_where_it_was_stopped_and_says_what_fails(tmp_path, monkeypatch, capsys):
    results = iter(["passes", "NaN at step 3", "passes"])
    monkeypatch.setattr(recipes, "measured", lambda *_: Row(1.0, 0.5, 1.0, 0.5, 0.7, 3.0, next(results)))
    todo = [Recipe("", "maml", "basenet", data) for data in recipes.DATA]
    table = tmp_path / "recipes.md"
    assert recipes.run(todo[:1], table, 200, 4.0, math.inf, again=False) == 0
    assert recipes.run(todo[:2], table, 200, 4.0, math.inf, again=False) == 1
    assert recipes.run(todo[:2], table, 200, 4.0, math.inf, again=False) == 1, "nothing is trained twice"
    assert "2 rows, 1 of which fail" in table.read_text()
    assert (
        "| - | maml | basenet | mnist_5k | 200 | 1 | 0.5 | 1 | 0.5 | 0.70 | 3 | NaN at step 3 |"
        in table.read_text()
    )
    assert recipes.run(todo[:2], table, 200, 4.0, math.inf, again=True) == 0, "but what failed, when asked to"
    capsys.readouterr()


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=metanet_basenet"],
        ["experiment=metanet_vae", "learner=scratch_sgd"],
        ["experiment=mnist_classify"],
        ["experiment=omniglot_classify", "learner=fomaml"],
        ["experiment=omniglot_to_mnist"],
        ["experiment=mnist_leave_one_out_started"],
    ],
)
def test_recorded_experiments_go_by_the_whole_gradient(overrides):
    """A default of a learner that came later must not change what was recorded."""
    learner = compose(overrides).config["learner"]
    assert learner["clip"] is None
    assert learner["gradient"].get("checkpoint_steps") is None
