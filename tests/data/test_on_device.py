"""A batch that is sent to a GPU as indices, on the pretended GPU, which has no numbers, and on the CPU."""

import pytest
import torch
from data_samples import toy_bank
from pretended_gpu import GPU, PretendedGPU, on_gpu

from metagen.data import augment, augment_photographs
from metagen.data.on_device import Sent, moved
from metagen.data.sampler import EpisodeSampler


@pytest.fixture
def bank():
    return toy_bank()


CHANGES = [
    augment.RandomAffine(), augment.Thicken(), augment_photographs.ColorJitter(), augment_photographs.Flip(),
    augment_photographs.Crop(2),
]  # fmt: skip


def sampler(bank):
    return EpisodeSampler(
        bank, bank.names, 3, 1, 2, 0, "train", True, 0.5, binarize="bernoulli", augment=CHANGES
    )


def test_a_batch_is_sent_as_indices_and_its_images_are_gathered_there(bank):
    drawn = sampler(bank).draw(torch.arange(4))
    there = moved(sampler(bank), bank.images.to(GPU))
    with PretendedGPU() as gpu:
        flat = on_gpu(drawn)
        gpu.copies.clear()
        episode = there.gather(flat)
    assert {leaf.device for shots in episode[:2] for leaf in shots} == {GPU}
    assert gpu.copies == []


def test_its_images_are_those_of_the_cpu(bank):
    here = sampler(bank)
    drawn = here.draw(torch.arange(4))
    episode, other = here.gather(drawn), Sent(here, drawn).to(torch.device("cpu"))
    for one, two in zip(episode[:2], other[:2], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.equal(episode.classes, other.classes)


def test_a_bank_is_copied_once(bank):
    assert bank.on(GPU) is bank.on(GPU)
    here = sampler(bank)
    assert here.on(GPU) is here.on(GPU)
    assert here.on(GPU).symmetry.device == GPU
