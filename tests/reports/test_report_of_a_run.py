"""What `kao report` and `kao show` draw, and which pictures of a run they show."""

import os
import shutil
from dataclasses import replace

import pytest
import torch

from kao.cli import run as command
from kao.errors import DataError, MissingExtraError
from kao.runs import Run
from kao.runs.pictures import some_real


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setattr("kao.machine.device", lambda: torch.device("cpu"))


@pytest.fixture
def own_run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture
def without_hf(monkeypatch):
    def missing(*_, **__):
        raise MissingExtraError("datasets", extra="hf", purpose="read data sets")

    monkeypatch.setattr("kao.runs.pictures.some_real", missing)


def test_figures_of_an_earlier_model_are_drawn_anew_and_the_others_stay(own_run):
    assert command(["report", str(own_run)]) == 0
    figures = {path.name: path for path in (own_run / "pictures").iterdir()}
    times = {name: path.stat().st_mtime_ns for name, path in figures.items()}
    assert command(["report", str(own_run)]) == 0
    assert {name: path.stat().st_mtime_ns for name, path in figures.items()} == times
    for path in figures.values():
        os.utime(path, ns=(1, 1))
    assert command(["report", str(own_run)]) == 0
    drawn = {name for name, path in figures.items() if path.stat().st_mtime_ns > 1}
    assert drawn == {"reverse.png", "process.png", "denoising.gif"}


@pytest.mark.usefixtures("without_hf")
def test_a_figure_that_cannot_be_drawn_does_not_cost_the_page(own_run, capsys):
    assert command(["report", str(own_run)]) == 0
    assert "Left out forward: The package 'datasets' is needed" in capsys.readouterr().err
    assert (own_run / "report.html").is_file()
    assert (own_run / "pictures" / "process.png").is_file()


@pytest.mark.usefixtures("without_hf")
def test_show_leaves_out_what_cannot_be_drawn_unless_it_was_named(own_run, capsys):
    assert command(["show", str(own_run), "--n", "1"]) == 0
    assert "Left out forward: The package 'datasets'" in capsys.readouterr().err
    assert command(["show", str(own_run), "forward"]) == 2


def test_a_configuration_that_cannot_be_read_does_not_cost_the_page(own_run, capsys):
    (own_run / "run.toml").write_text("size =")
    assert command(["report", str(own_run)]) == 0
    assert "Left out all figures: " in capsys.readouterr().err
    assert (own_run / "report.html").is_file()


def test_the_pictures_of_a_run_are_those_it_learned_from(tiny_run):
    config = Run.open(tiny_run).config
    assert some_real(config, n=3, seed=0).shape == (3, 3, 16, 16)
    assert torch.equal(some_real(config, n=3, seed=0), some_real(config, n=3, seed=0))
    other = replace(config, data=replace(config.data, fingerprint="0" * 64))
    with pytest.raises(DataError, match="not here any more: toy:8 holds others now"):
        some_real(other, n=3, seed=0)


def test_pictures_that_do_not_stand_prepared_are_not_prepared_for_a_figure(
    tiny_run, tmp_path, monkeypatch
):
    monkeypatch.setenv("KAO_CACHE", str(tmp_path / "empty"))
    with pytest.raises(DataError, match="run `kao prepare toy:8 --size 16 --crop centre`"):
        some_real(Run.open(tiny_run).config, n=3, seed=0)
    assert not (tmp_path / "empty").exists()
