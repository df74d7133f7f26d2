"""Fixtures: the real data where they are to be had, no network, a local web server.

Test modules load them by ``pytest_plugins``: a second conftest.py would hide the one above.
"""

import functools
import http.server
import os
import threading
from pathlib import Path

import pytest

from metagen.data.digits import Digits
from metagen.data.mnist import MNIST
from metagen.data.omniglot import Omniglot


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Keeps banks out of the user's cache."""
    monkeypatch.setenv("METAGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def real_root():
    """The folder with the real data; without it the test is skipped, or fails where data are required."""
    root = Path(os.environ.get("METAGEN_DATA", "data"))
    needed = ["MNIST/raw/train-images-idx3-ubyte", "omniglot-py/images_background.zip"]
    if all((root / file).exists() or (root / f"{file}.gz").exists() for file in needed):
        return root
    reason = f"METAGEN_DATA: {root} lacks the real MNIST or Omniglot"
    if os.environ.get("METAGEN_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def banks(tmp_path_factory):
    """A cache of banks for all processes of a test run: reading a real data set takes seconds."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / "cache-of-all"
    (folder / "banks").mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def digits(banks):
    return Digits(cache=str(banks)).load()


@pytest.fixture(scope="session")
def real_mnist(real_root, banks):
    return MNIST(str(real_root), cache=str(banks)).load()


@pytest.fixture(scope="session")
def real_omniglot(real_root, banks):
    return Omniglot(str(real_root), cache=str(banks)).load()


_REAL = [pytest.param(name, marks=pytest.mark.real_data) for name in ("mnist", "omniglot")]


@pytest.fixture(params=["digits", *_REAL])
def any_bank(request):
    """Digits always; MNIST and Omniglot where the real data are."""
    return request.getfixturevalue(request.param if request.param == "digits" else f"real_{request.param}")


@pytest.fixture
def small_omniglot(monkeypatch):
    """Expect the counts of the small copy."""
    monkeypatch.setattr(Omniglot, "parts", {"images_background": 5, "images_evaluation": 4})
    monkeypatch.setattr(Omniglot, "per_class", 3)


@pytest.fixture
def offline(monkeypatch):
    """Every connection fails."""
    from urllib.error import URLError

    def refuse(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.fixture
def server(tmp_path):
    """A web server on this machine: (folder that it serves, its address)."""
    folder = tmp_path / "www"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}/"
    httpd.shutdown()
    httpd.server_close()
