import hashlib

import pytest
import torch

from metagen.data.bank import Bank
from metagen.errors import MetagenError


def parts(**changes):
    base = {
        "name": "toy",
        "images": torch.arange(4 * 4).reshape(4, 2, 2).byte(),
        "labels": torch.tensor([0, 0, 1, 1]),
        "names": ("a", "b"),
        "held": torch.zeros(4, dtype=torch.bool),
    }
    return base | changes


def test_counts_and_offsets():
    bank = Bank(**parts(labels=torch.tensor([0, 1, 1, 1])))
    assert bank.counts.tolist() == [1, 3]
    assert bank.offsets.tolist() == [0, 1]


def test_build_sorts_by_class_and_keeps_the_order_within():
    held = torch.tensor([True, False, False, True])
    bank = Bank.build("toy", parts()["images"], torch.tensor([1, 0, 1, 0]), ["a", "b"], held)
    assert bank.images[:, 0, 0, 0].tolist() == [4, 12, 0, 8]
    assert bank.held.tolist() == [False, True, True, False]


def test_sha256_depends_on_images_and_labels():
    bank = Bank(**parts())
    other = parts()["images"].clone()
    other[3, 1, 1] += 1
    assert bank.sha256 == Bank(**parts()).sha256
    assert len({bank.sha256, Bank(**parts(images=other)).sha256}) == 2
    assert bank.sha256 != Bank(**parts(labels=torch.tensor([0, 1, 1, 1]))).sha256
    assert len(bank.sha256) == len(hashlib.sha256().hexdigest())


@pytest.mark.parametrize(
    "changes",
    [
        {"images": torch.zeros(4, 2, 2)},
        {"images": torch.zeros(4, 2, 3).byte()},
        {"images": torch.zeros(4, 2, 2, 2).byte()},
        {"images": torch.zeros(4, 2).byte()},
        {"labels": torch.tensor([0, 1, 0, 1])},
        {"labels": torch.tensor([0, 0, 0, 0])},
        {"labels": torch.tensor([0, 0, 2, 2])},
        {"labels": torch.tensor([0, 0, 1])},
        {"names": ("a", "a")},
        {"held": torch.zeros(3, dtype=torch.bool)},
    ],
)
def test_what_does_not_fit_is_refused(changes):
    with pytest.raises(MetagenError, match=r"bank 'toy': expected .*, found") as error:
        Bank(**parts(**changes))
    assert "\n" not in str(error.value)


def test_the_checksum_of_grey_images_is_that_of_their_shape_without_channels():
    """Records of grey data name them by it."""
    bank = Bank(**parts())
    digest = hashlib.sha256(b"(4, 2, 2)" + parts()["images"].numpy().tobytes())
    digest.update(bank.labels.numpy().tobytes())
    assert bank.sha256 == digest.hexdigest()
    assert bank.images.shape == (4, 1, 2, 2)
    assert bank.sha256 == Bank(**parts(images=parts()["images"].unsqueeze(1))).sha256


def test_a_bank_in_colour():
    images = torch.randint(256, (4, 3, 2, 2), generator=torch.Generator().manual_seed(0)).byte()
    bank = Bank(**parts(images=images))
    assert (bank.channels, bank.size) == (3, 2)
    assert bank.sha256 != Bank(**parts(images=images.flip(1))).sha256
