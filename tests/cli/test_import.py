"""`kao import`: what it says, and what opens the run that it makes."""

import json

import pytest
import safetensors.torch
import torch

import kao as package
from kao.exchange.diffusers_config import write_config
from kao.exchange.diffusers_names import rules
from kao.exchange.renaming import to_theirs
from kao.networks import UNetConfig

NETWORK = UNetConfig(width=8, levels=(1, 2), blocks=1, attention=(8,), groups=4, dropout=0.0)


@pytest.fixture
def pipeline(tmp_path):
    """A folder as diffusers writes it."""
    folder = tmp_path / "pipeline"
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = NETWORK.build(channels=3, size=16).state_dict()
    theirs = to_theirs(rules(NETWORK, size=16), weights)
    safetensors.torch.save_file(theirs, folder / "diffusion_pytorch_model.safetensors")
    config = write_config(NETWORK, channels=3, outputs=3, size=16)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDPMScheduler"}))
    return folder


def test_what_was_read_is_said_and_the_run_can_be_drawn_with(kao, pipeline, tmp_path):
    run = tmp_path / "run"
    code, out, err = kao("import", pipeline, "--run", run)
    assert (code, out) == (0, "")
    for words in (
        "unet with",
        "16 x 16 pixels",
        "Schedule linear of 1,000 steps, target eps.",
        "Licence of the weights: not told",
        "Its makers draw with ddpm in 1000 steps",
        f"kao sample {run}",
    ):
        assert words in err
    code, _, err = kao("sample", run, "--n", 2, "--steps", 2, "--grid", tmp_path / "grid.png")
    assert code == 0 and (tmp_path / "grid.png").is_file(), err


def test_show_and_report_do_without_the_pictures(kao, pipeline, tmp_path):
    run = tmp_path / "run"
    kao("import", pipeline, "--run", run)
    code, _, err = kao("report", run)
    assert code == 0 and (run / "report.html").is_file(), err


def test_what_is_not_known_is_said(kao, pipeline, tmp_path):
    (pipeline / "scheduler_config.json").unlink()
    words = ("import", pipeline, "prediction_type=v_prediction", "--run", tmp_path / "run")
    code, _, err = kao(*words)
    assert code == 0
    assert "target v" in err and "beta_schedule, num_train_timesteps are those of DDPM" in err


def test_mistakes_are_told_in_a_line(refused, kao, pipeline, tmp_path):
    run = tmp_path / "run"
    assert "is nothing that a model leaves open" in refused("import", pipeline, "network.width=8")
    assert "The name is empty" in refused("import", "")
    assert "is not an override" in refused("import", pipeline, "size")
    assert "size = 32, but" in refused("import", pipeline, "size=32", "--run", run)
    assert not run.exists()
    kao("import", pipeline, "--run", run)
    assert "holds something already" in refused("import", pipeline, "--run", run)
    assert "is a kao run already" in refused("import", run, "--run", tmp_path / "other")
    assert "which pictures it learned from" in refused("evaluate", run)
    assert "was imported from" in refused("train", "toy", "--run", run)


def test_a_library_user_imports_with_one_call(pipeline, tmp_path):
    run = package.import_run(pipeline, run=tmp_path / "run")
    assert package.sample(run, n=1).shape == (1, 3, 16, 16)
