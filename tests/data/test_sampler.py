import hashlib
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from data_samples import toy_bank
from scipy.stats import chisquare

from metagen.data import pixels
from metagen.data.bank import Bank
from metagen.data.sampler import EpisodeSampler
from metagen.errors import MetagenError

pytest_plugins = ["data_fixtures"]


def sampler(bank=None, classes=None, ways=3, shots=2, queries=3, seed=0, stage="train", **options):
    bank = bank or toy_bank()
    return EpisodeSampler(bank, classes or bank.names, ways, shots, queries, seed, stage, **options)


def assert_disjoint(s, draw):
    """Distinct pseudo-classes; distinct images, all of the class that is announced."""
    assert (draw.classes.sort(-1).values.diff() > 0).all()
    images = torch.cat([draw.support, draw.query], -1)
    assert (images.sort(-1).values.diff() > 0).all()
    assert (s.bank.labels[images] == s.class_ids[draw.classes].unsqueeze(-1)).all()


@pytest.mark.parametrize("symmetries", [False, True])
def test_support_query_and_classes_are_disjoint_over_5000_episodes(any_bank, symmetries):
    s = sampler(any_bank, any_bank.names[::2], ways=5, shots=5, queries=15, symmetries=symmetries)
    assert_disjoint(s, s.draw(torch.arange(5000)))


def test_no_test_class_nor_a_rotation_of_one_in_training(any_bank):
    names = any_bank.names
    test = set(names[::3])
    train = [name for name in names if name not in test]
    s = sampler(any_bank, train, ways=5, shots=1, queries=15, symmetries=True)
    drawn = s.draw(torch.arange(5000))
    seen = {names[label] for label in any_bank.labels[torch.cat([drawn.support, drawn.query], -1)].unique()}
    assert seen <= set(train)
    assert not seen & test
    base = {name.split(" ")[0] for name in (s.names[i] for i in drawn.classes.unique())}
    assert not base & test


def test_shapes_and_labels():
    episode = sampler().episodes(torch.arange(6))
    assert episode.support.x.shape == (6, 3, 2, 1, 4, 4)
    assert episode.query.x.shape == (6, 3, 3, 1, 4, 4)
    assert episode.support.x.dtype == torch.float32
    assert 0 <= episode.query.x.min() < episode.query.x.max() <= 1
    assert torch.equal(episode.support.y, torch.arange(3).reshape(1, 3, 1).expand(6, 3, 2))
    assert torch.equal(episode.query.y, torch.arange(3).reshape(1, 3, 1).expand(6, 3, 3))
    assert episode.classes.shape == (6, 3)
    keys = torch.cat([episode.support.key, episode.query.key])
    assert keys.dtype == torch.int64
    assert len(keys.unique()) == 12


def test_images_are_those_of_the_draw():
    s = sampler()
    draw = s.draw(torch.arange(4))
    episode = s.gather(draw)
    assert torch.equal(episode.query.x, pixels.unit(s.bank.images[draw.query]))
    assert torch.equal(episode.support.x, pixels.unit(s.bank.images[draw.support]))
    assert torch.equal(episode.classes, draw.classes)


def test_a_symmetry_is_shared_by_a_class():
    s = sampler(symmetries=True, ways=6)
    draw = s.draw(torch.arange(50))
    x = s.gather(draw)
    for name in ("support", "query"):
        raw = pixels.unit(s.bank.images[getattr(draw, name)])
        for t in range(50):
            for n in range(6):
                symmetry = int(s.symmetry[draw.classes[t, n]])
                start = raw[t, n].flip(-1) if symmetry >= 4 else raw[t, n]
                turned = torch.rot90(start, symmetry % 4, (-2, -1))
                assert torch.equal(getattr(x, name).x[t, n], turned)
    same = s.class_ids[draw.classes].sort(-1).values.diff() == 0
    assert same.any(), "a class and its rotation may meet in an episode"


def test_pseudo_classes():
    s = sampler(classes=("b", "d"), symmetries=True)
    assert len(s) == len(s.names) == 16
    assert s.class_ids.tolist() == [1] * 8 + [3] * 8
    assert s.symmetry.tolist() == [*range(8), *range(8)]
    assert s.names[0] == "b"
    assert s.names[13] == "d mirrored rot90"
    assert len(set(s.names)) == 16


