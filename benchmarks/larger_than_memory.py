"""A bank larger than memory: its file written, mapped and read for episodes, with the memory that it takes.

    python benchmarks/larger_than_memory.py FOLDER [--images 2000000] [--size 64] [--channels 3]

Writes a bank of random images (24.6 GB by default) to FOLDER, opens it and draws episodes from all over it.
The resident memory of the process beyond the page cache is Linux's RssAnon: mapped pages count as RssFile.
"""

import argparse
import time
from pathlib import Path

import torch

from metagen.data import bank_file
from metagen.data import cache as caches
from metagen.data.bank_file import Labelled, Stream
from metagen.data.sampler import EpisodeSampler
from metagen.data.stream import EpisodeStream

EACH = 200


def status(field: str) -> float:
    """Return a field of this process's memory in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def stream(images: int, size: int, channels: int) -> Stream:
    generator = torch.Generator().manual_seed(0)
    block = torch.randint(256, (2000, channels, size, size), generator=generator, dtype=torch.uint8)
    for index in range(0, images, len(block)):
        block[:, :, 0, 0] = index // len(block) % 251
        yield block[: images - index]
    labels = torch.arange(images) // EACH
    names = tuple(f"{i:06d}" for i in range(int(labels[-1]) + 1))
    return Labelled(labels, names, torch.zeros(images, dtype=torch.bool))


def rate(bank, symmetries: bool, seconds: float, classes: int) -> float:
    """Return 5-way 1-shot episodes with 15 queries a second, from the first classes of the bank."""
    sampler = EpisodeSampler(bank, bank.names[:classes], 5, 1, 15, 0, "train", symmetries)
    episodes, step, start = EpisodeStream(sampler, 32), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        episodes.batch(step)
        step += 1
    return 32 * step / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2_000_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    before, start = status("RssAnon"), time.perf_counter()
    made = caches.cached(
        args.folder, "random", "key", "place", lambda: stream(args.images, args.size, args.channels)
    )
    written, peak = time.perf_counter() - start, status("RssAnon") - before
    path = next(args.folder.glob("banks/*.bank"))
    del made
    start = time.perf_counter()
    bank = bank_file.read(path)
    print(f"{path.stat().st_size / 1e9:.1f} GB written in {written:.0f} s, {peak:.0f} MiB resident after it")
    print(f"opened in {time.perf_counter() - start:.1f} s")
    for symmetries in (False, True):
        for classes in (len(bank.names), min(len(bank.names), 500)):
            rate(bank, symmetries, args.seconds / 5, classes)
            found = rate(bank, symmetries, args.seconds, classes)
            print(f"{found:,.0f} episodes/s, symmetries={symmetries}, of {classes} classes")
    more, mapped = status("RssAnon") - before, status("RssFile")
    print(f"resident beyond the page cache: {more:.0f} MiB more than before (mapped pages: {mapped:.0f} MiB)")


if __name__ == "__main__":
    main()
