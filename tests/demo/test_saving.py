"""What is saved is what is shown."""

import io
import json
import zipfile

import numpy as np
import pytest
from demo.demo_samples import support
from PIL import Image

from metagen.data.form import Form
from metagen.demo.engine import Engine
from metagen.demo.saving import Visit, archive

pytest_plugins = ["demo.demo_fixtures"]


def test_the_archive_holds_samples_support_and_settings(run_folders):
    engine = Engine([run_folders["reptile"], run_folders["amortized"]])
    *_, done = engine.adapt(support(3), 5, 7)
    data = archive(Visit(support(3), "drawings", 5, [done[0], done[1]]))
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        assert file.testzip() is None
        names = set(file.namelist())
        arrays = [np.load(io.BytesIO(file.read(f"{k}/samples.npz"))) for k in range(2)]
        settings = json.loads(file.read("settings.json"))
        assert Image.open(io.BytesIO(file.read("0/samples.png"))).width > 400
    assert names == {"settings.json", "0/samples.npz", "0/samples.png", "1/samples.npz", "1/samples.png"}
    for k, found in done.items():
        assert np.array_equal(arrays[k]["support"], support(3)[Form(28)])
        assert np.array_equal(arrays[k]["samples"], found.samples)
        assert np.array_equal(arrays[k]["nearest"], found.nearest)
    assert arrays[0]["step_samples"].shape == (4, 6, 28, 28)
    assert arrays[0]["steps"].tolist() == [0, 1, 2, 5]
    assert arrays[0]["loss"].tolist() == pytest.approx(done[0].losses)
    assert (settings["source"], settings["steps"], settings["seed"]) == ("drawings", 5, 0)
    assert [run["steps"] for run in settings["runs"]] == [5, 0]
    assert [run["samples"] for run in settings["runs"]] == [7, 7]
    assert settings["runs"][0]["label"] == "reptile · vae"