def test_an_episode_depends_on_its_number_alone():
    s = sampler(symmetries=True, dilation=0.5, binarize="bernoulli")
    whole = s.episodes(torch.arange(20))
    parts = s.episodes(torch.tensor([13, 4]))
    again = sampler(symmetries=True, dilation=0.5, binarize="bernoulli").episodes(torch.arange(20))
    for a, b, c in zip(flat(whole), flat(parts), flat(again), strict=True):
        assert torch.equal(a[[13, 4]], b)
        assert torch.equal(a, c)


def flat(episode):
    return (*episode.support, *episode.query, episode.classes)


def test_seed_and_stage_make_other_episodes():
    prints = {
        sampler(seed=seed, stage=stage).fingerprint(torch.arange(10))
        for seed in (0, 1)
        for stage in ("train", "val", "test")
    }
    assert len(prints) == 6


def test_fingerprint_is_that_of_the_indices():
    s = sampler()
    assert s.fingerprint(torch.arange(2500)) == sampler().fingerprint(torch.arange(2500))
    assert s.fingerprint(torch.arange(2500)) != s.fingerprint(torch.arange(2499))


def test_the_draws_stay_what_they_are():
    """Published results were measured on the episodes of their seeds."""
    s = sampler(symmetries=True)
    assert (
        s.fingerprint(torch.arange(1000))
        == "982c1a5aa4830a1e71daba53f324b329ec2f876847dbb19c4232b4ff7290bccf"
    )


def test_classes_and_positions_are_uniform():
    s = sampler(symmetries=True, ways=3)
    classes = s.draw(torch.arange(40_000)).classes
    for n in range(3):
        assert chisquare(torch.bincount(classes[:, n], minlength=len(s)).numpy()).pvalue > 1e-3
    first = torch.bincount(classes.argsort(-1)[:, 0], minlength=3)  # labels are shuffled
    assert chisquare(first.numpy()).pvalue > 1e-3


def test_images_are_uniform_within_a_class():
    s = sampler(shots=1, queries=2, ways=5)
    draw = s.draw(torch.arange(20_000))
    for part in (draw.support[..., 0], draw.query[..., -1]):
        for label, offset, count in zip(range(5), s.bank.offsets, s.bank.counts, strict=True):
            mine = part[draw.classes == label] - offset
            assert chisquare(torch.bincount(mine, minlength=int(count)).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("counts", [(6, 6, 6), (6, 7, 5000), (3, 6, 60)])
def test_a_class_with_just_enough_images(counts):
    needed = min(counts)
    s = sampler(toy_bank(counts), shots=1, queries=needed - 1)
    draw = s.draw(torch.arange(300))
    assert_disjoint(s, draw)
    smallest = torch.cat([draw.support, draw.query], -1)[draw.classes == counts.index(needed)]
    assert torch.equal(
        smallest.sort(-1).values[0] - s.bank.offsets[counts.index(needed)], torch.arange(needed)
    )


@pytest.mark.parametrize(("images", "expected"), [("held", True), ("published_train", False)])
def test_held_images_stay_apart(images, expected):
    s = sampler(toy_bank(held=4), shots=1, queries=1, images=images)
    draw = s.draw(torch.arange(500))
    assert_disjoint(s, draw)
    assert (s.bank.held[torch.cat([draw.support, draw.query], -1)] == expected).all()


def test_dilation_strikes_whole_episodes_at_its_rate():
    plain, thick = (sampler(dilation=p).episodes(torch.arange(400)) for p in (0.0, 0.3))
    support, query = ((a.x != b.x).flatten(1).any(1) for a, b in zip(plain[:2], thick[:2], strict=True))
    assert torch.equal(support, query)
    assert 0.2 < support.float().mean() < 0.4
    assert (thick.query.x >= plain.query.x - 1e-6).all()


def test_binarize():
    assert set(sampler(binarize="threshold").episodes(torch.arange(4)).query.x.unique().tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 6}, r"task\.ways=6 classes but has 5"),
        ({"ways": 0}, "expected positive numbers"),
        ({"shots": 4, "queries": 3}, r"4 shots \+ 3 queries = 7 images of each class, but class 'c' has 6"),
        ({"images": "held"}, "class 'a' has 0 held-out images"),
        ({"stage": "tets"}, "did you mean 'test'"),
        ({"dilation": 1.5}, r"task\.dilation is 1\.5"),
        ({"binarize": "otsu"}, r"task\.binarize is 'otsu'"),
        ({"classes": ("a", "b", "x")}, "names the class 'x', which toy does not have"),
    ],
)
def test_impossible_episodes(options, message):
    with pytest.raises(MetagenError, match=message) as error:
        sampler(**options)
    assert "\n" not in str(error.value)


