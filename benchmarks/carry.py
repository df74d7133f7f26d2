"""What a machine without network needs for ``make gpu``: wheels, the project and data, in one archive.

    make gpu-wheels                                  writes dist/gpu.tar.gz, with the data of METAGEN_DATA
    tar xzf gpu.tar.gz && sh metagen-gpu/run.sh      there, with any of gpu.py's options

The machine has torch, torchvision, lightning, torchmetrics, tensorboard with what these need, and the Python
of this one. All else that metagen needs is made a wheel here; what is published as source only is built.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
THERE = ("torch", "torchvision", "lightning", "torchmetrics", "tensorboard")
DATA = ("MNIST/raw", "omniglot-py", "omniglot-gmn")
"""Folders of METAGEN_DATA that the experiments read."""
RUN = """#!/bin/sh
# Install what was carried and measure: sh run.sh [--quick] [--resume] [--minutes 25] ...
set -e
cd "$(dirname "$0")"
${PYTHON:-python3} -c 'import metagen, hydra, mlxtend' 2>/dev/null || \\
    ${PYTHON:-python3} -m pip install --quiet --no-index --no-deps wheels/*.whl
METAGEN_DATA="$PWD/data" METAGEN_CACHE="$PWD/cache" ${PYTHON:-python3} benchmarks/gpu.py "$@"
"""


def needed(names: Iterable[str]) -> set[str]:
    """Return packages with all that they need on this machine, extras left out."""
    found: set[str] = set()
    ahead = [canonicalize_name(name) for name in names]
    while ahead:
        name = ahead.pop()
        if name in found:
            continue
        try:
            wanted = map(Requirement, distribution(name).requires or ())
        except PackageNotFoundError:  # only where a marker that is none of ours asks for it
            continue
        found.add(name)
        ahead += [canonicalize_name(one.name) for one in wanted if not one.marker or one.marker.evaluate()]
    return found


def carried(there: Iterable[str] = ()) -> list[str]:
    """Return the packages that a machine with ``THERE`` and ``there`` lacks, with their versions here."""
    missing = needed(["metagen"]) - needed([*THERE, *there]) - {"metagen", "setuptools"}
    return [f"{name}=={version(name)}" for name in sorted(missing)]


def pack(out: Path, data: Path | None, python: str, there: Iterable[str] = ()) -> list[str]:
    """Write the archive and return the names of its wheels."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder) / "metagen-gpu"
        wheels = [python, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(top / "wheels")]
        subprocess.run([*wheels, *carried(there), str(ROOT)], check=True)
        left_out = shutil.ignore_patterns("results", "__*")
        shutil.copytree(ROOT / "benchmarks", top / "benchmarks", ignore=left_out)
        for name in DATA if data else ():
            if data and (data / name).is_dir():
                shutil.copytree(data / name, top / "data" / name, ignore=_unpacked)
        (top / "run.sh").write_text(RUN)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(out, "w:gz") as archive:
            archive.add(top, top.name)
        return sorted(path.name for path in (top / "wheels").iterdir())


def _unpacked(folder: str, names: list[str]) -> list[str]:
    """Leave out files and folders of which the packed form lies beside them."""
    return [name for name in names if {f"{name}.gz", f"{name}.zip"} & set(names)]


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--out", type=Path, default=ROOT / "dist/gpu.tar.gz")
    parser.add_argument("--data", type=Path, help="folder of the data (default: none)")
    parser.add_argument("--there", nargs="*", default=[], metavar="NAME", help="packages that it has, too")
    parser.add_argument("--python", default=sys.executable, help="with a pip that builds wheels")
    args = parser.parse_args()
    for name in pack(args.out, args.data, args.python, args.there):
        print(name)
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
