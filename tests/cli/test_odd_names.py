"""A run whose folder, pictures and classes have names that no program likes."""

import os
import re

import numpy as np
import pytest
from PIL import Image

CLASSES = (
    b"\x1b[31mred",
    b"a\nb",
    b"<img src=x>",
    b"$x_1",
    b"[v2] e=mc",
    b"\x94L\xe4",
    "猫".encode(),
)
ODD = os.fsdecode(b"r=1\x1b[31m\n<b>$x [u]\xe4")


@pytest.fixture(scope="module")
def odd(tmp_path_factory, tiny):
    """The folder of the pictures, and a run that learned from them and their classes."""
    from kao.cli import run

    place = tmp_path_factory.mktemp("odd") / ODD
    generator = np.random.default_rng(0)
    for name in CLASSES:
        folder = place / "set" / os.fsdecode(name)
        folder.mkdir(parents=True)
        for i in range(4):
            pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    words = [*tiny, "conditions.classes=true", "ema.snapshots=4", "tracking.tensorboard=true"]
    for steps in ("2", "4"):  # the second goes on from the first's run.toml
        command = ["train", place / "set", "toy-32", "--run", place / "run", "--steps", steps]
        assert run([*map(str, command), *words, "hooks.checkpoints=8"]) == 0
    return place


@pytest.fixture
def said(kao):
    """said("sample", ...): what a command that goes well says, without escape codes."""

    def call(*words):
        code, out, err = kao(*words)
        assert code == 0, err
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", out + err)
        return out + err

    return call


def test_a_run_is_drawn_from_by_the_names_of_its_classes(said, odd):
    names = [word for name in CLASSES for word in ("--class", os.fsdecode(name))]
    out = odd / "drawn"
    said("sample", odd / "run", "--n", "7", *names, "--out", out, "--npz", odd / "n.npz")
    assert len(list(out.iterdir())) == 7


def test_pictures_are_prepared_scored_and_compared(said, odd):
    assert "a\\nb 4" in said("prepare", odd / "set", "--size", "16")
    said("sample", odd / "run", "--n", "8", "--out", odd / "some")
    said("evaluate", odd / "some", "--real", odd / "set", "--features", "wavelets")
    said("evaluate", odd / "run", "--n", "8", "--features", "wavelets", "--json")
    pair = (odd / "run", odd / "some", "--real", odd / "set", "--n", "8")
    said("compare", *pair, "--features", "wavelets", "--out", odd / "page.html")
    page = (odd / "page.html").read_text(encoding="utf-8")
    assert "<b>$x" not in page and "\x1b" not in page


def test_a_report_shows_names_and_obeys_none(said, odd):
    said("show", odd / "run", "schedule")
    said("report", odd / "run")
    page = (odd / "run" / "report.html").read_text(encoding="utf-8")
    assert "<img src=x>" not in page and "&lt;img src=x&gt;" in page
    assert "\x1b" not in page and r"\x1b[31mred" in page and r"\x94L\xe4" in page


def test_averages_are_made_of_its_snapshots(said, odd):
    said("ema", odd / "run", "--width", "0.1")
    said("sample", odd / "run", "--n", "2", "--weights", "w0.100")


def test_what_is_given_away_is_utf8(said, odd, kao):
    said("export", odd / "run", "--to", "safetensors", "--out", odd / "mine.safetensors")
    said("import", odd / "mine.safetensors", "--run", odd / "back")
    said("sample", odd / "back", "--n", "1", "--class", r"\x94L\xe4", "--grid", odd / "back.png")
    said("push", odd / "run", "me/mine", "--dry-run", odd / "pushed")
    for name in ("run.toml", "README.md"):
        (odd / "pushed" / name).read_text(encoding="utf-8")
    code, _, err = kao("export", odd / "run", "--to", "onnx", "--out", odd / "onnx")
    assert code == 2 and "reads no folder called" in err


def test_its_log_is_kept_without_tensorboard(odd):
    assert (odd / "run" / "metrics.jsonl").read_bytes().isascii()
    assert not list((odd / "run" / "tensorboard").iterdir())


def test_the_librarys_messages_are_shown_as_well(odd, tiny):
    import kao

    words = [*tiny, "conditions.classes=true", "tracking.tensorboard=true"]
    source = odd / "set"
    with pytest.warns(UserWarning, match=r"TensorBoard takes no folder.*r=1\\x1b\[31m\\n<b>"):
        kao.train(source, run=odd / "lib", recipe="toy-32", length="2 steps", overrides=words)
