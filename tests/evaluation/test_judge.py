import logging
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from metagen.errors import MetagenError
from metagen.evaluation.judge import Judge, _every_fourth, _shifted, checksum


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads that wait for each other cost a thousand times what such a small network does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Tiny(nn.Module):
    def __init__(self, ways: int, hidden: int = 16) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, ways))

    def features(self, x: Tensor) -> Tensor:
        return self.net[:-1](x)

    def logits(self, x: Tensor) -> Tensor:
        return self.net(x)


class Opaque(nn.Module):
    def __init__(self, ways: int) -> None:
        super().__init__()
        self.readout = nn.Linear(64, ways)

    def logits(self, x: Tensor) -> Tensor:
        return self.readout(x.flatten(1))


def bank(held: bool = True, sha256: str = "a") -> SimpleNamespace:
    """Three classes: a bar at the top, in the middle, at the bottom, in noise."""
    generator = np.random.default_rng(0)
    labels = np.arange(120, dtype=np.int64) % 3
    images = generator.integers(0, 60, (120, 8, 8), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[3 * label : 3 * label + 2] = 230
    mask = np.arange(120) >= (90 if held else 120)
    return SimpleNamespace(
        name="bars",
        images=images[:, None],
        labels=labels,
        names=("top", "mid", "low"),
        held=mask,
        sha256=sha256,
    )


def judge(folder: Path, **settings: object) -> Judge:
    return Judge(Tiny, **{"epochs": 1, "min_steps": 60, "lr": 0.02, "shift": 0, "cache": folder, **settings})


@pytest.mark.parametrize("held", [True, False])
def test_learns_and_is_tested_on_held_images(tmp_path: Path, held: bool) -> None:
    data = bank(held)
    got = judge(tmp_path).fit(data)
    assert got.accuracy == 100
    assert got.classes == ("top", "mid", "low")
    logits = got(torch.from_numpy(data.images[:5]).float() / 255)
    assert logits.shape == (5, 3)
    assert not logits.requires_grad
    assert logits.argmax(-1).tolist() == [0, 1, 2, 0, 1]


def test_logits_are_linear_in_the_features(tmp_path: Path) -> None:
    data = bank()
    got = judge(tmp_path).fit(data)
    x = torch.from_numpy(data.images).repeat(9, 1, 1, 1).double() / 255  # more than goes at once
    features = got.features(x)
    assert features.shape == (1080, 16)
    assert not features.requires_grad
    assert torch.allclose(got.model.net[-1](features), got(x))


def test_held_images_are_not_trained_on(tmp_path: Path) -> None:
    data = bank()
    data.labels[90:] = (data.labels[90:] + 1) % 3  # whoever saw them would get some right
    assert judge(tmp_path).fit(data).accuracy == 0


def test_every_fourth_image_of_each_class_is_held_out_where_none_is() -> None:
    labels = torch.tensor([0, 1, 0, 0, 1, 0, 0, 1, 1])
    assert torch.nonzero(_every_fourth(labels))[:, 0].tolist() == [5, 8]


def test_is_deterministic_and_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    x = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = judge(tmp_path / "a").fit(bank())(x)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(judge(tmp_path / "b").fit(bank())(x), first)
    assert not torch.equal(judge(tmp_path / "a", seed=1).fit(bank())(x), first)


def test_cache_is_used_and_tells_settings_data_and_networks_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = judge(tmp_path).fit(bank())
    calls = []
    train = Judge._train
    monkeypatch.setattr(Judge, "_train", lambda *args: (calls.append(1), train(*args))[1])
    again = judge(tmp_path).fit(bank())
    assert (calls, again.accuracy) == ([], first.accuracy)
    judge(tmp_path, lr=0.01).fit(bank())
    judge(tmp_path).fit(bank(sha256="b"))
    Judge(partial(Tiny, hidden=8), epochs=1, min_steps=60, lr=0.02, shift=0, cache=tmp_path).fit(bank())
    assert len(calls) == 3
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    "content", [b"", b"not a file of weights", None], ids=["empty", "foreign", "truncated"]
)
def test_a_damaged_cache_is_replaced_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    judge(tmp_path).fit(bank())
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with caplog.at_level(logging.WARNING):
        assert judge(tmp_path).fit(bank()).accuracy == 100
    assert "damaged" in caplog.text
    assert len(file.read_bytes()) == len(whole)


def test_an_unwritable_cache_is_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    assert judge(tmp_path / "file" / "cache").fit(bank()).accuracy == 100
    assert "not cached" in caplog.text


def test_default_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("METAGEN_CACHE", str(tmp_path))
    assert Judge(Tiny).cache == tmp_path
    monkeypatch.delenv("METAGEN_CACHE")
    assert Judge(Tiny).cache == Path.home() / ".cache" / "metagen"


