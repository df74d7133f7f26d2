"""The folder of the configuration."""

from pathlib import Path


def conf_dir() -> Path:
    """Return the folder of the configuration: packaged in a wheel, else the repository's."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"