def test_sampling_does_not_import_lightning():
    code = "import sys, metagen.data.sampler; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_colours_stay_together_under_symmetries():
    """Each channel of a colour episode is that of the same grey episode."""
    bank = toy_bank(channels=3, size=5)
    options = {"symmetries": True, "dilation": 0.5}
    colour = sampler(bank, **options).episodes(torch.arange(6))
    assert colour.query.x.shape == (6, 3, 3, 3, 5, 5)
    for c in range(3):
        grey = replace(bank, images=bank.images[:, c : c + 1].contiguous())
        assert torch.equal(
            sampler(grey, **options).episodes(torch.arange(6)).query.x, colour.query.x[..., c : c + 1, :, :]
        )


def test_the_episodes_stay_what_they_are():
    """Their pixels, too: figures were measured on them."""
    x = sampler(symmetries=True, dilation=0.5, binarize="bernoulli").episodes(torch.arange(200))
    digest = hashlib.sha256(x.support.x.numpy().tobytes() + x.query.x.numpy().tobytes())
    assert digest.hexdigest() == "a2c3248d5ccd998610b1e85b39b34d729a1948b9dd73094a1920306586dccfe6"


@pytest.mark.parametrize("stage", ["train", "val", "test"])
def test_what_an_episode_lacks_is_named_by_the_key_of_its_stage(stage):
    of = "task.test_" if stage == "test" else "task."
    bank = toy_bank()
    names = list(bank.names[:2])
    with pytest.raises(MetagenError, match=rf"lower {of}shots or {of}queries$"):
        EpisodeSampler(bank, names, 2, 5, 100_000, 0, stage)
    with pytest.raises(MetagenError, match=rf"needs {of}ways=3 classes but has 2: lower {of}ways or name"):
        EpisodeSampler(bank, names, 3, 1, 1, 0, stage)


def grouped(counts=(3, 5, 2, 4), each=6):
    """A bank of alphabets with so many characters, image j of each being the j-th drawer's."""
    names = tuple(f"alphabet{a}/character{c}" for a, count in enumerate(counts) for c in range(count))
    labels = torch.arange(len(names)).repeat_interleave(each)
    images = torch.arange(len(labels), dtype=torch.uint8).reshape(-1, 1, 1).expand(-1, 4, 4).contiguous()
    return Bank("alphabets", images, labels, names, torch.zeros(len(labels), dtype=torch.bool))


def test_an_episode_of_one_group_takes_the_groups_that_are_large_enough_in_turn():
    s = sampler(grouped(), ways=3, one_group=True, stage="test", shots=1, queries=1)
    drawn = s.draw(torch.arange(600))
    assert_disjoint(s, drawn)
    groups = torch.tensor([int(name[8]) for name in s.names])[drawn.classes]
    assert (groups == groups[:, :1]).all()
    assert torch.bincount(groups[:, 0], minlength=4).tolist() == [200, 200, 0, 200], "one has two characters"
    first = drawn.classes[groups[:, 0] == 1, 0]
    assert chisquare(torch.bincount(first, minlength=14)[3:8]).pvalue > 1e-3
    again = s.draw(torch.tensor([77]))
    assert torch.equal(again.classes[0], drawn.classes[77]), "an episode depends on its number alone"


def test_groups_that_are_all_too_small_are_refused():
    with pytest.raises(MetagenError, match=r"task\.test_ways=6 classes of one group.*one_group_eval=false"):
        sampler(grouped(), ways=6, one_group=True, stage="test")


def test_one_drawer_means_the_same_places_for_all_classes_and_others_for_the_queries():
    s = sampler(grouped(), ways=3, shots=1, queries=2, one_drawer=True)
    drawn = s.draw(torch.arange(300))
    assert_disjoint(s, drawn)
    places = torch.cat([drawn.support, drawn.query], -1) % 6
    assert (places == places[:, :1]).all()
    assert chisquare(torch.bincount(places[:, 0, 0], minlength=6)).pvalue > 1e-3
    usual = sampler(grouped(), ways=3, shots=1, queries=2).draw(torch.arange(300))
    assert not (usual.support % 6 == usual.support[:, :1] % 6).all()
