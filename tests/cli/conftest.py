"""A command line to type into."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from kao.cli import run


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setattr("kao.machine.device", lambda: torch.device("cpu"))


@pytest.fixture
def kao(capsys):
    """kao("train", "toy"): exit code, standard output, standard error."""

    def call(*words):
        code = run([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def refused(kao):
    """refused("train", "nowhere"): the one line that is said, without "kao: "."""

    def call(*words):
        code, out, err = kao(*words)
        assert (code, out) == (2, "")
        assert err.startswith("kao: ") and err.endswith("\n") and err.count("\n") == 1, err
        return err.removeprefix("kao: ").rstrip("\n")

    return call


@pytest.fixture
def train(tiny, tmp_path):
    """The words of a small training run in tmp_path/run; more may follow."""
    return ("train", "toy:8", "toy-32", *tiny, "--run", tmp_path / "run")


@pytest.fixture
def own_run(tiny_run, tmp_path):
    """A run that a test may change."""
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture
def faces(tmp_path):
    """faces(3): a folder of so many pictures."""

    def make(count):
        folder = tmp_path / "faces"
        folder.mkdir()
        for seed in range(count):
            pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{seed}.png")
        return folder

    return make
