"""Episodes a second: this project's sampler beside the usual designs, all data in memory.

The bank has the size of Omniglot's training part: 1,200 classes of 20 images of 28 x 28. An episode is
5-way 1-shot with 15 queries a class. The peers are timed as their examples use them (a PIL image for
every sample, resized and converted by torchvision), and on tensors, without PIL. They do not turn classes.
"""

import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import peers
import torch
from timing import in_turns
from torch import Tensor

from metagen.data.bank import Bank
from metagen.data.sampler import EpisodeSampler
from metagen.data.stream import EpisodeStream

CLASSES, IMAGES, WAYS, SHOTS, QUERIES = 1200, 20, 5, 1, 15
COLUMNS = ("work", "by", "episodes/s", "metagen's are x", "note")
Batch = Callable[[], Any]


def bank() -> Bank:
    images = torch.randint(0, 256, (CLASSES * IMAGES, 28, 28), dtype=torch.uint8)
    labels = torch.arange(CLASSES).repeat_interleave(IMAGES)
    names = tuple(f"{i:04d}" for i in range(CLASSES))
    return Bank("random", images, labels, names, torch.zeros(len(labels), dtype=torch.bool))


def ours(
    data: Bank, tasks: int, symmetries: bool, sizes: tuple[int, int, int] = (WAYS, SHOTS, QUERIES)
) -> Batch:
    sampler = EpisodeSampler(data, data.names, *sizes, 0, "train", symmetries)
    stream, steps = EpisodeStream(sampler, tasks), iter(range(sys.maxsize))
    return lambda: stream.batch(next(steps))


def by_hand(data: Bank, tasks: int) -> Batch:
    """Loops over tasks and classes."""
    images = data.images.unflatten(0, (CLASSES, IMAGES))

    def task() -> Tensor:
        rows = [
            images[c][torch.randperm(IMAGES)[: SHOTS + QUERIES]] for c in random.sample(range(CLASSES), WAYS)
        ]
        return torch.stack(rows)

    return lambda: torch.stack([task() for _ in range(tasks)]).float().div_(255)


def tensors(image: Tensor) -> Tensor:
    return image.float().div_(255).unsqueeze(0)


def pictures(image: Tensor) -> Tensor:
    from PIL import Image
    from torchvision.transforms import functional

    return functional.to_tensor(functional.resize(Image.fromarray(image.numpy()), [28]))


def learn2learn(data: Bank, tasks: int, transform: Callable[[Tensor], Tensor]) -> Batch:
    modules = [
        peers.load_learn2learn(f"data.{name}") for name in ("meta_dataset", "task_dataset", "transforms")
    ]
    meta, task, transforms = modules
    sys.modules["learn2learn"].data.MetaDataset = meta.MetaDataset

    class Images(torch.utils.data.Dataset):
        labels = data.labels.tolist()

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, i: int) -> tuple[Tensor, int]:
            return transform(data.images[i]), self.labels[i]

    source = meta.MetaDataset(Images(), indices_to_labels=dict(enumerate(data.labels.tolist())))
    chain = [
        transforms.FusedNWaysKShots(source, n=WAYS, k=SHOTS + QUERIES),
        transforms.LoadData(source),
        transforms.RemapLabels(source),
        transforms.ConsecutiveLabels(source),
    ]
    tasksets = task.Taskset(source, chain, num_tasks=-1)
    query = torch.arange(WAYS * (SHOTS + QUERIES)) % (SHOTS + QUERIES) >= SHOTS

    def batch() -> list[Tensor]:
        parts = [
            (x[~query], y[~query], x[query], y[query]) for x, y in (tasksets.sample() for _ in range(tasks))
        ]
        return [torch.stack(part) for part in zip(*parts, strict=True)]

    return batch


def torchmeta(data: Bank, tasks: int, transform: Callable[[Tensor], Tensor]) -> Batch:
    import torchvision.datasets.utils as downloads

    for name in ("_get_confirm_token", "_save_response_content"):
        setattr(downloads, name, None)  # torchvision dropped them; only torchmeta's downloads need them
    base, shuffle = peers.load("torchmeta.utils.data"), peers.load("torchmeta.transforms")
    subset = peers.load("torchmeta.utils.data.task").SubsetTask
    subset.__getitems__ = lambda self, rows: [self[i] for i in rows]  # which torch asks for since 2.1

    class OneClass(base.Dataset):
        def __init__(self, label: int, **transforms: Any) -> None:
            super().__init__(label, **transforms)
            self.label = label

        def __len__(self) -> int:
            return IMAGES

        def __getitem__(self, i: int) -> tuple[Tensor, int]:
            return self.transform(data.images[self.label * IMAGES + i]), self.target_transform(self.label)

    class Classes(base.ClassDataset):
        num_classes = CLASSES

        def __getitem__(self, i: int) -> OneClass:
            transforms = self.get_transform(i, transform), self.get_target_transform(i)
            return OneClass(i, transform=transforms[0], target_transform=transforms[1])

    combined = base.CombinationMetaDataset(
        Classes(meta_train=True), WAYS, target_transform=shuffle.Categorical(WAYS)
    )
    split = shuffle.ClassSplitter(
        combined, shuffle=True, num_train_per_class=SHOTS, num_test_per_class=QUERIES
    )
    loader = iter(base.BatchMetaDataLoader(split, batch_size=tasks, num_workers=0))
    return lambda: next(loader)


def rows(tasks: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield the rate of each design and how many times as many episodes this project's gives, turned."""
    data, functions, notes = bank(), {}, {}
    designs: dict[str, Callable[[], Batch]] = {
        "metagen, turned": lambda: ours(data, tasks, True),
        "metagen": lambda: ours(data, tasks, False),
        "loops by hand": lambda: by_hand(data, tasks),
        "learn2learn, PIL": lambda: learn2learn(data, tasks, pictures),
        "learn2learn, tensors": lambda: learn2learn(data, tasks, tensors),
        "torchmeta, PIL": lambda: torchmeta(data, tasks, pictures),
        "torchmeta, tensors": lambda: torchmeta(data, tasks, tensors),
    }
    for name, design in designs.items():
        try:
            functions[name] = design()
        except peers.MissingError as missing:
            notes[name] = str(missing)
    # The fast designs need many batches for a measurement that lasts.
    repeats = {name: 64 if "metagen" in name else 16 if "hand" in name else 1 for name in functions}
    seconds = in_turns({n: partial(_repeat, batch, repeats[n]) for n, batch in functions.items()}, rounds)
    rates = {name: tasks * repeats[name] / value for name, value in seconds.items()}
    for name in [*functions, *notes]:
        row = {"work": f"batches of {tasks} episodes", "by": name, "note": notes.get(name, "")}
        if name in rates:
            row |= {"episodes/s": rates[name], "metagen's are x": rates["metagen, turned"] / rates[name]}
        yield row


def _repeat(batch: Batch, times: int) -> None:
    for _ in range(times):
        batch()
