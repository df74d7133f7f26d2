"""Small copies of every data set in its published form."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import datasets as tv

from metagen.data.bank import Bank


def toy_bank(counts=(7, 9, 6, 12, 8), held=0, size=4, name="toy", channels=1):
    """A bank of random images; the last ``held`` of each class are held out."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (sum(counts), channels, size, size), generator=generator).byte()
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    parts = [torch.arange(n) >= n - held for n in counts]
    return Bank(name, images, labels, tuple("abcdefghijklmnopqrstuvwxyz"[: len(counts)]), torch.cat(parts))


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def md5(path):
    return hashlib.md5(Path(path).read_bytes()).hexdigest()


def packed(path, files):
    """A tar.gz of files, name to bytes."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def serve_cifar(server, monkeypatch, names, counts):
    """Serve a CIFAR-100 of random images, so many of each class in each part, to torchvision."""
    (www, url), random, parts = server, np.random.default_rng(0), {}
    for part, count in counts.items():
        labels = np.tile(np.arange(100), count)
        images = random.integers(0, 256, (100 * count, 3072), dtype=np.uint8)
        parts[part] = {"data": images, "fine_labels": labels.tolist(), "coarse_labels": [0] * len(labels)}
    files = {name: pickle.dumps(part) for name, part in parts.items()}
    files["meta"] = pickle.dumps({"fine_label_names": names, "coarse_label_names": ["x"] * 20})
    packed(www / tv.CIFAR100.filename, {f"cifar-100-python/{name}": data for name, data in files.items()})
    sums = {}
    for name, data in files.items():
        (www / name).write_bytes(data)
        sums[name] = md5(www / name)
    monkeypatch.setattr(tv.CIFAR100, "url", url + tv.CIFAR100.filename)
    monkeypatch.setattr(tv.CIFAR100, "tgz_md5", md5(www / tv.CIFAR100.filename))
    monkeypatch.setattr(tv.CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(tv.CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(tv.CIFAR100, "meta", tv.CIFAR100.meta | {"md5": sums["meta"]})
    return parts


def make_mnist(folder, names, train=40, test=20, classes=10, first=0, zipped=True, seed=0):
    """Write four IDX files named ``names`` (train images, labels, test images, labels)."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    arrays = []
    for n in (train, test):
        arrays += [random.integers(0, 256, (n, 28, 28)), np.arange(n) % classes + first]
    for name, array in zip(names, arrays, strict=True):
        data = idx_bytes(array)
        (folder / (name + (".gz" if zipped else ""))).write_bytes(gzip.compress(data) if zipped else data)
    return arrays


OMNIGLOT_SMALL = {"images_background": {"Alpha": 3, "Beta": 2}, "images_evaluation": {"Gamma": 4}}


def png(random):
    file = io.BytesIO()
    Image.fromarray(random.random((105, 105)) > 0.1).convert("1").save(file, "PNG")
    return file.getvalue()


def make_omniglot(folder, per_class=3):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for part, alphabets in OMNIGLOT_SMALL.items():
        with zipfile.ZipFile(folder / f"{part}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for alphabet, characters in alphabets.items():
                for c in range(characters):
                    for i in range(per_class):
                        name = f"{part}/{alphabet}/character{c + 1:02d}/{c:04d}_{i + 1:02d}.png"
                        archive.writestr(name, png(random))
