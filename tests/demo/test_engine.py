"""The engine: it adapts as ``metagen generate`` does, step by step, and shows what is copied."""

import threading

import numpy as np
import pytest
from demo.demo_samples import pictures, support
from PIL import Image

from metagen.demo.adapted import distances
from metagen.demo.engine import MAX_SAMPLES, MAX_STEPS, STRIP, Engine, SupersededError
from metagen.errors import MetagenError
from metagen.jobs.generate import generate

pytest_plugins = ["demo.demo_fixtures"]


@pytest.fixture(scope="module")
def engine(run_folders):
    return Engine([run_folders[name] for name in ("reptile", "amortized", "in_context")])


def last(engine, support, steps=5, n=8):
    *_, done = engine.adapt(support, steps, n)
    return done


@pytest.mark.parametrize("name", ["reptile", "amortized", "in_context"])
def test_the_page_shows_what_generate_would_write(run_folders, tmp_path, name):
    (tmp_path / "mine/a").mkdir(parents=True)
    for k, picture in enumerate(pictures(3)):
        Image.fromarray(picture).save(tmp_path / f"mine/a/{k}.png")
    generate(run_folders[name], tmp_path / "mine", tmp_path / "new", 8, 0, [])
    written = np.load(tmp_path / "new/samples.npz")
    found = last(Engine([run_folders[name]]), support(3))[0]
    assert np.array_equal(written["support"][0], found.support)
    assert np.array_equal(written["samples"][0], found.samples)


def test_a_picture_on_the_way_is_that_of_an_adaptation_that_ends_there(engine):
    whole = last(engine, support())[0]
    assert [point.step for point in whole.points] == [0, 1, 2, 5]
    assert len(whole.losses) == 6
    for point in whole.points:
        short = last(engine, support(), point.step)[0]
        assert np.array_equal(short.samples[:STRIP], point.samples)
        assert short.steps == point.step
    assert whole.losses[-1] < whole.losses[0]


@pytest.mark.parametrize("index", [1, 2])
def test_a_learner_without_steps_takes_none(engine, index):
    found, again = last(engine, support(), 5)[index], last(engine, support(), 0)[index]
    assert np.array_equal(found.samples, again.samples)
    assert (found.steps, len(found.points), len(found.losses)) == (0, 0, 0)
    assert not found.takes_steps
    assert last(engine, support())[0].takes_steps


def test_a_copy_is_seen_as_one(engine, monkeypatch):
    monkeypatch.setattr(
        engine.runners[1].trained, "draw", lambda phi, ways, n, seed: pictures(3)[None, [2, 0]]
    )
    found = last(engine, support(3), n=2)[1]
    assert found.nearest.tolist() == [2, 0]
    assert found.distance.tolist() == [0, 0]
    assert found.apart == pytest.approx(distances(pictures(1), pictures(2)[1:]).item())
    assert last(engine, support(1))[1].apart is None


def test_distances_are_euclidean():
    a = np.zeros((1, 2, 2), np.uint8)
    b = np.array([[[0, 0], [0, 0]], [[255, 0], [0, 255]]], np.uint8)
    assert distances(a, b) == pytest.approx(np.array([[0, 2**0.5]]))


def test_runs_of_different_sizes_stand_side_by_side(run_folders):
    engine = Engine([run_folders["small"], run_folders["amortized"]])
    assert [form.size for form in engine.forms] == [20, 28]
    done = last(engine, support(), 2)
    assert [done[i].samples.shape for i in range(2)] == [(8, 20, 20), (8, 28, 28)]


def test_the_quickest_run_comes_first(engine):
    engine.warm_up(2)
    assert all(runner.seconds > 0 for runner in engine.runners)
    for runner, seconds in zip(engine.runners, (3, 1, 2), strict=True):
        runner.seconds = seconds
    assert [sorted(done) for done in engine.adapt(support(), 1, 1)] == [[1], [1, 2], [0, 1, 2]]


def test_a_loss_without_a_meaning_is_not_shown(run_folders):
    found = last(Engine([run_folders["gan"]]), support(2), 1, 2)[0]
    assert found.losses == []
    assert [point.step for point in found.points] == [0, 1]


def test_two_visitors_at_once_get_what_each_would_get_alone(engine):
    alone = [last(engine, support(seed=seed), 2, 4)[0].samples for seed in (0, 9)]
    assert not np.array_equal(*alone)
    found = {}

    def visit(seed):
        found[seed] = [last(engine, support(seed=seed), 2, 4)[0].samples for _ in range(2)]

    threads = [threading.Thread(target=visit, args=(seed,)) for seed in (0, 9)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for seed, expected in zip((0, 9), alone, strict=True):
        assert all(np.array_equal(samples, expected) for samples in found[seed])


@pytest.mark.parametrize(
    ("images", "steps", "n", "says"),
    [(6, 1, 1, "6 images"), (0, 1, 1, "0 images"), (1, MAX_STEPS + 1, 1, "steps"), (1, -1, 1, "steps"),
     (1, 1, MAX_SAMPLES + 1, "samples"), (1, 1, 0, "samples")],
)  # fmt: skip
def test_what_is_out_of_range_is_refused(engine, images, steps, n, says):
    with pytest.raises(MetagenError, match=f"{says}.*expected"):
        last(engine, support(images), steps, n)


def test_a_classifier_cannot_draw(run_folders):
    with pytest.raises(MetagenError, match=r"no generator's run \(its task is classify\)"):
        Engine([run_folders["amortized"], run_folders["classifier"]])


def test_a_run_named_twice(run_folders):
    with pytest.raises(MetagenError, match="twice"):
        Engine([run_folders["amortized"], run_folders["amortized"] / ".." / "amortized"])


def test_a_damaged_checkpoint_is_one_line(run_folders, tmp_path):
    from shutil import copytree

    run = copytree(run_folders["amortized"], tmp_path / "run")
    (run / "checkpoints/best.ckpt").write_bytes((run / "checkpoints/best.ckpt").read_bytes()[:999])
    with pytest.raises(MetagenError, match="no readable checkpoint"):
        Engine([run])


def test_runs_are_named_by_their_choices(engine):
    assert [runner.label for runner in engine.runners][1:] == [
        "amortized · vae", "in_context · pixel_transformer"
    ]  # fmt: skip


def test_an_answer_that_nobody_waits_for_ends_at_the_next_step(engine):
    asked = []

    def stop():
        asked.append(True)
        return len(asked) > 3

    with pytest.raises(SupersededError):
        engine.runners[0].adapt(support(), 100, 1, stop)
    assert len(asked) == 4
    assert engine.runners[0].adapt(support(), 1, 1).steps == 1, "it can be asked again"


def test_an_engine_that_is_closed_serves_nobody(run_folders):
    engine = Engine([run_folders["amortized"]])
    engine.close()
    late = threading.Thread(target=last, args=(engine, support()), daemon=True)
    late.start()
    late.join(0.3)
    assert late.is_alive()
    engine.runners[0].lock.release()
    late.join(20)
    assert not late.is_alive()
