"""A model that was trained elsewhere as a run: everything opens it but training."""

import pytest
import torch

import kao
from kao.config import SamplingConfig, load_config
from kao.diffusion import Ancestral, Clip, Linear, targets
from kao.errors import CheckpointError, ConfigError, DataError, OutputError
from kao.exchange import Model
from kao.networks import UNetConfig
from kao.reports.record import RunRecord
from kao.runs import Ask, Run, configure, draw
from kao.runs.bases import IMPORTED_RATE, open_base
from kao.runs.beginning import under
from kao.runs.importing import imported_from, write_run
from kao.runs.pictures import some_real
from kao.tracking import read_events
from kao.training import OptimizerConfig

NETWORK = UNetConfig(width=8, levels=(1, 2), blocks=1, attention=(), groups=4, dropout=0.0)


def model_of(*, channels=3, classes=(), learned=False, **more):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = NETWORK.build(
            channels=channels,
            size=16,
            outputs=(2 if learned else 1) * channels,
            takes=kao.networks.Takes(classes=len(classes)),
        )
    return Model(
        network=NETWORK,
        channels=channels,
        size=16,
        classes=classes,
        schedule=Linear(),
        target=targets.eps,
        learned_variance=learned,
        weights=network.state_dict(),
        origin="owner/name",
        **more,
    )


@pytest.fixture
def run(tmp_path):
    return write_run(model_of(licence="mit", notes=("A guess.",)), tmp_path / "run")


def test_a_run_holds_the_model_and_where_it_is_from(run):
    opened = Run.open(run.path)
    config = opened.config
    assert (config.network, config.schedule, config.target) == (NETWORK, Linear(), targets.eps)
    assert (config.data.size, config.data.source, config.loss.weight) == (16, "", None)
    checkpoint, damages = opened.checkpoint()
    assert checkpoint.images == 0 and not damages
    assert load_config(checkpoint.config, "there") == config
    for weights in ("ema", "model"):
        denoiser = opened.denoiser(weights=weights, device=torch.device("cpu"))
        state = denoiser.network.state_dict()
        assert all(torch.equal(t, state[name]) for name, t in model_of().weights.items())
    (start, *_), kinds = read_events(run.path), [e["event"] for e in read_events(run.path)]
    assert kinds == ["start", "checkpoint", "end"]
    assert (start["imported_from"], start["licence"]) == ("owner/name", "mit")
    assert start["notes"] == ["A guess."]
    assert imported_from(run.path) == "owner/name"


def test_the_configuration_of_an_imported_model_passes_every_check(run):
    run.config.check()
    told = model_of(classes=("cat", "dog"), learned=True).config()
    told.check()
    assert told.conditions.names == ("cat", "dog") and told.loss.bound > 0


def test_its_pictures_are_those_of_the_model(run):
    config = run.drawing()
    pictures = torch.cat(list(draw(run.denoiser(), config, indices=range(2))))
    assert pictures.shape == (2, 3, 16, 16) and pictures.dtype == torch.uint8
    assert not torch.equal(pictures[0], pictures[1])


def test_a_way_to_draw_is_the_makers_unless_it_walks_a_long_chain():
    usual = model_of().config().sampling
    quick = SamplingConfig(steps=50, threshold=None)
    assert model_of(sampling=quick).config().sampling == quick
    whole = SamplingConfig(sampler=Ancestral(), steps=1000, threshold=Clip(2.0))
    sampling = model_of(sampling=whole).config().sampling
    assert (sampling.sampler, sampling.steps) == (usual.sampler, usual.steps)
    assert sampling.threshold == Clip(2.0)


def test_what_begins_with_it_learns_as_with_weights_of_which_nobody_knows_more(run):
    for place in (run.path, run.checkpoint()[0].path):
        base = open_base(str(place))
        assert not base.trained
        assert under(base).optimizer == OptimizerConfig(rate=IMPORTED_RATE)


def test_training_never_goes_on_with_it(run, tmp_path):
    for branch in (None, tmp_path / "branch"):
        ask = Ask(run=run.path, source="toy", branch=branch)
        with pytest.raises(CheckpointError, match=r"imported from owner/name.*kao finetune"):
            configure(ask, torch.device("cpu"))


def test_pictures_that_nobody_knows_are_not_looked_for(run):
    with pytest.raises(DataError, match="was imported, and which pictures"):
        some_real(run.config, n=4, seed=0)


def test_its_record_can_be_read_for_a_report(run):
    record = RunRecord.read(run.path)
    assert record.images == 0 and len(record.sessions) == 1
    assert record.sessions[0].start["parameters"] > 0


def test_a_directory_that_holds_something_is_refused(run, tmp_path):
    with pytest.raises(OutputError, match="holds something already"):
        write_run(model_of(), run.path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="holds something already"):
        kao.import_run("owner/name", run=tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert write_run(model_of(), tmp_path / "empty").checkpoint()


def test_what_is_no_picture_becomes_no_run(tmp_path):
    with pytest.raises(ConfigError, match="draws 4 channels"):
        write_run(model_of(channels=4), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_that_do_not_fit_leave_no_directory(tmp_path):
    model = model_of()
    weights = {name: tensor for name, tensor in model.weights.items() if name != "conv_in.bias"}
    broken = Model(**{**vars(model), "weights": weights})
    with pytest.raises(
        CheckpointError, match=r"owner/name does not fit .* conv_in\.bias is missing"
    ):
        write_run(broken, tmp_path / "run")
    assert not (tmp_path / "run").exists()