def test_shifts_move_the_picture_and_lose_nothing_but_the_rim() -> None:
    x = torch.zeros(500, 1, 8, 8, dtype=torch.uint8)
    x[:, :, 3, 4] = 255
    moved = _shifted(x, 2, torch.Generator().manual_seed(0))
    places = torch.nonzero(moved)[:, 2:]
    assert len(places) == 500
    assert {tuple(p) for p in places.tolist()} == {(r, c) for r in range(1, 6) for c in range(2, 7)}
    assert torch.equal(_shifted(x, 0, torch.Generator()), x)


def test_bad_settings_and_an_untrained_judge_are_errors(tmp_path: Path) -> None:
    with pytest.raises(MetagenError, match="epochs"):
        Judge(Tiny, epochs=0)
    with pytest.raises(MetagenError, match="fit"):
        Judge(Tiny)(torch.zeros(1, 1, 8, 8))
    with pytest.raises(MetagenError, match="fit"):
        Judge(Tiny).features(torch.zeros(1, 1, 8, 8))
    opaque = Judge(Opaque, epochs=1, min_steps=1, cache=tmp_path).fit(bank())
    with pytest.raises(MetagenError, match="features"):
        opaque.features(torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "conf" / "judge").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_config_makes_a_judge_for_any_number_of_classes(path: Path) -> None:
    made = instantiate(OmegaConf.merge({"data": {"size": 28}}, {"judge": OmegaConf.load(path)}).judge)
    assert isinstance(made, Judge)
    assert made._make(ways=7).logits(torch.zeros(2, 1, 28, 28)).shape == (2, 7)
    assert made._make(ways=7).features(torch.zeros(2, 1, 28, 28)).ndim == 2


def flipped(kept: dict) -> dict:
    bits = kept["weights"]["net.1.weight"].view(torch.int32)
    bits[0, 0] ^= 1 << 20
    return kept


def spoilt(kept: dict) -> dict:
    """NaN weights with a checksum that fits."""
    kept["weights"]["net.1.weight"][0, 0] = float("nan")
    return kept | {"sha256": checksum(kept["weights"], kept["accuracy"])}


def forged(kept: dict) -> dict:
    """Weights that know nothing, with a checksum that fits."""
    kept["weights"]["net.3.weight"].zero_()
    return kept | {"sha256": checksum(kept["weights"], kept["accuracy"])}


def old(kept: dict) -> dict:
    return {key: kept[key] for key in ("weights", "accuracy")}


@pytest.mark.parametrize(
    ("change", "reason"),
    [(flipped, "checksum"), (spoilt, "NaN"), (forged, "claims"), (old, "checksum")],
)
def test_a_cached_judge_is_believed_only_if_it_is_whole_and_as_good_as_it_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change, reason: str
) -> None:
    x = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    expected = judge(tmp_path).fit(bank())(x)
    (file,) = tmp_path.iterdir()
    torch.save(change(torch.load(file, weights_only=True)), file)
    with caplog.at_level(logging.WARNING):
        again = judge(tmp_path).fit(bank())
    assert reason in caplog.text
    assert torch.equal(again(x), expected), "it is trained anew from the same start"
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert torch.equal(judge(tmp_path).fit(bank())(x), expected)
    assert not caplog.text


def test_a_pipe_in_the_cache_does_not_hang(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    judge(tmp_path).fit(bank())
    (file,) = tmp_path.iterdir()
    file.unlink()
    os.mkfifo(file)
    with caplog.at_level(logging.WARNING):
        assert judge(tmp_path).fit(bank()).accuracy == 100
    assert "no regular file" in caplog.text


def test_a_judge_that_becomes_nan_is_refused(tmp_path: Path) -> None:
    wild = judge(tmp_path)
    wild.lr = 1e38
    with pytest.raises(MetagenError, match=r"NaN or infinite.*judge\.lr"):
        wild.fit(bank())
    assert list(tmp_path.iterdir()) == []


def test_it_says_when_it_is_trained_and_only_then(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        one = judge(tmp_path)
        one.say = said.append
        one.fit(bank())
    assert said == [f"trains a judge of bars (3 classes), once: it is kept in {tmp_path}"]


def test_a_judge_that_another_process_trains_is_waited_for_and_not_trained_again(tmp_path: Path) -> None:
    trained = judge(tmp_path / "theirs").fit(bank())
    (file,) = (tmp_path / "theirs").glob("*.pt")
    mine = tmp_path / "mine"
    mine.mkdir()
    lock = FileLock(mine / f"{file.name}.lock", thread_local=False)
    lock.acquire()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        shutil.copy(file, mine / file.name)
        lock.release()

    one = judge(mine)
    one.say = say
    one.fit(bank())
    assert said == ["waits for the judge of bars, which another process trains"]
    assert one.accuracy == trained.accuracy


def test_a_judge_is_trained_where_nothing_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("no locks on this file system")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert judge(tmp_path).fit(bank()).accuracy == 100
