"""The device that ``--device`` says, and what a command says of it."""

import pytest
import torch

from metagen.errors import UsageError
from metagen.functional.device import device_of, in_words


@pytest.fixture
def cards(monkeypatch):
    def there_are(count):
        monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)
        monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "Card 3")

    return there_are


@pytest.mark.parametrize(
    ("count", "name", "device"),
    [
        (0, "auto", "cpu"),
        (2, "auto", "cuda"),
        (2, "cpu", "cpu"),
        (2, "cuda", "cuda:0"),
        (2, "cuda:1", "cuda:1"),
    ],
)
def test_a_gpu_where_there_is_one(cards, count, name, device):
    cards(count)
    assert device_of(name) == torch.device(device)


@pytest.mark.parametrize(
    ("count", "name", "words"),
    [
        (0, "cuda", "no GPU here; use --device cpu"),
        (0, "cuda:0", "no GPU here"),
        (2, "cuda:2", "2 of them; use --device auto"),
        (2, "gpu", "expected auto, cpu, cuda, or cuda:N"),
        (2, "cuda:x", "expected auto"),
        (2, "cuda:", "expected auto"),
        (2, "", "expected auto"),
    ],
)
def test_no_such_device(cards, count, name, words):
    cards(count)
    with pytest.raises(UsageError, match=words) as error:
        device_of(name)
    assert "\n" not in str(error.value)


def test_it_is_named(cards):
    cards(1)
    assert in_words(device_of("cpu")) == "the CPU"
    assert in_words(device_of("cuda")) == "cuda:0 (Card 3)"
