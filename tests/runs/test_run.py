import shutil
from dataclasses import replace

import pytest
import torch

import kao
from kao.config import SamplingConfig
from kao.diffusion import Ancestral, Cosine
from kao.errors import CheckpointError, ConfigError
from kao.runs import Run, draw, with_sampling
from kao.runs.pictures import some_real


@pytest.fixture(scope="module")
def run(tiny_run):
    return Run.open(tiny_run)


@pytest.fixture(scope="module")
def denoiser(run):
    """A model that is sure of nothing: four steps leave it close to zero, where all is alike."""
    model = run.denoiser()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def config(run):
    """A way to draw in which every step takes noise."""
    return with_sampling(run.config, SamplingConfig(sampler=Ancestral(), steps=5))


def drawn(denoiser, config, indices, **more):
    return torch.cat(list(draw(denoiser, config, indices=indices, **more)))


def apart(a, b):
    """The largest difference, in levels of 255."""
    return (a.int() - b.int()).abs().max()


def test_a_picture_is_the_same_whatever_is_drawn_beside_it(denoiser, config):
    six = drawn(denoiser, config, range(6))
    assert (six.shape, six.dtype) == ((6, 3, 16, 16), torch.uint8)
    # Convolutions may add in another order for another size of batch, hence one level.
    assert apart(six, drawn(denoiser, config, range(6), batch=4)) <= 1
    assert apart(six, drawn(denoiser, config, range(6), batch=1)) <= 1
    assert apart(six[:3], drawn(denoiser, config, range(3))) <= 1
    assert apart(six[[5, 2]], drawn(denoiser, config, [5, 2])) <= 1


def test_pictures_and_seeds_differ(denoiser, config):
    two = drawn(denoiser, config, range(2))
    assert apart(two[0], two[1]) > 20
    assert apart(two, drawn(denoiser, config, range(2), seed=1)) > 20


def test_batches_come_as_they_are_drawn(denoiser, config):
    batches = draw(denoiser, config, indices=range(5), batch=2)
    assert [len(batch) for batch in batches] == [2, 2, 1]


def test_averaged_weights_are_not_those_being_trained(run):
    averaged, trained = run.denoiser(), run.denoiser(weights="model")
    there, here = averaged.state_dict(), trained.state_dict()
    assert list(there) == list(here)
    assert any(not torch.equal(there[name], here[name]) for name in here)


def test_a_model_that_is_loaded_is_ready_to_draw(run):
    model = run.denoiser()
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_library_draws_what_the_run_says(run, tiny_run):
    by_path = kao.sample(tiny_run, n=3, seed=2)
    assert torch.equal(by_path, kao.sample(kao.Run.open(tiny_run), n=3, seed=2))
    assert torch.equal(by_path, drawn(run.denoiser(), run.config, range(3), seed=2))


def test_real_pictures_are_chosen_by_the_seed(run):
    five = some_real(run.config, n=5, seed=0)
    assert (five.shape, five.dtype) == ((5, 3, 16, 16), torch.uint8)
    assert torch.equal(five, some_real(run.config, n=5, seed=0))
    assert not torch.equal(five, some_real(run.config, n=5, seed=1))
    assert len(some_real(run.config, n=99, seed=0)) == 8


def test_a_way_to_draw_must_fit_the_schedule(run):
    chain = replace(run.config, schedule=Cosine(steps=50))
    assert with_sampling(chain, SamplingConfig(steps=50)).sampling.steps == 50
    with pytest.raises(ConfigError, match="steps = 51, but the schedule has 50 times"):
        with_sampling(chain, SamplingConfig(steps=51))


# --- what is no run -----------------------------------------------------------------------------


def test_a_directory_that_is_missing_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match=r"^There is no run directory .*gone: give"):
        Run.open(tmp_path / "gone")


def test_a_directory_without_a_configuration_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match=r"is not a run directory, since it has no run\.toml"):
        Run.open(tmp_path)


def test_a_configuration_that_was_edited_wrongly_is_found_by_its_line(tiny_run, tmp_path):
    run = Run.open(shutil.copytree(tiny_run, tmp_path / "run"))
    file = run.path / "run.toml"
    text = file.read_text()
    line = text[: text.index("width = 8")].count("\n") + 1
    file.write_text(text.replace("width = 8", "widht = 8"))
    with pytest.raises(ConfigError, match=rf'"widht" in \[network\] of .*/run\.toml:{line} \(did'):
        _ = run.config


def test_a_configuration_that_is_no_text_is_said_to_be_unreadable(tiny_run, tmp_path):
    run = Run.open(shutil.copytree(tiny_run, tmp_path / "run"))
    (run.path / "run.toml").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match=r"run\.toml cannot be read"):
        _ = run.config


def test_a_run_without_a_checkpoint_cannot_draw(tiny_run, tmp_path):
    run = Run.open(shutil.copytree(tiny_run, tmp_path / "run"))
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(CheckpointError, match=r"has no whole checkpoint yet: let `kao train` run"):
        run.denoiser()
    with pytest.raises(CheckpointError, match="has no whole checkpoint yet"):
        kao.sample(run)


def test_a_run_draws_with_the_newest_whole_checkpoint(tiny_run, tmp_path):
    run = Run.open(shutil.copytree(tiny_run, tmp_path / "run"))
    newest, damages = run.checkpoint()
    assert (newest.images, damages) == (16, [])
    (newest.path / "model.safetensors").unlink()
    older, damages = run.checkpoint()
    assert older.images == 8
    assert [damage.endswith("model.safetensors is missing") for damage in damages] == [True]
    with pytest.warns(UserWarning, match="is missing: taking 000000008 instead"):
        run.denoiser()
