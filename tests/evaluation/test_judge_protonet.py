"""The prototypical judge: better than chance on classes it never saw, one image at a time, and cached."""

import pytest
import torch

from metagen.data.digits import Digits
from metagen.errors import MetagenError
from metagen.evaluation.judge_protonet import ProtoNetJudge
from metagen.models.conv4 import Conv4

BANK = Digits(split="digits_789").load()
TESTED = ("7", "8", "9")


def judge(tmp_path, **changes):
    def make(ways):
        return Conv4(ways, filters=8)

    return ProtoNetJudge(make, **{"steps": 80, "ways": 10, "queries": 3, "cache": tmp_path} | changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    return judge(folder, ways=7).fit(BANK, TESTED), folder


def test_new_classes_are_told_apart_better_than_by_chance(trained):
    assert trained[0].accuracy > 42  # chance is 33


def test_features_of_an_image_do_not_depend_on_the_others(trained):
    x = BANK.images[:6].float() / 255
    together, alone = trained[0].features(x), trained[0].features(x[2:3])
    assert torch.allclose(together[2:3], alone, atol=1e-5)


def test_weights_come_from_the_cache(trained, monkeypatch):
    monkeypatch.setattr(ProtoNetJudge, "_learn", lambda *args: pytest.fail("trained again"))
    again = judge(trained[1], ways=7).fit(BANK, TESTED)
    assert again.accuracy == trained[0].accuracy
    x = BANK.images[:3].float() / 255
    assert torch.equal(again.features(x), trained[0].features(x))


def test_it_says_that_it_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(ProtoNetJudge, "_learn", lambda *args: None)
    said, new = [], judge(tmp_path, ways=7)
    new.say = said.append
    new.fit(BANK, TESTED)
    assert len(said) == 1
    assert said[0].startswith(f"trains a judge of {BANK.name} (7 classes), once")


def test_what_cannot_be_judged_is_refused(tmp_path, trained):
    with pytest.raises(MetagenError, match=r"judge\.ways"):
        judge(tmp_path).fit(BANK, TESTED)
    with pytest.raises(MetagenError, match="recognizability"):
        trained[0](torch.zeros(1, 1, 28, 28))
    with pytest.raises(MetagenError, match="fit"):
        judge(tmp_path).features(torch.zeros(1, 1, 28, 28))
    with pytest.raises(MetagenError, match=r"steps=0"):
        judge(tmp_path, steps=0)
