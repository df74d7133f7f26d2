"""The classes that the user allows configurations to name: ``METAGEN_ALLOW``."""

import os

from metagen.variables import ALLOW


def allowed() -> list[str]:
    """Return the classes, packages and interpolations that the user trusts."""
    return [part.strip() for part in os.environ.get(ALLOW, "").split(",") if part.strip()]
