"""Which published model a run goes back to is written down when it begins, and stays so."""

import shutil

import pytest
import torch
from test_importing import model_of

from kao.runs import Ask, Run
from kao.runs.bases import open_base
from kao.runs.exporting import public_base, trained
from kao.runs.importing import write_run
from kao.runs.provenance import Provenance
from kao.runs.start import finish, open_session
from kao.tracking import METRICS

CPU = torch.device("cpu")
QUIET = (
    "training.precision=fp32",
    "hooks.pictures=2",
    "hooks.checkpoints=4",
    "evaluation.every=0",
    "tracking.tensorboard=false",
    "data.augment.edm=0",
)


def go(run, *, base=None, steps=1, branch=None):
    session = open_session(
        Ask(
            run,
            "toy:12",
            None,
            () if branch else QUIET,
            {"length": f"{steps} steps"},
            base=base,
            branch=branch,
        ),
        CPU,
    )
    for _ in session.trainer.steps():
        pass
    finish(session)


@pytest.mark.parametrize("origin", ["google/x", "google/x@main"])
def test_a_name_of_the_hub_is_one_where_no_such_folder_is(tmp_path, monkeypatch, origin):
    monkeypatch.chdir(tmp_path)
    assert Provenance.of_import(origin, "mit") == Provenance("google/x", "mit")
    (tmp_path / origin).mkdir(parents=True)
    assert Provenance.of_import(origin, None) == Provenance()
    assert Provenance.of_import("./weights.pt", None).hub == ""


def test_it_follows_a_model_from_the_hub_through_every_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    imported = write_run(model_of(licence="apache-2.0"), tmp_path / "runs" / "celeb")
    (tmp_path / "owner" / "name").mkdir(parents=True)  # what is there later tells nothing
    first = Provenance("owner/name", "apache-2.0")
    assert Provenance.of_run(imported.path) == first

    go(tmp_path / "tuned", base="runs/celeb")
    go(tmp_path / "again", base=str(tmp_path / "tuned"))
    shutil.rmtree(tmp_path / "runs")
    go(tmp_path / "tuned", steps=2)  # its base is gone
    go(tmp_path / "tuned", steps=3, branch=tmp_path / "branch")
    for name in ("tuned", "again", "branch"):
        assert Provenance.of_run(tmp_path / name) == first, name
    given = trained(Run.open(tmp_path / "again"))
    assert given.config.finetune.base == "owner/name"
    assert open_base(str(tmp_path / "branch")).provenance == first


def test_a_base_that_was_never_published_goes_by_its_last_name(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, tmp_path / "mine" / "cats")
    go(tmp_path / "tuned", base="mine/cats")
    shutil.rmtree(tmp_path / "mine")  # it now looks like a name of the hub
    tuned = Run.open(tmp_path / "tuned")
    assert tuned.config.finetune.base == "mine/cats"
    assert public_base(tuned) == "cats"


def test_a_run_of_before_tells_what_its_log_has(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    assert Provenance.of_run(run) == Provenance()
    (run / METRICS).write_text('{"event": "start", "images": 0, "licence": "mit"}\n')
    assert Provenance.of_run(run) == Provenance("", "mit")
